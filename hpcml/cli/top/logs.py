"""What a run prints, as it comes: bounded, and nothing of it is obeyed by the terminal."""

from __future__ import annotations

import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from io import IncrementalNewlineDecoder

from hpcml.agent import wire
from hpcml.batch import batch_folder
from hpcml.cli.top.board import Entry
from hpcml.cli.top.looker import problem_of
from hpcml.poller import LOOKING_SHARE
from hpcml.texts import plain
from hpcml.transports import Transport

STREAMS = ("stdout", "stderr")
PIECE = 1 << 18  # bytes of a stream that are read at once; what is more than that is passed over
LINES = 10_000  # of a stream that are kept
LONGEST_LINE = 1000  # characters; longer ones are folded
READING = 0.5  # seconds between two readings

Show = Callable[[str, str], None]
"""Called with the name of a stream, or an empty one, and what to add to it."""


class Printable:
    """Makes lines of what a job prints that any terminal can be given."""

    def __init__(self) -> None:
        decoder = getincrementaldecoder("utf-8")("replace")
        self._decoder = IncrementalNewlineDecoder(decoder, translate=True)
        self._length = 0  # of the line that is not over

    def feed(self, data: bytes, *, ended: bool) -> str:
        """What there is to show of the next bytes."""
        text = self._decoder.decode(data, final=ended)
        lines = text.split("\n")
        return "\n".join(self._fold(line, last) for line, last in _with_last(lines))

    def _fold(self, line: str, last: bool) -> str:
        escaped = "\t".join(plain(part) for part in line.split("\t"))
        room = LONGEST_LINE - self._length
        pieces = [escaped[:room]]
        rest = escaped[room:]
        pieces += [rest[at : at + LONGEST_LINE] for at in range(0, len(rest), LONGEST_LINE)]
        if last:
            self._length = len(pieces[-1]) + (self._length if len(pieces) == 1 else 0)
        else:
            self._length = 0
        return "\n".join(pieces)


def _with_last(lines: list[str]) -> Iterator[tuple[str, bool]]:
    for place, line in enumerate(lines, 1):
        yield line, place == len(lines)


class Stream:
    """One stream of a run, from its last lines on."""

    def __init__(self) -> None:
        self.offset = 0
        self._printable = Printable()

    def skip(self, size: int) -> str:
        """Pass over what is too much to be read; what to say of that."""
        left_out = size - PIECE - self.offset
        if left_out <= 0:
            return ""
        self.offset += left_out
        self._printable = Printable()
        return f"\n… {left_out:,} bytes are left out here: `hpcml logs` has all\n"

    def feed(self, data: bytes, *, ended: bool) -> str:
        self.offset += len(data)
        return self._printable.feed(data, ended=ended)


class Following:
    """Reads the streams of a run until it has ended, in a thread of its own."""

    def __init__(self, entry: Entry, index: int, show: Show) -> None:
        self.entry, self.index, self.show = entry, index, show
        self.folder = f"{batch_folder(entry.id)}/{index}"
        self.streams = {name: Stream() for name in STREAMS}
        self._over = threading.Event()
        name = f"hpcml top: logs of {wire.run_id(entry.id, index)}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Nobody looks any more. A reading under way may still end."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.thread_time()
            seen = self.entry.seen(self.index)  # before its files: they are whole if it has ended
            ended = seen.state.final
            try:
                self._read(self.entry.view.connection.files, ended=ended)
                self.show("", str(seen.state))
            except Exception as error:  # a site that is away may come back
                ended = False
                self.show("", f"{seen.state}; cannot be read now: {problem_of(error)}")
            if ended:
                return
            self._over.wait(max(READING, LOOKING_SHARE * (time.thread_time() - began)))

    def _read(self, files: Transport, *, ended: bool) -> None:
        sizes = {entry.name: entry.size for entry in files.list(self.folder) or ()}
        notes = {name: one.skip(sizes.get(name, 0)) for name, one in self.streams.items()}
        paths = {f"{self.folder}/{name}": one.offset for name, one in self.streams.items()}
        found = files.get(paths) if sizes else {}
        for name, stream in self.streams.items():
            data = found.get(f"{self.folder}/{name}", b"")
            text = notes[name] + stream.feed(data, ended=ended)
            if text:
                self.show(name, text)
