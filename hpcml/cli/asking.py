"""Asking whoever sits at the terminal, as before a project's profile acts as them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hpcml.texts import plain_lines

if TYPE_CHECKING:
    from hpcml.errors import UntrustedError


def somebody() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(error: UntrustedError) -> bool:
    """Whether somebody at a terminal agrees to it; where there is none, nobody does."""
    if not somebody():
        return False
    click.echo(plain_lines(error.problem), err=True)
    return click.confirm("Do you agree?", err=True)
