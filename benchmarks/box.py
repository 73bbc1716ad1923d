"""What hpcml costs on a real Slurm, in a box: on its nodes, and from afar by ssh."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import hpcml
from benchmarks.measure import fresh_home
from hpcml.connection import connect
from hpcml.transports.ssh import SshTransport
from tests.slurm.outside import Outside
from tests.slurm.site import Login
from tests.testbed.box import Box, this_python
from tests.testbed.machine import CannotHaveBox

ROUNDS = 15
DELAY = 0.05  # s of a round trip, added
POINTS = 1000

# What sbatch would start, and what it starts in the end, in turns within one allocation.
TIMING = """
    import os, subprocess, sys, time
    environment = {**os.environ, "SLURM_ARRAY_TASK_COUNT": sys.argv[2]}
    def seconds(argv, **more):
        began = time.monotonic()
        subprocess.run(argv, check=True, env={**environment, **more})
        return time.monotonic() - began
    bare = ["srun", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "true"]
    taken = []
    for index in range(int(sys.argv[2])):
        ours = ["/bin/sh", "job.sh", "0", sys.argv[2]]
        pair = seconds(ours, SLURM_ARRAY_TASK_ID=str(index)), seconds(bare)
        taken.append(pair)
    print("TAKEN", taken, file=open(sys.argv[1], "w"))
"""
"""A sweep that is all ready, but for the call of sbatch."""
PUBLISHED = """
    from hpcml import submission
    submission.queue = lambda *_, **__: None
    ranks = job("true", tasks=2, cpus=1).sweep(x=range(S["count"]))
    runs = hpcml.submit(ranks, "box")
    tell(runs[0].id.partition(".")[0])
"""


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """All that takes a box; where none can be had, that is said."""
    try:
        with Box(binds=this_python()) as box:
            yield from on_a_node(row, box)
            yield from from_afar(row, box)
    except CannotHaveBox as problem:
        print(f"what takes a real Slurm is left out: {problem}", file=sys.stderr)
