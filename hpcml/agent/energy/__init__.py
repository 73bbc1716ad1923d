"""What the machine uses while a batch's agents work on it, read from its own counters.

One process a node and allocation, the sampler, appends readings to
``<batch>/energy/<host>.<machine>.<job>.jsonl``; what they mean for a run is worked out by the
client (:mod:`hpcml.energy`). The lines of that file:

``{"agent": identity}``
    An agent (see :func:`hpcml.agent.wire.identity`) that wants to be measured; the sampler lives as
    long as one of them does.
``{"header": 1, ...}``
    Begins the readings of one sampler: ``host``, ``boot``, ``root``, ``interval`` (s),
    ``exclusive``, ``domains`` (see :class:`hpcml.agent.energy.domains.Domain`), and what each
    reader ``tried`` came to: ``{reader: {"status": ..., "reason": ...}}``.
``{"m": ns, "v": [count or null, ...], "t": s, "slept": s}``
    A reading of all domains by the monotonic clock; now and then with the wall clock, too. A count
    that could not be read is null. ``slept`` is there if the machine was suspended since the
    reading before: the monotonic clock stood still meanwhile.
"""

import os
import sys

from hpcml.agent import processes, starting, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READERS = {"powercap": "sys/class/powercap"}
"""The readers: a module of this package each, and the path without which it finds nothing."""

ROOT_VARIABLE = "HPCML_SYSROOT"

# Ignored signals stay ignored: what ends the job must not end it before the last reading. The
# shell's end makes the sampler an orphan, and so nobody's child.
DETACHED = "trap '' HUP INT TERM; \"$@\" &"


def ensure_sampler(batch: str, where: "dict[str, Any]") -> None:
    """Have this machine measured while this agent lives. Costs no run: it fails silently.

    To be called before the agent adopts orphans: the sampler is no run's process.

    Parameters
    ----------
    batch : str
        The batch's folder.
    where : dict
        Of the plan; ``system_root`` is the folder below which the machine's ``/sys`` is found.
    """
    root = os.environ.get(ROOT_VARIABLE) or where.get("system_root") or "/"
    path = sample_file(batch)
    present = any(os.path.exists(os.path.join(root, sign)) for sign in READERS.values())
    try:
        if present or not os.path.exists(path):
            folder = os.path.dirname(path)
            if not os.path.isdir(folder):
                _make(folder)
            _begin(path, root)
    except OSError:
        pass  # a full disk, perhaps


def _make(folder: str) -> None:
    """Make a folder in that of the batch; should that have been removed, it stays so."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass  # another agent was quicker


def sample_file(batch: str) -> str:
    """Where the readings of this machine and allocation are; 0 is a batch's one chunk.

    Machines may share a name: containers do. Each boot has a file of its own, too.
    """
    machine, job = wire.machine(), os.environ.get("SLURM_JOB_ID") or "0"
    name = "%s.%s.%s.jsonl" % (machine["host"], wire.sha256(wire.canonical(machine))[:8], job)
    return os.path.join(batch, "energy", name)


def elect(path: str) -> "int | None":
    """The locked file of readings, if this process is to start the sampler; else ``None``.

    The lock goes on to the sampler with the descriptor, and ends with it. Where files cannot be
    locked, whoever makes the file is elected, and nobody after it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        descriptor, made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        descriptor, made = os.open(path, flags), False
    elected = False
    try:
        # In this order: a sampler that leaves lets go of the lock, and then looks for us once more.
        os.write(descriptor, b"\n" + wire.canonical({"agent": wire.identity()}) + b"\n")
        try:
            elected = wire.take_lock(descriptor)
        except OSError:
            elected = made
    finally:
        if not elected:
            os.close(descriptor)
    return descriptor if elected else None


def _begin(path: str, root: str) -> None:
    """Start the sampler, unless there is one, or write down why there is nothing to sample."""
    descriptor = elect(path)
    if descriptor is None:
        return
    try:
        from hpcml.agent.energy import domains

        found = domains.find(root)
        if found.readable():
            _start(path, descriptor, root)
        else:
            os.write(descriptor, wire.canonical(found.header(None)) + b"\n")
    finally:
        os.close(descriptor)


def _start(path: str, descriptor: int, root: str) -> None:
    library = os.path.abspath(sys.path[0])
    argv = [sys.executable, "-I", "-S", library, "sample", path, str(descriptor), root]
    detached = ["/bin/sh", "-c", DETACHED, "sh", *argv]
    environment = dict(processes.SERVICE, PATH=os.defpath, LC_ALL="C.UTF-8")
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        shell = starting.start(detached, "/", environment, [nowhere] * 2, keep=[descriptor])
    finally:
        os.close(nowhere)
    os.waitpid(shell, 0)
