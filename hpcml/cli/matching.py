"""``hpcml sites match``."""

from __future__ import annotations

from typing import Any

import click

import hpcml
from hpcml.cli.options import json_option
from hpcml.cli.showing import print_json, print_table
from hpcml.cli.submitting import job_from, of_the_job

HEADER = ("site", "partition", "nodes", "devices", "why not, or what is not sure")


@click.command("match")
@of_the_job
@json_option
def match_command(as_json: bool, **options: Any) -> None:
    """Show which sites and partitions can run a job, and why the others cannot; offline.

    ENTRY and options are those of `hpcml plan`.
    """
    from hpcml.matching import as_data

    found = hpcml.match(job_from(**options))
    if as_json:
        print_json([as_data(one) for one in found])
        return
    rows = [
        (
            *(one.site, one.partition, str(one.nodes or "–"), str(one.devices or "–")),
            one.reason or "; ".join(one.doubts),
        )
        for one in found
    ]
    print_table(HEADER, rows, folded=HEADER[4:])
