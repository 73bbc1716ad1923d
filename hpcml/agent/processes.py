"""The processes of a run: finding all of them, and ending all of them.

A process belongs to a run if it descends from the agent or carries the run's name in its
environment. As the agent adopts orphans (a Linux "child subreaper"), a double fork or a new
session leads nowhere. Two kinds of descendants are not the run's: the interpreter that the agent
keeps warm for further runs, and hpcml's own services (a dispatcher that was revived from here).
"""

import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Iterable, Mapping

RUN_VARIABLE = "HPCML_RUN_ID"
SLOT_VARIABLE = "HPCML_SLOT"  # whose warm interpreter a process was forked from
SERVICE = {"HPCML_SERVICE": "1"}  # in the environment of dispatchers and agents
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


def slot_name(owner: "Mapping[str, Any]") -> str:
    """What the forks of an agent's warm interpreter are known by."""
    return "%s-%s" % (owner["pid"], owner["started"])


def of_run(
    run_id: str,
    agent: "int | None" = None,
    spare: "Collection[int]" = (),
    slot: "str | None" = None,
) -> "set[int]":
    """Process ids of a run, the agent's own left out.

    Parameters
    ----------
    run_id : str
    agent : int, optional
        The agent's process id where it is alive: its descendants are the run's.
    spare : collection of int
        Children of the agent that are not the run's, though what is below them is.
    slot : str, optional
        The :func:`slot_name` of an agent: all that was forked for it is meant, too, whoever has
        adopted it.
    """
    tree = parents()
    found = _below(agent, tree, spare) if agent is not None else set()
    tokens = {("%s=%s" % (RUN_VARIABLE, run_id)).encode("ascii")}
    if slot is not None:
        tokens.add(("%s=%s" % (SLOT_VARIABLE, slot)).encode("ascii"))
    for pid in set(tree) - found:
        if pid not in spare and tokens.intersection(_environment(pid)):
            found.add(pid)
    return found - {agent, os.getpid()}


def _below(agent: int, tree: "Mapping[int, int]", spare: "Collection[int]") -> "set[int]":
    children: "dict[int, list[int]]" = {}
    for pid, parent in tree.items():
        children.setdefault(parent, []).append(pid)
    found: "set[int]" = set()
    stack = [agent]
    while stack:
        for pid in children.get(stack.pop(), ()):
            if pid not in found and not is_service(pid):
                found.add(pid)
                stack.append(pid)
    return found.difference(spare)


def is_service(pid: int) -> bool:
    """Whether a process is a dispatcher or an agent."""
    return b"HPCML_SERVICE=1" in _environment(pid)


def _environment(pid: int) -> "list[bytes]":
    """Variables that a process was started with; none if it is another user's, or gone."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def left(spare: "Collection[int]") -> bool:
    """Whether this process may have children that are a run's (orphans of it among them)."""
    children = _children(os.getpid())
    if children is None:
        return True  # the kernel does not tell
    return any(pid not in spare and not is_service(pid) for pid in children)


def descendants_memory(agent: int, spare: "Collection[int]" = ()) -> int:
    """Bytes of memory that the agent's descendants hold, shared pages counted once.

    The sum of ``Pss`` of ``/proc/<pid>/smaps_rollup`` (Linux >= 4.14), of resident sizes before.
    """
    return sum(_memory(pid) for pid in descendants(agent, spare))


def descendants(pid: int, spare: "Collection[int]" = ()) -> "list[int]":
    """Those below an agent, without its spare ones, and without services and what is below them."""
    found: "list[int]" = []
    # An agent adopts services, if any: they are nobody else's children.
    below = [child for child in _children(pid) or [] if not is_service(child)]
    while below:
        found += [child for child in below if child not in spare]
        below = [child for parent in below for child in _children(parent) or []]
    return found


def _children(pid: int) -> "list[int] | None":
    found: "list[int]" = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, thread), "rb") as file:
                found += [int(word) for word in file.read().split()]
    except OSError:
        return None  # gone, or a kernel that does not tell
    return found


def resident(agent: int, spare: "Collection[int]" = ()) -> int:
    """An upper bound of :func:`descendants_memory` that costs less: the sum of resident sizes."""
    total = 0
    for pid in descendants(agent, spare):
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


def collect() -> None:
    """Take leave of ended children, for which nobody waits any more."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except OSError:
        pass  # there are none


def kill_all(
    run_id: str,
    agent: "int | None" = None,
    patience: float = 10.0,
    spare: "Collection[int]" = (),
    slot: "str | None" = None,
    reap: "Callable[[], object] | None" = None,
) -> "set[int]":
    """Kill a run's processes until none is left. Returns those that would not die.

    A process in uninterruptible sleep (a hung file system) outlives even SIGKILL; after
    ``patience`` seconds it is left to the kernel. ``reap`` collects those that this process has
    adopted: uncollected, they stay, and their usage does not count.
    """
    deadline = time.monotonic() + patience
    while True:
        left = of_run(run_id, agent, spare, slot)
        if reap is not None:
            reap()
        if not left or time.monotonic() > deadline:
            return left
        send(left, signal.SIGKILL)
        time.sleep(0.005)
