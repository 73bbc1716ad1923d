"""Text that comes from jobs, made fit to be looked at: it may hold anything, of any length."""

from __future__ import annotations


def plain(text: str) -> str:
    """Text without what a terminal would obey: control and formatting characters are escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def plain_lines(text: str) -> str:
    """As :func:`plain`, line by line: the ends of lines stay."""
    return "\n".join(map(plain, text.split("\n")))


def shortened(text: str, longest: int) -> str:
    """Text of at most so many characters; a longer one ends with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def short(value: object) -> str:
    """A value among others: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
