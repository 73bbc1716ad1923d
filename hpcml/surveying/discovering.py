"""A first profile of a cluster, of what its Slurm says."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcml.connection import bind
from hpcml.documents import changed
from hpcml.errors import ArgumentError, HpcmlError, few
from hpcml.settings import HOST, settings_of
from hpcml.sites import Node, Partition, Site
from hpcml.sites.layers import NAME, check_name
from hpcml.sites.profile import Ssh
from hpcml.surveying.cluster import cluster_of
from hpcml.surveying.devices import KINDS, named
from hpcml.surveying.facts import amount_text, time_text
from hpcml.surveying.limits import cpus_of, longest_of, most_nodes_of, submit_limits
from hpcml.surveying.model import Cluster, Gres, Kind, LiveNode, LivePartition
from hpcml.surveying.partitions import kind_text
from hpcml.surveying.shell import NOWHERE, Commands, Shell, shell_of
from hpcml.texts import plain

WORKSPACE = "~/hpcml"
RUNTIMES = ("apptainer", "singularity")
# What one figure of Slurm's plugins covers, by its documentation.
SCOPES = {
    **{"ibmaem": "node", "ipmi": "node", "pm_counters": "node", "xcc": "node"},
    **{"gpu": "device", "rapl": "cpu"},
}
HEAD = """\
# What Slurm says of this cluster (confidence A), and what was concluded from that (B).
# `unknown` is what it does not say: fill in what you know, and say where you know it from.
# `hpcml sites explain KEY` tells what a key means, `hpcml sites validate {name}` what is wrong.
"""
MORE = """\
# file_systems:           # where users write, what compute nodes see, what is deleted when
#   scratch: {path: "/scratch/{project}", purge: 90d}
# quota: []               # command that tells how much one may store
# cost_unit: core-hours   # what the site charges
"""


def runtime_of(shell: Commands) -> str | None:
    """What runs images on the login node, as profiles call it; ``None``: nothing that is known."""
    for name in RUNTIMES:
        done = shell.run(["env", name, "--version"])
        if done.exit_code == 0:
            said = done.stdout.decode(errors="replace")
            return next((it for it in ("apptainer", "singularity-ce") if it in said), None)
    return None


def discover(name: str | None, host: str | None = None, workspace: str = WORKSPACE) -> Discovery:
    """Ask a Slurm for all that a profile of it can say.

    Parameters
    ----------
    name : str, optional
        Of the profile. Default: what the cluster calls itself.
    host : str, optional
        By which ssh reaches it. Default: this machine is its login node.
    workspace : str
        Folder there for hpcml's files, which the profile is to say. It is not looked at.

    Raises
    ------
    ArgumentError
        It is no name or no host, or this is no login node.
    CommandError
        There is no Slurm, or it does not answer.
    TransportError
        The site cannot be reached.
    """
    if name is not None:
        check_name(name)
    if host is not None:
        _check_host(host)
    if host is None and shutil.which("scontrol") is None:
        problem = "there is no Slurm on this machine: scontrol is not on PATH"
        raise ArgumentError(problem, "Ask on a login node, or name one: --host HOST.")
    shell = _shell(name or host or "here", host)
    cluster = cluster_of(shell)
    if name is None:
        name = cluster.config.name or ""
        check_name(name)
    transport = "local" if host is None else "ssh"
    return Discovery(cluster, name, transport, host, workspace, runtime_of(shell))


def _check_host(host: str) -> None:
    try:
        HOST.check(host)
    except ValueError as error:
        raise ArgumentError(f"{host!r} is no host: {error}", "It is never an option.") from None


def _shell(name: str, host: str | None) -> Shell:
    """The shell of a site of which no more is known than the way there."""
    site = Site(
        name=name,
        scheduler="slurm",
        transport="local" if host is None else "ssh",
        ssh=None if host is None else Ssh(host=host),
        partitions={"unknown": Partition(node=Node(cpus=None, memory=None))},
    )
    return shell_of(site, bind(site, changed(settings_of(name), workspace=NOWHERE)))


@dataclass
class Discovery:
    """A profile of a cluster.

    Attributes
    ----------
    name : str
    transport : {"local", "ssh"}
    host : str or None
        By which ssh reaches it.
    workspace : str
    runtime : str or None
        What runs images on the login node.
    """

    cluster: Cluster
    name: str
    transport: str = "local"
    host: str | None = None
    workspace: str = WORKSPACE
    runtime: str | None = None
    _anchors: dict[tuple[str, ...], str] = field(default_factory=dict)

    def text(self) -> str:
        """The profile.

        Raises
        ------
        HpcmlError
            There is no partition for it.
        """
        if all(map(self._left_out, self.cluster.partitions.values())):
            problem = "the cluster shows no partition that a profile could have"
            raise HpcmlError(problem, "See what `scontrol show partition` shows you there.")
        self._anchors.clear()
        return HEAD.format(name=self.name) + "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield from (f"# Not answered: {plain(it)}" for it in self.cluster.unanswered)
        yield f"name: {_word(self.name)}"
        told = f"{self.cluster.config.name or self.name}, as its Slurm describes it"
        yield f"description: {_quoted(told)}"
        yield "scheduler: slurm"
        yield f"transport: {self.transport}"
        if self.host is not None:
            yield f"ssh: {{host: {_quoted(self.host)}}}"
        yield f"source: {_quoted(self._source())}"
        yield "confidence: A"
        yield from self._limits()
        yield '# account_rule: ""        # what accounts are called, and where they are from'
        yield "workspace:              # compute nodes must see it: scratch is better than home"
        yield f"  value: {_quoted(self.workspace)}"
        yield '  source: "what hpcml proposes, not looked at"'
        yield "  confidence: B"
        yield from self._container()
        yield from MORE.splitlines()
        yield from self._energy()
        yield "partitions:"
        # A job takes the first that it fits into: the cluster's own default.
        for live in sorted(self.cluster.partitions.values(), key=lambda it: not it.default):
            yield from self._partition(live)

    def _source(self) -> str:
        config = self.cluster.config
        asked = "scontrol show config, partition, node"
        told = {"assoc": self.cluster.associations, "qos": self.cluster.qos}
        known = ", ".join(name for name, it in told.items() if it is not None)
        asked += f"; sacctmgr show {known}" if known else ""
        return f"{asked}: {config.name}, Slurm {config.version}, {time.strftime('%Y-%m-%d')}"

    def _energy(self) -> Iterator[str]:
        known = [it for it in self.cluster.config.energy or () if it in SCOPES]
        if known:
            yield "energy:"
        for it in known:
            yield f"  - {{name: slurm, scope: {SCOPES[it]}, plugin: {it}}}"

    def _limits(self) -> Iterator[str]:
        config = self.cluster.config
        if config.max_array:
            yield f"max_array: {config.max_array}"
        limits = submit_limits(self.cluster, self.cluster.partitions.values())
        if least := min(limits.values(), default=0):
            yield f"max_submitted: {least}      # yours: others may have others"
        needed = self.cluster.needs_account
        if needed is None:
            yield "# account_required: true     # the cluster does not show whether it is so"
        else:
            yield f"account_required: {str(needed).lower()}"
        if config.kill_wait:
            yield f"kill_wait: {time_text(config.kill_wait)}"

    def _container(self) -> Iterator[str]:
        if self.runtime is None:
            yield "container: {runtime: unknown}   # none was found on the login node"
            return
        yield "container:"
        yield f"  runtime: {self.runtime}"
        yield '  source: "found on the login node; compute nodes were not looked at"'
        yield "  confidence: B"

    # --- partitions -----------------------------------------------------------------------

    def _partition(self, live: LivePartition) -> Iterator[str]:
        why = self._left_out(live)
        if why:
            yield f"  # {plain(live.name)} is left out: {why}"
            return
        kind = _usual(live)
        yield f"  {_word(live.name)}:"
        if live.state not in (None, "UP"):
            yield f"    # it was {plain(live.state)} at that time"
        if live.accounts is not None:
            yield "    # some accounts alone may use it, and those below them"
        yield from self._other_kinds(live, kind)
        fitting = sum(count for it, count in live.kinds.items() if _holds(it, kind))
        most = int(min(most_nodes_of(live, self.cluster), fitting))
        yield f"    nodes: {self._limit(live, most) if most else 'unknown'}"
        if live.exclusive is not None:
            yield f"    node_sharing: {'exclusive' if live.exclusive else 'shared'}"
        longest, _ = longest_of(live, self.cluster)
        if longest is None or math.isinf(longest):
            yield "    time: unknown         # Slurm has no limit here"
        else:
            yield f"    time: {self._limit(live, time_text(longest))}"
        yield from self._qos(live)
        if device := _device(kind):
            yield f"    gres: {_word(':'.join(filter(None, (device.name, device.type))))}"
        yield "    internet: unknown     # yes, no, proxy, push-only"
        yield from self._node(live, kind)

    def _limit(self, live: LivePartition, value: object) -> str:
        """A limit of a partition; a QOS that the cluster does not show may allow less."""
        if not self.cluster.has_unseen_qos(live):
            return str(value)
        source = "scontrol show partition; a QOS may allow less, and sacctmgr did not show it"
        return f"{{value: {value}, source: {_quoted(source)}, confidence: B}}"

    def _left_out(self, live: LivePartition) -> str:
        """Why a partition is not for this profile; empty if it is."""
        accounts = [it.account for it in self.cluster.associations or ()]
        if live.hidden:
            return "it is hidden"
        if not NAME.fullmatch(live.name):
            return "a profile cannot say its name"
        if not live.nodes:
            return "the cluster shows no nodes of it"
        if accounts and all(live.allows_account(it) is False for it in accounts):
            return "none of your accounts may use it"
        return ""

    def _other_kinds(self, live: LivePartition, kind: Kind) -> Iterator[str]:
        """A profile has one kind of nodes a partition."""
        others = [f"{live.kinds[it]} with {kind_text(it)}" for it in live.kinds if it != kind]
        if others:
            yield f"    # its nodes differ: beside {live.kinds[kind]} of those below,"
            yield from (f"    #   {plain(it)}" for it in others)

    def _qos(self, live: LivePartition) -> Iterator[str]:
        """Those that the user may ask for and that say anything."""
        yours = {name for it in self.cluster.associations or () for name in it.qos}
        there = self.cluster.qos or {}
        names = [it for it in there if it in yours and live.allows_qos(it) and NAME.fullmatch(it)]
        if len(names) < 2:  # the only one is that of all jobs
            return
        lines = []
        for name in names:
            qos = there[name]
            time = qos.max_time is not None and math.isfinite(qos.max_time)
            limits = [
                *([f"time: {time_text(qos.max_time or 0)}"] if time else []),
                *([f"nodes: {qos.max_nodes}"] if qos.max_nodes else []),
            ]
            lines.append(f"      {_word(name)}: {{{', '.join(limits)}}}")
        yield from self._once("qos", lines, "   # that you may use; others may have others")

    def _node(self, live: LivePartition, kind: Kind) -> Iterator[str]:
        alike = [node for node in live.nodes if node.kind == kind]
        yield from self._once("node", list(_node_lines(live, kind, alike)))

    def _once(self, key: str, lines: list[str], comment: str = "") -> Iterator[str]:
        """A mapping; where the same was said before, no more than that it is the same."""
        said = (key, *lines)
        if said in self._anchors:
            yield f"    {key}: *{self._anchors[said]}"
            return
        count = sum(known[0] == key for known in self._anchors)
        self._anchors[said] = f"{key}{count + 1}"
        yield f"    {key}: &{self._anchors[said]}{comment}"
        yield from lines


def _node_lines(live: LivePartition, kind: Kind, nodes: list[LiveNode]) -> Iterator[str]:
    features = set(nodes[0].features).intersection(*(node.features for node in nodes))
    if features:
        yield f"      # features: {few(sorted(features))}"
    device = _device(kind)
    if device is None:
        yield '      device: {kind: cpu, source: "Slurm knows of no devices there", confidence: B}'
    else:
        yield from _device_lines(device, sorted(features))
        yield f"      devices: {device.count}"
        others = [str(it) for it in kind.gres if it.name in KINDS and it != device]
        if others:
            yield f"      # and {plain(', '.join(others))}"
    architectures = {node.architecture for node in nodes if NAME.fullmatch(node.architecture or "")}
    architecture = architectures.pop() if len(architectures) == 1 else None
    yield f"      architecture: {_word(architecture) if architecture else 'unknown'}"
    if kind.cores and kind.threads:
        yield f"      cores: {kind.cores}"
        yield f"      threads_per_core: {kind.threads}"
    if kind.reserved_cores:
        yield f"      reserved_cores: {kind.reserved_cores}"
    yield f"      cpus: {cpus_of(kind, live) or 'unknown'}"
    yield f"      memory: {amount_text(kind.memory) if kind.memory else 'unknown'}"


def _device_lines(device: Gres, features: list[str]) -> Iterator[str]:
    found = named([*([device.type] if device.type else []), *features])
    yield "      device:"
    yield f"        kind: {device.name}"
    if found is None:
        yield "        vendor: unknown"
        yield "        model: unknown"
        return
    name, model = found
    yield f"        vendor: {model.vendor}"
    yield f"        model: {model.name}"
    yield f"        architecture: {model.architecture}"
    yield f"        memory: {model.memory or 'unknown'}"
    what = "by the name of its gres" if name == device.type else "by the nodes' feature"
    yield f"        source: {_quoted(f'{what}, {name}')}"
    yield "        confidence: B"


def _usual(live: LivePartition) -> Kind:
    """The kind that most nodes are of; of as many, one without devices, where all jobs fit."""
    return min(live.kinds, key=lambda kind: (-live.kinds[kind], _device(kind) is not None))


def _device(kind: Kind) -> Gres | None:
    said = (it for it in kind.gres if it.name in KINDS and NAME.fullmatch(it.type or it.name))
    return next(said, None)


def _holds(larger: Kind, kind: Kind) -> bool:
    """Whether a node can run what one of another kind can."""
    wanted, there = _device(kind), _device(larger)
    return (
        (larger.cpus or 0) >= (kind.cpus or 0)
        and (larger.memory or 0) >= (kind.memory or 0)
        and (
            wanted is None
            or (
                there is not None
                and (there.name, there.type) == (wanted.name, wanted.type)
                and there.count >= wanted.count
            )
        )
    )


def _quoted(text: str) -> str:
    return json.dumps(plain(text), ensure_ascii=False)


def _word(text: str) -> str:
    """A word that is no number and means nothing to YAML, else quoted."""
    plain = re.fullmatch(r"[A-Za-z_][\w.+:-]*", text, re.ASCII) and not text.endswith(":")
    meant = text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "unknown")
    return text if plain and not meant else _quoted(text)
