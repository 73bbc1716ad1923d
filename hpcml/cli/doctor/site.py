"""``hpcml sites doctor``: what of a site is as its profile and your settings say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from hpcml.cli import shapes
from hpcml.cli.completing import complete_sites
from hpcml.cli.options import json_option

if TYPE_CHECKING:
    from hpcml.settings import Binding
    from hpcml.sites import Site
    from hpcml.transports import Transport


@click.command("doctor")
@click.argument("name", shell_complete=complete_sites)
@click.option("--job", is_flag=True, help="Look at a compute node, too: a small job is submitted.")
@click.option("--partition", help="Where that job runs; default: as hpcml places it.")
@json_option
def site_doctor_command(name: str, job: bool, partition: str | None, as_json: bool) -> None:
    """Hold the profile of the site NAME, and your settings, against the site itself.

    It looks at the login node and asks Slurm; with --job, it waits for a job on a compute node.
    The exit code is 1 if something is bad.
    """
    from hpcml.cli.doctor import tell
    from hpcml.errors import ArgumentError, nearest
    from hpcml.sites import load_site

    site = load_site(name)
    if partition is not None and partition not in site.partitions:
        advice = f"{nearest(partition, site.partitions)}."
        raise ArgumentError(f"{name} has no partition {partition!r}", advice)
    tell(_examined(site, job or partition is not None, partition), as_json)


def _examined(site: Site, job: bool, partition: str | None) -> Iterator[shapes.Finding]:
    from hpcml.cli.doctor import FAR, caught, examine
    from hpcml.cli.doctor.node import look_at_a_node
    from hpcml.connection import connect
    from hpcml.surveying.login import Login, checks, profile

    _log_in(site)

    def reach() -> tuple[Binding, Transport]:
        connection = connect(site.name)
        return connection.binding, connection.files

    login = Login(site, reach)
    found = checks(login)
    if site.scheduler == "slurm":
        found.append(("profile", partial(profile, login)))
    reached = True
    for finding in examine(found, gate="reach", patience=FAR):
        reached = reached and (finding["check"], finding["verdict"]) != ("reach", "bad")
        yield finding
    if job and reached:
        for found_there in caught(partial(look_at_a_node, site, partition)):  # it takes its time
            yield {"check": "compute node", **found_there._asdict()}  # type: ignore[typeddict-item]


def _log_in(site: Site) -> None:
    """Whoever is at a terminal may be asked now; a check is not the place for that."""
    from hpcml.connection import bind
    from hpcml.errors import HpcmlError
    from hpcml.transports.ssh import way_to
    from hpcml.transports.ssh.openssh import has_terminal

    if site.transport != "ssh" or not has_terminal():
        return
    try:
        way_to(site, bind(site)).log_in()
    except HpcmlError:
        pass  # the first check says so
