"""Where a run's agent and its queue's accounting say different things, in sentences.

Nothing follows from it: a state is what its own rules say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpcml.energy.model import amount
from hpcml.units import memory_text

if TYPE_CHECKING:
    from hpcml.records.model import AttemptRecord, Record
    from hpcml.schedulers import Accounted

SKEW = 2.0  # s: the accounting counts whole seconds, and by another machine's clock
SLACK = 64 << 20, 0.1  # B and part by which memory may be more: the agent itself, shared pages
INTERVAL = 30.0  # s that may lie between two readings of the accounting's energy


def disagreements(record: Record) -> Iterator[str]:
    """All that there are. What several runs did together is no run's, and compared with none."""
    lives = record.allocations
    for attempt in record.attempts:
        if attempt.life is not None:
            yield from _times(attempt, lives[attempt.life - 1])
    last = record.attempts[-1] if record.attempts else None
    if last is None or last.life is None or lives[last.life - 1].runs > 1:
        return
    life = lives[last.life - 1]
    if last.life == len(lives):  # else another one of it began
        yield from _end(record, last, life)
    yield from _memory(record, life)
    yield from _energy(record)


def _times(attempt: AttemptRecord, life: Accounted) -> Iterator[str]:
    """An attempt lies within its allocation."""
    who = life.source.capitalize()
    which = f"attempt {attempt.number}"
    if None not in (attempt.started, life.started):
        early = (life.started or 0.0) - (attempt.started or 0.0)
        if early > SKEW:
            yield f"by its agent {which} began {early:.0f} s before its allocation by {who}"
    if None not in (attempt.ended, life.ended):
        late = (attempt.ended or 0.0) - (life.ended or 0.0)
        if late > SKEW:
            yield f"by its agent {which} ended {late:.0f} s after its allocation by {who}"


def _end(record: Record, last: AttemptRecord, life: Accounted) -> Iterator[str]:
    """State and exit code. A cause that the agent itself saw is none that the queue could know."""
    plain = life.meaning in ("COMPLETED", "FAILED")
    code = 128 + last.signal if last.signal is not None else last.exit_code
    if last.ended is None or not record.final or not life.meaning or (plain and last.cause):
        return
    agrees = (life.exit_code, life.signal) in ((code, 0), (0, last.signal or 0))
    if life.meaning == record.state and (agrees or not plain):
        return
    how = f"signal {life.signal}" if life.signal else f"exit code {life.exit_code}"
    ours = f"signal {last.signal}" if last.signal is not None else f"exit code {last.exit_code}"
    who = life.source.capitalize()
    yield f"{who} says {life.state}, {how}; the agent says {record.state}, {ours}"


def _memory(record: Record, life: Accounted) -> Iterator[str]:
    """The accounting looks now and then, and may see less; on one node it can see no more."""
    peaks = [one.value for one in record.figures if one.name == "peak_memory"]
    if life.max_rss is None or life.nodes != 1 or not peaks:
        return
    most, part = SLACK
    if life.max_rss > max(peaks) * (1 + part) + most:
        seen, peak = memory_text(life.max_rss), memory_text(int(max(peaks)))
        yield f"{life.source.capitalize()} saw {seen} of memory in use; the agent {peak} at most"


def _energy(record: Record) -> Iterator[str]:
    """All nodes in all of its life use no less than a part of one in a part of it."""
    ours, lives = record.energy, [one for one in record.allocations if one.started is not None]
    joules = [life.joules for life in lives if life.joules is not None]
    if ours is None or ours.joules is None or not ours.covered or len(joules) < len(lives):
        return
    least = ours.joules - (ours.uncertainty or 0.0) - INTERVAL * ours.joules / ours.covered
    if sum(joules) < least:
        who, scope = lives[-1].source.capitalize(), f"{amount(ours.joules)} ({ours.scope})"
        yield f"{who} says {amount(sum(joules))} of the whole nodes; hpcml's own meter {scope}"
