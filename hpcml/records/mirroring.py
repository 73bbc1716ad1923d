"""Which runs have been copied to another store. That store is the truth; this saves asking it."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from hpcml.records import schema
from hpcml.records.database import Database
from hpcml.records.writing import parts


def unmirrored(database: Database, store: str) -> list[str]:
    """Ids of the final runs of which no copy is known, in the order in which they were recorded.

    Parameters
    ----------
    store : str
        The store's key.
    """
    runs, mirrored = schema.runs, schema.mirrored
    there = select(mirrored.c.run_id).where(mirrored.c.store == store)
    asked = select(runs.c.run).where(runs.c.final, runs.c.id.not_in(there)).order_by(runs.c.id)
    with database.reading() as connection:
        return list(connection.scalars(asked))


def any_mirror(database: Database, store: str) -> str | None:
    """What one of the runs is called there; ``None``: none is known."""
    table = schema.mirrored
    asked = select(table.c.mirror).where(table.c.store == store)
    with database.reading() as connection:
        return connection.scalar(asked.order_by(table.c.run_id.desc()).limit(1))


def note_mirrors(database: Database, store: str, mirrors: Mapping[str, str]) -> None:
    """Note what runs are called in another store, by their ids."""
    table, runs = schema.mirrored, schema.runs
    with database.writing() as connection:
        for some in parts(mirrors):
            found = connection.execute(select(runs.c.run, runs.c.id).where(runs.c.run.in_(some)))
            rows = [
                {"store": store, "run_id": identifier, "mirror": mirrors[run]}
                for run, identifier in found
            ]
            ids = [row["run_id"] for row in rows]
            connection.execute(delete(table).where(table.c.store == store, table.c.run_id.in_(ids)))
            if rows:
                connection.execute(insert(table), rows)


def forget_mirrors(database: Database, store: str) -> None:
    """The store is another one than it was: nothing of ours is in it."""
    with database.writing() as connection:
        connection.execute(delete(schema.mirrored).where(schema.mirrored.c.store == store))
