"""``-v``: shows what is done on the sites. Every command has it: see ``hpcml.cli.Group``."""

from __future__ import annotations

import sys

import click


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


verbose_option = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_tell,
    help="Show what is done on the site.",
)
