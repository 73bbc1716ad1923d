"""The plots of a comparison. Nothing is drawn that was not measured."""

from __future__ import annotations

import io
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from hpcml import records
from hpcml.comparison.figures import COVERED, Column
from hpcml.comparison.median import Summary, number_of, ranks, summarise
from hpcml.comparison.showing import number
from hpcml.comparison.table import not_written
from hpcml.errors import ArgumentError, nearest
from hpcml.records.schema import key_of_value
from hpcml.texts import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hpcml.comparison.table import Point, Row, Table

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"),
)
# What tells colours apart where there are none.
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
GREY, TEXT = "#777777", "#555555"
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name with a $ is no formula
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.constrained_layout.use": True,
}
WIDTH = 8.5 / 2.54  # inches: a column of a paper, so that text is as large there as it is here
HEIGHT = 2.2  # of the axes, about
LINE = 0.16  # of a line of a legend, or of notes
BAR = 0.22  # of a bar
PANEL = 1.5  # of one metric's histories
ENDINGS = (".pdf", ".png", ".svg")
RESOURCES = ("cpus", "devices", "nodes")
COMMAND = Column("command")
PANELS = 4  # metrics in one plot of histories
LONGEST = 40  # characters of a name in a plot
SHORT = 18  # of names that fit beside each other
NOTE = 72  # characters of a line of notes
NAMED = 16  # rows in a legend; more are drawn alike
TICKS = 10  # counts that have room on an axis
DOUBLINGS = 8  # from so many times as much on, scaling is drawn by doublings
NOT_WRITTEN = "The agents did not write of the end of the commands."
SCALES = ((1e6, "MJ"), (1e3, "kJ"), (0.0, "J"))
NAN = float("nan")
UNKNOWN = "(not known)"  # where time went
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
        figure = Plot(figsize=(WIDTH, HEIGHT))
        kinds[kind](figure)
        if path is not None:
            _save(figure, Path(path))
    return figure


def _save(figure: Figure, path: Path) -> None:
    date = {".pdf": "CreationDate", ".svg": "Date"}.get(path.suffix)
    try:
        figure.savefig(path, dpi=300, metadata={date: None} if date else {})
    except OSError as error:
        raise not_written(path, error) from error


# --- energy over time -------------------------------------------------------------------------


def _energy(table: Table, figure: Figure) -> None:
    scope = _scope(table)
    column = Column("energy", scope)
    rows = {
        place: row
        for place, row in enumerate(table.rows)
        if column in row.figures and None not in (row.figures[column].median, _time(row))
    }
    if not rows:
        raise ArgumentError("no run has both an energy and a time", NOT_WRITTEN)
    energies = [row.figures[column] for row in rows.values()]
    highest = max(one.high or one.median or 0.0 for one in energies)
    factor, unit = next((f or 1.0, u) for f, u in SCALES if highest >= f)
    axes = figure.add_subplot()
    runs = _runs(table, rows, {column, COMMAND})
    if len(rows) <= NAMED:
        for place, row in rows.items():
            _cloud(axes, runs[place], scope, factor, **_look(place))
            _medians(axes, [row], column, factor, _counted_label(row), **_look(place))
    else:
        _cloud(axes, [one for those in runs.values() for one in those], scope, factor, **_look(0))
        _medians(axes, [*rows.values()], column, factor, "rows", **_look(0))
    places = [(_time(row) or 0.0, row.figures[column].median or 0.0) for row in rows.values()]
    xs, ys = zip(*_front(places), strict=True)
    ys = tuple(y / factor for y in ys)
    look: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1, "zorder": 0}
    axes.step(xs, ys, where="post", label="Pareto front", **look)
    axes.set_xlabel("time of the command (s)")
    axes.set_ylabel(f"energy, {plain(scope)} ({unit})")
    out = sum(row.n for row in table.rows) - sum(one.n for one in energies)
    notes = [
        "medians; small: each run, with its uncertainty",
        *_whisker_note([one.level for one in energies]),
    ]
    coverage = Column("coverage", scope)
    least = min((p.figures[coverage] for p in table.points if coverage in p.figures), default=1.0)
    if least < COVERED:
        notes.append(f"measured for {least:.0%} of the time at worst")
    if out:
        notes.append(f"{out} runs without energy of this scope are left out")
    _finish(figure, axes, notes)


def _cloud(
    axes: Axes, points: Sequence[Point], scope: str, factor: float, *, color: str, marker: str
) -> None:
    """Each run, with its uncertainty."""
    column, uncertainty = Column("energy", scope), Column("uncertainty", scope)
    axes.errorbar(
        [point.figures[COMMAND] for point in points],
        [point.figures[column] / factor for point in points],
        yerr=[point.figures.get(uncertainty, 0.0) / factor for point in points],
        color=color,
        marker=marker,
        markersize=2.5,
        linestyle="none",
        linewidth=0.6,
        alpha=0.4,
        zorder=1,
    )


def _medians(
    axes: Axes,
    rows: Sequence[Row],
    column: Column,
    factor: float,
    label: str,
    *,
    color: str,
    marker: str,
) -> None:
    """The medians of rows, with the intervals of those that have one."""
    for row in rows:
        time, energy = row.figures[COMMAND], row.figures[column]
        across, up = _whiskers(time), _whiskers(energy, factor)
        if across or up:
            middle = time.median, (energy.median or 0.0) / factor
            axes.errorbar(
                *middle, xerr=across, yerr=up, ecolor=color, fmt="none", capsize=2, linewidth=0.8
            )
    axes.plot(
        [_time(row) for row in rows],
        [(row.figures[column].median or 0.0) / factor for row in rows],
        color=color,
        marker=marker,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        linestyle="none",
        label=label,
        zorder=3,
    )


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
    rows = {place: row for place, row in enumerate(table.rows) if _time(row) is not None}
    if not rows:
        raise ArgumentError("no run's time is known", NOT_WRITTEN)
    if len(rows) > BARS:
        raise ArgumentError(
            f"{len(rows)} bars cannot be told apart", "Group the runs by parameters: by=..."
        )
    runs = _runs(table, rows, {COMMAND})
    shown = [_middle(runs[place]) for place in rows]
    parts = _nameable([_parts(point) for point in shown])
    figure.set_size_inches(WIDTH, max(HEIGHT, 1 + BAR * len(rows)))
    axes = figure.add_subplot()
    left = [0.0] * len(rows)
    for place, name in enumerate(dict.fromkeys(name for part in parts for name in part)):
        seconds = [part.get(name, 0.0) for part in parts]
        axes.barh(
            range(len(rows)),
            seconds,
            left=left,
            height=0.7,
            color=_colour(place),
            edgecolor="white",
            linewidth=0.5,
            hatch=HATCHES[(place + place // 8) % 8],
            label=_name(name),
        )
        left = [sum(pair) for pair in zip(left, seconds, strict=True)]
    for place, (row, point) in enumerate(zip(rows.values(), shown, strict=True)):
        across = _whiskers(row.figures[COMMAND])
        if across is not None:
            end = (_time(row) or 0.0) + point.figures.get(Column("setup"), 0.0)
            look: dict[str, Any] = {"ecolor": "black", "capsize": 2, "linewidth": 0.8}
            axes.errorbar(end, place, xerr=across, fmt="none", **look)
    axes.set_yticks(range(len(rows)), [_counted_label(row) for row in rows.values()])
    axes.invert_yaxis()
    axes.set_xlabel("time (s)")
    levels = [row.figures[COMMAND].level for row in rows.values()]
    _finish(figure, axes, ["of the run whose command took the median time", *_whisker_note(levels)])


def _nameable(parts: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Parts with no more names than a legend has room for: the shortest phases as one."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    if len(total) <= NAMED:
        return [*parts]
    kept = {name for name, _ in total.most_common(NAMED - 1)}
    others = f"({len(total) - len(kept)} others)"
    return [
        {name: seconds for name, seconds in part.items() if name in kept}
        | {others: sum(seconds for name, seconds in part.items() if name not in kept)}
        for part in parts
    ]


def _middle(points: Sequence[Point]) -> Point:
    """The run that took the median time; of two in the middle the faster one."""
    return sorted(points, key=_seconds)[(len(points) - 1) // 2]


def _seconds(point: Point) -> float:
    return float(point.figures[COMMAND])


def _parts(point: Point) -> dict[str, float]:
    """Where the time of a run went: nothing counts twice."""
    record, command = point.record, _seconds(point)
    setup = {"(setup)": point.figures[Column("setup")]} if Column("setup") in point.figures else {}
    if record.events_lost:
        return {**setup, UNKNOWN: command}
    phases = sorted(record.phases.items(), key=lambda item: (item[1].began or 0.0, item[0]))
    own: dict[str, float] = {}
    for name, phase in phases:
        name = UNKNOWN if phase.unfinished else name
        own[name] = own.get(name, 0.0) + (phase.own or 0.0)
    rest = max(0.0, command - sum(own.values()))
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
    axes.plot(*zip(*ideal, strict=True), color=GREY, linestyle="--", linewidth=1, label="ideal")
    notes = []
    for place, (params, series) in enumerate(lines.items()):
        found = {count: summarise(series[count]) for count in sorted(series)}
        first, base = next((count, one) for count, one in found.items())
        base_time = base.median or 0.0
        shape = first / counts[0]  # a line that begins later begins on the ideal one
        ups = [shape * base_time / (one.median or 1.0) for one in found.values()]
        whiskers = [_speed_whiskers(shape * base_time, one) for one in found.values()]
        name = _name(labels[params]) if len(lines) > 1 else "runs"
        look: dict[str, Any] = {**_look(place), "markersize": 4, "markeredgecolor": "white"}
        axes.errorbar(
            list(found),
            ups,
            yerr=list(zip(*whiskers, strict=True)),
            label=f"{name} ({_repeats([one.n for one in found.values()])})",
            markeredgewidth=0.5,
            linewidth=1,
            capsize=2,
            **look,
        )
        if place < PANELS:
            which = f"{_name(labels[params])}: " if len(lines) > 1 else ""
            notes.append(f"{which}base {first} {over}, {number(base_time)} s (n={base.n})")
    axes.set_xlabel(over)
    axes.set_ylabel("speed-up (base time / time)")
    if counts[-1] >= DOUBLINGS * counts[0]:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
    if len(counts) <= TICKS:
        axes.set_xticks(counts, labels=[str(count) for count in counts])
    levels = [ranks(len(times))[1] for one in lines.values() for times in one.values()]
    _finish(figure, axes, ["of the command", *notes, *_whisker_note(levels)])


def _repeats(counts: Sequence[int]) -> str:
    """How many runs each point of a line stands for."""
    if len(set(counts)) == 1:
        return f"n={counts[0]}"
    return f"n={min(counts)} to {max(counts)}"


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
    told = [(name, one) for point in counted for name, one in point.record.metrics.items()]
    several = Counter(name for name, one in told if one.points > 1)
    finite = {name for name, one in told if one.lowest is not None}
    names = Counter({name: count for name, count in several.items() if name in finite})
    if metric is not None and metric not in names:
        problem = f"no run has logged {metric!r} more than once"
        if metric in several:
            problem += ", with a finite value"
        raise ArgumentError(problem, nearest(metric, names))
    if not names:
        problem = "no run has logged a metric more than once, with a finite value"
        raise ArgumentError(problem, "hpcml.log() does.")
    chosen = [metric] if metric is not None else [name for name, _ in names.most_common(PANELS)]
    figure.set_size_inches(WIDTH, max(HEIGHT, PANEL * len(chosen)))
    all_axes: Any = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
    odd: set[str] = set()
    for axes, name in zip(all_axes, chosen, strict=True):
        odd |= _curves(table, axes, name, [one for one in counted if name in one.record.metrics])
        axes.set_ylabel(_name(name))
    notes = ["a line a run", *_missing(table, counted, odd)]
    if metric is None:
        notes += _not_drawn({name for name, _ in told}, several, names, chosen)
    _finish(figure, all_axes[-1], notes)


def _missing(table: Table, counted: Sequence[Point], odd: Collection[str]) -> Iterator[str]:
    """What lines do not show of runs."""
    if odd:
        yield f"{_some(len(odd))} values that are no finite doubles, next after a ×"
    lost = sum(point.record.events_lost > 0 for point in counted)
    if lost:
        yield f"{_some(lost)} points that could not be written"
    out = len(table.points) - len(counted)
    if out:
        yield f"{out} run{'s' * (out != 1)} left out: not COMPLETED"


def _some(count: int) -> str:
    return "1 run has" if count == 1 else f"{count} runs have"


def _not_drawn(
    all_: Collection[str], several: Collection[str], names: Collection[str], chosen: Sequence[str]
) -> Iterator[str]:
    """Metrics without a panel, and why."""
    for count, why in (
        (len(names) - len(chosen), ""),
        (len(several) - len(names), " without finite values"),
        (len(all_) - len(several), " logged once"),
    ):
        if count:
            yield f"not drawn: {count} metric{'s' * (count != 1)}{why}"


def _curves(table: Table, axes: Axes, metric: str, points: Sequence[Point]) -> set[str]:
    """A line a run, those of a row alike: all values, and gaps where they are no finite doubles.

    Returns the ids of runs that have such.
    """
    histories = records.histories([point.id for point in points], metric)
    by_step = all(one.step is not None for history in histories.values() for one in history)
    alike = len(table.rows) > NAMED
    rows: dict[int, list[Curve]] = {}
    odd = set()
    for point in points:
        history = histories.get(point.id, ())
        xs = ((one.step or 0.0) if by_step else one.time - history[0].time for one in history)
        numbers = [number_of(one.value) for one in history]
        ys = (NAN if number is None else number for number in numbers)
        rows.setdefault(0 if alike else point.row, []).append(list(zip(xs, ys, strict=True)))
        if None in numbers:
            odd.add(point.id)
    for place, curves in rows.items():
        label = None if alike else _counted_label(table.rows[place])
        style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.8, "color": _colour(place)}
        lifted = [
            curves[0],
            *([(NAN, NAN), *curve] for curve in curves[1:]),
        ]  # the pen, between two
        axes.plot(*_across(lifted), DASHES[place % 4], label=label, **style)
        # What no line shows: where one stops, and runs with one value.
        for marker, marked in (
            ("x", map(_stops, curves)),
            (".", (curve for curve in curves if len(curve) == 1)),
        ):
            axes.plot(*_across(marked), marker, markersize=4, **style)
    axes.set_xlabel("step" if by_step else "time since its first value (s)")
    return odd


Curve = list[tuple[float, float]]


def _stops(curve: Curve) -> Curve:
    """The finite values after which the next one is none."""
    return [one for one, other in pairwise(curve) if other[1] != other[1] and one[1] == one[1]]


def _across(curves: Iterable[Curve]) -> tuple[list[float], list[float]]:
    points = [point for curve in curves for point in curve]
    return [x for x, _ in points], [y for _, y in points]


# --- all of them ------------------------------------------------------------------------------


def _runs(table: Table, rows: Mapping[int, Row], columns: set[Column]) -> dict[int, list[Point]]:
    """The runs of each row that have all of some figures."""
    found: dict[int, list[Point]] = {place: [] for place in rows}
    for point in table.points:
        if point.counted and point.row in found and columns <= point.figures.keys():
            found[point.row].append(point)
    return found


def _counted_label(row: Row) -> str:
    return f"{_name(row.label)} (n={row.n})"


def _time(row: Row) -> float | None:
    return row.figures[COMMAND].median if COMMAND in row.figures else None


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _look(place: int) -> dict[str, str]:
    """Colour and marker of a row: no two of the first 64 have both in common."""
    return {"color": _colour(place), "marker": MARKERS[(place + place // 8) % 8]}


def _whiskers(one: Summary, factor: float = 1.0) -> list[list[float]] | None:
    if one.low is None or one.high is None or one.median is None:
        return None
    return [[(one.median - one.low) / factor], [(one.high - one.median) / factor]]


def _whisker_note(levels: Iterable[float | None]) -> Iterator[str]:
    known = [level for level in levels if level]
    if known:
        yield f"whiskers: interval of the median, confidence {min(known):.1%} or more"


def _name(text: str) -> str:
    """A name as plots show it."""
    text = re.sub(r"^_", "\u200a_", plain(text))  # matplotlib keeps names with _ to itself
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}…{text[1 - LONGEST // 2 :]}"  # names often differ at their end


def _finish(figure: Figure, axes: Axes, notes: Sequence[str]) -> None:
    """Say what is what, above and below; the figure grows by the lines that takes."""
    handles, labels = axes.get_legend_handles_labels()
    lines = 0
    if 0 < len(labels) <= NAMED + 1:
        columns = 2 if max(map(len, labels)) <= SHORT else 1
        lines += -(-len(labels) // columns)
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
    told = textwrap.wrap("; ".join(notes), NOTE)
    figure.supxlabel("\n".join(told), fontsize=6, color=TEXT)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + LINE * lines + 0.7 * LINE * len(told))
