"""What hpcml costs on a Slurm that only says it is one: whatever it takes is the client's own."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import LeftOut, fresh_home
from tests.slurm.fake import FakeSlurm, fake_site

ONE_BY_ONE = 40  # jobs; hpcml lets 100 calls go at once
ROUNDS = 7
MEMORY = "/dev/shm"  # noqa: S108 (a file system, not a file)
POINTS = 10_000
MAX_ARRAY = 1001
LOOKS = 7
INTERVAL = 1.0  # s between two looks at first

MODULE = """
    def one(index=0, seed=0):
        return 1
"""
# Each tells what it took a job, its own process alone: what sbatch takes is not its affair.
ONE_EACH = """
    import work
    {prepare}
    def submit(count):
        before = time.process_time()
        {submit}
        return (time.process_time() - before) / count
    submit(3)
    print(json.dumps(submit(count)), flush=True)
    os._exit(0)  # some would wait for the jobs, and these never run
"""
HPCML = {
    "prepare": "import hpcml",
    "submit": 'for _ in range(count): hpcml.submit(work.one, "fake", code=None)',
}
HPCML_WITH_CODE = {**HPCML, "submit": 'for _ in range(count): hpcml.submit(work.one, "fake")'}
SUBMITIT = {
    "prepare": "from submitit.slurm.slurm import SlurmExecutor; "
    'executor = SlurmExecutor("submitit"); executor._throttling = 0',
    "submit": "for _ in range(count): executor.submit(work.one)",
}
PSIJ = {
    "prepare": 'import psij; executor = psij.JobExecutor.get_instance("slurm"); '
    'spec = psij.JobSpec(executable="/bin/true")',
    "submit": "for _ in range(count): executor.submit(psij.Job(spec))",
}
# It submits in a thread of its own, later, and equal calls once.
EXECUTORLIB = {
    "prepare": "import executorlib, itertools; numbers = itertools.count(); "
    'executor = executorlib.SlurmClusterExecutor(cache_directory="cache", '
    'resource_dict={"submission_template": "#!/bin/sh\\n{{command}}"}); '
    'asked = lambda: open(sys.argv[2]).read().count("sbatch ")',
    "submit": "wanted = asked() + count; "
    "kept = [executor.submit(work.one, next(numbers)) for _ in range(count)]\n        "
    "while asked() < wanted: time.sleep(0.01)",
}
SWEEP = """
    import hpcml, work
    hpcml.submit(work.one, "fake")
    sweep = hpcml.Job(work.one).sweep(index=range(100), seed=range(count // 100))
    before = time.process_time()
    hpcml.submit(sweep, "fake")
    print(json.dumps(time.process_time() - before))
"""
# All of them run. Between two looks two end, and their allocations leave the queue.
WATCH = """
    import hpcml, work
    from hpcml.agent import wire
    from hpcml.batch_view import look
    from hpcml.poller import poller
    from pathlib import Path
    from tests.slurm.fake import FakeSlurm
    slurm = FakeSlurm(Path(sys.argv[2]).parents[1])
    runs = hpcml.submit(hpcml.Job(work.one).sweep(index=range(count)), "fake")
    batch = runs[0].id.partition(".")[0]
    view = poller("fake").view(batch)
    view.read_files()
    folder = f"{runs[0].plan.where['workspace']}/runs/{batch}/attempts"
    ours = wire.identity()
    for index in range(count):
        with open(f"{folder}/{index}.1.start", "wb") as file:
            file.write(wire.canonical({"time": time.time(), "owner": ours}))
    rows = {
        index: f"{part.chunk.id}_{index - part.chunk.first}|RUNNING|None"
        for part in view.chunks
        for index in part.chunk.indices
    }
    def end(index):
        del rows[index]
        slurm.shows(rows.values())
        record = {"exit_code": 0, "signal": None, "received": [], "cause": None}
        wire.publish(f"{folder}/{index}.1.end", wire.canonical({**record, "time": time.time()}))
    slurm.shows(rows.values())
    look([view])
    taken, asked = [], slurm.called().count("squeue")
    for n in range(LOOKS):
        end(2 * n), end(2 * n + 1)
        before = time.process_time()
        look([view])
        taken.append(time.process_time() - before)
    asked = slurm.called().count("squeue") - asked
    lags = []
    for n in range(2 * LOOKS, 2 * LOOKS + 3):
        import threading
        began = []
        def later():
            began.append(time.monotonic()), end(n)
        threading.Timer(0.5, later).start()
        runs[n].wait(60)
        lags.append(time.monotonic() - began[0])
    print(json.dumps([taken, asked, lags]))
    os._exit(0)
"""


def measure(row: Callable[..., Any]) -> Iterator[Any]:
    """Submitting one by one and as a sweep, and watching what has been submitted."""
    yield from one_by_one(row)
    yield from sweep(row)
    yield from watching(row)


def one_by_one(row: Callable[..., Any]) -> Iterator[Any]:
    """CPU time of the submitting process a job; in turns, so that a slow moment hits all.

    With files on disk, where making and removing one is what costs most, and in memory.
    """
    peers = {"submitit, unthrottled": SUBMITIT, "psij-python": PSIJ, "executorlib": EXECUTORLIB}
    for module, name in (("psij", "psij-python"), ("pysqa", "executorlib")):
        if find_spec(module) is None:
            yield LeftOut(f"Slurm: submit by {name}", f"{module} is not installed")
            del peers[name]
    programs = {"bare": HPCML, "with code": HPCML_WITH_CODE, **peers}
    for place, where in (None, ""), (MEMORY, ", files in memory"):
        taken: dict[str, list[float]] = {name: [] for name in programs}
        # Nothing is removed before the end: ext4 makes files slowly where some went just before.
        with _for_a_while(place) as kept:
            for number in range(ROUNDS * len(programs)):
                name = _next(number, [*programs])
                folder = kept / str(number)
                folder.mkdir()
                found, _ = _told(ONE_EACH.format(**programs[name]), ONE_BY_ONE, folder)
                taken[name].append(found * 1e3)
        medians = {name: statistics.median(column) for name, column in taken.items()}
        for name in peers:
            limit = 1.5 if "submitit" in name else None
            what = f"Slurm: submit a function{where}"
            yield row(what, "ms", medians["bare"], name, medians[name], limit)
            what = f"Slurm: submit it with its code{where}"
            yield row(what, "ms", medians["with code"], name, medians[name])


def _next(number: int, names: Sequence[str]) -> str:
    """Whose turn it is: each round begins with another one, as some leave work to the next."""
    round_, place = divmod(number, len(names))
    return names[(round_ + place) % len(names)]


def sweep(row: Callable[..., Any]) -> Iterator[Any]:
    """CPU time of submit a point, and calls of sbatch."""
    taken, calls = zip(*(_told(SWEEP, POINTS) for _ in range(ROUNDS)), strict=True)
    what = f"Slurm: submit {POINTS} points, a point"
    yield row(what, "ms", statistics.median(taken) / POINTS * 1e3, "allowed", 0.06, 1.0)
    wanted = math.ceil(POINTS / MAX_ARRAY)
    sbatch = calls[0].count("sbatch") - 1  # the first one was to warm up
    yield row(f"Slurm: sbatch for {POINTS} points", "calls", sbatch, "needed", wanted, 1.0)


def watching(row: Callable[..., Any]) -> Iterator[Any]:
    """CPU time and queries of a look, and how late a waiting client knows of an end."""
    (taken, asked, lags), _ = _told(WATCH.replace("LOOKS", str(LOOKS)), POINTS)
    what = f"Slurm: a look at {POINTS} running runs"
    yield row(what, "ms", statistics.median(taken) * 1e3, "allowed", 100, 1.0)
    yield row(f"{what}: squeue", "calls", asked / LOOKS, "allowed", 1, 1.0)
    lag = statistics.median(lags)
    yield row("Slurm: wall: an end is known", "s", lag, "interval + 1 s", INTERVAL + 1, 1.0)


def _told(text: str, count: int, folder: Path | None = None) -> tuple[Any, list[str]]:
    """What a program tells in a home of its own, and the names of the commands that it called.

    Parameters
    ----------
    folder : Path, optional
        Where that is, for whoever calls to remove.
    """
    with ExitStack() as stack:
        slurm, environment, here = fake_slurm(folder or stack.enter_context(_for_a_while()))
        head = "import json, os, sys, time\ncount = int(sys.argv[1])\n"
        program = head + textwrap.dedent(text)
        argv = [sys.executable, "-c", program, str(count), str(slurm.log)]
        done = subprocess.run(
            argv, env=environment, cwd=here, stdout=subprocess.PIPE, text=True, check=True
        )
        return json.loads(done.stdout), slurm.called()


@contextmanager
def _for_a_while(place: str | None = None) -> Iterator[Path]:
    # Commands that somebody has left running may still write into it when it goes.
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def fake_slurm(folder: Path) -> tuple[FakeSlurm, dict[str, str], Path]:
    """A fake Slurm, the environment of its user, and a folder with a module of functions."""
    slurm, environment = FakeSlurm(folder / "slurm"), fresh_home(folder)
    (folder / "work").mkdir()
    (folder / "work" / "work.py").write_text(textwrap.dedent(MODULE))
    fake_site(Path(environment["XDG_CONFIG_HOME"]), folder / "ws", max_array=MAX_ARRAY)
    path = [str(folder / "work"), os.getcwd(), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment["PATH"] = f"{slurm.bin}{os.pathsep}{environment['PATH']}"
    return slurm, environment, folder / "work"
