"""What a run's events tell, of one attempt and of several."""

from __future__ import annotations

from typing import Any

import pytest

from hpcml.timeline import AttemptTimeline, Span, Story, tell


def story_of(*events: dict[str, Any], asked: float | None = None) -> Story:
    return tell([{"t": 100.0, **event} for event in events], asked)


START = {"e": "start", "m": 10 * 10**9, "t": 1000.0, "host": "here", "run": "x"}


def at(second: float, kind: str, **fields: Any) -> dict[str, Any]:
    return {"e": kind, "m": int(second * 1e9), **fields}


def begin(second: float, name: str) -> dict[str, Any]:
    return at(second, "begin", phase=name)


def finish(second: float, name: str) -> dict[str, Any]:
    return at(second, "finish", phase=name)


def test_nested_phases() -> None:
    story = story_of(
        START,
        at(11, "command"),
        begin(12, "a"),
        begin(13, "b"),
        finish(14, "b"),
        begin(15, "b"),
        finish(17, "b"),
        finish(18, "a"),
        at(20, "end"),
        asked=997.0,
    )

    line = story.timeline
    assert (line.queue, line.setup, line.command) == (3.0, 1.0, 9.0)
    assert line.phases == {"a": 6.0, "b": 3.0}
    assert line.spans == (
        Span("a", 1002.0, 6.0, True, 0),
        Span("b", 1003.0, 1.0, True, 1),
        Span("b", 1005.0, 2.0, True, 1),
    )
    assert story.host == {"host": "here"}


def test_unfinished_phases_last_until_the_last_event() -> None:
    spans = story_of(START, begin(11, "a"), begin(12, "b"), at(15, "end")).timeline.spans

    assert [(s.name, s.seconds, s.complete) for s in spans] == [
        ("a", 4.0, False),
        ("b", 3.0, False),
    ]


def test_a_phase_within_itself_counts_once() -> None:
    line = story_of(
        START,
        begin(11, "a"),
        begin(12, "a"),
        at(12.5, "log", samples=5, v={}),
        finish(13, "a"),
        finish(15, "a"),
    ).timeline

    assert line.phases == {"a": 4.0} and line.samples == {"a": 5}
    assert line.samples_per_second == {"a": 1.25}


def test_phases_that_overlap_without_nesting() -> None:
    """Two threads."""
    line = story_of(
        START, begin(11, "a"), begin(12, "b"), finish(13, "a"), finish(15, "b")
    ).timeline

    assert line.phases == {"a": 2.0, "b": 3.0}


def test_a_phase_whose_beginning_was_lost_is_passed_over() -> None:
    assert story_of(START, finish(11, "a"), at(12, "end")).timeline.spans == ()


# --- several attempts -----------------------------------------------------------------------------

AGAIN = {**START, "m": 3 * 10**9, "t": 5000.0, "host": "there"}  # after a reboot, or elsewhere
INTERRUPTED = (
    START,
    at(11, "command"),
    begin(12, "train"),
    at(13, "log", step=1, samples=8, v={"loss": 4.0}),
    at(13, "describe", v={"model": "toy", "precision": "fp32"}),
    finish(15, "train"),
    at(16, "end", exit_code=144, signal=None),
)
FINISHED = (
    AGAIN,
    at(5, "command"),
    begin(6, "train"),
    at(7, "log", step=2, samples=4, v={"loss": 2.0}),
    at(7, "describe", v={"precision": "bf16"}),
    finish(9, "train"),
    at(10, "end", exit_code=0, signal=None),
)


def test_a_run_that_was_requeued_goes_on_in_its_timeline() -> None:
    story = story_of(*INTERRUPTED, *FINISHED, asked=997.0)

    line = story.timeline
    assert (line.queue, line.setup, line.command) == (3.0, 1.0 + 2.0, 5.0 + 5.0)
    assert line.phases == {"train": 3.0 + 3.0} and line.samples == {"train": 12}
    assert line.spans == (
        Span("train", 1002.0, 3.0, attempt=1),
        Span("train", 5003.0, 3.0, attempt=2),
    )
    assert line.attempts == (
        AttemptTimeline(1, 1000.0, 1.0, 5.0, exit_code=144, complete=True),
        AttemptTimeline(2, 5000.0, 2.0, 5.0, exit_code=0, complete=True),
    )
    assert [(p.step, p.time, p.value) for p in story.history["loss"]] == [
        (1, 1003.0, 4.0),
        (2, 5004.0, 2.0),
    ]
    assert story.described == {"model": "toy", "precision": "bf16"}
    assert story.host == {"host": "there"}


def test_an_attempt_whose_agent_was_killed_has_no_end_and_adds_no_figure() -> None:
    story = story_of(*INTERRUPTED[:4], *FINISHED)

    line = story.timeline
    assert line.attempts[0] == AttemptTimeline(1, 1000.0, 1.0)
    assert (line.setup, line.command) == (3.0, 5.0)
    assert line.spans == (
        Span("train", 1002.0, 1.0, complete=False, attempt=1),
        Span("train", 5003.0, 3.0, attempt=2),
    )


def test_a_run_of_which_nothing_is_known_has_no_figures() -> None:
    line = story_of(START, AGAIN).timeline

    assert (line.queue, line.setup, line.command) == (None, None, None)
    assert [attempt.complete for attempt in line.attempts] == [False, False]


def test_an_attempt_ended_by_a_signal_says_which() -> None:
    (attempt,) = story_of(START, at(11, "end", exit_code=None, signal=9)).timeline.attempts

    assert (attempt.exit_code, attempt.signal, attempt.complete) == (None, 9, True)


def test_events_of_an_attempt_are_ordered_among_themselves_only() -> None:
    """The second one's clock began anew: all of its events are earlier than the first one's."""
    first = (START, finish(13, "a"), begin(11, "a"))
    second = ({**START, "m": 1 * 10**9, "t": 5000.0}, finish(4, "b"), begin(2, "b"))

    assert story_of(*first, *second).timeline.spans == (
        Span("a", 1001.0, 2.0, attempt=1),
        Span("b", 5001.0, 2.0, attempt=2),
    )


def test_a_phase_left_open_in_one_attempt_is_not_closed_in_the_next() -> None:
    spans = story_of(START, begin(11, "a"), at(12, "kill"), AGAIN, finish(4, "a")).timeline.spans

    assert spans == (Span("a", 1001.0, 1.0, complete=False, attempt=1),)


def test_events_without_their_start_are_of_unknown_time_and_passed_over() -> None:
    """A full disk took the second attempt's first line."""
    line = story_of(*INTERRUPTED, *FINISHED[1:]).timeline

    assert len(line.attempts) == 1 and line.command == 5.0


def test_an_attempt_keeps_its_number_when_an_earlier_one_left_no_trace() -> None:
    """And the wait of the first one is not taken from a later one's start."""
    line = story_of({**AGAIN, "attempt": 2}, begin(4, "a"), finish(5, "a"), asked=900.0).timeline

    assert line.attempts[0].number == 2 and line.spans[0].attempt == 2
    assert line.queue is None


def test_a_timeline_shows_attempts_when_there_are_several() -> None:
    killed = ({**START, "t": 9000.0}, at(11, "command"), at(12, "end", exit_code=None, signal=9))
    silent = ({**START, "t": 9900.0},)

    text = str(story_of(*INTERRUPTED, *FINISHED, *killed, *silent).timeline)

    assert text.splitlines()[3:] == [
        "  train              6.000 s",
        "attempt 1            setup 1.000 s, command 5.000 s, exit code 144",
        "attempt 2            setup 2.000 s, command 5.000 s, exit code 0",
        "attempt 3            setup 1.000 s, command 1.000 s, signal 9",
        "attempt 4            setup –, command –, no end was written",
    ]
    assert "attempt" not in str(story_of(*INTERRUPTED).timeline)


# --- what is not as it should be ------------------------------------------------------------------


def test_events_out_of_order() -> None:
    """Several processes fill windows of their own."""
    story = story_of(
        START,
        finish(13, "a"),
        at(14, "log", step=2, v={"x": 2}),
        begin(11, "a"),
        at(12, "log", step=1, v={"x": 1}),
    )

    assert story.timeline.phases == {"a": 2.0}
    assert [point.step for point in story.history["x"]] == [1, 2]


def test_a_step_of_the_wall_clock_does_not_show() -> None:
    """An hour back, within a phase."""
    story = story_of(START, begin(11, "a"), {**at(12, "signal"), "t": -2600.0}, finish(13, "a"))

    assert story.timeline.spans == (Span("a", 1001.0, 2.0, True, 0),)


@pytest.mark.parametrize(
    "event",
    [
        {"m": 11, "e": "log", "v": {"x": 1}, "samples": "many"},
        {"m": 11, "e": "log", "v": {"x": 1}, "samples": None},
        {"m": 11, "e": "log", "v": {"x": 1}, "samples": float("nan")},
        {"m": 11, "e": "unheard-of"},
        {"m": 11, "e": "log", "v": {"x": 1}, "samples": 10**400},
    ],
)
def test_strange_events_do_no_harm(event: dict[str, Any]) -> None:
    story = story_of(START, begin(11, "a"), event, finish(13, "a"))

    assert story.timeline.phases == {"a": 2.0} and story.timeline.samples == {}
    assert story.passed_over == 0


NAN = float("nan")


@pytest.mark.parametrize(
    "event",
    [
        {"e": "no clock"},
        {},
        {"e": ["start"], "m": 11},
        {"e": {}, "m": 11},
        {"e": "log", "m": "11", "v": {"x": 1}},
        {"e": "log", "m": NAN, "v": {"x": 1}},
        {"e": "log", "m": 10**400, "v": {"x": 1}},
        {"e": "log", "m": 11},
        {"e": "log", "m": 11, "v": 3},
        {"e": "describe", "m": 11, "v": [["a", 1], [2, 3]]},
        {"e": "begin", "m": 11, "phase": 3},
        {"e": "finish", "m": 11, "phase": ["a"]},
        {"e": "start", "m": 11, "t": None},
        {"e": "start", "m": 11, "t": NAN},
        {"e": "start", "m": 11, "host": {}},
        {"e": "start", "m": 11, "boot": []},
        {"e": "start", "m": 11, "attempt": "second"},
        {"e": "start", "m": 11, "attempt": 2**31},
    ],
)
def test_what_is_no_event_is_passed_over_and_counted(event: dict[str, Any]) -> None:
    story = story_of(START, begin(11, "a"), at(12, "log", v={"x": 1}), event, finish(13, "a"))

    assert story.timeline.phases == {"a": 2.0} and story.passed_over == 1
    assert list(story.history) == ["x"] and story.described == {}
    assert len(story.timeline.attempts) == 1


def test_a_clock_that_was_set_back_leaves_no_time_in_the_queue() -> None:
    """It is not 0 s: nobody knows. Two clocks may differ a little."""
    assert story_of(START, asked=1000.5).timeline.queue == 0.0
    assert story_of(START, asked=4600.0).timeline.queue is None


def test_without_a_beginning_there_is_no_story() -> None:
    assert tell([], None) == Story(tell([], None).timeline, {}, {}, {})
    assert story_of(begin(11, "a")).timeline.spans == ()


def test_the_own_times_of_phases_sum_up_to_a_whole() -> None:
    """Nested, overlapping and repeated spans: each moment belongs to the phase entered last."""
    begin, finish = "begin", "finish"
    marks = [
        (0, begin, "train"),
        (1, begin, "epoch"),
        (3, begin, "io"),
        (4, finish, "epoch"),  # before what was entered within it
        (6, finish, "io"),
        (7, begin, "epoch"),
        (9, finish, "epoch"),
        (10, finish, "train"),
    ]
    lines = [{"e": "start", "t": 0.0, "m": 0}]
    lines += [{"e": kind, "m": m * 10**9, "phase": name} for m, kind, name in marks]
    found = tell([*lines, *lines], None).timeline  # two attempts
    assert found.own == {"train": 6.0, "epoch": 8.0, "io": 6.0}
    assert sum(found.own.values()) == 2 * 10.0
