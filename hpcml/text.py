"""Text that is safe to show: names come from jobs, and may hold anything."""

from __future__ import annotations


def plain(text: str) -> str:
    """Text without what a terminal would obey: control and formatting characters are escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def plain_lines(text: str) -> str:
    """As :func:`plain`, line by line: the ends of lines stay."""
    return "\n".join(map(plain, text.split("\n")))
