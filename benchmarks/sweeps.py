"""Functions: many short ones, a single one, and ten thousand that are waited for."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import LeftOut, cpu_and_output, fresh_home

RUNS = 1000
FEW = 50  # runs of those that take too long for 1,000; scaled up
WORK = 0.01  # s of CPU time that a run works
SLOTS = 2
ROUNDS = 3

MODULE = """
    import time

    def busy(index, seed=0):
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        return index

    def one():
        return 1
"""
PURE = """
    import multiprocessing, work
    fork = multiprocessing.get_context("fork")
    halves = [fork.Process(target=lambda: [work.busy(0) for _ in range(count // 2)])
              for _ in range(2)]
    began = time.perf_counter()
    for half in halves: half.start()
    for half in halves: half.join()
"""
HPCML = """
    import hpcml, work
    began = time.perf_counter()
    sweep = hpcml.Job(work.busy).sweep(index=range(count))
    assert hpcml.submit(sweep, max_running=2).results() == list(range(count))
"""
POOL = """
    import concurrent.futures, work
    began = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert list(pool.map(work.busy, range(count))) == list(range(count))
"""
SUBMITIT = """
    import submitit, tempfile, work
    began = time.perf_counter()
    executor = submitit.AutoExecutor(folder=tempfile.mkdtemp(), cluster="local")
    waiting, going = list(range(count)), {}
    while waiting or going:
        while waiting and len(going) < 2:
            index = waiting.pop()
            going[index] = executor.submit(work.busy, index)
        time.sleep(0.01)  # job.result() would sleep for whole seconds
        for index in [index for index, job in going.items() if job.done()]:
            assert going.pop(index).result() == index
"""
EXECUTORLIB = """
    import executorlib, work
    began = time.perf_counter()
    with executorlib.SingleNodeExecutor(max_workers=2, block_allocation=KEPT) as executor:
        futures = [executor.submit(work.busy, index) for index in range(count)]
        assert [future.result() for future in futures] == list(range(count))
"""
LATENCY = """
    import hpcml, work
    from hpcml.agent.wire import QueueFolder
    first = hpcml.submit(work.one)
    first.result()
    queue = QueueFolder(first.plan.where["workspace"])
    blocker = hpcml.submit(hpcml.Job(["sleep", "60"], code=None)) if WARM else None
    taken = []
    for _ in range(count):
        while not WARM and queue.is_served(): time.sleep(0.01)
        before = time.perf_counter()
        assert hpcml.submit(work.one).result() == 1
        taken.append(time.perf_counter() - before)
    if blocker: blocker.cancel()
    print(json.dumps(taken))
"""
LATENCY_SUBMITIT = """
    import submitit, tempfile, work
    executor = submitit.AutoExecutor(folder=tempfile.mkdtemp(), cluster="local")
    taken = []
    for _ in range(count):
        before = time.perf_counter()
        assert executor.submit(work.one).result() == 1
        taken.append(time.perf_counter() - before)
    print(json.dumps(taken))
"""
LATENCY_POOL = """
    import concurrent.futures, work
    taken = []
    for _ in range(count):
        before = time.perf_counter()
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            assert pool.submit(work.one).result() == 1
        taken.append(time.perf_counter() - before)
    print(json.dumps(taken))
"""
MANY = """
    import hpcml, work
    hpcml.submit(work.one).result()
    before = time.process_time()
    runs = hpcml.submit(hpcml.Job(work.busy).sweep(index=range(100), seed=range(count // 100)))
    described = time.process_time() - before
    began, before = time.perf_counter(), time.process_time()
    runs.wait(10)
    share = (time.process_time() - before) / (time.perf_counter() - began)
    runs.cancel().wait()
    folder = runs[0].plan.where["workspace"] + "/runs/" + runs[0].id.partition(".")[0]
    print(json.dumps([described, share, folder]))
"""
SEEN = """
    import hpcml
    before = time.process_time()
    states = hpcml.runs().states
    print(json.dumps(time.process_time() - before))
    assert len(states) == count + 1, len(states)
"""
READ = """
    import sys
    before = time.process_time()
    for name in os.listdir(sys.argv[2]):
        if name.endswith(".end"):
            with open(sys.argv[2] + "/" + name, "rb") as file: json.loads(file.read())
    print(json.dumps(time.process_time() - before))
"""


@dataclass(frozen=True)
class Taken:
    """What a number of runs took, in s a run."""

    wall: float
    cpu: float


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """Throughput of short runs, latency of one, and what ten thousand cost the client."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "work.py").write_text(textwrap.dedent(MODULE))
        yield from throughput(row, folder)
        yield from latency(row, folder)
        yield from ten_thousand(row, folder)


def throughput(row: Callable[..., Any], folder: str) -> Iterator[Any]:
    """Wall time from submitting the first run to the last result, and CPU time beside the work."""
    rounds = [(_runs(HPCML, RUNS, folder), _runs(PURE, RUNS, folder)) for _ in range(ROUNDS)]
    ours, pure = (Taken(*_medians(column)) for column in zip(*rounds, strict=True))
    peers = {"ProcessPoolExecutor": _runs(POOL, RUNS, folder)}
    if find_spec("executorlib") is None:
        yield LeftOut(f"{RUNS} runs of 10 ms by executorlib", "executorlib is not installed")
    else:
        kept = EXECUTORLIB.replace("KEPT", "True")
        peers["executorlib, kept workers"] = _runs(kept, RUNS, folder)
        each = EXECUTORLIB.replace("KEPT", "False")
        peers[f"executorlib ({FEW}, scaled up)"] = _runs(each, FEW, folder)
    peers[f"submitit local ({FEW}, scaled up)"] = _runs(SUBMITIT, FEW, folder)
    what = f"wall: {RUNS} runs of 10 ms in {SLOTS} slots"
    yield row(what, "s", ours.wall * RUNS, "pure work", pure.wall * RUNS, limit=3.0)
    for name, theirs in peers.items():
        yield row(what, "s", ours.wall * RUNS, name, theirs.wall * RUNS)
    for name, theirs in peers.items():
        limit = 1.0 if "submitit" in name else None
        beside = [(taken.cpu - WORK) * 1e3 for taken in (ours, theirs)]
        yield row("a run of 10 ms beside its work", "ms", beside[0], name, beside[1], limit=limit)


def latency(row: Callable[..., Any], folder: str, count: int = 7) -> Iterator[Any]:
    """From submitting ``return 1`` to its result, in a process that has done so before."""
    cold, warm, submitit, pool = (
        statistics.median(json.loads(_output(text, count, folder)))
        for text in (
            LATENCY.replace("WARM", "False"),
            LATENCY.replace("WARM", "True"),
            LATENCY_SUBMITIT,
            LATENCY_POOL,
        )
    )
    for ours, state in ((cold, "no dispatcher yet"), (warm, "a dispatcher there")):
        what = f"wall: submit, result of 1; {state}"
        yield row(what, "s", ours, "submitit local", submitit, limit=1.0)
        yield row(what, "s", ours, "ProcessPoolExecutor(1)", pool)


def ten_thousand(row: Callable[..., Any], folder: str, count: int = 10_000) -> Iterator[Any]:
    """What a sweep costs the process that submits it, waits for it, or sees it for the first time.

    It is waited for while its runs end, in two slots, as fast as they can.
    """
    home = fresh_home()
    described, share, batch = json.loads(_output(MANY, count, folder, home=home))
    seen = json.loads(_output(SEEN, count, folder, home=home))
    read = json.loads(_output(READ, count, folder, f"{batch}/attempts", home=home))
    yield row(f"describe, plan, submit {count} runs", "s", described, "allowed", 0.5, limit=1.0)
    yield row(f"waiting for {count} live runs", "% of a core", share * 100, "allowed", 5, limit=1.0)
    yield row(f"{count} ended runs seen first", "s", seen, "json.loads of their ends", read)


def _runs(text: str, count: int, folder: str) -> Taken:
    text = textwrap.dedent(text) + "\nprint(json.dumps(time.perf_counter() - began))"
    cpu, output = _run(text, count, folder)
    return Taken(json.loads(output) / count, cpu / count)


def _output(text: str, count: int, folder: str, *more: str, **home: dict[str, str]) -> str:
    return _run(textwrap.dedent(text), count, folder, *more, **home)[1]


def _run(
    text: str, count: int, folder: str, *more: str, home: dict[str, str] | None = None
) -> tuple[float, str]:
    environment = dict(home or fresh_home())
    path = filter(None, (folder, environment.get("PYTHONPATH")))
    environment["PYTHONPATH"] = os.pathsep.join(path)
    head = "import json, os, sys, time\ncount = int(sys.argv[1])\n"
    return cpu_and_output([sys.executable, "-c", head + text, str(count), *more], environment)


def _medians(taken: tuple[Taken, ...]) -> tuple[float, float]:
    return statistics.median(t.wall for t in taken), statistics.median(t.cpu for t in taken)
