"""Free what was found, if nothing uses it now.

Each thing goes in two steps. While nobody submits, it is renamed, at once and with no need of
space, if nothing names it by then. What bears such a name is removed afterwards, by this process
or, should that be killed, by the next one that prunes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpcml import records
from hpcml.agent import trees, wire
from hpcml.connection import Connection
from hpcml.errors import RecordsError, TransportError
from hpcml.pruning.candidates import BY_DIGEST, TRASH, UNFINISHED, Wish
from hpcml.pruning.model import (
    CACHE,
    CODE,
    DATA,
    DAY,
    LEFTOVER,
    LIBRARY,
    RUNS,
    WORK,
    Item,
    Kept,
)
from hpcml.pruning.use import SERVED, Use
from hpcml.records.place import find_place


class Freeing:
    """Frees items of one site, and notes what had to stay."""

    def __init__(self, connection: Connection, wish: Wish, use: Use) -> None:
        self.connection, self.wish, self.use = connection, wish, use
        self.files = connection.files
        self.freed: list[Item] = []
        self.kept: list[Kept] = []

    def free(self, items: Sequence[Item]) -> None:
        """First what needs no record: recording needs space, and there may be none."""
        self._free([item for item in items if item.kind in (LEFTOVER, CACHE)])
        rest = [item for item in items if item.kind not in (LEFTOVER, CACHE)]
        runs = [item for item in rest if item.kind == RUNS]
        missing = {} if self.wish.without_records else self._unrecorded([i.name for i in runs])
        self.kept += [Kept(RUNS, name, why) for name, why in missing.items()]
        self._free([item for item in rest if item.kind != RUNS or item.name not in missing])

    def _free(self, items: Sequence[Item]) -> None:
        if not items:
            return
        with self.files.holding(alone=True):
            self.use.refresh()
            taken = [(item, self._take(item)) for item in items]
        for item, places in taken:
            self._remove(item, places)

    def _take(self, item: Item) -> list[str]:
        """Take an item out of use, unless something uses it now. Returns where it is then."""
        why = self._in_use(item)
        if why:
            self.kept.append(Kept(item.kind, item.name, why))
            return []
        if item.kind == CACHE:
            return self._cached(item)
        try:
            places = [place for path in item.paths if (place := self._taken(path)) is not None]
        except TransportError as error:
            self.kept.append(Kept(item.kind, item.name, error.problem))
            return []
        if item.kind == RUNS:
            self.use.forget(item.name)
        return places

    def _in_use(self, item: Item) -> str:
        if item.kind in (RUNS, WORK):
            return self.use.of_batch(item.name)
        if item.kind == LIBRARY and self.use.queued:
            return SERVED
        if item.kind == LEFTOVER and self.use.is_awaited(item.name):
            return "the queue still has it"
        if item.about == UNFINISHED and self._is_young(item, DAY):
            return "somebody has gone on with it meanwhile"
        match = BY_DIGEST.fullmatch(item.name)
        name = match[1] if match else item.name
        if item.kind == CACHE and self.use.of_waiting(name):
            return "a submission that was broken off needs it"
        if item.kind not in (CODE, LIBRARY, DATA):
            return ""
        why = self.use.of_file(name)
        if not why and self._is_young(item, self.wish.rarely):
            return "somebody has relied on it meanwhile"
        return why

    def _is_young(self, item: Item, age: float) -> bool:
        folder, _, name = item.paths[-1].rpartition("/")
        now = self.files.now()
        there = [entry for entry in self.files.list(folder) or () if entry.name == name]
        return any(now - entry.mtime < age for entry in there)

    def _cached(self, item: Item) -> list[str]:
        (path,) = item.paths
        try:
            old = time.time() - Path(path).lstat().st_mtime >= item.age
        except FileNotFoundError:
            return []
        return [path] if old else []

    def _taken(self, path: str) -> str | None:
        """Where something is after it was taken away; ``None``: another prune was quicker."""
        folder = path.partition("/")[0]
        place = f"{folder}/{TRASH}{wire.unique()}"
        return place if self.files.move(path, place) else None

    def _remove(self, item: Item, places: Iterable[str]) -> None:
        places = list(places)
        try:
            if item.kind == CACHE:
                for place in places:
                    trees.remove(place)
            else:
                self.files.remove(places)
        except (TransportError, OSError) as error:
            said = error.problem if isinstance(error, TransportError) else str(error)
            why = f"some of it could not be removed: {said}"
            self.kept.append(Kept(item.kind, item.name, why))
            return
        if places:
            self.freed.append(item)

    def _unrecorded(self, batches: Sequence[str]) -> dict[str, str]:
        """What is not on record for good, and why; what is new is recorded first."""
        if not batches:
            return {}
        why = "not all of it is on record yet"
        try:
            place = find_place()
            if place.network:
                why = (
                    f"the records are in {place}, on this machine alone and not for good (the home "
                    f"is on {place.network}); name a PostgreSQL database in the settings"
                )
                return dict.fromkeys(batches, why)
            left = {*batches} - records.recorded(batches)
            if left:
                records.ingest(self.connection.site.name, left)
                left -= records.recorded(left)
        except RecordsError as error:
            return dict.fromkeys(batches, f"it cannot be recorded: {error.problem}")
        return dict.fromkeys(left, why)
