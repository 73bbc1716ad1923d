"""Slurm's states and reasons, in the words of hpcml."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from itertools import pairwise

from hpcml.agent import wire
from hpcml.schedulers import Word
from hpcml.schedulers.slurm.commands import REMOVED, Row
from hpcml.states import State

RUNNING = {
    "RUNNING": "",
    "COMPLETING": "",
    "SIGNALING": "",
    "STAGE_OUT": "",
    "RESIZING": "its allocation is being resized",
    "SUSPENDED": "suspended by the scheduler: it holds its place, and stands still",
    "STOPPED": "stopped: it holds its place, and stands still",
}

WAITING = {
    "PENDING": "",
    "CONFIGURING": "its nodes are being prepared",
    "REQUEUED": "it starts again",
    "REQUEUE_FED": "it starts again",
    "REQUEUE_HOLD": "it was requeued, and is held: scontrol release",
    "SPECIAL_EXIT": "it was requeued, and is held: scontrol release",
    "RESV_DEL_HOLD": "its reservation is gone, and it is held",
}

ENDED = {
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "CANCELLED": State.CANCELLED,
    "TIMEOUT": State.TIMEOUT,
    "DEADLINE": State.TIMEOUT,
    "OUT_OF_MEMORY": State.OUT_OF_MEMORY,
    "PREEMPTED": State.PREEMPTED,
    "NODE_FAIL": State.NODE_FAIL,
    "BOOT_FAIL": State.NODE_FAIL,
    "LAUNCH_FAILED": State.NODE_FAIL,
    "RECONFIG_FAIL": State.NODE_FAIL,
    "REVOKED": State.CANCELLED,
    REMOVED: State.CANCELLED,
}

# By what Slurm's reason begins with: limits come in many variants.
REASONS = (
    ("JobHeldUser", "held by you ({}): scontrol release"),
    ("JobHeldAdmin", "held by an administrator ({}): ask the site"),
    ("JobHoldMaxRequeue", "held: it was requeued too often ({})"),
    ("DependencyNeverSatisfied", "what it comes after did not end well ({})"),
    ("Dependency", "waits for what it comes after ({})"),
    ("Priority", "waits for its turn ({})"),
    ("Resources", "waits for nodes, it is next ({})"),
    ("BeginTime", "was requeued, and may start in a while ({})"),
    ("JobArrayTaskLimit", "as many of its batch run as may at once ({})"),
    ("Licenses", "waits for a licence ({})"),
    ("Reservation", "waits for its reservation ({})"),
    ("PartitionTimeLimit", "asks for more time than its partition allows ({}): cancel it"),
    ("PartitionNodeLimit", "asks for more nodes than its partition allows ({}): cancel it"),
    ("Partition", "its partition is closed ({}): ask the site"),
    ("ReqNodeNotAvail", "nodes that it needs are down, drained or reserved ({})"),
    ("NodeDown", "a node that it needs is down ({})"),
    ("AssocMaxJobs", "its account may have no more jobs at once ({})"),
    ("AssocGrp", "its account has reached a limit ({})"),
    ("Assoc", "its account has reached a limit ({})"),
    ("MaxJobs", "no more jobs may run at once ({})"),
    ("QOS", "its quality of service has reached a limit ({})"),
    ("InvalidAccount", "its account is not valid any more ({}): cancel it"),
    ("InvalidQOS", "its quality of service is not valid any more ({}): cancel it"),
    ("launch failed", "its launch failed, and it is held ({}): scontrol release"),
)

HOW = {
    "CANCELLED": "cancelled",
    "TIMEOUT": "its walltime was over",
    "DEADLINE": "its deadline was over",
    "OUT_OF_MEMORY": "it took more memory than it was given",
    "PREEMPTED": "it had to give way to a job that comes first",
    "NODE_FAIL": "a node of it failed",
    "BOOT_FAIL": "its nodes could not be started",
    "LAUNCH_FAILED": "it could not be launched on its nodes",
    "RECONFIG_FAIL": "its nodes could not be prepared",
    "REVOKED": "it was revoked: another cluster runs it",
}


@cache  # thousands of runs share a word, and are compared at each look
def of_live(state: str, reason: str) -> Word | None:
    """What the queue says of a job that runs or waits; ``None``: it does neither."""
    if state in RUNNING:
        return Word(State.RUNNING, RUNNING[state])
    if state in WAITING:
        return Word(State.PENDING, WAITING[state] or why_pending(reason))
    return None


def why_pending(reason: str) -> str:
    """A reason of Slurm in words; its own word is kept for who wants to look it up."""
    for beginning, text in REASONS:
        if reason.startswith(beginning):
            return text.format(reason)
    plain = reason if reason not in ("", "None") else "nothing said yet"
    return f"waits ({plain})"


def of_ended(row: Row, started: bool) -> Word | None:
    """The final word on a run, of what Slurm says of its allocation; ``None``: there is none.

    Parameters
    ----------
    row : Row
    started : bool
        Whether the run had begun in its allocation.
    """
    state = ENDED.get(row.state)
    if state is None or (started and row.state == REMOVED):
        return None
    how = HOW.get(row.state) or _exit(row)
    if row.state == "CANCELLED" and row.by:
        how += f" by user {row.by}"
    if started:
        return Word(state, f"{how} (Slurm: {row.state})")
    if state in (State.COMPLETED, State.FAILED):
        return Word(State.FAILED, f"its allocation ended before it began: {how}")
    if row.state == REMOVED:
        return Word(state, "it was taken out of the queue before it began")
    return Word(state, f"it never began: {how} (Slurm: {row.state})")


EXCEEDED = "Exceeded job memory limit"
AT_ONCE = 5.0  # s from that to the end of the job
_STAMPED = re.compile(r"\[([^\]]+)\] (?:slurmstepd: )?error: (.*)")


def cancelled_for_memory(printed: str, job: str) -> str | None:
    """What Slurm has printed of a job that it cancelled itself for want of memory, if it has.

    Without cgroups a node that finds too much in use says so, and cancels the step, or all of the
    job. A cancel that comes later is somebody else's.
    """
    lines = [_STAMPED.match(line) for line in printed.splitlines()]
    for told, then in pairwise(lines):
        if told is None or then is None or told[2] != EXCEEDED:
            continue
        cancelled = then[2].startswith(f"*** JOB {job} ON ") and " CANCELLED AT " in then[2]
        if cancelled and 0 <= _seconds(told[1], then[1]) <= AT_ONCE:
            return EXCEEDED
    return None


def _seconds(earlier: str, later: str) -> float:
    """Between two times as Slurm prints them; below 0: one of them is none."""
    try:
        return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
    except (ValueError, TypeError):
        return -1.0


def _exit(row: Row) -> str:
    if row.signal:
        return f"killed by signal {row.signal} ({wire.signal_name(row.signal)})"
    return f"exit code {row.exit_code}"
