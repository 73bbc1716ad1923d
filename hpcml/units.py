"""Times and amounts of memory as people write them."""

from __future__ import annotations

import re
import time
from datetime import timedelta

from hpcml.errors import JobError, nearest

MEMORY = {
    "B": 1,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
TIME = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "seconds": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
}
LARGEST = 1 << 60  # bytes or seconds; what is larger is a slip of the finger
# What `memory` and `seconds` read, for editors that know patterns alone.
MEMORY_PATTERN = rf"^\s*[0-9]+(\.[0-9]+)?\s*({'|'.join(MEMORY)})$"
TIME_PATTERN = (
    rf"^((\s*[0-9]+(\.[0-9]+)?\s*({'|'.join(TIME)}))+\s*"
    r"|[0-9]+-[0-9]+:[0-5][0-9](:[0-5][0-9])?|[0-9]+:[0-5][0-9]:[0-5][0-9])$"
)
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d)(?::([0-5]\d))?$")


def memory(value: str, field: str = "memory") -> int:
    """Bytes of ``"2 GiB"``, ``"500 MB"``; Slurm's ``K M G T`` are powers of 1024, as in Slurm.

    Raises
    ------
    JobError
        No number, no unit, or an unknown one.
    """
    match = _PART.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise JobError(field, f"{value!r} is no amount of memory", 'Write it like "2 GiB".')
    number, unit = match.groups()
    if not unit:
        raise JobError(field, f"{value!r} has no unit", f'Write it like "{number} GiB".')
    if unit not in MEMORY:
        raise JobError(field, f"unknown unit {unit!r} in {value!r}", nearest(unit, MEMORY))
    amount = float(number) * MEMORY[unit]
    if amount >= LARGEST:
        raise JobError(field, f"{value[:50]!r} is too much", 'Write it like "2 GiB".')
    return round(amount)


def seconds(value: str | timedelta, field: str = "time", *, zero: bool = False) -> int:
    """Seconds of ``"10m"``, ``"1h 30m"``, Slurm's ``"D-HH:MM:SS"`` and ``"HH:MM:SS"``.

    Parameters
    ----------
    value : str or timedelta
    field : str
        What an error names.
    zero : bool
        Whether it may be no time at all.

    Raises
    ------
    JobError
        No number, no unit, an unknown one, or no time at all.
    """
    total = value.total_seconds() if isinstance(value, timedelta) else _seconds(value, field)
    if total >= LARGEST:
        raise JobError(field, f"{str(value)[:50]!r} is too long", 'Write it like "10m".')
    if zero and total == 0:
        return 0
    if total <= 0:
        raise JobError(field, f"{value!r} is no time to run", 'Write it like "10m".')
    return max(1, round(total))


def _seconds(value: str, field: str) -> float:
    if not isinstance(value, str) or not value.strip():
        plain = isinstance(value, int) and not isinstance(value, bool)
        unit = f'"{value}s", "{value}m"' if plain else '"90s", "10m"'
        raise JobError(
            field, f"{value!r} is no time with a unit", f'Write it like {unit} or "1h30m".'
        )
    clock = _CLOCK.fullmatch(value.strip())
    if clock:
        days, hours, minutes, rest = (float(part or 0) for part in clock.groups())
        if clock.group(4) is None and clock.group(1) is None:
            raise JobError(
                field, f"{value!r} may be minutes or hours", 'Write "HH:MM:SS", or like "10m".'
            )
        return days * 86400 + hours * 3600 + minutes * 60 + rest
    total, position, text = 0.0, 0, value.rstrip()
    while position < len(text):
        match = _PART.match(text, position)
        if not match:
            raise JobError(field, f"{value!r} is no time", 'Write it like "10m" or "1h30m".')
        number, unit = match.groups()
        if not unit:
            raise JobError(field, f"{value!r} has no unit", f'Write it like "{number}m".')
        if unit not in TIME:
            raise JobError(field, f"unknown unit {unit!r} in {value!r}", nearest(unit, TIME))
        total += float(number) * TIME[unit]
        position = match.end()
    return total


def memory_text(size: int) -> str:
    """A size in the largest unit that leaves at least 1: ``"2.0 GiB"``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= MEMORY[unit]:
            return f"{size / MEMORY[unit]:.1f} {unit}"
    return f"{size} B"


def clock(total: int) -> str:
    """Seconds as Slurm writes them: ``D-HH:MM:SS`` or ``HH:MM:SS``."""
    days, rest = divmod(total, 86400)
    text = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def time_text(total: int) -> str:
    """Seconds as a job asks for them: ``"1d"``, ``"1h30m"``."""
    parts, left = [], total
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, TIME[unit])
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts)


def lasting(seconds: float) -> str:
    """A duration to the second; a shorter one is not nothing: ``"less than 1 s"``."""
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"


def moment(when: float) -> str:
    """A time in s since the epoch, to the second: ``2026-11-21 14:15:02 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
