"""Commands about runs that there are: runs, status, logs, wait, cancel, resume, fetch ..."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import hpcml
from hpcml.cli import shapes
from hpcml.cli.completing import complete_batches, complete_ids, complete_states
from hpcml.cli.options import ids, json_option, pairs, site_option
from hpcml.cli.showing import (
    last_known,
    print_json,
    show_runs,
    wait_for,
    worst_exit_code,
)
from hpcml.cli.stages import NOTHING, going_on, reached

if TYPE_CHECKING:
    from hpcml.records.model import Record


@click.command("runs")
@site_option
@click.option(
    "--batch",
    metavar="ID",
    help="Only the runs of one submission.",
    shell_complete=complete_batches,
)
@click.option("--state", help="Only runs in that state.", shell_complete=complete_states)
@click.option("--name", help="Only runs of jobs of that name.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only runs tagged so.")
@json_option
def runs_command(
    site: str | None,
    batch: str | None,
    state: str | None,
    name: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """List runs, oldest first; last those of sites that cannot be reached, as on record."""
    from hpcml.finding import find_runs

    wanted = pairs("--tag", tags)
    found, away = find_runs(site, batch=batch, state=state, name=name, tags=wanted)
    listed = {run.id for run in found}
    records = [
        one
        for place in away
        for one in _remembered(site=place, batch=batch, name=name, tags=wanted)
        if one.id not in listed and (state is None or last_known(one)[0] == state.upper())
    ]
    why = [
        error.problem if name in error.problem else f"{name}: {error.problem}"
        for name, error in away.items()
    ]
    show_runs(found, as_json=as_json, records=records, away=why)


@click.command("status")
@ids
@site_option
@json_option
def status_command(ids: tuple[str, ...], site: str | None, as_json: bool) -> None:
    """Show the state of runs; of sites that cannot be reached, as on record."""
    from hpcml.errors import TransportError

    found: list[hpcml.Run] = []
    records: list[Record] = []
    away: list[str] = []
    for id in ids:
        try:
            found += _attached((id,), site)
        except TransportError as error:
            away.append(error.problem)
            records += _remembered(site=site, **({"id": id} if "." in id else {"batch": id}))
    show_runs(hpcml.Runs(found), as_json=as_json, records=records, away=away)


@click.command("logs")
@click.argument("id", shell_complete=complete_ids)
@site_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--stream", type=click.Choice(["both", "stdout", "stderr"]), default="both")
@json_option
def logs_command(id: str, site: str | None, follow: bool, stream: str, as_json: bool) -> None:
    """Show what a run printed, as it is: stdout to stdout, stderr to stderr."""
    from hpcml.poller import patiently

    if follow and as_json:
        raise click.UsageError("--follow and --json do not go together")
    run = patiently(lambda: _the_one(id, site)) if follow else _the_one(id, site)
    if as_json:
        logs: shapes.Logs = {
            "stdout": run.logs(stream="stdout"),
            "stderr": run.logs(stream="stderr"),
        }
        print_json(logs)
    elif follow:
        going_on(hpcml.Runs([run]))
        run.logs(follow=True, stream=stream)
    else:
        if stream != "stderr":
            sys.stdout.write(run.logs(stream="stdout"))
        if stream != "stdout":
            sys.stderr.write(run.logs(stream="stderr"))


@click.command("wait")
@ids
@site_option
@click.option("--timeout", type=float, help="Give up after that many seconds (exit code 75).")
@json_option
def wait_command(
    ids: tuple[str, ...], site: str | None, timeout: float | None, as_json: bool
) -> None:
    """Wait for runs. The exit code is the job's own; of several runs, the first that is not 0."""
    from hpcml.poller import patiently

    began = time.monotonic()
    found = patiently(lambda: _attached(ids, site), timeout)
    left = None if timeout is None else timeout - (time.monotonic() - began)
    _show_at_the_end(found, as_json, left)


@click.command("cancel")
@ids
@site_option
@json_option
def cancel_command(ids: tuple[str, ...], site: str | None, as_json: bool) -> None:
    """Cancel runs."""
    found = _attached(ids, site)
    found.cancel()
    show_runs(found, as_json=as_json)


@click.command("resume")
@click.argument("id", shell_complete=complete_ids)
@site_option
@click.option("--wait", is_flag=True, help="Wait for its end; exit with its exit code.")
@json_option
def resume_command(id: str, site: str | None, wait: bool, as_json: bool) -> None:
    """Go on with a submission that was broken off."""
    found = _attached((id,), site)
    found[0].resume()  # and with it the submission's other runs
    going_on(found)
    _show_perhaps_at_the_end(found, wait, as_json)


@click.command("resubmit")
@ids
@site_option
@click.option("--failed", is_flag=True, help="Only those that have ended and are not COMPLETED.")
@click.option("--wait", is_flag=True, help="Wait for all; exit with the first code that is not 0.")
@json_option
def resubmit_command(
    ids: tuple[str, ...], site: str | None, failed: bool, wait: bool, as_json: bool
) -> None:
    """Run again what has ended, with the same code and parameters."""
    found = _attached(ids, site)
    chosen = found.failed if failed else found
    if not chosen:
        click.echo(f"Nothing to do: of {len(found)} runs none has failed.", err=True)
        if as_json:
            print_json([])
        return
    reached(NOTHING)
    again = hpcml.resubmit(chosen)
    going_on(again)
    _show_perhaps_at_the_end(again, wait, as_json)


@click.command("fetch")
@ids
@site_option
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False),
    default=".",
    help="Folder in which one a run is made; default: .",
)
@json_option
def fetch_command(ids: tuple[str, ...], site: str | None, folder: str, as_json: bool) -> None:
    """Copy what runs have left, and what they printed, to this machine."""
    fetched: list[shapes.Fetched] = []
    for run in _attached(ids, site):
        copy = run.fetch(Path(folder) / run.id)
        fetched.append({"id": run.id, "folder": str(copy)})
        if not as_json:
            click.echo(copy)
    if as_json:
        print_json(fetched)


def _remembered(**filters: Any) -> list[Record]:
    """Runs as they are on record: all that is known where their site cannot be reached."""
    from hpcml import records
    from hpcml.errors import RecordsError

    with suppress(RecordsError):
        return records.remembered(**filters)
    return []


def _the_one(id: str, site: str | None) -> hpcml.Run:
    several = [] if "." in id else _attached((id,), site)
    if len(several) > 1:
        problem = f"{id} has {len(several)} runs; give a run's id: {several[0].id}"
        raise click.BadParameter(problem, param_hint="ID")
    return hpcml.attach(id, site)


def _attached(ids: tuple[str, ...], site: str | None) -> hpcml.Runs:
    """Runs by their ids; a submission's id stands for all its runs."""
    from hpcml.finding import find_runs

    found = [[hpcml.attach(id, site)] if "." in id else find_runs(site, batch=id)[0] for id in ids]
    return hpcml.Runs([run for runs in found for run in runs])


def _show_perhaps_at_the_end(found: hpcml.Runs, wait: bool, as_json: bool) -> None:
    if wait:
        _show_at_the_end(found, as_json)
    show_runs(found, as_json=as_json)


def _show_at_the_end(found: hpcml.Runs, as_json: bool, timeout: float | None = None) -> NoReturn:
    """Wait, show, and exit with the first code that is not 0."""
    wait_for(found, timeout, quiet=as_json)
    show_runs(found, as_json=as_json)
    sys.exit(worst_exit_code(found))
