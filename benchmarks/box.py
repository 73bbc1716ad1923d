"""What hpcml costs on a real Slurm, in a box: on its nodes, and from afar by ssh."""

from __future__ import annotations

import itertools
import json
import os
import random
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import hpcml
from benchmarks.measure import LeftOut, alternate, fresh_home
from hpcml import poller
from hpcml.batch_view import BatchView
from hpcml.connection import connect
from hpcml.transports import Completed
from hpcml.transports.ssh import SshTransport
from tests.conftest import eventually
from tests.slurm.outside import Outside
from tests.slurm.site import Login
from tests.testbed import machine
from tests.testbed.box import Box, this_python
from tests.testbed.rootfs import root_file_system
from tests.testbed.using import seconds, ssh

UP = 30.0  # s, the root file system not counted
RUNS = 15
OVER_SRUN = 60.0  # ms
ROUND_TRIP = 0.05  # s, added
ROUND_TRIPS = 6
ROUNDS = 5
SWEEP = 1000
WATCHED = 200  # runs, of which 16 have room at a time
ENDS = 4
GROWN = 4.0  # s between two looks, after half a minute
A_LOOK = 100.0  # ms
PATIENCE = 120.0  # s

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
        machine.make_ready()
        root_file_system()  # which is built once
        began = time.monotonic()
        with Box(binds=this_python()) as box:
            took = time.monotonic() - began
            yield row("a box: wall: up", "s", took, "allowed", UP, 1.0)
            yield from on_a_node(row, box)
            yield from from_afar(row, box)
            yield from watching(row, box)
    except machine.CannotHaveBox as problem:
        yield LeftOut("all that takes a real Slurm", str(problem))


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
    """Submissions by ssh over a slow network: round trips, and what they make of its delay.

    The limit is on the submission itself, over the connection that all hpcml of a user shares, for
    half an hour after its last use. What opening that takes has a row of its own, beside what a
    plain ssh takes to do nothing.
    """
    with outside(box, ROUND_TRIP) as (files, _):
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
        numbers = itertools.count()
        ours, plain = alternate(
            lambda: from_a_closed_connection(files, next(numbers)) / ROUND_TRIP,
            lambda: seconds(ssh, box, "true") / ROUND_TRIP,
            rounds=ROUNDS,
        )
        what = f"ssh, {ROUND_TRIP * 1e3:g} ms a round trip: connect, submit 1, wall"
        yield row(what, "round trips", ours, "ssh box true", plain)


def from_a_closed_connection(files: SshTransport, number: int) -> float:
    """Seconds that a submission takes where there is no connection, not even another process's."""
    files.close()
    files._way.close()
    began = time.monotonic()
    run = hpcml.submit(hpcml.Job(["true"], code=None, params={"again": number}), "box")
    took = time.monotonic() - began
    run.cancel()
    return took


def watching(row: Callable[..., Any], box: Box) -> Iterator[Any]:
    """Runs on the real Slurm, from outside: what a look costs, and how late one knows of an end."""
    wait = 'touch "$0.begun"; until [ -e "$0" ]; do sleep 0.05; done'
    with outside(box) as (_, there), counted() as (looks, asked):
        gate = f"{there.there}/{{params.n}}"
        job = hpcml.Job(["/bin/sh", "-c", wait, gate], code=None)
        runs = hpcml.submit(job.sweep(n=range(WATCHED)), "box")
        gates = [there.folder / str(n) for n in range(1 + 2 * ENDS)]  # they begin in their order
        eventually(lambda: all(one.with_suffix(".begun").exists() for one in gates), PATIENCE)
        asked.clear()
        ended = runs.as_completed(PATIENCE)
        what = f"ssh: watching {WATCHED} runs"
        gates[0].touch()
        next(ended)  # from now on somebody watches
        eventually(lambda: len(looks) > 1, PATIENCE)
        first = [known(gate, ended, looks) for gate in gates[1 : 1 + ENDS]]
        eventually(lambda: looks[-1].began - looks[-2].began > GROWN, PATIENCE)
        grown = [known(gate, ended, looks) for gate in gates[1 + ENDS :]]
        for found in first, grown:
            lag, interval = max(found, key=lambda it: it[0] - it[1])
            peer = f"interval of {interval:.1f} s + 1 s"
            yield row(f"{what}: wall: an end is known", "s", lag, peer, interval + 1, 1.0)
        spent = median(look.spent for look in looks) * 1e3
        yield row(f"{what}: a look", "ms", spent, "allowed", A_LOOK, 1.0)
        yield row(f"{what}: squeue a look", "calls", len(asked) / len(looks), "allowed", 1, 1.0)
        runs.cancel()


def known(gate: Path, ended: Iterator[hpcml.Run], looks: Sequence[Look]) -> tuple[float, float]:
    """How long after its end one knows of it, and the interval between two looks then, in s."""
    time.sleep(random.uniform(0, 1))  # anywhere within an interval
    gate.touch()
    run = next(ended)
    now, interval = time.time(), looks[-1].began - looks[-2].began
    end = run.attempts[-1].end
    assert end is not None
    return now - end["time"], interval


@dataclass(frozen=True)
class Look:
    """One of the poller's: when it began, and the CPU time of its thread, in s."""

    began: float
    spent: float


@contextmanager
def counted() -> Iterator[tuple[list[Look], list[float]]]:
    """Looks of the poller, and when squeue was called."""
    looks: list[Look] = []
    asked: list[float] = []
    look, run = poller.look, SshTransport.run

    def counted_look(views: Sequence[BatchView]) -> None:
        began, before = time.monotonic(), time.thread_time()
        try:
            look(views)
        finally:
            looks.append(Look(began, time.thread_time() - before))

    def counted_run(self: SshTransport, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        if argv[0] == "squeue":
            asked.append(time.monotonic())
        return run(self, argv, stdin)

    with (
        mock.patch.object(poller, "look", counted_look),
        mock.patch.object(SshTransport, "run", counted_run),
    ):
        yield looks, asked


@contextmanager
def outside(box: Box, round_trip: float = 0.0) -> Iterator[tuple[SshTransport, Outside]]:
    """This process's hpcml with a home of its own, and the box within its reach, far away."""
    with ExitStack() as stack:
        home = fresh_home()
        stack.enter_context(mock.patch.dict(os.environ, home))
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcml-"))
        os.environ["XDG_RUNTIME_DIR"] = sockets  # the path of a socket is a short one
        os.environ["XDG_CONFIG_HOME"] = f"{home['HOME']}/config"
        there = Outside(box, Path(home["HOME"]))
        if round_trip:
            box.slow_network(round_trip * 1e3 / 2)
            stack.callback(box.fast_network)
        files = connect("box")._files
        assert isinstance(files, SshTransport)
        stack.callback(files._way.close)
        stack.callback(files.close)
        files.names("")
        yield files, there
