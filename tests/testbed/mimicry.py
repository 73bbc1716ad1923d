"""Slurm's nodes, partitions, QOS and accounts as the profile of a real site says they are.

Of each kind of node there are two at most. Of what the profile does not know there is plenty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcml import units
from hpcml.sites import Node, Partition, Site
from tests.testbed import slurmconf
from tests.testbed.slurmconf import Switches

NODES = 2  # of each kind
PLENTY = {"cpus": 128, "memory": 1 << 20}  # of a node; in MiB
HOSTS = ("gpu1", "gpu2")  # where they can really be
PAYING = slurmconf.ACCOUNTS  # the usual account, and that of partitions with one of their own


@dataclass
class Kind:
    """Nodes that are alike, and the partitions that have them."""

    node: Node
    features: str
    gres: str
    partitions: list[str] = field(default_factory=list)
    count: int = NODES

    @property
    def names(self) -> list[str]:
        return [f"{self.partitions[0]}-n{number}" for number in range(1, self.count + 1)]


def kinds(site: Site) -> list[Kind]:
    """The kinds of nodes of a site."""
    found: dict[tuple[Node, str, str], Kind] = {}
    for name, partition in site.partitions.items():
        alike = partition.node, _features(partition), _gres(partition)
        kind = found.setdefault(alike, Kind(*alike))
        kind.partitions.append(name)
        kind.count = min(kind.count, partition.total_nodes or partition.nodes or NODES)
    return [*found.values()]


def really(site: Site, partition: str) -> dict[str, str]:
    """The hosts on which the nodes of one partition are up, by the nodes' names."""
    kind = next(kind for kind in kinds(site) if partition in kind.partitions)
    return dict(zip(kind.names, HOSTS, strict=False))


def _node_lines(site: Site, up: dict[str, str]) -> Iterator[str]:
    """Lines of ``slurm.conf`` for nodes: those that are not up could be, by the power saving."""
    for kind in kinds(site):
        shape = f"{_cpus(kind.node)} RealMemory={_megabytes(kind.node)}"
        shape += f" Feature={kind.features}" if kind.features else ""
        shape += f" Gres={kind.gres}" if kind.gres else ""
        for name in kind.names:
            place = f"NodeHostname={up[name]} State=UNKNOWN" if name in up else "State=CLOUD"
            yield f"NodeName={name} {shape} {place}"


def _gres_conf(site: Site, up: dict[str, str]) -> str:
    """``gres.conf``: files stand for devices."""
    lines = ["AutoDetect=off"]
    for kind in kinds(site):
        for name in [name for name in kind.names if name in up and kind.gres]:
            model = kind.gres.split(":")[1] if kind.gres.count(":") > 1 else ""
            typed = f" Type={model}" if model else ""
            files = f"/dev/nvidia[0-{kind.node.devices - 1}]"
            lines.append(f"NodeName={name} Name=gpu{typed} File={files}")
    return "\n".join([*lines, ""])


def _partition_lines(site: Site) -> Iterator[str]:
    """Lines of ``slurm.conf`` for partitions.

    Those that no job names are one, the default: constraint, QOS or account decide in it.
    """
    nodes = {name: kind.names for kind in kinds(site) for name in kind.partitions}
    unnamed = [name for name, part in site.partitions.items() if not part.partition_option]
    if unnamed:
        together = {node: None for name in unnamed for node in nodes[name]}
        first = site.partitions[unnamed[0]]
        yield f"PartitionName={unnamed[0]} Nodes={','.join(together)} Default=YES {_sharing(first)}"
    for name, partition in site.partitions.items():
        if name not in unnamed:
            limits = f"MaxTime={_longest(partition)} MaxNodes={partition.nodes or 'UNLIMITED'}"
            account = PAYING[1] if partition.own_account else PAYING[0]
            paid = f"AllowAccounts={account}{partition.account_suffix or ''}"
            what = f"{limits} {_sharing(partition)} {paid}"
            yield f"PartitionName={name} Nodes={','.join(nodes[name])} {what}"


def qos(site: Site) -> dict[str, list[str]]:
    """The qualities of service, and their limits as ``sacctmgr`` takes them."""
    return {
        name: [
            *(["MaxWall=" + _minutes(units.seconds(it.time))] if it.time else []),
            *([f"MaxTRESPerJob=node={it.nodes}"] if it.nodes else []),
            "Flags=DenyOnLimit,PartitionTimeLimit,PartitionMaxNodes",
        ]
        for partition in site.partitions.values()
        for name, it in partition.qos.items()
    }


def accounts(site: Site) -> list[str]:
    """Those that pay by the site's rules, beside the box's own."""
    suffixes = {it.account_suffix for it in site.partitions.values() if it.account_suffix}
    return [account + suffix for account in PAYING for suffix in sorted(suffixes)]


def files(site: Site, up: dict[str, str], switches: Switches) -> dict[str, str]:
    """What differs in ``/etc/slurm`` from a box that is like no site."""
    settings = slurmconf.settings(switches) | {
        "MaxArraySize": site.max_array or switches.max_array_size,
        "AccountingStorageEnforce": "associations,limits,qos",
        "EnforcePartLimits": "ALL",
        # Nodes that are not up are thought to be asleep.
        "ResumeProgram": "/bin/true",
        "SuspendProgram": "/bin/true",
        "SuspendTime": -1,
    }
    del settings["DefMemPerCPU"]  # else a whole node's CPUs would ask for more than it has
    rules = {partition.memory_option for partition in site.partitions.values()}
    found = {"gres.conf": _gres_conf(site, up)}
    if rules & {"never", "required"}:
        settings["JobSubmitPlugins"] = "lua"
        found["job_submit.lua"] = slurmconf.memory_rule(required="required" in rules)
    nodes, partitions = _node_lines(site, up), _partition_lines(site)
    return {**found, "slurm.conf": slurmconf.slurm_conf(settings, nodes, partitions)}


def _features(partition: Partition) -> str:
    return ",".join(re.findall(r"\w+", partition.constraint or ""))


def _gres(partition: Partition) -> str:
    """Where devices come with the node, Slurm knows of none."""
    if partition.asks_devices_by == "none":
        return ""
    return f"{partition.gres or 'gpu'}:{partition.node.devices}"


def _cpus(node: Node) -> str:
    threads = node.threads_per_core or 1
    cores = (node.cpus if isinstance(node.cpus, int) else PLENTY["cpus"]) // threads
    cores += node.reserved_cores
    shape = f"CPUs={cores * threads} Sockets=1 CoresPerSocket={cores} ThreadsPerCore={threads}"
    return shape + (f" CoreSpecCount={node.reserved_cores}" if node.reserved_cores else "")


def _megabytes(node: Node) -> int:
    return PLENTY["memory"] if node.memory_bytes is None else -(-node.memory_bytes // 2**20)


def _sharing(partition: Partition) -> str:
    return f"OverSubscribe={'EXCLUSIVE' if partition.node_sharing == 'exclusive' else 'NO'}"


def _longest(partition: Partition) -> str:
    """Slurm has no word for limits that depend on the number of nodes: the longest one it is."""
    if isinstance(partition.time, list):
        return _minutes(max(limit.seconds(1) for limit in partition.time))
    return "UNLIMITED" if partition.time is None else _minutes(units.seconds(partition.time))


def _minutes(seconds: int) -> str:
    return str(seconds // 60)
