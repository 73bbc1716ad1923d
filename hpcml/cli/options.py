"""Options that several commands have."""

from __future__ import annotations

import click

from hpcml.cli.completing import complete_ids, complete_sites

ids = click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_ids)
site_option = click.option(
    "--site",
    help="Site of the runs; default: looked for everywhere.",
    shell_complete=complete_sites,
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """What an option's values of the form NAME=VALUE say."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name!r} stands twice", param_hint=option)
        found[name] = value
    return found
