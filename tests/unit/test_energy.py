"""What readings of counters tell of a run, against curves of power that are known exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hpcml.energy import Energy, Readings, measure
from hpcml.energy.readings import read
from hpcml.timeline import tell

Curve = Callable[[float], float]  # J since second 0
RANGE = 10_000_000_000  # µJ: 10 kJ
BEGIN, END = 1000.0, 1100.0  # s of the monotonic clock: the command


def steady(watts: float) -> Curve:
    return lambda second: watts * second


def wave(second: float) -> float:
    """J of 100 W with a wave of 80 W and 7 s."""
    omega = 2 * math.pi / 7
    return 100 * second + 80 / omega * (1 - math.cos(omega * second))


def domain(name: str, kind: str = "cpu", **facts: Any) -> dict[str, Any]:
    usual = {"unit": 1e-6, "period": 0.001, "range": RANGE, "most": 1000.0, "contains": []}
    return {"name": name, "kind": kind, "mirrors": None, "status": "measured", **usual, **facts}


def header(*domains: dict[str, Any], **facts: Any) -> dict[str, Any]:
    usual = {"host": "here", "boot": "b", "root": "/", "interval": 1.0, "exclusive": False}
    tried = {"powercap": {"status": "measured", "reason": ""}}
    return {"header": 1, "domains": list(domains), "tried": tried, **usual, **facts}


def readings(*curves: Curve, times: Sequence[float]) -> list[dict[str, Any]]:
    """What the counters of some curves show at some times."""
    return [
        {"m": int(t * 1e9), "v": [round(curve(t) * 1e6) % RANGE for curve in curves]} for t in times
    ]


def seconds(first: float = BEGIN - 0.3, last: float = END + 1) -> list[float]:
    """Once a second."""
    return [first + i for i in range(int(last - first) + 1)]


def lines(records: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def attempt(begin: float = BEGIN, end: float | None = END, **facts: Any) -> list[dict[str, Any]]:
    """Events of an attempt whose command ran from ``begin`` to ``end``."""
    start = {"e": "start", "m": int((begin - 1) * 1e9), "t": begin + 5e8, "host": "here"}
    found = [{**start, "boot": "b", "attempt": 1, **facts}]
    found.append({"e": "command", "m": int(begin * 1e9)})
    if end is not None:
        found.append({"e": "end", "m": int(end * 1e9), "exit_code": 0, "signal": None})
    return found


def energy(
    *records: dict[str, Any], events: Sequence[dict[str, Any]] = (), final: bool = True
) -> Energy:
    events = events or attempt()
    return measure(events, tell(events, None).timeline, Readings([lines(records)]), final=final)


def test_a_known_curve_is_found_again_within_the_stated_uncertainty() -> None:
    for shift in (0.0, 0.1, 0.5, 0.9):
        times = seconds(BEGIN - shift)
        found = energy(header(domain("package-0")), *readings(wave, times=times))

        true = wave(END) - wave(BEGIN)
        assert found.joules is not None and found.uncertainty is not None
        assert abs(found.joules - true) <= found.uncertainty + 1e-3
        variation = 4 * 80 * (END - BEGIN) / 7  # W, up and down and up again
        assert abs(found.joules - true) <= 0.5 * variation
        assert found.coverage == pytest.approx(1.0)
        assert found.gaps == ()


@pytest.mark.parametrize("watts", [105.0, 150.0, 260.0])
def test_a_counter_that_wraps_is_unwrapped(watts: float) -> None:
    """Once, or twice, near the beginning and near the end."""
    found = energy(header(domain("package-0")), *readings(steady(watts), times=seconds()))

    assert found.joules == pytest.approx(100 * watts)


@pytest.mark.parametrize("place", [0, 1, 50, 100, 101])
def test_a_wrap_between_any_two_readings_costs_nothing(place: int) -> None:
    times = seconds()
    moment = times[place] + 0.4

    def curve(second: float) -> float:
        return 10_000 + 50 * (second - moment)

    found = energy(header(domain("package-0")), *readings(curve, times=times))

    assert found.joules == pytest.approx(5000)
    assert found.coverage == pytest.approx(1.0)


def test_a_reset_is_a_gap() -> None:
    def curve(second: float) -> float:
        return 5000 + 50 * (second - BEGIN) if second < 1050 else 50 * (second - 1050)

    found = energy(header(domain("package-0")), *readings(curve, times=seconds()))

    assert found.joules == pytest.approx(99 * 50)
    assert found.covered == pytest.approx(99.0)
    (gap,) = found.gaps
    assert gap.reason == "a counter was reset"
    assert gap.seconds == pytest.approx(1.0)
    assert gap.start == pytest.approx(5e8 + 1049.7)


def test_a_failed_reading_is_a_gap_and_never_0() -> None:
    rows = readings(steady(100), steady(20), times=seconds())
    for row in rows[40:43]:
        row["v"][1] = None

    found = energy(header(domain("package-0"), domain("dram", "dram")), *rows)

    assert found.covered == pytest.approx(96.0)
    assert found.joules == pytest.approx(96 * 120)
    assert [gap.reason for gap in found.gaps] == ["a reading failed"]
    assert found.gaps[0].seconds == pytest.approx(4.0)
    assert found.domains == {"package-0": pytest.approx(10_000), "dram": pytest.approx(1920)}


def test_readings_so_far_apart_that_a_counter_may_have_wrapped_twice_are_a_gap() -> None:
    times = [*seconds(last=1020), *seconds(first=1040)]

    found = energy(header(domain("package-0")), *readings(steady(100), times=times))

    assert found.joules == pytest.approx(100 * found.covered)
    assert found.covered == pytest.approx(100 - (1040 - times[times.index(1040) - 1]))
    assert "more than once" in found.gaps[0].reason


def test_a_sampler_that_was_killed_leaves_a_gap_until_the_next_one_starts() -> None:
    first = readings(steady(100), times=seconds(last=1030))
    second = readings(steady(100), times=seconds(first=1050))
    head = header(domain("package-0"))

    found = energy(head, *first, head, *second)

    assert found.joules == pytest.approx(100 * found.covered)
    assert [gap.reason for gap in found.gaps] == ["there are no readings"]


def test_the_time_in_which_the_machine_was_suspended_is_a_gap() -> None:
    """Its clock stood still; whether its counters did is not known."""
    rows = readings(steady(100), times=seconds())
    rows[50]["slept"] = 3600.0

    found = energy(header(domain("package-0")), *rows)

    assert found.joules == pytest.approx(9900)
    assert [(gap.reason, gap.seconds) for gap in found.gaps] == [
        ("the machine was suspended", pytest.approx(1.0))
    ]


def test_a_counter_that_lags_does_so_within_the_uncertainty() -> None:
    """Readings and the command begin and end at the same moments; the counter is late or not."""
    lag = 0.5
    late = [1000.0, *(second - lag for second in seconds(BEGIN + 1, END))]
    rows = readings(steady(100), times=late)
    for row, second in zip(rows, seconds(BEGIN, END), strict=True):
        row["m"] = int(second * 1e9)

    found = energy(header(domain("package-0", period=lag)), *rows)

    assert found.joules is not None and found.uncertainty is not None
    assert found.joules == pytest.approx(10_000 - 50)
    assert 50 <= found.uncertainty < 200


def test_a_counter_of_unknown_range_and_power_is_reset_by_any_drop() -> None:
    def curve(second: float) -> float:
        return 50 * (second - BEGIN) if second < 1050 else 50 * (second - 1050)

    found = energy(
        header(domain("x", range=None, most=None)), *readings(curve, times=seconds(1000))
    )

    assert found.joules == pytest.approx(99 * 50)
    assert [gap.reason for gap in found.gaps] == ["a counter was reset"]


def test_two_samplers_at_once_do_not_count_twice() -> None:
    head = header(domain("package-0"))
    rows = readings(steady(100), times=seconds())

    found = energy(head, *rows, head, *rows)

    assert found.joules == pytest.approx(10_000)
    assert found.domains == {"package-0": pytest.approx(10_000)}


def test_parts_of_the_machine_are_summed_that_do_not_overlap() -> None:
    packages = ("package-0", "package-1")
    parts = [f"{name}/{part}" for name in packages for part in ("core", "dram")]
    domains = [domain(name, contains=[f"{name}/core"]) for name in packages]
    domains += [domain(name, name.rpartition("/")[2]) for name in parts]
    domains += [domain(f"mmio/{name}", mirrors=name) for name in packages]
    domains += [domain("psys", "psys", contains=[*packages, *parts], most=5000.0)]
    watts = [100, 60, 30, 10, 20, 5, 100, 60, 300]

    rows = readings(*map(steady, watts), times=seconds())
    found = energy(header(*domains), *rows)

    assert found.joules == pytest.approx(100 * (100 + 60 + 10 + 5))
    assert found.scope == "cpu+dram"
    assert found.domains["psys"] == pytest.approx(30_000), "told, and not summed"


def test_half_of_the_processors_are_not_called_cpu() -> None:
    domains = [domain("package-0"), domain("package-1", status="denied")]
    domains.append(domain("package-0/dram", "dram"))
    rows = readings(*map(steady, (100, 60, 10)), times=seconds())
    for row in rows:
        row["v"][1] = None

    found = energy(header(*domains), *rows)

    assert (found.scope, found.joules) == ("dram", pytest.approx(1000))
    assert found.domains["package-1"] is None


def test_a_platform_counts_where_there_is_nothing_within_it() -> None:
    rows = readings(steady(100), times=seconds())

    assert energy(header(domain("psys", "psys")), *rows).scope == "platform"


def test_a_run_that_is_shorter_than_two_readings_has_no_figure() -> None:
    rows = readings(steady(100), times=seconds())

    found = energy(header(domain("package-0")), *rows, events=attempt(1050, 1050.01))

    assert (found.joules, found.uncertainty, found.scope) == (None, None, None)
    assert str(found) == "no energy: it was shorter than two readings of the counters are apart"


def test_of_a_run_under_way_there_is_a_figure_up_to_the_last_reading() -> None:
    rows = readings(steady(100), times=seconds(first=BEGIN, last=1050))

    found = energy(header(domain("package-0")), *rows, events=attempt(end=None), final=False)

    assert (found.joules, found.seconds) == (pytest.approx(5000), pytest.approx(50))


def test_when_a_run_ended_without_a_word_is_not_guessed() -> None:
    rows = readings(steady(100), times=seconds())

    found = energy(header(domain("package-0")), *rows, events=attempt(end=None))

    assert found.joules is None and found.seconds is None and found.coverage is None
    assert found.why == "the end of attempt 1 is not known"


def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    rows = readings(steady(100), times=seconds())
    for row in rows[50:]:
        row["t"] = 1e9 - 86400.0

    events = [
        *attempt(),
        {"e": "begin", "phase": "train", "m": 1020 * 10**9},
        {"e": "finish", "phase": "train", "m": 1080 * 10**9},
    ]
    events[-3], events[-1] = events[-1], events[-3]
    found = energy(header(domain("package-0")), *rows, events=events)

    assert found.joules == pytest.approx(10_000)
    assert found.phases["train"].joules == pytest.approx(6000, rel=1e-6)


def test_a_phase_gets_the_energy_of_its_time_and_a_short_one_none() -> None:
    events = attempt()
    for begin, end, name in ((1010, 1050.5, "train"), (1051, 1052, "save"), (1060, 1061, "save")):
        events.insert(-1, {"e": "begin", "phase": name, "m": int(begin * 1e9)})
        events.insert(-1, {"e": "finish", "phase": name, "m": int(end * 1e9)})

    found = energy(header(domain("package-0")), *readings(wave, times=seconds()), events=events)

    train, save = found.phases["train"], found.phases["save"]
    assert train.joules is not None and train.uncertainty is not None
    assert abs(train.joules - (wave(1050.5) - wave(1010))) <= train.uncertainty
    assert train.covered == pytest.approx(40.5)
    assert (save.joules, save.uncertainty, save.seconds) == (None, None, pytest.approx(2))


def test_readings_of_another_machine_or_boot_are_not_the_runs() -> None:
    rows = readings(steady(100), times=seconds())
    for other in ({"host": "there"}, {"boot": "c"}):
        found = energy(header(domain("package-0"), **other), *rows)

        assert found.joules is None
        assert found.why == "there is no record of what was tried on its machine"


@pytest.mark.parametrize("other", [{"host": "there"}, {"boot": "c"}])
def test_attempts_on_two_machines_or_boots_are_summed(other: dict[str, str]) -> None:
    """After a boot the monotonic clock begins anew: the same times are others."""
    here = [header(domain("package-0")), *readings(steady(100), times=seconds())]
    there = [header(domain("package-0"), **other), *readings(steady(50), times=seconds())]
    events = attempt(end=1040) + attempt(begin=1050, end=1090, **other, attempt=2)

    found = measure(
        events, tell(events, None).timeline, Readings([lines(here), lines(there)]), final=True
    )

    assert found.joules == pytest.approx(40 * 100 + 40 * 50)
    assert found.seconds == pytest.approx(80)


def test_what_could_not_be_read_says_why() -> None:
    reason = "permission denied (root only since Linux 5.10)"
    tried = {"powercap": {"status": "denied", "reason": reason}}

    found = energy(header(domain("package-0", status="denied"), tried=tried, interval=None))

    assert str(found) == f"no energy: powercap: {reason}"
    assert found.sources == {"powercap": reason}
    assert (found.joules, found.uncertainty, found.exclusive) == (None, None, None)
    assert found.coverage == 0.0


def test_a_figure_is_told_in_one_line() -> None:
    rows = readings(steady(100), times=seconds())

    told = str(energy(header(domain("package-0")), *rows))

    assert told == (
        "10 kJ ± 142 J (cpu, powercap), measured for 100.0 s of 100.0 s; "
        "of the whole machine, which others may have used"
    )


def test_a_run_that_has_not_started_has_none() -> None:
    found = measure([], tell([], None).timeline, Readings([]), final=False)

    assert str(found) == "no energy: it has not started"


def test_a_file_cut_off_anywhere_gives_a_prefix_of_its_readings() -> None:
    content = lines([header(domain("package-0")), *readings(wave, times=seconds(last=1003))])
    (whole,) = read(content)

    counts = set()
    for size in range(len(content)):
        series = read(content[:size])
        found = series[0].readings if series else []
        assert found == whole.readings[: len(found)]
        counts.add(len(found))
    assert counts == set(range(len(whole.readings) + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"domains": 3},
        {"domains": [{"name": "x"}]},
        {"domains": [domain("x", unit="J")]},
        {"tried": {"powercap": 3}},
        {"host": None, "interval": "often"},
        {"header": []},
    ],
)
def test_readings_below_no_whole_header_are_passed_over(changes: dict[str, Any]) -> None:
    rows = readings(steady(100), times=seconds())

    assert energy({**header(domain("package-0")), **changes}, *rows).joules is None
    assert energy({"header": 1}, *rows).joules is None


@pytest.mark.parametrize(
    "line",
    [
        *({"m": "x", "v": [1]}, {"v": [1]}, {"m": 5, "v": 3}, {"m": 5, "v": ["1"]}, {"m": 5}),
        *({"m": 10**400, "v": [1]}, {"m": 5, "v": [10**400]}),
    ],
)
def test_lines_that_are_no_readings_are_passed_over(line: dict[str, Any]) -> None:
    first, *rest = readings(steady(100), times=seconds())

    found = energy(header(domain("package-0")), first, line, *rest)

    assert found.joules == pytest.approx(10_000) and found.gaps == ()


def test_lines_of_a_later_schema_are_passed_over() -> None:
    rows = readings(steady(100), times=seconds())

    assert energy({**header(domain("package-0")), "header": 2}, *rows).joules is None
