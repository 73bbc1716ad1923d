"""What became of the runs of a batch, from evidence on the site alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hpcml.agent import wire
from hpcml.batch import (
    FOREIGN_PATIENCE,
    Batch,
    Submission,
    batch_folder,
    load_outbox,
    outbox_owner_alive,
)
from hpcml.connection import Connection
from hpcml.errors import (
    HpcmlError,
    RunNotFoundError,
    TransportError,
)
from hpcml.planning import Plan
from hpcml.schedulers import Accounted, Chunk, JobStatus, Word
from hpcml.states import State

LONGEST_VALUE = 24  # characters of a parameter in the name of a run
INTENT_PATIENCE = 120.0  # seconds in which a queue may still be about to hear of an intent


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run, as its own files tell it.

    Attributes
    ----------
    start, end : dict or None
        Contents of ``.start`` and ``.end``. ``Run.attempts`` has both; to judge a run, its start
        is not read once it has ended.
    """

    number: int
    start: dict[str, Any] | None = None
    end: dict[str, Any] | None = None

    @property
    def lost(self) -> int:
        """Events that its agent could not write."""
        return int((self.end or {}).get("events_lost") or 0)

    def __repr__(self) -> str:
        if self.end is None:
            return f"<Attempt {self.number}: not ended>"
        code, signal = self.end.get("exit_code"), self.end.get("signal")
        said = f"exit code {code}" if signal is None else f"signal {signal}"
        return f"<Attempt {self.number}: {'ended' if code is signal else said}>"


@dataclass(frozen=True)
class Seen:
    """A run, as it was when it was looked at."""

    state: State
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()


@dataclass(eq=False)
class ChunkView:
    """What is known of a chunk.

    Attributes
    ----------
    asked : float or None
        When the queue was asked to take it, by the site's clock.
    status : JobStatus
        What the queue said last.
    waiting : set of int
        Runs of which the queue says the same, in one word.
    everyone : Seen or None
        What was last seen of those.
    accounted : dict
        Words of the scheduler's accounting, by (index, attempt): final ones, or unwritten.
    stuck : bool
        Its submission was broken off: it does not go on until somebody resumes that.
    """

    chunk: Chunk
    asked: float | None = None
    status: JobStatus = field(default_factory=JobStatus)
    waiting: set[int] = field(default_factory=set, repr=False)
    everyone: Seen | None = None
    accounted: dict[tuple[int, int], Word] = field(default_factory=dict, repr=False)
    stuck: bool = False

    def word(self, index: int, attempt: int) -> Word | None:
        """The scheduler's final word on an attempt, if it has said one."""
        key = index, attempt
        return self.status.final.get(key) or self.accounted.get(key)


@dataclass(eq=False)
class BatchView:
    """What is known of a batch. Each file is read once, and a run is judged when there is news.

    Attributes
    ----------
    submission : Submission
        What was said with the plan.
    chunks : tuple of ChunkView
    owner : dict
        The process that submitted it, if no outbox says so.
    removed : bool
        Its files were there, and are not any more.
    seen : dict
        Its runs, as they were when they were looked at, by index.
    ended : list of int
        Indices of the runs that have ended, in the order in which they did (as far as one look
        tells one end from another).
    looks, judged : int
        How many looks have begun, and which of them was judged last.
    accounts : dict
        What the queue's accounting has of runs, where it is all that it will ever have.
    """

    id: str
    connection: Connection
    plan: Plan
    submission: Submission
    lines: bytes = field(repr=False)
    owner: Mapping[str, Any] = field(default_factory=lambda: wire.NOBODY, repr=False)
    removed: bool = False
    seen: dict[int, Seen] = field(default_factory=dict, repr=False)
    ended: list[int] = field(default_factory=list, repr=False)
    looks: int = 0
    judged: int = 0
    accounts: dict[int, Sequence[Accounted]] = field(default_factory=dict, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        self._names: set[str] = set()
        self._brought: Mapping[str, bytes | None] = {}
        self._attempts: dict[int, dict[int, Attempt]] = {}
        self.count = self.lines.count(b"\n")
        chunks = self.submission.chunks(self.id, self.count)
        self.chunks = tuple(ChunkView(it, waiting=set(it.indices)) for it in chunks)
        self._news: set[int] = set()  # runs of which files have told something new
        self._open: set[int] = set()  # to be judged at each look: time alone may change them
        self._requeued: set[int] = set()
        self._unexplained: set[int] = set()  # how they ended only the accounting may say
        self._searched = False

    @classmethod
    def load(cls, identifier: str, connection: Connection) -> BatchView:
        """Read what a batch is.

        Raises
        ------
        RunNotFoundError
            Neither the site nor the outbox knows it.
        """
        folder = batch_folder(identifier)
        found = connection.files.get({f"{folder}/plan.json": 0, f"{folder}/{wire.POINTS}": 0})
        if f"{folder}/plan.json" in found:
            text = found[f"{folder}/plan.json"].decode("utf-8", "replace")
            plan = Plan.from_json(text)  # says what is wrong with a torn one
            said = json.loads(text).get("batch")
            submission = Submission.from_data(said)
            points = f"{folder}/{wire.POINTS}"
            if points not in found and wire.has_points(said):
                problem = f"{points} on {connection.site.name} is lost"
                raise HpcmlError(problem, "It said what each run has of its own: submit anew.")
            lines = found.get(points, wire.ONE_POINT)
            return cls(identifier, connection, plan, submission, lines, _owner(said))
        batch = load_outbox(identifier)
        if batch is None:
            raise RunNotFoundError(
                f"no batch {identifier} on {connection.site.name}",
                "`hpcml runs` lists those that are there.",
            )
        said = batch.plan, batch.submission, batch.lines, batch.owner
        return cls(identifier, connection, *said)

    @property
    def batch(self) -> Batch:
        """The batch itself, as this process would submit it."""
        return Batch(self.id, self.plan, self.points, self.submission, wire.identity())

    @property
    def indices(self) -> range:
        """Its runs."""
        return range(self.count)

    @property
    def queued(self) -> bool:
        """Whether the queue has taken all of it."""
        return all(part.chunk.id is not None for part in self.chunks)

    @property
    def asked(self) -> float | None:
        """When the queue was asked first, by the site's clock."""
        return min((part.asked for part in self.chunks if part.asked is not None), default=None)

    @property
    def owner_alive(self) -> bool:
        """Whether the process that submitted it runs on this machine, and may still be at it."""
        return self._is_at_it(self._names)

    def _is_at_it(self, names: Collection[str]) -> bool:
        """The same, by what is in the folder of attempts now."""
        return wire.LET_GO not in names and wire.alive(self.owner)

    def part_of(self, index: int) -> ChunkView:
        """The chunk that a run is in."""
        layout = self.submission.layout
        return self.chunks[index // (layout.size * layout.call)]

    def hope(self) -> None:
        """Somebody may have resumed its submission since the last look."""
        for part in self.chunks:
            part.stuck = False

    @property
    def folder(self) -> str:
        """The batch's folder, relative to the workspace."""
        return batch_folder(self.id)

    @property
    def final(self) -> bool:
        """Whether every run has ended."""
        return len(self.ended) == self.count

    # --- what its runs are ----------------------------------------------------------------

    @cached_property
    def points(self) -> tuple[dict[str, Any], ...]:
        """What each run has of its own, in the order of the runs."""
        try:
            points = tuple(json.loads(line) for line in self.lines.split(b"\n") if line)
            if all(isinstance(point.get("params", {}), dict) for point in points):
                return points
            error: Exception = TypeError("params are no dict")
        except (ValueError, AttributeError) as torn:
            error = torn
        problem = f"{self.folder}/{wire.POINTS} is torn: {error}"
        raise HpcmlError(problem, "Submit the job again.") from error

    def name(self, index: int) -> str:
        """The job's name, and the parameters of a run's own point: ``train seed=0 width=32``."""
        params = self.points[index].get("params", {})
        own = [f"{name}={_brief(value)}" for name, value in params.items()]
        return " ".join([self.plan.name, *own])

    # --- its files ------------------------------------------------------------------------

    def read_files(self) -> None:
        """Learn which attempts have started and ended, and whether the queue has the batch."""
        self.read_listed(self.connection.files.names(self.attempts_folder))

    @property
    def attempts_folder(self) -> str:
        """Where it is said what the queue took, started and ended, relative to the workspace."""
        return f"{self.folder}/attempts"

    def wanted(self, names: set[str]) -> list[str]:
        """What :meth:`read_listed` will read, of all that its folder of attempts holds."""
        return [
            self._attempt_file(index, number, "end" if "end" in kinds else "start")
            for (index, number), kinds in self._new_attempts(names).items()
        ]

    def read_listed(
        self, names: set[str] | None, brought: Mapping[str, bytes | None] | None = None
    ) -> None:
        """As :meth:`read_files`, with what its folder of attempts holds; ``None``: it is gone.

        Parameters
        ----------
        brought : dict, optional
            Contents of files that have been read already; ``None`` of those that are not there.
        """
        if names is None:
            self.removed, names = is_gone(self.id, self.connection), set()
        self._brought = brought or {}
        try:
            new = self._new_attempts(names)
            unread = self._read_attempts(new) if new else set()
            self._names |= names - unread
        finally:
            self._brought = {}
        if not self.queued:
            self._note_ids(names)

    def _new_attempts(self, names: set[str]) -> dict[tuple[int, int], set[str]]:
        """Attempts of which there are files that have not been read."""
        return {
            (index, number): kinds
            for index, numbers in wire.attempts_of(names - self._names).items()
            if 0 <= index < self.count
            for number, kinds in numbers.items()
        }

    def _attempt_file(self, index: int, number: int, kind: str) -> str:
        return f"{self.attempts_folder}/{index}.{number}.{kind}"

    def _get(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Contents of files, of which some have been brought already."""
        asked, brought = list(paths), self._brought
        found = {path: brought[path] for path in asked if path in brought}
        rest = [path for path in asked if path not in brought]
        there = {path: content for path, content in found.items() if content is not None}
        return there | (self.connection.files.get(dict.fromkeys(rest, 0)) if rest else {})

    def _read_attempts(self, found: Mapping[tuple[int, int], set[str]]) -> set[str]:
        """Read the ends, and the starts of attempts of which there is no end.

        Returns the names of ends whose content was not there yet: listings may be ahead of it.
        """
        ends = [attempt for attempt, kinds in found.items() if "end" in kinds]
        self._read("end", ends)
        # An end may be empty after a power loss; then the start is all there is.
        self._read("start", [key for key in found if self._known(*key).end is None])
        self._news |= {index for index, _ in found}
        unread = (key for key in ends if self._known(*key).end is None)
        return {f"{index}.{number}.end" for index, number in unread}

    def _read(self, kind: str, attempts: Iterable[tuple[int, int]]) -> None:
        paths = {
            self._attempt_file(index, number, kind): (index, number)
            for index, number in attempts
            if getattr(self._known(index, number), kind) is None
        }
        for path, content in self._get(paths).items():
            index, number = paths[path]
            record = wire.attempt_record(content, kind)
            known = self._known(index, number)
            self._attempts[index][number] = replace(known, **{kind: record})

    def _known(self, index: int, number: int) -> Attempt:
        return self._attempts.setdefault(index, {}).setdefault(number, Attempt(number))

    def attempts(self, index: int) -> tuple[Attempt, ...]:
        """All attempts of a run, with their starts."""
        with self.lock:
            self._read("start", [(index, number) for number in self._attempts.get(index, {})])
            return self._attempts_of(index)

    def read_starts(self, indices: Iterable[int]) -> None:
        """Read the starts of many runs at once; :meth:`attempts` then reads nothing."""
        with self.lock:
            known = self._attempts
            self._read("start", [(index, n) for index in indices for n in known.get(index, {})])

    def _attempts_of(self, index: int) -> tuple[Attempt, ...]:
        return tuple(attempt for _, attempt in sorted(self._attempts.get(index, {}).items()))

    def _note_ids(self, names: Iterable[str]) -> None:
        """Under which ids the queue has chunks, by the names in ``attempts/``."""
        found = wire.queued_as(names)
        for part in self.chunks:
            if part.chunk.id is None and part.chunk.number in found:
                identifier, part.asked = found[part.chunk.number]
                part.chunk = replace(part.chunk, id=identifier)

    # --- what became of its runs ----------------------------------------------------------

    def judge(self, statuses: Mapping[str, JobStatus]) -> bool:
        """Judge the runs with news, and those of which the queue says something else than before.

        Parameters
        ----------
        statuses : dict
            What the queue knows, by the names of chunks.

        Returns
        -------
        bool
            ``False``: some are silent, as if they had ended since the last look.
        """
        self._news |= self._open
        for part in self.chunks:
            before, part.status = part.status, statuses.get(part.chunk.name, JobStatus())
            self._news |= _changed(before, part.status) | (part.status.gone & part.waiting)
            if before.rest != part.status.rest:
                self._news |= self._requeued
        self._open, self._unexplained = set(), set()
        self._searched = False
        self.hope()
        silent, ended = False, []
        try:
            for index in tuple(self._news):
                state = self._judge_one(index)
                silent |= state is State.UNKNOWN
                if state is not None and state.final:
                    ended.append((self._ended_at(index), index))
                self._news.discard(index)  # not before: the queue may fail to answer
        finally:
            self.ended += [index for _, index in sorted(ended)]
        for part in self.chunks:
            if part.waiting:
                silent |= self._judge_waiting(part) is State.UNKNOWN
        return not silent

    def _judge_one(self, index: int) -> State | None:
        """Judge a run with news; ``None``: it has ended already, or waits like all others."""
        if index in self.seen and self.seen[index].state.final:
            return None
        part = self.part_of(index)
        status = part.status
        known = index in self._attempts or index in status.live or index in status.gone
        if not (known or part.word(index, 1)):
            part.waiting.add(index)
            part.everyone = None
            return None
        part.waiting.discard(index)
        attempts = self._attempts_of(index)
        state, reason = self._judge(index, attempts, part)
        if state is State.UNKNOWN:
            self._seek_explanation(index)
        self.seen[index] = Seen(state, reason, attempts)
        return state

    def _ended_at(self, index: int) -> float:
        """When a run ended, by the site's clock."""
        attempts = self.seen[index].attempts
        end = attempts[-1].end if attempts else None
        return float(end["time"]) if end else self.connection.files.now()

    def _judge_waiting(self, part: ChunkView) -> State:
        """Judge all of which nothing is known but what the queue says of everyone."""
        rest = part.status.rest
        if rest is not None:
            state, reason = rest.state, rest.reason
        else:
            state, reason = self._before_the_queue(part)
            if state is State.UNKNOWN:
                self._unexplained |= part.waiting
        everyone = Seen(state, reason)
        if everyone != part.everyone:
            part.everyone = everyone
            self.seen.update(dict.fromkeys(part.waiting, everyone))
        if state.final:
            self.ended += sorted(part.waiting)
            part.waiting = set()
        return state

    def _judge(self, index: int, attempts: Sequence[Attempt], part: ChunkView) -> tuple[State, str]:
        status = part.status
        last = attempts[-1] if attempts else Attempt(1)
        self._requeued.discard(index)
        if last.end is not None and last.end.get("requeue"):
            self._requeued.add(index)
            return self._judge_requeued(index, last.number + 1, part)
        word, live = part.word(index, last.number), status.live.get(index)
        said = {"state": str(word.state), "reason": word.reason} if word else None
        if last.end is not None:
            if live is not None and said is None and _told_to_end(last.end):
                self._open.add(index)  # its allocation ends with it, or starts again
                return live.state, live.reason or "it was told to end"
            waited = self.connection.files.now() - last.end["time"]
            judged = wire.how_it_ended(last.end, said, waited)
            if judged is None:
                self._seek_explanation(index)
                return State.RUNNING, "it was ended; the scheduler has not said why yet"
            if said is None and wire.how_it_ended(last.end, None, 0.0) is None:
                # A word that comes after patience ran out must not change what was said.
                word = Word(State(judged[0]), judged[1])
                word = self.connection.queue.record(part.chunk, index, last.number, word)
                return word.state, word.reason
            return State(judged[0]), judged[1]
        if last.start is not None and "refused" in last.start:
            refused = last.start["refused"]
            return State(refused["state"]), refused["reason"]
        if live is not None:
            if last.start is None and live.state is State.RUNNING and part.chunk.layout.size > 1:
                return State.PENDING, "its allocation works at other runs"
            return live.state, live.reason
        judged = wire.how_it_ended(None, said, 0.0)
        if said is not None and judged is not None:
            return State(judged[0]), judged[1]
        self._seek_explanation(index)
        if last.start is None:
            return self._before_the_queue(part)
        if part.chunk.id is None:  # killed before its id was written down; look() asks again
            self._searched = self._searched or not self._find_in_queue(part)
        return State.UNKNOWN, "it started, and neither its agent nor the queue knows it any more"

    def _judge_requeued(self, index: int, number: int, part: ChunkView) -> tuple[State, str]:
        """Its last attempt left a checkpoint, and the next one has not begun."""
        live, word = part.status.live.get(index), part.word(index, number)
        if live is not None:
            return live.state, live.reason
        if word is not None:
            return word.state, word.reason
        if part.status.rest is not None:
            return State.PENDING, "it left a checkpoint, and starts again"
        return State.UNKNOWN, "it left a checkpoint, and the queue does not know it any more"

    def _seek_explanation(self, index: int) -> None:
        """Have the accounting asked about a run, at this look and at those that follow."""
        self._open.add(index)
        self._unexplained.add(index)

    def account(self) -> bool:
        """Ask the scheduler how runs ended that nothing else explains. Whether it knew any."""
        unexplained, heard = sorted(self._unexplained), False
        for part in self.chunks:
            ours = [index for index in unexplained if index in part.chunk.indices]
            if ours and part.chunk.id is not None:
                attempts = [(index, self._number(index)) for index in ours]
                words = self.connection.queue.account(part.chunk, attempts)
                new = {key: it for key, it in words.items() if part.accounted.get(key) != it}
                part.accounted.update(new)
                self._news |= {index for index, _ in new}
                heard |= bool(new)
        return heard

    def _number(self, index: int) -> int:
        """The attempt of which the end of a run depends: the last one, or one that is to come."""
        attempts = self._attempts.get(index)
        if not attempts:
            return 1
        last = attempts[max(attempts)]
        again = last.end is not None and bool(last.end.get("requeue"))
        return last.number + 1 if again else last.number

    def _before_the_queue(self, part: ChunkView) -> tuple[State, str]:
        """How far the submission of a chunk came."""
        batch = load_outbox(self.id)
        if batch is not None and batch.cancelled:
            return State.CANCELLED, "cancelled before it reached the queue"
        if part.chunk.id is not None and self._queued_again(part):
            return State.PENDING, "it has just been queued again"
        if part.chunk.id is not None:
            advice = f"`hpcml resume {self.id}` queues it again"
            return State.UNKNOWN, f"the queue took it, and does not know it any more; {advice}"
        queue = self.connection.files.list(self.attempts_folder)
        known = {entry.name: entry for entry in queue or ()}
        if batch is None:
            owner, alive = self.owner, self._is_at_it(known)
            said = self._said_when_let_go() if wire.LET_GO in known else ""
        else:
            owner, alive, said = batch.owner, outbox_owner_alive(batch), batch.not_taken
        why = f"the queue did not take it ({said})" if said else "its submission was broken off"
        resume = f"{why}: `hpcml resume {self.id}` or `hpcml cancel`"
        if part.chunk.number in wire.queued_as(known):
            return State.PENDING, "the queue has just taken it"  # since read_files()
        part.stuck = not alive
        intent = known.get(f"{part.chunk.number}.intent")
        if intent is not None:
            age = self.connection.files.now() - intent.mtime
            if self._find_in_queue(part):
                part.stuck = False
                return State.UNKNOWN, "the queue has it, and is asked once more how it is"
            if age < INTENT_PATIENCE:
                part.stuck = False
                return State.UNKNOWN, f"the queue was asked to take it {age:.0f} s ago"
        if batch is None and wire.LET_GO not in known and self._may_be_at_it():
            part.stuck = False
            return State.PREPARING, f"{_submitting(owner)}, unless it was ended; then {resume}"
        if queue is None and batch is not None and not batch.steps:
            return State.CREATED, _submitting(owner) if alive else resume
        return State.PREPARING, _submitting(owner) if alive else resume

    def _may_be_at_it(self) -> bool:
        """Whether it was submitted on a machine that we cannot see, and not long ago."""
        elsewhere = self.owner != wire.NOBODY and not wire.is_here(self.owner)
        return elsewhere and time.time() - self.submission.created < FOREIGN_PATIENCE

    def _said_when_let_go(self) -> str:
        """What the queue said to the process that has given up submitting it."""
        path = f"{self.attempts_folder}/{wire.LET_GO}"
        words = wire.parse_lines(self.connection.files.get({path: 0}).get(path, b""))
        return str(next((it.get("said", "") for it in words), ""))

    def _queued_again(self, part: ChunkView) -> bool:
        """Whether somebody has queued it under another id since we read the one we know."""
        known, part.chunk = part.chunk.id, replace(part.chunk, id=None)
        self._note_ids(self.connection.files.names(self.attempts_folder) or ())
        return part.chunk.id not in (None, known)

    def _find_in_queue(self, part: ChunkView) -> bool:
        """Whether the queue knows it by name; then its id is written down at last."""
        queue = self.connection.files.list(self.attempts_folder)
        intents = [it for it in queue or () if it.name == f"{part.chunk.number}.intent"]
        identifier = find_chunk(part.chunk, self.connection) if intents else None
        if identifier is None:
            return False
        part.asked = intents[0].mtime
        part.chunk = replace(part.chunk, id=identifier)
        try:
            note_queued(part.chunk, identifier, self.connection, part.asked)
        except TransportError:
            return True  # looking works on a full disk, too; another look writes it down
        batch = load_outbox(self.id) if self.queued else None
        if batch is not None and not outbox_owner_alive(batch):
            batch.forget()
        return True


def find_chunk(chunk: Chunk, connection: Connection) -> str | None:
    """Under which id the queue has, or had, a chunk: by its name, else by what has begun in it.

    A queue may have forgotten what has ended.
    """
    found = connection.queue.find([chunk.name])
    if found:
        return found[chunk.name]
    folder = f"{chunk.folder}/attempts"
    known = wire.attempts_of(connection.files.names(folder) or ())
    paths = [f"{folder}/{index}.1.start" for index in known.keys() & {*chunk.indices}]
    read = connection.files.get(dict.fromkeys(paths, 0)) if paths else {}
    starts = (wire.attempt_record(data, "start") for data in read.values())
    arrays = (((it or {}).get("allocation") or {}).get("array") for it in starts)
    return next((str(array) for array in arrays if array is not None), None)


def note_queued(chunk: Chunk, identifier: str, connection: Connection, asked: float) -> None:
    """Write down under which id the queue has a chunk: that is what becomes of the intent."""
    folder = f"{chunk.folder}/attempts"
    name = f"{folder}/{wire.queued_name(chunk.number, identifier, asked)}"
    if not connection.files.move(f"{folder}/{chunk.number}.intent", name):
        connection.files.put_once({name: b""})  # somebody else has seen to the intent


def look(views: Sequence[BatchView]) -> None:
    """Look at batches of one site: their files, then the queue once for all that need it."""
    views = [view for view in views if not (view.final or view.removed)]
    if not views:
        return
    looks: dict[BatchView, int] = {}
    files = views[0].connection.files
    listed = files.names_in([view.attempts_folder for view in views])
    wanted: list[str] = []
    for view in views:
        with view.lock:
            wanted += view.wanted(listed.get(view.attempts_folder, set()))
    found = files.get(dict.fromkeys(wanted, 0)) if wanted else {}
    brought = {path: found.get(path) for path in wanted}
    for view in views:
        with view.lock:
            view.read_listed(listed.get(view.attempts_folder), brought)
            if not view.removed:
                view.looks += 1
                looks[view] = view.looks
    if not looks:
        return
    statuses = _poll([*looks])
    for view, number in looks.items():
        with view.lock:
            if view.judged < number:  # else another thread has judged by a later answer
                view.judged = number
                _judge(view, statuses)


def _judge(view: BatchView, statuses: Mapping[str, JobStatus]) -> None:
    known = _ids(view)
    if not view.judge(statuses):
        view.read_files()  # it may have ended between the two looks
        if _ids(view) != known or view.looks != view.judged:  # the answer is the older of both
            statuses = _poll([view])
        view.judge(statuses)
    if view.account():
        view.judge(statuses)


def _ids(view: BatchView) -> list[str | None]:
    return [part.chunk.id for part in view.chunks]


def is_gone(batch: str, connection: Connection) -> bool:
    """Whether the files of a batch were on its site, and are not any more.

    Raises
    ------
    TransportError
        The whole workspace is not there, so that nothing is known.
    """
    names, small = connection.files.names, f"{batch_folder(batch)}/attempts"
    if names(small) is not None or load_outbox(batch) is not None:
        return False
    if names("runs") is None:
        raise TransportError(
            f"{connection.binding.workspace} has no runs: it is not the workspace it was",
            "See whether its file system is there.",
        )
    return names(small) is None  # the outbox forgets it after it was published


def files_gone(id: str, site: str, advice: str | None = None) -> RunNotFoundError:
    """What to say of a batch or run whose files were removed, by hand or by ``hpcml prune``."""
    batch, _, _ = id.partition(".")
    known = f'hpcml.records.find(batch="{batch}") is what is on record.'
    return RunNotFoundError(f"the files of {id} are not on {site} any more", advice or known)


def _poll(views: Sequence[BatchView]) -> dict[str, JobStatus]:
    chunks = [part.chunk for view in views for part in view.chunks]
    return views[0].connection.queue.poll(chunks)


def _brief(value: object) -> str:
    """A parameter in a run's name."""
    plain = isinstance(value, str) and value.isprintable() and " " not in value
    text = str(value) if plain or isinstance(value, int | float) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _submitting(owner: Mapping[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']} is submitting it"


def _owner(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Who submitted a batch, by its plan."""
    owner = said.get("owner")
    return owner if isinstance(owner, dict) and owner.keys() >= wire.NOBODY.keys() else wire.NOBODY


def _told_to_end(end: Mapping[str, Any]) -> bool:
    """Whether an agent was told to end with its run, and cannot say why."""
    return end["cause"] is None and wire.cut_off(end)


def _changed(before: JobStatus, now: JobStatus) -> set[int]:
    """Runs of which the queue says something else than before."""
    changed = set()
    if before.live != now.live:
        indices = before.live.keys() | now.live.keys()
        changed = {index for index in indices if before.live.get(index) != now.live.get(index)}
    if before.final is not now.final:
        changed |= {index for index, _ in now.final.keys() - before.final.keys()}
    return changed
