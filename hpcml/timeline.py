"""What a run's events tell: time by phase, metrics, what was described."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any, TypeGuard

from hpcml import html

LATEST = 2**63  # ns of a monotonic clock: 292 years
MOST_ATTEMPTS = 2**31
SKEW = 1.0  # s by which two clocks may differ; if one was set back further nothing is known
AT_ONCE = 2_000_000  # bytes of events that are read in a fifth of a second
MOST_PHASES = 50  # that a notebook shows


@dataclass(frozen=True)
class Span:
    """A stretch of a run's time.

    Attributes
    ----------
    start : float
        In s since the epoch, by the clock of the machine it ran on.
    seconds : float
    complete : bool
        False: the attempt ended, or was killed, within it.
    depth : int
        How many spans were open around it.
    attempt : int
        In which attempt of the run it was; 1 is the first.
    """

    name: str
    start: float
    seconds: float
    complete: bool = True
    depth: int = 0
    attempt: int = 1


@dataclass(frozen=True)
class Point:
    """One value of a metric: ``time`` in s since the epoch."""

    step: float | None
    time: float
    value: Any


@dataclass(frozen=True)
class Event:
    """Something that happened to an attempt: it was started, signalled, ended, and the like.

    ``time`` in s since the epoch; ``facts``: what else its agent wrote of it, by name.
    """

    attempt: int
    time: float
    kind: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class AttemptTimeline:
    """When one attempt of a run did what. What is not known is ``None``.

    Attributes
    ----------
    number : int
        1 is the first.
    start : float
        When its agent started, in s since the epoch, by the clock of the machine it ran on.
    setup : float or None
        Seconds from the agent's start to the command's.
    command : float or None
        Seconds that the command ran.
    exit_code, signal : int or None
        How the command ended: one of the two, once it has.
    complete : bool
        False: the agent did not write of its end. It is still at work, was killed, or could not
        start the command.
    """

    number: int
    start: float
    setup: float | None = None
    command: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    complete: bool = False

    def __str__(self) -> str:
        end = "no end was written"
        if self.signal is not None:
            end = f"signal {self.signal}"
        elif self.complete:
            end = f"exit code {self.exit_code}"
        return f"setup {in_seconds(self.setup)}, command {in_seconds(self.command)}, {end}"


@dataclass(frozen=True)
class Timeline:
    """When a run did what, over all its attempts. What is not known is ``None``.

    Attributes
    ----------
    queue : float or None
        Seconds from asking the queue to the start of the first attempt's agent; by the clocks of
        two machines, maybe, so not known if it seems to have started before.
    setup : float or None
        Seconds from the agent's start to the command's: the sum over the attempts of which it is
        known.
    command : float or None
        Seconds that the command ran: the sum over the attempts of which it is known. One whose
        agent was killed adds nothing, as nobody saw its end.
    spans : tuple of Span
        Phases in the order in which they began.
    samples : dict
        Samples logged while a phase was open, by phase.
    attempts : tuple of AttemptTimeline
        Those that wrote of their beginning, in order.
    lost : int
        Events, at least, that could not be written, on a full disk maybe. Any phase or metric may
        have been among them.
    """

    queue: float | None = None
    setup: float | None = None
    command: float | None = None
    spans: tuple[Span, ...] = ()
    samples: Mapping[str, float] = field(default_factory=dict)
    attempts: tuple[AttemptTimeline, ...] = ()
    lost: int = 0

    @property
    def unfinished(self) -> frozenset[str]:
        """Phases that the attempt ended, or was killed, within: how long they took is not known."""
        return frozenset(span.name for span in self.spans if not span.complete)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, all its spans together."""
        total: dict[str, float] = {}
        for span in self.spans:
            total[span.name] = total.get(span.name, 0.0) + span.seconds
        return total

    @property
    def own(self) -> dict[str, float]:
        """Seconds by phase in which no other phase was open within it: they sum up to a whole."""
        edges = []
        for place, span in enumerate(self.spans):
            edges.append((span.attempt, span.start, 1, place))
            edges.append((span.attempt, span.start + span.seconds, 0, place))
        total = dict.fromkeys((span.name for span in self.spans), 0.0)
        inner: list[int] = []  # a heap: of the open spans the one that began last comes first
        closed: set[int] = set()
        before = 0.0
        for _, now, opens, place in sorted(edges):
            while inner and -inner[0] in closed:
                heappop(inner)
            if inner:
                total[self.spans[-inner[0]].name] += now - before
            before = now
            if opens:
                heappush(inner, -place)
            else:
                closed.add(place)
        return total

    @property
    def samples_per_second(self) -> dict[str, float | None]:
        """Samples logged within a phase by the seconds spent in it.

        ``None`` without samples, and where events were lost: they may have told more.
        """
        rates: dict[str, float | None] = {}
        for name, seconds in self.phases.items():
            count = None if self.lost else self.samples.get(name)
            rates[name] = count / seconds if count is not None and seconds > 0 else None
        return rates

    @property
    def told(self) -> dict[str, str]:
        """Seconds by phase for people: which have not ended, it says."""
        left_open = self.unfinished
        return {
            name: in_seconds(seconds) + (" (not ended)" if name in left_open else "")
            for name, seconds in self.phases.items()
        }

    @property
    def note(self) -> str:
        """What to know of its phases; empty: nothing."""
        return f"{self.lost} events or more could not be written" if self.lost else ""

    def __str__(self) -> str:
        rows = [("queue", self.queue), ("setup", self.setup), ("command", self.command)]
        lines = [f"{name:<20} {in_seconds(seconds)}" for name, seconds in rows]
        lines += [f"{f'  {name}':<20} {text}" for name, text in self.told.items()]
        lines += [f"{'lost':<20} {self.note}"] if self.note else []
        if len(self.attempts) > 1:
            lines += [f"{f'attempt {one.number}':<20} {one}" for one in self.attempts]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        times = [("queue", self.queue), ("setup", self.setup), ("command", self.command)]
        rows = [(name, in_seconds(seconds)) for name, seconds in times]
        indent = html.Html("&ensp;")
        phases = list(self.told.items())[:MOST_PHASES]
        rows += [(html.joined("", [indent, name]), text) for name, text in phases]
        parts = [html.table((), rows, numbers=True)]
        if self.note:
            parts.append(html.note(self.note))
        if len(self.phases) > MOST_PHASES:
            parts.append(html.note(f"… and {len(self.phases) - MOST_PHASES} more phases"))
        if len(self.attempts) > 1:
            listed = [f"{one.number}: {one}" for one in reversed(self.attempts)]
            parts.append(html.note(html.few(listed, "<br>")))
        return html.card("time", *parts)


def in_seconds(seconds: float | None) -> str:
    """Seconds for people; a dash if they are not known."""
    return "–" if seconds is None else f"{seconds:.3f} s"


@dataclass(frozen=True)
class Story:
    """All that the events of a run tell. Its host is the last attempt's.

    ``events`` are those that are neither metrics, phases nor descriptions. ``passed_over`` counts
    the lines that are no events: a job can write there, too. ``no_counts`` counts the samples that
    are no finite number from 0 up; they are passed over as well.
    """

    timeline: Timeline
    history: Mapping[str, tuple[Point, ...]]
    described: Mapping[str, Any]
    host: Mapping[str, Any]
    events: tuple[Event, ...] = ()
    passed_over: int = 0
    no_counts: int = 0

    @property
    def unread(self) -> str | None:
        """What was passed over, in words, if anything."""
        said = []
        if self.passed_over:
            said.append(f"{self.passed_over} of its lines are no events")
        if self.no_counts:
            said.append(f"{self.no_counts} of its sample counts are no numbers from 0 up")
        return "; ".join(said) or None


def tell(events: Iterable[Mapping[str, Any]], asked: float | None, lost: int = 0) -> Story:
    """Read a run's events in one pass: those of all its attempts, one after the other.

    Parameters
    ----------
    events : iterable of dict
        Lines of ``events.jsonl``. Several processes write them, so they are put in the order of
        the monotonic clock within an attempt.
    asked : float or None
        When the queue was asked, in s since the epoch.
    lost : int
        Events that its agents could not write.
    """
    reader = _Reader(lost)
    for attempt in _attempts(reader.sound(events)):
        reader.read(attempt)
    return reader.story(asked)


def starts(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What began each attempt: one event for each of the timeline's attempts."""
    return [event for event in events if event.get("e") == "start" and _is_event(event)]


def _is_event(event: Mapping[str, Any]) -> bool:
    """Whether it has what events of its kind need."""
    kind, moment = event.get("e"), event.get("m")
    if not (isinstance(kind, str) and isinstance(moment, int) and abs(moment) < LATEST):
        return False
    if kind in ("begin", "finish"):
        return isinstance(event.get("phase"), str)
    if kind in ("log", "describe"):
        return isinstance(event.get("v"), dict)
    return kind != "start" or _is_start(event)


def _is_start(event: Mapping[str, Any]) -> bool:
    number = event.get("attempt", 1)
    named = all(isinstance(event.get(name, ""), str) for name in ("host", "boot"))
    return (
        named
        and _is_finite(event.get("t"))
        and isinstance(number, int)
        and 0 < number < MOST_ATTEMPTS
    )


def lost_by(facts: Mapping[str, Any]) -> int:
    """How many events were lost, by an event that says so; one at least."""
    number = facts.get("n")
    return number if type(number) is int and 0 < number < LATEST else 1


def _is_finite(value: Any) -> TypeGuard[float]:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _is_count(value: Any) -> TypeGuard[float]:
    return _is_finite(value) and value >= 0 and not isinstance(value, bool)


def _attempts(events: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The events of each attempt, its start first.

    What follows an end without a new start is passed over: by which clock it was is not known.
    """
    attempt: list[Mapping[str, Any]] = []
    for event in events:
        kind = event["e"]
        if kind == "start":
            if attempt:
                yield attempt
            attempt, ended = [event], False
        elif attempt and not ended:
            attempt.append(event)
            ended = kind == "end"
    if attempt:
        yield attempt


class _Reader:
    """Reads attempt after attempt. The clock of each is its own: they may be of several boots."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.start: Mapping[str, Any] = {}
        self.number = 0
        self.attempts: list[AttemptTimeline] = []
        self.open: list[tuple[str, float, int]] = []
        self.spans: list[tuple[int, Span]] = []
        self.begun = 0
        self.samples: dict[str, float] = {}
        self.history: dict[str, list[Point]] = {}
        self.described: dict[str, Any] = {}
        self.events: list[Event] = []
        self.passed_over = 0
        self.no_counts = 0

    def sound(self, events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Only what is an event."""
        for event in events:
            if _is_event(event):
                yield event
            else:
                self.passed_over += 1

    def read(self, events: list[Mapping[str, Any]]) -> None:
        """Add one attempt."""
        self.start = start = events[0]
        self.number = start.get("attempt", self.number + 1)
        events.sort(key=itemgetter("m"))
        marks: dict[str, Mapping[str, Any]] = {}
        for event in events:
            # By the monotonic clock: steps of the wall clock do not show.
            now = float(start["t"] + (event["m"] - start["m"]) / 1e9)
            kind = event["e"]
            if kind == "begin":
                self.open.append((event["phase"], now, self.begun))
                self.begun += 1
            elif kind == "finish":
                self._finish(event["phase"], now)
            elif kind == "log":
                self._log(event, now)
            elif kind == "describe":
                self.described.update(event["v"])
            else:
                self.lost += lost_by(event) if kind == "lost" else 0
                marks.setdefault(kind, event)
                self.events.append(Event(self.number, now, kind, _facts(event)))
        while self.open:
            self._close(len(self.open) - 1, now, complete=False)
        self._note(marks.get("command"), marks.get("end"))

    def story(self, asked: float | None) -> Story:
        """All that was read."""
        attempts = tuple(self.attempts)
        queue = None
        if asked is not None and attempts and attempts[0].number == 1:
            waited = attempts[0].start - asked
            queue = max(0.0, waited) if waited > -SKEW else None
        timeline = Timeline(
            queue=queue,
            setup=_sum(attempt.setup for attempt in attempts),
            command=_sum(attempt.command for attempt in attempts),
            spans=tuple(span for _, span in sorted(self.spans, key=itemgetter(0))),
            samples=self.samples,
            attempts=attempts,
            lost=self.lost,
        )
        history = {name: tuple(points) for name, points in self.history.items()}
        left_out = ("e", "t", "m", "run", "agent", "attempt")
        host = {key: value for key, value in self.start.items() if key not in left_out}
        return Story(
            timeline,
            history,
            self.described,
            host,
            tuple(self.events),
            self.passed_over,
            self.no_counts,
        )

    def _note(self, command: Mapping[str, Any] | None, end: Mapping[str, Any] | None) -> None:
        self.attempts.append(
            AttemptTimeline(
                self.number,
                float(self.start["t"]),
                setup=_between(self.start, command),
                command=_between(command, end),
                exit_code=None if end is None else end.get("exit_code"),
                signal=None if end is None else end.get("signal"),
                complete=end is not None,
            )
        )

    def _finish(self, name: str, now: float) -> None:
        for place in range(len(self.open) - 1, -1, -1):
            if self.open[place][0] == name:
                return self._close(place, now, complete=True)
        return None  # its beginning was lost

    def _close(self, place: int, now: float, *, complete: bool) -> None:
        name, began, order = self.open.pop(place)
        if all(other != name for other, _, _ in self.open):  # within itself it counts once
            span = Span(name, began, now - began, complete, place, self.number)
            self.spans.append((order, span))

    def _log(self, event: Mapping[str, Any], now: float) -> None:
        samples = event.get("samples")
        if not _is_count(samples):
            self.no_counts += samples is not None
        else:
            for name in {name for name, _, _ in self.open}:
                self.samples[name] = self.samples.get(name, 0) + samples
        for name, value in event["v"].items():
            self.history.setdefault(name, []).append(Point(event.get("step"), now, value))


def _facts(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event tells; that of the start is what its machine is, which the host tells."""
    left_out = ("e", "t", "m", "attempt")
    return {
        key: value
        for key, value in event.items()
        if key not in left_out and (event["e"] != "start" or key in ("run", "agent"))
    }


def _between(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> float | None:
    return None if one is None or other is None else (other["m"] - one["m"]) / 1e9


def _sum(known: Iterable[float | None]) -> float | None:
    """Sum of what is known; ``None`` if nothing is."""
    figures = [seconds for seconds in known if seconds is not None]
    return sum(figures) if figures else None
