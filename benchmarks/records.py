"""Records of 100,000 runs: questions, and what it costs to record one more, beside MLflow's."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import LeftOut, fresh_home

RUNS = 100_000
FILLING = """
import json, os, statistics, sys, time
import hpcml
from hpcml import records
from hpcml.agent import wire
from hpcml.batch import new_batch
from hpcml.connection import connect
from hpcml.batch_view import Attempt, BatchView
from hpcml.planning import run_digest
from hpcml.records.database import Database
from hpcml.records.gathering import Head, Told, Use
from hpcml.records.place import find_place
from hpcml.records.writing import parts, write_batch, write_runs
from hpcml.timeline import Point, Story, Timeline

SIZE = 1000
database, files = Database(find_place()), connect("local").files


def batch(number):
    "A batch of runs with 10 parameters, on the site."
    params = {f"p{n}": n / 7 for n in range(9)}
    plan = hpcml.plan(hpcml.Job(["true"], code=None, name=f"b{number}", params=params))
    made = new_batch(plan, [{"params": {"seed": seed}} for seed in range(SIZE)])
    files.publish(made.folder, made.files(), empty=["attempts"])
    return made


def fill(number):
    "What ingest would find of such runs; each used what the one before it left."
    made = batch(number)
    view = BatchView.load(made.id, connect("local"))
    for some in parts(range(SIZE), 200):
        with database.writing() as connection:
            found = [told(view, index, number * SIZE + index) for index in some]
            write_runs(connection, write_batch(connection, Head.of(view)), found)
    return made.id


def told(view, index, n):
    history = {f"m{i}": (Point(0, 1e9, (n * 7919 + i) % 1000003 / 7),) for i in range(20)}
    what = {**view.plan.what["params"], "seed": index}
    used = {"x": Use(f"{n:064x}", True), "data": Use("f" * 64, True)}
    outputs = {"model": {"sha256": f"{n + 1:064x}", "bytes": 1}}
    story = Story(Timeline(), history, {}, {})
    attempt = Attempt(1, {"time": 1e9}, {"time": 1e9, "exit_code": 0})
    digest = run_digest(view.plan, view.points[index])
    return Told(index, wire.run_id(view.id, index), digest, "b", "COMPLETED", "", True,
                what, None, (attempt,), {}, used, outputs, (), 1, story, None, 1e9)


def cost(work, rounds=31):
    "CPU time in s, median."
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


with database.held():
    ids = [fill(number) for number in range(int(sys.argv[1]) // SIZE)]
last = f"{ids[-1]}.00500"
found = {"top": cost(lambda: records.top("m7")), "lineage": cost(lambda: records.lineage(last))}
assert len(records.top("m7")) == 10 and len(records.lineage(last)) == 6



def ended(number):
    "A batch of runs that have ended, on the site."
    made = batch(number)
    folder = connect("local").binding.workspace + "/" + made.folder
    attempts = wire.Attempts(folder)
    for index in range(SIZE):
        os.mkdir(f"{folder}/{index}")
        values = {f"m{n}": index / 7 + n for n in range(20)}
        lines = [{"e": "start", "t": 1e9, "m": 0, "attempt": 1, "host": "node"},
                 {"e": "log", "m": 1, "step": 0, "v": values},
                 {"e": "end", "m": 2, "exit_code": 0}]
        with open(f"{folder}/{index}/events.jsonl", "w") as file:
            file.writelines(json.dumps(line) + "\\n" for line in lines)
        attempts.start(index, 1)
        attempts.end(index, 1, exit_code=0, signal=None, received=[], cause=None, reason=None,
                     outputs={}, usage={"cpu_user": 1.0, "max_rss": 1})
    return made.id


def ingest(id):
    assert records.ingest("local", [id]) == SIZE


some = iter([ended(-number) for number in range(1, 6)])
found["ingest"] = cost(lambda: ingest(next(some)), rounds=5) / SIZE
print(json.dumps(found))
"""
MLFLOW = """
import json, os, sys, tempfile, time
os.environ.update(GIT_PYTHON_REFRESH="quiet", MLFLOW_ALLOW_FILE_STORE="true")
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient


def record(client, experiment, number):
    run = client.create_run(experiment).info.run_id
    metrics = [Metric(f"m{n}", number / 7 + n, 0, 0) for n in range(20)]
    params = [Param(f"p{n}", str(n / 7)) for n in range(10)]
    client.log_batch(run, metrics=metrics, params=params)
    client.set_terminated(run)


found, folder = {}, tempfile.mkdtemp(dir=os.environ["HOME"])
for store, uri in ("file", f"file:{folder}/files"), ("SQLite", f"sqlite:///{folder}/runs.db"):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("benchmark")
    record(client, experiment, 0)
    began = time.process_time()
    for number in range(100):
        record(client, experiment, number)
    found[store] = (time.process_time() - began) / 100
print(json.dumps(found))
"""


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """Questions to 100,000 runs beside their limits; recording a run beside MLflow's stores."""
    ours = _run(FILLING, str(RUNS))
    assert ours is not None, "the records could not be filled"
    yield row(f"top ten of {RUNS}", "ms", ours["top"] * 1e3, "limit", 5.0, limit=1.0)
    yield row("lineage, three hops", "ms", ours["lineage"] * 1e3, "limit", 100.0, limit=1.0)
    yield row("record a run", "ms", ours["ingest"] * 1e3, "limit", 1.0, limit=1.0)
    theirs = _run(MLFLOW)
    if theirs is None:
        yield LeftOut("record a run in MLflow's stores", "mlflow is not installed")
        return
    for store, seconds in theirs.items():
        yield row("record a run", "ms", ours["ingest"] * 1e3, f"MLflow {store}", seconds * 1e3)


def _run(code: str, *arguments: str) -> dict[str, float] | None:
    """What a program of its own printed last; ``None`` if it could not import what it needs."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(argv, env=fresh_home(), capture_output=True, text=True, check=False)
    if "ModuleNotFoundError: No module named 'mlflow" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
