"""A slot: one agent that works through runs of a batch, one after the other.

The runs are shared out by ``.start``: whoever makes it appear has the run, so that any number of
slots can work on one range. The same loop serves a single run and ten thousand.
"""

import errno
import fcntl
import os
import signal
import sys
import time

from hpcml.agent import energy, facts, processes, supervise, wire
from hpcml.agent.allocation import Allocation
from hpcml.agent.attempt import Attempt, Points, load_plan
from hpcml.agent.inputs import Inputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcml.agent.warm import Warm

LOOK_INTERVAL = 2.0  # seconds between two looks whether the queue has a dispatcher
END_PAUSES = (0.1, 1.0, 5.0, 10.0, 15.0)  # seconds between tries to record an end
LOCK_VARIABLE = "HPCML_LOCK"


def run(batch: str, first: int, count: int = 1) -> int:
    """Work through ``count`` runs from ``first`` on, as far as nobody else has them.

    Returns
    -------
    int
        As :func:`work_through`.
    """
    return work_through(batch, load_plan(batch), range(first, first + count))[0]


def work_through(batch: str, plan: "dict[str, Any]", ours: range) -> "tuple[int, bool]":
    """Work through runs of a batch, as far as nobody else has them.

    Returns
    -------
    int
        Of a single run the command's exit code, 128 + n if signal n killed it, and 0 if somebody
        else has it; of several 0.
    bool
        Whether this process was told to end.
    """
    energy.ensure_sampler(batch, plan["where"])  # before orphans are ours: it is no run's process
    slot = Slot(batch, plan)
    points = Points(batch, plan)
    indices = slot.free(ours)
    slot.many = len(indices) > 1
    code = 0
    for place, index in enumerate(indices):
        if place and slot.told_to_end():
            break
        code = slot.work(index, points)
    slot.let_go()
    return (code if len(ours) == 1 else 0), slot.stopped


class Slot:
    """What lasts from run to run.

    Attributes
    ----------
    name : str
        What the forks of its warm interpreter are known by.
    signals : hpcml.agent.supervise.Signals
    adopting : bool
        Whether orphans become children of this process.
    spare : set of int
        Children that are no run's: the warm interpreter.
    many : bool
        Whether there is more than one run to work on: then it pays to keep an interpreter warm.
    look_at : float
        When to look after the queue, or whether a run is to be cancelled, by the monotonic clock.
    allocation : hpcml.agent.allocation.Allocation
    """

    def __init__(self, batch: str, plan: "dict[str, Any]") -> None:
        self.batch, self.plan = batch, plan
        self.name = processes.slot_name(wire.identity())
        self.signals = supervise.Signals()
        self.attempts = wire.Attempts(batch)
        self.adopting = processes.adopt_orphans()
        self.inputs = Inputs(plan, os.path.dirname(batch))
        self.host = facts.host_facts()
        self.embedded = plan["what"]["scheduler"] == "process"
        self.warm: "Warm | None" = None
        self.spare: "set[int]" = set()
        self.many = False
        self.stopped = False
        self.lock = _keep_the_lock_to_ourselves()
        self.signed: "int | None" = None  # bytes
        self.look_at = time.monotonic() + LOOK_INTERVAL
        self.allocation = Allocation(plan)
        self._words = wire.Words(batch)
        self._cancels: "set[int]" = set()
        self._worked_on: "set[int]" = set()
        self._unanswered: "list[int]" = []  # cancels whose signal is still to come

    # --- which runs -----------------------------------------------------------------------

    def free(self, indices: range) -> "list[int]":
        """Those that nobody has, or that are to be started again, as it looks now."""
        listing = self.attempts.listing()
        if self.plan["what"].get("checkpoint") is None:
            return [index for index in indices if index not in listing]
        return [index for index in indices if self._is_free(index, listing.get(index))]

    def _is_free(self, index: int, numbers: "dict[int, set[str]] | None") -> bool:
        if not numbers:
            return True
        return self._may_follow(index, max(numbers))

    def _may_follow(self, index: int, number: int) -> bool:
        """Whether another attempt comes after this one: it asked for it, or was cut off."""
        end = self.attempts.read(index, number, "end")
        if end is not None and (end.get("requeue") or end["cause"] is not None):
            return bool(end.get("requeue"))
        cut_off = end is None or wire.cut_off(end)
        if not (cut_off and self.allocation.restarts):
            return False
        start = self.attempts.read(index, number, "start")
        return start is not None and self.allocation.is_later(start.get("allocation"))

    def work(self, index: int, points: Points) -> int:
        """Run it, and start it again as often as it asks to. Returns the last exit code."""
        number, code = self._take(index), 0
        while number is not None:
            attempt = Attempt(self, index, number, points[index])
            outcome = attempt.perform()
            self._record_end(attempt, outcome)
            code = 128 + outcome.signal if outcome.signal is not None else outcome.exit_code or 0
            again = outcome.requeue and self._may_go_on()
            number = self._take(index) if again else None
        return code

    def _take(self, index: int) -> "int | None":
        """Take a run's next attempt. Returns its number; ``None`` if it is under way or over.

        Whoever cancels it from here on finds that attempt, or is heard during it.
        """
        number = 1  # each attempt in its turn: one may have been refused, or be another agent's
        while not self._begin(index, number):
            if not self._may_follow(index, number):
                return None
            number += 1
        self._worked_on.add(index)
        self._sign()
        return number

    def _begin(self, index: int, number: int) -> bool:
        """Take an attempt that nobody has, or refuse it if the run was cancelled."""
        if self.cancelled(index):
            reason = "cancelled before it started" + (" again" if number > 1 else "")
            self.attempts.refuse(index, number, wire.CANCELLED, reason)
            return False
        return self.attempts.start(index, number, **self.allocation.facts)

    def _may_go_on(self) -> bool:
        """Whether nobody has ended this agent, and its allocation has time for another attempt."""
        limit = self.plan["what"]["limits"]["time"]
        return not self.told_to_end() and self.allocation.has_time_for_more(limit)

    def _record_end(self, attempt: Attempt, outcome: supervise.Outcome) -> None:
        """Write ``.end``; a disk that is full now may have room in a moment."""
        facts: "dict[str, Any]" = {"requeue": True} if outcome.requeue else {}
        if outcome.aborted is not None:
            facts["aborted"] = outcome.aborted
        for pause in (*END_PAUSES, None):
            try:
                self.attempts.end(
                    attempt.index,
                    attempt.number,
                    exit_code=outcome.exit_code,
                    signal=outcome.signal,
                    received=outcome.received,
                    cause=outcome.cause,
                    reason=outcome.reason,
                    usage=attempt.usage,
                    inputs=attempt.inputs,
                    outputs=attempt.outputs,
                    events_lost=attempt.events.lost,
                    **facts,
                )
                return
            except OSError as error:
                if pause is None or error.errno == errno.ENOENT:  # the batch was removed
                    said = "hpcml: the end of run %s could not be recorded: %s\n"
                    sys.stderr.write(said % (attempt.id, error))
                    return  # the exit code still tells the scheduler
                time.sleep(pause)

    # --- the dispatcher -------------------------------------------------------------------

    def _sign(self) -> None:
        """Tell the dispatcher that this slot works, and who works in it."""
        if self.lock is None or self.signed is not None:
            return
        line = wire.canonical(wire.identity()) + b"\n"
        try:
            self.signed = os.write(self.lock, line)
        except OSError:
            pass  # a full disk: the next run tells it

    def _asked_to_leave(self) -> bool:
        """Whether the dispatcher has added a line of its own: a job before this one needs room."""
        return self.lock is not None and os.fstat(self.lock).st_size > (self.signed or 0)

    # --- signals --------------------------------------------------------------------------

    def told_to_end(self) -> bool:
        """Whether somebody wants this agent to end; asked between two runs."""
        for number in self.signals.take():
            if number in wire.ENDING_SIGNALS:
                self.concerns(None)
            elif number == signal.SIGUSR2:  # whatever goes on now has as little time left
                self.signals.pending.append(number)
        return self.stopped or self._asked_to_leave()

    def concerns(self, index: "int | None") -> bool:
        """Whether a signal that has just come is for the run ``index`` that goes on now.

        Who cancels a run on the embedded site says so in the batch's words first, and then sends a
        signal to its agent; that may have gone on to another run meanwhile. A signal without such a
        word is for the agent, and so for the run that goes on and all that would follow.
        """
        if self.embedded:
            self._listen()
            if index in self._cancels:
                if index in self._unanswered:
                    self._unanswered.remove(index)
                return True
            late = [other for other in self._unanswered if other in self._worked_on]
            if late:
                self._unanswered.remove(late[0])
                return False
        self.stopped = True
        return True

    def cancelled(self, index: int) -> bool:
        """Whether somebody asked for a run to be cancelled."""
        self._listen()
        return index in self._cancels

    def _listen(self) -> None:
        """Read whose cancelling was asked for since we last listened."""
        for record in self._words.new():
            if record.get("request") == "cancel":
                self._cancels.update(wire.about(record))
                if "index" in record:  # those of a list get lines of their own before a signal
                    self._unanswered.append(record["index"])

    # --- what is kept from run to run -----------------------------------------------------

    def has_lost(self, pid: int) -> bool:
        """Whether an ended child was no run's."""
        if self.warm is None or pid != self.warm.pid:
            return False
        self.warm.lost()
        self.warm = None
        self.spare = set()
        return True

    def keep_warm(self, warm: "Warm") -> None:
        # A new set: the memory of an interpreter counts for the run that it was started for.
        self.warm, self.spare = warm, {warm.pid}

    def let_go(self) -> None:
        """Part with the warm interpreter: it ends by itself."""
        if self.warm is not None:
            self.warm.close()
            self.warm, self.spare = None, set()

    def look_after(self, now: float) -> bool:
        """Revive the embedded queue's dispatcher: a run that waits for its children cannot.

        It must not start one itself: that would live in the run's cgroup, and die with it.
        ``False`` if it is not time yet to look.
        """
        if now < self.look_at:
            return False
        self.look_at = now + LOOK_INTERVAL
        if not self.embedded:
            return True
        queue = wire.QueueFolder(wire.workspace_of(self.batch))
        try:
            if not queue.is_served() and any(map(queue.entry, queue.jobs())):
                self._revive(queue)
        except OSError:
            pass  # the next look, or any client, tries again
        return True

    def _revive(self, queue: "wire.QueueFolder") -> None:
        import subprocess

        argv = [sys.executable, "-I", "-S", os.path.abspath(sys.path[0]), "dispatch"]
        argv.append(os.path.dirname(queue.folder))
        environment = dict(processes.SERVICE, PATH=os.defpath, LC_ALL="C.UTF-8")
        subprocess.call(argv, cwd="/", env=environment, stdin=subprocess.DEVNULL)


def _keep_the_lock_to_ourselves() -> "int | None":
    """The slot's lock, inherited from the dispatcher, lasts as long as this process."""
    value = os.environ.get(LOCK_VARIABLE)
    if not value:
        return None
    descriptor = int(value)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFD)
    fcntl.fcntl(descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
    return descriptor
