"""Runs side by side: what they cost and gave, and what makes them hard to compare.

>>> print(hpcml.compare(runs, by="width"))                 # doctest: +SKIP

Figures come from the records alone, and from runs that are COMPLETED alone. Nothing is estimated,
and what is missing is missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from hpcml import records
from hpcml.agent import wire
from hpcml.comparison.figures import Column
from hpcml.comparison.grouping import tabulate
from hpcml.comparison.median import Summary
from hpcml.comparison.table import Point, Row, Table
from hpcml.connection import known_sites
from hpcml.errors import ArgumentError, HpcmlError, RecordsError, RunNotFoundError
from hpcml.records.model import Record

if TYPE_CHECKING:
    from hpcml.run import Run

__all__ = ["Column", "Point", "Row", "Summary", "Table", "compare"]


def compare(
    runs: Run | Record | str | Iterable[Run | Record | str],
    by: str | Sequence[str] | None = None,
) -> Table:
    """Compare runs, as far as they are on record; what is new of their batches is recorded first.

    Parameters
    ----------
    runs : Runs, or iterable of Run, str or Record
        Handles, ids of runs or of whole submissions, records.
    by : str or sequence of str, optional
        Parameters: runs that are equal in them share a row. Default: runs of the same job with the
        same parameters on the same site do.

    Returns
    -------
    Table

    Raises
    ------
    ArgumentError
        There are no runs, or no run has such a parameter.
    RunNotFoundError
        A run is nowhere on record.
    RecordsError
        The records cannot be read.
    """
    several = isinstance(runs, Iterable) and not isinstance(runs, str)
    given = list(cast("Iterable[Run | Record | str]", runs if several else [runs]))
    if not given:
        raise ArgumentError("there are no runs to compare", "`hpcml runs` lists those there are.")
    names = [by] if isinstance(by, str) else None if by is None else list(by)
    return tabulate(_on_record(given), names)


def _on_record(given: Sequence[Run | Record | str]) -> list[Record]:
    """Records of all that was given, each once, in that order."""
    known = {
        one.id: one for one in given if isinstance(one, Record) and (one.final or one.imported)
    }
    asked = [_address(one) for one in given]
    open_ = {address: site for address, site in asked if address not in known}
    _ingest(open_)
    found = {**known, **{record.id: record for record in _find(open_)}}
    batches: dict[str, list[str]] = {}
    for record in found.values():
        batches.setdefault(record.batch, []).append(record.id)
    ids: dict[str, None] = {}
    for address, _ in asked:
        here = [address] if address in found else batches.get(address, [])
        if not here:
            problem = f"there is no run {address} on record, nor on the sites that were asked"
            raise RunNotFoundError(problem, "`hpcml runs` lists those there are.")
        ids.update(dict.fromkeys(here))
    return [found[id] for id in ids]


def _address(one: Run | Record | str) -> tuple[str, str | None]:
    """Id of a run, or of a batch, and its site if that is told."""
    if not isinstance(one, str):
        return one.id, one.site
    batch, _, index = one.partition(".")
    return (wire.run_id(batch, int(index)) if index.isdecimal() else one), None


def _ingest(addresses: dict[str, str | None]) -> None:
    """Record what is new of just these batches. A site out of reach leaves what was recorded."""
    sites: dict[str, set[str]] = {}
    unknown = set()
    for address, site in addresses.items():
        batch = address.partition(".")[0]
        if site is None:
            unknown.add(batch)
        else:
            sites.setdefault(site, set()).add(batch)
    for record in _first_of(unknown):
        if not record.imported:
            sites.setdefault(record.site, set()).add(record.batch)
        unknown.discard(record.batch)
    if unknown:
        for site in known_sites():
            sites.setdefault(site, set()).update(unknown)
    for site, batches in sites.items():
        try:
            records.ingest(site, batches)
        except RecordsError:
            raise
        except HpcmlError as error:
            warnings.warn(f"what is new on site {site} is not known: {error}", stacklevel=4)


def _first_of(batches: Collection[str]) -> list[Record]:
    return records.find(id=[wire.run_id(batch, 0) for batch in batches]) if batches else []


def _find(addresses: Iterable[str]) -> Iterator[Record]:
    ids = [address for address in addresses if "." in address]
    batches = [address for address in addresses if "." not in address]
    if ids:
        yield from records.find(id=ids)
    if batches:
        yield from records.find(batch=batches)
