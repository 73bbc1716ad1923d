"""Questions to the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, Table, and_, case, func, or_, select

from hpcml.errors import ArgumentError, RecordsError, UnknownNameError, nearest
from hpcml.records import schema
from hpcml.records.gathering import Figure, Use
from hpcml.records.model import Artifact, AttemptRecord, EnergyRecord, Link, Metric, Phase, Record
from hpcml.records.schema import join_value, key_of, key_of_value
from hpcml.records.writing import AT_ONCE, parts
from hpcml.schedulers import Accounted
from hpcml.states import state_named
from hpcml.timeline import Event, Point

Found = Row[*tuple[Any, ...]]
BY = ("last", "lowest", "highest")
Filters = Mapping[str, Any]


def find(connection: Connection, filters: Filters) -> list[Record]:
    """Records of the runs that fit, oldest first."""
    order = schema.batches.c.created, schema.batches.c.batch, schema.runs.c.number
    rows = {
        tuple(row)
        for some in _apart(_collected(filters))
        for row in connection.execute(_filtered(select(*order, schema.runs.c.id), some))
    }
    ids = [identifier for *_, identifier in sorted(rows)]
    return [record for some in parts(ids) for record in _records(connection, some)]


def _collected(filters: Filters) -> Filters:
    """The same, and what may be a collection is one."""
    return {key: _several(one) if key in SEVERAL else one for key, one in filters.items()}


def _apart(filters: Filters) -> Iterator[Filters]:
    """The same with collections in parts: no database takes any number of values at once."""
    name = next((key for key in SEVERAL if len(filters.get(key, ())) > AT_ONCE), None)
    if name is None:
        yield filters
        return
    for some in parts(filters[name]):
        yield from _apart({**filters, name: some})


def top(
    connection: Connection, metric: str, count: int, highest: bool, by: str, filters: Filters
) -> list[tuple[str, float]]:
    """Ids and values of the runs that are best in a metric."""
    if by not in BY:
        raise ArgumentError(f"runs cannot be ranked by {by!r}", nearest(by, BY))
    if count < 0:
        raise ArgumentError(f"there are no {count} runs", "The count is 0 or more.")
    name = _name_id(connection, metric)
    value = schema.metrics.c[by]
    asked: Select[Any] = select(schema.runs.c.run, value).join_from(schema.metrics, schema.runs)
    asked = asked.where(schema.metrics.c.name_id == name, value.is_not(None))
    asked = asked.order_by(value.desc() if highest else value).limit(count)
    each = [_filtered(asked, some) for some in _apart(_collected(filters))] if filters else [asked]
    best = {run: number for one in each for run, number in connection.execute(one)}
    if not best:
        _refuse_unknown(connection, metric, name)
    return sorted(best.items(), key=itemgetter(1), reverse=highest)[:count]


def _refuse_unknown(connection: Connection, metric: str, name: int | None) -> None:
    """A metric that nobody has logged is more likely a slip than a question."""
    metrics, names = schema.metrics, schema.names
    logged = select(metrics.c.id).where(metrics.c.name_id == names.c.id).exists()
    if connection.scalar(select(names.c.id).where(names.c.id == name, logged)) is None:
        known = connection.scalars(select(names.c.name).where(logged))
        problem = f"no run on record has logged {metric!r}"
        raise UnknownNameError(problem, nearest(str(metric), known))


def history(connection: Connection, run: str, metric: str) -> tuple[Point, ...]:
    """All values of a metric of a run."""
    found = histories(connection, [run], metric)
    if run not in found:
        raise RecordsError(
            f"there is no metric {metric!r} of {run} on record",
            "`hpcml sync` records what is new.",
        )
    return found[run]


def histories(
    connection: Connection, runs: Collection[str], metric: str
) -> dict[str, tuple[Point, ...]]:
    """All values of a metric of several runs, with one statement for hundreds of them."""
    name = _name_id(connection, metric)
    metrics, points = schema.metrics, schema.points
    # A metric of one point has no row in the table of points.
    value = case((points.c.number.is_(None), metrics.c.last), else_=points.c.value)
    other = case((points.c.number.is_(None), metrics.c.other), else_=points.c.other)
    step = case((points.c.number.is_(None), metrics.c.step), else_=points.c.step)
    time = func.coalesce(points.c.time, metrics.c.time)
    asked = (
        select(schema.runs.c.run, step, time, value, other)
        .join_from(schema.runs, metrics)
        .outerjoin(points, points.c.metric_id == metrics.c.id)
        .where(metrics.c.name_id == name)
        .order_by(metrics.c.id, points.c.number)
    )
    found: dict[str, list[Point]] = {}
    for some in parts(map(_plain, dict.fromkeys(runs))):
        for run, at, when, finite, text in connection.execute(
            asked.where(schema.runs.c.run.in_(some))
        ):
            found.setdefault(run, []).append(Point(at, when, join_value(finite, text)))
    return {run: tuple(points) for run, points in found.items()}


def lineage(connection: Connection, run: str, hops: int, down: bool) -> list[Link]:
    """What a run came from, or what came from it, nearest first."""
    links: list[Link] = []
    seen, frontier = {run}, [_plain(run)]
    for hop in range(1, hops + 1):
        found = [
            link
            for some in parts(frontier)
            for link in (_users if down else _makers)(connection, some, hop)
        ]
        links += found
        reached = [link.used_by if down else link.made_by for link in found]
        frontier = [one for one in dict.fromkeys(reached) if one is not None and one not in seen]
        seen.update(frontier)
    return links


# --- which runs -------------------------------------------------------------------------------

SEVERAL = ("id", "batch")  # filters that may be collections
FILTERS = ("batch", "digest", "id", "job_digest", "name", "params", "site", "state", "tags")


def _filtered(asked: Select[Any], filters: Filters) -> Select[Any]:
    """Only runs that fit; the statement is about ``runs``."""
    runs, batches, plans, sites = schema.runs, schema.batches, schema.plans, schema.sites
    asked = asked.join(batches, runs.c.batch_id == batches.c.id)
    asked = asked.join(plans, batches.c.plan_id == plans.c.id)
    asked = asked.join(sites, batches.c.site_id == sites.c.id)
    columns = {
        "id": runs.c.run,
        "digest": runs.c.digest,
        "state": runs.c.state,
        "batch": batches.c.batch,
        "name": batches.c.name,
        "job_digest": plans.c.job_digest,
        "site": sites.c.name,
    }
    for key, value in filters.items():
        if key in SEVERAL:
            asked = asked.where(columns[key].in_([_plain(one) for one in value]))
        elif key in ("name", "site"):
            asked = asked.where(columns[key] == _text(value))
        elif key == "state":
            asked = asked.where(columns[key] == str(state_named(_text(value))))
        elif key in columns:
            asked = asked.where(columns[key] == _plain(value))
        elif key == "params":
            for name, wanted in value.items():
                asked = asked.where(runs.c.id.in_(_with_param(_text(name), wanted)))
        elif key == "tags":
            for name, wanted in value.items():
                asked = asked.where(batches.c.id.in_(_with_tag(_text(name), _text(wanted))))
        else:
            raise ArgumentError(f"runs cannot be found by {key!r}", nearest(key, FILTERS))
    return asked


def _several(value: Any) -> list[Any]:
    """The values of a filter that may be a collection."""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return list(value) if several else [_text(value)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{value!r} is no text", "Ids, names, sites, states and tags are.")
    return str(value)


def _plain(value: Any) -> str:
    """An id, a digest or a state; what can be none of them is no row's, and no database's."""
    text = _text(value)
    return text if text.isascii() and text.isprintable() else ""


def _with_param(name: str, value: Any) -> Select[Any]:
    table = schema.params
    try:
        key = key_of_value(value)
    except TypeError:
        problem = f"no parameter has a value like {value!r}"
        raise ArgumentError(problem, "They are what JSON can say.") from None
    return (
        select(table.c.run_id)
        .join(schema.names)
        .where(schema.names.c.key == key_of(name), table.c.key == key)
    )


def _with_tag(name: str, value: str) -> Select[Any]:
    table = schema.tags
    return (
        select(table.c.batch_id)
        .join(schema.names)
        .where(schema.names.c.key == key_of(name), table.c.value == value)
    )


def _name_id(connection: Connection, name: str) -> int | None:
    names = schema.names
    return connection.scalar(select(names.c.id).where(names.c.key == key_of(name)))


# --- all of a run -----------------------------------------------------------------------------


def _records(connection: Connection, ids: Sequence[int]) -> Iterator[Record]:
    """Records in the order of the ids, with a query a table."""
    heads = {row.id: row for row in connection.execute(_heads(ids))}
    batches = sorted({row.batch_id for row in heads.values()})
    tags = _by_name(connection, schema.tags.c.batch_id, batches, lambda row: row.value)
    told: dict[str, dict[int, Any]] = {
        name: _by_name(connection, table.c.run_id, ids, made)
        for name, (table, made) in TOLD.items()
    }
    figures = _figures(connection, ids)
    energies = _energies(connection, ids)
    attempts = _attempts(connection, ids)
    allocations = _allocations(connection, ids)
    events = _events(connection, ids)
    for identifier in ids:
        row = heads[identifier]
        fields: dict[str, Any] = {key: row._mapping[key] for key in HEAD}
        fields.update({name: found.get(identifier, {}) for name, found in told.items()})
        yield Record(
            id=row.run,
            tags=tags.get(row.batch_id, {}),
            figures=tuple(figures.get(identifier, ())),
            energy=energies.get(identifier),
            attempts=tuple(attempts.get(identifier, ())),
            events=tuple(events.get(identifier, ())),
            allocations=tuple(allocations.get(identifier, ())),
            **fields,
        )


HEAD = (
    *("batch", "site", "workspace", "person", "name", "digest", "plan_digest", "job_digest"),
    *("what", "place", "state", "reason", "final", "created", "started", "ended", "parent"),
    *("resubmits", "unread", "awaited"),
)


def _heads(ids: Sequence[int]) -> Select[Any]:
    runs, batches, plans = schema.runs, schema.batches, schema.plans
    sites, people = schema.sites, schema.people
    return (
        select(
            runs,
            batches.c.batch,
            batches.c.created,
            batches.c.parent,
            batches.c.place,
            plans.c.digest.label("plan_digest"),
            plans.c.job_digest,
            plans.c.what,
            sites.c.name.label("site"),
            sites.c.workspace,
            people.c.name.label("person"),
        )
        .join(batches, runs.c.batch_id == batches.c.id)
        .join(plans, batches.c.plan_id == plans.c.id)
        .join(sites, batches.c.site_id == sites.c.id)
        .outerjoin(people, batches.c.person_id == people.c.id)
        .where(runs.c.id.in_(ids))
    )


def _by_name(
    connection: Connection,
    of: Column[Any],
    ids: Sequence[int],
    made: Callable[[Found], Any],
) -> dict[int, dict[str, Any]]:
    """What belongs to each id, by name."""
    table, artifacts = of.table, schema.artifacts
    asked: Select[Any] = select(of.label("of"), *table.c, schema.names.c.name.label("named"))
    asked = asked.join(schema.names, table.c.name_id == schema.names.c.id)
    if "artifact_id" in table.c:
        asked = asked.add_columns(artifacts.c.digest, artifacts.c.bytes)
        asked = asked.join(artifacts, table.c.artifact_id == artifacts.c.id)
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(asked.where(of.in_(ids)).order_by(of, table.c.name_id)):
        found.setdefault(row.of, {})[row.named] = made(row)
    return found


def _json(row: Found) -> Any:
    return json.loads(row.value)


def _metric(row: Found) -> Metric:
    last = join_value(row.last, row.other)
    return Metric(row.points, last, row.step, row.time, row.lowest, row.highest)


def _phase(row: Found) -> Phase:
    energy = row.joules, row.uncertainty, row.covered
    return Phase(row.seconds, row.spans, row.unfinished, row.samples, row.own, row.began, *energy)


def _use(row: Found) -> Use:
    return Use(row.digest, row.checked, row.origin, row.output)


def _artifact(row: Found) -> Artifact:
    return Artifact(row.digest, row.bytes)


TOLD: Mapping[str, tuple[Table, Callable[[Found], Any]]] = {
    "params": (schema.params, _json),
    "described": (schema.described, _json),
    "metrics": (schema.metrics, _metric),
    "phases": (schema.phases, _phase),
    "used": (schema.used, _use),
    "generated": (schema.generated, _artifact),
}


def _figures(connection: Connection, ids: Sequence[int]) -> dict[int, list[Figure]]:
    table, names = schema.figures, schema.names
    asked = select(table, names.c.name.label("named")).join(names)
    asked = asked.where(table.c.run_id.in_(ids)).order_by(table.c.attempt, table.c.name_id)
    found: dict[int, list[Figure]] = {}
    for row in connection.execute(asked):
        figure = Figure(row.named, row.attempt, row.value, row.unit, row.source)
        found.setdefault(row.run_id, []).append(figure)
    return found


def _energies(connection: Connection, ids: Sequence[int]) -> dict[int, EnergyRecord]:
    columns = [schema.energies.c[name] for name in EnergyRecord.__dataclass_fields__]
    of = schema.energies.c.run_id
    rows = connection.execute(select(of, *columns).where(of.in_(ids)))
    return {identifier: EnergyRecord(*row) for identifier, *row in rows}


def _attempts(connection: Connection, ids: Sequence[int]) -> dict[int, list[AttemptRecord]]:
    table, hosts = schema.attempts, schema.hosts
    asked = select(table, hosts.c.facts).outerjoin(hosts, table.c.host_id == hosts.c.id)
    found: dict[int, list[AttemptRecord]] = {}
    for row in connection.execute(asked.where(table.c.run_id.in_(ids)).order_by(table.c.number)):
        found.setdefault(row.run_id, []).append(
            AttemptRecord(
                row.number,
                row.started,
                row.ended,
                row.exit_code,
                row.signal,
                row.cause,
                row.reason,
                row.requeued,
                row.facts or {},
                row.life,
            )
        )
    return found


def _allocations(connection: Connection, ids: Sequence[int]) -> dict[int, list[Accounted]]:
    table = schema.allocations
    columns = [table.c[name] for name in Accounted.__dataclass_fields__]
    asked = select(table.c.run_id, *columns).where(table.c.run_id.in_(ids))
    found: dict[int, list[Accounted]] = {}
    for identifier, *row in connection.execute(asked.order_by(table.c.run_id, table.c.number)):
        found.setdefault(identifier, []).append(Accounted(*row))
    return found


def _events(connection: Connection, ids: Sequence[int]) -> dict[int, list[Event]]:
    table = schema.events
    asked = select(table).where(table.c.run_id.in_(ids)).order_by(table.c.run_id, table.c.number)
    found: dict[int, list[Event]] = {}
    for row in connection.execute(asked):
        found.setdefault(row.run_id, []).append(Event(row.attempt, row.time, row.kind, row.facts))
    return found


# --- who made what ----------------------------------------------------------------------------


def _makers(connection: Connection, runs: Sequence[str], hop: int) -> Iterator[Link]:
    """What runs used, and who left it: whom the job named, else all that left these bytes."""
    user, maker = schema.runs.alias("user"), schema.runs.alias("maker")
    input_, output = schema.names.alias("input"), schema.names.alias("output")
    used, generated, artifacts = schema.used, schema.generated, schema.artifacts
    made = and_(generated.c.artifact_id == used.c.artifact_id, used.c.origin.is_(None))
    asked = (
        select(
            user.c.run.label("used_by"),
            input_.c.name.label("input"),
            artifacts.c.digest,
            used.c.origin,
            used.c.output,
            maker.c.run.label("made_by"),
            output.c.name.label("path"),
        )
        .join_from(user, used, used.c.run_id == user.c.id)
        .join(input_, used.c.name_id == input_.c.id)
        .join(artifacts, used.c.artifact_id == artifacts.c.id)
        .outerjoin(generated, made)
        .outerjoin(maker, generated.c.run_id == maker.c.id)
        .outerjoin(output, generated.c.name_id == output.c.id)
        .where(user.c.run.in_(runs))
        .order_by(user.c.id, used.c.name_id, maker.c.id)
    )
    for row in connection.execute(asked):
        said = row.origin is not None
        maker_, path = (row.origin, row.output) if said else (row.made_by, row.path)
        yield Link(hop, maker_, path, row.used_by, row.input, row.digest, said)


def _users(connection: Connection, runs: Sequence[str], hop: int) -> Iterator[Link]:
    """Who used what runs have left."""
    user, maker = schema.runs.alias("user"), schema.runs.alias("maker")
    input_, output = schema.names.alias("input"), schema.names.alias("output")
    used, generated, artifacts = schema.used, schema.generated, schema.artifacts
    theirs = or_(
        used.c.origin.is_(None), and_(used.c.origin == maker.c.run, used.c.output == output.c.name)
    )
    asked = (
        select(
            maker.c.run.label("made_by"),
            output.c.name.label("output"),
            user.c.run.label("used_by"),
            input_.c.name.label("input"),
            artifacts.c.digest,
            used.c.origin,
        )
        .join_from(maker, generated, generated.c.run_id == maker.c.id)
        .join(output, generated.c.name_id == output.c.id)
        .join(artifacts, generated.c.artifact_id == artifacts.c.id)
        .join(used, and_(used.c.artifact_id == generated.c.artifact_id, theirs))
        .join(user, used.c.run_id == user.c.id)
        .join(input_, used.c.name_id == input_.c.id)
        .where(maker.c.run.in_(runs))
        .order_by(maker.c.id, generated.c.name_id, user.c.id)
    )
    for row in connection.execute(asked):
        said = row.origin is not None
        yield Link(hop, row.made_by, row.output, row.used_by, row.input, row.digest, said)
