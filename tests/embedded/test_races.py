"""Races and deaths: the first one wins, for ever, and the next one goes on from the files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml import submission
from hpcml.agent import wire
from hpcml.batch import Batch
from hpcml.connection import Connection
from tests.conftest import eventually
from tests.embedded.scene import RECORD, Scene, kill, small_machine, write_profile


def at_once(count: int, argv: list[str], cwd: Path) -> list[int]:
    """Start a command several times behind one barrier; exit codes in order."""
    reader, writer = os.pipe()
    waiting = ["/bin/sh", "-c", 'read go; exec "$@"', "sh", *argv]
    started = [subprocess.Popen(waiting, cwd=cwd, stdin=reader) for _ in range(count)]
    os.close(reader)
    os.close(writer)
    return [process.wait(30) for process in started]


def published(scene: Scene, job: hpcml.Job, monkeypatch: pytest.MonkeyPatch) -> hpcml.Run:
    """A run whose batch lies on the site, and that the queue was never asked to take."""

    def no_queue(batch: Batch, connection: Connection, **how: bool) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(submission, "queue", no_queue)
        return hpcml.submit(job)


def state_elsewhere(
    another_python: Callable[..., subprocess.CompletedProcess[str]], run: hpcml.Run
) -> str:
    """The run's state as a fresh Python sees it."""
    done = another_python(f"import hpcml; print(hpcml.attach({run.id!r}).state)")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- agents -------------------------------------------------------------------------------


def test_of_eight_agents_that_race_for_a_run_one_executes_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = published(scene, scene.job(RECORD, "exit 3"), monkeypatch)

    codes = at_once(8, scene.agent_argv("run", "0"), scene.batch(run))

    assert sorted(codes) == [0] * 7 + [3]
    assert scene.lines() == ["ran"]
    assert run.state == "FAILED" and run.exit_code == 3
    assert wire.Attempts(str(scene.batch(run))).listing() == {0: {1: {"start", "end"}}}


def _take_all(folder: str, barrier: object, won: object) -> None:
    attempts = wire.Attempts(folder)
    for index in range(100):
        barrier.wait()  # type: ignore[attr-defined]
        if attempts.start(index, 1):
            won.put((index, os.getpid()))  # type: ignore[attr-defined]


def test_of_eight_that_take_an_attempt_in_the_same_moment_one_gets_it(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(8, timeout=60), context.Queue()
    racers = [
        context.Process(target=_take_all, args=(str(tmp_path), barrier, won), daemon=True)
        for _ in range(8)
    ]
    for racer in racers:
        racer.start()
    winners = dict(won.get(timeout=30) for _ in range(100))
    for racer in racers:
        racer.join(30)

    assert won.empty() and sorted(winners) == list(range(100))
    attempts = wire.Attempts(str(tmp_path))
    for index, pid in winners.items():
        start = attempts.read(index, 1, "start")
        assert start is not None and start["owner"]["pid"] == pid
    assert not [name for name in os.listdir(tmp_path / "attempts") if name.startswith(".")]


def test_an_agent_that_is_killed_takes_everything_it_started_with_it(scene: Scene) -> None:
    run = hpcml.submit(
        scene.job(
            "echo $$ >> $LEDGER",
            "setsid sh -c 'echo $$ >> $LEDGER; while :; do sleep 60; done' &",
            "while :; do sleep 60; done",
        )
    )
    eventually(lambda: len(scene.lines()) == 2)
    pids = [int(line) for line in scene.lines()]
    assert all(wire.started_at(pid) for pid in pids)

    os.kill(scene.agent(run), signal.SIGKILL)

    assert run.wait(30).state == "FAILED"
    assert "killed by signal 9" in run.reason
    assert not any(wire.started_at(pid) for pid in pids)
    eventually(lambda: not scene.dispatchers() and not scene.agents())


def test_an_agent_that_is_killed_after_its_dispatcher_is_found_dead_by_the_next(
    scene: Scene,
) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(scene.dispatcher())
    kill(scene.agent(run))

    assert run.wait(30).state == "FAILED"
    assert "ended without a word" in run.reason
    eventually(lambda: not scene.agents() and not scene.dispatchers())
    assert scene.lines() == ["ran"]


@pytest.fixture
def slow_agents(home: Path, tmp_path: Path) -> str:
    """A site whose agents wait for a gate before they start; its dispatcher does not."""
    python = tmp_path / "slow-python"
    gate = tmp_path / "scene" / "gate-agent"
    python.write_text(
        f'#!/bin/sh\ncase " $* " in *" run "*)\n'
        f"while [ ! -e {gate} ]; do sleep 0.02; done;; esac\n"
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    return write_profile(home, "slow", f"agent_python: {python}\n")


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_an_agent_that_is_killed_before_it_takes_its_run_fails_it(
    scene: Scene, slow_agents: str
) -> None:
    run = hpcml.submit(scene.job(), slow_agents)
    dispatcher = scene.dispatcher()
    eventually(lambda: children(dispatcher))
    assert run.state == "PENDING"

    os.kill(children(dispatcher)[0], signal.SIGKILL)

    assert run.wait(30).state == "FAILED"
    assert "signal 9 before the agent started" in run.reason
    scene.open("agent")
    eventually(lambda: not scene.agents())
    assert scene.lines() == []


# --- dispatchers --------------------------------------------------------------------------


def test_of_eight_dispatchers_on_one_workspace_one_serves(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(scene.dispatcher())

    codes = at_once(8, scene.agent_argv("dispatch", str(scene.workspace)), scene.workspace)

    assert codes == [0] * 8
    alive = scene.dispatcher()
    scene.open()
    assert run.wait(30).state == "COMPLETED"
    assert scene.lines() == ["ran"]
    eventually(lambda: wire.started_at(alive) is None)


def test_a_dispatcher_starts_though_somebody_asks_in_that_moment_whether_there_is_one(
    scene: Scene,
) -> None:
    """Who asks takes the lock for a moment, too."""
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(scene.dispatcher())
    lock = Path(wire.QueueFolder(str(scene.workspace)).lock)
    with open(lock, "rb") as asking:
        assert wire.take_lock(asking.fileno())
        late = subprocess.Popen(scene.agent_argv("dispatch", str(scene.workspace)))
        eventually(lambda: lock in opened_by(late.pid))

    assert late.wait(30) == 0
    scene.dispatcher()
    scene.open()
    assert run.wait(30).state == "COMPLETED"


def opened_by(pid: int) -> list[Path]:
    """Files that a process has open."""
    try:
        return [place.readlink() for place in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return []


def test_runs_go_on_without_a_dispatcher_and_the_next_one_adopts_them(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=3)
    good, bad, late, waiting = (
        hpcml.submit(job, site)
        for job in (
            scene.gated("good"),
            scene.job(RECORD, 'while [ ! -e "$GATE" ]; do sleep 0.02; done; exit 3', name="bad"),
            scene.gated("late"),
            scene.job(name="waiting", cpus=3),
        )
    )
    eventually(lambda: len(scene.lines()) == 3)
    kill(scene.dispatcher())

    scene.open("good")
    eventually(lambda: scene.ended(good))
    assert not scene.dispatchers() and not scene.started(waiting)
    assert good.state == "COMPLETED"  # looking is the next command

    eventually(scene.dispatchers)
    assert late.state == bad.state == "RUNNING" and waiting.state == "PENDING"
    scene.open("bad")
    scene.open("late")
    assert late.wait(30).state == "COMPLETED"
    assert bad.wait(30).state == "FAILED" and bad.reason == "exit code 3"
    assert waiting.wait(30).state == "COMPLETED"
    assert sorted(scene.lines()) == ["bad", "good", "late", "waiting"]


@pytest.mark.parametrize(
    "point",
    [
        # Either may have come and gone before one looks.
        pytest.param(lambda scene, run: scene.dispatchers() or scene.ended(run), id="it-lives"),
        pytest.param(
            lambda scene, run: scene.agents() or scene.ended(run), id="a-script-was-started"
        ),
        pytest.param(lambda scene, run: scene.started(run), id="an-agent-took-the-run"),
        pytest.param(lambda scene, run: scene.lines(), id="the-command-runs"),
        pytest.param(lambda scene, run: scene.ended(run), id="the-run-has-ended"),
        pytest.param(lambda scene, run: not scene.queue(), id="the-queue-is-empty"),
    ],
)
def test_a_dispatcher_killed_at_any_point_loses_nothing_and_repeats_nothing(
    scene: Scene, point: Callable[[Scene, hpcml.Run], object]
) -> None:
    run = hpcml.submit(scene.job())
    eventually(lambda: point(scene, run))
    kill(*scene.dispatchers())

    assert run.wait(30).state == "COMPLETED", run.reason
    eventually(lambda: not scene.queue() and not scene.dispatchers())
    assert scene.lines() == ["ran"]


def test_a_dispatcher_killed_before_its_agent_took_the_run_has_it_executed_once(
    scene: Scene, slow_agents: str
) -> None:
    """The second dispatcher sees that the first one's agent lives, though it has no run yet."""
    run = hpcml.submit(scene.job(), slow_agents)
    first = scene.dispatcher()
    eventually(lambda: children(first))
    kill(first)
    assert run.state == "PENDING"
    second = scene.dispatcher()

    scene.open("agent")

    assert run.wait(30).state == "COMPLETED"
    assert not children(second)
    eventually(lambda: not scene.agents() and not scene.dispatchers())
    assert scene.lines() == ["ran"]


def test_a_batch_whose_files_were_removed_does_not_stop_the_queue(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=1)
    first = hpcml.submit(scene.gated("first"), site)
    gone = hpcml.submit(scene.job(name="gone"), site)
    last = hpcml.submit(scene.job(name="last"), site)
    after = hpcml.submit(scene.job(name="after"), site, after=gone)
    eventually(scene.lines)

    subprocess.run(["rm", "-r", str(scene.batch(gone))], check=True)
    scene.open("first")

    assert first.wait(30).state == "COMPLETED"
    assert last.wait(30).state == "COMPLETED"
    assert after.wait(30).state == "CANCELLED"
    eventually(lambda: not scene.dispatchers() and not scene.queue())
    assert scene.lines() == ["first", "last"]


# --- a reboot -----------------------------------------------------------------------------


def reboot(scene: Scene, *started: hpcml.Run, owner: dict[str, object] | None = None) -> None:
    """End everything, and leave ``.start`` as the boot before this one would have."""
    pids = {scene.agent(run) for run in started}
    kill(*scene.dispatchers(), *pids, *scene.agents())
    for run in started:
        path = scene.attempt(run, "start")
        record = json.loads(path.read_text())
        record["owner"].update(owner or {}, boot="5f0c1c2e-the-boot-before-this-one")
        path.write_bytes(wire.canonical(record))


def test_after_a_reboot_started_runs_are_node_fail_and_waiting_ones_start(
    scene: Scene, home: Path, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    site = small_machine(home, cpus=2)
    one, two = (hpcml.submit(scene.gated(name), site) for name in ("one", "two"))
    waiting = hpcml.submit(scene.job(name="waiting"), site)
    dependent = hpcml.submit(scene.job(name="dependent"), site, after=one)
    eventually(lambda: len(scene.lines()) == 2)

    reboot(scene, one, two)

    assert not scene.dispatchers() and not scene.started(waiting)
    assert waiting.wait(30).state == "COMPLETED"
    for run in (one, two):
        assert run.wait(30).state == "NODE_FAIL" and "reboot" in run.reason
    assert dependent.wait(30).state == "CANCELLED" and "NODE_FAIL" in dependent.reason
    eventually(lambda: not scene.queue() and not scene.dispatchers())
    assert sorted(scene.lines()) == ["one", "two", "waiting"]
    assert state_elsewhere(another_python, one) == "NODE_FAIL"


def test_after_a_reboot_another_process_may_have_the_agents_number(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)

    reboot(scene, run, owner={"pid": os.getpid(), "started": wire.started_at(os.getpid())})

    assert run.wait(30).state == "NODE_FAIL"
    run.cancel()
    assert run.state == "NODE_FAIL", "and nobody was sent a signal on its account"


def test_after_a_power_loss_an_empty_start_is_that_of_a_former_boot(scene: Scene) -> None:
    """A link can be on disk before the content it names is; such a record says only "taken"."""
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(*scene.dispatchers(), scene.agent(run), *scene.agents())
    scene.attempt(run, "start").write_bytes(b"")

    assert run.wait(30).state == "NODE_FAIL"
    eventually(lambda: not scene.queue() and not scene.dispatchers())
    assert scene.lines() == ["ran"]


def test_after_a_power_loss_an_empty_end_says_nothing(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    reboot(scene, run)
    scene.attempt(run, "end").write_bytes(b"")

    assert run.wait(30).state == "NODE_FAIL"
    eventually(lambda: not scene.queue() and not scene.dispatchers())


def test_after_a_power_loss_an_empty_job_is_unknown_and_can_be_cancelled(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=1)
    first = hpcml.submit(scene.gated("first"), site)
    lost = hpcml.submit(scene.job(name="lost"), site)
    eventually(scene.lines)
    kill(scene.dispatcher())
    (scene.workspace / "queue" / f"{scene.queue()[1]}.job").write_bytes(b"")

    assert lost.state == "UNKNOWN" and "does not know it" in lost.reason
    assert lost.cancel().state == "CANCELLED"
    scene.open("first")
    assert first.wait(30).state == "COMPLETED"
    eventually(lambda: not scene.dispatchers())
    assert scene.lines() == ["first"]


# --- final is final -----------------------------------------------------------------------


def say(scene: Scene, run: hpcml.Run, state: str, reason: str = "a late word") -> None:
    """The scheduler's word, however late."""
    word = {"index": run.index, "attempt": 1, "state": state, "reason": reason, "time": 0.0}
    wire.append_line(str(scene.batch(run) / "attempts" / "0.words"), word)


def test_a_final_state_never_changes(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = hpcml.submit(scene.job()).wait(30)
    assert run.state == "COMPLETED"
    eventually(lambda: not scene.dispatchers())
    end = scene.attempt(run, "end").read_bytes()

    say(scene, run, "FAILED")
    say(scene, run, "NODE_FAIL")
    run.cancel()
    (again,) = at_once(1, scene.agent_argv("run", "0"), scene.batch(run))
    wire.Attempts(str(scene.batch(run))).end(0, 1, exit_code=1)

    assert again == 0 and scene.lines() == ["ran"]
    assert run.state == "COMPLETED"
    assert state_elsewhere(another_python, run) == "COMPLETED"
    assert scene.attempt(run, "end").read_bytes() == end


def test_the_schedulers_first_word_stands(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    assert run.cancel().wait(30).state == "CANCELLED"

    for state in ("COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL"):
        say(scene, run, state)

    assert state_elsewhere(another_python, run) == "CANCELLED"


def ended_without_a_word(scene: Scene) -> hpcml.Run:
    """One that ended on a signal, of which nobody says why it was sent."""
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(scene.dispatcher())
    (job,) = scene.queue()
    (scene.workspace / "queue" / f"{job}.job").unlink()  # nobody will ever say a word
    os.kill(scene.agent(run), signal.SIGTERM)
    eventually(lambda: scene.ended(run))
    end = scene.attempt(run, "end")
    record = {**json.loads(end.read_text()), "cause": None}  # as under another scheduler
    end.write_bytes(wire.canonical(record))
    return run


def awaited_in_vain(scene: Scene, run: hpcml.Run) -> None:
    """Have it ended so long ago that no word is awaited any more."""
    end = scene.attempt(run, "end")
    record = json.loads(end.read_text())
    end.write_bytes(wire.canonical({**record, "time": record["time"] - 61}))


def test_what_was_judged_for_want_of_a_word_no_later_word_changes(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = ended_without_a_word(scene)

    assert run.state == "RUNNING" and "has not said why" in run.reason
    awaited_in_vain(scene, run)

    assert state_elsewhere(another_python, run) == "FAILED"
    say(scene, run, "CANCELLED")
    assert state_elsewhere(another_python, run) == "FAILED"


def test_a_judgement_that_cannot_be_written_down_is_none_and_hides_no_other_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = hpcml.submit(scene.job(name="well")).wait(30)
    run = ended_without_a_word(scene)
    awaited_in_vain(scene, run)

    def full(path: str, record: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with monkeypatch.context() as patched:
        patched.setattr(wire, "append_line", full)
        for _ in range(2):
            (_, good), (_, seen) = hpcml.Runs([well, run]).seen()
            assert (good.state, seen.state) == ("COMPLETED", "UNKNOWN")
            assert seen.reason.startswith("it has ended (FAILED: ")
            assert "No space left on device" in seen.reason

    assert run.state == "FAILED"


# --- cancel -------------------------------------------------------------------------------

MOMENTS: list[Callable[[Scene, hpcml.Run], object]] = [
    lambda scene, run: True,
    lambda scene, run: scene.agents() or scene.ended(run),
    lambda scene, run: scene.started(run),
    lambda scene, run: scene.lines() or scene.ended(run),
    lambda scene, run: scene.ended(run),
]


def test_a_cancel_that_races_with_the_start_ends_one_way_or_the_other(scene: Scene) -> None:
    """COMPLETED or CANCELLED, as the job did or did not run to its end; never stuck."""
    seen = set()
    for number in range(20):
        name = f"run-{number}"
        run = hpcml.submit(scene.job(RECORD, 'echo "$NAME-done" >> "$LEDGER"', name=name))
        moment = MOMENTS[number % len(MOMENTS)]
        eventually(lambda moment=moment, run=run: moment(scene, run))  # type: ignore[misc]
        run.cancel()
        state = str(run.wait(30).state)

        lines = scene.lines()
        assert state in ("COMPLETED", "CANCELLED"), run.reason
        assert lines.count(name) <= 1
        if state == "COMPLETED":
            assert f"{name}-done" in lines
        start = json.loads(scene.attempt(run, "start").read_text())
        if "refused" in start:
            assert state == "CANCELLED" and name not in lines
        assert run.state == state
        seen.add(state)
    assert seen == {"COMPLETED", "CANCELLED"}
    eventually(lambda: not scene.queue() and not scene.dispatchers() and not scene.agents())


def test_a_cancelled_run_ends_with_everything_it_started(scene: Scene) -> None:
    run = hpcml.submit(
        scene.job(
            "setsid sh -c 'echo $$ >> $LEDGER; while :; do sleep 60; done' &",
            "echo $$ >> $LEDGER; wait",
        )
    )
    eventually(lambda: len(scene.lines()) == 2)
    pids = [int(line) for line in scene.lines()]

    assert run.cancel().wait(30).state == "CANCELLED"

    eventually(lambda: not any(wire.started_at(pid) for pid in pids))


def test_a_run_that_is_cancelled_after_everybody_died_ends(scene: Scene) -> None:
    """The next dispatcher may find the dead agent before or after it hears of the cancel."""
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(scene.dispatcher(), scene.agent(run))

    run.cancel()

    assert run.wait(30).state in ("CANCELLED", "FAILED")
    eventually(lambda: not scene.queue() and not scene.agents())
