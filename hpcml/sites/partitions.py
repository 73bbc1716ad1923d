"""What a partition is: nodes of one kind under one set of limits."""

from __future__ import annotations

from typing import Annotated, Literal

from hpcml import units
from hpcml.documents import fact, facts, matching
from hpcml.sites.facts import Duration, Option, Text, Variable, Word
from hpcml.sites.launching import Container, Launch
from hpcml.sites.nodes import Node

Gres = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.+-]+){0,2}$", 'devices as --gres names them, "gpu:a100",'
    ),
]


@facts
class Limit:
    """How long jobs of so many nodes may run."""

    nodes: int | None = fact(
        default=None, ge=1, description="Jobs of at most so many nodes; default: any"
    )
    time: Duration | None = fact(default=None, description="Longest walltime.")
    node_time: Duration | None = fact(default=None, description="Longest walltime times nodes.")

    def __post_init__(self) -> None:
        if (self.time is None) == (self.node_time is None):
            raise ValueError("either time or node_time is expected")

    def seconds(self, nodes: int) -> int:
        """The longest walltime of a job on so many nodes, in seconds."""
        if self.node_time is not None:
            return units.seconds(self.node_time) // nodes
        return units.seconds(self.time or "")  # one of the two is there


@facts
class Qos:
    """A quality of service: limits in place of the partition's."""

    description: Text = fact(default="", description="What it is for.")
    nodes: int | None = fact(default=None, ge=1, description="Most nodes that a job may have.")
    time: Duration | None = fact(default=None, description="Longest walltime of a job.")


@facts
class Partition:
    """Nodes of one kind under one set of limits."""

    description: Text = fact(default="", description="What it is for.")
    nodes: int | None = fact(
        default=None,
        ge=1,
        description="Most nodes that a job may have; unknown: the site will say.",
    )
    total_nodes: int | None = fact(
        default=None,
        ge=1,
        description="Nodes that it has; how many of them a job may have is another matter.",
    )
    node_sharing: Literal["shared", "exclusive"] | None = fact(
        default=None,
        description="Whether a node has jobs of others at the same time. unknown: it may have.",
    )
    time: Duration | list[Limit] | None = fact(
        default=None,
        description="Longest walltime of a job; a list where it depends on the number of nodes. "
        "unknown: the site will say.",
    )
    qos: dict[Word, Qos] = fact(
        default_factory=dict, description="Qualities of service that jobs may ask for."
    )
    default_qos: Word | None = fact(
        default=None, description="The one that is asked for by default."
    )
    memory_option: Literal["optional", "required", "implicit", "never"] = fact(
        default="optional",
        description="Whether --mem is said: when a job asks for memory; always (a node's where a "
        "job does not ask); not, because all of a node's comes with it (implicit); or never, "
        "because the site refuses it.",
    )
    devices_by: Literal["gres", "gpus-per-node", "gpus-per-task", "none"] | None = fact(
        default=None,
        description="How the scheduler is asked for devices; none: they come with the node. "
        "Default: gres where there is one.",
    )
    gres: Gres | None = fact(default=None, description='Devices as --gres names them, "gpu:a100".')
    constraint: Option | None = fact(
        default=None, description="Features that --constraint asks for."
    )
    partition_option: bool = fact(
        default=True,
        description="Whether --partition is said; false where constraint or QOS decide.",
    )
    internet: Literal["yes", "no", "proxy", "push-only"] | None = fact(
        default=None,
        description="Whether compute nodes reach the internet; push-only: nothing leaves the "
        "site at all, data is brought from outside.",
    )
    account_suffix: Word | None = fact(
        default=None, description="What accounts end in that pay for this partition."
    )
    own_account: bool = fact(
        default=False,
        description="Whether it is paid from another account than the other partitions.",
    )
    tasks_per: Literal["device", "node"] = fact(
        default="device",
        description="What has a process of its own where a job does not say how many.",
    )
    cpu_bind: Option | None = fact(
        default=None, description="--cpu-bind of srun for a task on each device of a whole node."
    )
    launch: Launch = fact(
        default_factory=Launch, description="What differs here from the site's `launch`."
    )
    container: Container = fact(
        default_factory=Container, description="What differs here from the site's `container`."
    )
    modules: list[Option] | None = fact(
        default=None, description="Modules that jobs load, in place of the site's."
    )
    options: dict[Word, Option | Literal[True]] = fact(
        default_factory=dict,
        description="Further options of sbatch, without --; true: it takes no value.",
    )
    environment: dict[Variable, Text] = fact(
        default_factory=dict, description="Variables for jobs, beside the site's."
    )
    node: Node

    def __post_init__(self) -> None:
        if self.default_qos is not None and self.default_qos not in self.qos:
            raise ValueError(f"default_qos {self.default_qos!r} is not among qos")
        if self.gres is not None and self.devices_by not in (None, "gres"):
            raise ValueError(f"there is gres, and devices_by: {self.devices_by} does not use it")
        if self.devices_by == "gres" and self.gres is None:
            raise ValueError("devices_by: gres, and gres is missing")
        if self.asks_devices_by != "none" and not self.node.devices:
            raise ValueError(
                f"devices are asked for by {self.asks_devices_by}, but nodes have none"
            )
        count = self.gres.rpartition(":")[2] if self.gres else ""
        if count.isdigit():
            raise ValueError(
                f"gres names devices, node.devices counts them: leave :{count} off"
                if int(count) == self.node.devices
                else f"gres says {count} devices, node.devices says {self.node.devices}"
            )

    @property
    def asks_devices_by(self) -> str:
        """How the scheduler is asked for devices."""
        return self.devices_by or ("gres" if self.gres else "none")

    def key_of(self, limit: str, qos: str | None) -> str:
        """Where a limit is said, ``time`` or ``nodes``: by the QOS, else by the partition."""
        chosen = self.qos.get(qos or "")
        of_qos = chosen is not None and getattr(chosen, limit) is not None
        return f"qos.{qos}.{limit}" if of_qos else limit

    def longest(self, nodes: int, qos: str | None = None) -> int | None:
        """The longest walltime of a job on so many nodes, in seconds; ``None``: not known."""
        chosen = self.qos.get(qos or "")
        if chosen is not None and chosen.time is not None:
            return units.seconds(chosen.time)
        if self.time is None or isinstance(self.time, str):
            return None if self.time is None else units.seconds(self.time)
        for limit in self.time:
            if limit.nodes is None or nodes <= limit.nodes:
                return limit.seconds(nodes)
        return None

    def most_nodes(self, qos: str | None = None) -> int | None:
        """The most nodes that a job may have; ``None``: not known."""
        chosen = self.qos.get(qos or "")
        return self.nodes if chosen is None or chosen.nodes is None else chosen.nodes

    def account_named(self, account: str) -> str:
        """An account as jobs here name it: with what those of this partition end in.

        Added and not refused: it is the same account, and the site's way to write it. One word in
        the settings then serves the partitions with the suffix and those without.
        """
        suffix = self.account_suffix or ""
        return account if account.endswith(suffix) else account + suffix
