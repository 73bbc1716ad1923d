"""The machine hpcml itself runs on."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from hpcml.agent.files import Files, pieces_of
from hpcml.agent.files import told as of_system
from hpcml.agent.trees import Usage
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.transports import Completed, Digest, FileStatus
from hpcml.transports.base import Arriving, by_name, told, until_free


class LocalTransport:
    """See :class:`hpcml.transports.Transport`."""

    def __init__(self, site: Site, binding: Binding) -> None:
        self.workspace = binding.workspace
        with told():
            self._files = Files(self.workspace)
        _transports.add(self)

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        with told():
            return Completed(tuple(argv), *self._files.run(argv, stdin))

    def put(self, files: Mapping[str, bytes | Path]) -> None:
        with told():
            for name, content in files.items():
                self._files.put(name, _content(content))

    def publish(
        self,
        folder: str,
        files: Mapping[str, bytes],
        empty: Iterable[str] = (),
        synced: Iterable[str] = (),
    ) -> bool:
        with told():
            return self._files.publish(folder, files.items(), empty, synced)

    def get(self, paths: Mapping[str, int]) -> dict[str, bytes]:
        with told():
            return self._files.get(paths)

    def list(self, folder: str) -> list[FileStatus] | None:
        with told():
            entries = self._files.list(folder)
        return None if entries is None else [FileStatus(*entry) for entry in entries]

    def names(self, folder: str) -> set[str] | None:
        with told():
            names = self._files.names(folder)
        return None if names is None else set(names)

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        found = ((folder, self.names(folder)) for folder in folders)
        return {folder: names for folder, names in found if names is not None}

    def walk(self, paths: Iterable[str]) -> dict[str, dict[str, FileStatus]]:
        with told():
            found = [(path, self._files.walk(path)) for path in paths]
        return {path: by_name(entries) for path, entries in found if entries is not None}

    def digest(self, paths: Iterable[str]) -> dict[str, Digest]:
        with told():
            found = [(path, self._files.digest(path)) for path in paths]
        return {path: Digest(*said) for path, said in found if said is not None}

    def put_once(self, files: Mapping[str, bytes]) -> set[str]:
        with told():
            return {name for name, content in files.items() if self._files.put_once(name, content)}

    def put_verified(
        self, files: Mapping[str, Path], digests: Mapping[str, str], executable: Collection[str]
    ) -> set[str]:
        def is_stored(name: str, source: Path) -> bool:
            pieces = pieces_of(str(source))
            return self._files.put_verified(name, pieces, digests[name], name in executable)

        with told():
            return {name for name, source in files.items() if not is_stored(name, source)}

    def link(self, links: Mapping[str, str]) -> None:
        with told():
            for path, target in links.items():
                self._files.link(path, target)

    def seal(self, folder: str) -> None:
        with told():
            self._files.seal(folder)

    def append(self, path: str, record: Mapping[str, Any]) -> None:
        with told():
            self._files.append(path, record)

    def open_private(self, path: str) -> BinaryIO:
        with told():
            return self._files.open_private(path)

    def fetch(self, files: Mapping[str, Path]) -> None:
        targets = list(files.values())
        with told():
            for number, mode, mtime, pieces in self._files.stream(files):
                what = f"{targets[number]} cannot be written"
                with of_system(what), Arriving(targets[number], mode, mtime) as file:
                    for piece in pieces:
                        file.write(piece)
                    file.appear()

    def remove(self, paths: Iterable[str]) -> None:
        with told():
            for path in paths:
                self._files.remove(path)

    def move(self, source: str, target: str) -> bool:
        with told():
            return self._files.move(source, target)

    def touch(self, paths: Iterable[str], markers: Iterable[str] = ()) -> dict[str, FileStatus]:
        with told():
            paths = [*paths, *filter(self._files.is_whole, markers)]
            found = {path: self._files.touch(path) for path in paths}
        return {path: FileStatus(*entry) for path, entry in found.items() if entry is not None}

    def usage(self, paths: Iterable[str]) -> Usage | None:
        with told():
            return self._files.usage(paths)

    @contextmanager
    def holding(self, *, alone: bool = False) -> Iterator[None]:
        with told():
            held = until_free(self.workspace, alone, lambda: self._files.lock(alone))
        try:
            yield
        finally:
            self._files.unlock(held)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()  # nothing is far away

    def now(self) -> float:
        return time.time()


def _content(content: bytes | Path) -> bytes | Iterable[bytes]:
    return pieces_of(str(content)) if isinstance(content, Path) else content


_transports: weakref.WeakSet[LocalTransport] = weakref.WeakSet()


@atexit.register
def _end_commands() -> None:
    """One that hangs, and that nobody waits for any more, must not stay for good."""
    for transport in [*_transports]:
        transport._files.end_commands()


os.register_at_fork(after_in_child=_transports.clear)  # the commands are the parent's
