"""Leaving with exit code 144 and being started again: scripts, and how such runs end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcml.agent import wire
from hpcml.job import Checkpoint, Job
from hpcml.timeline import tell
from tests.agent.direct import Agent, Attempt, command, gone, publish
from tests.conftest import eventually

ONCE = Checkpoint("state", requeues=1)
# Its walltime is announced 0.1 s after the start: before most commands listen.
SOON = {"time": 30.0, "notice": 29.9}


def ends(batch: Path, index: int = 0) -> list[dict[str, Any]]:
    """The records of a run's attempts, in order."""
    attempts = wire.Attempts(str(batch))
    numbers = attempts.listing()[index]
    return [attempts.read(index, number, "end") for number in sorted(numbers)]


def judged(batch: Path) -> tuple[str, str]:
    """State and reason as the last attempt says."""
    found = wire.how_it_ended(ends(batch)[-1], None, 1e9)
    assert found is not None
    return found


def execute(job: Job, **limits: Any) -> Attempt:
    return Agent(publish(job, **limits)).wait()


def shell(*lines: str, checkpoint: Checkpoint | None = ONCE, **fields: Any) -> Job:
    return command("/bin/sh", "-c", "\n".join(lines), checkpoint=checkpoint, **fields)


# --- going on -------------------------------------------------------------------------------------


COUNT = """
import os, sys, time
import hpcml

state = hpcml.checkpoint()
step = int(open(state.path).read()) if os.path.exists(state.path) else 0
print(os.environ["HPCML_INDEX"], os.environ["HPCML_RUN_ID"], os.environ["HPCML_CHECKPOINT"])
hpcml.describe(model="counter")
with hpcml.phase("train"):
    hpcml.log(step=step, samples=10, loss=1.0 / (1 + step))
    while step < 2:
        if state.requested:
            with open(state.path, "w") as file:
                file.write(str(step + 1))
            state.requeue()
        time.sleep(0.01)
"""


def test_a_script_is_told_saves_and_goes_on_until_it_is_done(script: Callable[..., str]) -> None:
    """Three attempts of one run, in one folder, with the same environment."""
    job = Job(script(COUNT), checkpoint=Checkpoint("deep/state", requeues=2))
    script("", "deep/here")

    ended = execute(job, **SOON)

    assert [end["exit_code"] for end in ends(ended.batch)] == [144, 144, 0]
    assert judged(ended.batch) == ("COMPLETED", "")
    assert ended.code == 0
    said = ended.stdout.splitlines()
    assert len(said) == 3 and len(set(said)) == 1
    path = said[0].split()[2]
    assert path == str(ended.work / "deep" / "state") and Path(path).read_text() == "2"
    story = tell(ended.events, None)
    assert [one.exit_code for one in story.timeline.attempts] == [144, 144, 0]
    assert [one.number for one in story.timeline.attempts] == [1, 2, 3]
    assert [span.attempt for span in story.timeline.spans if span.name == "train"] == [1, 2, 3]
    assert [point.step for point in story.history["loss"]] == [0, 1, 2]
    assert story.timeline.samples == {"train": 30}
    assert story.described == {"model": "counter"}


SHELL = [
    'if [ -e "$HPCML_CHECKPOINT" ]; then cat "$HPCML_CHECKPOINT"; exit 0; fi',
    "trap 'echo saved > \"$HPCML_CHECKPOINT\"; exit 144' USR2",
    "sleep 60 &",
    "wait",
]


def test_a_shell_script_traps_the_notice_and_goes_on() -> None:
    """The child that it waits for has no handler, and is not killed by the notice."""
    ended = execute(shell(*SHELL), **SOON)

    assert judged(ended.batch) == ("COMPLETED", "") and ended.stdout == "saved\n"
    assert [end["exit_code"] for end in ends(ended.batch)] == [144, 0]
    assert "leftovers" in [event["e"] for event in ended.events], "the sleeping child was ended"


def test_a_notice_waits_until_the_job_listens(tmp_path: Path) -> None:
    """Sent while the command was still starting, by hand as well as before the walltime."""
    gate = tmp_path / "gate"
    late = [f'echo up; while [ ! -e "{gate}" ]; do sleep 0.01; done', "echo listens", *SHELL]
    agent = Agent(publish(shell(*late)))
    agent.await_line("up")
    agent.send(signal.SIGUSR2)
    heard = agent.batch / "0" / "events.jsonl"
    eventually(lambda: '"signal"' in heard.read_text())
    gate.touch()

    ended = agent.wait()

    assert judged(ended.batch) == ("COMPLETED", "")
    assert [end["exit_code"] for end in ends(ended.batch)] == [144, 0]


def test_a_notice_that_was_heard_is_not_repeated() -> None:
    job = shell(
        "trap 'echo told' USR2",
        "echo up",
        "for i in $(seq 150); do sleep 0.01; done",
    )
    agent = Agent(publish(job))
    agent.await_line("up")
    agent.send(signal.SIGUSR2)

    assert agent.wait().stdout == "up\ntold\n"


def test_who_does_not_know_the_notice_is_not_hurt_by_it(script: Callable[..., str]) -> None:
    """A script with workers, none of which listens; a job that has no checkpoint; they end well."""
    code = """
    import multiprocessing, sys, time
    def work(number):
        time.sleep(0.8)
        return number
    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            print(pool.map(work, [1, 2]))
    """
    script(code)
    for checkpoint in (ONCE, None):
        job = Job("train.py", args=["fork"], checkpoint=checkpoint)
        ended = execute(job, **SOON)
        assert ended.event("notice") and judged(ended.batch) == ("COMPLETED", "")
        assert ended.stdout == "[1, 2]\n", ended.stderr


# --- the last attempt -----------------------------------------------------------------------------


def test_exit_code_144_of_a_job_without_a_checkpoint_is_a_failure() -> None:
    ended = execute(shell("exit 144", checkpoint=None))

    assert judged(ended.batch) == ("FAILED", "exit code 144") and ended.code == 144
    assert len(ends(ended.batch)) == 1


def test_a_run_that_asks_too_often_has_failed() -> None:
    ended = execute(shell("echo once more", "exit 144"))

    reason = "it asked to be requeued once more, and Checkpoint(requeues=1) is used up"
    assert judged(ended.batch) == ("FAILED", reason)
    assert ended.stdout == "once more\n" * 2 and ended.code == 144
    assert ["requeue" in end for end in ends(ended.batch)] == [True, False]


def test_a_run_whose_last_walltime_is_over_has_timed_out() -> None:
    """It was told, and saved; but nobody starts it again."""
    job = shell("trap 'exit 144' USR2; sleep 60 & wait", checkpoint=Checkpoint(requeues=1))

    ended = execute(job, **SOON)

    reason = "its walltime was over, and it may not be requeued once more"
    assert judged(ended.batch) == ("TIMEOUT", reason)
    assert len(ends(ended.batch)) == 2


def test_who_leaves_with_144_too_late_has_timed_out() -> None:
    job = shell("trap 'exit 144' TERM; echo up; while :; do sleep 0.05; done")

    ended = execute(job, time=3, notice=0)

    assert judged(ended.batch) == ("TIMEOUT", "walltime of 3 s is over")
    assert ends(ended.batch)[0]["exit_code"] == 144 and len(ends(ended.batch)) == 1


def test_an_attempt_that_was_told_to_end_is_not_started_again() -> None:
    """TERM to the agent, which the command answers with exit code 144."""
    agent = Agent(publish(shell("trap 'exit 144' TERM; echo up; while :; do sleep 0.05; done")))
    agent.await_line("up")
    agent.send(signal.SIGTERM)

    ended = agent.wait()

    assert judged(ended.batch)[0] == "FAILED" and len(ends(ended.batch)) == 1


def test_outputs_are_digested_when_the_last_attempt_has_ended() -> None:
    lines = ["if [ -e state ]; then echo last > out; exit 0; fi; echo first > out; touch state"]
    ended = execute(shell(*lines, "exit 144", outputs=["out"]))

    first, last = ends(ended.batch)
    assert first["outputs"] == {}
    assert last["outputs"]["out"]["sha256"] == wire.sha256(b"last\n")


def test_an_output_that_only_an_earlier_attempt_made_counts_if_it_is_there() -> None:
    """The folder is one; what matters is what lies there in the end."""
    kept = "if [ -e state ]; then exit 0; fi; touch state out; exit 144"
    removed = "if [ -e state ]; then rm out; exit 0; fi; touch state out; exit 144"

    assert judged(execute(shell(kept, outputs=["out"])).batch)[0] == "COMPLETED"
    state, reason = judged(execute(shell(removed, outputs=["out"])).batch)
    assert state == "FAILED" and "without its output" in reason


def test_a_folder_as_checkpoint_survives_to_the_next_attempt() -> None:
    lines = [
        'cd "$HPCML_CHECKPOINT" 2>/dev/null && { cat a b; exit 0; }',
        'mkdir -p "$HPCML_CHECKPOINT"; cd "$HPCML_CHECKPOINT"; echo 1 > a; echo 2 > b; exit 144',
    ]
    ended = execute(shell(*lines, checkpoint=Checkpoint("states/now")))

    assert ended.stdout == "1\n2\n" and judged(ended.batch)[0] == "COMPLETED"


def test_what_an_attempt_leaves_running_does_not_disturb_the_next() -> None:
    lines = [
        "if [ -e pid ]; then kill -0 $(cat pid) 2>/dev/null && echo lives; exit 0; fi",
        "setsid sleep 60 & echo $! > pid; exit 144",
    ]
    ended = execute(shell(*lines))

    assert ended.stdout == "" and gone([int((ended.work / "pid").read_text())])


# --- several runs, several agents -----------------------------------------------------------------


def test_of_agents_that_find_a_run_to_be_started_again_one_does_it() -> None:
    """As after the death of the agent that had the first attempt."""
    batch = publish(shell("echo ran; exit 0"))
    attempts = wire.Attempts(str(batch))
    assert attempts.start(0, 1)
    facts = {"exit_code": 144, "signal": None, "received": [], "cause": None, "reason": None}
    attempts.end(0, 1, requeue=True, **facts)

    agents = [Agent(batch) for _ in range(3)]
    codes = [agent.wait().code for agent in agents]

    assert codes == [0, 0, 0]
    assert (batch / "0" / "stdout").read_text() == "ran\n"
    assert sorted(os.listdir(batch / "attempts")) == [
        "0.1.end",
        "0.1.start",
        "0.2.end",
        "0.2.start",
    ]


@pytest.mark.parametrize("missing", ["start", "end"])
def test_an_attempt_that_somebody_has_is_left_alone(missing: str) -> None:
    """A second attempt that was taken, and one that has ended for good."""
    batch = publish(shell("echo ran"))
    attempts = wire.Attempts(str(batch))
    facts = {"exit_code": 144, "signal": None, "received": [], "cause": None, "reason": None}
    assert attempts.start(0, 1) and attempts.end(0, 1, requeue=True, **facts)
    assert attempts.start(0, 2)
    if missing == "start":
        attempts.end(0, 2, **{**facts, "exit_code": 0})
    before = sorted(os.listdir(batch / "attempts"))

    ended = Agent(batch).wait()

    assert ended.code == 0 and sorted(os.listdir(batch / "attempts")) == before
    assert not (batch / "0").exists()
