"""Command prune."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

import hpcml
from hpcml.cli.completing import complete_sites
from hpcml.cli.options import json_option
from hpcml.cli.showing import print_json
from hpcml.cli.stages import reached
from hpcml.errors import HpcmlError

if TYPE_CHECKING:
    from hpcml import pruning


@click.command("prune")
@click.option(
    "--site",
    default="local",
    show_default=True,
    help="Name of a site profile.",
    shell_complete=complete_sites,
)
@click.option(
    "--older-than",
    metavar="TIME",
    help="Ended so long ago, like 30d. Default: 30d, or any age with --down-to.",
)
@click.option("--down-to", metavar="SIZE", help='Free the oldest until "20 GiB", say, are left.')
@click.option("--work-only", is_flag=True, help="Only work folders: states, logs, events stay.")
@click.option("--without-records", is_flag=True, help="Also runs that cannot be recorded.")
@click.option("-y", "--yes", is_flag=True, help="Do it, without asking.")
@json_option
def prune_command(
    site: str,
    older_than: str | None,
    down_to: str | None,
    work_only: bool,
    without_records: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Free space on a site: ended runs, code and libraries that none needs, leftovers.

    It shows what it would free, and asks. In a pipe it frees nothing without --yes. What is in use
    is never freed.
    """
    reached("Nothing was freed.")
    found = hpcml.prune(
        site,
        older_than=older_than,
        down_to=down_to,
        work_only=work_only,
        without_records=without_records,
    )
    if not as_json:
        _print(found)
    done = found.apply() if found.items and (yes or _agreed(found, as_json)) else None
    if done is not None:
        reached(done.summary)
    if as_json:
        print_json((done or found).to_data())
    if done is not None:
        if not as_json:
            click.echo(done.summary)
        _refuse_rest(done)


def _agreed(found: pruning.Pruning, as_json: bool) -> bool:
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo("Nothing was freed: this was a dry run. With --yes it is done.", err=True)
        return False
    return click.confirm("Free them?")


def _print(found: pruning.Pruning) -> None:
    """A table on a terminal, tab-separated columns in a pipe."""
    if sys.stdout.isatty():
        click.echo(str(found))
        return
    for row in found.rows():
        click.echo("\t".join(row))
    for line in [found.summary, *found.notes()]:
        click.echo(line, err=True)


def _refuse_rest(done: pruning.Pruning) -> None:
    """What was to be freed, and was not, must not look like success."""
    if done.kept:
        problem = f"{len(done.kept)} of {len(done.kept) + len(done.items)} had to stay"
        raise HpcmlError(problem, "\n  ".join(done.notes()))
