"""Kill anything while a run is started again: each attempt runs once, and none is lost.

The agent stops itself (SIGSTOP) at a given moment, once. What happens to it there is the test's.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.job import Checkpoint
from hpcml.run import as_data
from tests.conftest import eventually
from tests.embedded.scene import Scene, kill, small_machine

AGENT = """
import os, signal, sys
library, mark, moment = sys.argv[1:4]
sys.path.insert(0, library)
from hpcml.agent import main, wire

def reach(now):
    if now == moment:
        try:
            descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        os.kill(os.getpid(), signal.SIGSTOP)

write = wire.Attempts._write
def hooked(self, index, number, kind, facts):
    reach("before %d.%d.%s" % (index, number, kind))
    done = write(self, index, number, kind, facts)
    reach("after %d.%d.%s" % (index, number, kind))
    return done
wire.Attempts._write = hooked
sys.exit(main.main(sys.argv[4:]))
"""

TWICE = [
    'if [ -e state ]; then echo "$HPCML_INDEX-second" >> "$LEDGER"; exit 0; fi',
    'echo "$HPCML_INDEX-first" >> "$LEDGER"; touch state; exit 144',
]


class Stopping:
    """Runs whose agent stops at a moment, such as ``after 0.1.end``."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.mark = scene, scene.folder / "stopped"

    def submit(self, job: hpcml.Job | hpcml.Sweep, moment: str, site: str = "local") -> hpcml.Runs:
        """Put it into the queue, and start the queue."""
        runs = hpcml.submit([job], site=site)
        batch = self.scene.batch(runs[0])
        hook = self.scene.folder / "agent.py"
        hook.write_text(AGENT)
        (library,) = (self.scene.workspace / "lib").glob("hpcml-*.pyz")
        argv = [sys.executable, "-I", "-S", str(hook), str(library), str(self.mark), moment, "run"]
        (batch / "job.sh").write_text(f'exec {shlex.join(argv)} "$@"\n')
        self.serve()
        return runs

    def serve(self) -> None:
        """Start a dispatcher, or wake the one there is."""
        argv = self.scene.agent_argv("dispatch", str(self.scene.workspace))
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

    def agent(self) -> int:
        """Process id of the agent, once it has stopped."""
        eventually(lambda: self.mark.exists() and self.mark.read_text())
        pid = int(self.mark.read_text())
        eventually(
            lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        )
        return pid

    def go_on(self) -> None:
        os.kill(self.agent(), signal.SIGCONT)


@pytest.fixture
def stopping(scene: Scene, unserved: None) -> Stopping:
    return Stopping(scene)


def twice(scene: Scene, **fields: object) -> hpcml.Job:
    """A job of two attempts."""
    return dataclasses.replace(scene.job(*TWICE), checkpoint=Checkpoint(), **fields)


def numbers(run: hpcml.Run) -> list[int]:
    return [attempt.number for attempt in run.attempts]


def all_is_quiet(scene: Scene) -> None:
    eventually(lambda: not scene.dispatchers() and not scene.queue() and not scene.agents())


def counter() -> object:
    """A Checkpointable that asks itself to save its state once, and counts its attempts."""
    from submitit.helpers import Checkpointable

    class Counter(Checkpointable):  # type: ignore[misc]
        def __init__(self) -> None:
            self.attempts: list[int] = []

        def __call__(self, n: int) -> list[int]:
            self.attempts.append(len(self.attempts) + 1)
            with open(os.environ["LEDGER"], "a") as ledger:
                ledger.write(f"{n}-{len(self.attempts)}\n")
            if len(self.attempts) == 1:
                os.kill(os.getpid(), signal.SIGUSR2)
            return self.attempts

    return Counter()


# --- the agent is killed --------------------------------------------------------------------------

KILLED = ("FAILED", "its agent was killed by signal 9")
DONE = ("COMPLETED", "")


@pytest.mark.parametrize(
    ("moment", "ended", "ran"),
    [
        ("after 0.1.start", KILLED, []),
        ("before 0.1.end", KILLED, ["0-first"]),
        ("after 0.1.end", DONE, ["0-first", "0-second"]),
        ("before 0.2.start", DONE, ["0-first", "0-second"]),
        ("after 0.2.start", KILLED, ["0-first"]),
        ("before 0.2.end", KILLED, ["0-first", "0-second"]),
        ("after 0.2.end", DONE, ["0-first", "0-second"]),
    ],
)
@pytest.mark.parametrize("dispatcher", ["lives", "is killed, too"])
def test_an_agent_that_is_killed(
    moment: str,
    ended: tuple[str, str],
    ran: list[str],
    dispatcher: str,
    scene: Scene,
    stopping: Stopping,
) -> None:
    """Between two attempts it is replaced; within one, that is lost with it, and said so."""
    (run,) = stopping.submit(twice(scene), moment)
    agent = stopping.agent()
    if dispatcher == "lives":
        kill(agent)
    else:
        kill(*scene.dispatchers())
        kill(agent)
        stopping.serve()

    run.wait(30)
    all_is_quiet(scene)

    reason = run.reason
    if dispatcher != "lives" and ended == KILLED:
        ended = ("FAILED", "its agent ended without a word")
    assert (str(run.state), reason) == ended
    assert scene.lines() == ran
    assert numbers(run) == [1, 2][: max(len(ran), int(moment[-5 if "end" in moment else -7]))]
    assert hpcml.attach(run.id).state == run.state


def test_a_dispatcher_that_is_killed_meanwhile_is_not_missed(
    scene: Scene, stopping: Stopping
) -> None:
    (run,) = stopping.submit(twice(scene), "after 0.1.end")
    stopping.agent()
    kill(scene.dispatcher())
    stopping.serve()
    stopping.go_on()

    assert run.wait(30).state == "COMPLETED" and numbers(run) == [1, 2]
    all_is_quiet(scene)
    assert scene.lines() == ["0-first", "0-second"]


def test_of_a_sweep_the_others_go_on_and_the_run_too(
    scene: Scene, stopping: Stopping, home: Path
) -> None:
    """One agent had them all; the next takes the requeued run and those that nobody has taken."""
    sweep = twice(scene).sweep(n=[0, 1, 2])
    runs = stopping.submit(sweep, "after 1.1.end", site=small_machine(home, 1))
    kill(stopping.agent())

    runs.wait(30)
    assert [(str(run.state), numbers(run)) for run in runs] == [("COMPLETED", [1, 2])] * 3
    all_is_quiet(scene)
    ran = [f"{index}-{which}" for index in range(3) for which in ("first", "second")]
    assert sorted(scene.lines()) == ran


def test_the_state_of_a_function_survives_its_agent(
    scene: Scene, stopping: Stopping, project: Path, home: Path
) -> None:
    """The first attempt was a fork of one warm interpreter, the second is one of another."""
    sweep = hpcml.Job(counter(), env={"LEDGER": str(scene.ledger)}).sweep(n=[0, 1])
    runs = stopping.submit(sweep, "after 0.1.end", site=small_machine(home, 1))
    kill(stopping.agent())

    runs.wait(30)
    all_is_quiet(scene)
    assert [run.result() for run in runs] == [[1, 2], [1, 2]]
    assert scene.lines() == ["0-1", "0-2", "1-1", "1-2"]


# --- who looks meanwhile --------------------------------------------------------------------------

WATCH = """
import sys
import hpcml
run = hpcml.attach(sys.argv[1])
print(run.state, flush=True)
print(run.wait(60).state, len(run.attempts), run.exit_code)
"""


def test_who_looks_between_two_attempts_sees_no_end(scene: Scene, stopping: Stopping) -> None:
    (run,) = stopping.submit(twice(scene), "after 0.1.end")
    stopping.agent()
    argv = [sys.executable, "-c", WATCH, run.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "PENDING\n"

        assert (run.state, run.exit_code, numbers(run)) == ("PENDING", None, [1])
        assert run.reason == "it left a checkpoint, and starts again"
        assert as_data(run)["exit_code"] is None and as_data(run)["attempts"] == 1
        assert not run.wait(0.2).state.final
        stopping.go_on()

        assert other.stdout.read() == "COMPLETED 2 0\n"
    assert run.wait(30).state == "COMPLETED"


def test_a_run_after_it_waits_for_its_last_attempt(scene: Scene, stopping: Stopping) -> None:
    (run,) = stopping.submit(twice(scene), "after 0.1.end")
    stopping.agent()
    later = hpcml.submit(scene.job(name="later"), after=run)
    kill(*scene.dispatchers())  # the next one knows the files alone
    stopping.serve()
    eventually(lambda: later.state == "PENDING")
    assert scene.lines() == ["0-first"]
    stopping.go_on()

    assert later.wait(30).state == "COMPLETED" and run.state == "COMPLETED"
    assert scene.lines() == ["0-first", "0-second", "later"]


# --- cancelled ------------------------------------------------------------------------------------


def test_cancelled_between_two_attempts_there_is_no_further_one(
    scene: Scene, stopping: Stopping
) -> None:
    (run,) = stopping.submit(twice(scene), "after 0.1.end")
    stopping.agent()
    run.cancel()
    assert run.state == "CANCELLED", "at once: nobody needs to be asked"
    stopping.go_on()

    all_is_quiet(scene)
    assert (run.state, scene.lines()) == ("CANCELLED", ["0-first"])


def test_cancelled_just_before_it_asks_to_go_on_it_does_not(
    scene: Scene, stopping: Stopping, home: Path
) -> None:
    """The command has left with 144 already; the next run of the same agent is not concerned."""
    runs = stopping.submit(
        twice(scene).sweep(n=[0, 1]), "before 0.1.end", site=small_machine(home, 1)
    )
    stopping.agent()
    runs[0].cancel()
    stopping.go_on()

    runs.wait(30)
    all_is_quiet(scene)
    assert [str(run.state) for run in runs] == ["CANCELLED", "COMPLETED"]
    assert scene.lines() == ["0-first", "1-first", "1-second"]


def test_cancelled_when_the_next_attempt_has_just_been_taken_that_one_ends(
    scene: Scene, stopping: Stopping
) -> None:
    commands = ["if [ -e state ]; then exec sleep 60; fi; touch state; exit 144"]
    job = dataclasses.replace(scene.job(*commands), checkpoint=Checkpoint())
    (run,) = stopping.submit(job, "after 0.2.start")
    stopping.agent()
    run.cancel()
    stopping.go_on()

    assert run.wait(30).state == "CANCELLED" and run.reason == "cancelled while it ran"
    assert numbers(run) == [1, 2]


def test_who_answers_a_cancel_with_a_checkpoint_is_cancelled(scene: Scene) -> None:
    commands = ["trap 'exit 144' TERM", 'echo up >> "$LEDGER"', "while :; do sleep 0.02; done"]
    job = dataclasses.replace(scene.job(*commands), checkpoint=Checkpoint())
    run = hpcml.submit(job)
    eventually(lambda: scene.lines() == ["up"])
    run.cancel()

    assert run.wait(30).state == "CANCELLED" and run.exit_code == 144
    all_is_quiet(scene)
    assert scene.lines() == ["up"] and numbers(run) == [1]


def test_an_agent_that_is_told_to_end_between_two_attempts_leaves_the_run_to_the_next(
    scene: Scene, stopping: Stopping
) -> None:
    """TERM without a cancel is for the agent: the run has asked to go on, and does."""
    (run,) = stopping.submit(twice(scene), "after 0.1.end")
    os.kill(stopping.agent(), signal.SIGTERM)
    stopping.go_on()

    assert run.wait(30).state == "COMPLETED" and numbers(run) == [1, 2]
    start = wire.Attempts(str(scene.batch(run))).read(0, 2, "start")
    assert start["owner"]["pid"] != stopping.mark.read_text()
    assert scene.lines() == ["0-first", "0-second"]
