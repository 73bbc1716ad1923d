"""From records to the rows of a comparison."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpcml.comparison.aspects import aspects_of
from hpcml.comparison.figures import KINDS, Column, figures_of
from hpcml.comparison.marks import marks_of
from hpcml.comparison.median import summarise
from hpcml.comparison.table import Point, Row, Table
from hpcml.errors import ArgumentError, nearest
from hpcml.records.model import Record
from hpcml.records.schema import key_of_value

DIGITS = 8  # of a digest, where rows have nothing else to be told apart by


def tabulate(records: Sequence[Record], by: Sequence[str] | None) -> Table:
    """Compare records; ``by``: parameters, default: job, site and all parameters."""
    if by is not None:
        _check(records, by)
    groups: dict[tuple[str, ...], int] = {}
    members: list[list[Point]] = []
    points = []
    told = [aspects_of(record) for record in records]
    names = dict.fromkeys(name for aspects in told for name in aspects)
    for record, aspects in zip(records, told, strict=True):
        key = _key(record, by)
        if key not in groups:
            groups[key] = len(members)
            members.append([])
        shared = {name: aspects.get(name) for name in names}
        point = Point(record, groups[key], figures_of(record), shared)
        members[point.row].append(point)
        points.append(point)
    rows = tuple(_rows(members, by))
    columns = _columns(points)
    chosen = None if by is None else tuple(by)
    return Table(rows, tuple(points), columns, tuple(marks_of(rows, points, by)), chosen)


def _check(records: Sequence[Record], by: Sequence[str]) -> None:
    known = {name for record in records for name in record.params}
    for name in by:
        if name not in known:
            raise ArgumentError(f"no run has a parameter {name!r}", nearest(str(name), known))


def _key(record: Record, by: Sequence[str] | None) -> tuple[str, ...]:
    params = record.params
    if by is not None:
        return tuple(key_of_value(params[name]) if name in params else "" for name in by)
    told = (text for name in sorted(params) for text in (name, key_of_value(params[name])))
    return (record.job_digest, record.site, *told)


def _rows(members: Sequence[Sequence[Point]], by: Sequence[str] | None) -> Iterable[Row]:
    groups = [_group(points[0].record, by) for points in members]
    names = [_job(points[0].record) if by is None else "" for points in members]
    labels = _labels(groups, names, by)
    if by is None:
        labels = _apart(labels, [points[0].record.site for points in members])
        labels = _apart(labels, [points[0].record.job_digest[:DIGITS] for points in members])
    for points, group, label in zip(members, groups, labels, strict=True):
        counted = [point for point in points if point.counted]
        columns = dict.fromkeys(column for point in counted for column in point.figures)
        yield Row(
            label,
            group,
            tuple(dict.fromkeys(point.record.job_digest for point in points)),
            dict(sorted(Counter(point.state for point in points).items())),
            {column: summarise(_values(counted, column)) for column in columns},
            _aspects(counted),
        )


def _job(record: Record) -> str:
    """The job's name, without what varies between its runs."""
    return str(record.place["name"])


def _group(record: Record, by: Sequence[str] | None) -> Mapping[str, Any]:
    names = sorted(record.params) if by is None else by
    return {name: record.params[name] for name in names if name in record.params}


def _labels(
    groups: Sequence[Mapping[str, Any]], names: Sequence[str], by: Sequence[str] | None
) -> list[str]:
    """The job's name if several are compared; the parameters that differ, or that were named."""
    seen: dict[str, set[str]] = {}
    for group in groups:
        for name, value in group.items():
            seen.setdefault(name, set()).add(key_of_value(value))
    partly = {name for name in seen if any(name not in group for group in groups)}
    varying = [name for name in seen if by or len(seen[name]) > 1 or name in partly]
    several = len(set(names)) > 1
    labels = []
    for group, job in zip(groups, names, strict=True):
        lacking = "" if by is None else "no {}"
        told = [
            f"{name}={_brief(group[name])}" if name in group else lacking.format(name)
            for name in varying
        ]
        label = " ".join(filter(None, [job if several else "", *told]))
        labels.append(label or job or "all")
    return labels


def _apart(labels: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Labels that are the same, with marks that may tell them apart."""
    told: dict[str, set[str]] = {}
    for label, mark in zip(labels, marks, strict=True):
        told.setdefault(label, set()).add(mark)
    return [
        f"{label} {mark}" if len(told[label]) > 1 else label
        for label, mark in zip(labels, marks, strict=True)
    ]


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _values(points: Iterable[Point], column: Column) -> Iterable[Any]:
    return (point.figures[column] for point in points if column in point.figures)


def _aspects(points: Sequence[Point]) -> dict[str, tuple[str | None, ...]]:
    names = dict.fromkeys(name for point in points for name in point.aspects)
    return {name: tuple(dict.fromkeys(point.aspects[name] for point in points)) for name in names}


def _columns(points: Iterable[Point]) -> tuple[Column, ...]:
    found = dict.fromkeys(column for point in points if point.counted for column in point.figures)
    scopes = sorted({column.name for column in found if column.kind == "energy"})

    def place(column: Column) -> tuple[int, int]:
        energy = column.kind in ("energy", "uncertainty", "coverage")
        kind = KINDS.index("energy" if energy else column.kind)
        return kind, scopes.index(column.name) if energy else 0

    return tuple(sorted(found, key=place))
