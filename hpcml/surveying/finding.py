"""What a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from hpcml.errors import TransportError


class Finding(NamedTuple):
    """What was found, and what to do about it.

    Attributes
    ----------
    verdict : {"ok", "warn", "bad", "unknown"}
    """

    verdict: str
    what: str
    advice: str = ""


class NoAnswerError(TransportError):
    """A command of a site has not ended in time: what it would say is not known."""


Check = Callable[[], Iterable[Finding]]


def ok(what: str) -> Finding:
    """It works, or is as it is said to be."""
    return Finding("ok", what)


def warn(what: str, advice: str) -> Finding:
    """hpcml works without it; something will be missing."""
    return Finding("warn", what, advice)


def bad(what: str, advice: str) -> Finding:
    """Runs cannot be submitted, or hpcml cannot go on."""
    return Finding("bad", what, advice)


def unknown(what: str, advice: str = "") -> Finding:
    """Nobody says whether it is so."""
    return Finding("unknown", what, advice)
