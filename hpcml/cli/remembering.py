"""Commands about records: sync, compare."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import click

import hpcml
from hpcml.cli import shapes
from hpcml.cli.completing import complete_sites
from hpcml.cli.options import ids, json_option
from hpcml.cli.showing import INCOMPLETE, print_json

PLOTS = ("energy", "history", "phases", "scaling")  # hpcml.comparison has them, and is slow to load
RESOURCES = ("cpus", "devices", "nodes")


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

        synced["mirrored"] = mirror(uri, experiment=experiment, progress=_progress())
    if as_json:
        print_json(synced)
    else:
        mirrored = f", {synced['mirrored']} mirrored" if uri else ""
        click.echo(f"{count} runs with news{mirrored}")
    if passed_over:
        sys.exit(INCOMPLETE)


def _progress() -> Callable[[int, int], None] | None:
    """A line on a terminal that says how far it is; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, count: int) -> None:
        end = "\n" if done == count else ""
        print(f"\r{done} of {count} runs mirrored", end=end, file=sys.stderr, flush=True)

    return show


@click.command("compare")
@ids
@click.option(
    "--by", multiple=True, metavar="NAME,...", help="Parameters that rows go by; repeatable."
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("--plot", "kind", type=click.Choice(PLOTS), help="Draw it, too.")
@click.option(
    "--to",
    "path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Where the plot goes: .pdf, .svg or .png.",
)
@click.option(
    "--over", type=click.Choice(RESOURCES), help="Of a plot of scaling: what the runs differ in."
)
@click.option("--metric", metavar="NAME", help="Of a plot of history; default: several.")
def compare_command(
    ids: tuple[str, ...],
    by: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    kind: str | None,
    path: str | None,
    over: str | None,
    metric: str | None,
) -> None:
    """Show runs side by side; a submission's ID stands for all its runs."""
    if (kind is None) != (path is None):
        raise click.UsageError("--plot and --to go together")
    for option, value, its in (("--over", over, "scaling"), ("--metric", metric, "history")):
        if value is not None and kind != its:
            raise click.UsageError(f"{option} goes with --plot {its}")
    if as_json + as_csv + as_markdown > 1:
        raise click.UsageError("--json, --csv and --markdown do not go together")
    names = [name for text in by for name in text.split(",")]
    table = hpcml.compare(ids, names or None)
    if as_json or as_csv or as_markdown:
        form = table.to_json if as_json else table.to_csv if as_csv else table.to_markdown
        click.echo(form().rstrip("\r\n"))
    else:
        table.show()
    if kind is not None:
        table.plot(kind, path, over=over, metric=metric)
