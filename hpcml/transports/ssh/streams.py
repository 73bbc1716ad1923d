"""Many files as one stream, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcml.agent.commands import PIECE
from hpcml.agent.files import pieces_of
from hpcml.agent.files import told as of_system
from hpcml.errors import TransportError
from hpcml.transports.base import Arriving, told


class Outgoing:
    """The contents of files, one after the other.

    Parameters
    ----------
    filled_up : bool
        A file that is cut short meanwhile is filled up with zeros: its digest tells.

    Attributes
    ----------
    sizes : list of (str, int)
        Names of the files, and how many bytes each has in the stream.
    """

    def __init__(self, files: Mapping[str, bytes | Path], *, filled_up: bool = False) -> None:
        self._filled_up = filled_up
        self._contents = list(files.values())
        self.sizes = [(name, _size(content)) for name, content in files.items()]

    @property
    def size(self) -> int:
        """Bytes of all together."""
        return sum(size for _, size in self.sizes)

    def pieces(self) -> Iterator[bytes]:
        """All bytes, as often as one likes."""
        for content, (_, size) in zip(self._contents, self.sizes, strict=True):
            yield from _exactly(content, size, self._filled_up)


def receive(frames: Iterable[tuple[dict[str, Any], bytes]], files: dict[str, Path]) -> None:
    """Make the files that :meth:`hpcml.agent.files.Files.stream` has sent.

    Parameters
    ----------
    files : dict
        What was asked for, and where it is to be; those that have appeared are taken out.
    """
    asked, following = list(files.items()), iter(frames)
    head, body = next(following)
    while row := head.get("part"):
        name, target = asked[row[0]]
        with of_system(f"{target} cannot be written"), Arriving(target, *row[1:]) as file:
            file.write(body)
            while "last" not in head:
                head, body = next(following)
                file.write(body)
            file.appear()
        files.pop(name, None)
        head, body = next(following)


def _size(content: bytes | Path) -> int:
    if isinstance(content, bytes):
        return len(content)
    with told(), of_system(f"{content} cannot be read"):
        return content.stat().st_size


def _exactly(content: bytes | Path, size: int, filled_up: bool) -> Iterator[bytes]:
    """So many bytes of a file, whoever writes to it."""
    if isinstance(content, bytes):
        yield content
        return
    for piece in pieces_of(str(content)):
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return
    while filled_up and size:
        zeros = bytes(min(size, PIECE))
        yield zeros
        size -= len(zeros)
    if size:
        raise TransportError(f"{content} was cut short while it was sent", "Send it again.")
