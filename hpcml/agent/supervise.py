"""Watching over a run's command: signals, walltime, memory, and every process it left behind."""

import errno
import os
import select
import signal
import time

from hpcml.agent import processes, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcml.agent.events import Events
    from hpcml.agent.memory import Limit

FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGXCPU", "SIGUSR1", "SIGUSR2", "SIGCONT")
MEMORY_INTERVAL = 0.2  # seconds between two looks where no cgroup enforces the limit


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

    def wait(self, seconds: "float | None") -> None:
        """Sleep until a signal comes (a child's end is one), ``seconds`` at most."""
        try:
            select.select([self.reader], [], [], seconds)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        try:
            while os.read(self.reader, 512):
                pass
        except OSError:
            pass


class Outcome:
    """How the command ended, and by whose hand."""

    def __init__(self) -> None:
        self.exit_code: "int | None" = None
        self.signal: "int | None" = None
        self.received: "list[int]" = []
        self.cause: "str | None" = None
        self.reason: "str | None" = None

    def blame(self, cause: str, reason: str) -> None:
        """Name the cause; the first one stands."""
        if self.cause is None:
            self.cause, self.reason = cause, reason


class Supervisor:
    """Sees a started command through to its end.

    Parameters
    ----------
    pid : int
        The command's process, leader of a session of its own.
    run_id : str
    limits : dict
        ``time``, ``notice`` (before the end) and ``kill_wait`` in s; ``time`` may be ``None``.
    memory : hpcml.agent.memory.Limit
    signals : Signals
    events : hpcml.agent.events.Events
    adopting : bool
        Whether orphans of the command become children of this process.
    """

    def __init__(
        self,
        pid: int,
        run_id: str,
        limits: "dict[str, Any]",
        memory: "Limit",
        signals: Signals,
        events: "Events",
        adopting: bool = True,
    ) -> None:
        self.pid, self.run_id, self.memory = pid, run_id, memory
        self.adopting = adopting
        self.signals, self.events = signals, events
        self.kill_wait: float = limits["kill_wait"]
        self.limit = limits["time"]
        self.began = time.monotonic()
        self.deadline: "float | None" = None if self.limit is None else self.began + self.limit
        self.notice_at: "float | None" = None
        if self.deadline is not None and limits["notice"]:
            self.notice_at = self.deadline - limits["notice"]
        self.look_at: "float | None" = self.began + 0.02 if memory.watched else None
        self.kill_at: "float | None" = None
        self.outcome = Outcome()

    def watch(self) -> Outcome:
        """Block until the command has ended and nothing of it is left. Returns an Outcome."""
        while True:
            self._forward()
            status = self._reap()  # before acting: what has ended kept its limits
            if status is not None:
                break
            self._act(time.monotonic())
            self.signals.wait(self._patience(time.monotonic()))
        if os.WIFSIGNALED(status):
            self.outcome.signal = os.WTERMSIG(status)
        else:
            self.outcome.exit_code = os.WEXITSTATUS(status)
        self._forward()  # a signal that came while the command ended
        if self.outcome.exit_code != 0 and self._killed_for_memory():
            self.outcome.blame(
                wire.OUT_OF_MEMORY, "the kernel killed a process of the run for want of memory"
            )
        self._end_leftovers()
        return self.outcome

    def _reap(self) -> "int | None":
        """Collect ended children: the command's status, and orphans adopted from it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                raise
            if pid == 0:
                return None
            if pid == self.pid:
                return status

    def _forward(self) -> None:
        for number in self.signals.take():
            self.events.write("signal", signal=number)
            try:
                os.killpg(self.pid, number)
            except OSError:
                pass  # it has ended
            if number in wire.ENDING_SIGNALS:
                self.outcome.received.append(number)
                self.kill_at = self.kill_at or time.monotonic() + self.kill_wait

    def _act(self, now: float) -> None:
        if self.notice_at is not None and now >= self.notice_at:
            self.notice_at = None
            self._give_notice()
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
            processes.send(processes.of_run(self.run_id, os.getpid()), signal.SIGKILL)
            self.kill_at = now + 1.0  # what was forked meanwhile

    def _give_notice(self) -> None:
        """Tell whoever listens for USR2 that time runs out; it would kill the others."""
        self.events.write("notice", seconds=self.began + self.limit - time.monotonic())
        pids = [pid for pid in processes.of_run(self.run_id, os.getpid()) if catches_usr2(pid)]
        processes.send(pids, signal.SIGUSR2)

    def _end(self, why: str) -> None:
        self.events.write("terminate", why=why)
        processes.send(processes.of_run(self.run_id, os.getpid()), signal.SIGTERM)
        self.kill_at = time.monotonic() + self.kill_wait

    def _patience(self, now: float) -> "float | None":
        times = (self.notice_at, self.deadline, self.look_at, self.kill_at)
        waits = [moment - now for moment in times if moment is not None]
        return max(0.0, min(waits)) if waits else None

    def _killed_for_memory(self) -> bool:
        by_kill = self.outcome.signal == signal.SIGKILL or self.outcome.exit_code == 137
        return (self.memory.folder is not None or by_kill) and self.memory.evidence.killed()

    def _end_leftovers(self) -> None:
        """End what the command left running: its cores are given to the next run."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # orphans that have ended by themselves
        except OSError:
            # No children: nothing was left, unless orphans went to init.
            if self.adopting or not processes.of_run(self.run_id):
                return
        self.events.write("leftovers")
        processes.kill_all(self.run_id, os.getpid())


def catches_usr2(pid: int) -> bool:
    """Whether a process has a handler for USR2."""
    try:
        with open("/proc/%d/status" % pid) as file:
            for line in file:
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (signal.SIGUSR2 - 1) & 1)
    except (OSError, ValueError):
        pass
    return False
