"""Times and amounts of memory are read as people mean them, or refused with what would do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hpcml import units
from hpcml.errors import JobError, nearest


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2 GiB", 2 << 30),
        ("2GiB", 2 << 30),
        ("2 G", 2 << 30),
        (" 1.5 MiB", 3 << 19),
        ("500 MB", 500_000_000),
        ("1 kB", 1000),
        ("1 KB", 1000),
        ("1 KiB", 1024),
        ("3 T", 3 << 40),
        ("7 B", 7),
        ("0.5 K", 512),
    ],
)
def test_memory_is_read_in_binary_and_decimal_units(text: str, size: int) -> None:
    assert units.memory(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2", ["no unit", '"2 GiB"']),
        ("2 Gb", ["unknown unit 'Gb'", "did you mean 'GB'?"]),
        ("2 gib", ["unknown unit 'gib'", "did you mean 'GiB'?"]),
        ("2 parsec", ["unknown unit 'parsec'", "valid:", "GiB"]),
        ("GiB", ["no amount"]),
        ("", ["no amount"]),
        ("-2 GiB", ["no amount"]),
        ("2 GiB 3 MiB", ["no amount"]),
        ("1e9 B", ["no amount"]),
        ("nan GiB", ["no amount"]),
        ("9" * 400 + " GiB", ["too much"]),
        (2, ["no amount", '"2 GiB"']),
        (None, ["no amount"]),
        (True, ["no amount"]),
    ],
)
def test_what_is_no_memory_is_refused_with_what_would_be(text: object, words: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        units.memory(text, "resources.memory")  # type: ignore[arg-type]

    assert caught.value.field == "resources.memory"
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("10 min", 600),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 1 hour 2 minutes 3 seconds ", 3723),
        ("2d", 172_800),
        ("1.5h", 5400),
        ("0.2s", 1),
        ("01:00:00", 3600),
        ("00:00:01", 1),
        ("100:00:00", 360_000),
        ("1-12:00:00", 129_600),
        ("1-12:30", 131_400),
        (timedelta(minutes=10), 600),
        (timedelta(seconds=0.2), 1),
    ],
)
def test_times_are_read_as_words_and_as_slurm_writes_them(
    text: str | timedelta, seconds: int
) -> None:
    assert units.seconds(text) == seconds


@pytest.mark.parametrize("text", ["0s", "0d", "0-00:00:00", timedelta(0)])
def test_no_time_at_all_is_a_time_where_that_makes_sense(text: str | timedelta) -> None:
    assert units.seconds(text, zero=True) == 0
    with pytest.raises(JobError, match="no time"):
        units.seconds("-1s", zero=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", ["no unit", '"10m"']),
        ("1h30", ["no unit", '"30m"']),
        (90, ["no time with a unit", '"90s", "90m"']),
        (True, ["no time with a unit", '"10m"']),
        (1.5, ["no time with a unit"]),
        (None, ["no time with a unit"]),
        ("", ["no time with a unit"]),
        ("   ", ["no time with a unit"]),
        ("10 mins", ["unknown unit 'mins'", "did you mean 'min'?"]),
        ("10 M", ["unknown unit 'M'", "did you mean 'm'?"]),
        ("3 fortnights", ["unknown unit 'fortnights'", "valid:"]),
        ("10:30", ["may be minutes or hours", '"HH:MM:SS"']),
        ("10:61:00", ["no unit"]),
        ("-5m", ["no time", '"10m"']),
        ("m10", ["no time"]),
        ("0s", ["no time to run"]),
        ("00:00:00", ["no time to run"]),
        (timedelta(0), ["no time to run"]),
        (timedelta(minutes=-1), ["no time to run"]),
        ("9" * 400 + "d", ["too long"]),
        ("9" * 5000 + "-00:00:00", ["too long"]),
    ],
)
def test_what_is_no_time_is_refused_with_what_would_be(text: object, words: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        units.seconds(text, "resources.time")  # type: ignore[arg-type]

    assert caught.value.field == "resources.time"
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "00:00:01"), (3661, "01:01:01"), (86_400, "1-00:00:00"), (2_592_000, "30-00:00:00")],
)
def test_a_time_is_written_so_that_it_reads_back(seconds: int, text: str) -> None:
    assert units.clock(seconds) == text
    assert units.seconds(text) == seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (5 << 40, "5.0 TiB")],
)
def test_a_size_is_shown_in_the_largest_unit_that_leaves_one(size: int, text: str) -> None:
    assert units.memory_text(size) == text


def test_the_nearest_word_is_found_in_spite_of_its_case() -> None:
    assert nearest("GIB", ["GiB", "MiB", "s"]).startswith("did you mean 'GiB'?")
    assert nearest("partiton", ["partition"]) == "did you mean 'partition'? (valid: partition)"
    assert nearest("x", ["alpha", "beta"]) == "valid: alpha, beta"
    assert nearest("x", []) == "there is none to choose from"
    assert nearest("x", map(str, range(10, 30))).endswith(", …")


@pytest.mark.parametrize("text", ["1d", "30d", "1h30m", "90s", "1d1s", "2h"])
def test_a_time_is_told_as_one_asks_for_it(text: str) -> None:
    told = units.time_text(units.seconds(text))
    assert units.seconds(told) == units.seconds(text) and len(told) <= 5


def test_a_duration_below_a_second_is_not_told_as_nothing() -> None:
    told = [units.lasting(seconds) for seconds in (0.0, 0.7, 1.0, 59.6)]
    assert told == ["less than 1 s", "less than 1 s", "1 s", "60 s"]
