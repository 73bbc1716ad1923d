"""What a node is: its CPUs, memory and devices."""

from __future__ import annotations

from typing import Annotated, Literal

from hpcml import units
from hpcml.documents import OneWord, fact, facts
from hpcml.sites.facts import Count, Memory, Text, Word


@facts
class Device:
    """The devices of a node that do the work."""

    kind: Word = fact(
        default="cpu", description="cpu, gpu, ipu, tpu, fpga, or any other word: jobs ask for it."
    )
    vendor: Text | None = fact(default=None, description="Who makes it: nvidia, amd, graphcore.")
    model: Text | None = fact(default=None, description="What it is sold as: A100, MI250X, GC200.")
    architecture: Text | None = fact(
        default=None, description="For which its code is built: sm_80, gfx90a."
    )
    memory: Memory | None = fact(
        default=None, description="Memory of one device, as the scheduler counts"
    )

    @property
    def memory_bytes(self) -> int | None:
        """Memory of one device in bytes; ``None``: not known."""
        return None if self.memory is None else units.memory(self.memory)


@facts
class Node:
    """One kind of node."""

    device: Annotated[Device, OneWord("kind")] = fact(
        default_factory=Device, description="Its devices; `device: gpu` says the kind alone."
    )
    devices: int = fact(
        default=0, ge=0, description="Devices in a node, as the scheduler counts them."
    )
    boards: int | None = fact(
        default=None,
        ge=1,
        description="Cards that they are on, whose energy is measured; default: devices",
    )
    architecture: Word | None = fact(
        default=None, description="Of the CPUs, as `uname -m` says it: x86_64, aarch64."
    )
    processor: Text | None = fact(
        default=None, description="Model of the CPUs, and how many there are."
    )
    cores: int | None = fact(default=None, ge=1, description="Cores that are there.")
    threads_per_core: int | None = fact(default=None, ge=1, description="Hardware threads of each.")
    reserved_cores: int = fact(default=0, ge=0, description="Cores that the site keeps from jobs.")
    cpus: Count | Literal["auto"] | None = fact(
        description="CPUs that a job may use, as the scheduler counts them; auto: measured; "
        "unknown: the site will say."
    )
    memory: Memory | Literal["auto"] | None = fact(
        description='Memory that a job may have, "494 GiB"; auto: measured; unknown: the site '
        "will say."
    )

    def __post_init__(self) -> None:
        if self.boards and self.devices % self.boards:
            raise ValueError(f"{self.devices} devices cannot be on {self.boards} boards alike")
        if self.device.kind == "cpu" and self.devices:
            raise ValueError(f"{self.devices} devices of the kind cpu: CPUs are said by cpus")
        if self.cores is None or self.cpus is None or self.cpus == "auto":
            return
        usable = (self.cores - self.reserved_cores) * (self.threads_per_core or 1)
        if self.cpus > usable:
            raise ValueError(
                f"{self.cpus} cpus, but {self.cores} cores of which {self.reserved_cores} are "
                f"reserved, with {self.threads_per_core or 1} threads each, make {usable}"
            )

    @property
    def memory_bytes(self) -> int | None:
        """Memory of a node in bytes; ``None``: not known."""
        return None if self.memory is None else units.memory(self.memory)
