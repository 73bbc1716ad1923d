"""Slots: each is one agent that works through points of a sweep, one after the other."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.agent import processes, wire
from hpcml.errors import QueueError
from hpcml.sites import load_site
from tests.conftest import eventually
from tests.embedded.scene import Scene, command_line, kill, small_machine

POINT = 'echo "$NAME$HPCML_INDEX" >> "$LEDGER"'
GATE = 'while [ ! -e "$SCENE/gate-$HPCML_INDEX" ]; do sleep 0.02; done'
BEGIN, END = 'echo "+" >> "$LEDGER"', 'echo "-" >> "$LEDGER"'


def sweep(scene: Scene, count: int, *commands: str, name: str = "", **options: Any) -> hpcml.Sweep:
    """Points that write down their numbers."""
    job = scene.job(*(commands or [POINT]), name=name or "ran", **{"cpus": 1, **options})
    env = {**job.env, "NAME": name}
    return hpcml.Job(job.entry, name=job.name, env=env, code=None, resources=job.resources).sweep(
        i=range(count)
    )


def idle(scene: Scene) -> None:
    """Nobody serves the queue, nothing is in it, and nothing is left of it."""
    eventually(lambda: not scene.dispatchers() and not scene.agents() and not scene.queue())
    assert not [name for name in os.listdir(scene.workspace / "queue") if ".job" in name]


def states(runs: hpcml.Runs) -> list[str]:
    """Of all points, in order."""
    return [str(run.state) for run in runs]


# --- how many -----------------------------------------------------------------------------


def test_there_are_as_many_slots_as_cpus_and_each_goes_on_to_the_next_point(
    scene: Scene, home: Path
) -> None:
    runs = hpcml.submit(sweep(scene, 7, POINT, GATE), small_machine(home, cpus=3))
    eventually(lambda: len(scene.lines()) == 3)
    first = {scene.agent(run) for run in runs[:3]}
    assert len(first) == 3

    for number in range(7):
        scene.open(str(number))

    assert states(runs.wait(60)) == ["COMPLETED"] * 7
    assert {scene.agent(run) for run in runs} == first, "no further agent was started"
    assert sorted(scene.lines()) == [str(number) for number in range(7)]
    idle(scene)


def test_there_are_as_many_slots_as_the_memory_allows(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=8)
    node = load_site(site).partitions["local"].node
    third = f"{node.memory_bytes * 3 // 10 >> 10} KiB"

    runs = hpcml.submit(sweep(scene, 12, BEGIN, "sleep 0.05", END, memory=third), site)

    assert set(states(runs.wait(60))) == {"COMPLETED"}
    assert peak(scene) == 3


def peak(scene: Scene) -> int:
    """The most points at a time, by the ledger of their begins and ends."""
    running = most = 0
    for line in scene.lines():
        running += 1 if line.startswith("+") else -1
        most = max(most, running)
    return most


def test_max_running_holds_though_the_dispatcher_is_killed_again_and_again(
    scene: Scene, home: Path
) -> None:
    chance = random.Random(7)
    runs = hpcml.submit(
        sweep(scene, 80, BEGIN, GATE, "sleep 0.05", END),
        small_machine(home, cpus=4),
        max_running=2,
    )

    kills = 0
    while not all(state.final for state in (run.state for run in runs)):
        if kills in (0, 3):  # however slow this machine is, there is more to do after three
            for number in range(40 if kills else 0, 80 if kills else 40):
                scene.open(str(number))
        time.sleep(chance.random() * 0.2)  # any moment will do
        kill(*scene.dispatchers())
        kills += 1

    assert kills > 3
    assert set(states(runs)) == {"COMPLETED"}
    assert scene.lines().count("+") == scene.lines().count("-") == 80
    assert peak(scene) == 2
    hpcml.submit(scene.job("true")).wait(30)  # has the queue looked at though all had ended
    idle(scene)


# --- order --------------------------------------------------------------------------------


def test_sweeps_are_worked_through_first_in_first_out(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=1)
    submitted = [hpcml.submit(sweep(scene, 4, name=name), site) for name in "abc"]

    for runs in submitted:
        runs.wait(60)

    assert scene.lines() == [f"{name}{number}" for name in "abc" for number in range(4)]


def test_a_large_job_gets_its_turn_before_a_sweep_that_came_later(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=2)
    small = hpcml.submit(scene.gated("small", cpus=1), site)
    eventually(scene.lines)
    large = hpcml.submit(scene.job(name="large", cpus=2), site)
    runs = hpcml.submit(sweep(scene, 20), site)
    scene.open("small")

    runs.wait(60)

    assert scene.lines()[:2] == ["small", "large"]
    assert small.state == large.state == "COMPLETED"


@pytest.mark.parametrize("killed", [False, True])
def test_a_sweep_makes_room_for_an_earlier_job_that_had_to_wait_for_something_else(
    scene: Scene, home: Path, killed: bool
) -> None:
    """Its agents leave after the points that they are at."""
    site = small_machine(home, cpus=2)
    before = hpcml.submit(scene.gated("before", cpus=1), site)
    large = hpcml.submit(scene.job(name="large", cpus=2), site, after=before)
    runs = hpcml.submit(sweep(scene, 200, POINT, "sleep 0.02"), site)
    eventually(lambda: len(scene.lines()) > 3)
    if killed:
        kill(scene.dispatcher())

    scene.open("before")

    assert large.wait(60).state == "COMPLETED"
    assert set(states(runs.wait(60))) == {"COMPLETED"}
    lines = scene.lines()
    assert lines.index("large") < 150 and len(lines) == len(set(lines)) == 202
    idle(scene)


# --- agents that are killed ---------------------------------------------------------------

WARM = """
import os, subprocess, time

def work(i, ledger, folder):
    with open(ledger, "a") as file:
        file.write("%d\\n" % i)
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    while i < 2 and not os.path.exists("%s/gate-%d" % (folder, i)):
        time.sleep(0.02)
    return i
"""


def test_of_a_killed_agent_nothing_is_left_and_one_point_has_failed(
    scene: Scene, home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its warm interpreter and what that forked are ended, too; a new slot has the other points."""
    (project / "points.py").write_text(WARM)
    monkeypatch.syspath_prepend(project)
    import points  # type: ignore[import-not-found]

    job = hpcml.Job(
        points.work,
        params={"ledger": str(scene.ledger), "folder": str(scene.folder)},
        resources=hpcml.Resources(cpus=1),
    )
    runs = hpcml.submit(job.sweep(i=range(8)), small_machine(home, cpus=2))
    eventually(lambda: len(scene.lines()) == 2)
    victim = scene.agent(runs[0])
    name = processes.slot_name(wire.identity(victim))
    eventually(lambda: len(processes.of_run(runs[0].id, slot=name)) == 3)  # with fork and sleep

    os.kill(victim, signal.SIGKILL)

    eventually(lambda: runs[0].state.final)
    assert runs[0].state == "FAILED" and "its agent was killed by signal 9" in runs[0].reason
    assert not processes.of_run(runs[0].id, slot=name)
    eventually(lambda: len(scene.lines()) == 8)
    assert states(runs[2:].wait(30)) == ["COMPLETED"] * 6
    assert victim not in {scene.agent(run) for run in runs[1:]}
    scene.open("1")
    assert runs[1].wait(30).state == "COMPLETED"
    assert sorted(scene.lines()) == [str(number) for number in range(8)]
    idle(scene)


def test_a_point_whose_agent_somebody_told_to_end_has_failed_and_the_others_go_on(
    scene: Scene, home: Path
) -> None:
    runs = hpcml.submit(sweep(scene, 5, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)
    first = scene.agent(runs[0])

    os.kill(first, signal.SIGTERM)

    assert runs[0].wait(30).state == "FAILED" and "SIGTERM" in runs[0].reason
    for number in range(5):
        scene.open(str(number))
    assert states(runs[1:].wait(30)) == ["COMPLETED"] * 4
    assert first not in {scene.agent(run) for run in runs[1:]}
    assert scene.lines() == [str(number) for number in range(5)]
    idle(scene)


def test_agents_that_are_killed_one_after_the_other_cost_a_point_each(
    scene: Scene, home: Path
) -> None:
    """They worked, so that nobody gives up: the last points have their turn."""
    runs = hpcml.submit(sweep(scene, 6, POINT, GATE), small_machine(home, cpus=1))
    for number in range(5):
        eventually(lambda number=number: len(scene.lines()) == number + 1)  # type: ignore[misc]
        os.kill(scene.agent(runs[number]), signal.SIGKILL)
    eventually(lambda: len(scene.lines()) == 6)
    scene.open("5")

    assert states(runs.wait(30)) == ["FAILED"] * 5 + ["COMPLETED"]
    assert scene.lines() == [str(number) for number in range(6)]
    idle(scene)


# --- agents that cannot start -------------------------------------------------------------


def break_script(scene: Scene, runs: hpcml.Runs, line: str) -> None:
    """From now on its agents do something else; each writes down that it was started."""
    script = scene.batch(runs[0]) / "job.sh"
    script.write_text(f'#!/bin/sh\necho spawned >> "{scene.ledger}"\necho sorry\n{line}\n')


@pytest.mark.parametrize("line", ["exit 0", "exit 3", "kill -9 $$"])
@pytest.mark.parametrize("cpus", [1, 2])
def test_points_whose_agents_cannot_start_are_refused_after_a_few_tries(
    scene: Scene, home: Path, line: str, cpus: int
) -> None:
    site = small_machine(home, cpus=cpus)
    blocker = hpcml.submit(scene.gated("blocker", cpus=cpus), site)
    runs = hpcml.submit(sweep(scene, 500), site)
    eventually(scene.lines)
    break_script(scene, runs, line)
    scene.open("blocker")

    assert set(states(runs.wait(30))) == {"FAILED"}
    assert all("before the agent started: " in run.reason for run in runs)
    assert runs[499].reason.endswith("sorry")
    assert 3 <= scene.lines().count("spawned") <= 6
    assert blocker.wait(30).state == "COMPLETED"
    idle(scene)


def test_a_library_that_is_rubbish_refuses_the_points_and_not_the_queue(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=1)
    blocker = hpcml.submit(scene.gated("blocker", cpus=1), site)
    runs = hpcml.submit(sweep(scene, 100), site)
    eventually(scene.lines)
    (library,) = (scene.workspace / "lib").glob("hpcml-*.pyz")
    whole = library.read_bytes()
    library.chmod(0o600)
    library.unlink()
    library.write_bytes(b"rubbish\n")
    scene.open("blocker")

    assert set(states(runs.wait(30))) == {"FAILED"}
    assert "exit code 1 before the agent started" in runs[99].reason
    assert blocker.wait(30).state == "COMPLETED"
    library.write_bytes(whole)
    assert hpcml.submit(scene.job(name="last"), site).wait(30).state == "COMPLETED"
    assert scene.lines() == ["blocker", "last"]
    idle(scene)


def test_while_one_slot_works_others_that_cannot_start_are_not_tried_for_ever(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=2)
    blocker = hpcml.submit(scene.gated("blocker", cpus=1), site)
    runs = hpcml.submit(sweep(scene, 4, POINT, GATE), site)
    eventually(lambda: len(scene.lines()) == 2)
    break_script(scene, runs, "exit 3")

    scene.open("blocker")
    eventually(lambda: scene.lines().count("spawned") == 3)
    assert blocker.wait(30).state == "COMPLETED"
    for number in range(4):
        scene.open(str(number))

    assert states(runs.wait(30)) == ["COMPLETED"] * 4
    assert scene.lines().count("spawned") == 3
    idle(scene)


# --- files that are removed ---------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
def test_slots_of_a_batch_whose_files_were_removed_end_and_the_next_job_starts(
    scene: Scene, home: Path, killed: bool
) -> None:
    """Also those that an earlier dispatcher had started."""
    site = small_machine(home, cpus=2)
    stay = "trap 'exit 1' TERM; while :; do sleep 0.05; done"
    runs = hpcml.submit(sweep(scene, 9, POINT, stay), site)
    eventually(lambda: len(scene.lines()) == 2)
    agents = [scene.agent(run) for run in runs[:2]]
    if killed:
        kill(scene.dispatcher())
    gone = scene.batch(runs[0])
    gone.rename(scene.folder / "moved")  # at once, then
    shutil.rmtree(scene.folder / "moved", ignore_errors=True)

    last = hpcml.submit(scene.job(name="last", cpus=2), site)

    assert last.wait(30).state == "COMPLETED"
    eventually(lambda: not any(map(command_line, agents)))
    idle(scene)
    assert sorted(scene.lines()) == ["0", "1", "last"]


# --- cancel -------------------------------------------------------------------------------


def test_a_point_that_waits_is_cancelled_and_the_others_run(scene: Scene, home: Path) -> None:
    runs = hpcml.submit(sweep(scene, 5, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)

    runs[3].cancel()

    assert runs[3].state == "CANCELLED"
    for number in range(5):
        scene.open(str(number))
    assert states(runs.wait(30)) == ["COMPLETED"] * 3 + ["CANCELLED", "COMPLETED"]
    assert scene.lines() == ["0", "1", "2", "4"]
    idle(scene)


def test_a_point_that_runs_is_cancelled_and_its_agent_goes_on(scene: Scene, home: Path) -> None:
    runs = hpcml.submit(sweep(scene, 3, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)
    scene.open("1")
    scene.open("2")

    runs[0].cancel()

    assert states(runs.wait(30)) == ["CANCELLED", "COMPLETED", "COMPLETED"]
    assert len({scene.agent(run) for run in runs}) == 1


def test_all_of_a_thousand_points_are_cancelled_by_one_call(scene: Scene, home: Path) -> None:
    runs = hpcml.submit(sweep(scene, 1000, POINT, "sleep 60"), small_machine(home, cpus=2))
    eventually(lambda: len(scene.lines()) == 2)

    runs.cancel()

    assert states(runs.wait(30)) == ["CANCELLED"] * 1000
    assert sorted(scene.lines()) == ["0", "1"]
    idle(scene)


KILLED = """
import os
import hpcml
from hpcml.schedulers.process import ProcessScheduler

ProcessScheduler._cancel = lambda *_: os.kill(os.getpid(), 9)
hpcml.Runs([hpcml.attach(it, {site!r}) for it in {ids!r}]).cancel()
"""


def test_all_are_cancelled_though_who_cancels_is_killed_after_the_first_word(
    scene: Scene, home: Path
) -> None:
    """What goes on ends; what waits says so, and never runs when its turn comes."""
    site = small_machine(home, cpus=1)
    runs = hpcml.submit(sweep(scene, 3, POINT, GATE), site)
    eventually(scene.lines)
    behind = hpcml.submit(sweep(scene, 3, POINT, GATE, name="behind"), site)
    for some in (behind, runs):
        killer = KILLED.format(site=site, ids=[run.id for run in some])
        done = subprocess.run([sys.executable, "-c", killer], check=False)
        assert done.returncode == -signal.SIGKILL
        if some is behind:
            assert [(run.state, run.reason) for run in some] == [
                ("PENDING", "cancelled, so that it will not run")
            ] * 3

    assert states(runs.wait(30)) == ["CANCELLED"] * 3
    assert states(behind.wait(30)) == ["CANCELLED"] * 3
    assert runs[0].reason == "cancelled while it ran"
    assert scene.lines() == ["0"]
    idle(scene)


def test_a_cancel_of_what_another_machine_runs_says_that_it_is_asked_to_end_there(
    scene: Scene, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent hears of it by the file system that both have."""
    (run,) = hpcml.submit(sweep(scene, 1, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)
    with monkeypatch.context() as patch, pytest.raises(QueueError, match="no signal") as caught:
        patch.setattr(wire, "is_here", lambda owner: False)
        run.cancel()
    assert caught.value.advice.startswith("It is asked to end;")
    assert run.wait(30).state == "CANCELLED"


def no_signal_pending(pid: int) -> bool:
    """Whether a process has heard of all signals that were sent to it."""
    text = Path(f"/proc/{pid}/status").read_text()
    masks = [line.split()[1] for line in text.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return not any(int(mask, 16) for mask in masks)


@pytest.mark.parametrize("times", [1, 2])
def test_the_signal_of_a_cancel_that_comes_late_is_not_for_the_next_point(
    scene: Scene, home: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Its agent has gone on meanwhile; however often somebody has cancelled."""
    runs = hpcml.submit(sweep(scene, 3, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)
    agent = scene.agent(runs[0])
    late: list[Mapping[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(wire, "terminate", late.append)
        for _ in range(times):
            runs[0].cancel()
    assert [found["pid"] for found in late] == [agent] * times

    eventually(lambda: scene.lines() == ["0", "1"])  # it has read it
    for found in late:
        assert wire.terminate(found)
        eventually(lambda: no_signal_pending(agent))
    scene.open("1")
    eventually(lambda: scene.lines() == ["0", "1", "2"])
    assert states(runs[:2].wait(30)) == ["CANCELLED", "COMPLETED"]

    os.kill(agent, signal.SIGTERM)  # nobody had asked for a cancel: this one is meant
    assert runs[2].wait(30).state == "FAILED" and "SIGTERM" in runs[2].reason
    idle(scene)


def test_a_cancel_that_comes_while_the_agent_is_stopped_is_for_the_point_it_names(
    scene: Scene, home: Path
) -> None:
    runs = hpcml.submit(sweep(scene, 3, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)
    agent = scene.agent(runs[0])
    os.kill(agent, signal.SIGSTOP)
    scene.open("0")  # it ends, and nobody takes note
    runs[0].cancel()
    scene.open("1")
    scene.open("2")

    os.kill(agent, signal.SIGCONT)

    assert states(runs.wait(30)) in (
        ["CANCELLED", "COMPLETED", "COMPLETED"],
        ["COMPLETED", "COMPLETED", "COMPLETED"],
    )
    assert scene.lines() == ["0", "1", "2"]


def test_thousands_of_points_after_one_that_failed_are_cancelled_together(
    scene: Scene, home: Path
) -> None:
    """At a cost in proportion to their number."""
    site = small_machine(home, cpus=1)
    first = hpcml.submit(scene.job("exit 3", name="first"), site)
    runs = hpcml.submit(sweep(scene, 3000), site, after=first)

    assert set(states(runs.wait(60))) == {"CANCELLED"}
    assert runs[2999].reason == f"it was to run after {first.id}, which is FAILED"
    assert scene.lines() == []
    idle(scene)


# --- a reboot -----------------------------------------------------------------------------


def test_after_a_reboot_points_under_way_are_node_fail_and_the_others_run(
    scene: Scene, home: Path
) -> None:
    runs = hpcml.submit(sweep(scene, 6, POINT, GATE), small_machine(home, cpus=2))
    eventually(lambda: len(scene.lines()) == 2)
    kill(*scene.dispatchers(), *scene.agents())
    for run in runs[:2]:
        path = scene.attempt(run, "start")
        record = json.loads(path.read_text())
        record["owner"]["boot"] = "5f0c1c2e-the-boot-before-this-one"
        path.write_bytes(wire.canonical(record))
    for number in range(6):
        scene.open(str(number))

    assert states(runs.wait(30)) == ["NODE_FAIL"] * 2 + ["COMPLETED"] * 4
    assert sorted(scene.lines()) == [str(number) for number in range(6)]
    idle(scene)


def test_after_a_power_loss_an_empty_end_within_a_sweep_says_nothing(
    scene: Scene, home: Path
) -> None:
    runs = hpcml.submit(sweep(scene, 4, POINT, GATE), small_machine(home, cpus=1))
    eventually(scene.lines)
    scene.open("0")
    eventually(lambda: scene.ended(runs[0]) and len(scene.lines()) == 2)
    kill(*scene.dispatchers(), *scene.agents())
    scene.attempt(runs[0], "end").write_bytes(b"")
    for run in runs[:2]:
        scene.attempt(run, "start").write_bytes(b"")
    for number in range(4):
        scene.open(str(number))

    assert states(runs.wait(30)) == ["NODE_FAIL"] * 2 + ["COMPLETED"] * 2
    assert scene.lines() == ["0", "1", "2", "3"]
    idle(scene)


def test_an_agent_whose_lock_is_not_inherited_is_known_by_what_it_signed(
    scene: Scene, home: Path
) -> None:
    """As on network file systems, where a lock belongs to one process; then nobody holds it."""
    site = small_machine(home, cpus=1)
    first = hpcml.submit(scene.gated("first"), site)
    eventually(scene.lines)
    kill(scene.dispatcher())
    (lock,) = (scene.workspace / "queue").glob("*.slot.0")
    shutil.copy(lock, lock.with_suffix(".copy"))
    os.replace(lock.with_suffix(".copy"), lock)

    second = hpcml.submit(scene.job(name="second"), site)
    scene.dispatcher()
    cancelled = hpcml.submit(scene.job(name="cancelled"), site).cancel()
    eventually(lambda: not any(cancelled.id[:22] in job for job in scene.queue()))  # it has looked

    assert second.state == "PENDING" and first.state == "RUNNING"
    scene.open("first")
    assert second.wait(30).state == "COMPLETED"
    assert scene.lines() == ["first", "second"]
