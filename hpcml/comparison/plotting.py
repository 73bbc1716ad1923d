"""The plots of a comparison. Nothing is drawn that was not measured."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from hpcml import records
from hpcml.comparison.figures import Column
from hpcml.comparison.marks import COVERED
from hpcml.comparison.median import Summary, number_of, ranks, summarise
from hpcml.comparison.showing import number
from hpcml.errors import ArgumentError, HpcmlError, nearest
from hpcml.records.schema import key_of_value
from hpcml.text import plain

if TYPE_CHECKING:
    from hpcml.comparison.table import Point, Row, Table

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"),
)
MARKERS = "osD^vPX*"
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name with a $ is no formula
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
SIZE = (6.0, 3.8)  # inches
ENDINGS = (".pdf", ".png", ".svg")
RESOURCES = ("cpus", "devices", "nodes")
COMMAND = Column("command")
PANELS = 4  # metrics in one plot of histories
LONGEST = 40  # characters of a name in a plot
NAMED = 16  # rows in a legend, or below bars
NOT_WRITTEN = "The agents did not write of the end of the commands."
SCALES = ((1e6, "MJ"), (1e3, "kJ"), (0.0, "J"))
BARS = 60  # rows that can be told apart as bars


class Plot(Figure):
    """A figure that notebooks show by itself."""

    def _repr_svg_(self) -> str:
        file = io.StringIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


def draw(
    table: Table, kind: str, path: str | Path | None, over: str | None, metric: str | None
) -> Figure:
    """Draw, and write if there is a path; see :meth:`hpcml.comparison.Table.plot`."""
    if path is not None and Path(path).suffix not in ENDINGS:
        problem = f"plots are not written as {Path(path).name!r}"
        raise ArgumentError(problem, f"Names end with {', '.join(ENDINGS)}.")
    if not any(row.n for row in table.rows):
        raise ArgumentError("no run is COMPLETED, so there is nothing to draw", "Look at them.")
    kinds: Mapping[str, Callable[[Figure], None]] = {
        "energy": lambda figure: _energy(table, figure),
        "history": lambda figure: _history(table, figure, metric),
        "phases": lambda figure: _phases(table, figure),
        "scaling": lambda figure: _scaling(table, figure, over),
    }
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=SIZE)
        kinds[kind](figure)
        if path is not None:
            _save(figure, Path(path))
    return figure


def _save(figure: Figure, path: Path) -> None:
    date = {".pdf": "CreationDate", ".svg": "Date"}.get(path.suffix)
    try:
        figure.savefig(path, dpi=300, metadata={date: None} if date else {})
    except OSError as error:
        problem = f"{path} cannot be written: {error.strerror}"
        raise HpcmlError(problem, "Name a file in a folder that is yours.") from error


# --- energy over time -------------------------------------------------------------------------


def _energy(table: Table, figure: Figure) -> None:
    scope = _scope(table)
    column = Column("energy", scope)
    rows = [row for row in table.rows if {column, COMMAND} <= row.figures.keys()]
    rows = [row for row in rows if None not in (row.figures[column].median, _time(row))]
    if not rows:
        raise ArgumentError("no run has both an energy and a time", NOT_WRITTEN)
    highest = max(one.high or one.median or 0.0 for one in (row.figures[column] for row in rows))
    factor, unit = next((f or 1.0, u) for f, u in SCALES if highest >= f)
    axes = figure.add_subplot()
    for row in rows:
        place = table.rows.index(row)
        look: dict[str, Any] = {"color": _colour(place), "marker": MARKERS[place // 8 % 8]}
        for point in table.points:
            if point.row == place and point.counted and {column, COMMAND} <= point.figures.keys():
                axes.errorbar(
                    point.figures[COMMAND],
                    point.figures[column] / factor,
                    yerr=point.figures.get(Column("uncertainty", scope), 0.0) / factor,
                    alpha=0.35,
                    markersize=3,
                    linestyle="none",
                    **look,
                )
        time, energy = row.figures[COMMAND], row.figures[column]
        axes.errorbar(
            time.median,
            (energy.median or 0.0) / factor,
            xerr=_whiskers(time),
            yerr=_whiskers(energy, factor),
            markersize=7,
            linestyle="none",
            capsize=3,
            label=f"{_name(row.label)} (n={energy.n})",
            **look,
        )
    front = _front([(_time(row) or 0.0, row.figures[column].median or 0.0) for row in rows])
    xs, ys = [x for x, _ in front], [y / factor for _, y in front]
    axes.step(xs, ys, where="post", color="#777777", linestyle="--", zorder=0, label="Pareto front")
    axes.set_xlabel("time of the command (s)")
    axes.set_ylabel(f"energy, {plain(scope)} ({unit})")
    out = sum(row.n for row in table.rows) - sum(row.figures[column].n for row in rows)
    notes = [
        "medians; small: each run, with its uncertainty",
        *_whisker_note(_levels(rows, column)),
    ]
    coverage = Column("coverage", scope)
    least = min((p.figures[coverage] for p in table.points if coverage in p.figures), default=1.0)
    if least < COVERED:
        notes.append(f"measured for {least:.0%} of the time at worst")
    if out:
        notes.append(f"{out} runs without energy of this scope are left out")
    _finish(axes, notes, len(rows))


def _scope(table: Table) -> str:
    """The scope that most runs have."""
    counted = [point for point in table.points if point.counted]
    scopes = Counter(c.name for point in counted for c in point.figures if c.kind == "energy")
    if not scopes:
        told = [point.record.energy for point in counted]
        why = Counter(one.why if one else "nothing is on record" for one in told)
        said = "; ".join(plain(reason) for reason in why)
        raise ArgumentError(f"no run has an energy: {said}", "docs/energy.md says what it takes.")
    return scopes.most_common(1)[0][0]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats in both."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best


# --- phases -----------------------------------------------------------------------------------


def _phases(table: Table, figure: Figure) -> None:
    rows = [row for row in table.rows if _time(row) is not None]
    if not rows:
        raise ArgumentError("no run's time is known", NOT_WRITTEN)
    if len(rows) > BARS:
        raise ArgumentError(
            f"{len(rows)} bars cannot be told apart", "Group the runs by parameters: by=..."
        )
    shown = [_middle(table, row) for row in rows]
    parts = [_parts(point) for point in shown]
    names = list(dict.fromkeys(name for part in parts for name in part))
    axes = figure.add_subplot()
    below = [0.0] * len(rows)
    for place, name in enumerate(names):
        seconds = [part.get(name, 0.0) for part in parts]
        hatch = ("", "///", "...")[place // 8 % 3]
        axes.bar(
            range(len(rows)),
            seconds,
            bottom=below,
            width=0.7,
            color=_colour(place),
            edgecolor="white",
            hatch=hatch,
            label=_name(name),
        )
        below = [sum(pair) for pair in zip(below, seconds, strict=True)]
    for place, (row, point) in enumerate(zip(rows, shown, strict=True)):
        setup = point.figures.get(Column("setup"), 0.0)
        time = row.figures[COMMAND]
        whisker = _whiskers(time)
        if whisker is not None:
            top = (time.median or 0.0) + setup
            axes.errorbar(place, top, yerr=whisker, color="black", capsize=3, linestyle="none")
    axes.set_xticks(range(len(rows)), [f"{_name(row.label)}\nn={row.n}" for row in rows])
    if len(rows) > 4:
        axes.tick_params(axis="x", rotation=60)
    axes.set_ylabel("time (s)")
    notes = [
        "of the run whose command took the median time",
        *_whisker_note(_levels(rows, COMMAND)),
    ]
    _finish(axes, notes, len(names))


def _middle(table: Table, row: Row) -> Point:
    """The run of a row that took the median time; of two in the middle the faster one."""
    place = table.rows.index(row)
    timed = [one for one in table.points if one.row == place and one.counted]
    timed = sorted((one for one in timed if COMMAND in one.figures), key=_seconds)
    return timed[(len(timed) - 1) // 2]


def _seconds(point: Point) -> float:
    return float(point.figures[COMMAND])


def _parts(point: Point) -> dict[str, float]:
    """Where the time of a run went: nothing counts twice."""
    phases = sorted(point.record.phases.items(), key=lambda item: (item[1].began or 0.0, item[0]))
    own = {name: phase.own for name, phase in phases if phase.own is not None}
    setup = {"(setup)": point.figures[Column("setup")]} if Column("setup") in point.figures else {}
    rest = max(0.0, _seconds(point) - sum(own.values()))
    return {**setup, **own, "(no phase)": rest}


# --- scaling ----------------------------------------------------------------------------------


def _scaling(table: Table, figure: Figure, over: str | None) -> None:
    over = _resource(table, over)
    lines: dict[str, dict[int, list[float]]] = {}
    labels: dict[str, str] = {}
    for point in table.points:
        told = point.aspects[over]
        if point.counted and point.figures.get(COMMAND) and (told or "").isdecimal():
            params = _series(table, point)
            labels.setdefault(params, table.rows[point.row].label)
            lines.setdefault(params, {}).setdefault(int(told or 0), []).append(_seconds(point))
    counts = sorted({count for series in lines.values() for count in series})
    axes = figure.add_subplot()
    ideal = [(count, count / counts[0]) for count in counts]
    axes.plot(*zip(*ideal, strict=True), color="#777777", linestyle="--", label="ideal")
    notes = []
    for place, (params, series) in enumerate(lines.items()):
        found = {count: summarise(series[count]) for count in sorted(series)}
        first, base = next((count, one) for count, one in found.items())
        base_time = base.median or 0.0
        shape = first / counts[0]  # a line that begins later begins on the ideal one
        ups = [shape * base_time / (one.median or 1.0) for one in found.values()]
        whiskers = [_speed_whiskers(shape * base_time, one) for one in found.values()]
        runs = ", ".join(str(one.n) for one in found.values())
        name = f"{_name(labels[params])} (n={runs})" if len(lines) > 1 else f"runs (n={runs})"
        look: dict[str, Any] = {"color": _colour(place), "marker": MARKERS[place % 8], "capsize": 3}
        axes.errorbar(list(found), ups, yerr=list(zip(*whiskers, strict=True)), label=name, **look)
        if place < PANELS:
            which = f"{_name(labels[params])}: " if len(lines) > 1 else ""
            notes.append(f"{which}base {first} {over}, {number(base_time)} s (n={base.n})")
    axes.set_xlabel(over)
    axes.set_ylabel("speed-up of the command (base time / time)")
    axes.set_xticks(counts)
    levels = [ranks(len(times))[1] for one in lines.values() for times in one.values()]
    _finish(axes, [*notes, *_whisker_note(levels)], len(lines))


def _series(table: Table, point: Point) -> str:
    """Which line a run is on: what its row goes by."""
    group = table.rows[point.row].group
    return ",".join(f"{name}={key_of_value(value)}" for name, value in group.items())


def _resource(table: Table, over: str | None) -> str:
    """In which resource the runs differ."""
    if over is not None and over not in RESOURCES:
        raise ArgumentError(f"there is no scaling over {over!r}", nearest(over, RESOURCES))
    counted = [point for point in table.points if point.counted and COMMAND in point.figures]
    values = {name: {one.aspects[name] for one in counted} - {None} for name in RESOURCES}
    differing = [name for name in RESOURCES if len(values[name]) > 1]
    if over is None and len(differing) > 1:
        problem = f"the runs differ in {' and '.join(differing)}"
        raise ArgumentError(problem, f"Say which one: over={differing[0]!r}.")
    if over not in (None, *differing) or not differing:
        problem = f"all runs have the same {over or ', '.join(RESOURCES)}, as far as is known"
        raise ArgumentError(problem, "Scaling needs runs that differ there.")
    return over or differing[0]


def _speed_whiskers(base: float, one: Summary) -> tuple[float, float]:
    """Down and up, from the interval of the time; none: no length."""
    if one.low is None or one.high is None or not one.median or not one.low:
        return 0.0, 0.0
    return base / one.median - base / one.high, base / one.low - base / one.median


# --- histories --------------------------------------------------------------------------------


def _history(table: Table, figure: Figure, metric: str | None) -> None:
    counted = [point for point in table.points if point.counted]
    names = Counter(
        name for point in counted for name, one in point.record.metrics.items() if one.points > 1
    )
    if metric is not None and metric not in names:
        problem = f"no run has logged {metric!r} more than once"
        raise ArgumentError(problem, nearest(metric, names))
    if not names:
        raise ArgumentError("no run has logged a metric more than once", "hpcml.log() does.")
    chosen = [metric] if metric is not None else [name for name, _ in names.most_common(PANELS)]
    all_axes = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
    figure.set_size_inches(SIZE[0], max(SIZE[1], 2.4 * len(chosen)))
    for axes, name in zip(all_axes, chosen, strict=True):
        _curves(table, axes, name, [one for one in counted if name in one.record.metrics])
        axes.set_ylabel(_name(name))
    left = [f"{len(names) - len(chosen)} more metrics"] if len(names) > len(chosen) else []
    _finish(all_axes[-1], ["a line a run", *(left if metric is None else [])], len(table.rows))


def _curves(table: Table, axes: Any, metric: str, points: Sequence[Point]) -> None:
    histories = [(point, records.history(point.id, metric)) for point in points]
    by_step = all(one.step is not None for _, history in histories for one in history)
    named: set[int] = set()
    for point, history in histories:
        numbers = [number_of(one.value) for one in history]
        ys = [float("nan") if y is None else y for y in numbers]  # a gap in the line
        xs = [one.step if by_step else one.time - history[0].time for one in history]
        label = None if point.row in named else _row_label(table.rows[point.row])
        named.add(point.row)
        style = ("-", "--", ":", "-.")[point.row // 8 % 4]
        axes.plot(xs, ys, style, color=_colour(point.row), linewidth=1, alpha=0.8, label=label)
    axes.set_xlabel("step" if by_step else "time since its first value (s)")


# --- all of them ------------------------------------------------------------------------------


def _row_label(row: Row) -> str:
    return f"{_name(row.label)} (n={row.n})"


def _time(row: Row) -> float | None:
    return row.figures[COMMAND].median if COMMAND in row.figures else None


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _whiskers(one: Summary, factor: float = 1.0) -> list[list[float]] | None:
    if one.low is None or one.high is None or one.median is None:
        return None
    return [[(one.median - one.low) / factor], [(one.high - one.median) / factor]]


def _levels(rows: Sequence[Row], column: Column) -> list[float | None]:
    return [row.figures[column].level for row in rows if column in row.figures]


def _whisker_note(levels: Iterable[float | None]) -> Iterator[str]:
    known = [level for level in levels if level]
    if known:
        yield f"whiskers: interval of the median, confidence {min(known):.1%} or more"


def _name(text: str) -> str:
    """A name as plots show it."""
    text = re.sub(r"^_", "\u200a_", plain(text))  # matplotlib keeps names with _ to itself
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _finish(axes: Any, notes: Sequence[str], rows: int) -> None:
    """Say what is what."""
    if rows <= NAMED:
        axes.figure.legend(loc="outside right upper", fontsize="small")
    axes.figure.supxlabel("; ".join(notes), fontsize="x-small", color="#555555", wrap=True)
