"""How a command is started: as it is, in a container, by srun as the ranks of several processes.

The chain is agent, env.sh, srun, shim, container, command; what is not needed is left out.
"""

import os
import sys

from hpcml.agent import starting, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

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
OF_STEPS = ("SLURM_CONF", "SLURM_JOB_ID")  # what srun needs to know to start a step
LINE = "env.line"  # in a run's folder: the line that env.sh is at


def around(attempt: "Attempt", argv: "list[str]") -> "list[str]":
    """The command that starts a command of a run, in its container and on all of its nodes."""
    what = attempt.what
    if what.get("image") is not None:
        argv = contained(attempt, argv)
    if what.get("launcher") == "srun":
        argv = ranked(what, argv, attempt.slot.plan["batch"]["layout"]["slots"])
    return prepared(attempt, argv)


def prepared(attempt: "Attempt", argv: "list[str]") -> "list[str]":
    """A command after the site's modules and prelude, in the shell that these are written for."""
    if not attempt.what.get("prelude"):
        return argv
    line = os.path.join(attempt.folder, LINE)
    if os.path.exists(line):  # of an earlier attempt
        os.unlink(line)
    script = os.path.join(attempt.batch, "env.sh")
    return ["bash", "-l", script, line, os.path.abspath(sys.path[0]), *argv]


def failed_line(attempt: "Attempt") -> "str | None":
    """The line of ``env.sh`` that it did not come past; ``None``: it came past all."""
    try:
        with open(os.path.join(attempt.folder, LINE), encoding="utf-8") as file:
            return file.read() or None
    except OSError:
        return None


def ranked(what: "Mapping[str, Any]", argv: "list[str]", slots: int) -> "list[str]":
    """A command on all nodes of a run, once a rank."""
    placed, said = what["placement"], what.get("launch") or {}
    options = [
        "--%s=%s" % (name, said[key])
        for name, key in (("mpi", "mpi"), ("cpu-bind", "cpu_bind"))
        if said.get(key) is not None
    ]
    return [
        "srun",
        "--nodes=%d" % placed["nodes"],
        "--ntasks-per-node=%d" % placed["tasks"],
        "--cpus-per-task=%d" % placed["cpus"],
        "--export=ALL",
        "--input=none",
        "--kill-on-bad-exit=1",
        *(["--overlap"] if slots == 1 else _own_part(placed)),
        *options,
        *["/bin/sh", "-c", SHIM, "hpcml"],
        *argv,
    ]


def _own_part(placed: "Mapping[str, Any]") -> "list[str]":
    """Where runs share an allocation: srun gives each CPUs and devices that no other one has.

    Slurm alone can do that: what it says to a rank stands above what the agent said to srun.
    """
    own, devices, tasks = ["--exact", "--mem=0"], placed["devices"], placed["tasks"]  # all memory
    if placed["devices_by"] == "gres":
        own.append("--gres=%s:%d" % (placed["gres"], devices))
    elif placed["devices_by"] == "gpus-per-node":
        own.append("--gpus-per-node=%d" % devices)
    elif placed["devices_by"] == "gpus-per-task":
        each = devices // tasks
        own += ["--gpus-per-task=%d" % each, "--gpu-bind=per_task:%d" % each]
    return own


def telling(attempt: "Attempt") -> "Callable[[], int] | None":
    """What starts telling a run's other nodes that time runs out; ``None``: it has no others.

    Through the srun of the ranks it would reach all of their processes, and kill those that do not
    listen. So another step looks for those that do.
    """
    nodes = attempt.what["placement"]["nodes"]
    if attempt.what.get("launcher") is None or nodes == 1:
        return None
    argv = [
        *("srun", "--overlap", "--mem=0", "--gres=none", "--mpi=none", "--input=none"),
        *("--relative=1", "--nodes=%d" % (nodes - 1), "--ntasks-per-node=1", "--cpus-per-task=1"),
        *(sys.executable, "-I", "-S", os.path.abspath(sys.path[0]), "notify", attempt.id),
    ]
    # What the allocation was asked for is not what this step is to have.
    named = {name: os.environ[name] for name in OF_STEPS if name in os.environ}
    environment = dict(attempt.where["environment"], **named)
    return lambda: starting.start(argv, attempt.batch, environment, [2, 2])


def contained(attempt: "Attempt", argv: "list[str]") -> "list[str]":
    """A command within the run's image, with its files at the same places."""
    how = attempt.what["container"]
    binds = [wire.workspace_of(attempt.batch), *attempt.where["binds"]]
    binds += ["%s:%s:ro" % (path, path) for path in sorted(attempt.where["inputs"].values())]
    found = [how["command"], "--quiet", "exec", "--pwd", attempt.work]
    for bind in binds:
        found += ["--bind", bind]
    flag = how["flag"]
    if flag is None and os.path.exists("/dev/nvidiactl"):
        flag = "--nv"
    if flag:
        found.append(flag)
    return [*found, attempt.where["image"], *argv]


def rendezvous(what: "Mapping[str, Any]") -> "dict[str, str]":
    """Where the ranks of a run meet: on its first node, where this agent is."""
    if what.get("launcher") != "srun":
        return {}
    import _socket  # socket's own foundation, without the cost of loading that

    host = os.environ.get("SLURMD_NODENAME") or os.uname()[1]
    suffix = (what.get("launch") or {}).get("rendezvous_suffix")
    if suffix is not None:  # a domain is part of the suffix, where one is needed
        host = host.partition(".")[0] + suffix
    probe = _socket.socket()
    try:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    finally:
        probe.close()
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
