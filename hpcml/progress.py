"""Live progress while somebody waits, on stderr: one line a run, rewritten on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from hpcml.run import Run

LEAST_INTERVAL = 0.2  # seconds between two looks at what the runs have logged


class Silent:
    """Shows nothing."""

    def update(self) -> None:
        """Called whenever something may have changed."""


class Lines(Silent):
    """For pipes and files: a line whenever a run changes its state."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.shown: dict[str, str] = {}

    def update(self) -> None:
        for run in self.runs:
            seen = run.last_seen
            if seen is not None and self.shown.get(run.id) != seen.state:
                self.shown[run.id] = seen.state
                line = f"{run.id}  {run.name}  {seen.state}  {seen.reason}"
                print(line.rstrip(), file=sys.stderr)


class Live(Silent):
    """For terminals: a line a run, with what it logged last."""

    def __init__(self, runs: Sequence[Run]) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self.runs = runs
        self.began = time.monotonic()
        self.next = 0.0
        self.live = RichLive(console=Console(stderr=True), auto_refresh=False)

    def update(self) -> None:
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + LEAST_INTERVAL
            self.live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for run in self.runs:
            seen = run.last_seen
            if seen is None:
                continue
            told = "  ".join(f"{name} {_short(value)}" for name, value in run.metrics.items())
            cells = (run.id, run.name, str(seen.state), told or seen.reason)
            table.add_row(*(Text(cell) for cell in cells))
        return table


@contextmanager
def show(runs: Sequence[Run], *, enabled: bool) -> Iterator[Silent]:
    """Show progress of runs until the block ends."""
    if not enabled:
        yield Silent()
    elif not sys.stderr.isatty():
        yield (lines := Lines(runs))
        lines.update()
    else:
        shown = Live(runs)
        with shown.live:
            yield shown
            shown.next = 0.0
            shown.update()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
