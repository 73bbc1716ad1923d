"""What real machines and people do to a queue, found by attacking it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import hpcml
from hpcml import batch, submission
from hpcml.agent import wire
from hpcml.connection import Connection
from hpcml.errors import (
    HpcmlError,
    QueueError,
    RunNotFoundError,
    RunStateError,
    TransportError,
)
from hpcml.poller import poller
from tests.byhand import ByHand
from tests.conftest import eventually


def command(*argv: str, **fields: object) -> hpcml.Job:
    """A job that takes no code along."""
    return hpcml.Job(list(argv), code=None, **fields)  # type: ignore[arg-type]


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run code in another client."""
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]


def dispatchers(workspace: Path) -> list[int]:
    """Process ids of a workspace's dispatchers."""
    argv = f"\0dispatch\0{workspace}\0".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if argv in Path("/proc", name, "cmdline").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


def gated(gate: Path, **fields: object) -> hpcml.Job:
    """A job that ends when there is such a file."""
    return command("/bin/sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.05; done', str(gate), **fields)


def kill_dispatcher(workspace: Path) -> None:
    """As a crash would."""
    eventually(lambda: dispatchers(workspace))
    for pid in dispatchers(workspace):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not dispatchers(workspace))


def sleeps(pid: int) -> float:
    """How often a process has gone to sleep; without end if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def test_a_client_that_blocks_signals_makes_no_agent_deaf() -> None:
    done = python(
        """
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
        import hpcml
        run = hpcml.submit(hpcml.Job(["sleep", "0.1"], code=None)).wait(20)
        assert run.state == "COMPLETED", (run.state, run.reason)
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_client_without_standard_streams_starts_one_dispatcher_only(workspace: Path) -> None:
    done = python(
        """
        import os
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        import hpcml
        hpcml.submit(hpcml.Job(["sleep", "30"], code=None))
        """
    )
    assert done.returncode == 0
    second = hpcml.submit(command("true")).wait(20)
    assert second.state == "COMPLETED"
    assert len(dispatchers(workspace)) == 1


def test_a_fork_in_the_wrong_moment_does_not_keep_the_queue_locked(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child forked while the lock is probed holds a copy of the descriptor, not the lock."""
    import fcntl

    children = []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if operation & fcntl.LOCK_EX and not children:
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)

    gate = tmp_path / "gate"
    run = hpcml.submit(gated(gate))
    kill_dispatcher(workspace)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", flock)
        eventually(lambda: (run.state, children)[1])
    gate.touch()
    try:
        assert run.wait(20).state == "COMPLETED"
        assert hpcml.submit(command("true")).wait(20).state == "COMPLETED"
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


def test_a_job_whose_files_cannot_be_used_holds_back_nobody(
    workspace: Path, tmp_path: Path
) -> None:
    blocker = hpcml.submit(gated(tmp_path / "gate", name="first"))
    broken = hpcml.submit(command("true"), after=blocker)
    (workspace / "runs" / broken.id[:-6] / "attempts" / "0.out").mkdir()
    (tmp_path / "gate").touch()
    last = hpcml.submit(command("true", name="last"))
    assert last.wait(20).state == "COMPLETED"
    assert blocker.wait(20).state == "COMPLETED"
    assert not broken.state.final

    (workspace / "runs" / broken.id[:-6] / "attempts" / "0.out").rmdir()
    assert broken.wait(20).state == "COMPLETED", "mended, any command goes on with it"


def test_a_run_goes_on_though_the_files_of_its_queue_are_away(
    workspace: Path, tmp_path: Path
) -> None:
    """Its agent wants to look whether the queue has a dispatcher, every 2 s."""
    gate = tmp_path / "gate"
    run = hpcml.submit(command("sh", "-c", f"echo on; while [ ! -e {gate} ]; do sleep 0.1; done"))
    eventually(lambda: run.logs() == "on\n")
    agent = run.attempts[0].start["owner"]["pid"]  # type: ignore[index]
    kill_dispatcher(workspace)
    (workspace / "queue").rename(workspace / "away")
    with pytest.raises(QueueError, match="cannot be read"):
        run.state  # noqa: B018
    slept = sleeps(agent)
    eventually(lambda: sleeps(agent) >= slept + 2)
    (workspace / "away").rename(workspace / "queue")
    gate.touch()
    assert run.wait(20).state == "COMPLETED", run.reason


def test_a_workspace_that_is_away_for_a_while_was_not_removed(workspace: Path) -> None:
    batch = ByHand()
    batch.start()
    (run,) = batch.runs
    future = run.future()
    away = workspace.with_name("away")
    workspace.rename(away)

    for ask in (lambda: run.state, lambda: run.metrics, lambda: batch.runs.states):
        with pytest.raises(TransportError, match="See whether its file system is there"):
            ask()
    eventually(lambda: poller("local").blind is not None)
    away.rename(workspace)
    batch.end()

    assert run.state == "COMPLETED" and future.result(30) is None


def test_a_run_that_ended_in_time_is_no_timeout_though_its_agent_slept(tmp_path: Path) -> None:
    run = hpcml.submit(gated(tmp_path / "gate", resources=hpcml.Resources(time="4s")))
    eventually(lambda: run.state == "RUNNING")
    agent = run.attempts[-1].start["owner"]["pid"]  # type: ignore[index]
    os.kill(agent, signal.SIGSTOP)
    (tmp_path / "gate").touch()
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 4.2)  # past its limit, by the clock itself
    os.kill(agent, signal.SIGCONT)
    assert run.wait(20).state == "COMPLETED"


def test_of_cancel_and_resume_one_wins_and_the_other_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off = python(
        """
        import hpcml, os
        from hpcml import submission
        submission.prepare = lambda *args: os._exit(9)
        hpcml.submit(hpcml.Job(["touch", "ran"], code=None))
        """
    )
    assert broken_off.returncode == 9
    (run,) = hpcml.runs()
    assert run.state == "PREPARING"

    # Cancelled by somebody else between resume's first look and its taking over.
    assert batch.claim(run.id[:-6], "cancelled") is not None
    with pytest.raises(RunStateError, match="was cancelled"):
        run.resume()
    assert run.state == "CANCELLED"
    assert run.cancel().state == "CANCELLED"


def test_a_run_on_another_host_is_not_judged_from_here(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace on a shared file system is seen from several machines."""
    run = hpcml.submit(command("sleep", "30"))
    eventually(lambda: run.state == "RUNNING")
    here = os.uname()
    elsewhere = os.uname_result((here[0], "elsewhere", *here[2:5]))
    with monkeypatch.context() as patched:
        patched.setattr(os, "uname", lambda: elsewhere)
        assert run.state == "RUNNING", "the same boot, the same processes: a machine renamed"
        patched.setattr(wire, "boot_id", lambda: "another boot")
        assert run.state == "UNKNOWN" and f"started on {here[1]}" in run.reason
        with pytest.raises(QueueError, match=f"started on {here[1]}"):
            run.cancel()
    assert run.cancel().wait(20).state == "CANCELLED"


@pytest.mark.parametrize(
    "id", ["", "x", "a\0b.0", "../../etc", "x" * 5000 + ".0", "20200101-000000-aaaaaa.-1"]
)
def test_what_is_no_id_is_no_run(id: str) -> None:
    with pytest.raises(RunNotFoundError, match="no run"):
        hpcml.attach(id)


def test_a_torn_batch_is_passed_over_with_a_warning_and_named_when_asked_for(
    workspace: Path,
) -> None:
    good, torn = hpcml.submit([command("true"), command("true")]).wait(20)
    (workspace / "runs" / torn.id[:-6] / "plan.json").write_bytes(b"")
    listed = python("import hpcml; print([run.id for run in hpcml.runs()])")
    assert listed.stdout == f"[{good.id!r}]\n"
    assert "is passed over" in listed.stderr
    asked = python(f"import hpcml; hpcml.attach({torn.id!r}).state")
    assert "HpcmlError" in asked.stderr and "JSONDecodeError: " not in asked.stderr.split("\n")[-2]


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("plan.json", "batch", []),
        ("plan.json", "batch", {"created": 1}),
        ("plan.json", "where", {"site": "local"}),
        ("points.jsonl", "params", 3),
    ],
)
def test_a_batch_with_files_of_another_shape_hides_no_other(
    name: str, key: str, said: object
) -> None:
    good, broken = ByHand(), ByHand()
    good.end()
    broken.end()
    path = broken.folder / name
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: said}) + "\n")

    with pytest.warns(UserWarning, match=f"batch {broken.batch.id} is passed over"):
        hpcml.sync()
    assert [record.id for record in hpcml.records.find()] == [good.runs[0].id]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert good.runs[0] in hpcml.runs()


def test_a_run_whose_own_parameters_were_lost_does_not_run_with_those_of_others(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleaner of old files may take them while it waits."""
    publish = submission.publish

    def losing(one: batch.Batch, connection: Connection, **more: bool) -> bool:
        made = publish(one, connection, **more)
        (workspace / one.folder / "points.jsonl").unlink()
        return made

    sweep = command("touch", str(workspace / "ran")).sweep(lr=[0.5])
    with monkeypatch.context() as patched:
        patched.setattr(submission, "publish", losing)
        (run,) = hpcml.submit(sweep)

    eventually(lambda: [*workspace.glob("runs/*/attempts/*.end")])
    (end,) = workspace.glob("runs/*/attempts/*.end")
    assert "points.jsonl" in end.read_text() and not (workspace / "ran").exists()
    with pytest.raises(HpcmlError, match="on local is lost"):
        hpcml.resubmit(run.id)


def test_an_agent_of_another_hpcml_finds_the_points_that_it_may_want() -> None:
    """What was planned before an upgrade is resubmitted, or resumed, with the agent of then."""
    plan = hpcml.plan(command("true"))
    then = replace(plan, where={**plan.where, "library": f"hpcml-{'0' * 64}.pyz"})

    assert "points.jsonl" not in batch.new_batch(plan, [{}]).files()
    assert batch.new_batch(then, [{}]).files()["points.jsonl"] == b"{}\n"


def test_what_the_queue_said_of_an_earlier_try_is_not_said_of_a_later_one() -> None:
    made = ByHand()
    made.batch.save()
    made.batch.note("not taken", said="too many jobs")
    made.batch.let_go()
    assert made.runs[0].state == "PREPARING" and "(too many jobs)" in made.runs[0].reason

    again = batch.claim(made.batch.id, "owner")  # it resumes, and is killed
    assert again is not None
    again.let_go()
    assert made.runs[0].state == "PREPARING"
    assert "its submission was broken off" in made.runs[0].reason


def test_an_end_of_another_shape_is_passed_over_by_the_records_alone() -> None:
    good, broken = ByHand(), ByHand()
    good.end()
    broken.end(outputs={"x": 3}, inputs=[])

    with pytest.warns(UserWarning, match=f"batch {broken.batch.id} is passed over"):
        assert hpcml.sync() == 1
    assert len(hpcml.runs()) == 2


def test_folders_of_ones_own_are_ones_own(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "train.py").write_text("pass")
    before = os.umask(0)
    try:
        hpcml.submit("train.py").wait(20)
    finally:
        os.umask(before)
    loose = [path for path in home.rglob("*") if path.is_dir() and path.stat().st_mode & 0o077]
    assert loose == []

    (home / "cache" / "hpcml" / "lib").chmod(0o777)
    for path in (home / "cache" / "hpcml" / "lib").iterdir():
        path.unlink()
    with pytest.raises(HpcmlError, match="others may write"):
        hpcml.submit("train.py")


def test_links_a_run_has_made_are_files_and_pipes_are_not(
    script: Callable[..., str], tmp_path: Path
) -> None:
    entry = script(
        "import os; open('epoch3.pt', 'w').write('w'); os.symlink('epoch3.pt', 'best.pt')\n"
        "os.mkfifo('pipe')"
    )
    run = hpcml.submit(hpcml.Job(entry, outputs=["best.pt"])).wait(20)
    assert run.files() == ["best.pt", "epoch3.pt"]
    assert (run.fetch(tmp_path / "got") / "best.pt").read_text() == "w"


def test_the_digest_is_the_same_where_execute_bits_mean_nothing(project: Path) -> None:
    def git(*args: str) -> None:
        subprocess.run(["git", *args], cwd=project, check=True, capture_output=True)

    (project / "train.py").write_text("pass")
    git("init", "-q")
    git("add", ".")
    digest = hpcml.plan("train.py").digest
    git("config", "core.fileMode", "false")
    (project / "train.py").chmod(0o755)
    assert hpcml.plan("train.py").digest == digest
    git("config", "core.fileMode", "true")
    assert hpcml.plan("train.py").digest != digest


def test_looking_works_where_the_queue_cannot_be_started(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise HpcmlError("no python", "Install one.")

    run = hpcml.submit(command("sleep", "30"))
    second = hpcml.submit(command("true"), after=run)
    eventually(lambda: run.state == "RUNNING")
    kill_dispatcher(workspace)
    queue = submission.connect("local").queue
    with monkeypatch.context() as patched:
        patched.setattr(queue, "_start_dispatcher", refuse)
        assert run.state == "RUNNING"
        assert second.state == "PENDING" and "cannot be started: no python" in second.reason
    run.cancel()
    assert second.wait(20).state == "CANCELLED"


def test_a_command_outside_git_takes_the_folder_of_its_files_along(project: Path) -> None:
    (project / "simulate").write_text("#!/bin/sh\necho steps $2\n")
    (project / "simulate").chmod(0o755)
    assert hpcml.submit(hpcml.Job(["./simulate", "--steps", "3"])).wait(20).logs() == "steps 3\n"
    assert hpcml.plan(hpcml.Job(["echo", "simulated"])).what["code"] is None


def test_runs_keep_the_site_they_were_planned_for(home: Path) -> None:
    """Two profiles share a workspace."""
    profiles = home / "config" / "hpcml" / "sites"
    profiles.mkdir(parents=True)
    (profiles / "small.yaml").write_text("extends: local\n")
    small = hpcml.submit(command("true"), site="small").wait(20)
    local = hpcml.submit(command("true")).wait(20)

    assert hpcml.attach(small.id) == small
    assert list(hpcml.runs()) == [small, local]
    assert list(hpcml.runs(site="small")) == [small]
    assert list(hpcml.runs(site="local")) == [local]


def test_a_job_that_the_queue_lost_in_a_power_cut_is_queued_again(workspace: Path) -> None:
    blocker = hpcml.submit(command("sleep", "30", name="blocker"))
    lost = hpcml.submit(command("true"), after=blocker)
    eventually(lambda: blocker.state == "RUNNING")
    kill_dispatcher(workspace)
    (entry,) = (workspace / "queue").glob(f"*{lost.id[:-6]}*.job")
    entry.write_bytes(b"")
    assert lost.state == "UNKNOWN" and "hpcml resume" in lost.reason

    lost.resume()
    assert lost.state == "PENDING"
    blocker.cancel()
    assert lost.wait(20).state == "CANCELLED"


def test_wrong_arguments_are_errors_of_the_tree(script: Callable[..., str]) -> None:
    run = hpcml.submit(script("pass")).wait(20)
    for call in (
        lambda: hpcml.submit([]),
        lambda: hpcml.submit("train.py", after=3),  # type: ignore[call-overload]
        lambda: hpcml.submit("train.py", max_running="2"),  # type: ignore[call-overload]
        lambda: hpcml.attach(3),  # type: ignore[arg-type]
        lambda: run.logs(stream="z"),
        lambda: run.output("nothing"),
        lambda: run.history("nothing"),
        lambda: hpcml.plan(hpcml.Job("train.py", params={"api_key": "x"})),
    ):
        with pytest.raises(HpcmlError):
            call()
    assert hpcml.plan(hpcml.Job("train.py", params={"pad_token": "x"})).digest
