"""Runs that are interrupted and started again, through the queue: one run, several attempts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.job import Checkpoint, Job, Resources
from tests.conftest import eventually
from tests.embedded.scene import Scene, small_machine

TRAINERS = """
import json, os, time
import hpcml
from submitit.helpers import Checkpointable, DelayedSubmission

def until_interrupted():
    print("waits", flush=True)
    while True:
        time.sleep(0.01)

class Trainer(Checkpointable):
    "Its first attempt stops after two steps, until it is interrupted."

    def __init__(self, start=0):
        self.steps = [start]

    def __call__(self, steps=4, seed=0):
        hpcml.describe(model="trainer")
        again = len(self.steps) > 1
        with hpcml.phase("train"):
            while len(self.steps) <= steps:
                self.steps.append(self.steps[-1] + 1)
                hpcml.log(step=len(self.steps) - 1, samples=5, loss=1.0)
                if len(self.steps) == 3 and not again:
                    until_interrupted()
        return {"steps": self.steps, "seed": seed, "again": again, "work": os.getcwd()}

class Unwilling(Trainer):
    def checkpoint(self, *args, **kwargs):
        return None

class Clumsy(Trainer):
    def checkpoint(self, *args, **kwargs):
        raise OSError("no space left for the state")

class Slow(Trainer):
    "Takes its time to save, and tells of it."
    def checkpoint(self, *args, **kwargs):
        print("saves", flush=True)
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        return super().checkpoint(*args, **kwargs)

class Insatiable(Trainer):
    def __call__(self):
        until_interrupted()

def told(*args, **kwargs):
    return args, kwargs

class Other(Trainer):
    "Goes on as something else; the method that submitit prefers says so."
    def checkpoint(self, *args, **kwargs):
        raise AssertionError("not this one")

    def __submitit_checkpoint__(self, *args, **kwargs):
        return DelayedSubmission(told, *self.steps, seed=kwargs["seed"])

class Parent(Trainer):
    "Has children that inherit all its handlers, and do not end by a notice."
    def __call__(self, folder):
        if self.steps[0] != 0:
            return self.steps, sorted(os.listdir(folder))
        self.steps = [1]
        for number in range(2):
            if os.fork() == 0:
                open(os.path.join(folder, str(number)), "w").close()
                try:
                    until_interrupted()
                finally:
                    open(os.path.join(folder, "%d was hurt" % number), "w").close()
        until_interrupted()

    def checkpoint(self, *args, **kwargs):
        open(os.path.join(kwargs["folder"], "saved-%d" % os.getpid()), "w").close()
        time.sleep(0.2)  # time for others that would save, too
        return super().checkpoint(*args, **kwargs)

class Network:
    def __init__(self):
        self.model = None

    def __call__(self, checkpointpath):
        if os.path.exists(checkpointpath):
            with open(checkpointpath) as file:
                self.model = json.load(file) + [3]
            return self.model
        self.model = [1, 2]
        until_interrupted()

    def checkpoint(self, checkpointpath):
        with open(checkpointpath, "w") as file:
            json.dump(self.model, file)
        return DelayedSubmission(Network(), checkpointpath)

def counts(steps):
    "No Checkpointable: it asks hpcml."
    state = hpcml.checkpoint()
    step = int(open(state.path).read()) if os.path.exists(state.path) else 0
    if step:
        return step, os.environ["HPCML_INDEX"], os.environ["HPCML_CHECKPOINT"] == state.path
    print("waits", flush=True)
    while not state.requested:
        time.sleep(0.01)
    with open(state.path, "w") as file:
        file.write(str(steps))
    state.requeue()

def deaf(gate):
    print("waits", flush=True)
    while not os.path.exists(gate):
        time.sleep(0.01)
    return "lived"
"""

EARLY = """
import os, time
import hpcml

state = hpcml.checkpoint()  # while it is imported

def counts(steps):
    if os.path.exists(state.path):
        return open(state.path).read()
    print("waits", flush=True)
    while not state.requested:
        time.sleep(0.01)
    with open(state.path, "w") as file:
        file.write("went on")
    state.requeue()
"""


@pytest.fixture
def trainers(script: Callable[..., str], project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's own."""
    return imported(script(TRAINERS, "trainers.py"), project, monkeypatch)


def imported(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, name[:-3], raising=False)
    return importlib.import_module(name[:-3])


def waits(run: hpcml.Run, times: int = 1) -> None:
    """Wait until its function does, and its forks: between a word and its line end others write."""
    eventually(lambda: run.logs(stream="stdout").count("waits") == times or run.state.final)
    assert not run.state.final, f"{run.state}: {run.reason}\n{run.logs()}"


def last_agent(scene: Scene, run: hpcml.Run) -> int:
    """Process id of the agent that has its last attempt."""
    attempts = wire.Attempts(str(scene.batch(run)))
    number = max(attempts.listing()[run.index])
    pid = attempts.read(run.index, number, "start")["owner"]["pid"]
    assert isinstance(pid, int)
    return pid


def interrupt(scene: Scene, run: hpcml.Run, times: int = 1) -> None:
    """As somebody does who needs the machine: USR2 to its agent."""
    waits(run, times)
    os.kill(last_agent(scene, run), signal.SIGUSR2)


def is_one_run_of_two_attempts(run: hpcml.Run) -> None:
    assert run.wait(30).state == "COMPLETED", f"{run.reason}\n{run.logs()}"
    assert [attempt.number for attempt in run.attempts] == [1, 2]
    assert [one.exit_code for one in run.timeline.attempts] == [144, 0]
    assert run.exit_code == 0


# --- submitit's Checkpointable --------------------------------------------------------------------


def by_value() -> Any:
    """An instance of a class that only this process has."""
    from submitit.helpers import Checkpointable

    class Trainer(Checkpointable):  # type: ignore[misc]
        def __init__(self, start: int) -> None:
            self.steps = [start]

        def __call__(self, steps: int = 4, seed: int = 0) -> dict[str, Any]:
            import time

            again = len(self.steps) > 1
            with hpcml.phase("train"):
                while len(self.steps) <= steps:
                    self.steps.append(self.steps[-1] + 1)
                    hpcml.log(step=len(self.steps) - 1, samples=5, loss=1.0)
                    if len(self.steps) == 3 and not again:
                        print("waits", flush=True)
                        while True:
                            time.sleep(0.01)
            return {"steps": self.steps, "seed": seed, "again": again, "work": os.getcwd()}

    return Trainer(10)


@pytest.mark.parametrize("kind", ["by value", "of an importable class"])
def test_a_checkpointable_that_is_interrupted_goes_on_with_its_state(
    kind: str, scene: Scene, trainers: Any
) -> None:
    trainer = by_value() if kind == "by value" else trainers.Trainer(10)
    run = hpcml.submit(Job(trainer, params={"seed": 7}))
    interrupt(scene, run)

    is_one_run_of_two_attempts(run)

    work = str(scene.batch(run) / "0" / "work")
    assert run.result() == {"steps": [10, 11, 12, 13, 14], "seed": 7, "again": True, "work": work}
    assert trainer.steps == [10], "the one here is another"
    assert [point.step for point in run.history("loss")] == [1, 2, 3, 4]
    assert [span.attempt for span in run.timeline.spans if span.name == "train"] == [1, 2]
    assert run.timeline.samples == {"train": 20}
    assert [r.id for r in hpcml.runs()] == [run.id]
    assert not list((scene.batch(run) / "0").glob("*_submitted.pkl")), "the state is of no more use"


@pytest.mark.parametrize("kind", ["by value", "of an importable class"])
def test_points_of_a_sweep_are_interrupted_one_by_one(
    kind: str, scene: Scene, trainers: Any, home: Path
) -> None:
    """They are forked from one warm interpreter; so are their further attempts."""
    trainer = by_value() if kind == "by value" else trainers.Trainer(10)
    sweep = Job(trainer).sweep(seed=[1, 2, 3])
    runs = hpcml.submit(sweep, site=small_machine(home, 1))
    for run in runs:
        interrupt(scene, run)

    for seed, run in enumerate(runs, start=1):
        is_one_run_of_two_attempts(run)
        assert run.result()["steps"] == [10, 11, 12, 13, 14] and run.result()["seed"] == seed
    events = [(scene.batch(run) / str(run.index) / "events.jsonl").read_bytes() for run in runs]
    commands = [e["pid"] for text in events for e in wire.parse_lines(text) if e["e"] == "command"]
    assert len(commands) == 6 and len(set(commands)) == 1, "all by the same warm interpreter"


def test_its_walltime_interrupts_it_by_itself(trainers: Any) -> None:
    """Nobody sends anything: the agent does, half of the walltime before the end at most."""
    run = hpcml.submit(Job(trainers.Trainer(), resources=Resources(time="10s")))

    is_one_run_of_two_attempts(run)
    first = run.timeline.attempts[0].command
    assert first is not None and 4.9 < first < 10.0
    assert run.result()["steps"] == [0, 1, 2, 3, 4]


def test_a_checkpoint_may_go_on_as_something_else(scene: Scene, trainers: Any) -> None:
    run = hpcml.submit(Job(trainers.Other(), params={"seed": 3}))
    interrupt(scene, run)

    is_one_run_of_two_attempts(run)
    assert run.result() == ((0, 1, 2), {"seed": 3})


def test_a_checkpoint_that_returns_none_ends_the_run(scene: Scene, trainers: Any) -> None:
    run = hpcml.submit(Job(trainers.Unwilling()))
    interrupt(scene, run)

    assert run.wait(30).state == "FAILED"
    reason = "it was asked to save its state, and its checkpoint method returned None"
    assert run.reason == reason and len(run.attempts) == 1
    assert type(run.exception()).__name__ == "UncompletedJobError"


def test_a_checkpoint_that_returns_none_at_the_end_of_the_walltime(trainers: Any) -> None:
    run = hpcml.submit(Job(trainers.Unwilling(), resources=Resources(time="10s")))

    assert run.wait(30).state == "TIMEOUT"
    assert run.reason == "its walltime was over, and its checkpoint method returned None"


def test_a_checkpoint_that_raises_is_the_reason(scene: Scene, trainers: Any) -> None:
    run = hpcml.submit(Job(trainers.Clumsy()))
    interrupt(scene, run)

    assert run.wait(30).state == "FAILED" and len(run.attempts) == 1
    assert run.reason == "OSError: no space left for the state"
    with pytest.raises(OSError, match="no space left for the state"):
        run.result()


@pytest.mark.parametrize("count", [1, 2])
def test_one_that_is_asked_again_while_it_saves_saves_once(
    count: int, scene: Scene, trainers: Any, home: Path
) -> None:
    """As when the walltime's end comes near while somebody needs the machine."""
    job = Job(trainers.Slow(), env={"GATE": str(scene.gate())})
    runs = hpcml.submit(job.sweep(seed=[1, 2][:count]), site=small_machine(home, 1))
    interrupt(scene, runs[0])
    eventually(lambda: "saves" in runs[0].logs())
    events = scene.batch(runs[0]) / "0" / "events.jsonl"
    os.kill(last_agent(scene, runs[0]), signal.SIGUSR2)
    eventually(lambda: events.read_bytes().count(b'"signal": 12') == 2)
    scene.open()

    is_one_run_of_two_attempts(runs[0])
    assert runs[0].result()["steps"] == [0, 1, 2, 3, 4]
    assert runs[0].logs().count("saves") == 1


@pytest.mark.parametrize("requeues", [0, 1])
def test_one_that_is_interrupted_too_often_has_failed(
    requeues: int, scene: Scene, trainers: Any
) -> None:
    run = hpcml.submit(Job(trainers.Insatiable(), checkpoint=Checkpoint(requeues=requeues)))
    for number in range(requeues + 1):
        interrupt(scene, run, number + 1)

    assert run.wait(30).state == "FAILED"
    assert (
        run.reason
        == f"it asked to be requeued once more, and Checkpoint(requeues={requeues}) is used up"
    )
    assert len(run.attempts) == requeues + 1


def test_one_whose_last_walltime_is_over_has_timed_out(trainers: Any) -> None:
    job = Job(trainers.Insatiable(), checkpoint=Checkpoint(requeues=0))
    run = hpcml.submit(job, resources=Resources(time="10s"))

    assert run.wait(30).state == "TIMEOUT"
    assert run.reason == "its walltime was over, and it may not be requeued once more"


@pytest.mark.parametrize("count", [1, 2])
def test_its_children_neither_save_nor_die(
    count: int, scene: Scene, trainers: Any, home: Path
) -> None:
    """Of a single run, and of runs that are forks themselves."""
    folders = [scene.folder / f"children-{number}" for number in range(count)]
    for folder in folders:
        folder.mkdir()
    sweep = Job(trainers.Parent()).sweep(folder=[str(folder) for folder in folders])
    for run in hpcml.submit(sweep, site=small_machine(home, 1)):
        waits(run, 3)
        os.kill(last_agent(scene, run), signal.SIGUSR2)

        is_one_run_of_two_attempts(run)
        steps, seen = run.result()
        assert steps == [1]
        assert [name.partition("-")[0] for name in seen] == ["0", "1", "saved"]


def test_the_state_may_lie_in_a_file_of_its_own(scene: Scene, trainers: Any) -> None:
    """As submitit's page on checkpointing advises for models.

    Its example does not run as it is printed (the model is an ellipsis), so that a class of the
    same shape stands for it: it dumps its model, and goes on as a new and empty instance.
    """
    run = hpcml.submit(Job(trainers.Network(), params={"checkpointpath": "model.json"}))
    interrupt(scene, run)

    is_one_run_of_two_attempts(run)
    assert run.result() == [1, 2, 3]


def test_submitits_own_sequence_of_functions_goes_on_where_it_was(
    scene: Scene, trainers: Any
) -> None:
    """The checkpointable callable that submitit itself has, and names as its basic example."""
    from submitit.helpers import FunctionSequence

    sequence = FunctionSequence(verbose=True)
    sequence.add(trainers.told, 1)
    sequence.add(trainers.deaf, str(scene.gate()))
    sequence.add(trainers.told, 3)
    run = hpcml.submit(Job(sequence))
    interrupt(scene, run)
    waits(run, 2)
    scene.open()

    is_one_run_of_two_attempts(run)
    assert run.result() == [((1,), {}), "lived", ((3,), {})]
    assert "Starting from 1/3" in run.logs()


# --- functions that are no Checkpointable ---------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_function_asks_hpcml(count: int, scene: Scene, trainers: Any, home: Path) -> None:
    sweep = Job(trainers.counts, checkpoint=Checkpoint("state")).sweep(steps=[5, 6][:count])
    for index, run in enumerate(hpcml.submit(sweep, site=small_machine(home, 1))):
        interrupt(scene, run)

        is_one_run_of_two_attempts(run)
        assert run.result() == (5 + index, str(index), True)


def test_a_function_whose_module_asks_while_it_is_imported_is_told(
    scene: Scene, script: Callable[..., str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = imported(script(EARLY, "early.py"), project, monkeypatch)
    sweep = Job(early.counts, checkpoint=Checkpoint()).sweep(steps=[1, 2])
    for run in hpcml.submit(sweep):
        interrupt(scene, run)

        is_one_run_of_two_attempts(run)
        assert run.result() == "went on"


@pytest.mark.parametrize("checkpoint", [None, Checkpoint()])
def test_a_function_that_knows_nothing_of_it_is_not_hurt(
    checkpoint: Checkpoint | None, scene: Scene, trainers: Any
) -> None:
    params = {"gate": str(scene.gate())}
    run = hpcml.submit(Job(trainers.deaf, params=params, checkpoint=checkpoint))
    interrupt(scene, run)
    events = scene.batch(run) / "0" / "events.jsonl"
    eventually(lambda: b'"signal"' in events.read_bytes())
    scene.open()

    assert run.result(30) == "lived" and len(run.attempts) == 1
