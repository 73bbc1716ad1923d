"""The benchmarks tell what they did not measure, and do not pass without it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import slurm
from tests.testbed import machine


@pytest.fixture(autouse=True)
def no_parent_of_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process keeps its children as they are."""
    monkeypatch.setattr(benchmarks, "adopt_orphans", lambda: None)


def test_a_peer_that_is_not_installed_is_named_and_the_benchmark_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is measured takes no time here."""
    monkeypatch.setattr(slurm, "_told", lambda *_: (1e-3, []))
    monkeypatch.setattr(slurm, "find_spec", lambda name: name)
    monkeypatch.setitem(benchmarks.PARTS, "slurm", lambda: slurm.one_by_one(benchmarks.Row))
    assert benchmarks.main(["slurm"]) == 0
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    assert benchmarks.main(["slurm"]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "LEFT OUT: Slurm: submit by psij-python: psij is not installed",
        "LEFT OUT: Slurm: submit by executorlib: pysqa is not installed",
    ]
    assert "submitit, unthrottled" in said.out


def test_where_no_box_can_be_made_the_benchmark_of_it_fails_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise machine.CannotHaveBox("it takes root", "Run it as root, on Linux.")

    monkeypatch.setattr(machine, "make_ready", refuse)
    assert benchmarks.main(["box"]) == 1
    assert "LEFT OUT: all that takes a real Slurm: no supercomputer in a box: it takes root" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("limit", [None, 1.0])
def test_a_row_above_its_limit_fails_the_benchmark(
    limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured() -> Any:
        yield benchmarks.Row("one", "s", 2.0, "allowed", 1.0, limit)

    monkeypatch.setitem(benchmarks.PARTS, "box", measured)
    assert benchmarks.main(["box"]) == (0 if limit is None else 1)
