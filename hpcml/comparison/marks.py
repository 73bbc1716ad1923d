"""What to know before believing a comparison, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcml.comparison.figures import COVERED, scope_of
from hpcml.comparison.median import LONGEST
from hpcml.records.gathering import READINGS
from hpcml.records.schema import key_of_value
from hpcml.texts import shortened

if TYPE_CHECKING:
    from hpcml.comparison.table import Point, Row

FEW = 4  # of many that are named


def marks_of(
    rows: Sequence[Row], points: Sequence[Point], by: Sequence[str] | None
) -> Iterator[str]:
    """All marks of a comparison."""
    counted = [point for point in points if point.counted]
    yield from _left_out(points, counted)
    yield from _aspects(rows, counted)
    if by is not None:
        yield from _parameters(rows, counted, by)
    yield from _values(rows)
    yield from _intervals(rows)
    yield from _energy(counted)


def _left_out(points: Sequence[Point], counted: Sequence[Point]) -> Iterator[str]:
    out = Counter(point.state for point in points if not point.counted)
    if out:
        states = ", ".join(f"{count} {state}" for state, count in sorted(out.items()))
        yield f"{_of(len(points) - len(counted), len(points))} left out of all figures: {states}"
    unread = sum(point.record.unread is not None for point in counted)
    if unread:
        yield f"{_of(unread, len(counted))} told something that cannot be read, and is passed over"
    lost = [point.record.events_lost for point in counted if point.record.events_lost]
    if lost:
        some = f"{sum(lost)} events or more of {_of(len(lost), len(counted))}"
        yield f"{some} could not be written: phases, samples/s, metrics, first step are left out"
    yield from _not_ended(counted)
    young = Counter(p.record.awaited or READINGS for p in counted if not p.record.final)
    for awaited, count in young.items():
        yield f"{_of(count, len(counted))} {awaited}"
    odd = sum(bool(point.record.disagreements) for point in counted)
    if odd:
        some = _of(odd, len(counted))
        yield f"the site's accounting disagrees with {some}: `hpcml show` says in what"


def _not_ended(counted: Sequence[Point]) -> Iterator[str]:
    """Phases that the job's end, or a new attempt, cut off."""
    names = Counter(
        name for p in counted for name, phase in p.record.phases.items() if phase.unfinished
    )
    if names:
        listed = _few([f"{name} ({count})" for name, count in names.items()])
        yield f"phases that did not end are left out: {listed} in {_all(len(counted))}"


# --- what they should have in common ----------------------------------------------------------


def _aspects(rows: Sequence[Row], counted: Sequence[Point]) -> Iterator[str]:
    names = dict.fromkeys(name for point in counted for name in point.aspects)
    unknown = {name: sum(point.aspects[name] is None for point in counted) for name in names}
    for name in names:
        yield from _differing(name, [(row.label, row.aspects.get(name, ())) for row in rows])
    for name in names:
        if 0 < unknown[name] < len(counted):
            yield f"{name} is not known of {_of(unknown[name], len(counted))}"
    never = [name for name in names if unknown[name] == len(counted)]
    if never:
        yield f"not known of any run: {', '.join(never)}"


def _differing(name: str, told: Sequence[tuple[str, Sequence[str | None]]]) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for label, values in told:
        for value in values:
            if value is not None:
                rows.setdefault(value, []).append(label)
    if len(rows) < 2:
        return
    listed = [f"{shortened(value, LONGEST)} ({_few(labels)})" for value, labels in rows.items()]
    mixed = any(len(values) > 1 for _, values in told)
    yield f"{name} differs{', within rows as well' if mixed else ''}: {_few(listed, '; ')}"


def _parameters(rows: Sequence[Row], counted: Sequence[Point], by: Sequence[str]) -> Iterator[str]:
    """Parameters that the rows do not go by, and that are not the same everywhere."""
    names = dict.fromkeys(name for point in counted for name in point.record.params)
    between, within = [], []
    for name in names:
        if name in by:
            continue
        values: dict[int, set[str | None]] = {}
        for point in counted:
            values.setdefault(point.row, set()).add(_param(point, name))
        if len({frozenset(those) for those in values.values()}) > 1:
            between.append(name)
        elif any(len(those) > 1 for those in values.values()):
            within.append(name)
    if between:
        yield f"rows differ in more than {', '.join(by)}: {', '.join(between)}"
    if within:
        yield f"within rows, runs differ in: {', '.join(within)}"


def _param(point: Point, name: str) -> str | None:
    params: Mapping[str, Any] = point.record.params
    return key_of_value(params[name]) if name in params else None


# --- figures ----------------------------------------------------------------------------------


def _values(rows: Sequence[Row]) -> Iterator[str]:
    odd: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for row in rows:
        for column, figure in row.figures.items():
            if column.kind != "metric":
                continue
            total[column.name] += figure.n
            if figure.others:
                odd.setdefault(column.name, Counter()).update(figure.others)
    for name, others in odd.items():
        values = _few([f"{shortened(value, LONGEST)} ({n})" for value, n in others.items()])
        yield f"{name} is no finite double in {_of(others.total(), total[name])}: {values}"


def _intervals(rows: Sequence[Row]) -> Iterator[str]:
    repeated = [row for row in rows if row.n > 1]
    short = [row.label for row in repeated if all(one.low is None for one in row.figures.values())]
    if short:
        yield f"too few runs for a confidence interval (6) in: {_few(short)}"
    if rows and not repeated:
        yield "no row has repeats: how much its figures vary is not known"


def _energy(counted: Sequence[Point]) -> Iterator[str]:
    known = [point.record.energy for point in counted if point.record.energy is not None]
    measured = [energy for energy in known if energy.joules is not None]
    missing = len(counted) - len(measured)
    if missing:
        reasons = Counter(energy.why for energy in known if energy.joules is None)
        if missing > reasons.total():
            reasons["nothing is on record"] = missing - reasons.total()
        yield f"energy is not known of {_of(missing, len(counted))}: {_few(list(reasons), '; ')}"
    scopes = Counter(map(scope_of, measured))
    if len(scopes) > 1:
        listed = ", ".join(f"{scope} ({count})" for scope, count in scopes.items())
        yield f"energies of different scopes cannot be compared: {listed}"
    shared = sum(not energy.exclusive for energy in measured)
    if shared:
        yield f"energy of {_of(shared, len(counted))} is the whole machine's, which others may use"
    covered = [energy.coverage for energy in measured]
    below = [coverage for coverage in covered if coverage is not None and coverage < COVERED]
    if below:
        some = _of(len(below), len(counted))
        yield f"energy of {some} is of part of the time: {min(below):.0%} at worst"
    yield from _phases(counted)
    if None in covered:
        some = _of(covered.count(None), len(counted))
        yield f"of which part of its time the energy is, is not known of {some}"


def _phases(counted: Sequence[Point]) -> Iterator[str]:
    """Energies of phases that are of part of their time."""
    worst: dict[str, float] = {}
    for point in counted:
        for name, phase in point.record.phases.items():
            if phase.joules is not None and phase.seconds > 0:
                coverage = (phase.covered or 0.0) / phase.seconds
                worst[name] = min(coverage, worst.get(name, 1.0))
    below = [f"{name} ({least:.0%})" for name, least in worst.items() if least < COVERED]
    if below:
        yield f"energy of phases is of part of their time, at worst: {_few(below)}"


def _of(some: int, all_: int) -> str:
    return f"{some} of {_all(all_)}"


def _all(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def _few(items: Iterable[str], between: str = ", ") -> str:
    named = list(items)
    more = [f"{len(named) - FEW} more"] if len(named) > FEW else []
    return between.join([*named[:FEW], *more])
