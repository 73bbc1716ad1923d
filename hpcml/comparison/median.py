"""Medians, and between which of the values they lie with which confidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

CONFIDENCE = 0.95  # that an interval has at least
LONGEST = 80  # characters of a value that is no number, as people are shown it


@dataclass(frozen=True)
class Summary:
    """What the values of a figure come to, over the runs of a row that have it.

    Attributes
    ----------
    n : int
        How many runs have it.
    median : float or None
        ``None`` if any of the values is no finite double: leaving that out would be a lie.
    low, high : float or None
        Between these two of the values lies the median of all that such runs might give, whatever
        their distribution is. ``None`` for fewer than six values.
    level : float or None
        The confidence of that, at least 0.95.
    others : dict
        The values that are no finite doubles, as text, and how often each is there.
    """

    n: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    others: Mapping[str, int] = field(default_factory=dict)


def summarise(values: Iterable[Any]) -> Summary:
    """Summarise the values of a figure: all of them, none is left out."""
    given = list(values)
    numbers = sorted(number for number in map(number_of, given) if number is not None)
    if len(numbers) < len(given):
        odd = Counter(text_of(value) for value in given if number_of(value) is None)
        return Summary(len(given), others=dict(odd))
    if not numbers:
        return Summary(0)
    rank, level = ranks(len(numbers))
    if rank == 0:
        return Summary(len(numbers), median(numbers))
    return Summary(len(numbers), median(numbers), numbers[rank - 1], numbers[-rank], level)


@cache
def ranks(n: int) -> tuple[int, float]:
    """Which values, counted from both ends, hold the median between them, and how surely.

    Each of n values is below the true median with probability 1/2. So fewer than k of them are
    with the binomial distribution's probability, and the interval from the k-th smallest to the
    k-th largest misses the median with twice that. The largest k is taken that leaves
    ``CONFIDENCE``; 0: there is none.
    """
    below, term, rank, level = 0, 1, 0, 0.0
    while rank < n // 2:
        below += term  # ways in which at most `rank` of n values are below
        reached = 1 - 2 * (below / 2**n)
        if reached < CONFIDENCE:
            break
        rank, level = rank + 1, reached
        term = term * (n - rank + 1) // rank
    return rank, level


def number_of(value: Any) -> float | None:
    """A value as a finite double, a truth value as 1 or 0; ``None`` if it is none."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def text_of(value: Any) -> str:
    """A value that is no finite double, as text."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    try:
        return str(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"an integer of {value.bit_length()} bits"
