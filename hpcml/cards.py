"""What a notebook shows of a run and of many: what one look tells, at once, whatever has gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hpcml.batch import batch_of
from hpcml.batch_view import BatchView, Seen, look
from hpcml.html import Html, card, element, facts, few, joined, known, note, state, table
from hpcml.poller import poller
from hpcml.states import State
from hpcml.texts import short
from hpcml.timeline import AT_ONCE, Timeline, in_seconds
from hpcml.units import memory_text, moment

if TYPE_CHECKING:
    from hpcml.run import Run

ROWS = 20  # runs of many that are listed
TROUBLES = 3  # reasons why something cannot be seen that are quoted


def glimpse(runs: Sequence[Run]) -> tuple[list[tuple[Run, Seen | None]], list[str]]:
    """All with what one look shows of them now or, where it fails, what was seen before.

    Returns
    -------
    runs : list of tuple
        ``None``: nothing is known of that run.
    troubles : list of str
        What stands in the way of looking.
    """
    views: dict[tuple[str, str], BatchView] = {}
    troubles: dict[str, None] = {}
    for site, batch in dict.fromkeys(map(_batch_of, runs)):
        try:
            views[site, batch] = poller(site).view(batch)
        except Exception as error:
            troubles[_first_line(error)] = None
    for place in {site for site, _ in views}:
        try:
            look([view for (site, _), view in views.items() if site == place])
        except Exception as error:
            troubles[_first_line(error)] = None
    found: list[tuple[Run, Seen | None]] = []
    for run in runs:
        view = views.get(_batch_of(run))
        found.append((run, view.seen.get(run.index) if view else None))
    return found, list(troubles)


def _batch_of(run: Run) -> tuple[str, str]:
    return run.site, batch_of(run.id)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# --- a run ------------------------------------------------------------------------------------


def run_card(run: Run) -> Html:
    """What is known of a run."""
    ((_, seen),), troubles = glimpse([run])
    title = joined(
        " ", [element("b", _name(run) or run.id), state(seen.state if seen else State.UNKNOWN)]
    )
    view = known(lambda: poller(run.site).view(_batch_of(run)[1]))
    rows = [
        ("reason", seen.reason if seen else ""),
        ("run", run.id),
        ("site", run.site),
        ("submitted", moment(view.submission.created) if view else ""),
        *(known(lambda: [*_told(run)]) or ()),
    ]
    over = seen is not None and seen.state.final
    return card(title, facts(rows), *_footing(over, troubles))


def _told(run: Run) -> Iterator[tuple[str, str]]:
    """What its events and its machine's counters tell, unless they take long to read."""
    events, readings = run._sizes()
    if events > AT_ONCE:
        yield "events", f"{memory_text(events)}; run.timeline and run.metrics read them"
        return
    timeline = run.timeline
    yield "time", _times(timeline)
    yield "phases", few([f"{name} {text}" for name, text in timeline.told.items()])
    yield "lost", timeline.note
    yield "metrics", few([f"{name} {short(value)}" for name, value in run.metrics.items()])
    if len(timeline.attempts) > 1:
        listed = [f"{one.number}: {one}" for one in reversed(timeline.attempts)]
        yield "attempts", few(listed, "<br>")
    if events + readings <= AT_ONCE:
        energy = run.energy
        yield "energy", "" if energy.joules is None else str(energy)


def _times(timeline: Timeline) -> str:
    times = {"queue": timeline.queue, "setup": timeline.setup, "command": timeline.command}
    return ", ".join(f"{name} {in_seconds(it)}" for name, it in times.items() if it is not None)


# --- many runs --------------------------------------------------------------------------------


def runs_card(runs: Sequence[Run]) -> Html:
    """How many are in which state, and the first of them."""
    shown, troubles = glimpse(runs)
    counts = Counter(seen.state if seen else State.UNKNOWN for _, seen in shown)
    states = [state(one, counts[one]) for one in State if one in counts]
    title = element("b", f"{len(runs)} run{'' if len(runs) == 1 else 's'}")
    rows = [(run.id, _name(run), *_outcome(seen)) for run, seen in shown[:ROWS]]
    listed = table(("run", "name", "state", "reason"), rows) if rows else ""
    more = len(runs) - len(rows)
    hidden = [note(f"… and {more} more: runs[{ROWS}:], runs.by_state, runs.failed")] if more else ()
    over = all(seen is not None and seen.state.final for _, seen in shown)
    return card(joined(" ", [title, *states]), listed, *hidden, *_footing(over, troubles))


def _outcome(seen: Seen | None) -> tuple[str, str]:
    return (state(seen.state), seen.reason) if seen else (state(State.UNKNOWN), "")


# --- both -------------------------------------------------------------------------------------


def _name(run: Run) -> str:
    return known(lambda: run.name) or ""


def _footing(over: bool, troubles: Sequence[str]) -> Iterator[Html]:
    """When that was, if it may change; and what could not be seen."""
    if not over:
        yield note(f"as of {moment(time.time())}")
    for trouble in troubles[:TROUBLES]:
        yield note(f"cannot be seen now: {trouble}")
    if len(troubles) > TROUBLES:
        yield note(f"… and {len(troubles) - TROUBLES} more reasons of that kind")
