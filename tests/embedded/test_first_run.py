"""A script runs on the embedded site, as the README says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hpcml
from hpcml.states import State


def test_a_script_runs_and_tells_its_story(script: Callable[..., str]) -> None:
    entry = script(
        """
        import hpcml

        p = hpcml.params(width=8)
        hpcml.describe(model="toy", global_batch=4)
        with hpcml.phase("train"):
            for step in range(3):
                with hpcml.phase("epoch"):
                    hpcml.log(step=step, samples=4, loss=1 / (step + 1))
        print("width", p.width)
        with open(hpcml.output_path("model.pt"), "w") as file:
            file.write("weights")
        """
    )
    job = hpcml.Job(entry, params={"width": 64}, outputs=["model.pt"])

    run = hpcml.submit(job).wait(30)

    assert run.state == "COMPLETED" and run.state is State.COMPLETED
    assert run.exit_code == 0
    assert run.logs() == "width 64\n"
    assert run.metrics == {"loss": 1 / 3}
    assert [point.step for point in run.history("loss")] == [0, 1, 2]
    assert run.described == {"model": "toy", "global_batch": 4}
    assert list(run.timeline.phases) == ["train", "epoch"]
    assert run.timeline.samples == {"train": 12, "epoch": 12}
    assert run.files() == ["model.pt"]
    assert run.output("model.pt").read_text() == "weights"


def test_what_a_run_left_is_fetched(script: Callable[..., str], tmp_path: Path) -> None:
    entry = script("import os; os.mkdir('out'); open('out/a b.txt', 'w').write('hello'); print(1)")
    run = hpcml.submit(entry).wait(30)

    folder = run.fetch(tmp_path / "here")

    assert (folder / "out/a b.txt").read_text() == "hello"
    assert (folder / f"{run.id}.stdout").read_text() == "1\n"
    assert not (folder / "train.py").exists(), "the code is not the run's"
