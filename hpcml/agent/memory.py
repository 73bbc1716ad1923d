"""The memory limit of a run on a machine whose scheduler enforces none.

Where the agent may make a memory cgroup, the kernel enforces the limit and counts its kills.
Elsewhere the agent watches its descendants. In both cases OUT_OF_MEMORY is said only with
evidence: a kill that the kernel counted, or a limit that the agent saw exceeded.
"""

import os

from hpcml.agent import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Collection


NO_LIMIT = 1 << 60  # bytes; version 1 has no word for it, but a number that nobody has


class Evidence:
    """The kernel's count of out-of-memory kills in a cgroup: a run's own, or the agent's.

    Other runs of the embedded site live in the agent's, too. There what counts is not the whole
    life of the run, but the time since the last look but one (:meth:`look`).
    """

    def __init__(self, folder: "str | None" = None) -> None:
        self.folder = folder if folder is not None else own_cgroup()
        self.before = self._last = self._kills()

    def look(self) -> None:
        """Forget what was killed before the last look: this run goes on."""
        self.before, self._last = self._last, self._kills()

    def killed(self) -> bool:
        """Whether the kernel has killed something here since then."""
        now = self._kills()
        return now is not None and self.before is not None and now > self.before

    @property
    def limit(self) -> "int | None":
        """Most bytes that the kernel lets processes hold here; ``None``: it does not say."""
        if self.folder is None:
            return None
        limits, folder = [_hierarchical_limit(self.folder)], self.folder
        while os.path.exists(os.path.join(folder, "memory.max")):
            limits.append(_number(os.path.join(folder, "memory.max")))
            folder = os.path.dirname(folder)
        return min((it for it in limits if it is not None and it < NO_LIMIT), default=None)

    def _kills(self) -> "int | None":
        if self.folder is None:
            return None
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(os.path.join(self.folder, name)) as file:
                    counts = dict(line.split() for line in file)
            except (OSError, ValueError):
                continue
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
        return None


def _hierarchical_limit(folder: str) -> "int | None":
    """Of version 1: the smallest limit of a cgroup and of those above it."""
    try:
        with open(os.path.join(folder, "memory.stat")) as file:
            return int(dict(line.split() for line in file)["hierarchical_memory_limit"])
    except (OSError, ValueError, KeyError):
        return None


def _number(path: str) -> "int | None":
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None  # or "max"


def own_cgroup() -> "str | None":
    """Folder of the memory cgroup (version 2 or 1) of this process, ``None`` if there is none."""
    if "own" not in _known:
        _known["own"] = _own_cgroup()
    return _known["own"]


_known: "dict[str, str | None]" = {}


def _own_cgroup() -> "str | None":
    try:
        with open("/proc/self/cgroup") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
        with open("/proc/self/mounts") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return None
    for _, controllers, path in rows:
        version = 2 if not controllers else 1 if "memory" in controllers.split(",") else 0
        for mount in mounts if version else ():
            wanted = "cgroup2" if version == 2 else "cgroup"
            if mount[2] == wanted and (version == 2 or "memory" in mount[3].split(",")):
                folder = mount[1] + path
                probe = "memory.events" if version == 2 else "memory.oom_control"
                if os.path.exists(os.path.join(folder, probe)):
                    return folder
    return None


class Limit:
    """A run's memory limit, enforced by a cgroup of its own or by watching.

    Parameters
    ----------
    limit : int or None
        Bytes; ``None`` watches nothing.
    name : str
        Name of the cgroup to make: the run's id.
    spare : collection of int
        Children of the agent that are not the run's.
    """

    def __init__(self, limit: "int | None", name: str, spare: "Collection[int]" = ()) -> None:
        self.limit, self.spare = limit, spare
        self.peak: "int | None" = None
        self.folder = self._make(name) if limit else None
        self.evidence = Evidence(self.folder)

    @property
    def watched(self) -> bool:
        """Whether somebody must call :meth:`exceeded` from time to time."""
        return self.limit is not None and self.folder is None

    def enter(self) -> None:
        """Move this process (a child before exec) into the run's cgroup."""
        if self.folder is not None:
            _write(self.gate, str(os.getpid()))

    @property
    def gate(self) -> str:
        """The file into which a process that enters the cgroup writes its id."""
        return os.path.join(self.folder, "cgroup.procs") if self.folder is not None else ""

    def exceeded(self) -> bool:
        """Measure; ``True`` if the run's processes hold more than the limit right now."""
        limit = self.limit or 0
        used = processes.resident(os.getpid(), self.spare)
        if used > limit:  # counts shared pages again and again: look closer before judging
            used = processes.descendants_memory(os.getpid(), self.spare)
        self.peak = max(self.peak or 0, used)
        return used > limit

    def close(self) -> None:
        """Note the kernel's peak and remove the cgroup."""
        if self.folder is None:
            return
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            found = _number(os.path.join(self.folder, name))
            self.peak = self.peak if found is None else found
        _remove(self.folder)

    def _make(self, name: str) -> "str | None":
        own = own_cgroup()
        if own is None:
            return None
        folder = cgroup_of(own, name)
        version2 = os.path.exists(os.path.join(own, "memory.events"))
        try:
            os.mkdir(folder)
        except OSError:
            return None  # not ours to divide: the usual case
        try:
            if version2:
                _write(os.path.join(folder, "memory.max"), str(self.limit))
                swap = "memory.swap.max"
            else:
                _write(os.path.join(folder, "memory.limit_in_bytes"), str(self.limit))
                swap = None
            if swap is not None and os.path.exists(os.path.join(folder, swap)):
                _write(os.path.join(folder, swap), "0")
            return folder
        except OSError:
            os.rmdir(folder)  # the controller is not delegated to us
            return None


def cgroup_of(parent: str, run: str) -> str:
    """The cgroup that an agent makes for its run."""
    return os.path.join(parent, "hpcml-" + run)


def remove_cgroup(run: str) -> None:
    """Remove what an agent that was killed left of its run's cgroup."""
    own = own_cgroup()
    if own is not None:
        _remove(cgroup_of(own, run))


def _remove(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # there is none, or a process that would not die still lives there


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
