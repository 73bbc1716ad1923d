"""Seeing what became of runs: one look a site and interval, from evidence on the site alone."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpcml.agent import wire
from hpcml.batch import Batch, batch_folder, load_outbox, outbox_owner_alive
from hpcml.connection import Connection, connect
from hpcml.errors import HpcmlError, QueueError, RunNotFoundError, TransportError
from hpcml.planning import Plan
from hpcml.schedulers import Chunk, JobStatus, Word
from hpcml.states import State

INTENT_PATIENCE = 120.0  # seconds in which a queue may still be about to hear of an intent


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run, as its own files tell it.

    Attributes
    ----------
    start, end : dict or None
        Contents of ``.start`` and ``.end``.
    """

    number: int
    start: dict[str, Any] | None = None
    end: dict[str, Any] | None = None


@dataclass(frozen=True)
class Seen:
    """A run, as it was when it was looked at."""

    state: State
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()


@dataclass
class BatchView:
    """What is known of a batch; final things are asked for once.

    Attributes
    ----------
    created : float
        When it was submitted, by the client's clock.
    asked : float or None
        When the queue was asked to take it, by the site's clock.
    stuck : bool
        Its submission was broken off: nothing goes on until somebody resumes it.
    """

    id: str
    connection: Connection
    plan: Plan
    chunk: Chunk
    created: float
    asked: float | None = None
    stuck: bool = False
    seen: dict[int, Seen] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _attempts: dict[int, dict[int, Attempt]] = field(default_factory=dict)
    _before: tuple[State, str] | None = None

    @classmethod
    def load(cls, identifier: str, connection: Connection) -> BatchView:
        """Read what a batch is.

        Raises
        ------
        RunNotFoundError
            Neither the site nor the outbox knows it.
        """
        folder = batch_folder(identifier)
        found = connection.files.get({f"{folder}/plan.json": 0, f"{folder}/points.jsonl": 0})
        if len(found) == 2:
            text = found[f"{folder}/plan.json"].decode("utf-8", "replace")
            plan = Plan.from_json(text)  # says what is wrong with a torn one
            submission = json.loads(text)["batch"]
            chunk = Chunk(
                f"{identifier}.0",
                folder,
                0,
                found[f"{folder}/points.jsonl"].count(b"\n"),
                tuple(submission["after"]),
                submission["group"],
                submission["max_running"],
                parent=submission.get("parent"),
            )
            return cls(identifier, connection, plan, chunk, submission["created"])
        batch = load_outbox(identifier)
        if batch is None:
            raise RunNotFoundError(
                f"no batch {identifier} on {connection.site.name}",
                "`hpcml runs` lists those that are there.",
            )
        return cls(identifier, connection, batch.plan, batch.chunk, batch.created)

    @property
    def batch(self) -> Batch:
        """The batch itself, as this process would submit it."""
        chunk = self.chunk
        return Batch(
            self.id,
            self.plan,
            ({},) * chunk.count,
            chunk.after,
            chunk.group,
            chunk.max_running,
            wire.identity(),
            self.created,
            parent=chunk.parent,
        )

    @property
    def folder(self) -> str:
        """The batch's folder, relative to the workspace."""
        return batch_folder(self.id)

    @property
    def final(self) -> bool:
        """Whether every run has ended."""
        return bool(self.seen) and all(seen.state.final for seen in self.seen.values())

    def read_files(self) -> None:
        """Learn which attempts have started and ended, and whether the queue has the batch."""
        files = self.connection.files
        names = [entry.name for entry in files.list(f"{self.folder}/attempts") or ()]
        missing = {}
        for index, numbers in wire.attempts_of(names).items():
            for number, kinds in numbers.items():
                known = self._attempts.setdefault(index, {}).setdefault(number, Attempt(number))
                for kind in kinds:
                    if getattr(known, kind) is None:
                        missing[f"{self.folder}/attempts/{index}.{number}.{kind}"] = 0
        for path, content in (files.get(missing) if missing else {}).items():
            name, kind = path.rpartition("/")[2].rsplit(".", 1)
            index, number = map(int, name.split("."))
            record = wire.attempt_record(content, kind)
            attempts = self._attempts[index]
            attempts[number] = replace(attempts[number], **{kind: record})
        if self.chunk.id is None:
            self._read_id()

    def _read_id(self) -> None:
        """Under which id the queue has the batch."""
        found = self.connection.files.get({f"{self.folder}/queue/0.json": 0})
        # Empty after a power loss: then the queue is asked by name, as before it was written.
        for record in wire.parse_lines(next(iter(found.values()), b"")):
            self.asked = record["time"]
            self.chunk = replace(self.chunk, id=record["id"])

    def judge(self, status: JobStatus) -> bool:
        """Judge every run. ``False``: some are silent, as if they had ended since the last look."""
        silent = self.stuck = False
        self._before = None
        for index in self.chunk.indices:
            if index in self.seen and self.seen[index].state.final:
                continue
            attempts = tuple(a for _, a in sorted(self._attempts.get(index, {}).items()))
            state, reason = self._judge(index, attempts, status)
            silent |= state is State.UNKNOWN
            self.seen[index] = Seen(state, reason, attempts)
        return not silent

    def _judge(
        self, index: int, attempts: Sequence[Attempt], status: JobStatus
    ) -> tuple[State, str]:
        last = attempts[-1] if attempts else Attempt(1)
        word = status.final.get((index, last.number))
        said = {"state": str(word.state), "reason": word.reason} if word else None
        if last.end is not None:
            waited = self.connection.files.now() - last.end["time"]
            judged = wire.how_it_ended(last.end, said, waited)
            if judged is None:
                return State.RUNNING, "it ended on a signal; the scheduler has not said why yet"
            if said is None and wire.how_it_ended(last.end, None, 0.0) is None:
                # A word that comes after patience ran out must not change what was said.
                word = Word(State(judged[0]), judged[1])
                word = self.connection.queue.record(self.chunk, index, last.number, word)
                return word.state, word.reason
            return State(judged[0]), judged[1]
        if last.start is not None and "refused" in last.start:
            refused = last.start["refused"]
            return State(refused["state"]), refused["reason"]
        live = status.live.get(index)
        if live is not None:
            return live.state, live.reason
        judged = wire.how_it_ended(None, said, 0.0)
        if said is not None and judged is not None:
            return State(judged[0]), judged[1]
        if last.start is None:
            if self._before is None:  # the same for all runs of the batch
                self._before = self._before_the_queue()
            return self._before
        if self.chunk.id is None:
            self._find_in_queue()  # killed before its id was written down; look() asks again
        return State.UNKNOWN, "it started, and neither its agent nor the queue knows it any more"

    def _before_the_queue(self) -> tuple[State, str]:
        """How far the submission came."""
        batch = load_outbox(self.id)
        if batch is not None and batch.cancelled:
            return State.CANCELLED, "cancelled before it reached the queue"
        if self.chunk.id is not None and self._queued_again():
            return State.PENDING, "it has just been queued again"
        if self.chunk.id is not None:
            advice = f"`hpcml resume {self.id}` queues it again"
            return State.UNKNOWN, f"the queue took it, and does not know it any more; {advice}"
        alive = batch is not None and outbox_owner_alive(batch)
        resume = f"its submission was broken off: `hpcml resume {self.id}` or `hpcml cancel`"
        queue = self.connection.files.list(f"{self.folder}/queue")
        if any(entry.name == "0.json" for entry in queue or ()):
            return State.PENDING, "the queue has just taken it"  # since read_files()
        self.stuck = not alive
        intents = [entry for entry in queue or () if entry.name == "0.intent"]
        if intents:
            age = self.connection.files.now() - intents[0].mtime
            if self._find_in_queue():
                self.stuck = False
                return State.PENDING, "waits for CPUs, memory, or its turn"
            if age < INTENT_PATIENCE:
                self.stuck = False
                return State.UNKNOWN, f"the queue was asked to take it {age:.0f} s ago"
        if queue is None and batch is not None and not batch.steps:
            return State.CREATED, _submitting(batch) if alive else resume
        return State.PREPARING, _submitting(batch) if batch and alive else resume

    def _queued_again(self) -> bool:
        """Whether somebody has queued it under another id since we read the one we know."""
        known, self.chunk = self.chunk.id, replace(self.chunk, id=None)
        self._read_id()
        return self.chunk.id not in (None, known)

    def _find_in_queue(self) -> bool:
        """Whether the queue knows it by name; then its id is written down at last."""
        queue = self.connection.files.list(f"{self.folder}/queue")
        intents = [entry for entry in queue or () if entry.name == "0.intent"]
        found = self.connection.queue.find([self.chunk.name]) if intents else {}
        if not found:
            return False
        self.asked = intents[0].mtime
        self.chunk = replace(self.chunk, id=found[self.chunk.name])
        try:
            note_queued(self.folder, found[self.chunk.name], self.connection, self.asked)
        except TransportError:
            return True  # looking works on a full disk, too; another look writes it down
        batch = load_outbox(self.id)
        if batch is not None and not outbox_owner_alive(batch):
            batch.forget()
        return True


def note_queued(folder: str, identifier: str, connection: Connection, asked: float) -> None:
    """Write down under which id the queue has a batch; the intent is fulfilled."""
    record = {"id": identifier, "time": asked}
    connection.files.put({f"{folder}/queue/0.json": wire.canonical(record)})
    connection.files.remove([f"{folder}/queue/0.intent"])


def look(views: Sequence[BatchView]) -> None:
    """Look at batches of one site: their files, then the queue once for all that need it."""
    live = []
    for view in views:
        with view.lock:
            if not view.final:
                view.read_files()
                live.append(view)
    if not live:
        return
    statuses = _poll(live)
    for view in live:
        with view.lock:
            status = statuses.get(view.chunk.name, JobStatus())
            known = view.chunk.id
            if not view.judge(status):
                view.read_files()  # it may have ended between the two looks
                if view.chunk.id != known:
                    status = _poll([view]).get(view.chunk.name, JobStatus())
                view.judge(status)


def _poll(views: Sequence[BatchView]) -> dict[str, JobStatus]:
    return views[0].connection.queue.poll([view.chunk for view in views])


def _submitting(batch: Batch) -> str:
    return f"process {batch.owner['pid']} on {batch.owner['host']} is submitting it"


class Poller:
    """The one thread a site that looks at batches while somebody waits for them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.news = threading.Condition()
        self.views: dict[str, BatchView] = {}
        self.watched: dict[str, int] = {}
        self.error: Exception | None = None
        self.thread: threading.Thread | None = None

    def view(self, batch: str) -> BatchView:
        """The one view of a batch in this process."""
        known = self.views.get(batch)
        if known is None:
            loaded = BatchView.load(batch, self.connection)
            with self.news:
                known = self.views.setdefault(batch, loaded)
        return known

    def readable(self, batch: str) -> BatchView | None:
        """The view of a batch; with a warning ``None`` if its files cannot be believed."""
        try:
            return self.view(batch)
        except HpcmlError as error:
            warnings.warn(f"batch {batch} is passed over: {error}", stacklevel=3)
            return None

    def wait(
        self, views: Sequence[BatchView], done: Callable[[], bool], timeout: float | None
    ) -> bool:
        """Wait until ``done()`` says so; whether it did before the timeout (in s)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.news:
            for view in views:
                self.watched[view.id] = self.watched.get(view.id, 0) + 1
            try:
                self.error = None
                while not done():
                    self._have_a_thread()
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self.news.wait(left)
                    if self.error is not None:
                        raise self.error
                return True
            finally:
                for view in views:
                    self.watched[view.id] -= 1
                    if not self.watched[view.id]:
                        del self.watched[view.id]
                self.news.notify_all()

    def _have_a_thread(self) -> None:
        if self.thread is None or not self.thread.is_alive():
            name = f"hpcml poller of {self.connection.site.name}"
            self.thread = threading.Thread(target=self._run, name=name, daemon=True)
            self.thread.start()

    def _run(self) -> None:
        interval, longest = self.connection.queue.poll_interval
        while True:
            with self.news:
                views = [self.views[name] for name in self.watched]
                if not views:
                    self.thread = None
                    return
            error = None
            try:
                look(views)
            except (TransportError, QueueError):
                pass  # cannot see right now; that is no news
            except Exception as other:  # whoever waits must hear of it
                error = other
            with self.news:
                self.error = error
                self.news.notify_all()
                self.news.wait_for(lambda: not self.watched, interval * random.uniform(0.8, 1.2))
            interval = min(longest, interval * 1.3)


_pollers: dict[tuple[int, str], Poller] = {}
_lock = threading.Lock()


def poller(site: str) -> Poller:
    """The poller of a site in this process (a forked child has its own)."""
    connection = connect(site)
    with _lock:
        key = (os.getpid(), f"{site} {connection.binding.workspace}")
        return _pollers.setdefault(key, Poller(connection))
