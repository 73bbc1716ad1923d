"""What hpcml costs on a real Slurm, in a box: on its nodes, and from afar by ssh."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

RUNS = 15
OVER_SRUN = 60.0  # ms
ROUND_TRIP = 0.05  # s, added
ROUND_TRIPS = 6
ROUNDS = 5
SWEEP = 1000

# What sbatch would start and what that starts in the end, in turns within one allocation.
TIMING = """
    import json, os, subprocess, sys, time
    count = sys.argv[1]
    bare = ["srun", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "true"]
    def milliseconds(argv, **more):
        began = time.monotonic()
        subprocess.run(argv, check=True, env={**os.environ, **more})
        return (time.monotonic() - began) * 1e3
    def ours(index):
        return milliseconds(["/bin/sh", "job.sh", "0", count], SLURM_ARRAY_TASK_ID=str(index))
    taken = [(ours(index), milliseconds(bare)) for index in range(int(count))]
    print(json.dumps(taken[1:]))
"""
# A sweep that is all ready, but for the call of sbatch.
PUBLISHED = """
    from hpcml import submission
    submission.queue = lambda *_, **__: None
    ranks = job("true", tasks=2, cpus=1).sweep(x=range(S["count"]))
    tell(hpcml.submit(ranks, "box")[0].id.partition(".")[0])
"""


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """All that takes a box; where none can be had, that is said."""
    try:
        with Box(binds=this_python()) as box:
            yield from on_a_node(row, box)
            yield from from_afar(row, box)
    except CannotHaveBox as problem:
        print(f"what takes a real Slurm is left out: {problem}", file=sys.stderr)


def on_a_node(row: Callable[..., Any], box: Box) -> Iterator[Any]:
    """From the start of a batch script to its end, with a command of two ranks that does nothing.

    The node's own Python, which is not the client's, starts the agent; the first run, in which that
    finds no bytecode yet, is not counted.
    """
    login = Login(box)
    batch = login.do(PUBLISHED, count=RUNS)
    login.write("timing.py", textwrap.dedent(TIMING))
    folder, timing = f"{login.home}/ws/runs/{batch}", f"{login.home}/timing.py"
    queued = ["sbatch", "--wait", "--ntasks=2", f"--chdir={folder}", f"--output={login.home}/told"]
    box.run("login", [*queued, f"--wrap=python3 {timing} {RUNS}"])
    taken = json.loads(login.read("told"))
    ours, bare = (median(column) for column in zip(*taken, strict=True))
    over = median(one - other for one, other in taken)
    yield row("Slurm: wall: agent to end of run", "ms", ours, "bare srun", bare)
    what = "Slurm: wall: agent and shim over bare srun"
    yield row(what, "ms", over, "allowed", OVER_SRUN, 1.0)


def from_afar(row: Callable[..., Any], box: Box) -> Iterator[Any]:
    """Submissions by ssh over a slow network: round trips, and what they make of its delay."""
    with outside(box) as files:
        for count in (1, SWEEP):
            job = hpcml.Job(["true"], code=None, resources=hpcml.Resources(time="1m"))
            turns, walls = [], []
            for n in range(ROUNDS + 1):
                sweep = job.sweep(x=range(n, n + count))
                before, began = files.round_trips, time.monotonic()
                runs = hpcml.submit(sweep, "box")
                turns.append(files.round_trips - before)
                walls.append(time.monotonic() - began)
                runs.cancel()
            what = f"ssh, {ROUND_TRIP * 1e3:g} ms a round trip: submit {count}"
            yield row(f"{what}, at first", "round trips", turns[0], "allowed", ROUND_TRIPS, 1.0)
            again = median(turns[1:])
            yield row(f"{what}, again", "round trips", again, "allowed", ROUND_TRIPS, 1.0)
            delays = median(walls[1:]) / ROUND_TRIP
            yield row(f"{what}, wall", "round trips", delays, "counted", again)


@contextmanager
def outside(box: Box) -> Iterator[SshTransport]:
    """This process's hpcml with a home of its own, and the box within its reach, far away."""
    with ExitStack() as stack:
        home = fresh_home()
        stack.enter_context(mock.patch.dict(os.environ, home))
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcml-"))
        os.environ["XDG_RUNTIME_DIR"] = sockets  # the path of a socket is a short one
        os.environ["XDG_CONFIG_HOME"] = f"{home['HOME']}/config"
        Outside(box, Path(home["HOME"]))
        box.slow_network(ROUND_TRIP * 1e3 / 2)
        stack.callback(box.fast_network)
        files = connect("box")._files
        assert isinstance(files, SshTransport)
        stack.callback(files.close)
        files.names("")
        yield files
