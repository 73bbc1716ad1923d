"""How a command is started: as it is, in a container, by srun as the ranks of several processes.

The chain is agent, srun, shim, container, command; what is not needed is left out.
"""

import os

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from hpcml.agent.attempt import Attempt

# What srun starts on each node, once a rank: it tells the rank who it is, by the variables that
# PyTorch and others look for, and becomes it. A shell is there at once, where an interpreter would
# have to load: on all nodes at the same time, from the same file system.
SHIM = """\
export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" NODE_RANK="$SLURM_NODEID"
export WORLD_SIZE="$SLURM_NTASKS"
export LOCAL_WORLD_SIZE="$((SLURM_NTASKS / ${SLURM_STEP_NUM_NODES:-$SLURM_NNODES}))"
[ "$SLURM_LOCALID" = 0 ] || export HPCML_EVENTS=none  # one rank a node tells what goes on
exec "$@"
"""


def around(attempt: "Attempt", argv: "list[str]") -> "list[str]":
    """The command that starts a command of a run, in its container and on all of its nodes."""
    what = attempt.what
    if what.get("image") is not None:
        argv = contained(attempt, argv)
    if what.get("launcher") != "srun":
        return argv
    placed = what["placement"]
    return [
        "srun",
        "--nodes=%d" % placed["nodes"],
        "--ntasks-per-node=%d" % placed["tasks"],
        "--cpus-per-task=%d" % placed["cpus"],
        "--export=ALL",
        "--input=none",
        "--kill-on-bad-exit=1",
        "--overlap",  # other runs may share the allocation
        *["/bin/sh", "-c", SHIM, "hpcml"],
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
    import _socket  # socket's own foundation, without the cost of loading that

    host = os.environ.get("SLURMD_NODENAME") or os.uname()[1]
    probe = _socket.socket()
    try:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    finally:
        probe.close()
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
