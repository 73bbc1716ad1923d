"""From readings of a machine to the energy of a run that it worked on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcml.energy.model import MEASURED, Energy, Gap, PhaseEnergy
from hpcml.energy.readings import Machine, Piece, Readings, Series
from hpcml.timeline import AttemptTimeline, Timeline, starts

UPDATES = 10  # a phase that is shorter than so many readings gets no energy
SILENCE = "there are no readings"


def measure(
    events: Iterable[Mapping[str, Any]],
    timeline: Timeline,
    readings: Readings,
    *,
    final: bool,
) -> Energy:
    """The energy of a run.

    Between two readings the power is taken to be constant. At the begin and the end of an attempt
    the true energy lies between none and all of what was used between the two readings around it:
    that is the uncertainty. Where readings begin and end, a counter's lag comes on top.

    Parameters
    ----------
    events : iterable of dict
        Lines of the run's ``events.jsonl``.
    timeline : Timeline
        What they tell (see :func:`hpcml.timeline.tell`).
    readings : Readings
        Of the machines, from the files beside the run.
    final : bool
        Whether the run has ended. One that has not is measured up to the last reading.
    """
    meters = _meters(events, timeline, readings, final=final)
    if not meters:
        return Energy(why="it has not started")
    return _total(meters, timeline)


def is_awaited(events: Iterable[Mapping[str, Any]], timeline: Timeline, readings: Readings) -> bool:
    """Whether the reading after the end of a run is still to be written, as far as one can see."""
    meters = _meters(events, timeline, readings, final=True)
    if not meters or meters[-1].window is None:
        return False
    return meters[-1].machine.is_read and meters[-1].machine.reach < meters[-1].window[1]


def _meters(
    events: Iterable[Mapping[str, Any]], timeline: Timeline, readings: Readings, *, final: bool
) -> list[_Meter]:
    meters = []
    for start, attempt in zip(starts(events), timeline.attempts, strict=False):  # one just begun
        open_end = not final and attempt is timeline.attempts[-1]
        machine = readings.of(start.get("host"), start.get("boot") or None)
        meters.append(_Meter(start, attempt, machine, open_end=open_end))
    return meters


@dataclass
class _Sum:
    """Energy, and time, of some stretches of time."""

    joules: float = 0.0
    uncertainty: float = 0.0
    seconds: float = 0.0
    covered: float = 0.0
    whole: int = 0  # pieces that lie within, and are not cut off
    gaps: list[Gap] = field(default_factory=list)

    def add(self, other: _Sum) -> None:
        self.joules += other.joules
        self.uncertainty += other.uncertainty
        self.seconds += other.seconds
        self.covered += other.covered
        self.whole += other.whole
        self.gaps += other.gaps


class _Meter:
    """What the readings of its machine tell of one attempt."""

    def __init__(
        self,
        start: Mapping[str, Any],
        attempt: AttemptTimeline,
        machine: Machine,
        *,
        open_end: bool,
    ) -> None:
        self.number = attempt.number
        self.machine, self.series = machine, machine.series
        self.pieces, self.begins = machine.joined()
        self.clock = start["t"] - start["m"] / 1e9  # from the monotonic clock to the wall's
        self.window = self._window(start, attempt, open_end=open_end)

    def _window(
        self, start: Mapping[str, Any], attempt: AttemptTimeline, *, open_end: bool
    ) -> tuple[float, float] | None:
        """When its command ran; ``None`` if its end is not known."""
        begin = start["m"] / 1e9 + (attempt.setup or 0.0)
        if attempt.command is not None:
            return begin, begin + attempt.command
        if attempt.complete:
            return begin, begin  # it could not be started
        if open_end:
            return begin, max([begin, *(piece.end for piece in self.pieces[-1:])])
        return None

    def between(self, begin: float, end: float) -> _Sum:
        return _between(self.pieces, self.begins, begin, end, self.clock)

    def domain(self, name: str) -> float | None:
        """J of one domain alone."""
        if self.window is None:
            return None
        found = _between(*self.machine.joined(name), *self.window, self.clock)
        return found.joules if found.whole else None


def _between(
    pieces: Sequence[Piece], begins: Sequence[float], begin: float, end: float, clock: float
) -> _Sum:
    """Sum up what lies between two times, in s of the monotonic clock."""
    total = _Sum(seconds=end - begin)
    at = begin
    edges: list[Piece] = []  # first and last of each stretch without gaps
    last: Piece | None = None
    for place in range(max(0, bisect_right(begins, begin) - 1), len(pieces)):
        piece = pieces[place]
        if piece.begin >= end:
            break
        low, high = max(begin, piece.begin), min(end, piece.end)
        if high <= low:
            continue
        _skip(total, at, low, SILENCE, clock)
        at = high
        if piece.joules is None:
            _skip(total, low, high, piece.reason, clock)
            continue
        if last is None or piece.begin > last.end:
            edges += [piece] if last is None else [last, piece]
        last = piece
        share = (high - low) / (piece.end - piece.begin)
        total.joules += share * piece.joules
        total.covered += high - low
        if low == piece.begin and high == piece.end:
            total.whole += 1
        else:
            total.uncertainty += max(share, 1 - share) * piece.joules
    _skip(total, at, end, SILENCE, clock)
    for piece in edges if last is None else [*edges, last]:
        total.uncertainty += piece.lag * (piece.joules or 0.0) / (piece.end - piece.begin)
    return total


def _skip(total: _Sum, begin: float, end: float, reason: str, clock: float) -> None:
    """Add a gap, to the one that it goes on from if there is one."""
    if end <= begin:
        return
    last = total.gaps[-1] if total.gaps else None
    if last and last.reason == reason and last.start + last.seconds >= begin + clock - 1e-6:
        total.gaps[-1] = Gap(last.start, last.seconds + end - begin, reason)
    else:
        total.gaps.append(Gap(begin + clock, end - begin, reason))


def _total(meters: Sequence[_Meter], timeline: Timeline) -> Energy:
    series = [one for meter in meters for one in meter.series]
    sources = _sources(series)
    known = [meter for meter in meters if meter.window is not None]
    total = _Sum()
    for meter in known:
        if meter.window is not None:
            total.add(meter.between(*meter.window))
    scopes = {one.scope for one in series if one.readings and one.scope}
    why = _why_not(total, meters, scopes, sources)
    measured = not why
    return Energy(
        joules=total.joules if measured else None,
        uncertainty=total.uncertainty if measured else None,
        scope=next(iter(scopes)) if measured else None,
        seconds=total.seconds if len(known) == len(meters) else None,
        covered=total.covered,
        gaps=tuple(total.gaps),
        exclusive=all(one.exclusive for one in series) if measured else None,
        sources=sources,
        why=why,
        phases=_phases(meters, timeline, measured=measured),
        domains=_domains(meters),
        root=series[-1].root if series else "/",
    )


def _why_not(
    total: _Sum, meters: Sequence[_Meter], scopes: set[str], sources: Mapping[str, str]
) -> str:
    """Why there is no figure; empty if there is one."""
    lost = [str(meter.number) for meter in meters if meter.window is None]
    if not sources:
        return "there is no record of what was tried on its machine"
    if MEASURED not in sources.values():
        return "; ".join(f"{reader}: {reason}" for reader, reason in sources.items())
    if lost:
        return f"the end of attempt {', '.join(lost)} is not known"
    if len(scopes) > 1:
        return f"its attempts were measured in different scopes: {', '.join(sorted(scopes))}"
    if not total.covered:
        return "; ".join(sorted({gap.reason for gap in total.gaps})) or SILENCE
    if not total.whole:
        return "it was shorter than two readings of the counters are apart"
    return ""


def _phases(
    meters: Sequence[_Meter], timeline: Timeline, *, measured: bool
) -> dict[str, PhaseEnergy]:
    """Energy by phase, from the spans of those attempts that it can be known of."""
    by_number = {meter.number: meter for meter in meters}
    sums: dict[str, _Sum] = {}
    spans: dict[str, int] = {}
    for span in timeline.spans:
        meter = by_number[span.attempt]
        begin = span.start - meter.clock
        sums.setdefault(span.name, _Sum()).add(meter.between(begin, begin + span.seconds))
        spans[span.name] = spans.get(span.name, 0) + 1
    slowest = max((_update(one) for meter in meters for one in meter.series), default=0.0)
    found = {}
    for name, total in sums.items():
        long_enough = total.seconds >= UPDATES * slowest * spans[name]
        shown = measured and long_enough and total.whole > 0
        found[name] = PhaseEnergy(
            total.joules if shown else None,
            total.uncertainty if shown else None,
            total.seconds,
            total.covered,
        )
    return found


def _domains(meters: Sequence[_Meter]) -> dict[str, float | None]:
    """J by domain; ``None`` where an attempt has none."""
    names = [domain.name for meter in meters for one in meter.series for domain in one.domains]
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(names):
        joules = [meter.domain(name) for meter in meters]
        known = [one for one in joules if one is not None]
        found[name] = sum(known) if len(known) == len(joules) else None
    return found


def _sources(series: Iterable[Series]) -> dict[str, str]:
    """What each reader came to: ``measured`` if ever it did, else why not."""
    found: dict[str, str] = {}
    for one in series:
        for reader, tried in one.tried.items():
            if found.get(reader) != MEASURED:
                found[reader] = MEASURED if tried["status"] == MEASURED else tried["reason"]
    return found


def _update(series: Series) -> float:
    """s between two figures that can be told apart: of the sensor, or of the sampler."""
    return max([series.interval, *(series.domains[place].period for place in series.cut)])
