"""Watching over a run's command: signals, walltime, memory, and every process it left behind."""

import errno
import os
import select
import signal
import time

from hpcml.agent import events, processes, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from typing import Any, Callable, Iterable

    from hpcml.agent.events import Events
    from hpcml.agent.memory import Limit
    from hpcml.agent.slot import Slot

FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGXCPU", "SIGUSR1", "SIGUSR2", "SIGCONT")
MOST_KILLS = 2  # the second one is for who would say that the first has worked
MEMORY_INTERVAL = 0.2  # seconds between two looks where no cgroup enforces the limit
NOTICE_INTERVAL = 0.5  # seconds between two looks whether somebody listens for a notice
# Programs that pass signals on to all processes that they have started.
PASS_ON = (
    *("srun", "starter", "starter-suid"),  # the latter two are Apptainer's
    *("mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun"),
)


class Signals:
    """Collects signals sent to the agent, so that none is lost and none ends it."""

    def __init__(self) -> None:
        self.pending: "list[int]" = []
        self.reader, self.writer = os.pipe()
        for descriptor in (self.reader, self.writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self.writer)
        for name in FORWARDED:
            signal.signal(getattr(signal, name), self._remember)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _remember(self, number: int, frame: object) -> None:
        self.pending.append(number)

    def take(self) -> "list[int]":
        """Signals since the last call."""
        taken, self.pending = self.pending, []
        return taken

    def wait(self, seconds: "float | None", *also: int) -> None:
        """Sleep until a signal comes (a child's end is one), ``seconds`` at most.

        Or until one of the other descriptors has something to read.
        """
        try:
            select.select([self.reader, *list(also)], [], [], seconds)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        try:
            while os.read(self.reader, 512):
                pass
        except OSError:
            pass


class Outcome:
    """How the command ended, and by whose hand.

    Attributes
    ----------
    aborted : str or None
        What Slurm said when it aborted the step that the command was.
    noticed : bool
        Whether it was to be told that its walltime would soon be over.
    """

    def __init__(self) -> None:
        self.exit_code: "int | None" = None
        self.signal: "int | None" = None
        self.received: "list[int]" = []
        self.cause: "str | None" = None
        self.reason: "str | None" = None
        self.aborted: "str | None" = None
        self.noticed = self.requeue = False

    def blame(self, cause: str, reason: str) -> None:
        """Name the cause; the first one stands."""
        if self.cause is None:
            self.cause, self.reason = cause, reason


class Usage:
    """CPU time and memory of ended processes, and input and output meanwhile."""

    def __init__(self, *parents: int) -> None:
        self.parents = parents  # those that wait for the processes, and so count what they did
        self.before = self._input_output()
        self.cpu_user = self.cpu_system = 0.0
        self.max_rss = 0

    def add(self, used: "resource.struct_rusage") -> None:
        self.cpu_user += used.ru_utime
        self.cpu_system += used.ru_stime
        self.max_rss = max(self.max_rss, used.ru_maxrss * 1024)

    def as_data(self) -> "dict[str, Any]":
        """What was used.

        Returns
        -------
        dict
            ``cpu_user`` and ``cpu_system`` in s; ``max_rss``, the largest process, in bytes (at
            least what this agent held when it started it: Linux counts that, some 10 MB);
            ``rchar`` and ``wchar``, bytes read and written by system calls, and ``read_bytes`` and
            ``write_bytes``, those that reached storage (``None`` where the kernel does not count).
        """
        usage: "dict[str, Any]" = {
            "cpu_user": self.cpu_user,
            "cpu_system": self.cpu_system,
            "max_rss": self.max_rss,
        }
        after = self._input_output()
        for key in ("rchar", "wchar", "read_bytes", "write_bytes"):
            usage[key] = None
            if self.before is not None and after is not None:
                usage[key] = max(0, after[key] - self.before[key])
        return usage

    def _input_output(self) -> "dict[str, int] | None":
        counts = [events.input_output(pid) for pid in self.parents]
        if None in counts:
            return None
        return {key: sum(count[key] for count in counts if count) for key in counts[0] or ()}


class Command:
    """A started command: a process, or a warm interpreter that is about to fork one.

    Attributes
    ----------
    pid : int
        The process that stands for it now, leader of a session of its own.
    refused : str or None
        Why it did not come to be, where that is no end of the run.
    status, used
        As ``os.wait4`` would say, once somebody else has waited for it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.refused: "str | None" = None
        self.status: "int | None" = None
        self.used: "Any" = None

    def awaited(self) -> "list[int]":
        """Descriptors by which there may be news of it."""
        return []

    def hear(self) -> None:
        """Learn what news there is."""


class Supervisor:
    """Sees a started command through to its end.

    Parameters
    ----------
    command : Command
    index : int
        The run's.
    limits : dict
        ``time``, ``notice`` (before the end) and ``kill_wait`` in s; ``time`` and ``notice`` may be
        ``None``.
    memory : hpcml.agent.memory.Limit
    slot : hpcml.agent.slot.Slot
        Whose signals these are.
    events : hpcml.agent.events.Events
    tell_elsewhere : callable, optional
        Starts a process that tells whoever listens on further nodes that time runs out, and gives
        its process id.
    """

    def __init__(
        self,
        command: Command,
        index: int,
        limits: "dict[str, Any]",
        memory: "Limit",
        slot: "Slot",
        events: "Events",
        tell_elsewhere: "Callable[[], int] | None" = None,
    ) -> None:
        self.command, self.index, self.memory = command, index, memory
        self.run_id = wire.run_id(slot.batch, index)
        self.slot, self.signals, self.events = slot, slot.signals, events
        self.kill_wait: float = limits["kill_wait"]
        self.limit = limits["time"]
        self.began = time.monotonic()
        self.deadline: "float | None" = None if self.limit is None else self.began + self.limit
        self.notice_at: "float | None" = None
        if self.deadline is not None and limits["notice"]:
            self.notice_at = self.deadline - limits["notice"]
        self.remind_at: "float | None" = None
        self.tell_elsewhere, self.teller = tell_elsewhere, 0
        # A job with a checkpoint is told as soon as it listens: it may just be starting.
        self.patient = slot.plan["what"].get("checkpoint") is not None
        self.look_at: "float | None" = self.began + 0.02 if memory.watched else None
        self.kill_at: "float | None" = None
        self.kills = 0
        self.outcome = Outcome()
        self.usage = Usage(os.getpid(), *slot.spare)

    def watch(self) -> Outcome:
        """Block until the command has ended and nothing of it is left. Returns an Outcome."""
        while True:
            self.command.hear()
            self._forward()
            status = self._reap()  # before acting: what has ended kept its limits
            if status is not None or self._is_lost():
                break
            now = time.monotonic()
            self._act(now)
            patience = self._patience(time.monotonic())
            self.signals.wait(patience, *self.command.awaited())
        if status is None:
            self.outcome.blame(wire.FAILED, "it was killed, and nobody could say how it ended")
        elif os.WIFSIGNALED(status):
            self.outcome.signal = os.WTERMSIG(status)
        else:
            self.outcome.exit_code = os.WEXITSTATUS(status)
        self._await_teller()
        self.command.hear()  # its last word
        self._forward()  # a signal that came while the command ended
        if self.outcome.exit_code != 0 and self._killed_for_memory():
            self.outcome.blame(wire.OUT_OF_MEMORY, self._by_the_kernel())
        self._end_leftovers()
        return self.outcome

    def _reap(self) -> "int | None":
        """Collect ended children: the command's status, and orphans adopted from it."""
        ended = self.command.status
        if self.command.used is not None:
            self.usage.add(self.command.used)
            self.command.used = None
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                if error.errno == errno.ECHILD:
                    return ended
                raise
            if pid == 0:
                return ended
            if pid == self.teller:
                self.teller = 0
                continue
            self.command.hear()  # what ended may have been replaced by a fork of its own before
            if pid == self.command.pid:
                ended = status
            if not self.slot.has_lost(pid):
                self.usage.add(used)

    def _forward(self) -> None:
        for number in self.signals.take():
            if number in wire.ENDING_SIGNALS and not self.slot.concerns(self.index):
                continue  # it was meant for a run that has ended meanwhile
            self.events.write("signal", signal=number)
            if number == signal.SIGUSR2:
                self._notify()  # "save your state": it would kill those who do not know it
                continue
            try:
                os.killpg(self.command.pid, number)
            except OSError:
                pass  # it has ended
            if number in wire.ENDING_SIGNALS:
                self.outcome.received.append(number)
                self.kill_at = self.kill_at or time.monotonic() + self.kill_wait

    def _act(self, now: float) -> None:
        if self.slot.look_after(now):
            if self.memory.folder is None:
                self.memory.evidence.look()
            self._look_for_cancelling()
        if self.notice_at is not None and now >= self.notice_at:
            self.notice_at = None
            self.outcome.noticed = True
            self.events.write("notice", seconds=self.began + self.limit - time.monotonic())
            self._notify()
        if self.remind_at is not None and now >= self.remind_at:
            self._notify()
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.outcome.blame(wire.TIMEOUT, "walltime of %g s is over" % self.limit)
            self._end("walltime")
        if self.look_at is not None and now >= self.look_at:
            self.look_at = now + MEMORY_INTERVAL
            if self.memory.exceeded():
                self.outcome.blame(
                    wire.OUT_OF_MEMORY,
                    "its processes held %d MiB, the limit is %d MiB"
                    % ((self.memory.peak or 0) >> 20, (self.memory.limit or 0) >> 20),
                )
                self.kill_at, self.look_at = now, None
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            self.events.write("kill")
            processes.send(self._all(), signal.SIGKILL)
            if self.kills:  # and yet nobody says so: who would, may have been stopped
                processes.send(self.slot.spare, signal.SIGKILL)
            self.kills += 1
            self.kill_at = now + 1.0  # what was forked meanwhile

    def _is_lost(self) -> bool:
        """Whether the command is gone, and somebody else has collected it."""
        return self.kills > MOST_KILLS and wire.started_at(self.command.pid) is None

    def _look_for_cancelling(self) -> None:
        """End the run if somebody asked for it, and has sent no signal, or not come to that."""
        asked = self.slot.cancelled(self.index)
        if asked and self.outcome.cause is None and not self.outcome.received:
            self.outcome.blame(wire.CANCELLED, "cancelled while it ran")
            self._end("cancel")

    def _notify(self) -> None:
        """Tell whoever listens for USR2 that time runs out; it would kill the others."""
        told = notify(self._all())
        wait = self.patient and not told
        self.remind_at = time.monotonic() + NOTICE_INTERVAL if wait else None
        if self.tell_elsewhere is None or self.teller or wait:
            return
        try:
            self.teller = self.tell_elsewhere()
        except OSError as error:
            self.events.write("untold", why=str(error))

    def _await_teller(self) -> None:
        """Nobody must be told in the next attempt what was meant for this one."""
        until = time.monotonic() + self.kill_wait
        while self.teller and time.monotonic() < until:
            self.signals.wait(until - time.monotonic())
            self._reap()

    def _end(self, why: str) -> None:
        self.events.write("terminate", why=why)
        processes.send(self._all(), signal.SIGTERM)
        self.kill_at = time.monotonic() + self.kill_wait

    def _all(self) -> "set[int]":
        """The run's processes: with the warm interpreter while that stands for the command."""
        return self._others() | {self.command.pid}

    def _others(self) -> "set[int]":
        return processes.of_run(self.run_id, os.getpid(), self.slot.spare, self.slot.name)

    def _patience(self, now: float) -> float:
        times = (self.notice_at, self.remind_at, self.deadline, self.look_at, self.kill_at)
        waits = [moment - now for moment in (*times, self.slot.look_at) if moment is not None]
        return max(0.0, min(waits))

    def _killed_for_memory(self) -> bool:
        by_kill = self.outcome.signal == signal.SIGKILL or self.outcome.exit_code == 137
        return (self.memory.folder is not None or by_kill) and self.memory.evidence.killed()

    def _by_the_kernel(self) -> str:
        limit = self.memory.evidence.limit
        of = "" if limit is None else "; the limit is %d MiB" % (limit >> 20)
        return "the kernel killed a process of the run for want of memory" + of

    def _end_leftovers(self) -> None:
        """End what the command left running: its cores are given to the next run."""
        self._reap()  # orphans that have ended by themselves
        if self.slot.adopting:
            if not processes.left(self.slot.spare):
                return
        elif not self._others():
            return  # without adoption orphans went to init
        self.events.write("leftovers")
        spare, name = self.slot.spare, self.slot.name
        processes.kill_all(self.run_id, os.getpid(), spare=spare, slot=name, reap=self._reap)


def notify(pids: "Iterable[int]") -> bool:
    """Send USR2 to those that listen for it. Returns whether any does."""
    listening = [pid for pid in pids if _listens(pid)]
    processes.send(listening, signal.SIGUSR2)
    return bool(listening)


def _listens(pid: int) -> bool:
    """Whether a process has a handler for USR2, and not to pass it on: some would die of it."""
    try:
        with open("/proc/%d/status" % pid, encoding="utf-8", errors="replace") as file:
            told = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        caught = int(told["SigCgt"], 16) >> (signal.SIGUSR2 - 1) & 1
        return bool(caught) and told["Name"] not in PASS_ON
    except (OSError, ValueError, KeyError):
        return False
