"""From the files of a site into the records: what is new since the last time, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache

from sqlalchemy import func, select, update

from hpcml.batch_view import BatchView, Seen, is_gone, look
from hpcml.energy import Readings
from hpcml.errors import HpcmlError, QueueError, RecordsError, TransportError
from hpcml.poller import poller
from hpcml.records import schema
from hpcml.records.database import Database
from hpcml.records.gathering import Head, Told, gather
from hpcml.records.writing import parts, write_batch, write_runs

BATCHES = 64  # that are looked at together
RUNS = 200  # that are read, and then written, together
FIRST, BYTES = 8, 1 << 24  # runs to begin with; events of more bytes are not to be read together

News = tuple[object, ...]


def ingest(database: Database, site: str, batches: Collection[str] | None = None) -> int:
    """Record what has become of the runs of a site.

    A run that is recorded as final is never looked at again, nor is a batch of such runs alone.

    Parameters
    ----------
    database : Database
    site : str
    batches : collection of str, optional
        Ids of those to look at; default: all that the site has.

    Returns
    -------
    int
        How many runs there was news of.

    Raises
    ------
    TransportError, QueueError
        The site cannot be read.
    RecordsError
        The records cannot be written.
    """
    there = poller(site).connection.files.names("runs") or set()
    wanted = {name for name in there if name[0] != "."}
    if batches is not None:
        wanted &= set(batches)
    count = 0
    for some in parts(sorted(wanted - complete(database, wanted)), BATCHES):
        views = [view for view in (_view(site, batch) for batch in some) if view is not None]
        look(views)
        with database.held():
            count += sum(_ingest_or_warn(database, view) for view in views if not view.removed)
    return count


def complete(database: Database, batches: Collection[str]) -> set[str]:
    """Those of some batches whose runs are all recorded as final."""
    table = schema.batches
    with database.reading() as connection:
        return {
            batch
            for some in parts(sorted(batches))
            for batch in connection.scalars(
                select(table.c.batch).where(table.c.complete, table.c.batch.in_(some))
            )
        }


def _view(site: str, batch: str) -> BatchView | None:
    """This process's view of a batch, or one for now; ``None``, and a warning, if it is broken."""
    found = poller(site)
    try:
        return found.views.get(batch) or BatchView.load(batch, found.connection)
    except HpcmlError as error:
        warnings.warn(f"batch {batch} is passed over: {error}", stacklevel=4)
        return None


def _ingest_or_warn(database: Database, view: BatchView) -> int:
    """Record what is new of a batch. One whose files say what none of ours does stops no other."""
    try:
        return _ingest(database, view)
    except (RecordsError, TransportError, QueueError):
        raise
    except Exception as error:
        why = str(error) if isinstance(error, HpcmlError) else repr(error)
        warnings.warn(f"batch {view.id} is passed over: {why}", stacklevel=5)
        return 0


def _ingest(database: Database, view: BatchView) -> int:
    known = _known(database, view.id)
    # As they are before their files are read: only of what has ended by now these are whole.
    seen = {index: one for index, one in view.seen.copy().items() if known.get(index) != FINAL}
    left = sorted(seen)
    readings = cache(lambda: Readings.beside(view.folder, view.connection.files))
    count, size = 0, FIRST
    while left:
        some, left = left[:size], left[size:]
        events = _events(view, [index for index in some if seen[index].attempts])
        # What runs have told may be little or much: that of the next ones is likely to be as much.
        size = min(RUNS, 2 * size) if sum(map(len, events.values())) < BYTES else -(-size // 2)
        news = {index: seen[index] for index in some}
        found = list(_gather(view, news, events, known, readings))
        if is_gone(view.id, view.connection):
            return count  # maybe before they were read: what is found then is not what they told
        if found:
            with database.writing() as connection:
                count += write_runs(connection, write_batch(connection, Head.of(view)), found)
    _note_complete(database, view)
    return count


FINAL: News = ()


def _known(database: Database, batch: str) -> dict[int, News]:
    """What is recorded of the runs of a batch, as far as it tells news from what is known."""
    runs, batches = schema.runs, schema.batches
    columns = runs.c.number, runs.c.final, runs.c.state, runs.c.reason, runs.c.attempts, runs.c.told
    with database.reading() as connection:
        rows = connection.execute(
            select(*columns).join(batches).where(batches.c.batch == batch)
        ).all()
    return {number: FINAL if final else tuple(news) for number, final, *news in rows}


def _events(view: BatchView, indices: Sequence[int]) -> dict[int, bytes]:
    """What runs have told."""
    paths = {f"{view.folder}/{index}/events.jsonl": index for index in indices}
    found = view.connection.files.get(dict.fromkeys(paths, 0)) if paths else {}
    return {paths[path]: content for path, content in found.items()}


def _gather(
    view: BatchView,
    seen: Mapping[int, Seen],
    events: Mapping[int, bytes],
    known: Mapping[int, News],
    readings: Callable[[], Readings],
) -> Iterator[Told]:
    """What there is to say of runs of which there is news."""
    view.read_starts(seen)
    for index, one in seen.items():
        content = events.get(index, b"")
        news = one.state, one.reason, len(view.attempts(index)), len(content) - content.count(0)
        if one.state.final or known.get(index) != news:
            yield gather(view, index, one, content, readings)


def _note_complete(database: Database, view: BatchView) -> None:
    """Once all its runs are recorded as final, a batch need not be looked at again."""
    table, runs = schema.batches, schema.runs
    if not view.final:
        return
    with database.writing() as connection:
        ours = select(table.c.id).where(table.c.batch == view.id).scalar_subquery()
        final = select(func.count()).where(runs.c.batch_id == ours, runs.c.final)
        if connection.scalar(final) == view.count:
            connection.execute(update(table).where(table.c.id == ours).values(complete=True))
