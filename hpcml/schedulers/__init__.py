"""How a site queues: the contract. Each scheduler is a folder and an entry point."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from hpcml.layout import Layout
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.states import State
from hpcml.transports import Transport


@dataclass(frozen=True)
class Chunk:
    """What one call of the queue takes: some runs of one batch.

    Attributes
    ----------
    name : str
        By which the queue can find it again: ``<batch>.<k>``.
    folder : str
        The batch's, relative to the workspace.
    layout : Layout
        How its runs are shared out to allocations.
    after : tuple of str
        Runs that must be COMPLETED first.
    group : str
        Whose ``max_running`` counts together.
    id : str or None
        The queue's own name for it, once it has one.
    parent : str or None
        The run that submitted it, and may wait for it.
    """

    name: str
    folder: str
    first: int
    count: int
    layout: Layout
    after: tuple[str, ...] = ()
    group: str = ""
    max_running: int | None = None
    id: str | None = None
    parent: str | None = None

    @property
    def number(self) -> str:
        """Which chunk of its batch it is."""
        return self.name.rpartition(".")[2]

    @property
    def indices(self) -> range:
        """Its runs."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Word:
    """What the scheduler says of an attempt."""

    state: State
    reason: str = ""


def unwritten(word: Word, why: str) -> Word:
    """What is said of an attempt whose final word cannot be written down, and so is not final."""
    said = f"{word.state}: {word.reason}" if word.reason else word.state
    return Word(State.UNKNOWN, f"it has ended ({said}), which cannot be written down: {why}")


@dataclass(frozen=True)
class JobStatus:
    """What the queue knows of one job.

    Attributes
    ----------
    live : dict
        What runs or waits, by index. RUNNING is said of its allocation: where that works through
        several runs, one that has not begun waits in it.
    rest : Word or None
        What the queue says of all indices that are in neither dict and have not started: they wait.
        ``None``: those are no longer the queue's affair.
    final : dict
        Final words by (index, attempt).
    gone : set of int
        Indices of which ``rest`` says nothing: they have left the queue, begun or not.
    """

    live: Mapping[int, Word] = field(default_factory=dict)
    rest: Word | None = None
    final: Mapping[tuple[int, int], Word] = field(default_factory=dict)
    gone: Set[int] = frozenset()


@dataclass(frozen=True)
class Accounted:
    """One life of an allocation, as the queue's accounting has it; ``None``: it does not say.

    Attributes
    ----------
    source : str
        Whose accounting it is: ``"slurm"``.
    job : str
        The allocation, by the id that the ``.start`` of attempts within it has.
    runs : int
        How many runs share it. Of more than one all figures are of them together.
    state : str
        In the queue's words.
    meaning : str
        The final state that this is in the words of hpcml; empty: it goes on, or starts again.
    exit_code, signal : int
    submitted, eligible, started, ended : float or None
        By the site's clock, in s since the epoch.
    elapsed : float or None
        In s.
    cpus, nodes, devices : int or None
        That it had.
    hosts : str
        As the queue writes them: ``cpu[1-2]``.
    max_rss : int or None
        Of the largest task, in bytes.
    joules : float or None
        What its nodes used, in J. ``None``: not measured.
    covered : float
        Seconds of its life that the joules are of.
    alone : bool or None
        Whether it had its nodes alone.
    """

    source: str
    job: str
    runs: int
    state: str
    meaning: str
    exit_code: int
    signal: int
    submitted: float | None = None
    eligible: float | None = None
    started: float | None = None
    ended: float | None = None
    elapsed: float | None = None
    cpus: int | None = None
    nodes: int | None = None
    devices: int | None = None
    hosts: str = ""
    max_rss: int | None = None
    joules: float | None = None
    covered: float = 0.0
    alone: bool | None = None


@runtime_checkable
class Scheduler(Protocol):
    """The queue of a site. A queue that cannot answer raises QueueError: that is no answer."""

    poll_interval: tuple[float, float]
    """Seconds between two polls: at first, and at most."""

    def __init__(self, site: Site, binding: Binding, files: Transport) -> None: ...

    def submit(self, chunks: Sequence[Chunk]) -> list[str]:
        """Queue chunks; ids in the same order, of 1 to 200 characters: names of files hold them.

        QueueError says that the queue has certainly not taken them, RefusedError that it never
        will; after any other error it may have.
        """
        ...

    def find(self, names: Sequence[str]) -> dict[str, str]:
        """Ids of those chunks that the queue has, by name."""
        ...

    def poll(self, chunks: Sequence[Chunk]) -> dict[str, JobStatus]:
        """What the queue knows of chunks that have an id, by name; one query for all."""
        ...

    def account(
        self, chunk: Chunk, attempts: Sequence[tuple[int, int]]
    ) -> Mapping[tuple[int, int], Word]:
        """Final words on attempts, (index, number), that have left the queue.

        It is asked for those of which neither their own files nor :meth:`poll` say how they ended,
        begun or not. What it cannot say is left out, and of what it cannot write down it gives
        the word that is :func:`unwritten`.
        """
        ...

    def facts(
        self, chunks: Sequence[Chunk]
    ) -> Mapping[str, Mapping[int, Sequence[Accounted]]] | None:
        """What the queue's accounting has of allocations, by the names of chunks and by run.

        One query for all, and never in a poll. Of each run the lives of its allocation in their
        order: several where that was requeued. A run of which nothing is on record (yet) is left
        out, and so is a chunk. ``None``: this queue keeps no accounting.

        Raises
        ------
        QueueError
            It keeps one, and that does not answer.
        """
        ...

    def record(self, chunk: Chunk, index: int, attempt: int, word: Word) -> Word:
        """Write down a final judgement on the scheduler's behalf.

        Returns the one that stands: the first that was written. If none can be, it is
        :func:`unwritten`.
        """
        ...

    def cancel(self, chunks: Sequence[Chunk], indices: Collection[int]) -> None:
        """Cancel runs, which the chunks of one batch have. Returns when the queue has taken it.

        Killed at any moment, either nothing was asked for, or what is still to be done shows.
        """
        ...
