"""The embedded site's queue, seen from the client (its other half: hpcml.agent.dispatcher).

Both halves share the workspace's files on one machine, so a call here is a few file operations:
no daemon is asked, and what it answers is what is on disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hpcml.agent import wire
from hpcml.enclosing import enclosing_run
from hpcml.errors import CommandError, HpcmlError, QueueError
from hpcml.schedulers import Accounted, Chunk, JobStatus, Word, unwritten
from hpcml.schedulers.process.evidence import Evidence
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.states import State
from hpcml.transports import Transport
from hpcml.transports.library import put_library

RUNNING = Word(State.RUNNING)  # the very same at each look: thousands are compared
WILL_NOT_RUN = Word(State.PENDING, "cancelled, so that it will not run")
START_INTERVAL = 1.0  # seconds between two starts of a dispatcher that nobody asked for


class ProcessScheduler:
    """See :class:`hpcml.schedulers.Scheduler`."""

    poll_interval = (0.02, 0.25)  # it costs a few system calls

    def __init__(self, site: Site, binding: Binding, files: Transport) -> None:
        self.site, self.binding, self.files = site, binding, files
        self.queue = wire.QueueFolder(binding.workspace)
        self._next_start = 0.0
        self._trouble = ""
        self._lock = threading.Lock()
        self._evidence: dict[str, Evidence] = {}
        with self._told("Free some space."):
            os.makedirs(self.queue.folder, mode=0o700, exist_ok=True)

    def submit(self, chunks: Sequence[Chunk]) -> list[str]:
        with self._told("Nothing was queued: free some space."):
            ids = [self._enqueue(chunk) for chunk in chunks]
        self.wake()
        return ids

    def find(self, names: Sequence[str]) -> dict[str, str]:
        jobs = {job.partition("-")[2]: job for job in reversed(self._jobs())}
        if jobs:
            self.wake_if_dead()  # whoever put it there may have been killed before waking one
        found = {name: jobs[name] for name in names if name in jobs}
        return {name: job for name, job in found.items() if self._entry(job) is not None}

    def poll(self, chunks: Sequence[Chunk]) -> dict[str, JobStatus]:
        jobs = set(self._jobs())
        if jobs:
            self._wake_or_remember_why_not()
        with self._lock:
            return {chunk.name: self._status(chunk, jobs) for chunk in chunks}

    def account(
        self, chunk: Chunk, attempts: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], Word]:
        return {}  # what is known stands in the batch's words, and poll has told it

    def facts(
        self, chunks: Sequence[Chunk]
    ) -> Mapping[str, Mapping[int, Sequence[Accounted]]] | None:
        return None  # what is known of a run its agent has written

    def record(self, chunk: Chunk, index: int, attempt: int, word: Word) -> Word:
        folder = os.path.join(self.binding.workspace, chunk.folder)
        said = {"state": str(word.state), "reason": word.reason, "time": time.time()}
        try:
            line = {"index": index, "attempt": attempt, **said}
            wire.append_line(wire.words_file(folder), line)
        except OSError as error:
            return unwritten(word, str(error))
        with self._lock:
            evidence = self._of(chunk)
            evidence.listen()
            return evidence.words.get((index, attempt), word)

    def cancel(self, chunks: Sequence[Chunk], indices: Collection[int]) -> None:
        folder = os.path.join(self.binding.workspace, chunks[0].folder)  # that of all of them
        # The request for all of them first: agents begin no such run, and end one that goes on,
        # whatever becomes of this process.
        request = {"indices": sorted(indices), "request": "cancel", "time": time.time()}
        with self._told("Free some space, then cancel again."):
            wire.append_line(wire.words_file(folder), request)
            for index in indices:
                self._cancel(folder, index)
        self.wake()

    def _jobs(self) -> list[str]:
        with self._told("See whether its file system is there.", "read"):
            return self.queue.jobs()

    def wake(self) -> None:
        """Have a dispatcher look at the queue: wake the one there is, or start one.

        A job never starts one: it would end with the job. The job's own agent sees to it.
        """
        if not wire.wake(self.queue.wake) and enclosing_run() is None:
            self._start_dispatcher()

    def wake_if_dead(self) -> None:
        """Start a dispatcher unless one holds the lock (after a crash or a reboot)."""
        if enclosing_run() is not None:
            return
        try:
            descriptor = os.open(self.queue.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Closing would not do: a child forked just now may hold a copy.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._trouble = ""
                return
            raise QueueError(
                f"{self.queue.lock} cannot be locked: {error}",
                "Put the workspace on a file system with locks (settings: sites.local.workspace).",
            ) from error
        now = time.monotonic()
        if now >= self._next_start and any(map(self.queue.entry, self.queue.jobs())):
            self._next_start = now + START_INTERVAL  # it may end at once, again and again
            self._start_dispatcher()

    def _wake_or_remember_why_not(self) -> None:
        """Looking at runs must not fail because their queue cannot be started."""
        try:
            self.wake_if_dead()
        except HpcmlError as error:
            self._trouble = error.problem

    def _start_dispatcher(self) -> None:
        workspace = self.binding.workspace
        put_library(self.files)
        library = os.path.join(workspace, "lib", self.binding.library)
        # Python, isolated; its environment goes on to every agent, so next to nothing is in it.
        argv = [self.binding.agent_python, "-I", "-S", library, "dispatch", workspace]
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        advice = "The queue itself is not lost: with the cause gone, any command starts it."
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd="/",
                check=False,
            )
        except OSError as error:  # as a shell would say it
            raise CommandError(argv, 127, str(error), advice) from error
        if done.returncode:
            output = (done.stdout + done.stderr).decode(errors="replace")
            raise CommandError(argv, done.returncode, output, advice)
        self._trouble = ""

    @contextmanager
    def _told(self, advice: str, done: str = "written") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise QueueError(
                f"{self.site.name}: the queue in {self.queue.folder} cannot be {done}: {error}",
                advice,
            ) from error

    def _cancel(self, folder: str, index: int) -> None:
        attempts, attempt = wire.Attempts(folder), 1
        while not attempts.refuse(index, attempt, wire.CANCELLED, "cancelled before it started"):
            end = attempts.read(index, attempt, "end")
            if end is None:
                return self._end_attempt(folder, index, attempts.read(index, attempt, "start"))
            if not end.get("requeue"):
                return None
            attempt += 1
        return None

    def _end_attempt(self, folder: str, index: int, start: dict[str, Any]) -> None:
        """Tell the agent of a run to end it."""
        if "refused" in start:
            return
        owner = start["owner"]
        if not wire.is_here(owner) and owner["host"]:
            run = wire.run_id(folder, index)
            problem = f"{run} was started on {owner['host']}, and gets no signal from here"
            raise QueueError(problem, "It is asked to end; if it goes on, cancel it there.")
        # A line of its own first: whoever sees the signal must find out for which run it was sent.
        request = {"index": index, "request": "cancel", "time": time.time()}
        wire.append_line(wire.words_file(folder), request)
        wire.terminate(owner)

    def _enqueue(self, chunk: Chunk) -> str:
        folder = os.path.join(self.binding.workspace, chunk.folder)
        with open(os.path.join(folder, "plan.json"), "rb") as file:
            plan = json.load(file)
        placed = plan["what"]["placement"]
        node = self.site.partitions[placed["partition"]].node
        return wire.enqueue(
            self.binding.workspace,
            {
                "name": chunk.name,
                "folder": folder,
                "first": chunk.first,
                "count": chunk.count,
                "cpus": placed["tasks"] * placed["cpus"],
                "memory": plan["what"]["limits"]["memory"],
                "machine": {"cpus": node.cpus, "memory": node.memory_bytes},
                "after": list(chunk.after),
                "group": chunk.group,
                "max_running": chunk.max_running,
                "parent": chunk.parent,
                "requeues": "checkpoint" in plan["what"],
                **wire.machine(),
            },
        )

    def _of(self, chunk: Chunk) -> Evidence:
        folder = os.path.join(self.binding.workspace, chunk.folder)
        return self._evidence.setdefault(chunk.name, Evidence(folder))

    def _status(self, chunk: Chunk, jobs: set[str]) -> JobStatus:
        evidence = self._of(chunk)
        evidence.listen()
        entry = self._entry(chunk.id) if chunk.id is not None and chunk.id in jobs else None
        if entry is None:
            return JobStatus(final=evidence.words)
        evidence.look()
        alive, silent = evidence.under_way()
        live = dict.fromkeys(alive, RUNNING)
        asked = Word(State.RUNNING, "it was told to end")
        live.update((index, asked) for index in evidence.cancels if index in live)
        unbegun = (evidence.cancels - evidence.begun).intersection(chunk.indices)
        live.update(dict.fromkeys(unbegun, WILL_NOT_RUN))
        if not wire.is_here(entry):
            reason = f"it was started on {entry['host']}; from here it cannot be seen"
            live.update(dict.fromkeys(silent, Word(State.UNKNOWN, reason)))
        return JobStatus(live, Word(State.PENDING, self._why_pending(entry)), evidence.words)

    def _entry(self, job: str) -> dict[str, Any] | None:
        """What the queue has of a job; ``None`` where a power loss has left the name alone."""
        try:
            entry: dict[str, Any] | None = wire.read_json(self.queue.path(job))
        except ValueError:
            return None
        return entry

    def _why_pending(self, entry: dict[str, Any]) -> str:
        if not wire.is_here(entry):
            host = entry["host"]
            return f"queued on the machine {host}, and waits there; if that is gone: cancel it"
        if self._trouble:
            return f"its queue cannot be started: {self._trouble}"
        if entry["after"]:
            return f"after {', '.join(entry['after'])}"
        return "waits for CPUs, memory, or its turn"
