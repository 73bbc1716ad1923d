"""Handles of sweeps: what a look costs, what a point is called, and many runs as one."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import batch_view, poller, progress
from hpcml.agent import wire
from hpcml.errors import ArgumentError, RunNotFoundError, RunStateError, UnknownNameError
from hpcml.planning import run_digest
from hpcml.schedulers import Word
from hpcml.states import State
from hpcml.transports.local import LocalTransport
from tests.agent.pythons import pythons
from tests.byhand import ByHand
from tests.embedded.scene import WAIT_FOR_GATE, Scene, small_machine
from tests.records.telling import ended, log

MANY = 10_000

# A gate for each run of a sweep over "n".
GATED = 'while [ ! -e "$GATE-$1" ]; do sleep 0.02; done; exit "$2"'


def gated_sweep(scene: Scene, codes: dict[int, int]) -> hpcml.Sweep:
    """Runs that end with given exit codes when their gates open."""
    job = hpcml.Job(
        ["/bin/sh", "-c", GATED, "sh", "{params.n}", "{params.code}"],
        name="train",
        env={"GATE": str(scene.gate())},
        code=None,
    )
    return job.sweep(points=[{"n": n, "code": code} for n, code in codes.items()])


def open_gate(scene: Scene, n: int) -> None:
    Path(f"{scene.gate()}-{n}").touch()


class Reads:
    """What is read of the site's files, however."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        get, read = LocalTransport.get, wire.Attempts.read

        def counted_get(files: LocalTransport, paths: Any) -> dict[str, bytes]:
            self.paths += paths
            return get(files, paths)

        def counted_read(attempts: wire.Attempts, *which: Any) -> Any:
            self.paths.append("{}.{}.{}".format(*which))
            return read(attempts, *which)

        monkeypatch.setattr(LocalTransport, "get", counted_get)
        monkeypatch.setattr(wire.Attempts, "read", counted_read)

    def taken(self) -> list[str]:
        """What has been read since this was last called."""
        taken, self.paths = self.paths, []
        return taken


# --- what a look costs --------------------------------------------------------------------


@pytest.mark.usefixtures("unserved")
def test_a_look_at_many_runs_reads_what_is_new_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand([{"n": n} for n in range(MANY)])
    made.queue()
    reads = Reads(monkeypatch)
    assert set(made.runs.states.values()) == {"PENDING"}
    reads.taken()
    assert made.runs[7].state == "PENDING"
    assert reads.taken() == [], "nobody has started"

    made.start(5)
    assert [made.runs[n].state for n in (4, 5, 6)] == ["PENDING", "RUNNING", "PENDING"]
    assert len(reads.taken()) == 2, "its start: once for the run, once for the queue"
    made.end(5)
    assert made.runs[5].state == "COMPLETED"
    assert [path.rpartition(".")[2] for path in reads.taken()] == ["end"]
    made.runs.states  # noqa: B018
    assert reads.taken() == []

    for n in range(100, 200):
        made.end(n)
    assert len(made.runs.by_state[State.COMPLETED]) == 101
    assert {path.rpartition(".")[2] for path in reads.taken()} == {"end"}
    assert made.runs[150].attempts[0].start is not None, "it is read when somebody asks"
    assert len(reads.taken()) == 1


@pytest.mark.usefixtures("unserved")
def test_only_runs_with_news_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ByHand([{"n": n} for n in range(50)])
    made.queue()
    made.start(3)
    judged: list[int] = []
    judge = batch_view.BatchView._judge

    def counted(view: batch_view.BatchView, index: int, *rest: Any) -> Any:
        judged.append(index)
        return judge(view, index, *rest)

    monkeypatch.setattr(batch_view.BatchView, "_judge", counted)
    for _ in range(3):
        assert made.runs[3].state == "RUNNING"
    assert judged == [3]
    made.end(40)
    assert made.runs[40].state == "COMPLETED"
    assert judged == [3, 40]


def test_a_poller_rests_25_times_as_long_as_a_look_takes(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    run = hpcml.submit(scene.gated())
    looks: list[float] = []
    asked: list[float] = []
    looked, clock = poller.look, poller.poller("local")._changed
    wait_for = clock.wait_for

    def pause(predicate: Callable[[], bool], timeout: float) -> bool:
        asked.append(timeout)
        return wait_for(predicate, timeout)

    def slow(views: Any) -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            scene.open()
        begun = time.thread_time()
        while time.thread_time() < begun + 0.03:
            pass
        looked(views)

    monkeypatch.setattr(poller, "look", slow)
    monkeypatch.setattr(clock, "wait_for", pause)
    run.wait(30)
    pauses = [after - before for before, after in pairwise(looks)]
    assert len(pauses) > 1 and min(pauses[1:]) >= 25 * 0.03
    assert asked[0] < 25 * 0.03, "one look that finds much is no burden"


@pytest.mark.usefixtures("unserved")
def test_a_run_is_over_though_the_agent_that_took_it_lives_on_for_the_next() -> None:
    made = ByHand([{"n": 0}, {"n": 1}, {"n": 2}])
    made.queue()
    made.end(0)  # this process owns both starts
    made.start(1)
    assert [run.state for run in made.runs] == ["COMPLETED", "RUNNING", "PENDING"]


@pytest.mark.usefixtures("unserved")
def test_what_the_queue_says_of_all_that_wait_is_news_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand([{"n": 0}, {"n": 1}])
    made.queue()
    assert {run.reason for run in made.runs} == {"waits for CPUs, memory, or its turn"}
    queue = made.connection.queue
    monkeypatch.setattr(queue, "_why_pending", lambda entry: "the machine sleeps")
    assert {run.reason for run in made.runs} == {"the machine sleeps"}
    made.leave_the_queue()
    assert {run.state for run in made.runs} == {"UNKNOWN"}


@pytest.mark.usefixtures("unserved")
def test_a_final_word_is_heard_though_it_was_said_after_the_first_look() -> None:
    made = ByHand([{"n": 0}, {"n": 1}])
    made.queue()
    made.attempts._write(1, 1, "start", {"owner": wire.NOBODY})
    assert made.runs[1].state == "UNKNOWN"
    queue = made.connection.queue
    chunk = made.runs[1]._view().part_of(1).chunk
    said = queue.record(chunk, 1, 1, Word(State.NODE_FAIL, "the power went"))
    assert said == Word(State.NODE_FAIL, "the power went")
    assert queue.record(chunk, 1, 1, Word(State.FAILED)) == said, "the first one counts"
    assert (made.runs[1].state, made.runs[1].reason) == ("NODE_FAIL", "the power went")
    assert made.runs[0].state == "PENDING"


@pytest.mark.usefixtures("unserved")
def test_news_of_which_the_queue_could_not_be_asked_is_judged_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand([{"n": 0}, {"n": 1}, {"n": 2}])
    made.queue()
    made.end(0)
    made.end(1, exit_code=None, signal=9)
    made.end(2)
    monkeypatch.setattr(LocalTransport, "now", lambda files: time.time() + wire.WORD_PATIENCE)
    with monkeypatch.context() as patched:
        patched.setattr(type(made.connection.queue), "record", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.runs.seen()
    assert {run.index for run in made.runs.as_completed(10)} == {0, 1, 2}
    assert [run.state for run in made.runs] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert made.runs.wait(10).failed == made.runs[1:2]


# --- attempts -----------------------------------------------------------------------------


@pytest.mark.usefixtures("unserved")
def test_a_run_that_left_a_checkpoint_goes_on_with_its_next_attempt() -> None:
    made = ByHand()
    made.queue()
    (run,) = made.runs
    made.end(exit_code=144, requeue=True)
    assert (run.state, run.exit_code) == ("PENDING", None)
    assert run.reason == "it left a checkpoint, and starts again"

    made.start(attempt=2)
    assert run.state == "RUNNING"
    made.end(attempt=2)
    assert (run.state, run.exit_code) == ("COMPLETED", 0)
    assert [attempt.end["exit_code"] for attempt in run.attempts if attempt.end] == [144, 0]
    assert all(attempt.start for attempt in run.attempts)


@pytest.mark.usefixtures("unserved")
def test_a_run_that_left_a_checkpoint_and_that_no_queue_has_is_unknown() -> None:
    made = ByHand()
    made.queue()
    made.end(exit_code=144, requeue=True)
    assert made.runs[0].state == "PENDING"
    made.leave_the_queue()
    assert made.runs[0].state == "UNKNOWN"
    assert "left a checkpoint" in made.runs[0].reason


@pytest.mark.usefixtures("unserved")
def test_a_run_that_left_a_checkpoint_is_cancelled_before_it_starts_again() -> None:
    made = ByHand()
    made.queue()
    made.end(exit_code=144, requeue=True)
    (run,) = made.runs
    assert run.cancel().state == "CANCELLED"
    assert run.reason == "cancelled before it started"
    assert len(run.attempts) == 2


# --- what a point is ----------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b"7"])
def test_an_end_that_no_agent_wrote_whole_says_nothing_and_harms_no_other_run(said: bytes) -> None:
    broken, other = ByHand(), ByHand()
    broken.start()
    (broken.folder / "attempts" / "0.1.end").write_bytes(said)
    other.end()

    states = hpcml.Runs([*broken.runs, *other.runs]).states
    assert [*states.values()] == ["UNKNOWN", "COMPLETED"]
    assert hpcml.sync() == 2


def test_a_run_of_a_sweep_knows_its_own_parameters_digest_and_name() -> None:
    points = [{"width": 32, "seed": 0, "why": "x"}, {"width": 64, "seed": 0, "why": "x"}]
    made = ByHand(points, name="train", params={"lr": 0.1})
    first, second = made.runs

    assert first.params == {"lr": 0.1, "width": 32, "seed": 0, "why": "x"}
    names = ("train seed=0 why=x width=32", "train seed=0 why=x width=64")
    assert (first.name, second.name) == names, "whatever else the batch holds"
    assert first.digest != second.digest
    assert first.digest == run_digest(first.plan, {"params": points[0]})
    assert list(first._view().batch.points) == [{"params": point} for point in points]
    assert first.parent is None


def test_the_name_of_a_run_is_one_short_line_whatever_its_parameters_are() -> None:
    points = [{"a": "x\ny", "b": ["l"] * 40}, {"a": "z", "b": 0.5}]
    first, second = ByHand(points, name="train").runs
    assert first.name.startswith('train a="x\\ny" b=["l", "l",') and first.name.endswith("…")
    assert second.name == "train a=z b=0.5"


def test_the_plans_digest_is_not_computed_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ByHand([{"n": n} for n in range(20)])
    canonical, plans = wire.canonical, []

    def counted(value: Any) -> bytes:
        plans.extend([value] if "entry" in value else [])
        return canonical(value)

    monkeypatch.setattr(wire, "canonical", counted)
    assert len({run.digest for run in made.runs}) == 20
    assert len(plans) <= 1


def test_a_run_that_its_batch_does_not_have_is_named() -> None:
    made = ByHand([{"n": 0}])
    nobody = hpcml.Run(wire.run_id(made.batch.id, 1), "local")
    for ask in (lambda: nobody.params, lambda: nobody.name, lambda: nobody.state):
        with pytest.raises(RunNotFoundError, match="has no run 1"):
            ask()


# --- many runs ----------------------------------------------------------------------------


def test_a_sweep_runs_and_its_runs_are_seen_as_one(scene: Scene) -> None:
    runs = hpcml.submit(gated_sweep(scene, {0: 0, 1: 3, 2: 0}))
    for n in range(3):
        open_gate(scene, n)

    assert runs.wait(30) is runs
    assert [run.id for run in runs.failed] == [runs[1].id]
    assert {state: len(some) for state, some in runs.by_state.items()} == {
        State.COMPLETED: 2,
        State.FAILED: 1,
    }
    assert list(runs.states) == [run.id for run in runs]
    assert hpcml.runs(state="FAILED") == runs.failed
    assert hpcml.runs(name="train") == runs and len(hpcml.runs(name="other")) == 0


def test_runs_come_in_the_order_in_which_they_end(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=2)
    runs = hpcml.submit(gated_sweep(scene, {0: 0, 1: 3, 2: 0}), site=site)
    came = []
    open_gate(scene, 1)
    for run in runs.as_completed(30):
        came.append(run.index)
        open_gate(scene, 0 if len(came) == 1 else 2)
    assert came == [1, 0, 2]


@pytest.mark.usefixtures("unserved")
def test_those_that_had_ended_come_first_and_in_their_order() -> None:
    made = ByHand([{"n": n} for n in range(4)])
    made.queue()
    for n in (2, 0, 3):
        made.end(n)
    came = []
    with pytest.raises(TimeoutError, match="1 of 4 runs have not ended"):
        for run in made.runs.as_completed(0.3):
            came.append(run.index)
    assert came == [2, 0, 3]


@pytest.mark.usefixtures("unserved")
def test_waiting_for_many_gives_up_in_time() -> None:
    made = ByHand([{"n": n} for n in range(MANY)])
    made.queue()
    for n in range(100):
        made.end(n)
    begun = time.monotonic()
    made.runs.wait(0.5)
    assert time.monotonic() - begun < 30
    assert len(made.runs.by_state[State.COMPLETED]) == 100


@pytest.mark.usefixtures("unserved")
def test_runs_are_cancelled_by_one_call_a_batch_from_the_last_to_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand([{"n": n} for n in range(6)])
    made.queue()
    made.end(4)
    calls: list[list[int]] = []
    cancel = type(made.connection.queue).cancel

    def counted(queue: Any, chunk: Any, indices: Any) -> None:
        calls.append(list(indices))
        cancel(queue, chunk, indices)

    monkeypatch.setattr(type(made.connection.queue), "cancel", counted)
    made.runs[1:].cancel()
    assert calls == [[5, 3, 2, 1]]
    states = [run.state for run in made.runs]
    assert states == ["PENDING", *["CANCELLED"] * 3, "COMPLETED", "CANCELLED"]


def test_one_run_of_a_broken_off_submission_is_not_cancelled_alone() -> None:
    made = ByHand([{"n": 0}, {"n": 1}])
    made.batch.save()
    made.batch.let_go()
    with pytest.raises(RunStateError, match="only be cancelled together"):
        made.runs[0].cancel()
    made.runs.cancel()
    assert set(made.runs.states.values()) == {"CANCELLED"}


@pytest.mark.usefixtures("unserved")
def test_many_runs_are_shown_by_their_counts_and_the_first_few() -> None:
    made = ByHand([{"n": n} for n in range(40)], name="train")
    made.queue()
    made.end(1, exit_code=2)
    lines = repr(made.runs).splitlines()
    assert lines[0] == "40 runs: 39 PENDING, 1 FAILED"
    assert lines[2].endswith("train n=1  FAILED  exit code 2")
    assert len(lines) == 7 and lines[-1] == "…"
    assert len(repr(made.runs[:3]).splitlines()) == 4


# --- outputs ------------------------------------------------------------------------------


def test_an_output_is_a_path_before_it_is_there(scene: Scene) -> None:
    job = scene.job(WAIT_FOR_GATE, "mkdir out; echo 1 > out/a; echo weights > model.pt")
    run = hpcml.submit(job, outputs=["model.pt", "out", hpcml.Output("log", optional=True)])
    model, folder, log = (run.output(name) for name in ("model.pt", "out", "log"))

    assert not model.exists() and not folder.is_dir()
    assert model.origin is not None and model.origin.digest == run.digest
    assert (model.origin.run, model.origin.site, model.origin.output) == (
        run.id,
        "local",
        "model.pt",
    )
    for open_it in (model.read_text, lambda: os.fspath(model), model.open, model.stat):
        with pytest.raises(RunStateError, match=r"has left no 'model\.pt'"):
            open_it()
    with pytest.raises(UnknownNameError):
        run.output("other.pt")

    scene.open()
    run.wait(20)
    assert model.read_text() == "weights\n" and model.is_file() and model.exists()
    assert folder.is_dir() and (folder / "a").read_text() == "1\n"
    assert not log.exists()


OUTPUT_PATH = """
import os, pathlib
from hpcml.errors import RunStateError
from hpcml.output import Origin, OutputPath

left = []
def check():
    if not left:
        raise RunStateError("it has left nothing", "Wait.")

origin = Origin("r", "s", "d", "model.pt")
path = OutputPath.of(os.path.abspath("x/model.pt"), origin, check)
assert isinstance(path, pathlib.PosixPath) and path.name == "model.pt"
assert not path.exists() and not path.is_file() and not path.is_dir()
assert path == pathlib.Path(str(path)) and hash(path) == hash(pathlib.Path(str(path)))
for use in (open, os.fspath, os.stat, OutputPath.read_text, OutputPath.stat):
    try:
        use(path)
    except RunStateError:
        continue
    raise AssertionError(use)
os.mkdir("x")
open("x/model.pt", "w").write("weights")
left.append(1)
assert path.exists() and path.is_file() and path.read_text() == "weights"
assert path.parent.is_dir() and path.with_suffix(".md").origin is None
assert (path.parent / "model.pt").read_text() == "weights"
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_an_output_behaves_alike_under_every_python_of_the_client(
    version: str, tmp_path: Path
) -> None:
    if version not in pythons():
        pytest.skip(f"there is no Python {version} here")
    environment = {"PYTHONPATH": str(Path(hpcml.__file__).parents[1])}
    command = [pythons()[version], "-c", OUTPUT_PATH]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# --- progress -----------------------------------------------------------------------------


@pytest.mark.usefixtures("unserved")
def test_many_runs_share_a_line_with_counts_rate_and_the_first_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand([{"n": n} for n in range(20)])
    made.queue()
    made.runs.seen()
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = progress.Many(20, made.runs._counts)

    assert shown.line() == "0 of 20 runs ended: 20 PENDING", "no rate, so no time is promised"
    made.end(3, exit_code=7)
    made.end(4)
    clock[0] += 4
    shown.update([(run, seen) for run, seen in made.runs.seen() if seen.state.final])
    assert shown.line() == (
        "2 of 20 runs ended, about 00:00:36 left, 0.5/s: 1 FAILED, 1 COMPLETED, 18 PENDING"
    )
    assert shown.first_failure() == f"first failure: {made.runs[3].id} FAILED exit code 7"


@pytest.mark.usefixtures("unserved")
def test_on_a_narrow_terminal_the_line_keeps_the_time_left_and_what_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {State.PENDING: 10_000}
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = progress.Many(10_000, lambda: counts)
    assert shown.line(80) == "0 of 10000 runs ended: 10000 PENDING"

    clock[0] += 160
    counts.update({State.PENDING: 7992, State.RUNNING: 8, State.COMPLETED: 1990, State.FAILED: 10})
    line = shown.line(80)
    assert line == "2000 of 10000 runs ended, about 00:10:40 left, 12.5/s: 10 FAILED, 8 RUNNING"
    assert len(line) <= 80
    assert shown.line().endswith("10 FAILED, 8 RUNNING, 1990 COMPLETED, 7992 PENDING")
    assert shown.line(10) == line.rpartition(": ")[0], "never less"


def test_in_a_pipe_many_runs_have_a_line_now_and_then_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand([{"n": n} for n in range(9)])
    for n in range(9):
        made.end(n)
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    made.runs.wait(10, progress=True)
    assert stderr.getvalue() == "9 of 9 runs ended: 9 COMPLETED\n"


def test_a_live_line_is_short_and_survives_what_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ByHand()
    ended(made, 0, log(1, loss=0.5, text="x" * 10**6))
    made.runs.seen()
    shown = progress.Live(made.runs, progress.Terminal())
    ((_, _, state, told),) = shown._rows()
    assert (state, told[:20], len(told)) == ("COMPLETED", "loss 0.5  text xxxxx", progress.LONGEST)

    for limit in (0, progress.AT_ONCE):
        made = ByHand()
        ended(made, 0, log(1, loss=0.5), cause="FAILED", reason="no idea")
        made.runs.seen()
        monkeypatch.setattr(progress, "AT_ONCE", limit)
        if limit:
            monkeypatch.setattr(LocalTransport, "get", lambda *args: 1 / 0)
        ((*_, told),) = progress.Live(made.runs, progress.Terminal())._rows()
        assert told == "no idea"


@pytest.mark.parametrize("count", [1, 9])
def test_while_somebody_waits_no_run_gets_control_over_the_terminal(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ByHand([{"n": "\x1b[2J"} for _ in range(count)])
    for n in range(count):
        made.end(n, exit_code=1, cause="FAILED", reason="\x1b]0;title\x07 \u202egnp.exe")
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    made.runs.wait(10, progress=True)
    screen = progress.Terminal()
    screen.rows([("id", made.runs[0].name, "FAILED", made.runs[0].reason)])
    screen.lines([made.runs[0].reason])
    with screen:
        pass
    assert "\\x1b]0;title\\x07 \\u202egnp.exe" in stderr.getvalue()
    assert all(one.isprintable() or one == "\n" for one in stderr.getvalue())


# --- following ----------------------------------------------------------------------------


def test_logs_are_followed_until_the_run_ends(
    scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    run = hpcml.submit(scene.job("echo first", WAIT_FOR_GATE, "echo last; echo oops >&2"))
    threading.Timer(0.5, scene.open).start()
    assert run.logs(follow=True) == "first\nlast\noops\n"
    assert capfd.readouterr() == ("first\nlast\n", "oops\n")


def test_listing_finds_runs_of_a_sweep_without_judging_them_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = hpcml.submit(gated_sweep(scene, {0: 0, 1: 1}))
    for n in range(2):
        open_gate(scene, n)
    runs.wait(30)
    made: list[str] = []
    init: Callable[..., None] = hpcml.Run.__init__

    def counted(run: hpcml.Run, id: str, site: str) -> None:
        made.append(id)
        init(run, id, site)

    monkeypatch.setattr(hpcml.Run, "__init__", counted)
    assert len(hpcml.runs()) == 2 and len(made) == 2
    assert len(hpcml.runs(state="FAILED")) == 1 and len(made) == 3


def test_the_id_of_a_submission_stands_for_all_its_runs(scene: Scene) -> None:
    runs = hpcml.submit(gated_sweep(scene, {0: 0, 1: 3}))
    batch = runs[0].id.rpartition(".")[0]
    hpcml.submit(scene.job())

    assert hpcml.runs(batch=batch) == runs
    with pytest.raises(RunNotFoundError, match=r"has 2 runs(.|\n)*hpcml\.runs\(batch="):
        hpcml.attach(batch)
    with pytest.raises(RunNotFoundError, match=r"^'nonsense' is no run's id"):
        hpcml.runs(batch="nonsense")
    with pytest.raises(RunNotFoundError, match=r"^'nonsense' is no run's id"):
        hpcml.attach("nonsense")
    with pytest.raises(RunNotFoundError, match=r"^'nonsense' is no run's id"):
        hpcml.Run("nonsense", "local")
    with pytest.raises(RunNotFoundError, match="is no run's id"):
        hpcml.Run(batch, "local")
    with pytest.raises(RunNotFoundError, match=rf"00001' is no submission's id\n.*{batch}\."):
        hpcml.runs(batch=runs[1].id)
    for n in (0, 1):
        open_gate(scene, n)
    runs.wait(30)
    for state in ("FAILED", "failed", State.FAILED):
        assert hpcml.runs(batch=batch, state=state) == hpcml.Runs([runs[1]])
    for state in ("nix", ["FAILED"], 3):
        with pytest.raises(ArgumentError, match=re.escape(f"there is no state {state!r}")):
            hpcml.runs(state=state)  # type: ignore[arg-type]


def test_a_timeout_is_a_number_of_seconds(scene: Scene) -> None:
    run = hpcml.submit(scene.job()).wait(30.0)
    runs = hpcml.Runs([run])
    for timeout in ("1s", float("nan"), float("inf"), [1]):
        for wait in (run.wait, run.result, run.exception, runs.wait):
            with pytest.raises(ArgumentError, match=r"no number of seconds\n.*30 or 0\.5"):
                wait(timeout)  # type: ignore[operator]
        with pytest.raises(ArgumentError, match="no number of seconds"):
            list(runs.as_completed(timeout))  # type: ignore[arg-type]


@pytest.mark.usefixtures("unserved")
def test_where_there_is_no_reason_a_timeout_ends_in_no_colon() -> None:
    made = ByHand()
    made.queue()
    made.start()
    run = made.runs[0]
    assert (run.state, run.reason) == ("RUNNING", "")
    with pytest.raises(TimeoutError, match=r"is RUNNING after 0 s$"):
        run.result(timeout=0)


def test_an_output_that_is_not_declared_is_answered_with_how_to_declare_it() -> None:
    (run,) = ByHand().runs
    with pytest.raises(UnknownNameError, match=r'Declare it, outputs=\["results\.csv"\]'):
        run.output("results.csv")
    (run,) = ByHand(outputs=["model.pt"]).runs
    with pytest.raises(UnknownNameError, match=r"did you mean 'model\.pt'\?"):
        run.output("model.pth")
