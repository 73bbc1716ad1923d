"""Checks of each site that is used: its files, its queue, its Pythons, its machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hpcml.agent import wire
from hpcml.connection import Connection, connect, known_sites
from hpcml.errors import HpcmlError, ProfileError
from hpcml.library import library
from hpcml.records.place import network_of
from hpcml.settings import settings_of
from hpcml.surveying.finding import Check, Finding, bad, ok, warn
from hpcml.surveying.login import left, written

OLDEST = (3, 8)  # Python that functions can be called by
JOB = """
import json, sys
try:
    from importlib.metadata import version
    torch = version("torch")
except Exception:
    torch = None
print(json.dumps([list(sys.version_info[:3]), torch]))
"""
# As the agent does it, by the agent's own Python: it makes a cgroup with a limit, and removes it.
AGENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from hpcml.agent import memory
from hpcml.agent.energy import domains
limit = memory.Limit(1 << 30, sys.argv[2])
limit.close()
found = domains.find(sys.argv[3])
print(json.dumps([list(sys.version_info[:3]), limit.folder, found.readable(), found.tried]))
"""


def checks() -> list[tuple[str, Check]]:
    """The checks of every site that is used, and of which the settings say nothing wrong."""
    try:
        names = [name for name in known_sites() if _is_well_said(name)]
    except HpcmlError:
        return []  # the check of the settings says so
    kinds = (
        ("workspace", workspace),
        ("space", space),
        ("queue", queue),
        ("job python", job_python),
        ("agent", agent),
    )
    several = len(names) > 1
    return [
        (f"{kind} of {name}" if several else kind, partial(check, name))
        for name in names
        for kind, check in kinds
    ]


def _is_well_said(name: str) -> bool:
    try:
        settings_of(name)
    except ProfileError:
        return False  # likewise
    return True


def workspace(name: str) -> Iterator[Finding]:
    """A file is written there, read, and removed."""
    connection = connect(name)
    yield from written(connection.files, connection.binding.workspace, _kind(connection))


def space(name: str) -> Iterator[Finding]:
    """What the file system has left. A quota is not seen."""
    connection = connect(name)
    if connection.site.transport != "local":
        return
    there = os.statvfs(connection.binding.workspace)
    size = there.f_bavail * there.f_frsize
    yield left(connection.binding.workspace, size, there.f_files, there.f_favail)


def queue(name: str) -> Iterator[Finding]:
    """Whether somebody serves the embedded queue."""
    connection = connect(name)
    if connection.site.scheduler != "process":
        return
    waiting = wire.QueueFolder(connection.binding.workspace)
    if not os.access(waiting.folder, os.R_OK | os.W_OK | os.X_OK):
        problem = f"{waiting.folder} cannot be read and written, so that the queue cannot be served"
        yield bad(problem, "Make it yours again, or choose another workspace.")
        return
    jobs, served = len(waiting.jobs()), waiting.is_served()
    if served:
        yield ok(f"its process is alive; {jobs} submissions in the queue")
    elif jobs:
        yield warn(
            f"{jobs} submissions in the queue, and its process is not alive",
            f"`hpcml runs` starts it; if it ends again, see {waiting.log}.",
        )
    else:
        yield ok("nothing is in it, so that no process has to be alive")


def job_python(name: str) -> Iterator[Finding]:
    """The Python of jobs without an image."""
    connection = connect(name)
    python = connection.binding.python
    version, torch = _asked(connection, [python, "-c", JOB])
    text = f"{_dotted(version)}, {python}, " + (f"torch {torch}" if torch else "without torch")
    if tuple(version) < OLDEST:
        advice = f"Scripts run; name a Python for functions: sites.{name}.python in the settings."
        yield warn(f"{text}: too old for functions", advice)
    else:
        yield ok(text)


def agent(name: str) -> Iterator[Finding]:
    """What hpcml's agent can do on this machine: it is tried by its own Python."""
    connection = connect(name)
    if connection.site.transport != "local":
        return
    python, root = connection.binding.agent_python, connection.site.system_root or "/"
    argv = [python, "-I", "-S", "-c", AGENT, str(library()), f"doctor-{wire.unique()}", root]
    version, cgroup, readable, tried = _asked(connection, argv)
    yield ok(f"{_dotted(version)}, {python}")
    if cgroup:
        yield ok("memory limits are enforced by the kernel, in cgroups")
    else:
        yield warn(
            "no cgroup can be made here: the agent itself looks whether a run has too much memory",
            "Nothing has to be done; a peak of less than 0.2 s is not seen.",
        )
    said = "; ".join(f"{reader}: {one['reason'] or one['status']}" for reader, one in tried.items())
    if readable:
        yield ok(f"energy counters can be read ({', '.join(tried)})")
    else:
        denied = any(one["status"] == "denied" for one in tried.values())
        ask = "Ask the administrator for the right to read them; runs have no energy until then."
        none = "Nothing can be done where a machine shows none: its runs have no energy."
        yield warn(f"energy counters cannot be read ({said})", ask if denied else none)


def _asked(connection: Connection, argv: list[str]) -> list:  # type: ignore[type-arg]
    """What a Python of the site answers."""
    done = connection.files.run(argv)
    if done.exit_code:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise HpcmlError(
            f"{argv[0]} ended with exit code {done.exit_code}: {said[-1]}",
            f"Name another one in the settings: sites.{connection.site.name}.python.",
        )
    return list(json.loads(done.stdout.splitlines()[-1]))


def _kind(connection: Connection) -> str:
    """What is special about the file system of a workspace on this machine."""
    if connection.site.transport != "local":
        return ""
    network = network_of(Path(connection.binding.workspace))
    return f"; it is on a network ({network})" if network else ""


def _dotted(version: list[int]) -> str:
    return ".".join(map(str, version))
