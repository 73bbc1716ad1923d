"""A partition of a profile beside the one of the cluster."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hpcml import units
from hpcml.errors import nearest
from hpcml.sites import Partition
from hpcml.surveying.answers import MEBI
from hpcml.surveying.facts import Facts, Place, amount_text, time_text
from hpcml.surveying.finding import Finding, bad, unknown, warn
from hpcml.surveying.limits import cpus_of, longest_of, most_nodes_of
from hpcml.surveying.model import Cluster, Gres, Kind, LiveNode, LivePartition

OUT = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "NOT_RESPONDING"}


def compare_partition(
    facts: Facts, name: str, partition: Partition, live: LivePartition, cluster: Cluster
) -> Iterator[Finding]:
    """What the cluster says of a partition that it has."""
    yield from _Beside(facts, ("partitions", name), partition, live, cluster).findings()


@dataclass(frozen=True)
class _Beside:
    facts: Facts
    place: Place
    said: Partition
    live: LivePartition
    cluster: Cluster

    def findings(self) -> Iterator[Finding]:
        if self.live.state not in (None, "UP"):
            told = f"{'.'.join(self.place)}: the cluster says that it is {self.live.state}"
            waiting = "Jobs wait" if self.live.state == "DOWN" else "It takes no jobs"
            yield warn(told, f"{waiting} until it is up again.")
        yield from self._time()
        yield from self._sharing()
        yield from self._constraint()
        nodes = self._nodes()
        if nodes:
            yield from self._of_nodes(nodes)
        elif not self.live.nodes:
            yield unknown(f"{'.'.join(self.place)}.node: the cluster shows no nodes of it")

    def _time(self) -> Iterator[Finding]:
        said = self.said.time
        if isinstance(said, list):
            longest: int | None = max(limit.seconds(1) for limit in said)
        else:
            longest = None if said is None else units.seconds(said)
        live, word = longest_of(self.live, self.cluster)
        yield from self.facts.most((*self.place, "time"), longest, live, word, time_text)

    def _sharing(self) -> Iterator[Finding]:
        whole = self.live.exclusive or self.cluster.config.select == "select/linear"
        live = None if self.live.exclusive is None else "exclusive" if whole else "shared"
        place = (*self.place, "node_sharing")
        yield from self.facts.same(place, self.said.node_sharing, live, "OverSubscribe")

    def _constraint(self) -> Iterator[Finding]:
        there = {feature for node in self.live.nodes for feature in node.features}
        missing = [word for word in _features(self.said.constraint) if word not in there]
        place = (*self.place, "constraint")
        if missing and self.live.nodes:
            yield self.facts.absent(place, missing[0], there, "feature")
        elif self.said.constraint and self.live.nodes:
            yield from self.facts.agrees(place)

    def _nodes(self) -> list[LiveNode]:
        """Those that jobs can be on."""
        wanted = set(_features(self.said.constraint))
        if "|" in (self.said.constraint or ""):
            return [node for node in self.live.nodes if wanted & {*node.features}]
        return [node for node in self.live.nodes if wanted <= {*node.features}]

    def _of_nodes(self, nodes: list[LiveNode]) -> Iterator[Finding]:
        kinds = Counter(node.kind for node in nodes)
        kind = min(kinds, key=lambda it: (self._differs(it), -kinds[it]))
        alike = [node for node in nodes if node.kind == kind]
        fitting = sum(count for it, count in kinds.items() if self._fits(it))
        yield from self._out(nodes)
        yield from self._most_nodes(fitting or len(alike))
        yield from self._shape(kind)
        yield from self._devices(kind)
        found = {node.architecture for node in alike} - {None}
        architecture = found.pop() if len(found) == 1 else None
        if architecture is not None:  # nodes that were never up do not say it
            place = (*self.place, "node", "architecture")
            said = self.said.node.architecture
            yield from self.facts.same(place, said, architecture, "Arch")
        if len(kinds) > 1:
            others = "; ".join(f"{kinds[it]} with {kind_text(it)}" for it in kinds if it != kind)
            told = f"{'.'.join(self.place)}: the profile says one kind of nodes"
            advice = "Jobs may land on them; a constraint can keep them off."
            yield warn(f"{told}, the cluster has others in it, too: {others}", advice)

    def _out(self, nodes: list[LiveNode]) -> Iterator[Finding]:
        """Whether there is no node that would take a job now."""
        if all(OUT & {*node.state} for node in nodes):
            states = ", ".join(sorted({"+".join(node.state) for node in nodes}))
            told = f"{'.'.join(self.place)}: none of its nodes takes jobs now ({states})"
            yield warn(told, "Jobs wait or are refused; `sinfo -R` there may say why.")

    def _differs(self, kind: Kind) -> tuple[bool, int]:
        """How far a kind of nodes is from what is said: its devices first."""
        node = self.said.node
        devices = _count(self._gres_of(kind)) != self._asked_devices
        rest = (node.cpus != self._cpus(kind), self._memory != kind.memory)
        return devices, sum(rest)

    def _fits(self, kind: Kind) -> bool:
        """Whether a node has at least what is said."""
        said = self.said.node
        enough = (
            (said.cpus, self._cpus(kind)),
            (self._memory, kind.memory),
            (self._asked_devices, _count(self._gres_of(kind))),
        )
        return all(not isinstance(least, int) or least <= (most or 0) for least, most in enough)

    def _most_nodes(self, there: int) -> Iterator[Finding]:
        place, said = (*self.place, "nodes"), self.said.nodes
        limit = most_nodes_of(self.live, self.cluster)
        if said is not None and there < said <= limit:
            told = f"{self.facts.named(place)}, the cluster has {there} such nodes"
            yield warn(told, f"Write nodes: {there}, if they are all that there will be.")
        else:
            yield from self.facts.most(place, said, min(limit, there), "MaxNodes, and its nodes")

    def _shape(self, kind: Kind) -> Iterator[Finding]:
        node, place = self.said.node, (*self.place, "node")
        cpus = None if node.cpus == "auto" else node.cpus
        yield from self.facts.most((*place, "cpus"), cpus, self._cpus(kind), "CPUEfctv")
        yield from self.facts.most(
            *((*place, "memory"), self._memory, kind.memory, "RealMemory", amount_text),
            harmless=self.said.memory_option in ("implicit", "never"),
        )
        # Of cores Slurm knows what it was told: it may count threads as such.
        for key, said, live in (
            ("cores", node.cores, kind.cores),
            ("threads_per_core", node.threads_per_core, kind.threads),
        ):
            if said is not None and live is not None and said != live:
                told = self.facts.named((*place, key))
                advice = "Look which it is: hpcml itself counts by cpus."
                yield warn(f"{told}, the cluster counts {live}", advice)
            elif said is not None and live is not None:
                yield from self.facts.agrees((*place, key))
        if node.reserved_cores or kind.reserved_cores:
            reserved = (*place, "reserved_cores")
            counts = node.reserved_cores, kind.reserved_cores
            yield from self.facts.same(reserved, *counts, "CoreSpecCount")

    # --- devices --------------------------------------------------------------------------

    @property
    def _asked_devices(self) -> int:
        """Devices that Slurm must know of."""
        return 0 if self.said.asks_devices_by == "none" else self.said.node.devices

    def _gres_of(self, kind: Kind) -> list[Gres]:
        """The resources of a node that the profile's name means."""
        name, _, model = (self.said.gres or "gpu").partition(":")
        named = [it for it in kind.gres if it.name == name]
        return [it for it in named if it.type == model] if model else named

    def _devices(self, kind: Kind) -> Iterator[Finding]:
        there = self._gres_of(kind)
        listed = ",".join(map(str, kind.gres)) or "none"
        count, place = _count(there), (*self.place, "node", "devices")
        if self.said.asks_devices_by == "none":
            if count:
                told = f"{'.'.join(self.place)}: the cluster has devices there (Gres={listed})"
                write = f"gres: {there[0].name}, and node.devices: {count}"
                yield warn(f"{told} that are not asked for", f"Write {write}")
        elif not there:
            key = (*self.place, "gres" if self.said.gres else "devices_by")
            told = self.facts.named(key)
            names = [":".join(filter(None, (it.name, it.type))) for it in kind.gres]
            write = nearest(self.said.gres or "gpu", names)
            yield bad(f"{told}, the cluster's nodes have {listed} (Gres)", f"{write}.")
        else:
            if self.said.gres:
                yield from self.facts.agrees((*self.place, "gres"))
            yield from self.facts.same(place, self.said.node.devices, count, f"Gres={listed}")

    @property
    def _memory(self) -> int | None:
        """In bytes, but whole MiB: Slurm counts in these."""
        said = self.said.node.memory_bytes
        return None if said is None else -(-said // MEBI) * MEBI

    def _cpus(self, kind: Kind) -> int | None:
        return cpus_of(kind, self.live)


def kind_text(kind: Kind) -> str:
    """A kind of nodes, shortly."""
    memory = None if kind.memory is None else amount_text(kind.memory)
    devices = ",".join(map(str, kind.gres))
    return ", ".join(filter(None, (f"{kind.cpus} CPUs", memory, devices)))


def _count(gres: list[Gres]) -> int:
    return sum(it.count for it in gres)


def _features(constraint: str | None) -> list[str]:
    """The features that a constraint names: ``gpu&hbm40g``, ``[rack1*2&rack2*4]``."""
    return re.findall(r"[A-Za-z_][\w.:-]*", re.sub(r"\*\d+", "", constraint or ""))
