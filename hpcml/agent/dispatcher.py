"""The embedded site's queue: a small, honest batch scheduler without a daemon.

One process a workspace and host, held by ``flock``. It lives as long as there are jobs in
``queue/``, sleeps until something happens, and knows nothing that is not on disk: killed at any
moment, the next one goes on from the files. A job is a range of runs, and is worked through in
slots: each is an agent (hpcml.agent.slot) that takes run after run. What it knows of a job:

``queue/<id>.job``
    ``folder`` (the batch), ``first`` and ``count`` (its runs), ``cpus``, ``memory`` (bytes or
    null), ``machine`` (what may be used of this host), ``after`` (run ids that must be COMPLETED
    first), ``group`` and ``max_running``; ``requeues``, whether runs may ask to be started again;
    ``parent``, the run that submitted it; whose it is (``host``, ``boot``, ``space``).
``queue/<id>.slot.<k>``
    Locked as long as the agent of that slot lives: it has inherited the lock. Its lines: who that
    is, once it has taken a run; and ``leave``, which asks it not to take another one.
``<batch>/attempts/0.words``
    The scheduler's final words, and requests to cancel; appended, the first word counts.
"""

import errno
import fcntl
import os
import select
import signal
import subprocess
import time

from hpcml.agent import before, memory, processes, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
FULL_DISK_INTERVAL = 2.0  # seconds between two tries to write
TRIES, TRY_INTERVAL = 50, 0.01  # to take a lock whose holder cannot be woken; s
LOOK_INTERVAL = 1.0  # seconds between two looks at what nobody tells us of
HOPELESS = 3  # agents of a job, one after the other, that took no run: no further one is tried
FRESH = 0.1  # seconds for which a folder's mtime may hide a further change
STARTED, IDLE, FULL, HELD, BLOCKED = "started", "idle", "full", "held", "blocked"


def main(workspace: str) -> int:
    """Become the dispatcher of a workspace, or wake the one there is. Returns an exit code."""
    queue = wire.QueueFolder(workspace)
    lock = os.open(queue.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _become(queue, lock):
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
            if not any(map(queue.entry, waiting)) or not wire.take_lock(lock):
                return 0
    except Exception:
        import traceback

        traceback.print_exc()  # into the log; the lock goes with the process
        return 1


def _become(queue: "wire.QueueFolder", lock: int) -> bool:
    """Take the lock; or wake who has it, which for a moment may be one who only asks or leaves."""
    for _ in range(TRIES):
        if wire.take_lock(lock):
            return True
        if wire.wake(queue.wake):
            break
        time.sleep(TRY_INTERVAL)
    return False


def _serve(queue: "wire.QueueFolder") -> "set[str]":
    """Serve until the queue is empty; a full disk only makes it wait.

    What could not be written is found out again from the files. Returns the jobs given up.
    """
    while True:
        try:
            dispatcher = Dispatcher(queue)
            try:
                dispatcher.serve()
                return dispatcher.broken
            finally:
                dispatcher.close()
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
        time.sleep(FULL_DISK_INTERVAL)


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
    """One job of the queue, and what its batch's files say of its runs.

    Attributes
    ----------
    free : list of int
        Runs that nobody has taken, or that are to be started again.
    open : dict
        Attempts under way, by run.
    slots : dict
        Its agents, by the number of their slot.
    """

    def __init__(self, identifier: str, entry: "dict[str, Any]") -> None:
        self.id = identifier
        self.folder = entry["folder"]
        self.indices = range(entry["first"], entry["first"] + entry["count"])
        self.cpus: int = entry["cpus"]
        self.memory: "int | None" = entry["memory"]
        self.machine: "dict[str, int]" = entry["machine"]
        self.after: "list[str]" = entry["after"]
        self.group, self.max_running = entry["group"], entry["max_running"]
        self.parent: "str | None" = entry.get("parent")
        self.requeues: bool = entry["requeues"]
        self.attempts = wire.Attempts(self.folder)
        self.free: "list[int]" = []
        self.open: "dict[int, int]" = {}
        self.slots: "dict[int, Slot]" = {}
        self.failures = 0
        self._listed: "int | None" = None
        self._first = True
        self._over: "set[int]" = set()
        self._said = wire.Words(self.folder)
        self._words: "dict[tuple[int, int], dict[str, Any]]" = {}
        self._cancels: "set[int]" = set()

    def look(self, certainly: bool = False) -> None:
        """See which runs are free, and which under way; cheap if nothing has changed."""
        changed = os.stat(self.attempts.folder).st_mtime_ns
        if changed == self._listed and not certainly:
            return
        # What has changed just now may change again without a trace: clocks of files are coarse.
        settled = time.time() - changed / 1e9 > FRESH
        listing = self.attempts.listing()
        self._listed = changed if settled else None
        self.free, self.open = [], {}
        for index in self.indices:
            numbers = listing.get(index)
            if numbers is None:
                self.free.append(index)
            elif index not in self._over:
                self._sort(index, max(numbers), numbers)
        self._first = False

    def _sort(self, index: int, last: int, numbers: "dict[int, set[str]]") -> None:
        end: "dict[str, Any] | None" = None
        if "end" in numbers[last]:
            end = {}
            if self.requeues or self._first:  # after a power loss it may be empty
                end = self.attempts.read(index, last, "end")
        if end is None:
            self.open[index] = last
        elif end.get("requeue"):
            self.free.append(index)
        else:
            self._over.add(index)

    def over(self) -> bool:
        """Whether nothing of it runs, or is still to run."""
        return not (self.free or self.slots or self.open)

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
        for record in self._said.new():
            if "state" in record:
                self._words.setdefault((record["index"], record["attempt"]), record)
            elif record.get("request") == "cancel":
                self._cancels.update(wire.about(record))


class Slot:
    """An agent that works on a job: a child of ours, or adopted from an earlier dispatcher."""

    def __init__(self, path: str, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.path, self.child = path, child
        self.told = False

    def ended(self) -> bool:
        """Whether the agent is gone."""
        if self.child is not None:
            return self.child.poll() is not None
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not wire.take_lock(descriptor):  # closing gives it up again
                return False
        finally:
            os.close(descriptor)
        owner = self.owner()  # a network file system's locks are not inherited
        return owner is None or not wire.alive(owner)

    def owner(self) -> "dict[str, Any] | None":
        """Who works in it, once it has taken a run."""
        with open(self.path, "rb") as file:
            lines = list(wire.parse_lines(file.read()))
        return next((line for line in lines if "pid" in line), None)

    def ask_to_leave(self) -> None:
        """Have it take no further run."""
        if not self.told:
            wire.append_line(self.path, {"leave": True})
            self.told = True

    def terminate(self) -> None:
        """Have it end its run, too."""
        owner = wire.identity(self.child.pid) if self.child is not None else self.owner()
        if owner is not None:
            wire.terminate(owner)


class Dispatcher:
    """Starts what fits, first in first out, and says how ended what cannot say so itself."""

    def __init__(self, queue: "wire.QueueFolder") -> None:
        self.queue = queue
        self.jobs: "dict[str, Job]" = {}
        self.broken: "set[str]" = set()
        self.states: "dict[str, str]" = {}
        self._listings: "dict[str, dict[int, dict[int, set[str]]] | None]" = {}
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
            for job in list(self.jobs.values()):
                self._try(self._tend, job)
            self._load()
            self._start()
            self._retire()
            if not self.jobs:
                break
            self._sleep()

    def close(self) -> None:
        """Stop listening: from here on a waker finds nobody and starts another dispatcher."""
        signal.set_wakeup_fd(-1)
        for descriptor in (self.fifo, self.wakeup, self.writer):
            os.close(descriptor)

    def _try(self, act: "Callable[[Job], object]", job: Job) -> "object":
        """Leave a job whose files cannot be used to a later dispatcher; the others go on."""
        try:
            return act(job)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            os.write(2, ("%s: %s\n" % (job.id, error)).encode("utf-8", "replace"))
            self.broken.add(job.id)
            self.jobs.pop(job.id, None)
            return None

    # --- jobs -----------------------------------------------------------------------------

    def _load(self) -> None:
        """Learn of new jobs, and of what became of their runs before we came."""
        for identifier in self.queue.jobs():
            if identifier in self.jobs or identifier in self.broken:
                continue
            entry = self.queue.entry(identifier)
            if entry is not None:
                self._try(self._learn, Job(identifier, entry))

    def _learn(self, job: Job) -> None:
        self.jobs[job.id] = job
        for number, lock in self.queue.slots(job.id).items():
            slot = Slot(lock)
            if not slot.ended():
                job.slots[number] = slot
        if job.removed():  # its agents may live
            return self._pass_over(job)
        job.look()
        self._take_stock(job)
        return None

    def _tend(self, job: Job) -> None:
        """See which of its agents have ended, and what became of their runs."""
        if job.removed():
            return self._pass_over(job)
        for number, slot in list(job.slots.items()):
            if slot.ended():
                del job.slots[number]
                job.look(certainly=True)
                self._take_stock(job, slot.child)
                self._account(job, slot)
        job.look()
        if job.open and not job.slots:
            self._take_stock(job)
        return None

    def _pass_over(self, job: Job) -> None:
        """Its files were removed; what runs of it is of no use."""
        job.free, job.open = [], {}
        for number, slot in list(job.slots.items()):
            slot.terminate()
            if slot.ended():
                del job.slots[number]

    def _retire(self) -> None:
        """Take jobs out of the queue whose runs have all ended."""
        for job in list(self.jobs.values()):
            if job.over():
                del self.jobs[job.id]
                self._try(self._forget, job)

    def _forget(self, job: Job) -> None:
        os.unlink(self.queue.path(job.id))
        for lock in self.queue.slots(job.id).values():
            os.unlink(lock)

    # --- ends -----------------------------------------------------------------------------

    def _take_stock(self, job: Job, child: "subprocess.Popen[bytes] | None" = None) -> None:
        """See what became of attempts that somebody has taken, and not ended.

        ``child`` is an agent that has just ended.
        """
        for index, attempt in list(job.open.items()):
            start = job.attempts.read(index, attempt, "start") or {"owner": wire.NOBODY}
            owner = start["owner"]
            if "refused" in start:
                job.attempts.end_refused(index, attempt, start["refused"])
            elif wire.alive(owner):
                continue
            elif owner["boot"] != wire.boot_id():
                reason = "the machine was rebooted while it ran"
                self._say(job, index, attempt, wire.NODE_FAIL, reason)
            else:
                known = child is not None and child.pid == owner["pid"]
                code = child.returncode if child is not None and known else None
                self._settle(job, index, attempt, owner, code)
            del job.open[index]

    def _say(self, job: Job, index: int, attempt: int, state: str, reason: str) -> None:
        if job.word(index, attempt) is None:
            job.say(index, attempt, state, reason)

    def _settle(
        self,
        job: Job,
        index: int,
        attempt: int,
        owner: "dict[str, Any]",
        code: "int | None",
    ) -> None:
        """Give the scheduler's final word on an attempt whose agent is gone without one."""
        self._clean_up(job, index, owner)
        end = job.attempts.read(index, attempt, "end")  # it may have been its very last act
        if end is not None and wire.how_it_ended(end, None, 0.0) is not None:
            return
        if job.cancel_requested(index):
            self._say(job, index, attempt, wire.CANCELLED, "cancelled while it ran")
        else:
            self._say(job, index, attempt, wire.FAILED, _silence(code))

    def _clean_up(self, job: Job, index: int, owner: "dict[str, Any]") -> None:
        """End what a dead agent left running, and remove its cgroup."""
        run = wire.run_id(job.folder, index)
        processes.kill_all(run, slot=processes.slot_name(owner))
        memory.remove_cgroup(run)

    def _account(self, job: Job, slot: Slot) -> None:
        """If an ended agent took no run at all, the first one never will begin."""
        if slot.owner() is not None:
            job.failures = 0
        elif slot.child is not None and job.free and not slot.told:
            job.failures += 1
            if not job.slots:
                free = job.free if job.failures >= HOPELESS else job.free[:1]
                self._refuse(job, free, wire.FAILED, _why_none_began(job, slot.child.returncode))

    def _refuse(self, job: Job, indices: "list[int]", state: str, reason: str) -> None:
        """End runs that will not be started (again)."""
        listing = job.attempts.listing()
        for index in indices:
            said = state, reason
            if job.cancel_requested(index):
                said = wire.CANCELLED, "cancelled before it started"
            job.attempts.refuse(index, max(listing.get(index, [0])) + 1, *said)
        self._listings.pop(os.path.basename(job.folder), None)
        job.look(certainly=True)

    # --- starts ---------------------------------------------------------------------------

    def _start(self) -> None:
        """Start agents in order; a job that does not fit yet holds back those behind it."""
        self._listings.clear()
        lenders = self._lenders()
        order = sorted(self.jobs.values(), key=lambda job: (job.parent not in lenders, job.id))
        blocked = None
        for place, job in enumerate(order):
            if blocked is not None and job.parent not in lenders:
                break
            verdict: object = STARTED
            while verdict == STARTED:
                verdict = self._try(lambda job: self._consider(job, lenders), job)
            if verdict == FULL:
                return self._make_room(job, order[place + 1 :], lenders)
            if verdict == BLOCKED:  # another child may end, and with it what is in the way
                blocked = blocked or job
        if blocked is not None and self._try(lambda job: self._give_up(job, lenders), blocked):
            self._start()
        return None

    def _lenders(self) -> "dict[str, Job]":
        """Runs under way that have submitted jobs which are still in the queue.

        They wait for these, or soon will; counted as busy, they might wait for ever.
        """
        folders = {os.path.basename(job.folder): job for job in self.jobs.values()}
        found = {}
        waiting = (job for job in self.jobs.values() if not job.over())
        for parent in {job.parent for job in waiting if job.parent}:
            batch, index = wire.run_parts(parent)
            job = folders.get(batch)
            if job is not None and index in job.open:
                found[parent] = job
        return found

    def _consider(self, job: Job, lenders: "dict[str, Job]") -> str:
        """Start another agent for a job, or say why not. IDLE: it needs none."""
        about_to_take = len(job.slots) - len(job.open)
        if not job.free or len(job.free) <= about_to_take:
            return IDLE
        verdict = self._not_yet(job)
        if verdict:
            return verdict
        is_child = job.parent in lenders
        if not _fits(job, is_child, *self._room(job, lenders)):
            waiting = len(lenders) if is_child else 0
            return FULL if len(self._busy()) > waiting else BLOCKED
        self._spawn(job)
        return STARTED

    def _busy(self) -> "list[Job]":
        """Jobs with an agent, as often as they have one."""
        return [job for job in self.jobs.values() for _ in job.slots]

    def _room(self, job: Job, lenders: "dict[str, Job]") -> "tuple[int, int]":
        """CPUs and bytes of memory that are free for a job."""
        cpus, free = job.machine["cpus"], job.machine["memory"]
        for other in self._busy():
            cpus -= other.cpus
            free -= other.share_of_memory()
        if job.parent in lenders:
            for lender in lenders.values():
                cpus += lender.cpus
                free += lender.share_of_memory() if lender.memory is None else 0
        return cpus, free

    def _make_room(self, job: Job, later: "list[Job]", lenders: "dict[str, Job]") -> None:
        """Have agents of jobs that come later leave after their runs, as many as it takes.

        They took what was free while this one had to wait for something else.
        """
        cpus, free = self._room(job, lenders)
        for other in reversed(later):
            for slot in other.slots.values() if other not in lenders.values() else ():
                if _fits(job, job.parent in lenders, cpus, free):
                    return
                slot.ask_to_leave()
                cpus += other.cpus
                free += other.share_of_memory()

    def _give_up(self, job: Job, lenders: "dict[str, Job]") -> bool:
        """Refuse what does not fit, if nothing else goes on that might end."""
        if self._consider(job, lenders) != BLOCKED:
            return False
        cpus, free = self._room(job, lenders)
        left = "this machine has left beside the runs that wait for it"
        reason = "it asks for more than %s (%d CPUs, %d MiB)" % (
            left if job.parent in lenders else "this machine has",
            cpus,
            free >> 20,
        )
        self._refuse(job, job.free, wire.FAILED, reason)
        return True

    def _not_yet(self, job: Job) -> "str | None":
        """Whether a job waits for other runs, or its turn, or will never run."""
        if job.failures >= HOPELESS and job.slots:
            return HELD  # let us see how the others fare
        state = self._state_before(job)
        if state is not None:
            run, ended = state
            if ended is None:
                return HELD
            self._refuse(job, job.free, wire.CANCELLED, self._why_not_after(run, ended))
            return IDLE
        if job.max_running is not None:
            group = [other for other in self.jobs.values() if other.group == job.group]
            if sum(len(other.slots) for other in group) >= job.max_running:
                return HELD
        return None

    def _spawn(self, job: Job) -> None:
        number = next(k for k in range(len(job.slots) + 1) if k not in job.slots)
        path = self.queue.slot(job.id, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        output = os.open(os.path.join(job.folder, "attempts", "0.out"), flags, 0o600)
        lock = os.open(path, flags, 0o600)
        try:
            if not wire.take_lock(lock):  # an agent that we did not know of
                job.slots[number] = Slot(path)
                return
            os.ftruncate(lock, 0)
            child = subprocess.Popen(
                ["/bin/sh", "job.sh", str(job.indices[0]), str(len(job.indices))],
                cwd=job.folder,
                env=dict(os.environ, HPCML_LOCK=str(lock), **processes.SERVICE),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[lock],
            )
        except OSError as error:
            self._refuse(job, job.free, wire.FAILED, "it could not be started: %s" % error)
            return
        finally:
            os.close(lock)  # the agent has it
            os.close(output)
        job.slots[number] = Slot(path, child)

    def _state_before(self, job: Job) -> "tuple[str, str | None] | None":
        """The first run before a job that is not COMPLETED, and its state, ``None`` if it has none.

        A run that will never be COMPLETED comes before one that may be.
        """
        waiting: "tuple[str, str | None] | None" = None
        for run in job.after:
            state = self.states.get(run)
            if state is None:
                batch, index = wire.run_parts(run)
                state = self._state_of(batch, index, self._listing(batch))
            if state is None:
                waiting = waiting or (run, None)
                continue
            self.states[run] = state
            if state != wire.COMPLETED:
                return run, state
        return waiting

    def _why_not_after(self, run: str, state: str) -> str:
        if self._listing(wire.run_parts(run)[0]) is None:
            return "it was to run after %s, whose files are gone" % run
        return "it was to run after %s, which is %s" % (run, state)

    def _listing(self, batch: str) -> "dict[int, dict[int, set[str]]] | None":
        """Attempts of a batch, ``None`` if it is gone. Thousands of jobs may wait for its runs."""
        if batch not in self._listings:
            attempts = wire.Attempts(os.path.join(self.queue.runs, batch))
            try:
                self._listings[batch] = attempts.listing()
            except FileNotFoundError:
                self._listings[batch] = None
        return self._listings[batch]

    def _state_of(
        self, batch: str, index: int, listing: "dict[int, dict[int, set[str]]] | None"
    ) -> "str | None":
        """Final state of a run of this workspace, ``None`` while it has none."""
        if listing is None:
            return wire.UNKNOWN  # its files were removed
        return before.state_of(os.path.join(self.queue.runs, batch), index, listing.get(index))

    # --- waiting --------------------------------------------------------------------------

    def _sleep(self) -> None:
        """Until a child ends, somebody wakes us, or something else may have ended.

        Nobody tells us of an adopted agent's end, nor of one run's whose agent goes on to others.
        """
        jobs = self.jobs.values()
        untold = any(slot.child is None for job in jobs for slot in job.slots.values())
        untold = untold or any(job.open and not job.slots for job in jobs)
        untold = untold or any(job.after and job.free for job in jobs)
        try:
            select.select([self.wakeup, self.fifo], [], [], LOOK_INTERVAL if untold else None)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        for descriptor in (self.wakeup, self.fifo):
            try:
                while os.read(descriptor, 4096):
                    pass
            except OSError:
                pass


def _fits(job: Job, is_child: bool, cpus: int, free: int) -> bool:
    undemanding = is_child and job.memory is None  # its share is nobody's demand
    return job.cpus <= cpus and (undemanding or job.share_of_memory() <= free)


def _why_none_began(job: Job, code: int) -> str:
    with open(os.path.join(job.folder, "attempts", "0.out"), errors="replace") as file:
        said = file.read()[-500:].strip()
    how = "signal %d" % -code if code < 0 else "exit code %d" % code
    reason = "its script ended with %s before the agent started: %s"
    # A Python ends with 120 if it cannot write what it has printed.
    return reason % (how, said or ("it could not print why" if code == 120 else "no output"))


def _silence(code: "int | None") -> str:
    if code is None:
        return "its agent ended without a word"
    if code < 0:
        return "its agent was killed by signal %d" % -code
    return "its agent ended with exit code %d and could not record it" % code
