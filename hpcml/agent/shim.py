"""What srun starts on each node, once a rank: it tells the rank who it is, and becomes it."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping


def main(argv: "list[str]") -> int:
    """Become a command as one of its ranks. Returns only if it cannot be started."""
    environment = dict(os.environ, **of_this_rank(os.environ))
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except OSError as error:
        sys.stderr.write("hpcml: %r cannot be run: %s\n" % (argv[0], error.strerror))
        return 127 if isinstance(error, FileNotFoundError) else 126


def of_this_rank(given: "Mapping[str, str]") -> "dict[str, str]":
    """The variables by which PyTorch and others know their rank, of those that srun has set."""
    local = given["SLURM_LOCALID"]
    ranks = int(given["SLURM_NTASKS"])
    nodes = int(given.get("SLURM_STEP_NUM_NODES") or given["SLURM_NNODES"])
    found = {
        "RANK": given["SLURM_PROCID"],
        "LOCAL_RANK": local,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks // nodes),
        "NODE_RANK": given["SLURM_NODEID"],
    }
    if local != "0":
        found["HPCML_EVENTS"] = "none"  # one rank a node tells what goes on
    return found
