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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcml.comparison.figures import Column
from hpcml.comparison.median import Summary, number_of, text_of
from hpcml.text import plain

if TYPE_CHECKING:
    from rich.console import Group

    from hpcml.comparison.table import Point, Row, Table

SCHEMA = 1
MISSING = "–"
WIDTH = 120  # columns where there is no terminal
UPRIGHT = 6  # more rows than that are shown as lines, fewer as columns
LINES = 60  # rows that are shown on a terminal
HTML_LINES = 1000
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
    return ", ".join("?" if value is None else value for value in values) or MISSING


def _figure(column: Column, figure: Summary | None, runs: int) -> str:
    if figure is None:
        return MISSING
    factor, _ = column.shown
    if figure.others:
        said = ", ".join(f"{count} × {value}" for value, count in figure.others.items())
        text = next(iter(figure.others)) if figure.n == 1 else f"no median: {said}"
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
    """What the figures are."""
    levels = {one.n: one.level for row in table.rows for one in row.figures.values() if one.level}
    reached = ", ".join(f"{level:.1%} for n={n}" for n, level in sorted(levels.items())[:4])
    more = ", …" if len(levels) > 4 else ""
    interval = f"; in brackets its confidence interval ({reached}{more})" if reached else ""
    return f"figures are the median of the completed runs{interval}"


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def show(table: Table) -> None:
    """Print it to stdout."""
    from rich.console import Console

    Console(width=width()).print(rich_table(table))


def text(table: Table) -> str:
    """As on a terminal, without colours."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, width=width(), color_system=None, legacy_windows=False)
    console.print(rich_table(table))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def rich_table(table: Table) -> Group:
    """Few rows side by side, many below each other; the marks under them."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    header, lines = grid(table, LINES)
    if len(table.rows) <= UPRIGHT:
        header, *lines = [list(cells) for cells in zip(header, *lines, strict=True)]
    shown = RichTable(box=None, pad_edge=False)
    for place, name in enumerate(header):
        shown.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for cells in lines:
        shown.add_row(*(Text(cell) for cell in cells))
    notes = [(note, "") for note in (*_hidden(table, LINES), caption(table))]
    notes += [(f"! {plain(mark)}", "yellow") for mark in table.marks]
    lines_ = [Text(note, style, no_wrap=True, overflow="ignore") for note, style in notes]
    return Group(shown, *lines_)


def _hidden(table: Table, count: int) -> Iterator[str]:
    if len(table.rows) > count:
        yield f"… and {len(table.rows) - count} more rows: to_csv() has all"


def html(table: Table) -> str:
    """A table for notebooks."""

    def cells(tag: str, texts: Iterable[str]) -> str:
        return "".join(f"<{tag}>{html_.escape(one)}</{tag}>" for one in texts)

    header, lines = grid(table, HTML_LINES)
    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    notes = cells("p", (*_hidden(table, HTML_LINES), caption(table)))
    marks = cells("li", map(plain, table.marks))
    head = f"<thead><tr>{cells('th', header)}</tr></thead>"
    return f"<table>{head}<tbody>{body}</tbody></table>{notes}<ul>{marks}</ul>"


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
        writer.writerow([plain(cell) if isinstance(cell, str) else cell for cell in line])
    return file.getvalue()


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
    names = ("key", "kind", "name", "unit")
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
