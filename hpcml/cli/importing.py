"""Commands that take in what other tools have left."""

from __future__ import annotations

from dataclasses import asdict

import click

from hpcml.cli.options import json_option
from hpcml.cli.showing import print_json
from hpcml.integrations.submitit_jobs import SITE
from hpcml.texts import plain


@click.group("import")
def import_command() -> None:
    """Take runs of other tools into the records."""


@import_command.command("submitit")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--site", default=SITE, show_default=True, help="Site that the records name.")
@json_option
def submitit_command(folder: str, site: str, as_json: bool) -> None:
    """Take finished submitit jobs in FOLDER into the records."""
    from hpcml.integrations.submitit import import_folder  # slow to load

    imported = import_folder(folder, site)
    if as_json:
        print_json(asdict(imported))
        return
    click.echo(f"{imported.new} recorded, {imported.known} known, {imported.unfinished} unfinished")
    for why in imported.refused:
        click.echo(f"passed over: {plain(why)}", err=True)
