"""What stands on the screen: which rows there are, and what their cells say. Draws nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from hpcml.agent import wire
from hpcml.batch_view import BatchView, Seen
from hpcml.errors import HpcmlError
from hpcml.progress import usefulness
from hpcml.run import Run
from hpcml.states import State
from hpcml.texts import plain
from hpcml.units import clock

LONGEST = 300  # characters of a text from outside: no terminal shows more of it in a cell
LATEST = 1e11  # s since the epoch: what is later, or not finite, is no time
NOT_YET = "…"
NOT_SEEN = Seen(State.UNKNOWN, "not looked at yet")


def brief(text: object) -> str:
    """A text from outside as one cell shows it: nothing in it is obeyed, by whomever."""
    return plain(str(text)[:LONGEST])


@dataclass(frozen=True)
class Filter:
    """Which runs are wanted, as the options of ``hpcml runs`` say it."""

    site: str | None = None
    batch: str | None = None
    state: State | None = None
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def wants(self, view: BatchView, site: str) -> bool:
        """Whether runs of a batch may be among them."""
        return (
            self.site in (None, site)
            and self.batch in (None, view.id)
            and self.name in (None, view.plan.name)
            and self.tags.items() <= dict(view.plan.where["tags"]).items()
        )


class Entry:
    """A batch on the screen.

    Attributes
    ----------
    site : str
        For which it was planned.
    starts : dict
        When the last attempts of runs that have ended were started, as far as they have been on
        the screen; in s since the epoch, by the site's clock.
    """

    def __init__(self, view: BatchView, site: str) -> None:
        self.view, self.site = view, site
        self.id, self.count = view.id, view.count
        self.newness = (_moment(view.submission.created) or 0.0, view.id)
        self.name = cache(self._name)
        self.title = brief(view.plan.name)
        self.starts: dict[int, float | None] = {}
        self._chosen: tuple[object, list[int]] = (None, [])

    def seen(self, index: int) -> Seen:
        """A run, as it was last seen."""
        return self.view.seen.get(index, NOT_SEEN)

    def run(self, index: int) -> Run:
        """The handle of one of its runs."""
        return Run(wire.run_id(self.id, index), self.site)

    def going(self) -> list[int]:
        """Its runs that have not been seen to end."""
        if self.view.final:
            return []
        return [index for index in self.view.indices if not self.seen(index).state.final]

    def _name(self, index: int) -> str:
        try:
            return brief(self.view.name(index))
        except HpcmlError:  # its points are torn; that it is there is true all the same
            return self.title

    def chosen(self, choice: Choice) -> list[int]:
        """Its runs that are wanted now. What has ended for good is chosen once a choice."""
        key = (choice, self.view.final)
        if self._chosen[0] != key or not self.view.final:
            self._chosen = key, self._choose(choice)
        return self._chosen[1]

    def _choose(self, choice: Choice) -> list[int]:
        indices = self.view.indices
        if choice == Choice():
            return list(indices)
        seen = self.view.seen.copy()  # the poller's thread adds to it
        return [index for index in indices if choice.takes(self, index, seen.get(index, NOT_SEEN))]


@dataclass(frozen=True)
class Choice:
    """Which of the runs on the screen are wanted now.

    Attributes
    ----------
    words : tuple of str
        All of them stand in its id, name, site or state; in small letters.
    going : bool
        Only those that have not ended.
    state : State or None
        Only those in that state.
    """

    words: tuple[str, ...] = ()
    going: bool = False
    state: State | None = None

    def takes(self, entry: Entry, index: int, seen: Seen) -> bool:
        """Whether a run is wanted."""
        if self.going and seen.state.final:
            return False
        if self.state is not None and seen.state is not self.state:
            return False
        if not self.words:
            return True
        run = wire.run_id(entry.id, index)
        text = f"{run} {entry.site} {seen.state} {entry.name(index)}".lower()
        return all(word in text for word in self.words)


@dataclass(frozen=True)
class Row:
    """A line of the screen: a run, or a batch of several.

    Attributes
    ----------
    index : int or None
        ``None``: the batch.
    chosen : sequence of int
        Of a batch: those of its runs that are wanted now.
    """

    entry: Entry
    index: int | None
    chosen: Sequence[int] = ()
    unfolded: bool = False

    @property
    def key(self) -> tuple[str, int | None]:
        """Which line it is, wherever it stands."""
        return self.entry.id, self.index

    @property
    def id(self) -> str:
        """Of the run, or of the batch."""
        return self.entry.id if self.index is None else wire.run_id(self.entry.id, self.index)

    def counts(self) -> Counter[State]:
        """How many of its wanted runs are in each state."""
        seen = self.entry.view.seen.copy()
        return Counter(seen.get(index, NOT_SEEN).state for index in self.chosen)


def rows(entries: Iterable[Entry], choice: Choice, unfolded: set[str]) -> list[Row]:
    """The lines of the screen, batches in the order given."""
    found: list[Row] = []
    for entry in entries:
        chosen = entry.chosen(choice)
        if not chosen:
            continue
        if entry.count == 1:
            found.append(Row(entry, 0))
            continue
        open_ = entry.id in unfolded
        found.append(Row(entry, None, chosen, open_))
        if open_:
            found += [Row(entry, index) for index in chosen]
    return found


# --- cells --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """What a line says. All of it may be shown: nothing in it is obeyed."""

    mark: str
    id: str
    state: str
    time: str
    name: str
    site: str
    note: str


def cells(row: Row, now: float, told: str) -> Cells:
    """What a line says.

    Parameters
    ----------
    now : float
        In s since the epoch, by the site's clock.
    told : str
        What its job logged last.
    """
    return _of_batch(row, now) if row.index is None else _of_run(row, row.index, now, told)


def _of_run(row: Row, index: int, now: float, told: str) -> Cells:
    entry, seen = row.entry, row.entry.seen(index)
    note = "  ".join(filter(None, (brief(seen.reason), told)))
    state = NOT_YET if seen is NOT_SEEN else str(seen.state)
    time = _time(entry, index, seen, now)
    return Cells("", row.id, state, time, entry.name(index), entry.site, note)


def _of_batch(row: Row, now: float) -> Cells:
    entry, counts = row.entry, row.counts()
    over = sum(count for state, count in counts.items() if state.final)
    total = len(row.chosen)
    states = sorted(counts, key=usefulness)
    text = f"{over}/{total} ended" if len(states) > 1 else str(states[0])
    shown = f"{total} of {entry.count}" if total < entry.count else f"{total}"
    note = f"{shown} runs: {', '.join(f'{counts[state]} {state}' for state in states)}"
    if not entry.view.seen:
        text, note = NOT_YET, f"{shown} runs"
    mark = "▾" if row.unfolded else "▸"
    time = _span(entry.view.asked, _last_end(entry.view) if entry.view.final else now)
    return Cells(mark, entry.id, text, time, entry.title, entry.site, note)


def _time(entry: Entry, index: int, seen: Seen, now: float) -> str:
    """How long it has been waiting or running; of what has ended, how long its last attempt ran."""
    last = seen.attempts[-1] if seen.attempts else None
    end = time_of(last.end) if last else None
    if seen.state in (State.CREATED, State.PREPARING, State.PENDING):
        return _span(entry.view.asked if last is None else end, now)
    if last is None or (end is None and seen.state is not State.RUNNING):
        return ""
    begin = time_of(last.start) if last.start is not None else entry.starts.get(index)
    return _span(begin, now if end is None else end)


def time_of(record: Mapping[str, object] | None) -> float | None:
    """When a start or an end was written down; of a start that was refused ``None``."""
    if record is not None and "refused" in record:
        return None
    return _moment((record or {}).get("time"))


def _moment(value: object) -> float | None:
    """A time in s since the epoch; ``None`` for what is none."""
    return float(value) if isinstance(value, int | float) and abs(value) < LATEST else None


def _last_end(view: BatchView) -> float | None:
    attempts = view.seen[view.ended[-1]].attempts
    return time_of(attempts[-1].end) if attempts else None


def _span(begin: float | None, end: float | None) -> str:
    return "" if begin is None or end is None else clock(max(0, int(end - begin)))
