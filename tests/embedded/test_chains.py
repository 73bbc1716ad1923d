"""Runs that feed each other: outputs as inputs, inputs that change, and running again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.errors import (
    ArgumentError,
    CodeError,
    JobError,
    RunNotFoundError,
    RunStateError,
    UnknownNameError,
)
from tests.conftest import eventually
from tests.embedded.scene import Scene, small_machine

TRAIN = 'while [ ! -e "$GATE" ]; do sleep 0.02; done; printf weights > model.pt'
INFER = ["/bin/sh", "-c", 'cat "$1" >> said', "sh", "{inputs.model}"]


def train(scene: Scene, *commands: str) -> hpcml.Run:
    """A run that leaves ``model.pt`` when its gate opens."""
    job = scene.job(*(commands or [TRAIN]), name="train")
    return hpcml.submit(job, outputs=["model.pt"])


def infer(model: object, **fields: object) -> hpcml.Run:
    """A run that reads it."""
    job = hpcml.Job(INFER, name="infer", outputs=["said"], code=None)
    return hpcml.submit(job, inputs={"model": model}, **fields)


def remove(scene: Scene, run: hpcml.Run) -> None:
    """Somebody removes its batch, though an agent may be at work there."""
    gone = scene.workspace / "runs" / run.id.partition(".")[0]
    gone.rename(scene.folder / "moved")  # at once, then
    shutil.rmtree(scene.folder / "moved", ignore_errors=True)


# --- the output of a run as an input --------------------------------------------------------


def test_an_output_is_an_input_before_its_run_has_ended(scene: Scene) -> None:
    first = train(scene)
    second = infer(first.output("model.pt"))
    assert second.state == "PENDING" and first.id in second.reason

    scene.open("train")

    assert second.wait(30).state == "COMPLETED", second.reason
    assert second.output("said").read_text() == "weights"
    assert first.state == "COMPLETED"
    used = second.attempts[-1].end["inputs"]  # type: ignore[index]
    assert used == {"model": wire.sha256(b"weights")}


def test_the_plan_names_an_input_to_come_by_the_run_that_makes_it(scene: Scene) -> None:
    first = train(scene)
    before = hpcml.plan(hpcml.Job(INFER, code=None), inputs={"model": first.output("model.pt")})
    scene.open("train")
    first.wait(30)
    after = hpcml.plan(hpcml.Job(INFER, code=None), inputs={"model": first.output("model.pt")})

    assert before.what["inputs"] == {"model": {"of": f"{first.digest}#model.pt"}}
    assert before.digest == after.digest is not None
    assert first.id not in json.dumps(dict(before.what))


def test_if_the_first_fails_the_second_is_cancelled_with_that_reason(scene: Scene) -> None:
    first = train(scene, "exit 3")
    second = infer(first.output("model.pt"))

    assert second.wait(30).state == "CANCELLED"
    assert second.reason == f"it was to run after {first.id}, which is FAILED"


@pytest.mark.parametrize("removed_by_hand", [False, True])
def test_a_chain_on_a_run_whose_files_were_freed_is_refused(
    scene: Scene, removed_by_hand: bool
) -> None:
    first = train(scene)
    scene.open("train")
    first.wait(30)
    output = first.output("model.pt")
    if removed_by_hand:
        remove(scene, first)
    else:
        eventually(lambda: not scene.dispatchers() and not scene.queue())
        assert hpcml.prune(down_to="0 B").apply().freed
    before = hpcml.runs()

    for submit in (lambda: infer(output), lambda: hpcml.submit(scene.job(), after=first)):
        with pytest.raises(RunNotFoundError, match=r"files of .* any more"):
            submit()
    assert hpcml.runs() == before


def test_a_run_that_waits_for_one_that_is_removed_says_so(scene: Scene) -> None:
    first = train(scene)
    second = infer(first.output("model.pt"))
    eventually(lambda: "train" in scene.lines() or first.state == "RUNNING")
    remove(scene, first)

    assert second.wait(30).state == "CANCELLED"
    assert second.reason == f"it was to run after {first.id}, whose files are gone"
    scene.open("train")


def test_a_chain_of_three_runs_in_its_order(scene: Scene) -> None:
    first = train(scene)
    second = infer(first.output("model.pt"))
    third = infer(second.output("said"))
    scene.open("train")

    assert third.wait(30).output("said").read_text() == "weights"


def test_a_function_gets_the_path_of_an_input_by_name(scene: Scene) -> None:
    def size(model: str, factor: int) -> int:
        return os.stat(model).st_size * factor

    first = train(scene)
    second = hpcml.submit(size, params={"factor": 2}, inputs={"model": first.output("model.pt")})
    scene.open("train")

    assert second.result(30) == 14


def test_an_output_that_somebody_has_changed_since_is_refused(scene: Scene) -> None:
    first = train(scene)
    scene.open("train")
    path = first.wait(30).output("model.pt")
    path.write_text("WEIGHTS")

    second = infer(path)

    assert second.wait(30).state == "FAILED"
    assert "'model'" in second.reason and "content has changed" in second.reason
    assert "said" not in second.files(), "it was not started"


def test_an_optional_output_that_was_not_left_cannot_be_read(scene: Scene) -> None:
    job = scene.job("true", name="train")
    first = hpcml.submit(job, outputs=[hpcml.Output("model.pt", optional=True)])
    second = infer(first.output("model.pt"))

    assert second.wait(30).state == "FAILED"
    assert second.reason.endswith(f"run {first.id} has left no 'model.pt'")
    assert first.state == "COMPLETED"


def test_an_output_that_no_job_declares_is_no_input(scene: Scene) -> None:
    first = train(scene)
    with pytest.raises(UnknownNameError, match=r"did you mean 'model\.pt'"):
        infer(first.output("modle.pt"))
    scene.open("train")


def test_an_input_from_another_site_has_to_be_fetched(scene: Scene, home: Path) -> None:
    first = train(scene)
    with pytest.raises(JobError, match=f"{first.id} is on local, not on small"):
        infer(first.output("model.pt"), site=small_machine(home, cpus=1))
    scene.open("train")


def test_each_model_of_a_sweep_can_be_read_by_a_run_of_its_own(scene: Scene) -> None:
    job = hpcml.Job(["/bin/sh", "-c", 'echo "$1" > model.pt', "sh", "{params.width}"], code=None)
    trained = hpcml.submit(job.sweep(width=[8, 16, 32]), outputs=["model.pt"])
    inferred = [infer(run.output("model.pt")) for run in trained]

    assert [run.wait(30).output("said").read_text() for run in inferred] == ["8\n", "16\n", "32\n"]
    assert len({run.digest for run in inferred}) == 3


# --- inputs that change ---------------------------------------------------------------------


@pytest.fixture
def held(scene: Scene) -> Callable[[Path], hpcml.Run]:
    """Submits a run that reads a file, and cannot start before the gate ``first`` opens."""

    def submit(data: Path) -> hpcml.Run:
        first = hpcml.submit(scene.gated("first"))
        job = hpcml.Job(["/bin/sh", "-c", 'cp -r "$1" said', "sh", "{inputs.data}"], code=None)
        run = hpcml.submit(job, inputs={"data": hpcml.Dataset(str(data))}, after=first)
        return run

    return submit


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("2"),
        lambda path: (path.write_text("2"), os.utime(path, (1, 1))),
        lambda path: (path.with_suffix(".new").write_text("2"), os.replace(f"{path}.new", path)),
    ],
    ids=["in place", "and its time set back", "another file in its place"],
)
def test_an_input_that_changes_between_submit_and_start_is_refused(
    scene: Scene,
    project: Path,
    held: Callable[[Path], hpcml.Run],
    change: Callable[[Path], object],
) -> None:
    data = project / "data"
    data.write_text("1")
    os.utime(data, (1, 1))
    run = held(data)

    change(data)
    scene.open("first")

    assert run.wait(30).state == "FAILED"
    assert "input 'data'" in run.reason and "content has changed" in run.reason
    assert run.files() == []


def test_an_image_that_changes_between_submit_and_start_is_refused(
    scene: Scene, project: Path
) -> None:
    image = project / "python.sif"
    image.write_text("1")
    first = hpcml.submit(scene.gated("first"))
    run = hpcml.submit(hpcml.Job(["true"], code=None, image=str(image)), after=first)

    image.write_text("2")
    scene.open("first")

    assert run.wait(30).state == "FAILED"
    assert "the image" in run.reason and "content has changed" in run.reason


def test_a_file_more_in_an_input_folder_is_a_change(
    scene: Scene, project: Path, held: Callable[[Path], hpcml.Run]
) -> None:
    store = project / "t2m.zarr" / "c" / "0"
    store.mkdir(parents=True)
    (store / "0").write_text("chunk")
    run = held(project / "t2m.zarr")

    (store / "1").write_text("another")
    scene.open("first")

    assert run.wait(30).state == "FAILED" and "content has changed" in run.reason


def test_an_input_that_is_gone_is_named(
    scene: Scene, project: Path, held: Callable[[Path], hpcml.Run]
) -> None:
    data = project / "data"
    data.write_text("1")
    run = held(data)

    data.unlink()
    scene.open("first")

    assert run.wait(30).state == "FAILED"
    assert f"{data} cannot be read: No such file" in run.reason


def test_an_input_that_was_only_touched_is_the_same(
    scene: Scene, project: Path, held: Callable[[Path], hpcml.Run]
) -> None:
    data = project / "data"
    data.write_text("1")
    run = held(data)

    shutil.copy(data, project / "copy")
    os.replace(project / "copy", data)
    scene.open("first")

    assert run.wait(30).state == "COMPLETED", run.reason
    assert run.attempts[-1].end["inputs"] == {"data": wire.sha256(b"1")}  # type: ignore[index]


# --- fields of submit -----------------------------------------------------------------------


def test_fields_given_to_submit_are_added_to_the_jobs(scene: Scene, project: Path) -> None:
    (project / "a").touch()
    (project / "b").touch()
    job = hpcml.Job(["true"], params={"x": 1, "y": 1}, inputs={"a": "a"}, tags={"t": "1"})

    plan = hpcml.plan(job, params={"y": 2}, inputs={"b": "b"}, tags={"u": "2"}, name="other")

    assert plan.what["params"] == {"x": 1, "y": 2} and plan.name == "other"
    assert sorted(plan.what["inputs"]) == ["a", "b"]
    assert plan.where["tags"] == {"t": "1", "u": "2"}
    with pytest.raises(ArgumentError, match="did you mean 'outputs'"):
        hpcml.plan(job, output=["model.pt"])


# --- running again --------------------------------------------------------------------------


def test_what_failed_is_run_again_with_its_own_point(scene: Scene) -> None:
    """The second time its gate is open."""
    test = '[ "$1" = 0 ] || [ -e "$GATE" ]'
    job = hpcml.Job(
        ["/bin/sh", "-c", test, "sh", "{params.n}"], env={"GATE": str(scene.gate())}, code=None
    )
    runs = hpcml.submit(job.sweep(n=range(4)), max_running=1).wait(30)
    assert [run.params["n"] for run in runs.failed] == [1, 2, 3]
    scene.open()

    again = hpcml.resubmit(runs.failed).wait(30)

    assert [run.params["n"] for run in again] == [1, 2, 3]
    assert [run.digest for run in again] == [run.digest for run in runs.failed]
    assert [run.resubmits for run in again] == [run.id for run in runs.failed]
    assert set(again.states.values()) == {"COMPLETED"}
    assert runs[0].resubmits is None and len(runs.failed) == 3, "the old ones stay as they are"


def test_runs_of_several_submissions_are_run_again_in_the_given_order(scene: Scene) -> None:
    one, two = (hpcml.submit(scene.job("exit 1", name=name)).wait(30) for name in ("one", "two"))

    again = hpcml.resubmit([two.id, one, two])

    assert [run.resubmits for run in again] == [two.id, one.id, two.id]
    assert [run.wait(30).name for run in again] == ["two", "one", "two"]


def test_running_again_takes_the_code_as_it_was(
    script: Callable[..., str], project: Path, workspace: Path
) -> None:
    run = hpcml.submit(script("print(1)")).wait(30)
    script("print(2)")

    (again,) = hpcml.resubmit(run).wait(30)
    assert again.logs() == "1\n" and again.digest == run.digest

    for code in (workspace / "code").iterdir():
        shutil.rmtree(code)
    with pytest.raises(CodeError, match="neither on local nor here"):
        hpcml.resubmit(run)


def test_a_function_by_value_is_run_again_from_its_pickle(scene: Scene) -> None:
    runs = hpcml.submit(hpcml.Job(lambda n: n + 1).sweep(n=[1, 2])).wait(30)

    assert hpcml.resubmit(runs).results() == [2, 3]


def test_what_has_not_ended_is_not_run_again(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    with pytest.raises(RunStateError, match="is RUNNING"):
        hpcml.resubmit(run)
    with pytest.raises(ArgumentError, match="no run to resubmit"):
        hpcml.resubmit([])
    scene.open()
    run.wait(30)


def test_what_waits_for_one_run_of_a_sweep_need_not_wait_for_the_others(
    scene: Scene, home: Path
) -> None:
    """The agent of the first run has gone on to the next one, and is still at work."""
    site = small_machine(home, cpus=2)
    wait = 'echo x > model.pt; [ "$1" = 0 ] || while [ ! -e "$GATE" ]; do sleep 0.02; done'
    job = hpcml.Job(
        ["/bin/sh", "-c", wait, "sh", "{params.n}"], env={"GATE": str(scene.gate())}, code=None
    )
    runs = hpcml.submit(job.sweep(n=[0, 1]), site, outputs=["model.pt"], max_running=1)

    after = infer(runs[0].output("model.pt"), site=site)

    assert after.wait(30).state == "COMPLETED"
    assert runs[1].state == "RUNNING"
    scene.open()
    runs.wait(30)


def test_a_chain_that_is_run_again_hangs_together_anew(scene: Scene) -> None:
    """The first run fails as long as its gate is closed."""
    first = train(scene, '[ -e "$GATE" ] && printf weights > model.pt')
    second = infer(first.output("model.pt"))
    assert second.wait(30).state == "CANCELLED"
    with pytest.raises(RunStateError, match=r"which is FAILED(.|\n)*in the same call"):
        hpcml.resubmit(second)
    scene.open("train")

    again = hpcml.resubmit([second, first]).wait(30)

    assert [run.state for run in again] == ["COMPLETED", "COMPLETED"]
    assert again[0].output("said").read_text() == "weights"
    assert [run.digest for run in again] == [second.digest, first.digest]
