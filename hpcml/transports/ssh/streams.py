"""Many files as one stream, in both directions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcml.agent.files import pieces_of
from hpcml.agent.files import told as of_system
from hpcml.errors import TransportError
from hpcml.transports.base import told


class Outgoing:
    """The contents of files, one after the other.

    Attributes
    ----------
    sizes : list of (str, int)
        Names of the files, and how many bytes each has in the stream.
    """

    def __init__(self, files: Mapping[str, bytes | Path]) -> None:
        self._contents = list(files.values())
        self.sizes = [(name, _size(content)) for name, content in files.items()]

    @property
    def size(self) -> int:
        """Bytes of all together."""
        return sum(size for _, size in self.sizes)

    def pieces(self) -> Iterator[bytes]:
        """All bytes, as often as one likes."""
        for content, (_, size) in zip(self._contents, self.sizes, strict=True):
            yield from _exactly(content, size)


def receive(frames: Iterable[tuple[dict[str, Any], bytes]], target: Path) -> None:
    """Make what :meth:`hpcml.agent.files.Files.stream` has said, at ``target``.

    A folder is made before what is in it, and no row can lead elsewhere: not by ``..``, nor by a
    link that another has made.
    """
    root = os.fsencode(target)
    folders: dict[bytes, tuple[int, int]] = {}  # mode and mtime, for when it is full
    open_file: _File | None = None
    for head, body in frames:
        row = head.get("part", ["end"])
        if row[0] == "more" and open_file is not None:
            open_file.write(body)
            continue
        if open_file is not None:
            open_file.close()
            open_file = None
        if row[0] == "end":
            break
        kind, relative, *facts = row
        path = _below(root, relative, folders)
        if kind == "folder":
            os.mkdir(path, 0o700)
            folders[path] = facts[0], facts[1]
        elif kind == "link":
            os.symlink(os.fsencode(facts[0]), path)
        else:
            open_file = _File(path, *facts)
            open_file.write(body)
    for path, (mode, mtime) in reversed(folders.items()):
        os.utime(path, ns=(mtime, mtime))
        os.chmod(path, mode)


class _File:
    """A file that is being received."""

    def __init__(self, path: bytes, mode: int, mtime: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._mode, self._mtime = mode, mtime

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        os.utime(self._descriptor, ns=(self._mtime, self._mtime))
        os.fchmod(self._descriptor, self._mode)
        os.close(self._descriptor)


def _below(root: bytes, relative: str, folders: dict[bytes, tuple[int, int]]) -> bytes:
    """The path of a row; its folder is one that we have made."""
    if not relative and not folders:
        return root
    path = os.path.join(root, os.fsencode(relative))
    above, name = os.path.split(path)
    if above not in folders or name in (b"", b".", b".."):
        raise TransportError(f"the site has sent {relative!r}, which leads elsewhere", "Report it.")
    return path


def _size(content: bytes | Path) -> int:
    if isinstance(content, bytes):
        return len(content)
    with told(), of_system(f"{content} cannot be read"):
        return content.stat().st_size


def _exactly(content: bytes | Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file, whoever writes to it."""
    if isinstance(content, bytes):
        yield content
        return
    for piece in pieces_of(str(content)):
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return
    if size:
        raise TransportError(f"{content} was cut short while it was sent", "Send it again.")
