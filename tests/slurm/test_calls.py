"""How often Slurm is called: counted on one that only says it is one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.batch import batch_of
from hpcml.batch_view import BatchView, look
from hpcml.connection import connect
from hpcml.states import State
from hpcml.transports.local import LocalTransport
from tests.slurm.fake import FakeSlurm, fake_site

TRUE = hpcml.Job(["true"], code=None)


@pytest.fixture
def slurm(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """One whose site is called ``fake``, and takes 100 jobs a call."""
    made = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    fake_site(home / "config", tmp_path / "workspace", max_array=100)
    return made


@pytest.mark.parametrize(("points", "calls"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
def test_a_sweep_is_submitted_in_as_few_calls_as_its_arrays_take(
    slurm: FakeSlurm, points: int, calls: int
) -> None:
    hpcml.submit(TRUE.sweep(n=range(points)), "fake")

    assert slurm.called() == ["sbatch"] * calls


def test_jobs_submitted_one_by_one_take_one_call_each(slurm: FakeSlurm) -> None:
    for _ in range(3):
        hpcml.submit(TRUE, "fake")

    assert slurm.called() == ["sbatch"] * 3


def test_a_look_at_many_batches_asks_the_queue_once_and_lists_their_attempts_in_one_call(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that wait and run are told by it; nobody asks about one of them alone."""
    runs = [hpcml.submit(TRUE.sweep(n=range(150)), "fake") for _ in range(3)]
    rows = ("{}_0|RUNNING|None", "{}_[1-99]|PENDING|Priority")
    slurm.shows(row.format(job) for job in range(1, 7) for row in rows)
    views = [BatchView.load(batch_of(some[0].id), connect("fake")) for some in runs]
    before = len(slurm.called())
    plain, listed = LocalTransport.names_in, list[set[str]]()

    def names_in(self: LocalTransport, folders: Iterable[str]) -> dict[str, set[str]]:
        listed.append({*(folders := [*folders])})
        return plain(self, folders)

    monkeypatch.setattr(LocalTransport, "names_in", names_in)
    for looks in (1, 2):
        look(views)
        assert slurm.called()[before:] == ["squeue"] * looks
        assert listed == [{view.attempts_folder for view in views}] * looks
    assert {view.seen[index].state for view in views for index in (0, 100)} == {State.RUNNING}
    assert {view.seen[index].state for view in views for index in (1, 149)} == {State.PENDING}


def test_a_job_that_is_submitted_again_has_the_plan_of_what_has_changed(
    slurm: FakeSlurm, home: Path
) -> None:
    """1, 1.0 and True are equal, but no job is given the one in place of the other."""
    values: list[object] = [1, 1.0, True, 1]
    runs = [hpcml.submit(TRUE, "fake", params={"n": value}) for value in values]
    assert [repr(run.plan.what["params"]["n"]) for run in runs] == ["1", "1.0", "True", "1"]
    assert len({run.plan.digest for run in runs}) == 3

    profile = home / "config" / "hpcml" / "sites" / "fake.yaml"
    profile.write_text(profile.read_text().replace("cpu:", "other:"))
    again = hpcml.submit(TRUE, "fake", params={"n": 1})
    assert again.plan.what["placement"]["partition"] == "other"


def test_who_submits_is_the_process_itself_after_a_fork_too() -> None:
    ours, (reader, writer) = wire.identity(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, wire.canonical(wire.identity()))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        theirs = json.loads(file.read())
    os.waitpid(child, 0)
    assert ours == wire.identity(os.getpid())
    assert theirs["pid"] == child and theirs["boot"] == ours["boot"]
