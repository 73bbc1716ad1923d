"""HTML for notebooks: its parts, and all of its escaping.

Text of jobs becomes part of a page by way of :func:`escaped` alone, which also bounds it. Styles
stand in the elements, as a notebook keeps no style sheet of an output. Colours of text and ground
are the theme's own; the few others are middle tones, to be told apart on light and on dark.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hpcml.states import State
from hpcml.texts import plain, shortened

LONGEST = 200  # characters of a text
LONGEST_PAGE = 20_000  # characters of what is folded away
FEW = 8  # things of a kind that are named
LINE = "#8886"  # grey, half transparent
GOOD, BAD, GOING, WAITING = (
    "#009e73",
    "#d55e00",
    "#2f8fd0",
    "#888",
)  # the first two are Okabe and Ito's
COLOURS = {State.COMPLETED: GOOD, State.RUNNING: GOING}
CELL = "padding:1px 10px 1px 0;vertical-align:top;text-align:"

T = TypeVar("T")


class Html(str):
    """HTML. Any other text is escaped when it becomes part of some."""


def escaped(text: str, longest: int = LONGEST) -> Html:
    """Text of a job, bounded; what a terminal would obey is written as an escape."""
    return text if isinstance(text, Html) else Html(html.escape(plain(shortened(text, longest))))


def element(tag: str, *parts: str, style: str = "") -> Html:
    """An element of these parts."""
    attribute = f' style="{style}"' if style else ""
    return Html(f"<{tag}{attribute}>{''.join(map(escaped, parts))}</{tag}>")


def joined(separator: str, parts: Iterable[str]) -> Html:
    """Parts one after the other."""
    return Html(separator.join(map(escaped, parts)))


def few(parts: Sequence[str], separator: str = ", ") -> Html:
    """The first of them, and how many there are besides."""
    more = [f"… and {len(parts) - FEW} more"] if len(parts) > FEW else []
    return joined(separator, [*parts[:FEW], *more])


def known(find: Callable[[], T]) -> T | None:
    """What can be found out; else ``None``. A page is shown whatever is wrong with its subject."""
    try:
        return find()
    except Exception:
        return None


def state(one: State, count: int | None = None) -> Html:
    """A state, with a dot in its colour, and how many are in it."""
    colour = COLOURS.get(one, BAD if one.final else WAITING)
    dot = element("span", "●", style=f"color:{colour}")
    return Html(f"{dot}&nbsp;{one if count is None else f'{count}&nbsp;{one}'}")


def note(text: str) -> Html:
    """A line in small print."""
    return element("div", text, style="font-size:85%;opacity:.75;padding-top:3px")


def table(header: Sequence[str], lines: Iterable[Sequence[str]], *, numbers: bool = False) -> Html:
    """A table; ``numbers`` go to the right in all columns but the first."""

    def cells(tag: str, texts: Sequence[str]) -> Html:
        aligned = ("right" if numbers and place else "left" for place in range(len(texts)))
        found = zip(texts, aligned, strict=True)
        return joined("", (element(tag, text, style=f"{CELL}{side}") for text, side in found))

    rows = joined("", (element("tr", cells("td", line)) for line in lines))
    style = f"border-bottom:1px solid {LINE}"
    head = element("thead", element("tr", cells("th", header), style=style)) if header else ""
    return element("table", head, element("tbody", rows), style="border-collapse:collapse;margin:0")


def card(title: str, *parts: str) -> Html:
    """A thing with a title, and what is to be said of it."""
    head = element("div", title, style="padding-bottom:3px")
    style = f"border-left:3px solid {LINE};padding:2px 0 2px 10px;overflow-x:auto"
    return element("div", head, *parts, style=style)


def facts(rows: Iterable[tuple[str, str]]) -> Html:
    """Names and what is known; what is empty is left out."""
    shown = [(element("span", name, style="opacity:.75"), text) for name, text in rows if text]
    return table((), shown)


def fold(summary: str, text: str) -> Html:
    """Lines that are shown when somebody asks for them."""
    lines = shortened(text, LONGEST_PAGE).splitlines()
    page = joined("\n", (escaped(line, LONGEST_PAGE) for line in lines))
    style = "margin:2px 0;white-space:pre;overflow-x:auto"
    return element("details", element("summary", summary), element("pre", page, style=style))
