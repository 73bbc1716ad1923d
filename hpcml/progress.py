"""Live progress while somebody waits, on stderr: a line a run, or one for many of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpcml.states import State
from hpcml.text import plain
from hpcml.units import clock

if TYPE_CHECKING:
    from rich.table import Table

    from hpcml.batch_view import Seen
    from hpcml.run import Run

LEAST_INTERVAL = 0.2  # seconds between two looks at what the runs have logged
LINE_INTERVAL = 5.0  # seconds between two lines about many runs, in a pipe
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


class Live(Silent):
    """For terminals: a line a run, with what it logged last."""

    def __init__(self, runs: Sequence[Run]) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self.runs = runs
        self.began = time.monotonic()
        self.next = 0.0
        self.live = RichLive(console=Console(stderr=True), auto_refresh=False)

    def update(self, ended: Sequence[Ended] = ()) -> None:
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + LEAST_INTERVAL
            self.live.update(self._table(), refresh=True)

    def finish(self) -> None:
        self.next = 0.0
        self.update()

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=max(len(run.id) for run in self.runs))
        table.add_column(overflow="fold")
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for run in self.runs:
            seen = run.last_seen
            if seen is None:
                continue
            told = "  ".join(f"{name} {_short(value)}" for name, value in run.metrics.items())
            cells = (run.id, run.name, str(seen.state), told or seen.reason)
            table.add_row(*(Text(plain(cell)) for cell in cells))
        return table


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
        states = [f"{counts[state]} {state}" for state in sorted(counts, key=_usefulness)]
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
        print(line, file=sys.stderr, flush=True)
        self.next = time.monotonic() + LINE_INTERVAL


class ManyLive(Many):
    """For terminals: a line that is rewritten, and one below it for the first failure."""

    def __init__(self, number: int, counts: Counts) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        super().__init__(number, counts)
        self.next = 0.0
        self.live = RichLive(console=Console(stderr=True), auto_refresh=False)

    def update(self, ended: Sequence[Ended] = ()) -> None:
        super().update(ended)
        if time.monotonic() >= self.next:
            self.finish()

    def finish(self) -> None:
        from rich.text import Text

        self.next = time.monotonic() + LEAST_INTERVAL
        lines = filter(None, [self.line(self.live.console.width), self.first_failure()])
        self.live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)


@contextmanager
def show(runs: Sequence[Run], counts: Counts, *, enabled: bool) -> Iterator[Silent]:
    """Show progress of runs until the block ends."""
    shown: Silent
    if not enabled:
        yield Silent()
    elif not sys.stderr.isatty():
        shown = Lines(runs) if len(runs) <= MANY else ManyLines(len(runs), counts)
        yield shown
        shown.finish()
    else:
        shown = Live(runs) if len(runs) <= MANY else ManyLive(len(runs), counts)
        with shown.live:
            yield shown
            shown.finish()


def _usefulness(state: State) -> tuple[bool, bool, bool]:
    """Failures first; last what the others, and how many have ended, imply."""
    return state is State.PENDING, state is State.COMPLETED, not state.final


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
