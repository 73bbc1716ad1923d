"""What is submitted on each shipped site is as reviewed; `make golden` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import __main__ as writing
from tests.golden.plans import FOLDER, cases, sites, text


@pytest.mark.parametrize("site", sites())
def test_plans_of_a_shipped_site_are_as_reviewed(site: str) -> None:
    for case in cases(site):
        assert text(case.plan()) == case.file.read_text(), f"make golden shows it: {case.name}"


def test_no_reviewed_plan_is_of_a_site_or_partition_that_is_gone() -> None:
    known = {case.file for site in sites() for case in cases(site)}
    assert {*FOLDER.glob("*/*.txt")} == known


def test_writing_plans_anew_shows_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.golden.plans.FOLDER", tmp_path)
    monkeypatch.setattr(writing, "FOLDER", tmp_path)
    writing.main()
    capsys.readouterr()
    plan, gone = tmp_path / "jedi" / "gpu-training.txt", tmp_path / "jedi" / "old.txt"
    plan.write_text(plan.read_text().replace("--nodes=2", "--nodes=3", 1))
    gone.write_text("")

    writing.main()

    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line[0] in "+-"] == [
        "--- jedi/gpu-training.txt",
        "+++ jedi/gpu-training.txt",
        "-#SBATCH --nodes=3",
        "+#SBATCH --nodes=2",
    ]
    assert shown[-1] == "jedi/old.txt is gone" and not gone.exists()
