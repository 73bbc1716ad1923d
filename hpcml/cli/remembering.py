"""Commands about records: sync, compare."""

from __future__ import annotations

import click

from hpcml import comparison, records
from hpcml.cli.showing import print_json
from hpcml.comparison.table import PLOTS
from hpcml.integrations import syncing


@click.command("sync")
@click.argument("site", required=False)
@click.option("--mlflow", "uri", metavar="URI", help="Mirror finished runs to an MLflow store.")
@click.option("--experiment", metavar="NAME", help="Its experiment; default: the jobs' names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sync_command(site: str | None, uri: str | None, experiment: str | None, as_json: bool) -> None:
    """Record what is new on SITE; default: on all sites."""
    if uri is None and experiment is not None:
        raise click.UsageError("--experiment goes with --mlflow")
    if uri is None:
        done = {"runs": syncing.sync(site)}
    else:
        from hpcml.integrations.mlflow import mirror

        done = {"runs": records.sync(site), "mirrored": mirror(uri, experiment=experiment)}
    if as_json:
        print_json(done)
    else:
        mirrored = f", {done['mirrored']} mirrored" if uri else ""
        click.echo(f"{done['runs']} runs with news{mirrored}")


@click.command("compare")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--by", multiple=True, metavar="NAME", help="Parameter that rows go by; repeatable.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown.")
@click.option("--plot", "kind", type=click.Choice(PLOTS), help="Draw it, too.")
@click.option("--to", "path", metavar="FILE", help="Where the plot goes: .pdf, .svg or .png.")
def compare_command(
    ids: tuple[str, ...], by: tuple[str, ...], form: str | None, kind: str | None, path: str | None
) -> None:
    """Show runs side by side; a submission's ID stands for all its runs."""
    if (kind is None) != (path is None):
        raise click.UsageError("--plot and --to go together")
    table = comparison.compare(ids, by or None)
    if form is None:
        table.show()
    else:
        written = getattr(table, f"to_{form}")()
        click.echo(written.rstrip("\r\n"))
    if kind is not None:
        table.plot(kind, path)
