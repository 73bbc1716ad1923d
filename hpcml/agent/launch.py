"""How a command is started: as it is, in a container, by srun as the ranks of several processes.

The chain is agent, srun, shim (:mod:`hpcml.agent.shim`), container, command; what is not needed is
left out.
"""

import os
import socket
import sys

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from hpcml.agent.attempt import Attempt


def around(attempt: "Attempt", argv: "list[str]") -> "list[str]":
    """The command that starts a command of a run, in its container and on all of its nodes."""
    what, where = attempt.what, attempt.where
    if what.get("image") is not None:
        argv = contained(attempt, argv)
    if what.get("launcher") != "srun":
        return argv
    placed = what["placement"]
    library = os.path.abspath(sys.path[0])
    return [
        "srun",
        "--nodes=%d" % placed["nodes"],
        "--ntasks-per-node=%d" % placed["tasks"],
        "--cpus-per-task=%d" % placed["cpus"],
        "--export=ALL",
        "--input=none",
        "--kill-on-bad-exit=1",
        "--overlap",  # other runs may share the allocation
        *[where["agent_python"], "-I", "-S", library, "shim"],
        *argv,
    ]


def contained(attempt: "Attempt", argv: "list[str]") -> "list[str]":
    """A command within the run's image, with its files at the same places."""
    binds = [wire.workspace_of(attempt.batch)]
    binds += ["%s:%s:ro" % (path, path) for path in sorted(attempt.where["inputs"].values())]
    found = ["apptainer", "--quiet", "exec", "--pwd", attempt.work]
    for bind in binds:
        found += ["--bind", bind]
    if os.path.exists("/dev/nvidiactl"):
        found.append("--nv")
    return [*found, attempt.where["image"], *argv]


def rendezvous(what: "Mapping[str, Any]") -> "dict[str, str]":
    """Where the ranks of a run meet: on its first node, where this agent is."""
    if what.get("launcher") != "srun":
        return {}
    host = os.environ.get("SLURMD_NODENAME") or os.uname()[1]
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
