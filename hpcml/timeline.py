"""What a run's events tell: time by phase, metrics, what was described."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """A stretch of a run's time.

    Attributes
    ----------
    start : float
        In s since the epoch, by the clock of the machine it ran on.
    seconds : float
    complete : bool
        False: the run ended, or was killed, within it.
    depth : int
        How many spans were open around it.
    """

    name: str
    start: float
    seconds: float
    complete: bool = True
    depth: int = 0


@dataclass(frozen=True)
class Point:
    """One value of a metric: ``time`` in s since the epoch."""

    step: float | None
    time: float
    value: Any


@dataclass(frozen=True)
class Timeline:
    """When a run did what. What is not known is ``None``.

    Attributes
    ----------
    queue : float or None
        Seconds from asking the queue to the start of the agent.
    setup : float or None
        Seconds from the agent's start to the command's.
    command : float or None
        Seconds that the command ran.
    spans : tuple of Span
        Phases in the order in which they began.
    samples : dict
        Samples logged while a phase was open, by phase.
    """

    queue: float | None = None
    setup: float | None = None
    command: float | None = None
    spans: tuple[Span, ...] = ()
    samples: Mapping[str, float] = field(default_factory=dict)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, all its spans together."""
        total: dict[str, float] = {}
        for span in self.spans:
            total[span.name] = total.get(span.name, 0.0) + span.seconds
        return total

    @property
    def samples_per_second(self) -> dict[str, float | None]:
        """Samples logged within a phase by the seconds spent in it; ``None`` without samples."""
        rates: dict[str, float | None] = {}
        for name, seconds in self.phases.items():
            count = self.samples.get(name)
            rates[name] = count / seconds if count is not None and seconds > 0 else None
        return rates

    def __str__(self) -> str:
        rows = [("queue", self.queue), ("setup", self.setup), ("command", self.command)]
        rows += [(f"  {name}", seconds) for name, seconds in self.phases.items()]
        return "\n".join(
            f"{name:<20} {'–' if seconds is None else f'{seconds:.3f} s'}" for name, seconds in rows
        )


@dataclass(frozen=True)
class Story:
    """All that the events of a run tell."""

    timeline: Timeline
    history: Mapping[str, tuple[Point, ...]]
    described: Mapping[str, Any]
    host: Mapping[str, Any]


def tell(events: Iterable[Mapping[str, Any]], asked: float | None) -> Story:
    """Read a run's events in one pass. Of several attempts the last one's phases count.

    Parameters
    ----------
    events : iterable of dict
        Lines of ``events.jsonl``. Several processes write them, so they are put in the order of
        the monotonic clock within an attempt.
    asked : float or None
        When the queue was asked, in s since the epoch.
    """
    attempt: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("e") == "start":
            attempt = []
        if "m" in event and "e" in event:
            attempt.append(event)
    if not attempt or attempt[0]["e"] != "start":
        return Story(Timeline(), {}, {}, {})
    start = attempt[0]
    return _Reader(start, asked).read(sorted(attempt, key=lambda event: event["m"]))


class _Reader:
    def __init__(self, start: Mapping[str, Any], asked: float | None) -> None:
        self.start, self.asked = start, asked
        self.marks: dict[str, Mapping[str, Any]] = {}
        self.open: list[tuple[str, float, int]] = []
        self.spans: list[tuple[int, Span]] = []
        self.begun = 0
        self.samples: dict[str, float] = {}
        self.history: dict[str, list[Point]] = {}
        self.described: dict[str, Any] = {}

    def read(self, events: list[Mapping[str, Any]]) -> Story:
        now = self.start["t"]
        for event in events:
            now = self._wall(event)
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
                self.marks.setdefault(kind, event)
        while self.open:
            self._close(len(self.open) - 1, now, complete=False)
        history = {name: tuple(points) for name, points in self.history.items()}
        host = {k: v for k, v in self.start.items() if k not in ("e", "t", "m", "run", "agent")}
        return Story(self._timeline(), history, self.described, host)

    def _timeline(self) -> Timeline:
        command, end = self.marks.get("command"), self.marks.get("end")
        queue = None if self.asked is None else max(0.0, self.start["t"] - self.asked)
        return Timeline(
            queue=queue,
            setup=self._between(self.start, command),
            command=self._between(command, end),
            spans=tuple(span for _, span in sorted(self.spans, key=lambda pair: pair[0])),
            samples=self.samples,
        )

    def _wall(self, event: Mapping[str, Any]) -> float:
        """Wall clock of an event, by the monotonic clock: steps of the wall clock do not show."""
        return float(self.start["t"] + (event["m"] - self.start["m"]) / 1e9)

    def _between(
        self, one: Mapping[str, Any] | None, other: Mapping[str, Any] | None
    ) -> float | None:
        return None if one is None or other is None else (other["m"] - one["m"]) / 1e9

    def _finish(self, name: str, now: float) -> None:
        for place in range(len(self.open) - 1, -1, -1):
            if self.open[place][0] == name:
                return self._close(place, now, complete=True)
        return None  # its beginning was lost

    def _close(self, place: int, now: float, *, complete: bool) -> None:
        name, began, order = self.open.pop(place)
        if all(other != name for other, _, _ in self.open):  # within itself it counts once
            self.spans.append((order, Span(name, began, now - began, complete, place)))

    def _log(self, event: Mapping[str, Any], now: float) -> None:
        samples = event.get("samples")
        if isinstance(samples, int | float) and math.isfinite(samples):
            for name in {name for name, _, _ in self.open}:
                self.samples[name] = self.samples.get(name, 0) + samples
        for name, value in event["v"].items():
            self.history.setdefault(name, []).append(Point(event.get("step"), now, value))
