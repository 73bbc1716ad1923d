"""What a site is: the facts that everybody who uses it shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hpcml import units
from hpcml.errors import JobError
from hpcml.settings import HOST

# A partition's name stands in the batch script's directives.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]

Gres = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.+-]+)?$")]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Facts):
    """One kind of node."""

    device: str = Field("cpu", description="Kind of device that does the work.")
    devices: int = Field(0, ge=0, description="Devices in a node that the scheduler knows of.")
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        description="CPUs that a job may use; auto: measured."
    )
    memory: str = Field(description='Memory of a node, "494 GiB"; auto: measured.')

    @field_validator("memory")
    @classmethod
    def _memory_has_a_unit(cls, value: str) -> str:
        return value if value == "auto" else _checked(value, units.memory)

    @property
    def memory_bytes(self) -> int:
        """Memory of a node in bytes."""
        return units.memory(self.memory)


class Partition(_Facts):
    """Nodes of one kind under one set of limits."""

    nodes: int = Field(ge=1, description="Most nodes that a job may have.")
    node_sharing: Literal["shared", "exclusive"] = Field(
        "shared", description="Whether a node has jobs of others at the same time."
    )
    memory_option: bool = Field(True, description="Whether jobs may say --mem.")
    gres: Gres | None = Field(None, description='Devices as the scheduler calls them, "gpu:a100".')
    time: str = Field(description="Longest walltime of a job.")
    node: Node

    @field_validator("time")
    @classmethod
    def _time_has_a_unit(cls, value: str) -> str:
        return _checked(value, units.seconds)


class Ssh(_Facts):
    """How the system's OpenSSH reaches a site."""

    host: str = Field(
        pattern=HOST,
        description="Host or alias of ~/.ssh/config; never an option.",
    )


class Site(_Facts):
    """A site profile."""

    name: str
    description: str = ""
    scheduler: str = Field(description="Entry point of hpcml.schedulers.")
    transport: str = Field(description="Entry point of hpcml.transports.")
    ssh: Ssh | None = Field(None, description="The way in for transport ssh.")
    max_array: int | None = Field(
        None, ge=1, description="Most jobs that one call of the queue takes (MaxArraySize)."
    )
    max_submitted: int | None = Field(
        None, ge=1, description="Most jobs that one may have in the queue, those of arrays counted."
    )
    account_required: bool = Field(False, description="Whether a job must name an account.")
    workspace: str | None = Field(
        None, description="Where hpcml keeps its files; {data} is the user's data folder."
    )
    python: str | None = Field(None, description="Python >= 3.6 for hpcml's agent.")
    kill_wait: str = Field("30s", description="Between TERM and KILL.")
    system_root: str | None = Field(
        None, description="Folder below which the nodes' /sys is found; default: /."
    )
    partitions: dict[Word, Partition] = Field(min_length=1)
    source: dict[str, str] = Field(default_factory=dict, description="Where a fact is from.")

    @field_validator("kill_wait")
    @classmethod
    def _wait_has_a_unit(cls, value: str) -> str:
        return _checked(value, units.seconds)

    @field_validator("system_root")
    @classmethod
    def _root_is_absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError('a path from the root is expected, like "/host"')
        return value


def _checked(value: str, parse: Callable[[str, str], int]) -> str:
    try:
        parse(value, "value")
    except JobError as error:
        raise ValueError(str(error).replace("\n", " ")) from None
    return value
