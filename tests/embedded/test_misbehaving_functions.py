"""Functions that raise, die, fork, hang or return what cannot be returned."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.errors import ResultError, RunFailedError
from hpcml.results import RemoteTraceback
from tests.conftest import eventually
from tests.embedded.scene import Scene, write_profile

Module = Callable[..., ModuleType]

WAYS_TO_FAIL = """
import asyncio, ctypes, os, signal, sys, threading

class Odd(Exception):
    def __init__(self, code, *, why):
        super().__init__("odd: %s" % why)
        self.code, self.why = code, why

class Locked(Exception):
    def __init__(self):
        self.lock = threading.Lock()

class Silent(Exception):
    def __str__(self): raise RuntimeError("no text")
    __repr__ = __str__

def raises(): raise ValueError("no good", 7)
def raises_odd(): raise Odd(3, why="so")
def raises_locked(): raise Locked()
def raises_silent(): raise Silent()
def raises_much(): raise ValueError("x" * 10**8)
def raises_from():
    try:
        raises()
    except ValueError as error:
        raise KeyError("second") from error
def exit_0(): sys.exit(0)
def exit_none(): sys.exit()
def exit_text(): sys.exit("text")
def exit_7(): sys.exit(7)
def os_exit(): os._exit(3)
def os_exit_0(): os._exit(0)
def kills_itself(): os.kill(os.getpid(), signal.SIGKILL)
def terminates_itself(): os.kill(os.getpid(), signal.SIGTERM)
def segfaults(): ctypes.string_at(0)
def interrupted(): raise KeyboardInterrupt
def cancelled(): raise asyncio.CancelledError("gone")
def generator_exit(): raise GeneratorExit
def recurses(): recurses()
def returns_generator(): return (n for n in range(3))
def returns_silent():
    class Odd:
        def __reduce__(self): raise OSError("not me")
        __repr__ = Silent.__str__
    return Odd()
def deep():
    found = []
    for _ in range(100000):
        found = [found]
    return found

def fail(way): return globals()[way]()
"""

# way: (reason, what the exception says)
ENDS = {
    "raises": ("ValueError: ('no good', 7)", "no good"),
    "raises_odd": ("Odd: odd: so", "odd: so"),
    "raises_locked": ("Locked", "raised Locked"),
    "raises_silent": ("Silent: <Silent whose text raises RuntimeError>", None),
    "raises_much": ("ValueError: xxx", "raised ValueError: xxx"),
    "raises_from": ("KeyError: 'second'", "second"),
    "exit_0": ("it ended with exit code 0 before its function returned",) * 2,
    "exit_none": ("it ended with exit code 0 before its function returned",) * 2,
    "exit_text": ("exit code 1", "text"),
    "exit_7": ("exit code 7", "exit code 7"),
    "os_exit": ("exit code 3", "exit code 3"),
    "os_exit_0": ("it ended with exit code 0 before its function returned",) * 2,
    "kills_itself": ("SIGKILL", "SIGKILL"),
    "terminates_itself": ("SIGTERM", "SIGTERM"),
    "segfaults": ("SIGSEGV", "SIGSEGV"),
    "interrupted": ("KeyboardInterrupt", "raised KeyboardInterrupt"),
    "cancelled": ("CancelledError: gone", "raised CancelledError: gone"),
    "generator_exit": ("GeneratorExit", "raised GeneratorExit"),
    "recurses": ("RecursionError: maximum recursion depth exceeded", "maximum recursion"),
    "returns_generator": ("TypeError", "returned what cannot be pickled: <generator object"),
    "returns_silent": ("OSError: not me", "returned what cannot be pickled: <Odd instance"),
    "deep": ("recursion", "returned what cannot be pickled: [[[["),
}


@pytest.mark.parametrize("forked", [True, False])
def test_however_a_function_fails_the_reason_and_the_exception_say_how(
    module: Module, forked: bool
) -> None:
    """In a warm interpreter's fork and in a fresh one alike, and only its own run has FAILED."""
    work = module(WAYS_TO_FAIL)
    work.fail.fork = forked

    runs = hpcml.submit(hpcml.Job(work.fail).sweep(way=list(ENDS))).wait(60)

    for way, run in zip(ENDS, runs, strict=True):
        reason, said = ENDS[way]
        assert run.state == "FAILED", way
        assert reason in run.reason, way
        assert said is None or said in str(run.exception()), way
    by_way = dict(zip(ENDS, runs, strict=True))
    _the_exceptions_are_those_that_were_raised(by_way, work)


def _the_exceptions_are_those_that_were_raised(
    runs: dict[str, hpcml.Run], work: ModuleType
) -> None:
    with pytest.raises(ValueError) as caught:
        runs["raises"].result()
    assert type(caught.value) is ValueError and caught.value.args == ("no good", 7)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    trace = str(caught.value.__cause__)
    assert 'raise ValueError("no good", 7)' in trace and "call.py" not in trace

    odd = runs["raises_odd"].exception()
    assert type(runs["raises_silent"].exception()) is work.Silent
    assert type(odd) is work.Odd and (odd.code, odd.why) == (3, "so")
    both = str(runs["raises_from"].exception().__cause__)  # type: ignore[union-attr]
    assert "no good" in both and "direct cause" in both
    assert len(str(runs["raises_much"].exception().__cause__)) < 10**6
    for way in (
        "raises_locked",
        "raises_much",
        "interrupted",
        "returns_generator",
        "exit_0",
        "kills_itself",
    ):
        assert type(runs[way].exception()) is RunFailedError, way
    assert "<generator object" in str(runs["returns_generator"].exception())


SURVIVES = """
import multiprocessing, os, shutil, sys, threading, time, concurrent.futures as cf

class Bomb:
    def __reduce__(self): return os.path.join, (1, 2)

def square(x): return x * x

def in_a_pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, range(4))

def pool_by_fork(): return in_a_pool("fork")
def pool_by_spawn(): return in_a_pool("spawn")
def executor():
    with cf.ProcessPoolExecutor(2) as pool:
        return list(pool.map(square, range(4)))
def forks():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "parent" if child else "child"
def forks_and_child_raises():
    child = os.fork()
    if not child:
        raise ValueError("in the child")
    os.waitpid(child, 0)
    return "parent"
def forks_and_leaves_the_child():
    if not os.fork():
        time.sleep(0.3)
        return "child"
    return "parent"
def forks_and_child_exits():
    child = os.fork()
    if not child:
        sys.exit(5)
    return os.waitpid(child, 0)[1] >> 8
def clears_its_environment():
    os.environ.clear()
    os.chdir("/")
    return "cleared"
def removes_its_folder():
    shutil.rmtree(os.getcwd())
    return "removed"
def closes_its_streams():
    print("before")
    sys.stdout.close()
    sys.stderr = None
    return "closed"
def leaves_a_thread():
    import atexit
    atexit.register(print, "last words")
    threading.Thread(target=lambda: (time.sleep(0.3), print("thread", flush=True))).start()
    return "returned"
def leaves_a_daemon():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return "returned"
def returns_a_bomb(): return Bomb()
def returns_nothing(): pass
def exit_function_raises():
    import atexit
    atexit.register(lambda: 1 / 0)
    return "returned"

def survive(way): return globals()[way]()
"""

RETURNED = {
    "pool_by_fork": [0, 1, 4, 9],
    "pool_by_spawn": [0, 1, 4, 9],
    "executor": [0, 1, 4, 9],
    "forks": "parent",
    "forks_and_child_raises": "parent",
    "forks_and_leaves_the_child": "parent",
    "forks_and_child_exits": 5,
    "clears_its_environment": "cleared",
    "removes_its_folder": "removed",
    "closes_its_streams": "closed",
    "leaves_a_thread": "returned",
    "leaves_a_daemon": "returned",
    "exit_function_raises": "returned",
    "returns_nothing": None,
}


@pytest.mark.parametrize("forked", [True, False])
def test_what_a_function_may_do_does_not_cost_its_result(module: Module, forked: bool) -> None:
    """Pools, forks whose children return, threads, a folder and an environment that are gone."""
    work = module(SURVIVES)
    work.survive.fork = forked

    runs = hpcml.submit(hpcml.Job(work.survive).sweep(way=list(RETURNED))).wait(60)

    for way, run in zip(RETURNED, runs, strict=True):
        assert run.state == "COMPLETED", (way, run.reason, run.logs())
        assert run.result() == RETURNED[way], way
    by_way = dict(zip(RETURNED, runs, strict=True))
    assert by_way["leaves_a_thread"].logs() == "thread\nlast words\n"
    assert by_way["closes_its_streams"].logs() == "before\n"
    assert "in the child" in by_way["forks_and_child_raises"].logs()
    assert "ZeroDivisionError" in by_way["exit_function_raises"].logs()


def test_a_result_that_cannot_be_loaded_is_an_error_of_its_own(module: Module) -> None:
    """The run is COMPLETED all the same: the function did return."""
    work = module(SURVIVES)
    run = hpcml.submit(work.survive, params={"way": "returns_a_bomb"}).wait(60)
    assert run.state == "COMPLETED" and run.exception() is None
    with pytest.raises(ResultError, match="the result cannot be loaded: TypeError"):
        run.result()


# --- much ---------------------------------------------------------------------------------


def test_a_large_result_comes_back_in_little_more_memory_than_it_takes(
    module: Module, scene: Scene
) -> None:
    """500 MB: in the job it is held once; here once more than the result itself at most."""
    work = module("def f(): return bytes(500 * 10**6)")
    begun = time.monotonic()
    run = hpcml.submit(work.f).wait(60)
    usage = wire.read_json(str(scene.attempt(run, "end")))["usage"]
    assert usage["max_rss"] < 650 * 10**6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(run.result()) == 500 * 10**6
    assert time.monotonic() - begun < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 10**3  # KiB


def test_a_function_that_prints_a_gigabyte_and_fails_is_judged_at_once(module: Module) -> None:
    """Its output is in a file; of that only the end is read."""
    work = module(
        """
        import sys

        def f():
            for stream in (sys.stdout, sys.stderr):
                for _ in range(500):
                    stream.write("x" * 10**6)
            sys.stderr.write("\\nthe end\\n")
            raise SystemExit(4)
        """
    )
    run = hpcml.submit(work.f).wait(60)
    begun = time.process_time()
    assert run.state == "FAILED" and run.exit_code == 4
    assert "the end" in str(run.exception()) and len(str(run.exception())) < 10**5
    assert time.process_time() - begun < 1


# --- ended by others ----------------------------------------------------------------------

WAITS = """
import os, signal, time

def wait(path, number):
    open("%s/%d" % (path, number), "w").close()
    while number:
        time.sleep(0.02)

def kill_parent(number):
    if number == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.2)
    return number

def stop_parent(number):
    if number == 1:
        os.kill(os.getppid(), signal.SIGSTOP)
    return number

def become_another(number):
    os.execv("/bin/echo", ["echo", "hello"])

def eat(number):
    held = bytearray(600 << 20) if number == 1 else b""
    time.sleep(60 if held else 0)
    return len(held)
"""


@pytest.mark.parametrize("forked", [True, False])
def test_cancelling_a_function_takes_no_patience(
    module: Module, scene: Scene, forked: bool
) -> None:
    """submitit ignores TERM; a function does not. The runs behind it go on."""
    work = module(WAITS)
    work.wait.fork = forked
    runs = hpcml.submit(
        hpcml.Job(work.wait, params={"path": str(scene.folder)}).sweep(number=[1, 0])
    )
    eventually((scene.folder / "1").exists)
    runs[0].cancel()
    assert runs[0].wait(20).state == "CANCELLED"
    events = wire.parse_lines((scene.batch(runs[0]) / "0" / "events.jsonl").read_bytes())
    assert "kill" not in {event["e"] for event in events}, "it would come after 10 s"
    assert runs[1].wait(20).state == "COMPLETED"


def test_walltime_ends_a_forked_function_and_the_next_run_begins(
    module: Module, scene: Scene
) -> None:
    work = module(WAITS)
    job = hpcml.Job(
        work.wait, params={"path": str(scene.folder)}, resources=hpcml.Resources(time="5s")
    )
    runs = hpcml.submit(job.sweep(number=[0, 1, 0, 0])).wait(60)
    assert [run.state for run in runs] == ["COMPLETED", "TIMEOUT", "COMPLETED", "COMPLETED"]


def test_a_function_that_stops_the_interpreter_it_was_forked_from_meets_its_walltime(
    module: Module, home: Path
) -> None:
    """Nobody can say any more how it ended; the next run has a new interpreter."""
    site = write_profile(home, "patient", "kill_wait: 1s\n")
    work = module(WAITS)
    job = hpcml.Job(work.stop_parent, resources=hpcml.Resources(time="5s"))
    # One slot: another one might have a single run left, whose parent would be the agent itself.
    runs = hpcml.submit(job.sweep(number=[0, 1, 2, 3]), site, max_running=1).wait(60)
    assert [run.state for run in runs] == ["COMPLETED", "TIMEOUT", "COMPLETED", "COMPLETED"]


def test_a_function_that_becomes_another_program_has_not_returned(module: Module) -> None:
    work = module(WAITS)
    runs = hpcml.submit(hpcml.Job(work.become_another).sweep(number=[1, 2])).wait(60)
    for run in runs:
        assert run.state == "FAILED" and "before its function returned" in run.reason
        assert run.logs() == "hello\n"


def test_a_forked_function_that_takes_too_much_memory_is_ended_alone(module: Module) -> None:
    work = module(WAITS)
    job = hpcml.Job(work.eat, resources=hpcml.Resources(memory="400 MiB"))
    runs = hpcml.submit(job.sweep(number=[0, 1, 0, 0])).wait(60)
    assert [run.state for run in runs] == ["COMPLETED", "OUT_OF_MEMORY", "COMPLETED", "COMPLETED"]


def test_a_function_that_kills_the_interpreter_it_was_forked_from_returns(
    module: Module,
) -> None:
    """At once, too; the next run has a new one."""
    work = module(WAITS)
    sweep = hpcml.Job(work.kill_parent).sweep(number=[1, 1, 1, 1, 2, 1])
    runs = hpcml.submit(sweep, max_running=1).wait(60)  # one slot, as above
    assert [run.state for run in runs] == ["COMPLETED"] * 6, [run.reason for run in runs]
    assert runs.results() == [1, 1, 1, 1, 2, 1]
