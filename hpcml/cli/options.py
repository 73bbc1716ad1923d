"""Options that several commands have."""

from __future__ import annotations

import sys

import click

from hpcml.cli.completing import complete_ids, complete_sites


def _tell(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Show on stderr what is done on the sites (:mod:`hpcml.site_log`)."""
    if not wanted:
        return
    import logging

    from hpcml.texts import plain

    class OnStderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Whatever stderr is now: progress takes its place for a while.
            print(plain(record.getMessage()), file=sys.stderr)

    logger = logging.getLogger("hpcml")
    if not logger.handlers:  # else -v stands before and after the command
        logger.addHandler(OnStderr())
        logger.setLevel(logging.DEBUG)


# Every command has it: see hpcml.cli.Group.
verbose_option = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_tell,
    help="Show what is done on the site.",
)

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
