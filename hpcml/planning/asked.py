"""What a job asks for, in numbers: what no site could make sense of is refused here."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from hpcml import units
from hpcml.errors import PlanError
from hpcml.job import Resources


@dataclass(frozen=True)
class Asked:
    """Resources in numbers; ``None``: the job does not say.

    Attributes
    ----------
    memory, device_memory : int or None
        Bytes: of each node, of each device at least.
    time : int
        Seconds.
    """

    nodes: int | None
    devices: int | None
    tasks: int | None
    cpus: int | None
    memory: int | None
    device_memory: int | None
    time: int


def asked_for(resources: Resources) -> Asked:
    """Read what a job asks for.

    Raises
    ------
    JobError
        It is no number, no amount, no time.
    """
    return Asked(
        nodes=_count("nodes", resources.nodes),
        devices=_count("devices", resources.devices, least=0),
        tasks=_count("tasks", resources.tasks),
        cpus=_count("cpus", resources.cpus),
        memory=_amount("memory", resources.memory),
        device_memory=_amount("min_device_memory", resources.min_device_memory),
        time=units.seconds(resources.time, "resources.time"),
    )


def _amount(field: str, value: str | None) -> int | None:
    if value is None:
        return None
    amount = units.memory(value, f"resources.{field}")
    if amount <= 0:
        raise PlanError(f"resources.{field}", f"{value!r} is none at all", 'Write it like "2 GiB".')
    return amount


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
