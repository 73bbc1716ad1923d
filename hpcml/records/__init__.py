"""What is remembered of runs, in a database: a copy of what the sites' files say.

>>> hpcml.sync()                                           # doctest: +SKIP
>>> hpcml.records.find(params={"width": 64})               # doctest: +SKIP
>>> hpcml.records.top("loss", name="train")                # doctest: +SKIP

The sites are the truth. The database can be removed at any time, and is made anew from them: by
:func:`sync`, or by the next question. Nothing that runs needs it, and waiting for a run never
touches it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from hpcml.enclosing import enclosing_run
from hpcml.errors import HpcmlError, RecordsError
from hpcml.records.place import find_place
from hpcml.timeline import Point

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hpcml.records.database import Database
    from hpcml.records.model import Link, Record

__all__ = [
    "SiteWarning",
    "find",
    "histories",
    "history",
    "ingest",
    "lineage",
    "recorded",
    "remembered",
    "sync",
    "top",
]

T = TypeVar("T")


class SiteWarning(UserWarning):
    """A site could not be reached, and was passed over."""


def sync(site: str | None = None) -> int:
    """Record what is new on the sites.

    Parameters
    ----------
    site : str, optional
        Default: all sites of the settings, and the embedded one; those that cannot be reached are
        passed over with a warning.

    Returns
    -------
    int
        How many runs there was news of.

    Raises
    ------
    RecordsError
        The records cannot be written.
    HpcmlError
        The one site cannot be read.
    """
    return with_database(lambda database: _sync(database, site), remade=site is not None)


def ingest(site: str, batches: Collection[str] | None = None) -> int:
    """Record what is new of some batches of a site, by their ids; default: all.

    Returns
    -------
    int
        How many runs there was news of.

    Raises
    ------
    RecordsError
        The records cannot be written.
    HpcmlError
        The site cannot be read.
    """
    from hpcml.records import ingesting

    return with_database(lambda database: ingesting.ingest(database, site, batches))


def recorded(batches: Collection[str]) -> set[str]:
    """Which batches, by their ids, are on record completely: every run with all that it told.

    Nothing is recorded by asking. What is on record is on the disk, too, and stays there should
    the power fail.

    Raises
    ------
    RecordsError
        The records cannot be read.
    """
    from hpcml.records import ingesting

    def work(database: Database) -> set[str]:
        if database.missing:
            return set()  # and it stays so: the next question would take an empty one for whole
        found = ingesting.complete(database, batches)
        database.make_durable()
        return found

    return with_database(work, remade=False)


def remembered(**filters: Any) -> list[Record]:
    """As :func:`find`, but nothing is recorded by asking.

    Raises
    ------
    RecordsError
        The records cannot be read.
    """
    from hpcml.records import asking

    given = _given(filters)

    def work(database: Database) -> list[Record]:
        if database.missing:
            return []  # and it stays so, as above
        with database.reading() as connection:
            return asking.find(connection, given)

    return with_database(work, remade=False)


def find(
    *,
    id: str | Collection[str] | None = None,
    batch: str | Collection[str] | None = None,
    site: str | None = None,
    state: str | None = None,
    name: str | None = None,
    digest: str | None = None,
    job_digest: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[Record]:
    """Runs on record, oldest first; all filters must fit.

    Parameters
    ----------
    id, batch : str or collection of str, optional
        Ids of runs, or of batches.
    site, state, name : str, optional
        As of :func:`hpcml.runs`; the name is the job's.
    digest, job_digest : str, optional
        Of the run, or of the portable part of its plan.
    params : dict, optional
        Values of parameters; 1 and 1.0 are the same.
    tags : dict, optional
        Tags of the job.

    Returns
    -------
    list of Record

    Raises
    ------
    ArgumentError
        There is no such state, or a filter is of another type than such values are.
    RecordsError
        The records cannot be read.
    """
    from hpcml.records import asking

    given = _given(
        {
            "id": id,
            "batch": batch,
            "site": site,
            "state": state,
            "name": name,
            "digest": digest,
            "job_digest": job_digest,
            "params": params,
            "tags": tags,
        }
    )
    return _ask(lambda connection: asking.find(connection, given))


def top(
    metric: str, count: int = 10, *, highest: bool = False, by: str = "last", **filters: Any
) -> list[tuple[str, float]]:
    """The runs that are best in a metric, best first.

    Values that are no finite numbers take no part.

    Parameters
    ----------
    metric : str
    count : int
        How many at most.
    highest : bool
        Whether more is better.
    by : {"last", "lowest", "highest"}
        Which of a run's values counts.
    **filters
        As of :func:`find`.

    Returns
    -------
    list of (str, float)
        Ids and values.

    Raises
    ------
    ArgumentError
        There is no such filter, state or way to rank, or the count is below 0.
    UnknownNameError
        No run on record has logged such a metric. It is a KeyError, too.
    RecordsError
        The records cannot be read.
    """
    from hpcml.records import asking

    given = _given(filters)
    return _ask(lambda connection: asking.top(connection, metric, count, highest, by, given))


def history(run: str, metric: str) -> tuple[Point, ...]:
    """All values of a metric of a run, by the run's id.

    Raises
    ------
    RecordsError
        There is no such metric of it on record, or the records cannot be read.
    """
    from hpcml.records import asking

    return _ask(lambda connection: asking.history(connection, run, metric))


def histories(runs: Collection[str], metric: str) -> dict[str, tuple[Point, ...]]:
    """All values of a metric of several runs, by their ids; a run without it has no entry.

    Raises
    ------
    RecordsError
        The records cannot be read.
    """
    from hpcml.records import asking

    return _ask(lambda connection: asking.histories(connection, runs, metric))


def lineage(run: str, hops: int = 3, *, down: bool = False) -> list[Link]:
    """Which runs left what a run used, which left what those used, and so on.

    Parameters
    ----------
    run : str
        A run's id.
    hops : int
        How many steps to go.
    down : bool
        The other way: who used what it left.

    Returns
    -------
    list of Link
        Nearest first.

    Raises
    ------
    RecordsError
        The records cannot be read.
    """
    from hpcml.records import asking

    return _ask(lambda connection: asking.lineage(connection, run, hops, down))


def _given(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in filters.items() if value is not None}


def _sync(database: Database, site: str | None) -> int:
    from hpcml.connection import known_sites
    from hpcml.records import ingesting

    if site is not None:
        return ingesting.ingest(database, site)
    count = 0
    with database.making():
        for name in known_sites():
            try:
                count += ingesting.ingest(database, name)
            except RecordsError:
                raise
            except HpcmlError as error:
                warnings.warn(f"site {name} is passed over: {error}", SiteWarning, stacklevel=4)
    return count


def _ask(question: Callable[[Connection], T]) -> T:
    def work(database: Database) -> T:
        with database.reading() as connection:
            return question(connection)

    return with_database(work)


def with_database(work: Callable[[Database], T], *, remade: bool = True) -> T:
    """Do something with the records, for other parts of hpcml.

    Ones that are not there, or whose making was broken off, are made from the sites first. Corrupt
    ones are moved aside, and then there are none.
    """
    from hpcml.records.database import CorruptError, Database

    if enclosing_run() is not None:
        raise RecordsError("a job keeps no records", "Look at them from outside.")
    database = Database(find_place())
    try:
        return _try(work, database, remade)
    except CorruptError as error:
        aside = database.move_aside()
        if aside is not None:
            warnings.warn(
                f"{error.problem}; it was moved to {aside}, and is made anew from the sites",
                stacklevel=3,
            )
    return _try(work, database, remade)


def _try(work: Callable[[Database], T], database: Database, remade: bool) -> T:
    if remade and database.unmade:
        _sync(database, None)
    return work(database)
