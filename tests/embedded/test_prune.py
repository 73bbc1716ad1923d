"""Pruning: what is freed, what never is, and that it may be killed, or raced, anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import batch as batches
from hpcml import records, submission
from hpcml.batch import Batch
from hpcml.batch_view import Seen
from hpcml.connection import connect
from hpcml.errors import ArgumentError, HpcmlError, RecordsError, RunNotFoundError, TransportError
from hpcml.poller import poller
from hpcml.pruning import Item, Kept, Pruning
from hpcml.pruning.use import Named, Use
from hpcml.states import State
from hpcml.transports import base
from hpcml.transports.local import LocalTransport
from tests.conftest import end_everything_below, eventually
from tests.embedded.scene import Scene

DAY = 86400
GONE = f"hpcml-{'0' * 16}"  # a library that no batch names
BIG = 'head -c 1000000 /dev/urandom > big; echo hello; echo "$NAME" >> "$LEDGER"'

# With the outbox, and before it was published.
BROKEN_OFF = """
import os, hpcml, hpcml.submission as submission
submission._appears_at_once = lambda *_: False
submission.prepare = lambda *_: os._exit(0)
"""


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many days go by, for the site's clock and this machine's."""

    def go_by(days: float) -> None:
        clock = time.time
        monkeypatch.setattr(LocalTransport, "now", lambda self: clock() + days * DAY)
        monkeypatch.setattr("hpcml.pruning.candidates.time.time", lambda: clock() + days * DAY)

    return go_by


def settled(scene: Scene) -> None:
    """The queue is empty, and nobody serves it, or works for a run: a sampler ends after it."""
    eventually(lambda: not (scene.dispatchers() or scene.queue() or scene.agents()))


def finished(scene: Scene, *commands: str, **options: Any) -> hpcml.Run:
    """A run that has ended, and left the queue."""
    run = hpcml.submit(scene.job(*commands or [BIG], **options)).wait(30)
    assert run.state == "COMPLETED", run.reason
    settled(scene)
    return run


def everything(**options: Any) -> Pruning:
    """What is freed if age does not matter."""
    return hpcml.prune(down_to="0 B", **options)


def kinds(pruning: Pruning) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in pruning.items:
        found.setdefault(item.kind, []).append(item.name)
    return found


def why(pruning: Pruning, run: hpcml.Run) -> str:
    (found,) = [kept.why for kept in pruning.kept if kept.name == batches.batch_of(run.id)]
    return found


def tree(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_mtime_ns for p in folder.rglob("*")}


def apply(pruning: Pruning) -> Pruning:
    done = pruning.apply()
    assert done.freed and done.kept == ()
    return done


# --- what is freed ------------------------------------------------------------------------


def test_what_ended_long_ago_is_shown_and_nothing_is_changed(
    scene: Scene, later: Callable[[float], None]
) -> None:
    run = finished(scene)
    assert hpcml.prune().items == ()

    later(40)
    before = tree(scene.workspace)
    found = hpcml.prune()

    assert kinds(found)["runs"] == [batches.batch_of(run.id)]
    assert found.bytes >= 1_000_000 and not found.freed
    (item,) = [item for item in found.items if item.kind == "runs"]
    assert 39 * DAY < item.age < 41 * DAY and item.about == "ran, 1 run"
    assert tree(scene.workspace) == before
    assert "can be freed on local" in str(found) and batches.batch_of(run.id) in str(found)


def test_what_was_freed_is_on_record_and_nowhere_else(
    scene: Scene, later: Callable[[float], None], project: Path
) -> None:
    (project / "train.py").write_text(
        "import hpcml\nhpcml.log(loss=0.5)\nopen('model', 'w').write('1')\n"
    )
    run = hpcml.submit("train.py", params={"width": 7}, outputs=["model"]).wait(30)
    settled(scene)
    left = run.attempts[-1].end
    assert left is not None
    later(40)

    done = apply(hpcml.prune())

    assert sorted(kinds(done)) == ["code", "library", "runs"]
    for folder in ("runs", "code", "lib"):
        assert os.listdir(scene.workspace / folder) == []
    assert list(hpcml.runs()) == []
    with pytest.raises(RunNotFoundError):
        hpcml.attach(run.id)
    (record,) = records.find(id=run.id)
    assert (record.state, dict(record.params)["width"]) == ("COMPLETED", 7)
    assert records.history(run.id, "loss")[-1].value == 0.5
    assert left["outputs"]["model"]["sha256"] in str(record)
    hpcml.sync()
    assert [one.id for one in records.find()] == [run.id]
    assert hpcml.prune().items == ()


def test_the_next_submission_brings_what_was_freed(
    scene: Scene, later: Callable[[float], None], script: Callable[..., str]
) -> None:
    hpcml.submit(script("print(1)")).wait(30)
    settled(scene)
    later(40)
    apply(hpcml.prune())

    assert hpcml.submit("train.py").wait(30).logs() == "1\n"


def test_young_runs_stay_unless_the_workspace_is_to_shrink(scene: Scene) -> None:
    runs = [finished(scene) for _ in range(3)]
    first, second, third = [batches.batch_of(run.id) for run in runs]
    assert "runs" not in kinds(hpcml.prune(older_than="1h"))
    assert "runs" not in kinds(hpcml.prune(down_to="1 TiB"))
    usage = hpcml.submission.connect("local").files.usage([""])
    assert usage is not None

    assert kinds(hpcml.prune(down_to=f"{usage.bytes - 1000} B"))["runs"] == [first]
    assert kinds(hpcml.prune(down_to=f"{usage.bytes - 1_500_000} B"))["runs"] == [first, second]
    assert kinds(hpcml.prune(down_to="0 B"))["runs"] == [first, second, third]
    assert "runs" not in kinds(hpcml.prune(down_to="0 B", older_than="1d"))


def test_code_of_young_submissions_stays_a_day_for_the_next(
    scene: Scene, script: Callable[..., str]
) -> None:
    hpcml.submit(script("print(1)")).wait(30)
    settled(scene)

    assert sorted(kinds(apply(everything()))) == ["runs"]


def test_with_work_only_states_logs_and_metrics_stay(
    scene: Scene, script: Callable[..., str]
) -> None:
    script("import hpcml\nhpcml.log(loss=0.5)\nprint('hello')\nopen('big', 'w').write('x' * 9999)")
    runs = hpcml.submit(hpcml.Job("train.py", params={"n": 0}).sweep(n=[1, 2])).wait(30)
    settled(scene)

    done = apply(everything(work_only=True))

    assert kinds(done) == {"work": [batches.batch_of(runs[0].id)]}
    assert [run.files() for run in hpcml.runs()] == [[], []]
    for run in hpcml.runs():
        assert (run.state, run.logs(), run.metrics) == ("COMPLETED", "hello\n", {"loss": 0.5})
    assert everything(work_only=True).items == ()
    assert [run.state for run in hpcml.resubmit(runs).wait(30)] == ["COMPLETED"] * 2
    assert os.listdir(scene.workspace / "runs")


def test_what_jobs_made_read_only_is_freed(scene: Scene) -> None:
    finished(scene, "mkdir -p a/b; touch a/b/c; chmod 500 a/b a .; ln -s / root; ln a/b/c d || :")

    apply(everything())

    assert os.listdir(scene.workspace / "runs") == []
    assert Path("/etc").is_dir()


def test_many_files_are_freed(scene: Scene) -> None:
    finished(
        scene, "i=0; while [ $i -lt 100 ]; do mkdir $i; (cd $i; : > a; : > b); i=$((i+1)); done"
    )

    (item,) = apply(everything()).items

    assert item.whole and os.listdir(scene.workspace / "runs") == []


# --- what never is ------------------------------------------------------------------------


def test_a_run_that_has_not_ended_is_not_freed(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)

    found = everything()

    assert "runs" not in kinds(found) and why(found, run) == "it has not ended"


def test_a_run_that_nobody_knows_of_is_not_freed(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Its queue may hear of it yet: UNKNOWN is no end."""
    another_python(
        "import os, hpcml\nfrom hpcml.schedulers.process import ProcessScheduler\n"
        "ProcessScheduler.submit = lambda *a: os._exit(0)\n"
        "hpcml.submit(hpcml.Job(['true'], code=None))"
    )
    (run,) = hpcml.runs()
    assert run.state == "UNKNOWN"

    assert why(everything(), run) == "it is in this machine's outbox"


def test_the_outputs_that_a_waiting_run_reads_are_not_freed(scene: Scene, unserved: None) -> None:
    made = served_run(scene, "echo 1 > model", outputs=["model"])
    reader = hpcml.submit(scene.job("cat $HPCML_INPUT_M"), inputs={"m": made.output("model")})

    found = everything()

    reader_batch = batches.batch_of(reader.id)
    assert why(found, made) == f"{reader_batch} uses it, which has not ended"


def served_run(scene: Scene, *commands: str, outputs: list[str] | None = None) -> hpcml.Run:
    """A run that another process has submitted, with its own queue."""
    code = (
        "import sys, json, hpcml\n"
        "script, outputs = sys.argv[1], json.loads(sys.argv[2])\n"
        "job = hpcml.Job(['/bin/sh', '-c', script], code=None, outputs=outputs)\n"
        "print(hpcml.submit(job).wait(30).id)"
    )
    argv = [sys.executable, "-c", code, "; ".join(commands), json.dumps(outputs or [])]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    settled(scene)
    return hpcml.attach(done.stdout.strip())


def test_a_path_in_a_parameter_keeps_what_it_leads_into(scene: Scene, unserved: None) -> None:
    made = served_run(scene, "echo 1 > model")
    path = str(scene.batch(made) / "0" / "work" / "model")
    user = hpcml.submit(scene.job(), params={"start": path})

    assert batches.batch_of(user.id) in why(everything(), made)


@pytest.mark.parametrize("within", [False, True])
def test_what_the_links_of_an_input_lead_to_is_not_freed(
    scene: Scene, unserved: None, within: bool
) -> None:
    made = served_run(scene, "echo 1 > model")
    data = scene.folder / "data"
    link = data / "link" if within else data
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(scene.batch(made) / "0" / "work" / "model")
    user = hpcml.submit(scene.job(), inputs={"data": str(data)})

    assert batches.batch_of(user.id) in why(everything(), made)


def test_what_a_waiting_run_comes_after_is_not_freed(scene: Scene, unserved: None) -> None:
    first = served_run(scene, "true")
    second = hpcml.submit(scene.job(), after=first)

    assert batches.batch_of(second.id) in why(everything(), first)


def test_neither_parents_nor_children_of_what_goes_on_are_freed(
    scene: Scene, unserved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child's outcome is what its parent waits for; and a child names its parent."""
    ended, other = served_run(scene, "true"), served_run(scene, "true")
    new, parents = submission.new_batch, {"child": ended.id}

    def with_parent(*args: Any, **keywords: Any) -> Batch:
        import dataclasses

        made = new(*args, **keywords)
        submission = dataclasses.replace(made.submission, parent=parents["child"])
        return dataclasses.replace(made, submission=submission)

    monkeypatch.setattr(submission, "new_batch", with_parent)
    child = hpcml.submit(scene.job())
    assert batches.batch_of(child.id) in why(everything(), ended)

    plan = scene.batch(other) / "plan.json"
    data = json.loads(plan.read_text())
    data["batch"]["parent"] = child.id
    plan.write_text(json.dumps(data))
    assert why(everything(), other) == f"{child.id} submitted it, and may wait for it"


def test_what_a_broken_off_submission_needs_is_not_freed(
    scene: Scene,
    script: Callable[..., str],
    later: Callable[[float], None],
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """It is in the outbox alone, and the site has its code from another run."""
    first = hpcml.submit(script("print(1)")).wait(30)
    settled(scene)
    another_python(BROKEN_OFF + f"hpcml.submit('train.py', after={first.id!r})")
    (waiting,) = [run for run in hpcml.runs() if run != first]
    later(40)

    found = hpcml.prune()

    assert "runs" not in kinds(found) and "code" not in kinds(found)
    assert "library" not in kinds(found)
    assert f"{batches.batch_of(waiting.id)} uses it" in why(found, first)
    waiting.resume()
    assert waiting.wait(30).logs() == "1\n"


def test_a_cancelled_submission_keeps_nothing(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first = finished(scene)
    another_python(BROKEN_OFF + f"hpcml.submit(hpcml.Job(['true'], code=None), after={first.id!r})")
    (waiting,) = [run for run in hpcml.runs() if run != first]
    waiting.cancel()

    assert kinds(everything())["runs"] == [batches.batch_of(first.id)]


def test_code_and_libraries_of_what_stays_are_not_freed(
    scene: Scene, script: Callable[..., str], later: Callable[[float], None]
) -> None:
    old = hpcml.submit(script("print(1)")).wait(30)
    hpcml.submit(scene.job(), after=old, env={"X": "1"}).wait(30)
    settled(scene)
    later(20)
    young = hpcml.submit("train.py").wait(30)
    settled(scene)
    then = time.time() + 20 * DAY
    os.utime(scene.attempt(young, "end").parent, (then, then))
    library = str(old.plan.where["library"]).removesuffix(".pyz")
    bytecode = [scene.workspace / "lib" / f"{it}.cpython-39.zip" for it in (library, GONE)]
    for path in bytecode:
        path.write_bytes(b"x")
    for path in (scene.workspace / "code" / old.plan.what["code"], *bytecode):
        os.utime(path, (1, 1))

    later(40)
    found = hpcml.prune()

    assert len(kinds(found)["runs"]) == 2 and batches.batch_of(young.id) not in str(found.items)
    assert "code" not in kinds(found) and kinds(found)["library"] == [bytecode[1].name]


def test_libraries_stay_while_the_queue_has_jobs(
    scene: Scene, unserved: None, later: Callable[[float], None]
) -> None:
    served_run(scene, "true")
    another = scene.workspace / "lib" / f"hpcml-{'0' * 16}.pyz"
    another.write_bytes(b"x")
    os.utime(another, (1, 1))
    hpcml.submit(scene.job())

    found = hpcml.prune()

    assert "library" not in kinds(found)
    assert [kept.why for kept in found.kept if kept.name == another.name] == [
        "the queue has jobs, and its dispatcher may be running from it"
    ]


def test_what_is_no_submission_is_not_touched(scene: Scene, later: Callable[[float], None]) -> None:
    finished(scene)
    runs = scene.workspace / "runs"
    (runs / "notes.txt").write_text("mine")
    (runs / "\x1b[2J").mkdir()
    (runs / "20260101-000000-aaaaaa").symlink_to(scene.folder)
    torn = runs / "20260101-000000-bbbbbb"
    torn.mkdir()
    (torn / "plan.json").write_text("{")
    (torn / "points.jsonl").write_text("{}\n")
    later(40)

    found = hpcml.prune()

    assert len([kept for kept in found.kept if kept.kind == "runs"]) == 4
    assert "\x1b" not in str(found) and "\\x1b[2J" in str(found)
    apply(found)
    assert len(os.listdir(runs)) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_is_somebody_elses_is_reported_and_passed_over(scene: Scene) -> None:
    run = finished(scene)
    theirs = scene.batch(run) / "0" / "work" / "big"
    os.chown(theirs, 12345, 12345)

    found = everything()

    assert "runs" not in kinds(found) and str(theirs) in why(found, run)


def test_a_job_frees_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(scene)
    monkeypatch.setenv("HPCML_BATCH", str(scene.batch(run)))
    monkeypatch.setenv("HPCML_INDEX", "0")

    with pytest.raises(HpcmlError, match="a job frees nothing"):
        hpcml.prune()


@pytest.mark.parametrize("wrong", [{"older_than": "soon"}, {"older_than": 30}, {"down_to": "20"}])
def test_ages_and_sizes_have_units(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        hpcml.prune(**wrong)


# --- between the look and the deed --------------------------------------------------------


def test_what_has_come_into_use_since_the_look_stays(scene: Scene, unserved: None) -> None:
    made = served_run(scene, "echo 1 > model", outputs=["model"])
    found = everything()
    assert "runs" in kinds(found)
    reader = hpcml.submit(scene.job(), inputs={"m": made.output("model")})

    done = found.apply()

    assert done.items == () and batches.batch_of(reader.id) in why(done, made)
    assert made.output("model").read_text() == "1\n"


def test_a_snapshot_that_somebody_relies_on_since_the_look_stays(
    scene: Scene, script: Callable[..., str], later: Callable[[float], None]
) -> None:
    run = hpcml.submit(script("print(1)")).wait(30)
    settled(scene)
    later(40)
    found = hpcml.prune()
    assert "code" in kinds(found)
    code = f"code/{run.plan.what['code']}"
    far = time.time() + 40 * DAY
    os.utime(scene.workspace / code, (far, far))

    done = found.apply()

    assert "code" not in kinds(done) and (scene.workspace / code).is_dir()


def test_what_a_submission_relies_on_is_young_again(
    scene: Scene, script: Callable[..., str]
) -> None:
    """Another machine's outbox cannot be seen, and may need it for a while."""
    run = hpcml.submit(script("print(1)")).wait(30)
    relied_on = [
        scene.workspace / "code" / run.plan.what["code"],
        scene.workspace / "lib" / run.plan.where["library"],
    ]
    for path in relied_on:
        os.utime(path, (1, 1))

    hpcml.submit("train.py").wait(30)

    assert all(path.stat().st_mtime > time.time() - DAY for path in relied_on)


def test_what_was_freed_since_it_was_listed_is_no_trouble(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lists runs just then sees the others."""
    gone, there = finished(scene), finished(scene)
    names = LocalTransport.names

    def listed(files: LocalTransport, folder: str) -> set[str] | None:
        found = names(files, folder)
        if folder == "runs" and scene.batch(gone).exists():
            scene.batch(gone).rename(scene.folder / "elsewhere")
        return found

    monkeypatch.setattr(LocalTransport, "names", listed)
    poller("local").views.clear()

    assert [run.id for run in hpcml.runs()] == [there.id]


def test_nobody_prunes_while_somebody_submits(
    scene: Scene, script: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no step between looking what the site has and the batch's appearing there."""
    finished(scene)
    monkeypatch.setattr(base, "PATIENCE", 0.05)
    found, refused = everything(), []
    prepare, publish = submission.prepare, submission.publish

    def meanwhile(*args: Any) -> None:
        with pytest.raises(TransportError, match="somebody is submitting"):
            found.apply()
        refused.append(args)

    def hook(function: Callable[..., None]) -> Callable[..., None]:
        return lambda *args, **more: (meanwhile(), function(*args, **more), meanwhile())[1]

    monkeypatch.setattr(submission, "prepare", hook(prepare))
    monkeypatch.setattr(submission, "publish", hook(publish))

    run = hpcml.submit(script("print(1)"))

    assert run.wait(30).logs() == "1\n" and len(refused) == 4


def test_submissions_and_prunes_at_once_cost_no_run(scene: Scene, project: Path) -> None:
    """Each submission has old code on the site that nobody else names."""
    (project / "train.py").write_text("print(1)")
    first = hpcml.submit("train.py").wait(30)
    settled(scene)
    stop, errors, freed = threading.Event(), [], []

    def prune() -> None:
        while not stop.is_set():
            for folder in ("code", "lib"):
                for entry in (scene.workspace / folder).glob("[!.]*"):
                    try:
                        os.utime(entry, (1, 1))
                    except FileNotFoundError:
                        continue
            try:
                freed.extend(everything(without_records=True).apply().items)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=prune) for _ in range(2)]
    for thread in threads:
        thread.start()
    done = []
    try:
        for _ in range(10):
            run = hpcml.submit("train.py")
            try:
                done.append(run.wait(30).state)
            except RunNotFoundError:
                done.append("freed")  # it had ended by then
            assert run.last_seen is None or run.last_seen.state != "FAILED", run.reason
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert set(done) <= {"COMPLETED", "freed"} and errors == []
    assert first.id not in {run.id for run in hpcml.runs()}
    assert {item.kind for item in freed} >= {"runs", "code"}


def test_of_two_prunes_at_once_each_thing_is_freed_by_one(scene: Scene) -> None:
    for _ in range(4):
        finished(scene)
    both = [everything(without_records=True) for _ in range(2)]
    done: list[Pruning] = []
    threads = [threading.Thread(target=lambda p=p: done.append(p.apply())) for p in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = [item.name for one in done for item in one.items]
    assert sorted(names) == sorted(item.name for item in both[0].items)
    assert [one.kept for one in done] == [(), ()]
    assert os.listdir(scene.workspace / "runs") == []


# --- killed -------------------------------------------------------------------------------

PRUNE = """
import os, signal, sys
import hpcml, hpcml.agent.trees, hpcml.records
from hpcml.transports.local import LocalTransport

left = int(sys.argv[1])

def step():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(function):
    def wrapped(*args, **keywords):
        step()
        return function(*args, **keywords)
    return wrapped

found = hpcml.prune(down_to="0 B")
for name in ("rename", "unlink", "rmdir", "chmod"):
    setattr(os, name, counted(getattr(os, name)))
hpcml.records.ingest = counted(hpcml.records.ingest)
found.apply()
"""


def test_killed_before_any_of_its_file_operations_nothing_is_half_gone(scene: Scene) -> None:
    """What a run was is on record, or its files are whole; the next prune removes the rest."""
    template = finished(scene, "mkdir -p a/b; : > a/b/c; : > d; chmod 500 a; echo hello")
    batch = scene.batch(template)
    whole = sorted(tree(batch))
    keep = scene.folder / "keep"
    subprocess.run(["cp", "-a", str(batch), str(keep)], check=True)
    step = killed = 0
    while True:
        done = subprocess.run(
            [sys.executable, "-c", PRUNE, str(step)], capture_output=True, text=True
        )
        if batch.exists():
            assert sorted(tree(batch)) == whole
            assert hpcml.attach(template.id).logs() == "hello\n"
        else:
            assert records.recorded([batch.name]) == {batch.name}
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        rest = everything()
        assert batch.exists() or set(kinds(rest)) <= {"leftover"}
        apply(rest)
        assert os.listdir(scene.workspace / "runs") == []
        subprocess.run(["cp", "-a", str(keep), str(batch)], check=True)
        step += 1
    assert killed > 15
    assert os.listdir(scene.workspace / "runs") == []


def test_a_prune_killed_while_it_holds_the_workspace_holds_up_nobody(scene: Scene) -> None:
    finished(scene)
    code = (
        "import os, signal, hpcml\nfrom hpcml.transports.local import LocalTransport\n"
        "found = hpcml.prune(down_to='0 B')\n"
        "LocalTransport.move = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "found.apply()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr

    assert hpcml.submit(scene.job()).wait(30).state == "COMPLETED"


def test_what_is_left_of_a_submission_that_was_removed_while_it_ran_goes_in_a_day(
    scene: Scene, later: Callable[[float], None]
) -> None:
    """Its job went on, and has written where its run was."""
    run = finished(scene)
    batch = batches.batch_of(run.id)
    folder = scene.workspace / "runs" / batch
    shutil.rmtree(folder)
    (folder / "0" / "work").mkdir(parents=True)
    (folder / "0" / "work" / "model.pt").write_text("weights")
    poller("local").views.clear()  # as another process sees it

    (kept,) = [one for one in everything().kept if one.name == batch]
    assert "something may still write there" in kept.why
    listed = subprocess.run(
        [sys.executable, "-c", "import hpcml; print(hpcml.runs())"], capture_output=True, text=True
    )
    assert "What is left goes with `hpcml prune`, after a day" in listed.stderr
    later(2)
    assert kinds(apply(everything()))["leftover"] == [batch]
    assert not folder.exists()


# --- records ------------------------------------------------------------------------------


def test_what_cannot_be_recorded_stays_unless_one_says_otherwise(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(scene)

    def fail(*args: Any) -> int:
        raise RecordsError("the records are full", "Free some space.")

    monkeypatch.setattr(records, "ingest", fail)
    done = everything().apply()
    assert done.items == () and why(done, run) == "it cannot be recorded: the records are full"
    assert run.logs() == "hello\n"

    apply(everything(without_records=True))
    assert list(hpcml.runs()) == []


def test_what_is_recorded_in_part_only_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(scene)
    monkeypatch.setattr(records, "ingest", lambda *args: 0)

    assert why(everything().apply(), run) == "not all of it is on record yet"


def test_records_on_this_node_alone_do_not_count(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are made anew from the sites on the next node; then these runs would be missing."""
    run = finished(scene)
    monkeypatch.setattr("hpcml.records.place.network_of", lambda p: "NFS" * ("state" in str(p)))

    assert "on this machine alone" in why(everything().apply(), run)


def test_on_a_full_disk_leftovers_go_before_anything_is_recorded(
    scene: Scene, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(scene)
    litter = scene.workspace / "lib" / ".tmp-host-1-abc"
    litter.write_bytes(b"x")
    os.utime(litter, (1, 1))
    found, seen = everything(), []
    monkeypatch.setattr(records, "recorded", lambda names: seen.append(litter.exists()) or {*names})

    apply(found)

    assert seen == [False]


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of 8 MiB that has the embedded site's workspace."""
    settings, folder = home / "config" / "hpcml" / "config.yaml", home / "disk"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"sites: {{local: {{workspace: {folder}/workspace}}}}\n")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "hpcml-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        yield folder
    finally:
        end_everything_below(folder)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_is_freed(small_disk: Path, scene: Scene) -> None:
    scene.workspace = small_disk / "workspace"
    finished(scene)
    with pytest.raises(OSError, match="No space left"), open(small_disk / "filler", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "folder").mkdir()
        for number in range(9000):
            (small_disk / "folder" / str(number)).write_bytes(b"x")

    done = apply(everything())

    assert done.bytes > 1_000_000 and os.listdir(scene.workspace / "runs") == []


# --- leftovers ----------------------------------------------------------------------------


def test_what_killed_processes_left_is_freed_after_a_day(scene: Scene) -> None:
    finished(scene)
    workspace = scene.workspace
    old = [
        workspace / "runs" / ".tmp-host-1-a" / "plan.json",
        workspace / "code" / ".tmp-host-1-b" / "read-only" / "file",
        workspace / "lib" / ".tmp-host-1-c",
        workspace / "queue" / ".tmp-host-1-d",
        workspace / "queue" / "000000000000000001-20260101-000000-aaaaaa.0.slot.0",
        workspace / "queue" / "000000000000000001-20260101-000000-bbbbbb.0.job",
    ]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    assert hpcml.prune().items == ()
    tops = [workspace / Path(*path.relative_to(workspace).parts[:2]) for path in old]
    for path in tops:
        os.utime(path, (1, 1))

    done = apply(hpcml.prune())

    assert len(done.items) == 6 and set(kinds(done)) == {"leftover"}
    assert not any(path.exists() for path in tops)


def test_every_call_of_the_queue_that_a_batch_takes_keeps_it(scene: Scene, unserved: None) -> None:
    """A queue may take a large batch in several calls, of which the first may be over."""
    run = hpcml.submit(scene.job())
    (job,) = (scene.workspace / "queue").glob("*.0.job")
    job.rename(job.with_name(job.name.replace(".0.job", ".1.job")))
    view = poller("local").view(batches.batch_of(run.id))
    view.seen[0] = Seen(State.COMPLETED)
    view.ended.append(0)

    assert why(everything(), run) == "the queue still has it"


def test_code_that_nobody_names_is_looked_up_and_not_searched_for() -> None:
    """Of thousands of snapshots and submissions each is looked at once."""
    use, looked = Use(connect("local")), Counter[str]()

    class Noted(frozenset[str]):
        def __contains__(self, name: object) -> bool:
            looked["in"] += 1
            return super().__contains__(name)

        def __iter__(self) -> Iterator[str]:
            looked["all"] += 1
            return super().__iter__()

    folders = [f"20260101-000000-{n:06d}" for n in range(100)]
    for name in folders:
        (Path(use.connection.binding.workspace) / "runs" / name).mkdir(parents=True)
        use._there[name] = Named(Noted(), Noted([f"{int(name[-6:]):064x}"]))
    use.refresh()
    use.going |= {*folders}

    assert use.of_file(f"{7:064x}") == f"{folders[7]} was made with it"
    assert [use.of_file(f"{n + 100:064x}") for n in range(100)] == [""] * 100
    assert {use.of_batch("20260101-000001-aaaaaa") for _ in range(100)} == {""}
    assert looked["all"] <= 400 and looked["in"] == 0


def test_a_notebook_shows_what_would_be_freed_bounded_and_escaped() -> None:
    items = tuple(Item("runs", f"{n}", 1, 0.0, "<script>", ()) for n in range(60))
    kept = tuple(Kept("runs", f"{n}", "<b>" + "x" * 10_000) for n in range(60))
    shown = Pruning("local", "/w", items, kept)._repr_html_()
    assert "<script" not in shown and "<b>" not in shown and len(shown) < 60_000
    assert "… and 10 more items" in shown and "… and 10 more that stay" in shown


def test_files_of_the_queue_that_serve_somebody_stay(scene: Scene) -> None:
    hpcml.submit(scene.gated())
    eventually(scene.lines)
    for path in (scene.workspace / "queue").iterdir():
        os.utime(path, (1, 1))

    assert hpcml.prune().items == ()


def test_what_this_machine_remembers_is_freed_when_long_unused(
    scene: Scene, home: Path, script: Callable[..., str], later: Callable[[float], None]
) -> None:
    (scene.folder / "data").write_text("1")
    hpcml.submit(script("print(1)"), inputs={"d": str(scene.folder / "data")}).wait(30)
    settled(scene)
    cache, state = home / "cache" / "hpcml", home / "state" / "hpcml"
    (cache / "lib" / f"hpcml-{'0' * 16}.pyz").write_bytes(b"x")
    (cache / "code").mkdir(exist_ok=True)
    (cache / "code" / f"{'0' * 64}.tar").write_bytes(b"x")
    (state / "index.db.corrupt-20260101-000000").write_bytes(b"x")
    (state / "outbox" / ".tmp-host-1-a").write_bytes(b"x")
    assert "cache" not in kinds(hpcml.prune())
    later(40)

    done = apply(hpcml.prune())

    assert len(kinds(done)["cache"]) == 5
    assert os.listdir(cache / "digests") == [] and os.listdir(cache / "code") == []
    assert len(os.listdir(cache / "lib")) == 1  # this version's own


# --- those who look on --------------------------------------------------------------------


def test_whoever_looks_at_freed_runs_is_told_so(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = finished(scene)
    assert run.state == "COMPLETED"
    another_python("import hpcml; hpcml.prune(down_to='0 B').apply()")

    assert run.state == "COMPLETED"  # that was seen, and stays so
    for ask in (run.logs, run.files, run.fetch, lambda: run.metrics, lambda: run.energy):
        with pytest.raises(RunNotFoundError, match="are not on local any more"):
            ask()
    with pytest.raises(RunNotFoundError, match="not on local any more"):
        hpcml.resubmit(run)
    assert batches.outbox_ids() == []


def test_whoever_waits_for_runs_that_are_removed_is_told_so(scene: Scene, unserved: None) -> None:
    """They may have ended, and been freed, between two looks."""
    run = hpcml.submit(scene.job())
    future = run.future()
    assert run.state == "PENDING"
    scene.batch(run).rename(scene.folder / "elsewhere")

    for ask in (lambda: run.state, run.wait, run.result, lambda: hpcml.Runs([run]).states):
        with pytest.raises(RunNotFoundError, match="not on local any more"):
            ask()
    with pytest.raises(RunNotFoundError, match="not on local any more"):
        future.result(timeout=30)
    assert list(hpcml.runs()) == []
