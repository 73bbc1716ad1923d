"""What a site is: the facts that everybody who uses it shares."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Annotated, Literal, TypeVar

from hpcml.documents import OneWord, changed, fact, facts, matching
from hpcml.settings import Host
from hpcml.sites.facts import Duration, Folder, Option, Text, Variable, Word
from hpcml.sites.launching import Container as Container
from hpcml.sites.launching import Launch as Launch
from hpcml.sites.nodes import Device as Device
from hpcml.sites.nodes import Node as Node
from hpcml.sites.partitions import Limit as Limit
from hpcml.sites.partitions import Partition as Partition
from hpcml.sites.partitions import Qos as Qos
from hpcml.sites.sourced import Origin

Url = Annotated[
    str, matching(r"^https://[^\s@]+$", "a URL of https://, without a name or a password in it,")
]
Root = Annotated[str, matching(r"^/.*$", 'a path from the root, like "/host",')]
Part = TypeVar("Part", Launch, Container)


@facts
class Ssh:
    """How the system's OpenSSH reaches a site."""

    host: Host = fact(description="Host or alias of ~/.ssh/config; never an option.")
    port: int | None = fact(default=None, ge=1, le=65535, description="Default: ssh's own choice.")
    jump: Host | None = fact(default=None, description="Host by way of which it is reached.")
    ipv4: bool = fact(default=False, description="Whether the way by IPv6 does not work.")
    login_modules: list[Option] = fact(
        default_factory=list,
        description="Modules without which Slurm's commands are not found on login nodes.",
    )
    login: Text = fact(default="", description="What one needs to log in, and where it is had.")


@facts
class Unicore:
    """How UNICORE reaches a site."""

    url: Url = fact(description="Of the site's REST API: https://…/rest/core.")
    storage: Word | None = fact(default=None, description="Storage for hpcml's files.")
    preferences: Text | None = fact(
        default=None, description='What UNICORE is to use: "uid:{user},group:{account}".'
    )


@facts
class AgentPython:
    """Pythons >= 3.6 for hpcml's own programs; default: python3, or the one that runs hpcml."""

    login: str | None = fact(default=None, description="On login nodes, for its helper.")
    compute: str | None = fact(default=None, description="On compute nodes, for its agent.")


@facts
class FileSystem:
    """A file system that users write to."""

    path: Folder = fact(
        description="Where it is; {user}, its first letter {u} and {project} are yours."
    )
    compute: bool = fact(default=True, description="Whether compute nodes see it.")
    staging: Literal["in", "out", "both"] | None = fact(
        default=None,
        description="Which way data is copied between it and one that jobs use: before a job (in), "
        "after it (out).",
    )
    purge: Duration | None = fact(
        default=None, description="What nobody used for so long is deleted."
    )
    description: Text = fact(default="", description="What it is for.")


@facts
class Meter:
    """A source of energy figures that is to be expected."""

    name: Word = fact(description="As in hpcml's own records: pm_counters, rapl, nvml, slurm.")
    scope: Literal["node", "cpu", "device", "board", "module"] = fact(
        description="What one figure covers."
    )
    plugin: Literal["gpu", "ibmaem", "ipmi", "pm_counters", "rapl", "xcc"] | None = fact(
        default=None,
        description="Of Slurm's accounting: the acct_gather_energy that the site has chosen.",
    )
    interval: Text = fact(default="", description="How often it has news.")
    readable: Literal["yes", "no"] | None = fact(
        default=None, description="Whether users may read it."
    )
    options: dict[Word, Option | Literal[True]] = fact(
        default_factory=dict, description="Options of sbatch that it takes."
    )


@facts
class Site:
    """A site profile."""

    name: str = fact(description="As its file is called.")
    description: Text = fact(default="", description="In one line.")
    scheduler: str = fact(description="Entry point of hpcml.schedulers.")
    transport: str = fact(description="Entry point of hpcml.transports.")
    ssh: Ssh | None = fact(default=None, description="The way in for transport ssh.")
    unicore: Unicore | None = fact(default=None, description="The way in for transport unicore.")
    firecrest: Url | None = fact(default=None, description="URL of its FirecREST.")
    login_shell: Text | None = fact(
        default=None, description="What of the login shell is worth knowing; hpcml works with any."
    )
    agent_python: Annotated[AgentPython, OneWord("login", "compute")] = fact(
        default_factory=AgentPython, description="Pythons >= 3.6 for hpcml's own programs."
    )
    max_array: int | None = fact(
        default=None, ge=1, description="Most jobs that one call of the queue takes (MaxArraySize)."
    )
    max_submitted: int | None = fact(
        default=None,
        ge=1,
        description="Most jobs that one may have in the queue, those of arrays counted.",
    )
    account_required: bool = fact(default=False, description="Whether a job must name an account.")
    account_rule: Text = fact(
        default="", description="What accounts are called, and where they are from."
    )
    workspace: str | None = fact(
        default=None,
        description="Where hpcml keeps its files; {data} is the user's data folder; {user}, its "
        "first letter {u} and {project} are yours.",
    )
    quota: list[Text] = fact(
        default_factory=list,
        description="Command that tells how much one may store; {user} and {project} are yours.",
    )
    kill_wait: Duration = fact(default="30s", description="Between TERM and KILL.")
    system_root: Root | None = fact(
        default=None, description="Folder below which the nodes' /sys is found; default: /."
    )
    container: Container = fact(default_factory=Container, description="What runs images.")
    launch: Launch = fact(default_factory=Launch, description="How srun starts ranks.")
    modules: list[Option] = fact(default_factory=list, description="Modules that jobs load.")
    prelude: list[Text] = fact(
        default_factory=list, description="Lines of bash before each job, after the modules."
    )
    environment: dict[Variable, Text] = fact(
        default_factory=dict, description="Variables for jobs."
    )
    file_systems: dict[Word, FileSystem] = fact(
        default_factory=dict, description="Where users write."
    )
    energy: list[Meter] = fact(
        default_factory=list, description="Sources of energy figures to expect, the widest first."
    )
    cost_unit: Literal["core-hours", "node-hours", "device-hours"] | None = fact(
        default=None, description="What the site charges."
    )
    notes: list[Text] = fact(default_factory=list, description="What its users must know.")
    elsewhere: dict[Word, Word] = fact(
        default_factory=dict,
        description="Partitions that one may look for here, and the sites that have them.",
    )
    partitions: dict[Word, Partition] = fact(min_length=1, description="Its partitions.")
    origins: dict[str, Origin] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, partition in self.partitions.items():
            node = partition.node
            if self.scheduler == "process" and None in (node.cpus, node.memory):
                raise ValueError(f"cpus and memory of {name} must be known: hpcml gives them out")

    def launch_of(self, partition: str) -> Launch:
        """How srun starts ranks in a partition: as that says, else as the site does."""
        return self._with_own(self.launch, partition, "launch")

    def container_of(self, partition: str) -> Container:
        """What runs images in a partition: as that says, else as the site does."""
        return self._with_own(self.container, partition, "container")

    def _with_own(self, whole: Part, partition: str, name: str) -> Part:
        """A part of the site, and in its place what a partition says, be it that it is unknown."""
        own, above = getattr(self.partitions[partition], name), f"partitions.{partition}.{name}"
        said = [it.name for it in fields(own) if f"{above}.{it.name}" in self.origins]
        return changed(whole, **{key: getattr(own, key) for key in said})

    def origin(self, key: str) -> Origin | None:
        """Where a fact is from: its own origin, or that of what it is part of.

        Parameters
        ----------
        key : str
            With dots: ``"partitions.booster.time"``.
        """
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return None

    def is_hint(self, key: str) -> bool:
        """Whether nobody vouches for a fact: its confidence is C."""
        origin = self.origin(key)
        return origin is not None and origin.confidence == "C"
