"""Medians and their intervals, against counting out what they promise."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcml.comparison.median import CONFIDENCE, ranks, summarise


def coverage(n: int, rank: int) -> Fraction:
    """How often the interval holds the median: every way n values can lie around it is counted."""
    hits = 0
    for above in itertools.product((False, True), repeat=n):
        hits += rank <= n - sum(above) and rank <= sum(above)
    return Fraction(hits, 2**n)


@pytest.mark.parametrize("n", range(1, 15))
def test_the_interval_holds_the_median_as_often_as_it_says(n: int) -> None:
    rank, level = ranks(n)
    if rank:
        assert level == pytest.approx(float(coverage(n, rank)))
        assert level >= CONFIDENCE
    assert rank == n // 2 or coverage(n, rank + 1) < CONFIDENCE, "and it is the shortest such one"


def test_fewer_than_six_values_have_no_interval() -> None:
    assert [ranks(n)[0] for n in range(7)] == [0, 0, 0, 0, 0, 0, 1]
    assert ranks(6)[1] == 1 - 2 / 64


def test_many_values_have_a_narrow_one() -> None:
    rank, level = ranks(10_000)
    assert CONFIDENCE <= level < 0.952
    assert rank == pytest.approx(5000 - 0.98 * math.sqrt(10_000), abs=2)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=80))
def test_the_median_lies_within_its_interval_and_both_ends_are_values(values: list[float]) -> None:
    found = summarise(values)
    assert (found.n, found.median) == (len(values), median(values))
    if len(values) < 6:
        assert (found.low, found.high, found.level) == (None, None, None)
        return
    assert found.low is not None and found.high is not None and found.median is not None
    assert found.low <= found.median <= found.high
    assert {found.low, found.high} <= set(values)
    assert summarise(reversed(values)) == found


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ("diverged", "diverged"),
        (None, "None"),
        pytest.param(10**5000, "an integer of 16610 bits", id="huge"),
    ],
)
def test_one_value_that_is_no_number_leaves_no_median(odd: object, said: str) -> None:
    found = summarise([1.0, odd, 2.0])
    assert (found.n, found.median, found.others) == (3, None, {said: 1})


def test_no_values_have_no_median() -> None:
    assert summarise([]).median is None
