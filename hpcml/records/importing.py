"""Runs that hpcml did not start become records as well."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import select

from hpcml.records import schema
from hpcml.records.database import Database
from hpcml.records.gathering import Head, Told
from hpcml.records.writing import parts, write_batch, write_runs

BATCHES = 100  # that are written together


def final_runs(database: Database, runs: Collection[str]) -> set[str]:
    """Which of these runs, by their ids, are on record as final."""
    table = schema.runs
    with database.reading() as connection:
        return {
            run
            for some in parts(sorted(runs))
            for run in connection.scalars(
                select(table.c.run).where(table.c.final, table.c.run.in_(some))
            )
        }


def take_in(database: Database, batches: Iterable[tuple[Head, Sequence[Told]]]) -> int:
    """Record runs; those that are final on record stay as they are.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    RecordsError
        The records cannot be written.
    """
    count = 0
    with database.held():
        for some in parts(batches, BATCHES):
            with database.writing() as connection:
                for head, runs in some:
                    count += write_runs(connection, write_batch(connection, head), runs)
    return count
