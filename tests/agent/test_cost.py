"""What the agent and the marks cost, against what nobody can avoid, in the same minute.

Beside other tests, on any machine: the limits are wide. ``benchmarks/`` has the ones to be kept.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpcml.agent import wire
from hpcml.job import Job
from tests.agent.direct import agent, command, publish, run

ROUNDS = 6  # at most: a busy machine only ever adds, the calmest round counts
REPEATS = 15


def cpu_seconds(argv: Sequence[str], cwd: Path) -> float:
    """CPU time of a command and all that it has waited for."""
    process = subprocess.Popen(argv, cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


LIMIT = 2.0


def test_the_agent_starts_in_little_more_than_bare_python(
    script: Callable[..., str], record_property: Callable[[str, object], None]
) -> None:
    """It verifies the plan, lays out the code, tells the host's facts, and runs /bin/true."""
    script("print(1)")
    batch = publish(Job(["/bin/true"], code="."), runs=ROUNDS * REPEATS + 1)
    bare = [sys.executable, "-I", "-S", "-c", "import json, subprocess"]
    cpu_seconds(agent(batch, ROUNDS * REPEATS), batch)  # unpacks the code, once a snapshot
    measured = []
    for start in range(0, ROUNDS * REPEATS, REPEATS):
        times: dict[str, list[float]] = {"agent": [], "bare": [], "command": []}
        for index in range(start, start + REPEATS):
            times["agent"].append(cpu_seconds(agent(batch, index), batch))
            times["bare"].append(cpu_seconds(bare, batch))
            times["command"].append(cpu_seconds(["/bin/true"], batch))
        medians = {name: statistics.median(values) for name, values in times.items()}
        own = medians["agent"] - medians["command"]
        measured.append((own / medians["bare"], own * 1e3))
        if measured[-1][0] <= LIMIT:
            break
    ratio, milliseconds = min(measured)
    print(f"agent: {milliseconds:.1f} ms of CPU, {ratio:.2f} x bare python")
    record_property("agent_ms", milliseconds)
    record_property("agent_ratio", ratio)

    assert ratio <= LIMIT, measured


MARKS = """
import json, os, statistics, time
import hpcml

CALLS, REPEATS = 100, 60
now = time.monotonic_ns
descriptor = os.open("bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def log():
    start = time.perf_counter()
    for i in range(CALLS):
        hpcml.log(step=i, loss=0.123456789)
    return time.perf_counter() - start

def begin():
    start = time.perf_counter()
    for i in range(CALLS):
        hpcml.phase("epoch").__enter__()
    return time.perf_counter() - start

def finish():
    mark = hpcml.phase("epoch")
    start = time.perf_counter()
    for i in range(CALLS):
        mark.__exit__(None, None, None)
    return time.perf_counter() - start

def log_by_hand():
    start = time.perf_counter()
    for i in range(CALLS):
        line = b'{"m":%d,"e":"log","step":%d,"v":{"loss":%a}}\\n' % (now(), i, 0.123456789)
        os.write(descriptor, line)
    return time.perf_counter() - start

def phase_by_hand():
    start = time.perf_counter()
    for i in range(CALLS):
        os.write(descriptor, b'{"m":%d,"e":"begin","phase":"epoch"}\\n' % now())
    return time.perf_counter() - start

pairs = {
    "log": (log, log_by_hand),
    "begin": (begin, phase_by_hand),
    "finish": (finish, phase_by_hand),
}
times = {name: ([], []) for name in pairs}
for repeat in range(REPEATS):
    for name, both in pairs.items():
        for taken, measure in zip(times[name], both):
            taken.append(measure())
result = {}
for name, both in times.items():
    result[name] = [statistics.median(taken) / CALLS for taken in both]
print(json.dumps(result))
"""


def test_a_mark_costs_little_more_than_its_line_made_and_written_by_hand(
    script: Callable[..., str], record_property: Callable[[str, object], None]
) -> None:
    entry = script(MARKS)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        times = json.loads(run(Job(entry)).stdout)
        for name, (mark, by_hand) in times.items():
            best[name] = min(best.get(name, 1e9), mark / by_hand)
        if max(best.values()) <= LIMIT:
            break
    told = ", ".join(
        f"{name} {mark * 1e6:.2f} µs ({mark / by_hand:.2f} x)"
        for name, (mark, by_hand) in times.items()
    )
    print(f"marks: {told}")
    record_property("marks", best)

    assert max(best.values()) <= LIMIT, best


def test_an_agent_that_waits_costs_nothing() -> None:
    """It sleeps until a signal, its child's end or a limit."""
    ended = run(command("/bin/sleep", "0.5"), time=100, notice=10)
    calm = run(command("/bin/sleep", "0"), time=100, notice=10)

    assert [event["e"] for event in ended.events] == [event["e"] for event in calm.events]
    assert ended.end["usage"]["cpu_user"] < 0.1


WAITING = """
import json, os, sys
from hpcml.agent import dispatcher, wire

workspace, count = sys.argv[1], int(sys.argv[2])
first = os.path.join(workspace, "runs", "sweep")
os.makedirs(os.path.join(first, "attempts"))
queue = wire.QueueFolder(workspace)
os.mkdir(queue.folder)
for index in range(count):
    folder = os.path.join(workspace, "runs", "after-%d" % index)
    os.makedirs(os.path.join(folder, "attempts"))
    job = dict(
        name="after-%d" % index, folder=folder, first=0, count=1, cpus=1, memory=None,
        machine={"cpus": 1, "memory": 1 << 30}, group=None, max_running=None, parent=None,
        after=["sweep.%05d" % index], requeues=False, **wire.machine(),
    )
    wire.write_once(queue.path("%05d-0" % index), json.dumps(job).encode())
listed, listdir = [], os.listdir
os.listdir = lambda path: listed.append(path) or listdir(path)
queued = dispatcher.Dispatcher(queue)
queued._load()
queued._start()
assert len(queued.jobs) == count
print(listed.count(queue.folder), listed.count(os.path.join(first, "attempts")))
"""


def test_jobs_that_wait_for_runs_of_one_sweep_cost_the_dispatcher_one_listing(
    tmp_path: Path,
) -> None:
    """And to find their agents it does not list the queue for each of them."""
    argv = [sys.executable, "-c", WAITING, str(tmp_path), "20"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_to_find_a_run_taken_costs_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slot of a sweep comes past all runs that the others have taken."""
    (tmp_path / "attempts").mkdir()
    attempts = wire.Attempts(str(tmp_path))
    assert attempts.start(0, 1)
    monkeypatch.delattr(wire, "write_once")
    assert not attempts.start(0, 1)
