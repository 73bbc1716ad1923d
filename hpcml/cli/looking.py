"""Commands about runs that there are: runs, status, logs, wait, cancel, resume, fetch ..."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

import hpcml
from hpcml.cli import shapes
from hpcml.cli.completing import complete_batches, complete_ids, complete_states
from hpcml.cli.options import ids, json_option, pairs, site_option
from hpcml.cli.showing import (
    print_json,
    print_runs,
    runs_data,
    wait_for,
    worst_exit_code,
)
from hpcml.cli.stages import going_on, reached


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
    """List runs, oldest first."""
    wanted = pairs("--tag", tags)
    found = hpcml.runs(site, batch=batch, state=state, name=name, tags=wanted)
    _show(found, as_json)


@click.command("status")
@ids
@site_option
@json_option
def status_command(ids: tuple[str, ...], site: str | None, as_json: bool) -> None:
    """Show the state of runs."""
    _show(_attached(ids, site), as_json)


@click.command("logs")
@click.argument("id", shell_complete=complete_ids)
@site_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--stream", type=click.Choice(["both", "stdout", "stderr"]), default="both")
@json_option
def logs_command(id: str, site: str | None, follow: bool, stream: str, as_json: bool) -> None:
    """Show what a run printed, as it is: stdout to stdout, stderr to stderr."""
    if follow and as_json:
        raise click.UsageError("--follow and --json do not go together")
    several = [] if "." in id else _attached((id,), site)
    if len(several) > 1:
        problem = f"{id} has {len(several)} runs; give a run's id: {several[0].id}"
        raise click.BadParameter(problem, param_hint="ID")
    run = hpcml.attach(id, site)
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
    _show_at_the_end(_attached(ids, site), as_json, timeout)


@click.command("cancel")
@ids
@site_option
@json_option
def cancel_command(ids: tuple[str, ...], site: str | None, as_json: bool) -> None:
    """Cancel runs."""
    found = _attached(ids, site)
    found.cancel()
    _show(found, as_json)


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
    reached("Nothing was submitted.")
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


def _attached(ids: tuple[str, ...], site: str | None) -> hpcml.Runs:
    """Runs by their ids; a submission's id stands for all its runs."""
    found = [[hpcml.attach(id, site)] if "." in id else hpcml.runs(site, batch=id) for id in ids]
    return hpcml.Runs([run for runs in found for run in runs])


def _show_perhaps_at_the_end(found: hpcml.Runs, wait: bool, as_json: bool) -> None:
    if wait:
        _show_at_the_end(found, as_json)
    _show(found, as_json)


def _show_at_the_end(found: hpcml.Runs, as_json: bool, timeout: float | None = None) -> NoReturn:
    """Wait, show, and exit with the first code that is not 0."""
    wait_for(found, timeout, quiet=as_json)
    _show(found, as_json)
    sys.exit(worst_exit_code(found))


def _show(found: hpcml.Runs, as_json: bool) -> None:
    if as_json:
        print_json(runs_data(found))
    else:
        print_runs(found)
