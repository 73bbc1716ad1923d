"""What could be freed: looked for in the workspace, and among what this machine keeps."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpcml.agent import trees
from hpcml.batch import batch_folder
from hpcml.batch_view import BatchView, look
from hpcml.connection import Connection
from hpcml.errors import HpcmlError
from hpcml.finding import forget_if_there
from hpcml.library import library_name
from hpcml.poller import poller
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
from hpcml.pruning.use import BATCH, SERVED, Use
from hpcml.pruning.use import LIBRARY as LIBRARY_NAME
from hpcml.records.place import find_place
from hpcml.settings import cache_folder, state_folder
from hpcml.transports import FileStatus

TRASH = ".trash-"  # begins the names of what was taken away, and is being removed
TEMPORARY = ".tmp-"
BY_DIGEST = re.compile(r"([0-9a-f]{64})(\.tar|\.pkl)?")
UNFINISHED = "an input that is not whole"
DATA_NAME = re.compile(r"([0-9a-f]{64})(\.whole)?")
REMAINS = "it was removed but for this, and something may still write there: that goes in a day"
JOB_FILE = re.compile(r"\d+-(.+)\.\d+\.(?:job|slot\.\d+)")


@dataclass(frozen=True)
class Wish:
    """What somebody wants to be freed.

    Attributes
    ----------
    older_than : float
        In s: since the last run of a submission ended.
    down_to : int or None
        Bytes to which the workspace is to shrink; ``None``: whatever is old enough.
    work_only : bool
        Only the work folders of runs.
    without_records : bool
        Also runs that are not on record.
    rarely : float
        In s: for how long nobody has relied on code or a library.
    forgotten : float
        In s: for how long nobody has touched what this machine remembers.
    """

    older_than: float
    down_to: int | None
    work_only: bool
    without_records: bool
    rarely: float
    forgotten: float


class Candidates:
    """Looks for what could be freed."""

    def __init__(self, connection: Connection, wish: Wish, use: Use) -> None:
        self.connection, self.wish, self.use = connection, wish, use
        self.files, self.now = connection.files, connection.files.now()
        self.kept: list[Kept] = []
        self.remains: list[FileStatus] = []  # of batches that were removed while they ran

    def find(self) -> list[Item]:
        """Everything, what nothing else depends on first."""
        views = self._views()
        self.use.refresh()
        self.use.ended(view.id for view in views if view.final)
        items = [*self._leftovers(), *self._unused(()), *cached(self.use, self.wish)]
        items += self._batches(views, sum(item.bytes for item in items if item.kind != CACHE))
        if not self.wish.work_only:
            known = {item.paths for item in items}
            gone = [item.name for item in items if item.kind == RUNS]
            items += [item for item in self._unused(gone) if item.paths not in known]
            for digest, _ in self._old_data():
                why = self.use.of_file(digest, gone)
                if why:
                    self.kept.append(Kept(DATA, digest, why))
        return items

    # --- batches --------------------------------------------------------------------------

    def _views(self) -> list[BatchView]:
        """All batches that can be read, looked at."""
        views, known = [], poller(self.connection.site.name)
        there: dict[str, FileStatus] = {}
        for entry in sorted(self.files.list("runs") or (), key=lambda entry: entry.name):
            if entry.name[0] == ".":
                continue
            if entry.kind != "folder" or not BATCH.fullmatch(entry.name):
                self.kept.append(Kept(RUNS, entry.name, "it is no submission of hpcml's"))
                continue
            there[entry.name] = entry
            try:
                views.append(known.view(entry.name))
            except HpcmlError as error:
                if not self._note_remains(entry):
                    self.kept.append(Kept(RUNS, entry.name, error.problem))
        look(views)
        for view in views:
            if view.removed:  # while this process knew it
                self._note_remains(there[view.id])
            forget_if_there(view)
        return views

    def _note_remains(self, entry: FileStatus) -> bool:
        """Note what is left of a batch, if that is not it: one without a plan never appears."""
        names = self.files.names(f"runs/{entry.name}")
        if names is None or "plan.json" in names:
            return False
        self.remains.append(entry)
        return True

    def _batches(self, views: Iterable[BatchView], freed: int) -> Iterator[Item]:
        left = None
        if self.wish.down_to is not None:
            whole = self.files.usage([""]) or trees.Usage()
            left = whole.bytes + whole.shared - freed
        for age, view in sorted(self._old(views), key=lambda row: -row[0]):
            if left is not None and left <= (self.wish.down_to or 0):
                return
            item = self._measured(self._batch(view, age))
            if item is not None:
                yield item
                left = None if left is None else left - item.bytes

    def _old(self, views: Iterable[BatchView]) -> Iterator[tuple[float, BatchView]]:
        """Batches that are old enough and not in use, with their ages."""
        for view in views:
            if view.removed:
                continue
            age = self.now - (self._ended(view) if view.final else view.submission.created)
            if age < self.wish.older_than:
                continue
            why = self.use.of_batch(view.id)
            if why:
                self.kept.append(Kept(RUNS, view.id, why))
            else:
                yield age, view

    def _ended(self, view: BatchView) -> float:
        """When its last run ended, as far as its files tell; rather too late than too early."""
        listed = [*(self.files.list(view.folder) or ())]
        listed += self.files.list(f"{view.folder}/attempts") or ()
        telling = "attempts", "0.words"
        times: list[float] = [entry.mtime for entry in listed if entry.name in telling]
        for seen in view.seen.values():
            end = seen.attempts[-1].end if seen.attempts else None
            if end is not None:
                times.append(float(end["time"]))
        return max([view.submission.created, *times])

    def _batch(self, view: BatchView, age: float) -> Item:
        count = view.count
        about = f"{view.plan.name}, {count} run" + "s" * (count > 1)
        folder = batch_folder(view.id)
        if not self.wish.work_only:
            return Item(RUNS, view.id, 0, age, about, (folder,))
        paths = tuple(f"{folder}/{index}/work" for index in view.indices)
        return Item(WORK, view.id, 0, age, about, paths)

    # --- code, libraries, data, leftovers ---------------------------------------------------------

    def _unused(self, gone: Iterable[str]) -> Iterator[Item]:
        """Code, libraries and data that nobody has relied on; batches that go do not count."""
        if self.wish.work_only:
            return
        gone = frozenset(gone)
        for kind, folder, pattern in (
            (CODE, "code", BY_DIGEST),
            (LIBRARY, "lib", LIBRARY_NAME),
        ):
            for entry in self._listed(folder):
                match = pattern.fullmatch(entry.name)
                if match is None or entry.kind not in ("file", "folder"):
                    continue
                name = entry.name if kind == LIBRARY else match[1]
                if self._age(entry) < self.wish.rarely or self.use.of_file(name, gone):
                    continue
                if kind == LIBRARY and self.use.queued:
                    self.kept.append(Kept(kind, entry.name, SERVED))
                    continue
                yield from self._item(kind, folder, entry)
        yield from self._unused_data(gone)

    def _unused_data(self, gone: frozenset[str]) -> Iterator[Item]:
        """Inputs and images that no batch names, and that are whole; what says so goes first."""
        for digest, entry in self._old_data():
            if not self.use.of_file(digest, gone):
                names = ", ".join(sorted(self.files.names(f"data/{digest}.whole") or ()))
                paths = f"data/{digest}.whole", f"data/{digest}"
                item = self._measured(Item(DATA, digest, 0, self._age(entry), names, paths))
                if item is not None:
                    yield item

    def _old_data(self) -> list[tuple[str, FileStatus]]:
        """Whole inputs that nobody has relied on for long, with their digests."""
        data, markers = self._data_of(""), self._data_of(".whole")
        return [
            (digest, entry)
            for digest, entry in data.items()
            if digest in markers and self._age(entry) >= self.wish.rarely
        ]

    def _data_of(self, end: str) -> dict[str, FileStatus]:
        """By digest, what lies in ``data/`` with such an end to its name."""
        found = ((DATA_NAME.fullmatch(entry.name), entry) for entry in self._listed("data"))
        return {match[1]: entry for match, entry in found if match and (match[2] or "") == end}

    def _leftovers(self) -> Iterator[Item]:
        """What a killed process left, or a job that wrote on where its run was removed."""
        for entry in self.remains:
            if self._age(entry) < DAY or self.use.is_awaited(entry.name):
                self.kept.append(Kept(RUNS, entry.name, REMAINS))
            else:
                yield from self._item(LEFTOVER, "runs", entry, "of a submission that was removed")
        data, markers = self._data_of(""), self._data_of(".whole")
        for digest in data.keys() ^ markers.keys():  # one without the other
            entry = data.get(digest) or markers[digest]
            if self._age(entry) >= DAY:
                yield from self._item(LEFTOVER, "data", entry, UNFINISHED)
        for folder in ("runs", "code", "lib", "queue", "data"):
            for entry in self._listed(folder):
                if entry.name.startswith(TRASH):
                    yield from self._item(LEFTOVER, folder, entry, "of a prune")
                elif self._age(entry) < DAY:
                    continue
                elif entry.name.startswith(TEMPORARY):
                    yield from self._item(LEFTOVER, folder, entry, "half-written")
                elif folder == "queue" and self._is_litter(entry.name):
                    yield from self._item(LEFTOVER, folder, entry, "of a job that is gone")

    def _is_litter(self, name: str) -> bool:
        """Whether it is a file of the queue for a batch that is not there, or has long been served.

        A slot's file goes after its job's.
        """
        match = JOB_FILE.fullmatch(name)
        if match is None:
            return False
        if name.endswith(".job"):
            return not self.use.has(match[1])
        return match[1] not in self.use.queued

    def _item(self, kind: str, folder: str, entry: FileStatus, about: str = "") -> Iterator[Item]:
        item = Item(kind, entry.name, 0, self._age(entry), about, (f"{folder}/{entry.name}",))
        measured = self._measured(item)
        if measured is not None:
            yield measured

    def _listed(self, folder: str) -> list[FileStatus]:
        return sorted(self.files.list(folder) or (), key=lambda entry: (entry.mtime, entry.name))

    def _age(self, entry: FileStatus) -> float:
        return max(0.0, self.now - entry.mtime)

    def _measured(self, item: Item) -> Item | None:
        """With its size; ``None`` if there is nothing, or something that is not ours to remove."""
        used = self.files.usage(item.paths)
        if used is None:
            return None
        if used.foreign:
            why = f"{used.foreign} is another user's, or on another file system"
            self.kept.append(Kept(item.kind, item.name, why))
            return None
        return replace(item, bytes=used.bytes, whole=used.whole)


# --- this machine -----------------------------------------------------------------------------


def cached(use: Use, wish: Wish) -> Iterator[Item]:
    """What this machine remembers and can find out again, and databases that were moved aside."""
    if wish.work_only:
        return
    cache, now = cache_folder(), time.time()
    for path in [path for name in ("code", "lib", "digests") for path in _files(cache / name)]:
        why = _why_cached(path, use)
        if why:
            yield from _old_file(path, now, DAY if why == HALF else wish.forgotten, why)
    for path in _files(state_folder() / "outbox"):
        if path.name.startswith(TEMPORARY):
            yield from _old_file(path, now, DAY, HALF)
    for path in _moved_aside():
        yield from _old_file(path, now, wish.forgotten, "records that could not be read")


HALF = "half-written"


def _why_cached(path: Path, use: Use) -> str:
    """What a file of the cache is, unless somebody needs it."""
    if path.name.startswith(TEMPORARY):
        return HALF
    if path.parent.name == "digests":
        return "digests of an input"
    match = BY_DIGEST.fullmatch(path.name)
    if use.of_waiting(match[1] if match else path.name) or path.name == library_name():
        return ""
    return "code that waited for a site" if match else "an archive for sites"


def _moved_aside() -> list[Path]:
    try:
        path = find_place().path
    except HpcmlError:
        return []  # the settings are wrong; whoever asks for records is told so
    return [] if path is None else sorted(path.parent.glob(f"{path.name}.corrupt-*"))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if not entry.is_dir())
    except OSError:
        return []


def _old_file(path: Path, now: float, age: float, about: str) -> Iterator[Item]:
    used = trees.usage([str(path)])
    with suppress(FileNotFoundError):  # it served its purpose just now
        old = now - path.lstat().st_mtime
        if used is not None and not used.foreign and old >= age:
            yield Item(CACHE, path.name, used.bytes, old, about, (str(path),))
