"""Live progress while somebody waits: a line a run, or one for many of them.

On stderr or, in a notebook, in one output below the cell that waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from hpcml import html
from hpcml.states import State
from hpcml.texts import plain, short, shortened
from hpcml.timeline import AT_ONCE
from hpcml.units import clock, moment

if TYPE_CHECKING:
    from hpcml.batch_view import Seen
    from hpcml.run import Run

LEAST_INTERVAL = 0.2  # seconds between two looks at what the runs have logged
LINE_INTERVAL = 5.0  # seconds between two lines about many runs, in a pipe
LONGEST = 200  # characters of what a run's line says of anything
MANY = 8  # more runs than that have one line in common

Counts = Callable[[], Mapping[State, int]]
Ended = tuple["Run", "Seen"]


class Silent:
    """Shows nothing."""

    def update(self, ended: Sequence[Ended] = ()) -> None:
        """Called whenever something may have changed; ``ended`` have just done so."""

    def finish(self) -> None:
        """Show how it stands when nobody waits any longer."""
        self.update()


class Lines(Silent):
    """For pipes and files: a line whenever a run changes its state."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.shown: dict[str, str] = {}

    def update(self, ended: Sequence[Ended] = ()) -> None:
        for run in self.runs:
            seen = run.last_seen
            if seen is not None and self.shown.get(run.id) != seen.state:
                self.shown[run.id] = seen.state
                line = f"{run.id}  {run.name}  {seen.state}  {seen.reason}"
                print(plain(line.rstrip()), file=sys.stderr)


class Waits(Silent):
    """For pipes: what runs wait for, if they do so for a while; some can never start."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.next = 0.0
        self.before: set[str] = set()  # reasons at the last look
        self.told: set[str] = set()

    def update(self, ended: Sequence[Ended] = ()) -> None:
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + LINE_INTERVAL
        seen = ((run, run.last_seen) for run in self.runs)
        waiting = {it.reason: run for run, it in seen if it and it.state is State.PENDING}
        self.told &= waiting.keys()
        for reason, run in waiting.items():
            if reason in self.before - self.told:
                self.told.add(reason)
                print(plain(f"hpcml: {run.id} is PENDING: {reason}"), file=sys.stderr, flush=True)
        self.before = {*waiting}


class Screen(Protocol):
    """What can be rewritten; it is left with what was shown last."""

    @property
    def width(self) -> int | None:
        """Columns; ``None``: as many as it takes."""
        ...

    def rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Show a table of id, name, state, and what there is to say."""
        ...

    def lines(self, lines: Sequence[str]) -> None:
        """Show lines of text."""
        ...

    def __enter__(self) -> Screen: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Terminal:
    """A terminal, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self.live = RichLive(console=Console(stderr=True), auto_refresh=False)

    @property
    def width(self) -> int | None:
        return self.live.console.width

    def rows(self, rows: Sequence[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=max((len(row[0]) for row in rows), default=0))
        table.add_column(overflow="fold")
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        self.live.update(table, refresh=True)

    def lines(self, lines: Sequence[str]) -> None:
        from rich.text import Text

        text = "\n".join(map(plain, lines))
        self.live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def __enter__(self) -> Terminal:
        self.live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.__exit__(kind, error, trace)


class Notebook:
    """One output of the cell, which is rewritten in place when there is something new."""

    width = None

    def __init__(self) -> None:
        self.shown = ""
        self.handle: Any = None

    def rows(self, rows: Sequence[Sequence[str]]) -> None:
        cells = [(*row[:2], html.state(State(row[2])), *row[3:]) for row in rows]
        self._show(html.table((), cells), ["  ".join(row).rstrip() for row in rows])

    def lines(self, lines: Sequence[str]) -> None:
        self._show(html.joined("", (html.element("div", line) for line in lines)), lines)

    def _show(self, page: html.Html, lines: Sequence[str]) -> None:
        from IPython.display import display

        if page == self.shown:
            return
        self.shown = page
        since = html.note(f"as of {moment(time.time())}")  # it may stay in a file for years
        data = {"text/plain": "\n".join(map(plain, lines)), "text/html": page + since}
        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Live(Silent):
    """A line a run, with what it logged last."""

    def __init__(self, runs: Sequence[Run], screen: Screen) -> None:
        self.runs, self.screen = runs, screen
        self.next = 0.0

    def update(self, ended: Sequence[Ended] = ()) -> None:
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + LEAST_INTERVAL
            self.screen.rows([*self._rows()])

    def finish(self) -> None:
        self.next = 0.0
        self.update()

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for run in self.runs:
            seen = run.last_seen
            if seen is not None:
                row = run.id, run.name, str(seen.state), _told(run) or seen.reason
                yield tuple(shortened(cell, LONGEST) for cell in row)


class Many(Silent):
    """One line for many runs: how many are in which state, how fast they end, what failed first.

    Parameters
    ----------
    number : int
        Of runs.
    counts : callable
        How many were last seen in each state.
    """

    def __init__(self, number: int, counts: Counts) -> None:
        self.number, self.counts = number, counts
        self.failure: Ended | None = None
        self.first: tuple[float, int] | None = None  # when all had been seen, and what had ended

    def update(self, ended: Sequence[Ended] = ()) -> None:
        if self.failure is None:
            failed = ((run, seen) for run, seen in ended if seen.state != "COMPLETED")
            self.failure = next(failed, None)

    def line(self, width: int | None = None) -> str:
        """How it stands now; what the rest implies is left out of a line wider than ``width``."""
        counts, over = self._tally()
        parts = [f"{over} of {self.number} runs ended"]
        rate = self._rate(over)
        if rate and over < self.number:
            parts.append(f"about {clock(round((self.number - over) / rate))} left")
        if rate:
            parts.append(f"{rate:.3g}/s")
        pace = ", ".join(parts)
        states = [f"{counts[state]} {state}" for state in sorted(counts, key=usefulness)]
        while states and width is not None and len(f"{pace}: {', '.join(states)}") > width:
            states.pop()
        return f"{pace}: {', '.join(states)}" if states else pace

    def first_failure(self) -> str:
        """Which run failed first, and why; empty if none has."""
        if self.failure is None:
            return ""
        run, seen = self.failure
        line = f"first failure: {run.id} {seen.state} {seen.reason}".splitlines()[0]
        return plain(line.rstrip())

    def _tally(self) -> tuple[Mapping[State, int], int]:
        """Counts, and how many have ended."""
        counts = self.counts()
        over = sum(count for state, count in counts.items() if state.final)
        if self.first is None and sum(counts.values()) == self.number:
            self.first = time.monotonic(), over
        return counts, over

    def _rate(self, over: int) -> float:
        """Runs that end a second since all have been seen; 0: not known."""
        now = time.monotonic()
        began, before = self.first or (now, over)
        return (over - before) / (now - began) if now > began else 0.0


class ManyLines(Many):
    """For pipes and files: a line from time to time."""

    def __init__(self, number: int, counts: Counts) -> None:
        super().__init__(number, counts)
        self.next = time.monotonic() + LINE_INTERVAL

    def update(self, ended: Sequence[Ended] = ()) -> None:
        super().update(ended)
        if self.first is None:
            self._tally()
        if time.monotonic() >= self.next:
            self.finish()

    def finish(self) -> None:
        line = "; ".join(filter(None, [self.line(), self.first_failure()]))
        print(plain(line), file=sys.stderr, flush=True)
        self.next = time.monotonic() + LINE_INTERVAL


class ManyLive(Many):
    """A line that is rewritten, and one below it for the first failure."""

    def __init__(self, number: int, counts: Counts, screen: Screen) -> None:
        super().__init__(number, counts)
        self.screen = screen
        self.next = 0.0

    def update(self, ended: Sequence[Ended] = ()) -> None:
        super().update(ended)
        if time.monotonic() >= self.next:
            self.finish()

    def finish(self) -> None:
        self.next = time.monotonic() + LEAST_INTERVAL
        lines = [self.line(self.screen.width), self.first_failure()]
        self.screen.lines([line for line in lines if line])


@contextmanager
def show(runs: Sequence[Run], counts: Counts, *, enabled: bool | None) -> Iterator[Silent]:
    """Show progress of runs until the block ends; ``None``: if this is a notebook."""
    shown: Live | ManyLive | Lines | ManyLines
    notebook = in_notebook()
    if not (notebook if enabled is None else enabled):
        yield Silent()
    elif not (notebook or sys.stderr.isatty()):
        shown = Lines(runs) if len(runs) <= MANY else ManyLines(len(runs), counts)
        yield shown
        shown.finish()
    else:
        with Notebook() if notebook else Terminal() as screen:
            few = len(runs) <= MANY
            shown = Live(runs, screen) if few else ManyLive(len(runs), counts, screen)
            yield shown
            shown.finish()


def _told(run: Run) -> str:
    """What it has logged last, if that can be read at once: who waits is not to wait for this."""
    soon = html.known(lambda: run._sizes()[0] <= AT_ONCE)
    metrics = html.known(lambda: run.metrics) if soon else None
    return "  ".join(f"{name} {short(value)}" for name, value in (metrics or {}).items())


def in_notebook() -> bool:
    """Whether this process runs cells for a notebook (or another client of Jupyter's kind)."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def usefulness(state: State) -> tuple[bool, bool, bool]:
    """Failures first; last what the others, and how many have ended, imply."""
    return state is State.PENDING, state is State.COMPLETED, not state.final
