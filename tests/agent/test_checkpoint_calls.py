"""Saving on request, and being started again: ``hpcml.checkpoint()`` in a run and outside."""

from __future__ import annotations

import signal
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import injob
from hpcml.agent import wire
from hpcml.job import Checkpoint, Job
from tests.agent.direct import Agent, Attempt, publish
from tests.agent.pythons import pythons

PYTHONS = pythons()
CHECKPOINT = Checkpoint("states/last", requeues=1)
every_python = pytest.mark.parametrize("version", PYTHONS)

PRELUDE = """
import os, signal, sys, threading
import hpcml

def ask():
    os.kill(os.getpid(), signal.SIGUSR2)
    return state.requested
"""


@pytest.fixture(autouse=True)
def fresh(home: Path) -> Iterator[None]:
    """This process is in no run and has asked for no checkpoint."""
    injob.bind()
    yield
    injob.bind()


def job(
    script: Callable[..., str],
    code: str,
    checkpoint: Checkpoint | None = CHECKPOINT,
    **options: Any,
) -> Attempt:
    """Execute a script that has imported hpcml."""
    entry = script(PRELUDE + textwrap.dedent(code))
    python = options.get("python")
    batch = publish(Job(entry, checkpoint=checkpoint), **options)
    return Agent(batch, **({"python": python} if python else {})).wait()


# --- outside a run --------------------------------------------------------------------------------


def test_outside_a_run_it_is_a_path_and_nothing_is_requested(project: Path) -> None:
    before = signal.getsignal(signal.SIGUSR2)

    state = hpcml.checkpoint()

    assert (state.path, state.requested) == ("checkpoint", False)
    assert hpcml.checkpoint() is state
    assert hpcml.checkpoint("elsewhere.pt").path == "elsewhere.pt"
    assert signal.getsignal(signal.SIGUSR2) == before and list(project.iterdir()) == []


def test_outside_a_run_a_requeue_is_an_error_that_says_why() -> None:
    with pytest.raises(RuntimeError, match="nothing would start this again"):
        hpcml.checkpoint().requeue()


def test_outside_a_run_any_thread_may_call_it() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(hpcml.checkpoint().path))
    thread.start()
    thread.join()

    assert found == ["checkpoint"]


# --- in a run -------------------------------------------------------------------------------------


def test_a_run_without_a_checkpoint_is_never_asked(script: Callable[..., str]) -> None:
    code = """
    state = hpcml.checkpoint("mine")
    print(state.path, state.requested, signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL)
    try:
        state.requeue()
    except RuntimeError as error:
        print(str(error)[:35])
    """
    ended = job(script, code, checkpoint=None)

    assert ended.stdout == "mine False True\nnothing would start this again: it \n"


INTERRUPTED = """
os.chdir("/")
state = hpcml.checkpoint()
assert hpcml.checkpoint("other") is state
if os.path.exists(state.path):
    print("went on from", open(state.path).read())
    sys.exit()
print(state.path, state.requested, ask())
os.makedirs(os.path.dirname(state.path))
with open(state.path, "w") as file:
    file.write("step 3")
print("saved", flush=True)
state.requeue()
"""


@every_python
def test_a_run_that_is_asked_saves_and_leaves_with_144_under(
    version: str, script: Callable[..., str]
) -> None:
    ended = job(script, INTERRUPTED, python=PYTHONS[version])

    path = ended.work / "states" / "last"
    assert ended.stdout.startswith(f"{path} False True\nsaved\n"), ended.stderr
    assert ended.event("end")["exit_code"] == wire.REQUEUE
    assert path.read_text() == "step 3"


def test_where_the_agent_says_the_path_no_plan_is_read(script: Callable[..., str]) -> None:
    """Somebody else may have moved it: what the environment says is what shell scripts see."""
    code = """
    os.environ["HPCML_CHECKPOINT"] = "/somewhere/state"
    os.environ["HPCML_POINT"] = "no number: reading the run's files would fail"
    state = hpcml.checkpoint()
    print(state.path, ask())
    """
    ended = job(script, code)

    assert ended.stdout == "/somewhere/state True\n", ended.stderr


def test_where_the_environment_says_nothing_the_plan_does(script: Callable[..., str]) -> None:
    code = """
    os.environ.pop("HPCML_CHECKPOINT", None)
    state = hpcml.checkpoint()
    print(state.path, ask())
    """
    ended = job(script, code)

    assert ended.stdout == f"{ended.work / 'states/last'} True\n", ended.stderr


def test_a_signal_that_the_agent_gets_asks_the_job(script: Callable[..., str]) -> None:
    """As from a scheduler that announces the end by itself."""
    code = """
    import time
    state = hpcml.checkpoint()
    print("ready", flush=True)
    while not state.requested:
        time.sleep(0.01)
    print("asked")
    """
    batch = publish(Job(script(PRELUDE + textwrap.dedent(code)), checkpoint=CHECKPOINT))
    agent = Agent(batch)
    agent.await_line("ready")
    agent.send(signal.SIGUSR2)

    assert agent.wait().stdout == "ready\nasked\n"


def test_a_handler_that_was_there_before_is_called_too(script: Callable[..., str]) -> None:
    code = """
    signal.signal(signal.SIGUSR2, lambda number, frame: print("theirs", number))
    state = hpcml.checkpoint()
    print(ask())
    """
    ended = job(script, code)

    assert ended.stdout == f"theirs {signal.SIGUSR2.value}\nTrue\n"


@pytest.mark.parametrize("before", ["SIG_IGN", "SIG_DFL"])
def test_what_was_ignored_or_deadly_before_only_asks(
    script: Callable[..., str], before: str
) -> None:
    code = f"""
    signal.signal(signal.SIGUSR2, signal.{before})
    state = hpcml.checkpoint()
    print(ask())
    """
    assert job(script, code).stdout == "True\n"


def test_a_thread_gets_it_after_the_main_thread_only(script: Callable[..., str]) -> None:
    code = """
    def look():
        try:
            found = hpcml.checkpoint()
            print(found.path == state.path, found.requested)
            found.requeue()
        except RuntimeError as error:
            print(error)
    def in_a_thread():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    in_a_thread()
    state = hpcml.checkpoint()
    ask()
    in_a_thread()
    """
    ended = job(script, code)

    first, second, third = ended.stdout.splitlines()
    assert first.endswith("call it first in the main thread")
    assert second == "True True"
    assert third == "requeue() would end this thread alone: call it in the main thread"


def test_a_forked_child_that_is_asked_asks_nobody_else(script: Callable[..., str]) -> None:
    """As the workers of a DataLoader are, when the agent signals all who listen."""
    code = """
    state = hpcml.checkpoint()
    pid = os.fork()
    if pid == 0:
        os._exit(ask())
    print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]), state.requested, ask())
    """
    assert job(script, code).stdout == "1 False True\n"
