"""Whether a job fits into a partition, and how much of it it then takes.

Only a fact that somebody vouches for refuses a job. What is a hint, or not known, is said.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hpcml import units
from hpcml.errors import PlanError
from hpcml.planning.asked import Asked
from hpcml.planning.sources import said
from hpcml.resolving import Resolved
from hpcml.sites import Site

# A job that fails by the last of these has come near.
CHECKS = (
    "account",
    "image",
    "resources.min_device_memory",
    "resources.options.gres",
    "resources.devices",
    "resources.nodes",
    "resources.tasks",
    "resources.cpus",
    "resources.memory",
    "resources.time",
)


class Misfit(Exception):
    """A partition cannot run a job.

    Attributes
    ----------
    error : PlanError
    nearness : tuple
        The greater, the less the job would have to change.
    broken : set of str
        Fields, as in `CHECKS`, of all that speaks against it.
    """

    def __init__(self, field: str, problem: str, advice: str, limit: float = 0) -> None:
        self.error = PlanError(field, problem, advice)
        self.nearness = CHECKS.index(field), limit
        self.broken = {field}


class Fitting:
    """A job in one partition, with one quality of service.

    Attributes
    ----------
    nodes : int
    devices, tasks : int
        On each node.
    cpus : int
        Of each task.
    doubts : list of str
        What nobody knows for sure, though the job relies on it.
    beyond : list of str
        Those in which the job asks for more than a hint says there is.
    unsure : set of str
        What the job asks for within a limit that is a hint, or not known: fields, as in `CHECKS`.

    Raises
    ------
    Misfit
        It does not fit: the first of what speaks against it, after all was looked at.
    """

    def __init__(
        self, resolved: Resolved, asked: Asked, site: Site, name: str, qos: str | None
    ) -> None:
        self.resolved, self.asked, self.site = resolved, asked, site
        self.name, self.qos = name, qos
        self.partition = site.partitions[name]
        self.key = f"partitions.{name}"
        self.doubts: list[str] = []
        self.beyond: list[str] = []
        self.unsure: set[str] = set()
        self._misfits: list[Misfit] = []
        # Of these hpcml starts one process a run.
        self.alone = site.scheduler == "process" or resolved.entry["kind"] == "function"
        self._check_image()
        self._check_device_memory()
        self._check_gres()
        self.nodes = asked.nodes or self._fewest_nodes()
        self.devices = self._devices()
        self._check_nodes()
        self.tasks = self._tasks()
        self.cpus = asked.cpus or self._share_of_cpus()
        self._check_cpus()
        self._check_memory()
        self._check_time()
        if self._misfits:
            first = self._misfits[0]
            first.broken = {misfit.error.field for misfit in self._misfits}
            raise first

    def said(self, key: str) -> str:
        """Who says a fact of the partition."""
        return said(self.site, f"{self.key}.{key}")

    # --- which node -----------------------------------------------------------------------

    def _check_image(self) -> None:
        """What is built for other CPUs does not start."""
        image, there = self.resolved.image_architecture, self.partition.node.architecture
        if image is None and self.resolved.image_path is not None:
            told = (
                f"those of {self.name} are {there or 'not known'}{self.said('node.architecture')}"
            )
            self.doubts.append(f"image: for which CPUs it is built cannot be read; {told}")
        if image is None or image == there:
            return
        if there is None:
            return self._doubt("the architecture of its CPUs is not known")
        told = f"{there}{self.said('node.architecture')}"
        problem = f"it is built for {image}, and the CPUs of {self.name} are {told}"
        misfit = Misfit("image", problem, f"Build or pull it for {there}.")
        self._refuse("node.architecture", misfit, f"its CPUs are {told}")

    def _check_device_memory(self) -> None:
        there = self.partition.node.device.memory_bytes
        if self.asked.device_memory is not None:
            self._check(
                "resources.min_device_memory",
                "node.device.memory",
                "memory of a device",
                there,
                self.asked.device_memory,
                f'min_device_memory="{(there or 0) >> 20} MiB"',
                units.memory_text,
            )

    def _check_gres(self) -> None:
        """Where devices come with the node, asking for them is refused, or waits for ever."""
        asks = "gres" in self.resolved.resources.options
        if not asks or self.partition.devices_by != "none":
            return
        told = self.said("devices_by")
        problem = f"devices of {self.name} come with the node, and --gres is not to be said{told}"
        misfit = Misfit("resources.options.gres", problem, "Leave it out.")
        self._refuse("devices_by", misfit, f"devices come with the node{told}")

    # --- how much of it -------------------------------------------------------------------

    def _fewest_nodes(self) -> int:
        """As few nodes as hold the devices and the tasks."""
        node, asked = self.partition.node, self.asked
        if self.alone:
            return 1
        fewest = 1
        if asked.devices and node.devices:
            fewest = -(-asked.devices // node.devices)
        if asked.tasks and isinstance(node.cpus, int):
            room = max(1, node.cpus // (asked.cpus or 1))
            fewest = max(fewest, -(-asked.tasks // room))
        return fewest

    def _check_nodes(self) -> None:
        self._check_total_nodes()
        most = self._unless_other_qos(self.partition.most_nodes(self.qos))
        if self.nodes > 1 or most is not None:
            key = self.partition.key_of("nodes", self.qos)
            what = "most nodes of a job"
            self._check("resources.nodes", key, what, most, self.nodes, f"nodes={most}")

    def _check_total_nodes(self) -> None:
        """More than there are no limit gives."""
        total = self.partition.total_nodes
        if total is None or self.nodes <= total:
            return
        has = f"it has {total} node{'s' if total > 1 else ''}{self.said('total_nodes')}"
        asks = f"the job asks for {self.nodes}"
        problem = f"{has.replace('it', f'partition {self.name}', 1)}; {asks}"
        fits = f"The nearest that fits: nodes={total}."
        misfit = Misfit("resources.nodes", problem, fits, total)
        self._exceed("total_nodes", misfit, f"{has}; {asks}")

    def _devices(self) -> int:
        """Devices on each node."""
        there, nodes = self.partition.node.devices, self.nodes
        wanted = there * nodes if self.asked.devices is None else self.asked.devices
        if not wanted:
            return 0
        self._check(
            "resources.devices",
            "node.devices",
            "devices of a node" if nodes == 1 else f"devices of {nodes} nodes",
            there * nodes,
            wanted,
            f"devices={there * nodes}" if there else "another kind of device",
        )
        return self._alike("devices", wanted)

    def _tasks(self) -> int:
        """Processes on each node: one a device, or one."""
        wanted = self.asked.tasks
        if wanted is None:
            single = self.alone or self.partition.tasks_per == "node"
            return 1 if single else self.devices or 1
        if self.alone and wanted > 1:
            who = self.name if self.site.scheduler == "process" else "a function"
            problem = f"{who} starts one process a run, the job asks for {wanted}"
            advice = "Ask for more cpus, and start processes in the job."
            self._misfits.append(Misfit("resources.tasks", problem, advice))
        tasks = self._alike("tasks", wanted)
        if self.partition.asks_devices_by == "gpus-per-task" and self.devices % tasks:
            told = f"{self.name} gives devices to tasks{self.said('devices_by')}"
            problem = f"{told}, and {self.devices} cannot be shared out to {tasks} alike"
            advice = f"The nearest that can: tasks={self.devices * self.nodes}."
            self._misfits.append(Misfit("resources.tasks", problem, advice))
        return tasks

    def _alike(self, field: str, wanted: int) -> int:
        """What each node has of it, at most."""
        nodes = self.nodes
        each = -(-wanted // nodes)
        if wanted % nodes:
            problem = f"{wanted} cannot be shared out to {nodes} nodes alike"
            advice = f"The nearest that can: {field}={each * nodes}."
            self._misfits.append(Misfit(f"resources.{field}", problem, advice))
        return each

    def _share_of_cpus(self) -> int:
        """CPUs of each task, if the job does not say: those that go with its devices."""
        node = self.partition.node
        if not self.devices or not node.devices or not isinstance(node.cpus, int):
            return 1
        there = node.cpus * min(self.devices, node.devices) // node.devices
        return max(1, there // self.tasks)

    def _check_cpus(self) -> None:
        node = self.partition.node
        there = node.cpus if isinstance(node.cpus, int) else None
        each = (there or 0) // self.tasks
        fits = f"cpus={each}" if each else f"tasks={(there or 0) * self.nodes}, cpus=1"
        if node.reserved_cores and node.cores:
            fits += f" ({node.reserved_cores} of {node.cores} cores are kept from jobs)"
        wanted = self.cpus * self.tasks
        self._check("resources.cpus", "node.cpus", "CPUs of a node", there, wanted, fits)

    def _check_memory(self) -> None:
        there, asked = self.partition.node.memory_bytes, self.asked.memory
        if asked is not None:
            fits = f'memory="{(there or 0) >> 20} MiB"'
            what = "memory of a node"
            self._check(
                "resources.memory", "node.memory", what, there, asked, fits, units.memory_text
            )
        elif self.partition.memory_option == "required" and there is None:
            told = f"{self.name} wants jobs to say it{self.said('memory_option')}"
            problem = f"{told}, and what a node has is not known"
            misfit = Misfit("resources.memory", problem, 'Write it like memory="64 GiB".')
            self._misfits.append(misfit)

    # --- how long -------------------------------------------------------------------------

    def _check_time(self) -> None:
        partition, key = self.partition, self.partition.key_of("time", self.qos)
        longest = self._unless_other_qos(partition.longest(self.nodes, self.qos))
        what, fits = "walltime limit", f'time="{units.time_text(longest or 0)}"'
        if key != "time":
            what += f" of QOS {self.qos}"
        elif isinstance(partition.time, list):
            what += f" of {self.nodes} node{'s' if self.nodes > 1 else ''}"
            more = self._more_nodes()
            fits += f", or nodes={more}" if more else ""
        self._check("resources.time", key, what, longest, self.asked.time, fits, units.clock)

    def _more_nodes(self) -> int | None:
        """How many nodes are given for as long as the job asks, if more are."""
        limits = self.partition.time if isinstance(self.partition.time, list) else []
        for before, limit in pairwise(limits):
            nodes = (before.nodes or 0) + 1
            if nodes > self.nodes and limit.seconds(nodes) >= self.asked.time:
                return nodes
        return None

    def _unless_other_qos(self, limit: int | None) -> int | None:
        """A quality of service that the profile does not know has limits that nobody knows."""
        return limit if self.qos is None or self.qos in self.partition.qos else None

    # --- what is sure ---------------------------------------------------------------------

    def _check(
        self,
        field: str,
        key: str,
        what: str,
        limit: int | None,
        wanted: int,
        fits: str,
        show: Callable[[Any], str] = str,
    ) -> None:
        """Refuse what is over a limit that somebody vouches for."""
        hint = self.site.is_hint(f"{self.key}.{key}")
        if limit is None or hint:
            self.unsure.add(field)
        if limit is None:
            return self._doubt(f"{what} is not known")
        told = f"{show(limit)}{self.said(key)}"
        if limit >= wanted:
            return self._doubt(f"{what}: {told}") if hint else None
        told += f"; the job asks for {show(wanted)}"
        advice = f"The nearest that fits: {fits}."
        misfit = Misfit(field, f"{what} of {self.name}: {told}", advice, limit)
        self._exceed(key, misfit, f"{what}: {told}")

    def _exceed(self, key: str, misfit: Misfit, doubt: str) -> None:
        """Where it is a hint that says so, another partition is better."""
        if self._refuse(key, misfit, doubt):
            return
        self.unsure |= misfit.broken
        self.beyond += self.doubts[-1:]

    def _refuse(self, key: str, misfit: Misfit, doubt: str) -> bool:
        """Whether somebody vouches for the fact that speaks against the job; else it is a doubt."""
        sure = not self.site.is_hint(f"{self.key}.{key}")
        if sure:
            self._misfits.append(misfit)
        else:
            self._doubt(doubt)
        return sure

    def _doubt(self, what: str) -> None:
        self.doubts.append(f"partition {self.name}: {what}: the site may refuse")
