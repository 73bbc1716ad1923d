"""How the runs of a batch are shared out: to allocations, and these to calls of the queue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The shape of a batch in the queue.

    Attributes
    ----------
    size : int
        Runs that an allocation works through.
    slots : int or None
        How many of them at a time; ``None``: who gives the allocation decides as it goes.
    call : int
        Allocations that one call of the queue asks for (Slurm's arrays are limited).
    """

    size: int
    slots: int | None = None
    call: int = 1

    @property
    def rounds(self) -> int:
        """How many runs follow each other in a slot, at most."""
        return -(-self.size // (self.slots or 1))

    def chunks(self, count: int) -> list[range]:
        """The runs of each call, for so many runs."""
        step = self.size * self.call
        return [range(first, min(first + step, count)) for first in range(0, count, step)]
