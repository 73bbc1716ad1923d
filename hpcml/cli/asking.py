"""What is asked before a project's profile acts as the user."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hpcml.texts import plain_lines

if TYPE_CHECKING:
    from hpcml.errors import UntrustedError


def agreed(error: UntrustedError) -> bool:
    """Whether somebody at a terminal agrees to it; where there is none, nobody does."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(plain_lines(error.problem), err=True)
    return click.confirm("Do you agree?", err=True)
