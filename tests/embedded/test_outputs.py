"""Declared outputs are looked at on the node, whatever the job has left there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.errors import JobError, RunStateError


def test_outputs_are_digested_files_and_folders_alike(script: Callable[..., str]) -> None:
    entry = script(
        "import os; os.makedirs('out/deep'); open('out/deep/a', 'w').write('1')\n"
        "open(b'out/\\xff.bin', 'w').write('2'); open('model.pt', 'w').write('weights')"
    )
    run = hpcml.submit(hpcml.Job(entry, outputs=["model.pt", "out"])).wait(30)

    assert run.state == "COMPLETED", run.reason
    left = run.attempts[-1].end["outputs"]  # type: ignore[index]
    assert (left["model.pt"]["sha256"], left["model.pt"]["bytes"]) == (wire.sha256(b"weights"), 7)
    assert left["out"]["bytes"] == 2
    folder = run.output("out")
    assert wire.digest_path(str(folder)) == (left["out"]["sha256"], 2)


def test_a_missing_output_fails_a_run_that_says_it_succeeded(script: Callable[..., str]) -> None:
    run = hpcml.submit(hpcml.Job(script("pass"), outputs=["model.pt"])).wait(30)
    assert (run.state, run.exit_code) == ("FAILED", 0)
    assert "'model.pt'" in run.reason
    path = run.output("model.pt")
    assert not path.exists() and not path.is_file()
    with pytest.raises(RunStateError, match=r"has left no 'model\.pt'"):
        path.read_text()


def test_a_pipe_in_the_place_of_an_output_is_none_and_is_not_waited_for(
    script: Callable[..., str],
) -> None:
    entry = script("import os; os.mkfifo('model.pt'); os.mkdir('out'); os.mkfifo('out/pipe')")
    run = hpcml.submit(hpcml.Job(entry, outputs=["model.pt", "out"])).wait(30)
    assert run.state == "FAILED"
    assert "'model.pt' (model.pt: neither a file nor a folder)" in run.reason
    assert "'out' (out/pipe: neither a file nor a folder)" in run.reason


def test_inputs_that_share_a_variable_are_refused(project: Path) -> None:
    (project / "data").write_text("1")
    job = hpcml.Job(["true"], inputs={"t2m": "data", "T2M": "data"})
    with pytest.raises(JobError, match="differ in case only"):
        hpcml.plan(job)


def test_a_torn_archive_on_the_site_is_replaced(
    script: Callable[..., str], workspace: Path
) -> None:
    """After a power loss a name may be there without its content."""
    entry = script("print('whole')")
    plan = hpcml.plan(hpcml.Job(entry))
    (workspace / "code").mkdir(parents=True)
    workspace.chmod(0o700)
    (workspace / "code" / f"{plan.what['code']}.tar").write_bytes(b"")
    (workspace / "lib").mkdir()
    (workspace / "lib" / plan.where["library"]).write_bytes(b"")
    run = hpcml.submit(entry).wait(30)
    assert (run.state, run.logs()) == ("COMPLETED", "whole\n")


def test_an_output_in_a_tracked_folder_is_the_runs_own(
    script: Callable[..., str], project: Path
) -> None:
    entry = script("import os; open('results/model.pt', 'w').write('1')")
    (project / "results").mkdir()
    (project / "results" / ".gitkeep").touch()
    first, second = hpcml.submit([hpcml.Job(entry, outputs=["results/model.pt"])] * 2).wait(30)
    assert first.state == second.state == "COMPLETED"
    assert os.stat(first.output("results/model.pt")) != os.stat(second.output("results/model.pt"))
    assert first.files() == ["results/model.pt"]
