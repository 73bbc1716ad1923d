"""Commands about records: sync."""

from __future__ import annotations

import click

from hpcml import records
from hpcml.cli.showing import print_json


@click.command("sync")
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sync_command(site: str | None, as_json: bool) -> None:
    """Record what is new on SITE; default: on all sites."""
    count = records.sync(site)
    if as_json:
        print_json({"runs": count})
    else:
        click.echo(f"{count} runs with news")
