"""``hpcml top``: a live screen of runs. What draws it is loaded when it is called."""

from __future__ import annotations

import os
import sys

import click

from hpcml.cli.looking import runs_command
from hpcml.cli.options import pairs
from hpcml.errors import HpcmlError

FILTERS = ("site", "batch", "state", "name", "tags")


@click.command("top", params=[one for one in runs_command.params if one.name in FILTERS])
def top_command(
    site: str | None,
    batch: str | None,
    state: str | None,
    name: str | None,
    tags: tuple[str, ...],
) -> None:
    """Show runs on a live screen, newest first; ? there shows its keys."""
    wanted = pairs("--tag", tags)
    if not _on_a_terminal():
        problem = "this is no terminal that a screen could be drawn on"
        raise click.UsageError(f"{problem}; `hpcml runs` lists runs anywhere")
    from hpcml import finding  # slow to load
    from hpcml.connection import connect
    from hpcml.states import state_named

    if site is not None:
        connect(site)  # what is wrong with it is better said before the screen is there
    if batch is not None:
        finding.runs(site, batch=batch)
    chosen = None if state is None else state_named(state)

    try:
        from hpcml.cli.top.app import show
    except ModuleNotFoundError as error:
        problem = f"the live screen needs the package {error.name!r}"
        raise HpcmlError(problem, 'pip install "hpcml[top]"') from error
    from hpcml.cli.top.board import Filter

    sys.exit(show(Filter(site, batch, chosen, name, wanted)))


def _on_a_terminal() -> bool:
    """Whether keys can be read, and a screen be drawn (which goes to stderr)."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return os.environ.get("TERM") != "dumb" and all(stream.isatty() for stream in streams)
