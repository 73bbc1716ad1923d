"""``hpcml sites discover``: a first profile of a cluster, written by asking it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("discover")
@click.argument("name", required=False)
@click.option("--host", help="Host or alias of ~/.ssh/config; default: this is a login node.")
@click.option("--workspace", default="~/hpcml", show_default=True, help="For hpcml's files there.")
@click.option(
    "--output", "-o", metavar="FILE", help="Where it goes, `-`: it is printed; default: yours."
)
def discover_command(
    name: str | None, host: str | None, workspace: str, output: str | None
) -> None:
    """Write a first profile NAME of a Slurm, by asking it; it replaces none.

    It is asked on this machine, if that is a login node, or over ssh. NAME is by default what the
    cluster calls itself. Settings of that name (user, ssh_config) count.
    """
    from hpcml.cli.profiles import check_new, write_new
    from hpcml.sites.layers import SUFFIX
    from hpcml.surveying.discovering import discover

    stem = None if output in (None, "-") else Path(str(output)).name.removesuffix(SUFFIX)
    name = name or stem
    if name is not None and output is None:
        check_new(name)  # before the way there is taken
    found = discover(name, host, workspace)
    text = found.text()
    if output == "-":
        click.echo(text, nl=False)
        return
    if output is None:
        check_new(found.name)
    click.echo(write_new(found.name, text, None if output is None else Path(output)))
    then = f"hpcml plan --site {found.name} -- hostname"
    click.echo(f"Fill in what is unknown there; then: {then}", err=True)
