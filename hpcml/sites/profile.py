"""What a site is: the facts that everybody who uses it shares."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from hpcml.settings import HOST
from hpcml.sites.facts import Duration, Facts, Folder, Option, Text, Variable, Word, or_text
from hpcml.sites.launching import Container as Container
from hpcml.sites.launching import Launch as Launch
from hpcml.sites.nodes import Device as Device
from hpcml.sites.nodes import Node as Node
from hpcml.sites.partitions import Limit as Limit
from hpcml.sites.partitions import Partition as Partition
from hpcml.sites.partitions import Qos as Qos
from hpcml.sites.sourced import Origin

URL = r"^https://[^\s@]+$"  # never with a name or a password in it


class Ssh(Facts):
    """How the system's OpenSSH reaches a site."""

    host: str = Field(pattern=HOST, description="Host or alias of ~/.ssh/config; never an option.")
    port: int | None = Field(None, ge=1, le=65535, description="Default: ssh's own choice.")
    jump: str | None = Field(None, pattern=HOST, description="Host by way of which it is reached.")
    ipv4: bool = Field(False, description="Whether the way by IPv6 does not work.")
    login: Text = Field("", description="What one needs to log in, and where it is had.")


class Unicore(Facts):
    """How UNICORE reaches a site."""

    url: str = Field(pattern=URL, description="Of the site's REST API: https://…/rest/core.")
    storage: Word | None = Field(None, description="Storage for hpcml's files.")
    preferences: Text | None = Field(
        None, description='What UNICORE is to use: "uid:{user},group:{account}".'
    )


class AgentPython(Facts):
    """Pythons >= 3.6 for hpcml's own programs; default: python3, or the one that runs hpcml."""

    login: str | None = Field(None, description="On login nodes, for its helper.")
    compute: str | None = Field(None, description="On compute nodes, for its agent.")


class FileSystem(Facts):
    """A file system that users write to."""

    path: Folder = Field(description="Where it is; {user} and {project} stand for yours.")
    compute: bool = Field(True, description="Whether compute nodes see it.")
    staging: Literal["in", "out", "both"] | None = Field(
        None,
        description="Which way data is copied between it and one that jobs use: before a job (in), "
        "after it (out).",
    )
    purge: Duration | None = Field(None, description="What nobody used for so long is deleted.")
    description: Text = Field("", description="What it is for.")


class Meter(Facts):
    """A source of energy figures that is to be expected."""

    name: Word = Field(description="As in hpcml's own records: pm_counters, rapl, nvml, slurm.")
    scope: Literal["node", "cpu", "device", "board", "module"] = Field(
        description="What one figure covers."
    )
    plugin: Literal["gpu", "ibmaem", "ipmi", "pm_counters", "rapl", "xcc"] | None = Field(
        None, description="Of Slurm's accounting: the acct_gather_energy that the site has chosen."
    )
    interval: Text = Field("", description="How often it has news.")
    readable: Literal["yes", "no"] | None = Field(None, description="Whether users may read it.")
    options: dict[Word, Option | Literal[True]] = Field(
        default_factory=dict, description="Options of sbatch that it takes."
    )


class Site(Facts):
    """A site profile."""

    name: str = Field(description="As its file is called.")
    description: Text = Field("", description="In one line.")
    scheduler: str = Field(description="Entry point of hpcml.schedulers.")
    transport: str = Field(description="Entry point of hpcml.transports.")
    ssh: Ssh | None = Field(None, description="The way in for transport ssh.")
    unicore: Unicore | None = Field(None, description="The way in for transport unicore.")
    firecrest: str | None = Field(None, pattern=URL, description="URL of its FirecREST.")
    login_shell: Text | None = Field(
        None, description="What of the login shell is worth knowing; hpcml works with any."
    )
    agent_python: AgentPython = Field(
        default_factory=AgentPython,
        description="Pythons >= 3.6 for hpcml's own programs.",
        json_schema_extra=or_text,
    )
    max_array: int | None = Field(
        None, ge=1, description="Most jobs that one call of the queue takes (MaxArraySize)."
    )
    max_submitted: int | None = Field(
        None, ge=1, description="Most jobs that one may have in the queue, those of arrays counted."
    )
    account_required: bool = Field(False, description="Whether a job must name an account.")
    account_rule: Text = Field("", description="What accounts are called, and where they are from.")
    workspace: str | None = Field(
        None,
        description="Where hpcml keeps its files; {data} is the user's data folder, {user} and "
        "{project} are yours.",
    )
    quota: list[Text] = Field(
        default_factory=list, description="Command that tells how much one may store."
    )
    kill_wait: Duration = Field("30s", description="Between TERM and KILL.")
    system_root: str | None = Field(
        None, description="Folder below which the nodes' /sys is found; default: /."
    )
    container: Container = Field(default_factory=Container, description="What runs images.")
    launch: Launch = Field(default_factory=Launch, description="How srun starts ranks.")
    modules: list[Option] = Field(default_factory=list, description="Modules that jobs load.")
    prelude: list[Text] = Field(
        default_factory=list, description="Lines of bash before each job, after the modules."
    )
    environment: dict[Variable, Text] = Field(
        default_factory=dict, description="Variables for jobs."
    )
    file_systems: dict[Word, FileSystem] = Field(
        default_factory=dict, description="Where users write."
    )
    energy: list[Meter] = Field(
        default_factory=list, description="Sources of energy figures to expect, the widest first."
    )
    cost_unit: Literal["core-hours", "node-hours", "device-hours"] | None = Field(
        None, description="What the site charges."
    )
    notes: list[Text] = Field(default_factory=list, description="What its users must know.")
    elsewhere: dict[Word, Word] = Field(
        default_factory=dict,
        description="Partitions that one may look for here, and the sites that have them.",
    )
    partitions: dict[Word, Partition] = Field(min_length=1, description="Its partitions.")
    origins: dict[str, Origin] = Field(default_factory=dict, exclude=True, repr=False)

    @field_validator("agent_python", mode="before")
    @classmethod
    def _one_for_both(cls, value: object) -> object:
        return {"login": value, "compute": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _its_own_queue_counts(self) -> Self:
        for name, partition in self.partitions.items():
            node = partition.node
            if self.scheduler == "process" and None in (node.cpus, node.memory):
                raise ValueError(f"cpus and memory of {name} must be known: hpcml gives them out")
        return self

    @field_validator("system_root")
    @classmethod
    def _root_is_absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError('a path from the root is expected, like "/host"')
        return value

    def launch_of(self, partition: str) -> Launch:
        """How srun starts ranks in a partition: as that says, else as the site does."""
        return self.launch.with_those_of(self.partitions[partition].launch)

    def container_of(self, partition: str) -> Container:
        """What runs images in a partition: as that says, else as the site does."""
        return self.container.with_those_of(self.partitions[partition].container)

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
