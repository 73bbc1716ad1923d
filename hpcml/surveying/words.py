"""What Slurm writes in place of figures, times and lists.

What it does not say (``(null)``, ``NONE``, ``N/A``, nothing) is ``None``, and no limit is infinity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

Fields = Mapping[str, str]

NOTHING = ("", "(null)", "none", "n/a", "not_set", "unknown")
UNLIMITED = ("unlimited", "infinite")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SECONDS = {"sec": 1, "min": 60, "hour": 3600}

_FIELD = re.compile(r"(?:^|(?<=\s))([A-Za-z_]\w*)=")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")


def fields(line: str) -> dict[str, str]:
    """The fields of a line of ``scontrol --oneliner``; the first of a name counts.

    Values may have blanks in them, and what administrators write comes last.
    """
    _, *parts = _FIELD.split(line)
    found: dict[str, str] = {}
    for name, value in zip(parts[::2], parts[1::2], strict=True):
        found.setdefault(name, value.strip())
    return found


def settings(answer: str) -> dict[str, str]:
    """What ``scontrol show config`` says, by name; of its sections the first that has a name."""
    found: dict[str, str] = {}
    for line in answer.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found.setdefault(name.strip(), value.strip())
    return found


def said(text: str | None) -> str | None:
    """A word, if it says anything."""
    return None if text is None or text.lower() in NOTHING else text


def words(text: str | None) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(filter(None, (said(text) or "").split(",")))


def count(text: str | None) -> int | None:
    """A number of things."""
    return int(text) if text is not None and text.isdecimal() else None


def limit(text: str | None) -> float | None:
    """A most number of things."""
    return math.inf if (text or "").lower() in UNLIMITED else count(text)


def duration(text: str | None) -> float | None:
    """A time in s: ``1-00:00:00``, ``30 sec``, ``UNLIMITED``."""
    text = text or ""
    if text.lower() in UNLIMITED:
        return math.inf
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + rest
    number, _, unit = text.partition(" ")
    return int(number) * SECONDS[unit] if number.isdecimal() and unit in SECONDS else None


def amounts(text: str | None) -> dict[str, int]:
    """Trackable resources by name: ``cpu=16,mem=62.50G,gres/gpu:a100=4``; units are of 1024."""
    found = {}
    for part in words(text):
        name, _, value = part.partition("=")
        if amount := _AMOUNT.fullmatch(value):
            found[name] = round(float(amount[1]) * UNITS[amount[2]])
    return found


def listed(text: str | None) -> int | None:
    """How many numbers a list has: of ``0-3,8`` it is five."""
    if said(text) is None:
        return None
    spans = [part.partition("-") for part in words(text)]
    if not all(first.isdecimal() and (last or first).isdecimal() for first, _, last in spans):
        return None
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)
