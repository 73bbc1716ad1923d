"""Commands about records: sync, compare."""

from __future__ import annotations

import sys
import warnings

import click

import hpcml
from hpcml.cli import shapes
from hpcml.cli.completing import complete_sites
from hpcml.cli.options import ids, json_option
from hpcml.cli.showing import INCOMPLETE, print_json

PLOTS = ("energy", "history", "phases", "scaling")  # hpcml.comparison has them, and is slow to load


@click.command("sync")
@click.argument("site", required=False, shell_complete=complete_sites)
@click.option("--mlflow", "uri", metavar="URI", help="Mirror finished runs to an MLflow store.")
@click.option("--experiment", metavar="NAME", help="Its experiment; default: the jobs' names.")
@json_option
def sync_command(site: str | None, uri: str | None, experiment: str | None, as_json: bool) -> None:
    """Record what is new on SITE; default: on all sites.

    If a site cannot be reached the others are recorded, and the exit code is 70.
    """
    if uri is None and experiment is not None:
        raise click.UsageError("--experiment goes with --mlflow")
    from hpcml.records import SiteWarning  # slow to load

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = hpcml.sync(site) if uri is None else hpcml.records.sync(site)
    passed_over = [str(one.message) for one in said if issubclass(one.category, SiteWarning)]
    for one in said:
        warnings.showwarning(one.message, one.category, one.filename, one.lineno)
    synced: shapes.Synced = {"runs": count, "mirrored": None, "passed_over": passed_over}
    if uri is not None:
        from hpcml.integrations.mlflow import mirror

        synced["mirrored"] = mirror(uri, experiment=experiment)
    if as_json:
        print_json(synced)
    else:
        mirrored = f", {synced['mirrored']} mirrored" if uri else ""
        click.echo(f"{count} runs with news{mirrored}")
    if passed_over:
        sys.exit(INCOMPLETE)


@click.command("compare")
@ids
@click.option("--by", multiple=True, metavar="NAME", help="Parameter that rows go by; repeatable.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown.")
@click.option("--plot", "kind", type=click.Choice(PLOTS), help="Draw it, too.")
@click.option(
    "--to",
    "path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Where the plot goes: .pdf, .svg or .png.",
)
def compare_command(
    ids: tuple[str, ...], by: tuple[str, ...], form: str | None, kind: str | None, path: str | None
) -> None:
    """Show runs side by side; a submission's ID stands for all its runs."""
    if (kind is None) != (path is None):
        raise click.UsageError("--plot and --to go together")
    table = hpcml.compare(ids, by or None)
    if form is None:
        table.show()
    else:
        written = getattr(table, f"to_{form}")()
        click.echo(written.rstrip("\r\n"))
    if kind is not None:
        table.plot(kind, path)
