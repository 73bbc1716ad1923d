"""What the files of a site tell of a run, as plain data: all that is ever recorded of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcml.accounts import Account, life_of
from hpcml.agent import wire
from hpcml.batch_view import Attempt, BatchView, Seen
from hpcml.energy import Energy, Readings, is_awaited, measure, or_accounted
from hpcml.planning import Plan, run_digest
from hpcml.schedulers import Accounted
from hpcml.timeline import Story, Timeline, lost_by, starts, tell

# What an agent counts of an attempt, and in which unit. Sums over the run's processes.
USAGE: Mapping[str, str] = {
    "cpu_user": "s",
    "cpu_system": "s",
    "max_rss": "B",
    "peak_memory": "B",
    "rchar": "B",
    "wchar": "B",
    "read_bytes": "B",
    "write_bytes": "B",
}
AGENT, EVENTS, QUEUE = "agent", "events", "queue and events"  # who says so
SETTLE = 3.0  # s after the end of a run in which the reading that covers it is written
READINGS = "ended just now: readings of energy may still come"
LOST = "events_lost"  # a figure's name
NOT_FACTS = ("e", "t", "m", "run", "agent", "attempt", "boot")


@dataclass(frozen=True)
class Figure:
    """Something counted or timed.

    Attributes
    ----------
    attempt : int
        Of which attempt of the run.
    unit : str
        ``"s"`` or ``"B"``; empty: a number of things.
    source : str
        Who says so: ``"agent"`` (it accounted at the end), ``"events"`` (from the times of what
        agent and job wrote), ``"queue and events"`` (clocks of two machines, maybe), ``"slurm"``
        (its accounting, by whole seconds).
    """

    name: str
    attempt: int
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Use:
    """An input of a run: the artifact's digest, and the run that left it where it is known."""

    digest: str
    checked: bool
    origin: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class Head:
    """What the runs of a batch have in common."""

    id: str
    plan: Plan
    created: float
    asked: float | None = None
    parent: str | None = None

    @classmethod
    def of(cls, view: BatchView) -> Head:
        """That of a batch on a site."""
        said = view.submission
        return cls(view.id, view.plan, said.created, view.asked, said.parent)


@dataclass(frozen=True)
class Told:
    """All that is known of one run; once ``final`` there will never be more.

    ``awaited`` says why there may be more of one that has ended.
    """

    index: int
    id: str
    digest: str
    name: str
    state: str
    reason: str
    final: bool
    params: Mapping[str, Any]
    resubmits: str | None
    attempts: Sequence[Attempt]
    hosts: Mapping[int, Mapping[str, Any]]
    used: Mapping[str, Use]
    outputs: Mapping[str, Mapping[str, Any]]
    figures: Sequence[Figure]
    told: int = 0
    story: Story | None = None
    unread: str | None = None
    ended: float | None = None
    energy: Energy | None = None
    allocations: Sequence[Accounted] = ()
    awaited: str = ""

    @property
    def lives(self) -> dict[int, int]:
        """In which life of its allocation each attempt was, both by number, where that is known."""
        found = {one.number: life_of(one, self.allocations) for one in self.attempts}
        return {number: life for number, life in found.items() if life is not None}

    @property
    def started(self) -> float | None:
        """When its first attempt started, by the site's clock."""
        return _time(self.attempts[0].start) if _has_begun(self.attempts) else None


def gather(
    view: BatchView,
    index: int,
    seen: Seen,
    events: bytes,
    readings: Callable[[], Readings],
    account: Account,
) -> Told:
    """Put together what a batch's files, a run's events and the queue's accounting tell.

    The run was seen before its events were read. Energy is asked for, and so are the readings, once
    it has ended.
    """
    repeats = view.submission.resubmits
    attempts = view.attempts(index)
    last = attempts[-1].end if attempts else None
    lines = list(wire.parse_lines(events))
    story = tell(lines, view.part_of(index).asked, sum(one.lost for one in attempts))
    energy, awaited = None, [account.awaited] if account.awaited else []
    if seen.state.final and _has_begun(attempts):
        measured = measure(lines, story.timeline, readings(), final=True)
        energy = or_accounted(measured, account.lives)
        young = view.connection.files.now() - ((last or {}).get("time") or 0.0) < SETTLE
        if young and is_awaited(lines, story.timeline, readings()):
            awaited.insert(0, READINGS)
    params = {**view.plan.what["params"], **view.points[index].get("params", {})}
    return Told(
        index,
        wire.run_id(view.id, index),
        str(run_digest(view.plan, view.points[index])),
        view.name(index),
        str(seen.state),
        seen.reason,
        seen.state.final and not awaited,
        params,
        repeats[index] if repeats else None,
        attempts,
        _hosts(attempts, lines),
        _used(view, last, _has_begun(attempts)),
        (last or {}).get("outputs", {}),
        [*_counted(attempts), *_timed(story, account.lives, attempts), *_lost(attempts, story)],
        len(events) - events.count(0),
        story,
        story.unread,
        _time(last) if seen.state.final else None,
        energy,
        account.lives,
        "; ".join(awaited),
    )


def _has_begun(attempts: Sequence[Attempt]) -> bool:
    """Whether an attempt began, rather than be refused."""
    return any("refused" not in (one.start or {}) for one in attempts)


def _hosts(
    attempts: Sequence[Attempt], lines: Sequence[Mapping[str, Any]]
) -> dict[int, Mapping[str, Any]]:
    """The machine of each attempt: all that its agent said of it, else its name."""
    facts: dict[int, Mapping[str, Any]] = {
        line["attempt"]: {key: value for key, value in line.items() if key not in NOT_FACTS}
        for line in starts(lines)
        if "attempt" in line
    }
    for one in attempts:
        name = (one.start or {}).get("owner", {}).get("host")
        if name and one.number not in facts:
            facts[one.number] = {"host": name}
    return facts


def _used(view: BatchView, end: Mapping[str, Any] | None, started: bool) -> dict[str, Use]:
    """Inputs as the agent found them; as planned, of a run that has started and told of no end."""
    checked: Mapping[str, str] = (end or {}).get("inputs", {})
    origins = view.plan.where.get("origins", {})
    found = {}
    for name, planned in view.plan.what["inputs"].items():
        digest = checked.get(name) or (planned if started and isinstance(planned, str) else None)
        if digest is not None:
            origin = origins.get(name, {})
            found[name] = Use(digest, name in checked, origin.get("run"), origin.get("output"))
    return found


def _counted(attempts: Sequence[Attempt]) -> Iterator[Figure]:
    for one in attempts:
        usage = (one.end or {}).get("usage") or {}
        for name, unit in USAGE.items():
            if usage.get(name) is not None:
                yield Figure(name, one.number, float(usage[name]), unit, AGENT)


def _lost(attempts: Sequence[Attempt], story: Story) -> Iterator[Figure]:
    """How many events there was no room for: the agent's, and those of the job that it counted."""
    lost = Counter({one.number: one.lost for one in attempts})
    for event in story.events:
        if event.kind == "lost":
            lost[event.attempt] += lost_by(event.facts)
    for number, count in lost.items():
        if count:
            yield Figure(LOST, number, float(count), "", EVENTS)


def _timed(
    story: Story, lives: Sequence[Accounted], attempts: Sequence[Attempt]
) -> Iterator[Figure]:
    timeline = story.timeline
    yield from _queue(timeline, lives, attempts)
    first = _first_step(story)
    if first is not None:
        yield Figure("first_step", 1, first, "s", EVENTS)
    for one in {one.number: one for one in timeline.attempts}.values():
        for name, seconds in (("setup", one.setup), ("command", one.command)):
            if seconds is not None:
                yield Figure(name, one.number, seconds, "s", EVENTS)


def _queue(
    timeline: Timeline, lives: Sequence[Accounted], attempts: Sequence[Attempt]
) -> Iterator[Figure]:
    """Time in the queue: by its accounting if it has one, and the run did not wait within."""
    first = lives[0] if lives and attempts and life_of(attempts[0], lives) == 1 else None
    if first and first.runs == 1 and None not in (first.submitted, first.started):
        waited = (first.started or 0.0) - (first.submitted or 0.0)
        yield Figure("queue", 1, waited, "s", first.source)
    elif timeline.queue is not None:
        yield Figure("queue", 1, timeline.queue, "s", QUEUE)


def _first_step(story: Story) -> float | None:
    """s from the begin of the first attempt's command to the first step that it logged."""
    attempt = next(iter(story.timeline.attempts), None)
    if attempt is None or attempt.setup is None or attempt.number != 1:
        return None
    begin = attempt.start + attempt.setup
    if attempt.command is not None:
        end = begin + attempt.command
    else:
        end = math.inf if len(story.timeline.attempts) == 1 else begin  # no clock goes on from it
    series = story.history.values()
    firsts = (next((one.time for one in each if one.step is not None), math.inf) for each in series)
    first = min(firsts, default=math.inf)
    return first - begin if begin <= first <= end and first < math.inf else None


def _time(record: Mapping[str, Any] | None) -> float | None:
    return record.get("time") if record else None
