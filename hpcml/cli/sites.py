"""``hpcml sites``: which there are, and what is known of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hpcml.cli import shapes
from hpcml.cli.completing import complete_sites
from hpcml.cli.discovering import discover_command
from hpcml.cli.doctor.site import site_doctor_command
from hpcml.cli.matching import match_command
from hpcml.cli.options import json_option
from hpcml.cli.profiles import explain_command, new_command, schema_command, validate_command
from hpcml.cli.setup import setup_command
from hpcml.cli.showing import print_json, print_table

if TYPE_CHECKING:
    from hpcml.settings import SiteSettings
    from hpcml.sites import Site
    from hpcml.sites.sourced import Origin

HEADER = ("site", "scheduler", "workspace", "profile", "description")


@click.group("sites", invoke_without_command=True)
@json_option
@click.pass_context
def sites_command(ctx: click.Context, as_json: bool) -> None:
    """List sites: the profiles that come with hpcml, and yours."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@sites_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List sites, as `hpcml sites` alone does."""
    _list(as_json)


def _list(as_json: bool) -> None:
    from hpcml.sites import site_names

    found = [_site(name) for name in site_names()]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            *(site["name"], site["scheduler"] or "", site["workspace"] or ""),
            *(site["profile"], site["problem"] or site["description"]),
        )
        for site in found
    ]
    print_table(HEADER, rows, folded=HEADER[2:])


sites_command.add_command(match_command)


@sites_command.command("show")
@click.argument("name", shell_complete=complete_sites)
@json_option
@click.pass_context
def show_command(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show the facts of the site NAME, and where each is from."""
    facts = _facts(name)
    if as_json or (ctx.parent is not None and ctx.parent.params["as_json"]):
        told: shapes.SiteFacts = {"name": name, "facts": facts}
        print_json(told)
        return
    rows = [(fact["key"], str(fact["value"]), _from(fact)) for fact in facts]
    print_table(("fact", "is", "from"), rows, folded=("is", "from"))


@sites_command.command("diff")
@click.argument("one", shell_complete=complete_sites)
@click.argument("other", shell_complete=complete_sites)
@json_option
def diff_command(one: str, other: str, as_json: bool) -> None:
    """Show the facts in which the sites ONE and OTHER differ, and where each is from."""
    left, right = ({fact["key"]: fact for fact in _facts(name)} for name in (one, other))
    keys = [key for key in dict.fromkeys([*left, *right]) if key not in ("name", "origins")]
    found: list[shapes.Difference] = [
        {"key": key, "one": left.get(key), "other": right.get(key)}
        for key in keys
        if _value(left.get(key)) != _value(right.get(key))
    ]
    if as_json:
        print_json(found)
        return
    rows = [(it["key"], _told(it["one"]), _told(it["other"])) for it in found]
    print_table(("fact", one, other), rows, folded=(one, other))


@sites_command.command("trust")
@click.argument("name", shell_complete=complete_sites)
@click.option("-y", "--yes", is_flag=True, help="Agree, without being asked.")
def trust_command(name: str, yes: bool) -> None:
    """Agree to what the project's profile of the site NAME does as you.

    It shows what that is, and asks. A profile that has changed is asked for again.
    """
    from hpcml.cli.asking import agreed
    from hpcml.errors import UntrustedError
    from hpcml.sites import load_site
    from hpcml.sites.trust import trust

    try:
        load_site(name)
    except UntrustedError as error:
        if not (yes or agreed(error)):
            raise
        trust(error.digests)
        click.echo(f"{name}: agreed")
    else:
        click.echo(f"{name}: there is nothing to agree to")


@sites_command.command("login")
@click.argument("name", shell_complete=complete_sites)
def login_command(name: str) -> None:
    """Log in to the site NAME, on this terminal.

    ssh asks for what the site wants: a password, a second factor. The connection then serves every
    hpcml of yours on this machine, until nothing has used it for half an hour.
    """
    from hpcml.connection import bind, connect
    from hpcml.errors import ArgumentError
    from hpcml.sites import load_site
    from hpcml.transports.ssh import way_to

    site = load_site(name)
    if site.transport != "ssh":
        problem = f"{name} is reached by {site.transport}, and that asks for no login"
        raise ArgumentError(problem, "Just use it.")
    way_to(site, bind(site)).log_in()
    connection = connect(name)
    connection.files.names("")  # its Python and workspace, too, are in order
    click.echo(f"{name}: logged in; workspace {connection.binding.workspace}")


for _command in (
    *(explain_command, validate_command, schema_command, new_command),
    *(discover_command, setup_command, site_doctor_command),
):
    sites_command.add_command(_command)


def _value(fact: shapes.Fact | None) -> Any:
    return None if fact is None else fact["value"]


def _told(fact: shapes.Fact | None) -> str:
    """A fact in one cell."""
    if fact is None:
        return ""
    return f"{fact['value']} ({_from(fact)})"


def _from(fact: shapes.Fact) -> str:
    sure = fact["confidence"] and f"confidence {fact['confidence']}"
    return "; ".join(filter(None, (fact["where"], fact["source"], sure)))


def _site(name: str) -> shapes.Site:
    from hpcml.connection import bind
    from hpcml.errors import HpcmlError
    from hpcml.sites import load_site, profile_of

    found: shapes.Site = {
        "name": name,
        "description": "",
        "scheduler": None,
        "transport": None,
        "workspace": None,
        "profile": str(profile_of(name)),
        "problem": None,
    }
    try:
        site = load_site(name)
        found["description"] = site.description
        found["scheduler"], found["transport"] = site.scheduler, site.transport
        found["workspace"] = bind(site).workspace
    except HpcmlError as error:
        found["problem"] = " ".join(str(error).split())
    return found


def _facts(name: str) -> list[shapes.Fact]:
    """The facts of a profile, then what the settings say of the site."""
    from hpcml.documents import parse, read_text
    from hpcml.settings import settings_file, settings_of, sites_of_settings
    from hpcml.sites import places_of, read_site

    site, places = read_site(name), places_of(name)
    told = _said(site)
    facts = [_fact(key, value, places, site.origin(".".join(key))) for key, value in _leaves(told)]
    if name in sites_of_settings():
        path = settings_file()
        _, marks = parse(read_text(path), str(path))
        for key, value in _leaves(_said(settings_of(name))):
            where = f"{path}, line {marks['sites', name, *key].line}"
            facts.append(
                {
                    "key": ".".join(("yours", *key)),
                    "value": value,
                    "where": where,
                    "source": None,
                    "confidence": None,
                }
            )
    return facts


def _said(facts: Site | SiteSettings) -> dict[str, Any]:
    """What is known, without what is not said."""
    told = {key: value for key, value in asdict(facts).items() if key != "origins"}
    known: dict[str, Any] = _without_none(told)
    return known


def _without_none(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _without_none(it) for key, it in told.items() if it is not None}
    return [_without_none(it) for it in told] if isinstance(told, list) else told


def _fact(
    key: tuple[str, ...], value: Any, places: dict[tuple[str, ...], str], origin: Origin | None
) -> shapes.Fact:
    if key not in places:
        origin = None  # nobody says a default, though somebody says what it is in
    return {
        "key": ".".join(key),
        "value": value,
        "where": places.get(key, "default of hpcml"),
        "source": None if origin is None else origin.source,
        "confidence": None if origin is None else origin.confidence,
    }


def _leaves(tree: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """All facts by their keys; each item of a list of mappings has its own."""
    found = []
    for key, value in tree.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        inner = isinstance(value, dict)
        found += _leaves(value, (*above, key)) if inner else [((*above, key), value)]
    return found
