"""How the command line shows runs, and which exit code they give."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from hpcml.run import Run, Runs
from hpcml.states import State

EXIT_CODES = {
    State.TIMEOUT: 124,  # as timeout(1)
    State.OUT_OF_MEMORY: 137,  # as the kernel's SIGKILL shows in a shell
    State.CANCELLED: 130,  # as after Ctrl-C
}
NO_EXIT_CODE = 125  # it failed without one: NODE_FAIL, PREEMPTED, missing outputs
NARROWEST = 72  # columns of a table; a terminal that has fewer wraps its lines itself
NOT_ENDED = 75  # EX_TEMPFAIL of sysexits.h


def exit_code(run: Run) -> int:
    """The job's own exit code; 128 + n for signal n; see the table in the documentation."""
    state = run.state
    if not state.final:
        return NOT_ENDED
    if state in EXIT_CODES:
        return EXIT_CODES[state]
    end = run.attempts[-1].end if run.attempts else None
    if end is not None and end["signal"] is not None:
        return 128 + int(end["signal"])
    code = run.exit_code
    if code is None or (code == 0 and state is not State.COMPLETED):
        return NO_EXIT_CODE
    return code


def worst_exit_code(runs: Runs) -> int:
    """The first exit code that is not 0."""
    return next((code for code in map(exit_code, runs) if code), 0)


def print_json(data: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(data, indent=1, ensure_ascii=False))


def print_table(runs: Runs) -> None:
    """A table on a terminal, tab-separated columns in a pipe."""
    seen = runs.seen()
    rows = [(run.id, run.name, run.site, str(it.state), it.reason) for run, it in seen]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    widest = max((len(run.id) for run in runs), default=0)
    table.add_column("run", no_wrap=True, min_width=widest)  # it is there to be copied
    table.add_column("name", overflow="fold")
    table.add_column("site", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    console.width = max(console.width, NARROWEST)
    console.print(table)
