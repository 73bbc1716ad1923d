"""Where a job runs on a site, and how much of it it takes."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from hpcml import units
from hpcml.errors import PlanError, nearest
from hpcml.job import Resources
from hpcml.resolving import Resolved
from hpcml.sites import Partition, Site

OPTIONS = ("partition",)


@dataclass(frozen=True)
class Placement:
    """What one run of a job occupies.

    Attributes
    ----------
    name, partition
        The partition.
    nodes : int
    tasks : int
        Processes on each node.
    cpus : int
        CPUs of each of them.
    devices : int
        On each node.
    memory : int or None
        Bytes on each node; ``None``: nobody said.
    """

    name: str
    partition: Partition
    nodes: int
    tasks: int
    cpus: int
    devices: int
    memory: int | None

    def as_data(self) -> dict[str, Any]:
        """What of it is part of a plan."""
        return {
            "partition": self.name,
            "nodes": self.nodes,
            "tasks": self.tasks,
            "cpus": self.cpus,
            "devices": self.devices,
            "gres": self.partition.gres,
            "memory": None if self.partition.memory_option == "never" else self.memory,
        }


def place(resolved: Resolved, site: Site, decisions: list[str]) -> Placement:
    """Find the partition, and check that the job fits into it.

    Raises
    ------
    PlanError
        It does not; the message names the field and what would fit.
    """
    resources = resolved.resources
    name, partition = _partition(resources, site, decisions)
    nodes = _nodes(resources, name, partition)
    devices = _devices(resources, name, partition, nodes)
    tasks = _tasks(resolved, site, name, nodes, devices)
    cpus = _cpus(resources, name, partition, tasks)
    return Placement(
        name, partition, nodes, tasks, cpus, devices, _memory(resources, name, partition)
    )


def _partition(resources: Resources, site: Site, decisions: list[str]) -> tuple[str, Partition]:
    """The partition: asked for, else the first with the right kind of device."""
    for option in resources.options:
        if option not in OPTIONS:
            raise PlanError("resources.options", f"unknown {option!r}", nearest(option, OPTIONS))
    wanted = resources.options.get("partition")
    if wanted is not None and wanted not in site.partitions:
        raise PlanError(
            "resources.options.partition",
            f"{site.name} has no partition {wanted!r}",
            nearest(wanted, site.partitions),
        )
    kinds = {part.node.device.kind for part in site.partitions.values()}
    for name, partition in site.partitions.items():
        if wanted in (None, name) and partition.node.device.kind == resources.device:
            why = "asked for" if wanted else f"the first with device {resources.device!r}"
            decisions.append(f"partition {name}: {why}")
            return name, partition
    if wanted is not None and resources.device in kinds:
        has = site.partitions[wanted].node.device.kind
        raise PlanError(
            "resources.device",
            f"partition {wanted!r} has no device {resources.device!r}",
            nearest(resources.device, [has]),
        )
    raise PlanError(
        "resources.device",
        f"{site.name} has no device {resources.device!r}",
        nearest(resources.device, kinds),
    )


def _nodes(resources: Resources, name: str, partition: Partition) -> int:
    nodes = _count("nodes", resources.nodes)
    most = partition.most_nodes()
    if nodes is None or (most is not None and nodes > most):
        raise PlanError(
            "resources.nodes",
            f"{name} gives at most {most}, the job asks for {nodes}",
            f"The nearest that fits: nodes={most}.",
        )
    return nodes


def _devices(resources: Resources, name: str, partition: Partition, nodes: int) -> int:
    """Devices on each node."""
    there = partition.node.devices
    wanted = _count("devices", resources.devices, least=0)
    if wanted is None:
        return there
    if wanted > there * nodes:
        of = f"a node of {name} has" if nodes == 1 else f"{nodes} nodes of {name} have"
        raise PlanError(
            "resources.devices",
            f"{of} {there * nodes}, the job asks for {wanted}",
            f"The nearest that fits: devices={there * nodes or None}.",
        )
    if wanted % nodes:
        raise PlanError(
            "resources.devices",
            f"{wanted} cannot be shared out to {nodes} nodes alike",
            f"The nearest that can: devices={wanted + nodes - wanted % nodes}.",
        )
    return wanted // nodes


def _tasks(resolved: Resolved, site: Site, name: str, nodes: int, devices: int) -> int:
    """Processes on each node: one a device, or one."""
    wanted = _count("tasks", resolved.resources.tasks)
    alone = site.scheduler == "process" or resolved.entry["kind"] == "function"
    if wanted is None:
        return 1 if alone else devices or 1
    if alone and wanted > 1:
        who = name if site.scheduler == "process" else "a function"
        raise PlanError(
            "resources.tasks",
            f"{who} starts one process a run, the job asks for {wanted}",
            "Ask for more cpus, and start processes in the job.",
        )
    if wanted % nodes:
        raise PlanError(
            "resources.tasks",
            f"{wanted} cannot be shared out to {nodes} nodes alike",
            f"The nearest that can: tasks={wanted + nodes - wanted % nodes}.",
        )
    return wanted // nodes


def _cpus(resources: Resources, name: str, partition: Partition, tasks: int) -> int:
    """CPUs of each task."""
    cpus, there = _count("cpus", resources.cpus) or 1, partition.node.cpus
    if isinstance(there, int) and cpus * tasks > there:
        each = f"{tasks} tasks with {cpus} each" if tasks > 1 else str(cpus)
        raise PlanError(
            "resources.cpus",
            f"a node of {name} has {there}, the job asks for {each}",
            f"The nearest that fits: cpus={there // tasks or None}.",
        )
    return cpus


def _memory(resources: Resources, name: str, partition: Partition) -> int | None:
    if resources.memory is None:
        return None
    there, memory = partition.node.memory_bytes, units.memory(resources.memory, "resources.memory")
    if there is not None and not 0 < memory <= there:
        raise PlanError(
            "resources.memory",
            f"a node of {name} has {units.memory_text(there)}, the job asks for {resources.memory}",
            f'The nearest that fits: memory="{there >> 20} MiB".',
        )
    return memory


def _count(field: str, value: object, least: int = 1) -> int | None:
    if value is None:
        return None
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        value = operator.index(value)  # NumPy's integers
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PlanError(
            f"resources.{field}",
            f"{value!r} is no number from {least} up",
            f"Write it like {field}={least or 1}.",
        )
    return value
