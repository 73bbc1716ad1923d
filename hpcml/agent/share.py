"""The share of an allocation: which runs of a batch it works through, how many at a time.

On the embedded site the machine is the allocation, and its dispatcher opens slots; there this does
nothing. On Slurm each task of an array is one allocation, and has runs of its own.
"""

import os
import re
import sys

from hpcml.agent import slot, supervise, wire
from hpcml.agent.allocation import Allocation
from hpcml.agent.attempt import load_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEVICES = re.compile(r"(\w+_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK)$")


def run(batch: str, first: int, count: int = 1) -> int:
    """Work through this allocation's runs, of ``count`` from ``first`` on.

    Returns
    -------
    int
        As :func:`hpcml.agent.slot.work_through`.
    """
    plan = load_plan(batch)
    allocation, ours = Allocation(plan), range(first, first + count)
    if allocation.task is None:
        return slot.work_through(batch, plan, ours)[0]
    layout = plan["batch"]["layout"]
    begin = first + allocation.task * layout["size"]
    ours = range(begin, min(begin + layout["size"], ours.stop))
    if _refused(batch, plan, ours):
        return 0
    slots = min(layout["slots"] or 1, len(ours))
    if slots > 1:
        side_by_side = Slots(batch, ours, slots)
        code, told_to_end = side_by_side.wait(), side_by_side.told_to_end
    else:
        code, told_to_end = slot.work_through(batch, plan, ours)
    if not told_to_end and _left(batch, plan, ours):
        _requeue(allocation.job, plan)
    return code


def _refused(batch: str, plan: "dict[str, Any]", ours: range) -> bool:
    """Refuse all runs if one that must be COMPLETED first is not."""
    after = plan["batch"]["after"]
    if not after:
        return False
    from hpcml.agent import before

    missing = before.not_completed(os.path.dirname(batch), after)
    if missing is None:
        return False
    attempts = wire.Attempts(batch)
    for index in ours:
        attempts.refuse(index, 1, wire.CANCELLED, "it was to run after %s, which is %s" % missing)
    return True


class Slots:
    """Processes that work through the same runs side by side; ``.start`` shares them out.

    Attributes
    ----------
    told_to_end : bool
        Whether somebody wants this allocation to end.
    """

    def __init__(self, batch: str, ours: range, number: int) -> None:
        import subprocess  # one slot starts sooner without it

        self.signals = supervise.Signals()
        self.told_to_end = False
        argv = [sys.executable, "-I", "-S", os.path.abspath(sys.path[0]), "work"]
        argv += [str(ours.start), str(len(ours))]
        self.children = [
            subprocess.Popen(
                argv, cwd=batch, stdin=subprocess.DEVNULL, env=environment_of(k, number)
            )
            for k in range(number)
        ]

    def wait(self) -> int:
        """Wait for all; whatever this process is told, they are. Returns 0 if all is well."""
        while any(child.poll() is None for child in self.children):
            for number in self.signals.take():
                self.told_to_end |= number in wire.ENDING_SIGNALS
                for child in self.children:
                    if child.returncode is None:
                        child.send_signal(number)
            self.signals.wait(None)
        codes: "list[int]" = [abs(child.returncode) for child in self.children]
        return max(codes)


def environment_of(slot_number: int, slots: int) -> "dict[str, str]":
    """The environment of a slot: it has its own part of the allocation's devices.

    To ranks srun says which are theirs.
    """
    environment = dict(os.environ)
    for name, value in os.environ.items():
        devices = value.split(",")
        share = len(devices) // slots
        if DEVICES.match(name) and share:
            part = devices[slot_number * share : (slot_number + 1) * share]
            environment[name] = ",".join(part)
    return environment


def _left(batch: str, plan: "dict[str, Any]", ours: range) -> bool:
    """Whether runs have left a checkpoint, and the time was too short for them to go on."""
    if plan["what"].get("checkpoint") is None:
        return False
    attempts = wire.Attempts(batch)
    listing = attempts.listing()
    for index in ours:
        numbers = listing.get(index)
        end = attempts.read(index, max(numbers), "end") if numbers else None
        if end is not None and end.get("requeue"):
            return True
    return False


def _requeue(job: str, plan: "dict[str, Any]") -> None:
    """Have Slurm give this allocation again; it ends this process for that."""
    import subprocess

    path = plan["where"]["environment"].get("PATH", os.defpath)
    environment = dict(os.environ, PATH=path)
    try:
        subprocess.call(["scontrol", "requeue", job], env=environment, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write("hpcml: scontrol cannot be run: %s\n" % error)
