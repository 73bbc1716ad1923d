"""The embedded site's queue: a small, honest batch scheduler without a daemon.

One process a workspace and host, held by ``flock``. It lives as long as there are jobs in
``queue/``, sleeps until something happens, and knows nothing that is not on disk: killed at any
moment, the next one goes on from the files. What it knows of a job:

``queue/<id>.job``
    ``folder`` (the batch), ``first`` and ``count`` (its runs), ``cpus``, ``memory`` (bytes or
    null), ``machine`` (what may be used of this host), ``after`` (run ids that must be COMPLETED
    first), ``group`` and ``max_running``; whose it is
    (``host``, ``boot``, ``space``).
``<batch>/queue/0.words``
    The scheduler's final words, and requests to cancel; appended, the first word counts.
"""

import errno
import fcntl
import os
import select
import signal
import subprocess
import time

from hpcml.agent import memory, processes, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
FULL_DISK_INTERVAL = 2.0  # seconds between two tries to write
ADOPTED_INTERVAL = 1.0  # seconds between two looks at agents that are not our children
IDLE, FULL, HELD = "idle", "full", "held"


def main(workspace: str) -> int:
    """Become the dispatcher of a workspace, or wake the one there is. Returns an exit code."""
    queue = wire.QueueFolder(workspace)
    lock = os.open(queue.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _take(lock):
        wire.wake(queue.wake)
        return 0
    if os.fork():
        return 0  # whoever called us need not wait: the lock is taken
    os.setsid()
    _detach(queue.log)
    try:
        while True:
            broken = _serve(queue)
            fcntl.flock(lock, fcntl.LOCK_UN)
            # What was queued before we let go of the lock found it held and only woke us.
            waiting = set(queue.jobs()) - broken
            if not any(map(queue.entry, waiting)) or not _take(lock):
                return 0
    except Exception:
        import traceback

        traceback.print_exc()  # into the log; the lock goes with the process
        return 1


def _serve(queue: "wire.QueueFolder") -> "set[str]":
    """Serve until the queue is empty; a full disk only makes it wait.

    What could not be written is found out again from the files. Returns the jobs given up.
    """
    while True:
        dispatcher = Dispatcher(queue)
        try:
            dispatcher.serve()
            return dispatcher.broken
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
        finally:
            dispatcher.close()
        time.sleep(FULL_DISK_INTERVAL)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise


def _detach(log: str) -> None:
    """Let go of the caller's terminal and pipes."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)


class Job:
    """One job of the queue, and what its batch's files say of its runs."""

    def __init__(self, identifier: str, entry: "dict[str, Any]") -> None:
        self.id = identifier
        self.folder = entry["folder"]
        self.indices = range(entry["first"], entry["first"] + entry["count"])
        self.cpus: int = entry["cpus"]
        self.memory: "int | None" = entry["memory"]
        self.machine: "dict[str, int]" = entry["machine"]
        self.after: "list[str]" = entry["after"]
        self.group, self.max_running = entry["group"], entry["max_running"]
        self.attempts = wire.Attempts(self.folder)
        self._heard = 0
        self._words: "dict[tuple[int, int], dict[str, Any]]" = {}
        self._cancels: "set[int]" = set()

    def removed(self) -> bool:
        """Whether the batch is gone."""
        return not os.path.isdir(self.attempts.folder)

    def share_of_memory(self) -> int:
        """Bytes to set aside: what was asked for, else the share that goes with the CPUs."""
        if self.memory is not None:
            return self.memory
        return self.machine["memory"] * self.cpus // self.machine["cpus"]

    def say(self, index: int, attempt: int, state: str, reason: str) -> None:
        """The scheduler's final word on an attempt."""
        wire.append_line(
            wire.words_file(self.folder),
            {
                "index": index,
                "attempt": attempt,
                "state": state,
                "reason": reason,
                "time": time.time(),
            },
        )

    def word(self, index: int, attempt: int) -> "dict[str, Any] | None":
        """The first final word on an attempt."""
        self._listen()
        return self._words.get((index, attempt))

    def cancel_requested(self, index: int) -> bool:
        """Whether somebody wants a run cancelled."""
        self._listen()
        return index in self._cancels

    def _listen(self) -> None:
        """Read what has been said since we last listened."""
        try:
            with open(wire.words_file(self.folder), "rb") as file:
                file.seek(self._heard)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._heard += len(whole)
        for record in wire.parse_lines(whole):
            if "state" in record:
                self._words.setdefault((record["index"], record["attempt"]), record)
            elif record.get("request") == "cancel":
                self._cancels.add(record["index"])


class Running:
    """An attempt under way: a child of ours, or an agent adopted from an earlier dispatcher."""

    def __init__(
        self,
        job: Job,
        index: int,
        attempt: int,
        child: "subprocess.Popen[bytes] | None" = None,
        owner: "dict[str, Any] | None" = None,
    ) -> None:
        self.job, self.index, self.attempt = job, index, attempt
        self.child, self.owner = child, owner


class Dispatcher:
    """Starts what fits, first in first out, and says how ended what cannot say so itself."""

    def __init__(self, queue: "wire.QueueFolder") -> None:
        self.queue = queue
        self.jobs: "dict[str, Job]" = {}
        self.waiting: "dict[str, list[int]]" = {}
        self.running: "dict[tuple[str, int], Running]" = {}
        self.broken: "set[str]" = set()
        self.wakeup, self.writer = os.pipe()
        for descriptor in (self.wakeup, self.writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self.writer)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        try:
            os.mkfifo(queue.wake, 0o600)
        except FileExistsError:
            pass
        self.fifo = os.open(queue.wake, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Work until the queue is empty."""
        while True:
            self._drop_removed()
            self._collect()
            self._load()
            self._start()
            self._retire()
            if not self.jobs and not self.running:
                break
            self._sleep()

    def close(self) -> None:
        """Stop listening: from here on a waker finds nobody and starts another dispatcher."""
        signal.set_wakeup_fd(-1)
        for descriptor in (self.fifo, self.wakeup, self.writer):
            os.close(descriptor)

    def _give_up(self, job: Job, error: OSError) -> None:
        """Leave a job whose files cannot be used to a later dispatcher; the others go on."""
        if error.errno in FULL_DISK:
            raise error
        os.write(2, ("%s: %s\n" % (job.id, error)).encode("utf-8", "replace"))
        self.broken.add(job.id)
        self.jobs.pop(job.id, None)
        self.waiting.pop(job.id, None)
        for key in [key for key in self.running if key[0] == job.id]:
            del self.running[key]

    def _load(self) -> None:
        """Learn of new jobs, and of what became of their runs before we came."""
        for identifier in self.queue.jobs():
            if identifier in self.jobs or identifier in self.broken:
                continue
            entry = self.queue.entry(identifier)
            if entry is None:
                continue
            job = Job(identifier, entry)
            try:
                self._learn(job)
            except OSError as error:
                self._give_up(job, error)

    def _learn(self, job: Job) -> None:
        if job.removed():
            return os.unlink(self.queue.path(job.id))
        listing = job.attempts.listing()
        self.jobs[job.id] = job
        self.waiting[job.id] = [index for index in job.indices if index not in listing]
        for index, numbers in listing.items():
            if index in job.indices:
                self._take_stock(job, index, max(numbers))
        return None

    def _drop_removed(self) -> None:
        """Pass over jobs whose files somebody has removed; what runs of them is of no use."""
        for identifier, job in self.jobs.items():
            if job.removed():
                self.waiting[identifier] = []
                for index in job.indices:
                    if self.running.pop((identifier, index), None) is not None:
                        self._clean_up(job, index)

    def _take_stock(self, job: Job, index: int, attempt: int, code: "int | None" = None) -> None:
        """See what became of an attempt that somebody has taken.

        ``code`` is the exit code of its agent where that was our child and has ended.
        """
        start = job.attempts.read(index, attempt, "start") or {"owner": wire.NOBODY}
        if job.attempts.read(index, attempt, "end") is not None:
            self._settle(job, index, attempt, code)
        elif "refused" in start:
            job.attempts.end_refused(index, attempt, start["refused"])
        elif wire.alive(start["owner"]):
            self._track(Running(job, index, attempt, owner=start["owner"]))
        elif start["owner"]["boot"] != wire.boot_id():
            job.say(index, attempt, wire.NODE_FAIL, "the machine was rebooted while it ran")
        else:
            self._settle(job, index, attempt, code)

    def _track(self, running: Running) -> None:
        self.running[(running.job.id, running.index)] = running

    # --- ends -----------------------------------------------------------------------------

    def _collect(self) -> None:
        """See which agents have ended."""
        for running in list(self.running.values()):
            if running.child is not None:
                code = running.child.poll()
                if code is None:
                    continue
            elif running.owner is not None and wire.alive(running.owner):
                continue
            else:
                code = None
            try:
                self._ended(running, code)
            except OSError as error:
                self._give_up(running.job, error)

    def _ended(self, running: Running, code: "int | None") -> None:
        job, index, attempt = running.job, running.index, running.attempt
        del self.running[(job.id, index)]
        if job.attempts.read(index, attempt, "start") is None:
            self._never_began(job, index, attempt, code)
        else:
            self._take_stock(job, index, attempt, code)

    def _never_began(self, job: Job, index: int, attempt: int, code: "int | None") -> None:
        """The job's script ended before its agent took the attempt, so it never will."""
        with open(os.path.join(job.folder, "queue", "0.out"), errors="replace") as file:
            said = file.read()[-500:].strip()
        how = "signal %d" % -code if code is not None and code < 0 else "exit code %s" % code
        reason = "its script ended with %s before the agent started: %s" % (
            how,
            said or "no output",
        )
        if job.cancel_requested(index):
            job.attempts.refuse(index, attempt, wire.CANCELLED, "cancelled before it started")
        else:
            job.attempts.refuse(index, attempt, wire.FAILED, reason)

    def _clean_up(self, job: Job, index: int) -> None:
        """End what a dead agent left running, and remove its cgroup."""
        run = wire.run_id(job.folder, index)
        processes.kill_all(run)
        memory.remove_cgroup(run)

    def _settle(self, job: Job, index: int, attempt: int, code: "int | None") -> None:
        """Give the scheduler's final word where the agent's own does not suffice."""
        if job.word(index, attempt) is not None:
            return
        end = job.attempts.read(index, attempt, "end")
        if end is None:
            self._clean_up(job, index)
            if job.attempts.read(index, attempt, "end") is not None:
                return self._settle(job, index, attempt, code)  # its very last act
        if end is not None and wire.how_it_ended(end, None, 0.0) is not None:
            return
        if job.cancel_requested(index):
            job.say(index, attempt, wire.CANCELLED, "cancelled while it ran")
        else:
            job.say(index, attempt, wire.FAILED, _silence(code))

    def _retire(self) -> None:
        """Take jobs out of the queue whose runs have all ended."""
        for identifier in list(self.jobs):
            busy = self.waiting[identifier] or any(key[0] == identifier for key in self.running)
            if not busy:
                del self.jobs[identifier], self.waiting[identifier]
                os.unlink(self.queue.path(identifier))

    # --- starts ---------------------------------------------------------------------------

    def _start(self) -> None:
        """Start waiting runs in order; one that does not fit yet holds back those behind it."""
        for identifier in sorted(self.jobs):
            job = self.jobs[identifier]
            while self.waiting.get(identifier):
                try:
                    verdict = self._consider(job, self.waiting[identifier][0])
                except OSError as error:
                    self._give_up(job, error)
                    break
                if verdict == FULL:
                    return
                if verdict == HELD:
                    break
                self.waiting[identifier].pop(0)

    def _consider(self, job: Job, index: int) -> str:
        """Start a run, or say why not. IDLE: it is started or over."""
        if job.attempts.read(index, 1, "start") is not None:
            # Cancelled meanwhile, or an agent that an earlier dispatcher had just started.
            self._take_stock(job, index, max(job.attempts.listing()[index]))
            return IDLE
        for other in job.after:
            state = self._state_of(other)
            if state is None:
                return HELD
            if state != wire.COMPLETED:
                reason = "it was to run after %s, which is %s" % (other, state)
                job.attempts.refuse(index, 1, wire.CANCELLED, reason)
                return IDLE
        if job.max_running is not None:
            group = [r for r in self.running.values() if r.job.group == job.group]
            if len(group) >= job.max_running:
                return HELD
        running = list(self.running.values())
        cpus = job.machine["cpus"] - sum(r.job.cpus for r in running)
        free = job.machine["memory"] - sum(r.job.share_of_memory() for r in running)
        if job.cpus > cpus or job.share_of_memory() > free:
            if running:
                return FULL
            reason = "it asks for more than this machine has (%d CPUs, %d MiB)" % (
                job.machine["cpus"],
                job.machine["memory"] >> 20,
            )
            job.attempts.refuse(index, 1, wire.FAILED, reason)
            return IDLE
        self._spawn(job, index)
        return IDLE

    def _spawn(self, job: Job, index: int) -> None:
        output = os.open(
            os.path.join(job.folder, "queue", "0.out"),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
            0o600,
        )
        try:
            child = subprocess.Popen(
                ["/bin/sh", "job.sh", str(index)],
                cwd=job.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            job.attempts.refuse(index, 1, wire.FAILED, "it could not be started: %s" % error)
            return
        finally:
            os.close(output)
        self._track(Running(job, index, 1, child=child))

    def _state_of(self, run: str) -> "str | None":
        """Final state of a run of this workspace, ``None`` while it has none."""
        batch, _, index = run.rpartition(".")
        folder = os.path.join(self.queue.runs, batch)
        try:
            numbers = wire.Attempts(folder).listing().get(int(index))
        except FileNotFoundError:
            return wire.UNKNOWN  # its files were removed
        if not numbers:
            return None
        end = wire.Attempts(folder).read(int(index), max(numbers), "end")
        word = wire.first_words(wire.spoken(folder)).get((int(index), max(numbers)))
        if end is None and word is None:
            return None
        judged = wire.how_it_ended(end, word, time.time() - end["time"] if end else 0.0)
        return judged[0] if judged else None

    # --- waiting --------------------------------------------------------------------------

    def _sleep(self) -> None:
        """Until a child ends, somebody wakes us, or an adopted agent may have ended."""
        adopted = any(running.child is None for running in self.running.values())
        try:
            select.select([self.wakeup, self.fifo], [], [], ADOPTED_INTERVAL if adopted else None)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        for descriptor in (self.wakeup, self.fifo):
            try:
                while os.read(descriptor, 4096):
                    pass
            except OSError:
                pass


def _silence(code: "int | None") -> str:
    if code is None:
        return "its agent ended without a word"
    if code < 0:
        return "its agent was killed by signal %d" % -code
    return "its agent ended with exit code %d and could not record it" % code
