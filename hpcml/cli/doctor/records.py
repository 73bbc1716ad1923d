"""The check of the records' database."""

from __future__ import annotations

from collections.abc import Iterator

from hpcml.records.place import find_place
from hpcml.surveying.finding import Check, Finding, ok, warn
from hpcml.units import memory_text


def records() -> Iterator[Finding]:
    """Whether it can be reached and read; nothing is made or brought up to date."""
    from hpcml.records.database import Database  # slow to load

    place = find_place()
    database = Database(place)
    where = str(place)
    if place.network:
        where += f", on this node alone, as your home is on {place.network}"
    if database.missing:
        yield ok(f"none yet; `hpcml sync` makes them: {where}")
        return
    state = database.state()
    text = f"{where}: schema {state.revision or 'none yet'}, {memory_text(state.size)}"
    if state.current:
        yield ok(text)
    else:
        yield warn(text, "`hpcml sync` brings it up to date.")


CHECKS: list[tuple[str, Check]] = [("records", records)]
