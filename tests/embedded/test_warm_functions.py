"""Many runs of one function: imported once, and yet each as in a fresh interpreter."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import hpcml
from hpcml.agent import wire
from tests.conftest import eventually
from tests.embedded.scene import Scene, small_machine

Module = Callable[..., ModuleType]

JOBS = '("HPCML_SLOT" in os.environ or "HPCML_RUN_ID" in os.environ)'  # not the client


@pytest.fixture
def site(home: Path) -> str:
    """A machine with one CPU: all runs of a batch follow each other in one slot."""
    return small_machine(home, cpus=1)


def counting(scene: Scene, text: str) -> str:
    """A module that writes a line into the ledger whenever a job imports it."""
    head = f"""
        import os
        if {JOBS}:
            with open({str(scene.ledger)!r}, "a") as ledger:
                ledger.write("imported\\n")
"""
    return head + text


def refusals(run: hpcml.Run, scene: Scene) -> list[str]:
    """Why the warm interpreter did not fork for a run."""
    path = scene.batch(run) / str(run.index) / "events.jsonl"
    events = wire.parse_lines(path.read_bytes().replace(b"\0", b""))
    return [event["why"] for event in events if event["e"] == "refused"]


def test_a_module_is_imported_once_a_slot_and_points_see_nothing_of_each_other(
    module: Module, scene: Scene, site: str
) -> None:
    """Neither globals, nor environment, folder and files, nor random numbers."""
    text = """
        import hpcml, os, random, sys
        seen = []

        def f(n):
            seen.append(n)
            found = seen[:], os.environ.get("LEFT"), os.getcwd(), os.path.exists("left")
            os.environ["LEFT"] = "left"
            open("left", "w").close()
            print("out", n)
            print("err", n, file=sys.stderr)
            with hpcml.phase("p%d" % n):
                hpcml.log(step=n, loss=float(n))
            os.chdir("/")
            return found, random.random(), os.environ["HPCML_RUN_ID"], hpcml.params()
    """
    work = module(counting(scene, text))

    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=range(5)), site)

    results = runs.results()
    for n, (found, _, run_id, params) in enumerate(results):
        folder = str(scene.batch(runs[n]) / str(n) / "work")
        assert found == ([n], None, folder, False)
        assert (run_id, params) == (runs[n].id, {"n": n})
        assert runs[n].logs(stream="stdout") == f"out {n}\n"
        assert runs[n].logs(stream="stderr") == f"err {n}\n"
        assert runs[n].metrics == {"loss": n} and list(runs[n].timeline.phases) == [f"p{n}"]
    assert len({number for _, number, _, _ in results}) == 5
    assert scene.lines() == ["imported"]


def test_a_function_that_says_fork_false_gets_a_fresh_interpreter_each_time(
    module: Module, scene: Scene, site: str
) -> None:
    work = module(
        counting(scene, "        def f(n): return os.getppid()\n        f.fork = False\n")
    )
    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=range(3)), site)
    assert set(runs.results()) == {scene.agent(runs[0])}, "the agent itself has started them"
    assert scene.lines() == ["imported"] * 3


IMPORTS_THAT_DEPEND_ON_THE_RUN = {
    "parameters": ("import hpcml\np = hpcml.params(n=7)\ndef f(n): return p.n", "parameters"),
    "folder": (
        "import pathlib, os\nhere = pathlib.Path.cwd()\n"
        "def f(n): return n if here.samefile(os.getcwd()) else -1",
        "folder",
    ),
    "threads": (
        "import threading\nwait = threading.Event().wait\n"
        "t = threading.Thread(target=wait, daemon=True)\nt.start()\n"
        "def f(n): return n if t.is_alive() else -1",
        "threads",
    ),
    "environment": (
        "me = os.environ.get('HPCML_INDEX')\n"
        "def f(n): return n if os.environ['HPCML_INDEX'] == me else -1",
        "asks for",
    ),
    "processes": (
        f"import subprocess\nif {JOBS}: p = subprocess.Popen(['sleep', '600'])\n"
        "def f(n): return n if p.poll() is None else -1",
        "processes",
    ),
    "seed": ("import random\nrandom.seed(3)\ndef f(n): return n * random.random()", "random"),
    "generator": ("import random\nr = random.Random()\ndef f(n): return r.random()", "random"),
}


@pytest.mark.parametrize("what", IMPORTS_THAT_DEPEND_ON_THE_RUN)
def test_what_an_import_asks_for_is_the_runs_own(
    module: Module, scene: Scene, site: str, what: str
) -> None:
    """Such a module is imported anew for each run; an event says why."""
    text, why = IMPORTS_THAT_DEPEND_ON_THE_RUN[what]
    lines = "".join(f"        {line}\n" for line in text.splitlines())
    work = module(counting(scene, "        print('importing', flush=True)\n" + lines))

    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=[1, 2, 3]), site)
    results = runs.results()

    (said,) = refusals(runs[0], scene)
    assert why in said and not refusals(runs[1], scene)
    assert scene.lines() == ["imported"] * 4, "once by the interpreter that was to be kept warm"
    assert [run.logs() for run in runs] == ["importing\n"] * 3
    if what == "seed":
        assert results == [n * results[0] for n in (1, 2, 3)]
    elif what == "generator":
        assert len(set(results)) == 3
    else:
        assert results == [1, 2, 3]


def test_random_numbers_of_numpy_differ_from_run_to_run_unless_they_are_seeded(
    module: Module, scene: Scene, site: str
) -> None:
    pytest.importorskip("numpy")
    drawn = {}
    for name, line in {"free": "", "seeded": "numpy.random.seed(3)", "made": ""}.items():
        made = "r = numpy.random.default_rng()" if name == "made" else "r = numpy.random"
        work = module(f"import numpy\n{line}\n{made}\ndef f(n): return r.random()\n", name)
        runs = hpcml.submit(hpcml.Job(work.f).sweep(n=range(3)), site)
        drawn[name] = len(set(runs.results()))
        assert bool(refusals(runs[0], scene)) == (name != "free")
    assert drawn == {"free": 3, "seeded": 1, "made": 3}


@pytest.mark.parametrize("count", [1, 3])
def test_an_import_that_fails_in_the_job_gives_each_run_the_true_error(
    module: Module, site: str, count: int
) -> None:
    work = module(
        f"""
        import os
        print("importing", flush=True)
        if {JOBS}:
            import no_such_module

        def f(n): return n
        """
    )
    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=range(count)), site).wait(60)
    for run in runs:
        assert run.state == "FAILED"
        assert run.reason == "ModuleNotFoundError: No module named 'no_such_module'"
        error = run.exception()
        assert isinstance(error, ModuleNotFoundError) and error.name == "no_such_module"
        assert "import no_such_module" in str(error.__cause__)
        assert run.logs(stream="stdout") == "importing\n"


def test_an_import_that_exits_or_kills_itself_fails_its_runs(module: Module, site: str) -> None:
    for act, reason in {
        "os._exit(3)": "exit code 3",
        "os.kill(os.getpid(), 9)": "SIGKILL",
        "raise SystemExit('no licence')": "exit code 1",
        "raise SystemExit": "before its function returned",
    }.items():
        name = f"m{abs(hash(act))}"
        work = module(f"import os\nif {JOBS}:\n    {act}\ndef f(n): return n\n", name)
        runs = hpcml.submit(hpcml.Job(work.f).sweep(n=range(2)), site).wait(60)
        assert [run.state for run in runs] == ["FAILED"] * 2
        assert all(reason in run.reason for run in runs), (act, [run.reason for run in runs])
        if "licence" in act:
            assert "no licence" in str(runs[1].exception())


def test_an_import_that_hangs_is_ended_by_the_walltime(module: Module, site: str) -> None:
    work = module(
        f"""
        import os, time
        while {JOBS}:
            time.sleep(0.1)

        def f(n): return n
        """
    )
    job = hpcml.Job(work.f, resources=hpcml.Resources(time="1s"))
    runs = hpcml.submit(job.sweep(n=[1, 2]), site).wait(60)
    assert [run.state for run in runs] == ["TIMEOUT", "TIMEOUT"]


def test_an_import_that_takes_too_much_memory_is_ended(module: Module, site: str) -> None:
    """It is the run's that needs it, the second run's too."""
    work = module(
        f"""
        import os, time
        if {JOBS}:
            held = bytearray(600 << 20)
            time.sleep(5)

        def f(n): return n
        """
    )
    job = hpcml.Job(work.f, resources=hpcml.Resources(memory="400 MiB"))
    runs = hpcml.submit(job.sweep(n=[1, 2]), site).wait(60)
    assert [run.state for run in runs] == ["OUT_OF_MEMORY"] * 2


def test_what_an_import_leaves_for_the_exit_is_done_once_a_run(
    module: Module, scene: Scene, site: str
) -> None:
    """Not by the interpreter that is kept warm."""
    text = f"""
        import atexit

        @atexit.register
        def write():
            if {JOBS}:
                with open({str(scene.ledger)!r}, "a") as ledger:
                    ledger.write("exit\\n")

        def f(n): return n
    """
    work = module(counting(scene, text))
    assert hpcml.submit(hpcml.Job(work.f).sweep(n=[1, 2, 3]), site).results() == [1, 2, 3]
    eventually(lambda: not scene.agents())
    assert scene.lines() == ["imported", "exit", "exit", "exit"]


def test_an_import_that_is_cancelled_ends_and_the_next_run_imports_again(
    module: Module, scene: Scene, site: str
) -> None:
    text = f"""
        import time
        while {JOBS} and not os.path.exists({str(scene.gate())!r}):
            time.sleep(0.02)

        def f(n): return n
    """
    work = module(counting(scene, text))
    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=[1, 2, 3]), site)
    eventually(lambda: scene.lines() == ["imported"])
    runs[0].cancel()
    assert runs[0].wait(20).state == "CANCELLED"
    scene.open()
    assert runs[1:].results() == [2, 3]
    assert scene.lines() == ["imported"] * 2


def test_one_run_alone_is_not_forked(module: Module, scene: Scene, site: str) -> None:
    work = module("import os\ndef f(): return os.getppid()")
    run = hpcml.submit(work.f, site)
    assert run.result(60) == scene.agent(run)


def test_what_a_c_library_prints_is_in_the_logs_of_the_run_that_called_it(
    module: Module, scene: Scene, site: str
) -> None:
    """C keeps it in a buffer of its own until the process ends."""
    text = """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.printf(b"importing\\n")
        def f(n): libc.printf(b"called\\n")
    """
    work = module(counting(scene, text))
    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=range(3)), site).wait()
    assert scene.lines() == ["imported"]
    assert [run.logs() for run in runs] == ["importing\ncalled\n", "called\n", "called\n"]


def test_a_fork_costs_a_fraction_of_a_fresh_interpreter(module: Module, site: str) -> None:
    """Nothing is imported for each run: neither submitit nor the numpy that it loads."""
    text = "def f(n): return n\ndef g(n): return n\n{}.fork = False\n"
    work = module(text.format("g"))
    cpu = []
    for function in (work.f, work.g):
        runs = hpcml.submit(hpcml.Job(function).sweep(n=range(8)), site).wait(60)
        used = [run.usage["cpu_user"] + run.usage["cpu_system"] for run in runs]
        cpu.append(statistics.median(used))
    assert cpu[0] < 0.3 * cpu[1], cpu
