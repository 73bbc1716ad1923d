"""Text in columns. What does not fit beside each other stands below it, in parts.

A figure is never broken: a cell has several lines only where there is a space, and an interval in
brackets stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells

GAP = 2  # columns of the terminal between two of the table
NARROWEST = 40  # a terminal with fewer wraps lines itself
WIDE, SLIM = 40, 24  # how wide a column may be; an interval fits into both
_PIECE = re.compile(r"\[[^\]]*\]|\S+")


@dataclass(frozen=True)
class _Column:
    """The lines of a column's cells, the header's first, and how wide they are."""

    cells: Sequence[Sequence[str]]
    width: int


def in_parts(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, most: int = WIDE
) -> list[list[str]]:
    """The lines of a table, in parts that are so wide at most; the first column is in each.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequence of str
    width : int or None
        Of the terminal, in characters; ``None``: there is no limit.
    most : int
        How wide any column may be, where there is a limit.
    """
    first, *rest = zip(header, *rows, strict=True)
    if width is None:
        return [_lines(_column(first, None), [_column(cells, None) for cells in rest])]
    width = max(width, NARROWEST)
    labels = _column(first, width // 3)
    room = max(width - labels.width, SLIM + GAP)
    parts: list[list[_Column]] = [[]]
    left = room
    for column in (_column(cells, min(room - GAP, most)) for cells in rest):
        if column.width + GAP > left:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= column.width + GAP
    return [_lines(labels, part) for part in parts]


def _column(cells: Sequence[str], most: int | None) -> _Column:
    """A column no wider than its cells need; its header may have several lines."""
    name, *rest = cells
    below = [wrapped(cell, most) for cell in rest]
    if most is None:
        head = [name]
    else:
        words = [cell_len(word) for word in name.split()]
        head = wrapped(name, min(most, max([*words, _width(below), 1])))
    return _Column([head, *below], max(_width([head]), _width(below)))


def _width(cells: Sequence[Sequence[str]]) -> int:
    return max((cell_len(line) for lines in cells for line in lines), default=0)


def _lines(labels: _Column, columns: Sequence[_Column]) -> list[str]:
    """Labels to the left, the rest to the right."""
    found = []
    for place, label in enumerate(labels.cells):
        cells = [column.cells[place] for column in columns]
        for line in range(max(map(len, [label, *cells]))):
            text = _line_of(label, line)
            text += " " * (labels.width - cell_len(text))
            for column, cell in zip(columns, cells, strict=True):
                here = _line_of(cell, line)
                text += " " * (GAP + column.width - cell_len(here)) + here
            found.append(text.rstrip())
    return found


def _line_of(cell: Sequence[str], place: int) -> str:
    return cell[place] if place < len(cell) else ""


def wrapped(text: str, most: int | None) -> list[str]:
    """Lines of at most so many characters, broken at spaces; a longer word is folded."""
    if most is None or cell_len(text) <= most:
        return [text]
    lines = [""]
    for piece in _pieces(text, most):
        longer = f"{lines[-1]} {piece}" if lines[-1] else piece
        if cell_len(longer) <= most:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines if lines[0] else lines[1:]


def _pieces(text: str, most: int) -> Iterator[str]:
    for piece in _PIECE.findall(text):
        words = [piece] if cell_len(piece) <= most else piece.split()
        for word in words:
            yield from [word] if cell_len(word) <= most else chop_cells(word, most)
