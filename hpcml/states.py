"""The states of a run, in Slurm's words."""

from __future__ import annotations

from enum import StrEnum

from hpcml.agent import wire
from hpcml.errors import ArgumentError, nearest


class State(StrEnum):
    """Where a run is on its way; compares equal to its name as text."""

    CREATED = wire.CREATED
    PREPARING = wire.PREPARING
    PENDING = wire.PENDING
    RUNNING = wire.RUNNING
    COMPLETED = wire.COMPLETED
    FAILED = wire.FAILED
    CANCELLED = wire.CANCELLED
    TIMEOUT = wire.TIMEOUT
    OUT_OF_MEMORY = wire.OUT_OF_MEMORY
    PREEMPTED = wire.PREEMPTED
    NODE_FAIL = wire.NODE_FAIL
    UNKNOWN = wire.UNKNOWN

    @property
    def final(self) -> bool:
        """Whether it will never change; UNKNOWN, "cannot see", is not final."""
        return self in FINAL


def state_named(name: str) -> State:
    """The state of that name, in any case.

    Raises
    ------
    ArgumentError
        There is none.
    """
    if isinstance(name, str) and name.upper() in State.__members__:
        return State[name.upper()]
    raise ArgumentError(f"there is no state {name!r}", nearest(str(name), State.__members__))


FINAL = frozenset(
    {
        State.COMPLETED,
        State.FAILED,
        State.CANCELLED,
        State.TIMEOUT,
        State.OUT_OF_MEMORY,
        State.PREEMPTED,
        State.NODE_FAIL,
    }
)
