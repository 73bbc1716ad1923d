"""A queue that takes whatever it is given, at the price of one command a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hpcml.schedulers import Chunk, JobStatus, Word
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.states import State
from hpcml.transports import Transport


class PretendScheduler:
    """See :class:`hpcml.schedulers.Scheduler`."""

    poll_interval = (0.1, 1.0)

    def __init__(self, site: Site, binding: Binding, files: Transport) -> None:
        self.files = files

    def submit(self, chunks: Sequence[Chunk]) -> list[str]:
        return [self.files.run(["echo", chunk.name]).stdout.decode().strip() for chunk in chunks]

    def find(self, names: Sequence[str]) -> dict[str, str]:
        return {}

    def poll(self, chunks: Sequence[Chunk]) -> dict[str, JobStatus]:
        self.files.run(["true"])
        waits = Word(State.PENDING, "it only pretends")
        return {chunk.name: JobStatus(rest=waits) for chunk in chunks}

    def account(self, chunk: Chunk, indices: Sequence[int]) -> Mapping[tuple[int, int], Word]:
        return {}

    def record(self, chunk: Chunk, index: int, attempt: int, word: Word) -> Word:
        return word

    def cancel(self, chunks: Sequence[Chunk], indices: Collection[int]) -> None:
        return None
