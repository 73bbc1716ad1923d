"""Told runs become rows: all rows of a run or none, and never twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Table, bindparam, delete, func, insert, select, update

from hpcml.agent import wire
from hpcml.records import schema
from hpcml.records.gathering import Head, Told
from hpcml.records.model import EnergyRecord
from hpcml.records.schema import key_of, key_of_value, split_value
from hpcml.timeline import Point, Span

AT_ONCE = 500  # values in one IN (...)
ROWS = 5000  # that are made, and handed to the database, together
T = TypeVar("T")
Row = dict[str, Any]


def parts(items: Iterable[T], size: int = AT_ONCE) -> Iterator[list[T]]:
    """Items, some at a time."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def write_batch(connection: Connection, head: Head) -> int:
    """A batch, its plan, who submitted it and where, unless they are there. Returns its id."""
    table = schema.batches
    known = connection.scalar(select(table.c.id).where(table.c.batch == head.id))
    if known is not None:
        connection.execute(update(table).where(table.c.id == known).values(asked=head.asked))
        return int(known)
    plan, where = head.plan, head.plan.where
    site = {"name": str(where["site"]), "workspace": str(where["workspace"])}
    identifier = _free(connection, table)
    row: Row = {
        "id": identifier,
        "batch": head.id,
        "site_id": _one(connection, schema.sites, _digest(site), site),
        "person_id": _person(connection, where),
        "plan_id": _one(
            connection,
            schema.plans,
            str(plan.digest),
            {"job_digest": str(plan.job_digest), "what": dict(plan.what)},
        ),
        "name": plan.name,
        "created": head.created,
        "asked": head.asked,
        "parent": head.parent,
        "place": {key: value for key, value in where.items() if key != "environment"},
        "complete": False,
    }
    connection.execute(insert(table), row)
    tags: Mapping[str, Any] = where["tags"]
    ids = name_ids(connection, tags)
    _add(
        connection,
        schema.tags,
        [
            {"batch_id": identifier, "name_id": ids[name], "value": str(value)}
            for name, value in tags.items()
        ],
    )
    return identifier


def write_runs(connection: Connection, batch: int, found: Sequence[Told]) -> int:
    """Runs of a batch as they are now; those that are final here already stay as they are.

    Returns how many were written.
    """
    table = schema.runs
    rows = connection.execute(
        select(table.c.number, table.c.id, table.c.final).where(
            table.c.batch_id == batch, table.c.number.in_([run.index for run in found])
        )
    )
    known = {number: (identifier, final) for number, identifier, final in rows}
    found = [run for run in found if not known.get(run.index, (0, False))[1]]
    _forget(connection, [known[run.index][0] for run in found if run.index in known])
    free = _free(connection, table)
    ids, new, old = {}, [], []
    for run in found:
        row = _run_row(run, batch)
        if run.index in known:
            ids[run.index] = known[run.index][0]
            old.append({"known": ids[run.index], **row})
        else:
            ids[run.index] = row["id"] = free
            free += 1
            new.append(row)
    _add(connection, table, new)
    if old:
        connection.execute(update(table).where(table.c.id == bindparam("known")), old)
    _Writer(connection, found, ids).write({run.index for run in found} - known.keys())
    return len(found)


def _run_row(run: Told, batch: int) -> Row:
    return {
        "run": run.id,
        "batch_id": batch,
        "number": run.index,
        "digest": run.digest,
        "name": run.name,
        "state": run.state,
        "reason": run.reason,
        "final": run.final,
        "started": run.started,
        "ended": run.ended,
        "resubmits": run.resubmits,
        "attempts": len(run.attempts),
        "told": run.told,
        "unread": run.unread,
        "awaited": run.awaited or None,
    }


def _forget(connection: Connection, runs: Sequence[int]) -> None:
    """Take out what is about to be written anew."""
    metrics, points = schema.metrics, schema.points
    for some in parts(runs):
        theirs = select(metrics.c.id).where(metrics.c.run_id.in_(some))
        connection.execute(delete(points).where(points.c.metric_id.in_(theirs)))
        for table in (metrics, *schema.NEWS):
            connection.execute(delete(table).where(table.c.run_id.in_(some)))


class _Writer:
    """The rows of some runs, of which the ids are known."""

    def __init__(
        self, connection: Connection, found: Sequence[Told], ids: Mapping[int, int]
    ) -> None:
        self.connection, self.found, self.ids = connection, found, ids
        self.names = name_ids(connection, {name for run in found for name in _names(run)})
        self.artifacts = _artifact_ids(connection, found)
        self.hosts = _host_ids(connection, found)

    def write(self, fresh: set[int]) -> None:
        """All rows; parameters of fresh runs alone, as they never change."""
        runs = [(run, self.ids[run.index]) for run in self.found]
        tables = {
            schema.params: (self._params, [pair for pair in runs if pair[0].index in fresh]),
            schema.attempts: (self._attempts, runs),
            schema.allocations: (self._allocations, runs),
            schema.events: (self._events, runs),
            schema.used: (self._used, runs),
            schema.generated: (self._generated, runs),
            schema.phases: (self._phases, runs),
            schema.described: (self._described, runs),
            schema.figures: (self._figures, runs),
            schema.energies: (self._energies, runs),
        }
        for table, (rows, pairs) in tables.items():
            _add(self.connection, table, (row for pair in pairs for row in rows(*pair)))
        self._write_metrics(runs)

    def _params(self, run: Told, identifier: int) -> Iterator[Row]:
        for name, value in run.params.items():
            yield {
                "run_id": identifier,
                "name_id": self.names[name],
                "key": key_of_value(value),
                "value": json.dumps(value),
            }

    def _attempts(self, run: Told, identifier: int) -> Iterator[Row]:
        lives = run.lives
        for one in run.attempts:
            start, end = one.start or {}, one.end or {}
            facts = run.hosts.get(one.number)
            yield {
                "run_id": identifier,
                "number": one.number,
                "started": start.get("time"),
                "ended": end.get("time"),
                "exit_code": end.get("exit_code"),
                "signal": end.get("signal"),
                "cause": end.get("cause"),
                "reason": end.get("reason"),
                "requeued": bool(end.get("requeue")),
                "host_id": self.hosts[_digest(facts)] if facts else None,
                "life": lives.get(one.number),
            }

    def _allocations(self, run: Told, identifier: int) -> Iterator[Row]:
        for number, life in enumerate(run.allocations, 1):
            yield {"run_id": identifier, "number": number, **vars(life)}

    def _events(self, run: Told, identifier: int) -> Iterator[Row]:
        for number, one in enumerate(run.story.events if run.story else ()):
            yield {"run_id": identifier, "number": number, **vars(one)}

    def _used(self, run: Told, identifier: int) -> Iterator[Row]:
        for name, use in run.used.items():
            yield {
                "run_id": identifier,
                "name_id": self.names[name],
                "artifact_id": self.artifacts[use.digest],
                "checked": use.checked,
                "origin": use.origin,
                "output": use.output,
            }

    def _generated(self, run: Told, identifier: int) -> Iterator[Row]:
        for path, output in run.outputs.items():
            yield {
                "run_id": identifier,
                "name_id": self.names[path],
                "artifact_id": self.artifacts[output["sha256"]],
            }

    def _phases(self, run: Told, identifier: int) -> Iterator[Row]:
        if run.story is None:
            return
        spans: dict[str, list[Span]] = {}
        for span in run.story.timeline.spans:
            spans.setdefault(span.name, []).append(span)
        own = run.story.timeline.own
        energies = run.energy.phases if run.energy is not None else {}
        for name, these in spans.items():
            energy = energies.get(name)
            yield {
                "run_id": identifier,
                "name_id": self.names[name],
                "seconds": sum(span.seconds for span in these),
                "spans": len(these),
                "unfinished": sum(not span.complete for span in these),
                "samples": run.story.timeline.samples.get(name),
                "own": own[name],
                "began": these[0].start - run.story.timeline.attempts[0].start,
                "joules": energy and energy.joules,
                "uncertainty": energy and energy.uncertainty,
                "covered": energy and energy.covered,
            }

    def _described(self, run: Told, identifier: int) -> Iterator[Row]:
        for name, value in (run.story.described if run.story else {}).items():
            yield {
                "run_id": identifier,
                "name_id": self.names[name],
                "value": json.dumps(value),
            }

    def _figures(self, run: Told, identifier: int) -> Iterator[Row]:
        for figure in run.figures:
            yield {
                "run_id": identifier,
                "attempt": figure.attempt,
                "name_id": self.names[figure.name],
                "value": figure.value,
                "unit": figure.unit,
                "source": figure.source,
            }

    def _energies(self, run: Told, identifier: int) -> Iterator[Row]:
        if run.energy is None:
            return
        names = EnergyRecord.__dataclass_fields__
        yield {"run_id": identifier, **{name: getattr(run.energy, name) for name in names}}

    def _write_metrics(self, runs: Sequence[tuple[Told, int]]) -> None:
        free = _free(self.connection, schema.metrics)
        rows: list[Row] = []
        longer: list[tuple[int, Sequence[Point]]] = []
        for run, identifier in runs:
            for name, series in (run.story.history if run.story else {}).items():
                row = {"id": free, "run_id": identifier, "name_id": self.names[name]}
                rows.append({**row, **_summary(series)})
                if len(series) > 1:
                    longer.append((free, series))
                free += 1
        _add(self.connection, schema.metrics, rows)
        _add(self.connection, schema.points, (row for each in longer for row in _points(*each)))


def _summary(series: Sequence[Point]) -> Row:
    last, other = split_value(series[-1].value)
    numbers = [last] if len(series) == 1 else [split_value(point.value)[0] for point in series]
    finite = [number for number in numbers if number is not None]
    return {
        "points": len(series),
        "step": _step(series[-1].step),
        "time": series[-1].time,
        "last": last,
        "other": other,
        "lowest": min(finite, default=None),
        "highest": max(finite, default=None),
    }


def _points(metric: int, series: Sequence[Point]) -> Iterator[Row]:
    for number, point in enumerate(series):
        value, other = split_value(point.value)
        yield {
            "metric_id": metric,
            "number": number,
            "step": _step(point.step),
            "time": point.time,
            "value": value,
            "other": other,
        }


def _step(step: Any) -> float | None:
    """A step that is no finite number counts as not told."""
    return split_value(step)[0]


def _names(run: Told) -> Iterator[str]:
    yield from run.params
    yield from run.used
    yield from run.outputs
    yield from (figure.name for figure in run.figures)
    if run.story is not None:
        yield from run.story.history
        yield from run.story.described
        yield from (span.name for span in run.story.timeline.spans)


def name_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of names; those that are new are added."""
    keys = {name: key_of(name) for name in names}
    rows = {key: {"name": name} for name, key in keys.items()}
    ids = _intern(connection, schema.names, rows)
    return {name: ids[key] for name, key in keys.items()}


def _artifact_ids(connection: Connection, found: Sequence[Told]) -> dict[str, int]:
    rows: dict[str, Row] = {}
    for run in found:
        for use in run.used.values():
            rows.setdefault(use.digest, {"bytes": None})
        for output in run.outputs.values():
            rows[output["sha256"]] = {"bytes": output.get("bytes")}
    return _intern(connection, schema.artifacts, rows, "digest")


def _host_ids(connection: Connection, found: Sequence[Told]) -> dict[str, int]:
    facts = [each for run in found for each in run.hosts.values()]
    return _intern(connection, schema.hosts, {_digest(each): {"facts": each} for each in facts})


def _person(connection: Connection, where: Mapping[str, Any]) -> int | None:
    """Who submitted: the site's user name, else the one in the environment, if either is told."""
    environment = where.get("environment", {})
    name = where.get("user") or environment.get("USER") or environment.get("LOGNAME")
    return _one(connection, schema.people, key_of(name), {"name": name}) if name else None


def _one(connection: Connection, table: Table, key: str, row: Row) -> int:
    column = "digest" if "digest" in table.c else "key"
    return _intern(connection, table, {key: row}, column)[key]


def _intern(
    connection: Connection, table: Table, rows: Mapping[str, Row], column: str = "key"
) -> dict[str, int]:
    """Ids of rows that are there once for all; those that are new are added."""
    ids: dict[str, int] = {}
    for keys in parts(rows):
        found = select(table.c[column], table.c.id).where(table.c[column].in_(keys))
        ids.update({key: identifier for key, identifier in connection.execute(found)})
    new = [key for key in rows if key not in ids]
    if new:
        ids.update(zip(new, range(free := _free(connection, table), free + len(new)), strict=True))
        _add(connection, table, [{"id": ids[key], column: key, **rows[key]} for key in new])
    return ids


def _free(connection: Connection, table: Table) -> int:
    """The first free id: nobody else writes meanwhile."""
    return int(connection.scalar(select(func.max(table.c.id))) or 0) + 1


def _add(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Add rows, each with the same columns.

    They go to the driver as they are: SQLAlchemy's own way costs as much again for each row.
    """
    for some in parts(rows, ROWS):
        statement, order, prepared = _insertion(connection.dialect, table, tuple(some[0]))
        for name, prepare in prepared:
            for row in some:
                row[name] = prepare(row[name])
        values = some if order is None else [tuple(row[name] for name in order) for row in some]
        connection.exec_driver_sql(statement, values)


Prepare = Callable[[Any], Any]


@lru_cache
def _insertion(
    dialect: Dialect, table: Table, names: tuple[str, ...]
) -> tuple[str, list[str] | None, list[tuple[str, Prepare]]]:
    """How a driver adds rows: what it is told, the order of values, and what prepares them."""
    compiled = insert(table).compile(dialect=dialect, column_keys=names)
    kinds = ((name, table.c[name].type.dialect_impl(dialect)) for name in names)
    found = ((name, kind.bind_processor(dialect)) for name, kind in kinds)
    prepared: list[tuple[str, Prepare]] = [(name, one) for name, one in found if one is not None]
    return str(compiled), compiled.positiontup, prepared


def _digest(facts: Mapping[str, Any]) -> str:
    return wire.sha256(json.dumps(facts, sort_keys=True).encode("ascii"))
