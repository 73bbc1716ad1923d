"""The agent's own lines in a run's ``events.jsonl``; the job's are written by hpcml.injob."""

import itertools
import os
import time

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Iterable, Iterator

BLOCK = 1 << 20  # bytes of a file of events that are looked at together


class Events:
    """Appends events, each with wall clock ``t`` (s) and monotonic clock ``m`` (ns).

    A full disk costs events, never the run: what could not be written is counted in ``lost``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost = 0

    def write(self, event: str, **fields: "Any") -> None:
        record = dict(fields, e=event, t=time.time(), m=wire.monotonic_ns())
        try:
            wire.append_line(self.path, record)
        except OSError:
            self.lost += 1

    def tidy(self) -> None:
        """Rewrite the file without the unused space that the job's processes had reserved."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                if any(b"\0" in block for block in _blocks(file)):
                    file.seek(0)
                    self._replace(_whole_lines(_blocks(file)))
        except (OSError, MemoryError):
            pass  # readers pass over zero bytes

    def _replace(self, pieces: "Iterable[bytes]") -> None:
        temporary = os.path.join(os.path.dirname(self.path), ".tmp-" + wire.unique())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with open(descriptor, "wb") as file:
                for piece in pieces:
                    file.write(piece)
            os.rename(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise


def _blocks(file: "IO[bytes]") -> "Iterator[bytes]":
    return iter(lambda: file.read(BLOCK), b"")


def _whole_lines(blocks: "Iterable[bytes]") -> "Iterator[bytes]":
    """The lines that are whole, without zero bytes, some at a time.

    Whole is what looks like a JSON object: a reader parses it anyway, and passes over what is not.
    Zero bytes end a line, too: what a killed writer left unfinished is followed by them.
    """
    rest = b""
    for block in itertools.chain(blocks, [b"\n"]):
        *lines, rest = (rest + block).replace(b"\0", b"\n").split(b"\n")
        yield b"".join([line + b"\n" for line in lines if line[:1] == b"{" and line[-1:] == b"}"])


def input_output(pid: int) -> "dict[str, int] | None":
    """A process's I/O counters, its ended children's included; ``None`` if not counted."""
    try:
        with open("/proc/%d/io" % pid) as file:
            return {line.split(":")[0]: int(line.split(":")[1]) for line in file}
    except (OSError, ValueError):
        return None
