"""The processes of a run: finding all of them, and ending all of them.

A process belongs to a run if it descends from the agent or carries the run's name in its
environment. As the agent adopts orphans (a Linux "child subreaper"), a double fork or a new
session leads nowhere.
"""

import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable

RUN_VARIABLE = "HPCML_RUN_ID"
SET_CHILD_SUBREAPER = 36  # of <sys/prctl.h>


def adopt_orphans() -> bool:
    """Have orphaned descendants become children of this process instead of init's.

    ``False`` where that cannot be asked for: the environment still tells whose a process is.
    """
    try:
        import _ctypes  # ctypes' own foundation, without the cost of loading ctypes

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
        return bool(_ctypes.call_function(prctl, (SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def parents() -> "dict[int, int]":
    """``{pid: parent pid}`` of every live process that can be seen."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                found[int(name)] = int(fields[1])
    return found


def of_run(run_id: str, agent: "int | None" = None) -> "set[int]":
    """Process ids of a run, the agent's own left out.

    Parameters
    ----------
    run_id : str
    agent : int, optional
        The agent's process id where it is alive: its descendants are the run's.
    """
    tree = parents()
    found: "set[int]" = set()
    if agent is not None:
        found = {agent}
        while True:
            more = {pid for pid, parent in tree.items() if parent in found} - found
            if not more:
                break
            found |= more
    token = ("%s=%s" % (RUN_VARIABLE, run_id)).encode("ascii")
    for pid in set(tree) - found:
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                if token in file.read().split(b"\0"):
                    found.add(pid)
        except OSError:
            continue  # another user's, or gone
    return found - {agent, os.getpid()}


def descendants_memory(agent: int) -> int:
    """Bytes of memory that the agent's descendants hold, shared pages counted once.

    The sum of ``Pss`` of ``/proc/<pid>/smaps_rollup`` (Linux >= 4.14), of resident sizes before.
    """
    return sum(_memory(pid) for pid in descendants(agent))


def descendants(pid: int) -> "list[int]":
    found: "list[int]" = []
    stack = [pid]
    while stack:
        parent = stack.pop()
        try:
            for thread in os.listdir("/proc/%d/task" % parent):
                with open("/proc/%d/task/%s/children" % (parent, thread), "rb") as file:
                    below = [int(word) for word in file.read().split()]
                found += below
                stack += below
        except OSError:
            continue
    return found


def resident(agent: int) -> int:
    """An upper bound of :func:`descendants_memory` that costs less: the sum of resident sizes."""
    total = 0
    for pid in descendants(agent):
        try:
            with open("/proc/%d/statm" % pid, "rb") as file:
                total += int(file.read().split()[1])
        except (OSError, IndexError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def _memory(pid: int) -> int:
    try:
        with open("/proc/%d/smaps_rollup" % pid, "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        with open("/proc/%d/statm" % pid, "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def send(pids: "Iterable[int]", number: int) -> None:
    """Send a signal to processes of which some may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EPERM):
                raise


def kill_all(run_id: str, agent: "int | None" = None, patience: float = 10.0) -> "set[int]":
    """Kill a run's processes until none is left. Returns those that would not die.

    A process in uninterruptible sleep (a hung file system) outlives even SIGKILL; after
    ``patience`` seconds it is left to the kernel.
    """
    deadline = time.monotonic() + patience
    while True:
        left = of_run(run_id, agent)
        if agent == os.getpid():
            _reap()  # the last of them, too: uncollected, its usage would not count
        if not left or time.monotonic() > deadline:
            return left
        send(left, signal.SIGKILL)
        time.sleep(0.005)


def _reap() -> None:
    """Collect adopted orphans, so that they do not stay zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except OSError:
        pass
