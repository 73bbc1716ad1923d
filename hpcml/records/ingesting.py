"""From the files of a site into the records: what is new since the last time, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import func, select, update

from hpcml.accounts import LATE, SILENT, Account, Accounts, Wanted, accounts, silent
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

Known = tuple[object, ...]
FINAL: Known = ()


@dataclass(frozen=True)
class News:
    """Runs of which there may be news.

    Attributes
    ----------
    seen : dict
        Those that are not recorded as final, as they were seen, by index.
    known : dict
        What is recorded of runs, as far as it tells news from what is known.
    awaited : dict
        What of those is awaited that have ended.
    """

    seen: Mapping[int, Seen]
    known: Mapping[int, Known]
    awaited: Mapping[int, str | None]

    @classmethod
    def of(cls, database: Database, view: BatchView) -> News:
        """What there may be of a batch that was looked at."""
        known, awaited = _known(database, view.id)
        # As they are before their files are read: only of what has ended by now these are whole.
        seen = {index: one for index, one in view.seen.copy().items() if known.get(index) != FINAL}
        return cls(seen, known, awaited)

    @property
    def ended(self) -> list[int]:
        """Those that have ended."""
        return [index for index, one in self.seen.items() if one.state.final]

    def left(self, told: Mapping[int, Account]) -> list[int]:
        """Those to be read: not of which the accounting alone is awaited, as it was before."""
        return [index for index in sorted(self.seen) if not self._goes_on_waiting(index, told)]

    def _goes_on_waiting(self, index: int, told: Mapping[int, Account]) -> bool:
        account, before = told.get(index), self.awaited.get(index)
        if account is None or before not in (SILENT, LATE):
            return False
        if account.awaited not in (before, SILENT):  # silence takes nothing away that was told
            return False
        one = self.seen[index]
        return self.known[index][:2] == (one.state, one.reason)


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
        news = {view: News.of(database, view) for view in views if not view.removed}
        told = _accounts({view: new.ended for view, new in news.items()})
        with database.held():
            count += sum(
                _ingest_or_warn(database, view, new, told[view]) for view, new in news.items()
            )
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


def _accounts(wanted: Wanted) -> Accounts:
    """What the accounting has of runs that have ended; one that does not answer stops nothing."""
    try:
        return accounts(wanted)
    except QueueError as error:
        count = sum(map(len, wanted.values()))
        again = f"what it has of {count} runs is asked for again by the next `hpcml sync`"
        warnings.warn(f"{error.problem}; {again}", stacklevel=4)
        return silent(wanted)


def _ingest_or_warn(
    database: Database, view: BatchView, news: News, told: Mapping[int, Account]
) -> int:
    """Record what is new of a batch. One whose files say what none of ours does stops no other."""
    try:
        return _ingest(database, view, news, told)
    except (RecordsError, TransportError, QueueError):
        raise
    except Exception as error:
        why = str(error) if isinstance(error, HpcmlError) else repr(error)
        warnings.warn(f"batch {view.id} is passed over: {why}", stacklevel=5)
        return 0


def _ingest(database: Database, view: BatchView, new: News, told: Mapping[int, Account]) -> int:
    left = new.left(told)
    readings = cache(lambda: Readings.beside(view.folder, view.connection.files))
    count, size = 0, FIRST
    while left:
        some, left = left[:size], left[size:]
        seen = {index: new.seen[index] for index in some}
        events = _events(view, [index for index in some if seen[index].attempts])
        # What runs have told may be little or much: that of the next ones is likely to be as much.
        size = min(RUNS, 2 * size) if sum(map(len, events.values())) < BYTES else -(-size // 2)
        found = list(_gather(view, seen, events, new.known, readings, told))
        if is_gone(view.id, view.connection):
            return count  # maybe before they were read: what is found then is not what they told
        if found:
            with database.writing() as connection:
                count += write_runs(connection, write_batch(connection, Head.of(view)), found)
    _note_complete(database, view)
    return count


def _known(database: Database, batch: str) -> tuple[dict[int, Known], dict[int, str | None]]:
    """What is recorded of the runs of a batch, and what of those is awaited that have ended."""
    runs, batches = schema.runs, schema.batches
    columns = runs.c.state, runs.c.reason, runs.c.attempts, runs.c.told
    asked = select(runs.c.number, runs.c.final, runs.c.awaited, *columns)
    with database.reading() as connection:
        rows = connection.execute(asked.join(batches).where(batches.c.batch == batch)).all()
    known = {number: FINAL if final else tuple(news) for number, final, _, *news in rows}
    return known, {number: awaited for number, _, awaited, *_ in rows}


def _events(view: BatchView, indices: Sequence[int]) -> dict[int, bytes]:
    """What runs have told."""
    paths = {f"{view.folder}/{index}/events.jsonl": index for index in indices}
    found = view.connection.files.get(dict.fromkeys(paths, 0)) if paths else {}
    return {paths[path]: content for path, content in found.items()}


def _gather(
    view: BatchView,
    seen: Mapping[int, Seen],
    events: Mapping[int, bytes],
    known: Mapping[int, Known],
    readings: Callable[[], Readings],
    told: Mapping[int, Account],
) -> Iterator[Told]:
    """What there is to say of runs of which there is news."""
    view.read_starts(seen)
    for index, one in seen.items():
        content = events.get(index, b"")
        news = one.state, one.reason, len(view.attempts(index)), len(content) - content.count(0)
        if one.state.final or known.get(index) != news:
            yield gather(view, index, one, content, readings, told.get(index, Account()))


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
