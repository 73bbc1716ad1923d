"""A submission that needs nothing brought appears on the site at once, and needs no outbox."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcml
import hpcml.poller as pollers
from hpcml import batch as batches
from hpcml import outbox, submission
from hpcml.agent import wire
from hpcml.errors import QueueError, RefusedError, RunStateError, TransportError
from hpcml.schedulers.process import ProcessScheduler
from tests.conftest import eventually
from tests.embedded.scene import DYING, RECORD, Scene

Python = Callable[..., subprocess.CompletedProcess[str]]

CLIENT = (
    DYING
    + """
import hpcml
import hpcml.submission as submission
from hpcml.schedulers.process import ProcessScheduler

{hook}
hpcml.submit(hpcml.Job(["/bin/sh", "-c", "{before}echo ran >> {ledger}"], code=None, name="killed"))
"""
)


@pytest.fixture(autouse=True)
def brought(scene: Scene) -> hpcml.Run:
    """Another run has brought the library there."""
    return hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)


@pytest.fixture
def no_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(path: str, line: bytes) -> None:
        raise AssertionError(f"{path} is written")

    monkeypatch.setattr(outbox, "save", saved)


def killed(scene: Scene, another_python: Python, hook: str, before: str = "") -> list[hpcml.Run]:
    """The run of a client that has killed itself by way of the hook, if there is one."""
    done = another_python(CLIENT.format(hook=hook, ledger=scene.ledger, before=before))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert batches.outbox_ids() == []
    return [run for run in hpcml.runs() if run.name.startswith("killed")]


def resumed_elsewhere(another_python: Python, run: hpcml.Run) -> None:
    """In another process, though this one, which has submitted it, is alive."""
    done = another_python(f"import hpcml; hpcml.attach({run.id!r}).resume()")
    assert done.returncode == 0, done.stderr


def ran_once(scene: Scene, run: hpcml.Run) -> None:
    assert run.wait(30).state == "COMPLETED", run.reason
    eventually(lambda: not scene.queue())
    assert scene.lines() == ["ran"]
    assert batches.outbox_ids() == []


def test_it_is_on_disk_for_good_before_the_queue_is_asked(
    scene: Scene, no_outbox: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the agent cannot do without, under the names that it has by then."""
    synced: list[str] = []
    fsync, submit = os.fsync, ProcessScheduler.submit
    before: list[list[str]] = []

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def called(self: ProcessScheduler, *chunks: Any) -> object:
        before.append([*synced])
        return submit(self, *chunks)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(ProcessScheduler, "submit", called)
    run = hpcml.submit(hpcml.Job(["true"], code=None))
    runs = hpcml.submit(hpcml.Job(["true"], code=None).sweep(n=[1, 2]))

    own, sweep = (str(scene.batch(one)) for one in (run, runs[0]))
    swept = [f"{sweep}/plan.json", f"{sweep}/points.jsonl"]
    assert before == [[f"{own}/plan.json"], [f"{own}/plan.json", *swept]]
    assert len(synced) == 3
    assert {one.state for one in (run.wait(30), *runs.wait(30))} == {"COMPLETED"}


@pytest.mark.parametrize("missing", ["lib", "far"])
def test_what_must_be_brought_first_stands_in_the_outbox_meanwhile(
    scene: Scene, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[str]] = []
    publish = submission.publish

    def looked(*args: Any, **named: bool) -> bool:
        there.append(batches.outbox_ids())
        return publish(*args, **named)

    if missing == "lib":
        for path in (scene.workspace / "lib").glob("*"):
            path.unlink()
    else:
        monkeypatch.setattr(submission, "_appears_at_once", lambda *_: False)
    monkeypatch.setattr(submission, "publish", looked)
    run = hpcml.submit(hpcml.Job(["true"], code=None))

    assert there == [[run.id.partition(".")[0]]]
    assert run.wait(30).state == "COMPLETED"
    assert batches.outbox_ids() == []


@pytest.mark.parametrize(
    "hook",
    [
        "submission._submit = die",
        "submission.publish = die",
        "os.rename = die",
    ],
)
def test_killed_before_it_appears_there_is_no_run(
    scene: Scene, another_python: Python, hook: str
) -> None:
    assert killed(scene, another_python, hook) == []
    assert scene.lines() == []


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param("submission.publish = then_die(submission.publish)", id="published"),
        pytest.param("os.fsync = die", id="not-yet-for-good"),
        pytest.param("ProcessScheduler.submit = die", id="before-the-call"),
    ],
)
def test_killed_before_the_queue_was_asked_it_waits_to_be_resumed(
    scene: Scene, another_python: Python, hook: str
) -> None:
    (run,) = killed(scene, another_python, hook)
    assert run.state == "UNKNOWN" and "was asked to take it" in run.reason
    with pytest.raises(RunStateError, match="its queue does not know it yet"):
        run.resume()

    scene.asked_long_ago(run)
    assert run.state == "PREPARING" and "`hpcml resume" in run.reason
    assert scene.lines() == []
    run.resume()

    ran_once(scene, run)


@pytest.mark.parametrize(
    "hook",
    [
        "ProcessScheduler.submit = then_die(ProcessScheduler.submit)",
        "submission.note_queued = die",
        "submission.note_queued = then_die(submission.note_queued)",
    ],
)
def test_killed_once_the_queue_has_it_it_runs_by_itself(
    scene: Scene, another_python: Python, hook: str, tmp_path: Path
) -> None:
    """Who looks while it does writes down what the client could not: how the queue calls it."""
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done; "
    (run,) = killed(scene, another_python, hook, before=wait)

    assert run.state in ("PENDING", "RUNNING")
    assert "0" in wire.queued_as(os.listdir(scene.batch(run) / "attempts"))
    gate.touch()
    ran_once(scene, run)


def test_it_can_be_cancelled_when_its_submission_was_broken_off(
    scene: Scene, another_python: Python
) -> None:
    (run,) = killed(scene, another_python, "ProcessScheduler.submit = die")

    run.cancel()

    assert run.wait(30).state == "CANCELLED"
    assert scene.lines() == []


def test_what_the_queue_does_not_take_now_has_its_words_and_is_left_to_others(
    scene: Scene, another_python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ProcessScheduler, *_: object) -> None:
        raise QueueError("as many jobs are queued as may be", "Later.")

    with monkeypatch.context() as patch, pytest.raises(QueueError, match="as may be"):
        patch.setattr(ProcessScheduler, "submit", full)
        hpcml.submit(dataclasses.replace(scene.job(RECORD), name="later"))
    (run,) = [run for run in hpcml.runs() if run.name == "later"]
    assert run.state == "PREPARING" and "as many jobs are queued as may be" in run.reason

    resumed_elsewhere(another_python, run)

    ran_once(scene, run)


def test_what_the_queue_refuses_is_over_and_leaves_nothing_in_the_outbox(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: ProcessScheduler, *_: object) -> None:
        raise RefusedError("there is no such account", "Name one.")

    with monkeypatch.context() as patch, pytest.raises(RefusedError):
        patch.setattr(ProcessScheduler, "submit", refused)
        hpcml.submit(dataclasses.replace(scene.job(RECORD), name="refused"))

    (run,) = [run for run in hpcml.runs() if run.name == "refused"]
    assert run.state == "FAILED" and "no such account" in run.reason
    assert batches.outbox_ids() == []


@pytest.mark.parametrize("step", ["publish", "queue"])
def test_ctrl_c_leaves_it_to_be_resumed(
    scene: Scene, step: str, another_python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another process, though the one that it was broken off in lives on."""
    real = getattr(submission, step)

    def broken_off(*args: object, **named: object) -> object:
        if step == "publish":
            real(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(submission, step, broken_off)
        hpcml.submit(dataclasses.replace(scene.job(RECORD), name="broken off"))
    (run,) = [run for run in hpcml.runs() if run.name == "broken off"]
    assert f"hpcml resume {run.id.partition('.')[0]}" in caught.value.__notes__[0]
    assert batches.last_known == run.id.partition(".")[0]

    scene.asked_long_ago(run)
    resumed_elsewhere(another_python, run)

    ran_once(scene, run)


def test_a_disk_that_fails_once_it_is_there_leaves_it_to_be_resumed(
    scene: Scene, another_python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(TransportError) as caught:
        patch.setattr(os, "fsync", fails)
        hpcml.submit(dataclasses.replace(scene.job(RECORD), name="unsure"))
    (run,) = [run for run in hpcml.runs() if run.name == "unsure"]
    batch = run.id.partition(".")[0]
    assert caught.value.__notes__ == [f"`hpcml resume {batch}` goes on with its submission."]
    assert batches.last_known == batch

    scene.asked_long_ago(run)
    assert run.state == "PREPARING" and "was broken off" in run.reason
    resumed_elsewhere(another_python, run)

    ran_once(scene, run)


def test_of_a_sweep_that_was_broken_off_no_run_is_cancelled_alone(
    scene: Scene, another_python: Python
) -> None:
    """The others could not be resumed any more."""
    hook = "ProcessScheduler.submit = die\nhpcml.Job = (lambda real: lambda *a, **k: "
    runs = killed(scene, another_python, hook + "real(*a, **k).sweep(n=[1, 2]))(hpcml.Job)")

    with pytest.raises(RunStateError, match="can only be cancelled together"):
        runs[0].cancel()

    hpcml.Runs(runs).cancel()
    assert [run.wait(30).state for run in runs] == ["CANCELLED", "CANCELLED"]


def test_who_resumes_it_is_known_while_at_it_and_can_let_go(
    scene: Scene, another_python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = killed(scene, another_python, "ProcessScheduler.submit = die")
    scene.asked_long_ago(run)
    seen: list[str] = []

    def full(self: ProcessScheduler, *_: object) -> None:
        scene.asked_long_ago(run)
        look = f"import hpcml; run = hpcml.attach({run.id!r}); print(run.reason); run.resume()"
        done = another_python(look)
        seen.extend([done.stdout.strip(), done.stderr.strip().splitlines()[-2]])
        raise QueueError("as many jobs are queued as may be", "Later.")

    with monkeypatch.context() as patch, pytest.raises(QueueError):
        patch.setattr(ProcessScheduler, "submit", full)
        run.resume()
    here = f"process {os.getpid()} on {os.uname()[1]} is submitting"
    assert seen[0] == f"{here} it" and here in seen[1]
    assert "as many jobs are queued as may be" in run.reason
    resumed_elsewhere(another_python, run)

    ran_once(scene, run)


def test_whether_a_client_elsewhere_is_at_it_is_not_known(
    scene: Scene, another_python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said to be dead, and who knows better may go on with it."""
    (run,) = killed(scene, another_python, "ProcessScheduler.submit = die")
    plan = scene.batch(run) / "plan.json"
    plan.chmod(0o600)
    here = json.dumps(os.uname()[1])
    boot = json.dumps(wire.boot_id())
    text = plan.read_text().replace(f'"host":{here}', '"host":"login2"')
    plan.write_text(text.replace(f'"boot":{boot}', '"boot":"another"'))
    monkeypatch.setattr(pollers, "_pollers", {})  # as in a process that has not seen it yet
    scene.asked_long_ago(run)

    assert run.state == "PREPARING"
    assert " on login2 is submitting it, unless it was ended; then " in run.reason
    run.resume()

    ran_once(scene, run)


def test_on_a_full_disk_nothing_was_submitted_and_nothing_is_left(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(os.listdir(scene.workspace / "runs"))

    def full(path: str, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patch, pytest.raises(TransportError, match="No space"):
        patch.setattr(wire, "write_private", full)
        hpcml.submit(hpcml.Job(["true"], code=None))

    assert sorted(os.listdir(scene.workspace / "runs")) == before
    assert batches.outbox_ids() == []


def test_while_its_client_is_at_it_nobody_else_goes_on_with_it(
    scene: Scene, another_python: Python, tmp_path: Path
) -> None:
    """However long the queue takes to answer."""
    gate, code = tmp_path / "gate", tmp_path / "slow.py"
    code.write_text(
        f"""
import os, time
import hpcml
from hpcml.schedulers.process import ProcessScheduler
submit = ProcessScheduler.submit
def slow(*args):
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.02)
    return submit(*args)
ProcessScheduler.submit = slow
hpcml.submit(hpcml.Job(["/bin/sh", "-c", "echo ran >> {scene.ledger}"], code=None, name="slow"))
"""
    )
    client = subprocess.Popen([sys.executable, str(code)])
    eventually(lambda: [run for run in hpcml.runs() if run.name == "slow"])
    (run,) = [run for run in hpcml.runs() if run.name == "slow"]
    scene.asked_long_ago(run)

    assert run.state == "PREPARING"
    assert run.reason == f"process {client.pid} on {os.uname()[1]} is submitting it"
    for forbidden in (run.resume, run.cancel):
        with pytest.raises(RunStateError, match=f"process {client.pid} .* is submitting"):
            forbidden()
    gate.touch()
    assert client.wait(30) == 0

    ran_once(scene, run)
