"""What was said of the runs of a batch: final words, which stand for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hpcml.agent import wire
from hpcml.schedulers import Word
from hpcml.states import State
from hpcml.transports import Transport


class Said:
    """The words of a batch, read as they are appended.

    Attributes
    ----------
    words : dict
        Final words by (index, attempt): another object as soon as there is a new one.
    cancels : set of int
        Runs that somebody wants cancelled.
    """

    def __init__(self, folder: str) -> None:
        self.path = wire.words_file(folder)
        self.words: Mapping[tuple[int, int], Word] = {}
        self.cancels: set[int] = set()
        self.heard = 0  # bytes

    def hear(self, data: bytes) -> None:
        """Take in what follows what was heard; a line under way is left for the next time."""
        whole = data[: data.rfind(b"\n") + 1]
        self.heard += len(whole)
        lines = list(wire.parse_lines(whole))
        for line in lines:
            if line.get("request") == "cancel":
                self.cancels.update(wire.about(line))
        new = {
            key: Word(State(record["state"]), record["reason"])
            for key, record in wire.first_words(lines).items()
        }
        if new:
            self.words = {**new, **self.words}  # the first word counts


def listen(files: Transport, said: Iterable[Said]) -> None:
    """Read what was said since we last listened, of many batches at once."""
    by_path = {one.path: one for one in said}
    for path, data in files.get({path: one.heard for path, one in by_path.items()}).items():
        by_path[path].hear(data)
