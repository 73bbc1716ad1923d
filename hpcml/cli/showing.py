"""How the command line shows runs, and which exit code they give."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from hpcml.cli.stages import going_on
from hpcml.states import State
from hpcml.texts import plain

if TYPE_CHECKING:
    import hpcml
    from hpcml.batch_view import Seen
    from hpcml.cli import shapes
    from hpcml.records.model import Record

# The whole table, with what hpcml.cli.main() adds, is in docs/commands.md.
EXIT_CODES = {
    State.TIMEOUT: 124,  # as timeout(1)
    State.OUT_OF_MEMORY: 137,  # as the kernel's SIGKILL shows in a shell
    State.CANCELLED: 130,  # as after Ctrl-C
}
NO_EXIT_CODE = 125  # it failed without one: NODE_FAIL, PREEMPTED, missing outputs
INCOMPLETE = 70  # EX_SOFTWARE of sysexits.h: not all that was asked for could be done
NOT_ENDED = 75  # EX_TEMPFAIL
NARROWEST = 72  # columns of a table; a terminal that has fewer gets a block a row


def exit_code(run: hpcml.Run) -> int:
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


def worst_exit_code(runs: hpcml.Runs) -> int:
    """The first exit code that is not 0."""
    return next((code for code in map(exit_code, runs) if code), 0)


def print_json(data: Any) -> None:
    """JSON on stdout; its shapes are in :mod:`hpcml.cli.shapes`.

    In ASCII: any locale can write that, and there is nothing in it that a terminal would obey.
    """
    click.echo(json.dumps(data, indent=1, allow_nan=False))


def run_data(run: hpcml.Run, seen: Seen | None = None) -> shapes.Run:
    """What JSON says of a run; default: as it was last seen."""
    from hpcml.run import as_data

    return cast("shapes.Run", as_data(run, seen))


def runs_data(runs: hpcml.Runs) -> list[shapes.Run]:
    """What JSON says of runs, after one look at all of them."""
    return [run_data(run) for run, _ in runs.seen()]


def show_runs(
    runs: hpcml.Runs,
    *,
    as_json: bool,
    records: Collection[Record] = (),
    away: Iterable[str] = (),
) -> None:
    """Show what one look at runs shows now; exit with 70 if some cannot be seen.

    Parameters
    ----------
    records : collection of Record
        Runs that cannot be seen, and are shown as they are on record.
    away : iterable of str
        Why they cannot.
    """
    from hpcml.batch_view import Seen
    from hpcml.cards import glimpse

    looked, troubles = glimpse(runs)
    unseen = dict.fromkeys(map(plain, [*away, *troubles]))
    found = [(run, seen or Seen(State.UNKNOWN, "it cannot be seen now")) for run, seen in looked]
    if as_json:
        print_json([run_data(*one) for one in found] + [_of_record(one) for one in records])
    elif found or records:
        rows = [(run.id, run.name, run.site, str(it.state), it.reason) for run, it in found]
        rows += [(one.id, one.name, one.site, *last_known(one)) for one in records]
        print_table(("run", "name", "site", "state", "reason"), rows, folded=("name", "reason"))
    elif not unseen:
        click.echo("no runs", err=True)
    for trouble in unseen:
        click.echo(f"hpcml: {trouble}", err=True)
    if unseen:
        sys.exit(INCOMPLETE)


def last_known(record: Record) -> tuple[str, str]:
    """State and reason of a run that cannot be seen: what is final stays so."""
    if State(record.state).final:
        return record.state, record.reason
    return State.UNKNOWN, f"it cannot be seen now; it was {record.state} when it was last recorded"


def _of_record(record: Record) -> shapes.Run:
    state, reason = last_known(record)
    last = record.attempts[-1] if record.attempts else None
    return {
        "id": record.id,
        "site": record.site,
        "name": record.name,
        "state": state,
        "reason": reason,
        "attempts": len(record.attempts),
        "exit_code": last.exit_code if last else None,
        "signal": last.signal if last else None,
        "digest": record.digest,
    }


def wait_for(runs: hpcml.Runs, timeout: float | None = None, *, quiet: bool) -> None:
    """Wait; a terminal shows how they get on, a pipe what they wait for, and what failed."""
    from hpcml.poller import in_time
    from hpcml.progress import Waits

    going_on(runs)
    live = sys.stderr.isatty() and not quiet
    if live:
        runs.wait(timeout, progress=True)
    else:
        waits = Waits(runs)
        for ended in runs._follow(timeout):
            waits.update(ended)
    if timeout is not None:  # it may be over because the site is silent
        in_time(runs.seen, 0)
    failed = () if live or quiet else runs.failed
    for run in failed[:1]:
        rest = f" (one of {len(failed)} of {len(runs)} runs)" if len(runs) > 1 else ""
        line = f"hpcml: {run.id} is {run.state}: {run.reason}".rstrip(": ")
        click.echo(plain(line + rest), err=True)


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], folded: Collection[str] = ()
) -> None:
    """A table on a terminal; tab-separated columns in a pipe, without the header.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequence of str
        The first column is there to be copied, and stays whole.
    folded : collection of str
        Columns whose cells may have several lines.
    """
    rows = [[plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.width < NARROWEST:
        _print_blocks(header, rows, console.width)
        return
    table = Table(box=None)
    widest = max((len(row[0]) for row in rows), default=0)
    for place, name in enumerate(header):
        width = None if place else widest
        table.add_column(name, no_wrap=name not in folded, overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_blocks(header: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> None:
    """A block a row, where a table would be too wide: what stands first, the rest below it."""
    from hpcml.comparison.laying import wrapped

    aside = max(map(len, header[1:])) + 4
    for first, *rest in rows:
        click.echo(first)
        for name, cell in zip(header[1:], rest, strict=True):
            for place, line in enumerate(wrapped(cell, max(width - aside, aside)) if cell else ()):
                click.echo(f"  {'' if place else name}".ljust(aside) + line)
