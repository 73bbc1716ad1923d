"""A comparison on a terminal, in a notebook, in Markdown, CSV and JSON.

Names come from jobs, and may hold anything: what a terminal would obey is written as an escape,
and what HTML or Markdown would is escaped there.
"""

from __future__ import annotations

import csv
import html as html_
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcml import html as pages
from hpcml.comparison.figures import Column
from hpcml.comparison.median import LONGEST, Summary, number_of, text_of
from hpcml.texts import plain, shortened

if TYPE_CHECKING:
    from hpcml.comparison.table import Point, Row, Table

SCHEMA = 1
MISSING = "–"
UPRIGHT = 6  # more rows than that are shown as lines, fewer as columns
LINES = 60  # rows that are shown on a terminal
HTML_LINES, HTML_COLUMNS, HTML_MARKS = 200, 60, 100
LONGEST_MARK = 2000  # characters of it in HTML
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # and what is as wide as a Chinese character
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")


# --- for people -------------------------------------------------------------------------------


def grid(table: Table, count: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and cells as people read them, of the first rows."""
    header = ["", "runs", *table.differing, *(column.label for column in table.columns)]
    return [plain(one) for one in header], [_line(table, row) for row in table.rows[:count]]


def _line(table: Table, row: Row) -> list[str]:
    aspects = (_aspect(row.aspects.get(name, ())) for name in table.differing)
    figures = (_figure(column, row.figures.get(column), row.n) for column in table.columns)
    return [plain(cell) for cell in (row.label, _runs(row), *aspects, *figures)]


def _runs(row: Row) -> str:
    if not row.left_out:
        return str(row.n)
    others = {state: count for state, count in row.states.items() if state != "COMPLETED"}
    said = ", ".join(f"{count} {state}" for state, count in others.items())
    return f"{row.n} ({said} left out)"


def _aspect(values: Sequence[str | None]) -> str:
    told = ("?" if value is None else shortened(value, LONGEST) for value in values)
    return ", ".join(told) or MISSING


def _figure(column: Column, figure: Summary | None, runs: int) -> str:
    if figure is None:
        return MISSING
    factor, _ = column.shown
    if figure.others:
        others = [(shortened(value, LONGEST), count) for value, count in figure.others.items()]
        said = ", ".join(f"{count} × {value}" for value, count in others)
        text = others[0][0] if figure.n == 1 else f"no median: {said}"
    elif figure.low is None or figure.high is None or figure.median is None:
        text = number((figure.median or 0.0) / factor)
    else:
        middle, low, high = (one / factor for one in (figure.median, figure.low, figure.high))
        text = f"{number(middle)} [{number(low)}, {number(high)}]"
    return text if figure.n == runs else f"{text} (n={figure.n})"


def number(value: float) -> str:
    """A figure with four digits, or all of a whole number's."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def caption(table: Table) -> str:
    """What the figures are, and who measured the energy among them."""
    levels = {one.n: one.level for row in table.rows for one in row.figures.values() if one.level}
    reached = ", ".join(f"{level:.1%} for n={n}" for n, level in sorted(levels.items())[:4])
    more = ", …" if len(levels) > 4 else ""
    interval = f"; in brackets its confidence interval ({reached}{more})" if reached else ""
    meters = {point.record.energy.source for point in table.points if point.record.energy}
    metered = ", ".join(sorted(filter(None, meters)))
    energy = f"; energy by {metered}" if metered else ""
    return f"figures are the median of the completed runs{interval}{energy}"


def width() -> int | None:
    """Characters in a line of the terminal; ``None``: stdout is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def show(table: Table) -> None:
    """Print it to stdout."""
    from rich.console import Console
    from rich.text import Text

    across = width()
    if across is None:
        print(text(table))
        return
    console = Console(force_jupyter=False)
    for line, style in lines(table, across):
        console.print(Text(line, style), soft_wrap=True)


def text(table: Table) -> str:
    """As on a terminal, without colours."""
    return "\n".join(line for line, _ in lines(table, width()))


def lines(table: Table, across: int | None) -> Iterator[tuple[str, str]]:
    """Lines and their styles; the marks stand under the table.

    Parameters
    ----------
    table : Table
    across : int or None
        Characters that a line may have; ``None``: any number.
    """
    from hpcml.comparison.laying import wrapped  # rich is slow to load

    parts = _parts(table, across)
    for part in parts:
        yield from ((line, "") for line in part)
        if len(parts) > 1:
            yield "", ""
    for note in (*_hidden(table, LINES), caption(table)):
        yield from ((line, "") for line in wrapped(note, across))
    for mark in table.marks:
        for place, line in enumerate(wrapped(plain(mark), across and across - 2)):
            yield f"{'  ' if place else '! '}{line}", "yellow"


def _parts(table: Table, across: int | None) -> list[list[str]]:
    """Few rows stand side by side, if that fits; else rows stand below each other."""
    from hpcml.comparison.laying import SLIM, WIDE, in_parts

    header, rows = grid(table, LINES)
    if len(table.rows) <= UPRIGHT:
        for most in (WIDE, SLIM):
            upright = in_parts(*_turned(table, header, rows), across, most)
            if len(upright) == 1:
                return upright
    return in_parts(header, rows, across)


def _turned(
    table: Table, header: list[str], lines: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Header and lines; of few rows each is a column."""
    if len(table.rows) > UPRIGHT:
        return header, lines
    first, *rest = ([*cells] for cells in zip(header, *lines, strict=True))
    return first, rest


def _hidden(table: Table, count: int) -> Iterator[str]:
    if len(table.rows) > count:
        yield f"… and {len(table.rows) - count} more rows: to_csv() has all"


def html(table: Table) -> str:
    """A table for notebooks."""
    header, lines = grid(table, HTML_LINES)
    more = len(header) - HTML_COLUMNS
    lines = [line[:HTML_COLUMNS] for line in lines]
    header, lines = _turned(table, header[:HTML_COLUMNS], lines)
    notes = [*_hidden(table, HTML_LINES), caption(table)]
    if more > 0:
        notes.insert(0, f"… and {more} more figures: to_csv() has all")
    marks = [pages.escaped(f"! {mark}", LONGEST_MARK) for mark in table.marks[:HTML_MARKS]]
    if len(table.marks) > HTML_MARKS:
        notes.append(f"… and {len(table.marks) - HTML_MARKS} more marks than these: table.marks")
    return pages.element(
        "div",
        pages.table(header, lines, numbers=True),
        *map(pages.note, notes),
        *(pages.element("div", mark) for mark in marks),
        style="overflow-x:auto",
    )


def markdown(table: Table) -> str:
    """A table of GitHub's kind."""
    header, lines = grid(table)
    rule = ["---", *("---:" for _ in header[1:])]
    rows = [[_in_markdown(cell) for cell in line] for line in (header, *lines)]
    rows.insert(1, rule)
    marks = [f"* {_in_markdown(plain(mark))}" for mark in table.marks]
    written = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([written, "", caption(table), *(["", *marks] if marks else [])]) + "\n"


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", html_.escape(text, quote=False))


# --- for programs -----------------------------------------------------------------------------


def flat(table: Table) -> tuple[list[str], list[list[Any]]]:
    """Header and cells of one line a row; missing is ``None``."""
    params = list(dict.fromkeys(name for row in table.rows for name in row.group))
    aspects = list(dict.fromkeys(name for row in table.rows for name in row.aspects))
    odd = {key for row in table.rows for key, one in row.figures.items() if one.others}
    header = ["row", *(f"param:{name}" for name in params), "states", "n", "left_out"]
    header += [f"aspect:{name}" for name in aspects]
    for column in table.columns:
        header += [column.key, *(f"{column.key}:{part}" for part in ("low", "high", "level", "n"))]
        header += [f"{column.key}:others"] if column in odd else []
    marks = "; ".join(table.marks)
    lines = []
    for row in table.rows:
        line: list[Any] = [row.label, *(_scalar(row.group.get(name)) for name in params)]
        line += [" ".join(f"{key}={count}" for key, count in row.states.items())]
        line += [row.n, row.left_out, *(_told(row.aspects.get(name, ())) for name in aspects)]
        for column in table.columns:
            one = row.figures.get(column, Summary(0))
            line += [one.median, one.low, one.high, one.level, one.n]
            if column in odd:
                line.append(", ".join(f"{n} × {value}" for value, n in one.others.items()) or None)
        lines.append([*line, marks])
    return [*header, "marks"], lines


def _scalar(value: Any) -> Any:
    return json.dumps(_clean(value)) if isinstance(value, dict | list) else _clean(value)


def _told(values: Sequence[str | None]) -> str | None:
    return "; ".join(value or "?" for value in values) if set(values) - {None} else None


def csv_text(table: Table) -> str:
    """CSV (RFC 4180); missing is an empty cell."""
    header, lines = flat(table)
    file = io.StringIO()
    writer = csv.writer(file)
    for line in [header, *lines]:
        writer.writerow([_inert(cell) if isinstance(cell, str) else cell for cell in line])
    return file.getvalue()


def _inert(text: str) -> str:
    """Text that no spreadsheet runs as a formula; what is a number stays one."""
    text = plain(text)
    return f"'{text}" if text.startswith(FORMULA) and not _NUMBER.fullmatch(text) else text


def json_text(table: Table) -> str:
    """JSON in ASCII: see docs/compare.md."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "by": table.by,
            "columns": [_column(column) for column in table.columns],
            "rows": [_row(row) for row in table.rows],
            "points": [_point(point) for point in table.points],
            "marks": table.marks,
        },
        indent=1,
        allow_nan=False,
    )


def _column(column: Column) -> dict[str, str]:
    names = ("key", "kind", "name", "scope", "unit")
    return {name: getattr(column, name) for name in names}


def _row(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "group": _clean(row.group),
        "job_digests": row.job_digests,
        "states": row.states,
        "n": row.n,
        "left_out": row.left_out,
        "aspects": row.aspects,
        "figures": {column.key: vars(one) for column, one in row.figures.items()},
    }


def _point(point: Point) -> dict[str, Any]:
    record = point.record
    hosts = dict.fromkeys(one.host.get("host") for one in record.attempts)
    return {
        "id": point.id,
        "row": point.row,
        "state": point.state,
        "reason": record.reason,
        "counted": point.counted,
        "params": _clean(record.params),
        "hosts": [host for host in hosts if host is not None],
        "aspects": point.aspects,
        "figures": {column.key: _clean(value) for column, value in point.figures.items()},
        "no_energy": record.energy.why or None if record.energy else None,
    }


def _clean(value: Any) -> Any:
    """JSON without NaN, infinities and integers that Python would not write: they become text."""
    if isinstance(value, Mapping):
        return {str(key): _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    odd = isinstance(value, int | float) and not isinstance(value, bool)
    return text_of(value) if odd and number_of(value) is None else value
