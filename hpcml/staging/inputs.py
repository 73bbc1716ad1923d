"""Inputs and images go to a site: each content once, by digest, and believed only when whole.

Files go there in streams, each appearing whole, and only with the SHA-256 that it must have. Then
all of it becomes read-only, the site reads it once more, and if that gives the digest, a marker
beside it says that it is whole (:func:`hpcml.agent.wire.data_marker`). Nobody believes what has no
marker: what a broken-off submission has left there is gone on with. Files that somebody has changed
in spite of all that are brought anew; the others stay where they are, for runs that read them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcml.agent import wire
from hpcml.errors import JobError, TransportError
from hpcml.planning import Plan
from hpcml.resolving import content_of
from hpcml.staging.fetching import stays
from hpcml.transports import FileStatus, Transport

MOST_BYTES, MOST_FILES = 256 << 20, 5000  # that are sent before one hears whether all is well

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Input:
    """An input, or the image, as a plan has it on its site.

    Attributes
    ----------
    field : str
        Of the job, which errors name: ``inputs.t2m``, ``image``.
    digest : str
    file : str
        Its own name, which it has there, too.
    """

    field: str
    digest: str
    file: str

    @property
    def folder(self) -> str:
        """Where its content lies in the workspace, under each name."""
        return wire.data_folder(self.digest)

    @property
    def path(self) -> str:
        """Where it lies there."""
        return f"{self.folder}/{self.file}"

    @property
    def marker(self) -> str:
        """What says that it is whole."""
        return wire.data_marker(self.digest, self.file)

    @property
    def needed(self) -> tuple[str, str]:
        """What must be there; data that was removed by hand may have left its marker."""
        return self.folder, self.marker


def staged(plan: Plan) -> list[Input]:
    """What a plan has in the workspace of its site: inputs, and the image."""
    what, where = plan.what, plan.where
    found = [
        Input(f"inputs.{name}", digest, posixpath.basename(where["inputs"][name]))
        for name, digest in what["inputs"].items()
        if name not in where["origins"] and name not in where["stamps"]
    ]
    if what["image"] is not None:
        image = Input("image", what["image"], posixpath.basename(where["image"]))
        # Else it is read where it lies; older plans have it in another folder.
        if where["image"] == f"{where['workspace']}/{image.path}":
            found.append(image)
    return found


def stage(one: Input, source: Path, files: Transport) -> None:
    """Bring an input to the site; what has arrived of it before is not sent again.

    Raises
    ------
    JobError
        It has changed since it was digested, or cannot be sent.
    TransportError
        The site cannot be reached, or its disk is full; or the copy there is not what was sent.
    """
    staging = _Staging(one, source, files)
    try:
        staging.bring()
    except TransportError as error:
        staging.refuse_if_changed()
        error.add_note(f"Submit again: what has arrived of {one.field} is not sent again.")
        raise


class _Staging:
    """One input on its way.

    Attributes
    ----------
    rows : list of (str, str, str)
        What it consists of, as :func:`hpcml.agent.wire.tree_digest` takes it.
    """

    def __init__(self, one: Input, source: Path, files: Transport) -> None:
        self.one, self.source, self.files = one, source, files
        self.rows = self.refuse_if_changed()
        for name, kind, target in self.rows:
            if kind == "link" and not stays(name, target):
                problem = f"{source / name} is a link that leads out of {source}"
                advice = "Put there what it leads to, or leave it out."
                raise JobError(one.field, problem, advice)

    def refuse_if_changed(self) -> list[Row]:
        """What it consists of, which must be what was digested."""
        rows, digest = content_of(self.one.field, self.source)
        if digest != self.one.digest:
            raise self._changed(self.source)
        return rows

    def bring(self) -> None:
        """Send what is missing, and have the site say that it is whole."""
        there, whole = self._names()
        if self.one.file in whole:  # it was changed since, or another client has just mended it
            if self._is_marked() or self._is_verified():
                return
            self._remove_changed()
        elif whole and self.one.file not in there:  # a link beside that is all it takes
            self.files.link({self.one.path: min(whole)})
        for _ in range(2):
            self._send()
            if self._is_verified():
                return
            self._take_away()
        raise TransportError(
            f"the copy of {self.source} on the site is not what was sent",
            "Look for who else writes to the workspace, or whether its disk fails.",
        )

    def _names(self) -> tuple[set[str], set[str]]:
        """The names that the content has there, and those under which it was found to be whole."""
        data, markers = self.one.folder, posixpath.dirname(self.one.marker)
        found = self.files.names_in([data, markers])
        there = found.get(data, set())
        return there, there & found.get(markers, set())

    def _is_marked(self) -> bool:
        """Whether it is as it was when somebody found it to be whole."""
        return self.one.marker in self.files.touch([], [self.one.marker])

    def _is_verified(self) -> bool:
        """Have the site make it read-only and read it, and note that it is whole if so."""
        self.files.seal(self.one.folder)  # before: a file's times change with its mode
        said = self.files.digest([self.one.path]).get(self.one.path)
        if said is None or said.sha256 != self.one.digest:
            return self._is_marked()  # another client has brought it anew while this one read it
        mark = {"sha256": said.sha256, "bytes": said.bytes, "stamp": said.stamp}
        self.files.put({self.one.marker: wire.canonical(mark)})
        return True

    def _remove_changed(self) -> None:
        """Take away the files that are not what they were: runs may be reading the others."""
        digests = {self._path(name): content for name, kind, content in self.rows if kind != "link"}
        ours = {self._path(name) for name, _, _ in self.rows}
        there = self.files.walk([self.one.path]).get(self.one.path, {}).items()
        added = {self._path(name) for name, found in there if found.kind != "folder"} - ours
        said = self.files.digest(digests)
        changed = [path for path, found in said.items() if found.sha256 != digests[path]]
        self.files.remove([*added, *changed])

    def _take_away(self) -> None:
        """Out of the way at once, under all its names, and what says that it is whole first.

        After a power loss files may be there without their content, and look like others.
        """
        for path in (posixpath.dirname(self.one.marker), self.one.folder):
            aside = f"{posixpath.dirname(path)}/.tmp-{wire.unique()}"
            if self.files.move(path, aside):
                self.files.remove([aside])

    def _send(self) -> None:
        """Send the files and links that are not there."""
        there = self.files.walk([self.one.path]).get(self.one.path)
        if not self.rows and there is None:
            self.files.publish(self.one.path, {})
        missing = [row for row in self.rows if not self._is_there(row, (there or {}).get(row[0]))]
        links = {self._path(name): target for name, kind, target in missing if kind == "link"}
        if links:
            self.files.link(links)
        for rows in _at_once(missing, self._size):
            sources = {self._path(name): self.source / name for name, _, _ in rows}
            digests = {self._path(name): digest for name, _, digest in rows}
            executable = {self._path(name) for name, kind, _ in rows if kind == "exec"}
            for path in self.files.put_verified(sources, digests, executable):
                raise self._changed(sources[path])

    def _is_there(self, row: Row, found: FileStatus | None) -> bool:
        _, kind, content = row
        if kind == "link":
            return found is not None and found.target == content
        return found is not None and found.kind == "file" and found.size == self._size(row)

    def _size(self, row: Row) -> int:
        try:
            return (self.source / row[0]).stat().st_size
        except OSError as error:
            raise self._changed(self.source / row[0]) from error

    def _path(self, name: str) -> str:
        return posixpath.join(self.one.path, name) if name else self.one.path

    def _changed(self, path: Path) -> JobError:
        problem = f"{path} has changed since it was looked at, or while it was sent"
        return JobError(self.one.field, problem, "Submit again when nobody writes to it.")


def _at_once(rows: Iterable[Row], size: Callable[[Row], int]) -> Iterator[list[Row]]:
    """Files in portions, after each of which one hears whether all is well."""
    some: list[Row] = []
    gathered = 0
    for row in rows:
        if row[1] == "link":
            continue
        some.append(row)
        gathered += size(row)
        if gathered >= MOST_BYTES or len(some) >= MOST_FILES:
            yield some
            some, gathered = [], 0
    if some:
        yield some
