"""What Slurm's commands answer, read. Fields that are not known are passed over."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcml.surveying.model import (
    Association,
    Config,
    Gres,
    Kind,
    LiveNode,
    LivePartition,
    LiveQos,
)
from hpcml.surveying.words import (
    Fields,
    amounts,
    count,
    duration,
    fields,
    limit,
    listed,
    said,
    settings,
    words,
)

MEBI = 1 << 20  # bytes: Slurm counts memory in these
OF_ASSOCIATION = ("Account", "Partition", "QOS", "MaxSubmitJobs")
OF_QOS = ("Name", "MaxWall", "MaxTRES", "MaxSubmitPU")


def parse_config(answer: str) -> Config:
    """What ``scontrol show config`` says."""
    told = settings(answer)
    storage = told.get("AccountingStorageType")
    enforced, energy = told.get("AccountingStorageEnforce"), told.get("AcctGatherEnergyType")
    plugins = tuple(one.removeprefix("acct_gather_energy/") for one in words(energy))
    return Config(
        name=said(told.get("ClusterName")),
        version=said(told.get("SLURM_VERSION")),
        max_array=_max_array(told),
        kill_wait=duration(told.get("KillWait")),
        select=said(told.get("SelectType")),
        enforced=None if enforced is None else frozenset(words(enforced.lower())),
        accounting=None if storage is None else "slurmdbd" in storage,
        energy=None if energy is None else tuple(one for one in plugins if one != "none"),
    )


def _max_array(told: Fields) -> int | None:
    """One more than the highest index; or how many there may be, where that is less."""
    indices = count(told.get("MaxArraySize"))
    tasks = amounts(told.get("SchedulerParameters")).get("max_array_tasks")
    return indices if indices is None or tasks is None else min(indices, tasks)


def parse_nodes(answer: str) -> tuple[LiveNode, ...]:
    """What ``scontrol --oneliner show node`` says; what is no node is passed over."""
    return tuple(
        _node(told) for told in map(fields, answer.splitlines()) if said(told.get("NodeName"))
    )


def _node(told: Fields) -> LiveNode:
    return LiveNode(
        name=told["NodeName"],
        kind=_kind(told),
        architecture=said(told.get("Arch")),
        features=words(told.get("AvailableFeatures")),
        state=tuple(told.get("State", "").replace("*", "").split("+")),
        partitions=words(told.get("Partitions")),
    )


def _kind(told: Fields) -> Kind:
    cpus, threads = count(told.get("CPUTot")), count(told.get("ThreadsPerCore"))
    sockets, in_socket = count(told.get("Sockets")), count(told.get("CoresPerSocket"))
    usable = count(told.get("CPUEfctv"))
    reserved = count(told.get("CoreSpecCount"))
    if reserved is None:
        ids = listed(told.get("CPUSpecList"))
        reserved = None if ids is None else -(-ids // (threads or 1))
    cores = None if sockets is None or in_socket is None else sockets * in_socket
    if usable is None and cpus is not None:
        # Versions before 21.08 do not say it. Of a core Slurm counts its threads, or one CPU.
        usable = cpus - (reserved or 0) * (cpus // cores if cores else 1)
    memory, kept = count(told.get("RealMemory")), count(told.get("MemSpecLimit"))
    return Kind(
        cpus=usable,
        cores=cores,
        threads=threads,
        reserved_cores=reserved or 0,  # said of nodes that have some
        memory=None if memory is None else (memory - (kept or 0)) * MEBI,
        gres=parse_gres(told.get("Gres")),
    )


def parse_gres(text: str | None) -> tuple[Gres, ...]:
    """Resources: ``gpu:a100:4(S:0-1),lustre:no_consume:4G``; one, if no number is said."""
    plain = re.sub(r"\([^)]*\)|:no_consume", "", said(text) or "")
    return tuple(_gres(one.split(":")) for one in words(plain))


def _gres(parts: Sequence[str]) -> Gres:
    name, *rest = parts
    number = amounts(f"it={rest[-1]}").get("it") if rest else None
    kinds = rest if number is None else rest[:-1]
    return Gres(name, kinds[0] if kinds else None, 1 if number is None else number)


def parse_partitions(answer: str, nodes: Sequence[LiveNode]) -> dict[str, LivePartition]:
    """What ``scontrol --oneliner show partition`` says, and which nodes are in each."""
    members: dict[str, list[LiveNode]] = {}
    for node in nodes:
        for name in node.partitions:
            members.setdefault(name, []).append(node)
    told = (line for line in map(fields, answer.splitlines()) if said(line.get("PartitionName")))
    found = (_partition(line, members.get(line["PartitionName"], ())) for line in told)
    return {partition.name: partition for partition in found}


def _partition(told: Fields, nodes: Sequence[LiveNode]) -> LivePartition:
    return LivePartition(
        name=told["PartitionName"],
        default=told.get("Default") == "YES",
        hidden=told.get("Hidden") == "YES",
        state=said(told.get("State")),
        max_time=duration(told.get("MaxTime")),
        max_nodes=limit(told.get("MaxNodes")),
        max_cpus_per_node=limit(told.get("MaxCPUsPerNode")),
        exclusive=_exclusive(told),
        qos=said(told.get("QoS")),
        accounts=_allowed(told.get("AllowAccounts")),
        allowed_qos=_allowed(told.get("AllowQos")),
        denied_accounts=words(told.get("DenyAccounts", "").lower()),
        denied_qos=words(told.get("DenyQos", "").lower()),
        nodes=tuple(nodes),
    )


def _exclusive(told: Fields) -> bool | None:
    """Whether jobs get whole nodes: ``OverSubscribe=EXCLUSIVE``, later ``Exclusive=NODE``."""
    sharing = told.get("OverSubscribe")
    if sharing is None and "Exclusive" not in told:
        return None
    return sharing == "EXCLUSIVE" or told.get("Exclusive") == "NODE"


def _allowed(text: str | None) -> tuple[str, ...] | None:
    return None if said(text) in (None, "ALL") else words((text or "").lower())


def parse_associations(answer: str) -> tuple[Association, ...]:
    """What ``sacctmgr show assoc`` says, in the columns :data:`OF_ASSOCIATION`."""
    return tuple(
        Association(account, said(partition), words(qos), count(submit))
        for account, partition, qos, submit in _rows(answer, len(OF_ASSOCIATION))
    )


def parse_qos(answer: str) -> dict[str, LiveQos]:
    """What ``sacctmgr show qos`` says, in the columns :data:`OF_QOS`."""
    return {
        name: LiveQos(name, duration(wall), amounts(most).get("node"), count(submit))
        for name, wall, most, submit in _rows(answer, len(OF_QOS))
    }


def _rows(answer: str, columns: int) -> list[list[str]]:
    rows = (line.split("|") for line in answer.splitlines())
    return [row for row in rows if len(row) == columns]


def first_word(answer: str) -> str | None:
    return next((word for line in answer.splitlines() if (word := said(line.strip()))), None)
