"""Each exit code is in the documentation's table, and means what that says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import hpcml
from hpcml.batch import batch_of
from hpcml.cli import showing
from tests.cli.calling import call
from tests.cli.test_shapes import tables

NOBODY = "20200101-000000-aaaaaa"
UNREACHABLE = "sites:\n  elsewhere:\n    workspace: /proc/no/such/place\n"


def submitted(*command: str) -> str:
    """The id of a run that has ended."""
    return call("submit", "--code", "none", "--wait", "--", *command).stdout.strip()


def test_the_table_has_the_codes_that_the_code_has() -> None:
    documented = {code for code, _ in tables()["Exit codes"]}
    ours = {0, 1, 2, showing.NO_EXIT_CODE, showing.INCOMPLETE, showing.NOT_ENDED}
    ours |= set(showing.EXIT_CODES.values())
    assert documented == {"the job's own", "128 + n", *map(str, ours)}
    for state, code in showing.EXIT_CODES.items():
        assert any(row == [str(code), str(state)] for row in tables()["Exit codes"])


def test_a_run_that_is_nowhere_is_70_for_every_command_about_runs(project: Path) -> None:
    there = submitted("true")
    for command in ("status", "logs", "wait", "cancel", "resume", "resubmit", "fetch", "compare"):
        assert call(command, NOBODY).returncode == 70, command
    for command in ("status", "wait", "cancel", "resubmit", "fetch", "compare"):
        assert call(command, there, f"{NOBODY}.00000").returncode == 70, command
    assert list(project.iterdir()) == []  # fetch copies all or nothing


def test_looking_at_runs_that_failed_is_no_failure() -> None:
    run_id = submitted("sh", "-c", "exit 3")
    for command in (["runs"], ["status", run_id], ["logs", run_id], ["cancel", run_id]):
        assert call(*command).returncode == 0, command
    assert call("compare", run_id).returncode == 0
    assert call("wait", run_id).returncode == 3
    assert call("resubmit", "--wait", run_id).returncode == 3


def test_what_cannot_be_run_again_or_resumed_is_70() -> None:
    run_id = call("submit", "--code", "none", "--", "sleep", "60").stdout.strip()
    assert call("resubmit", run_id).returncode == 70
    assert call("resume", run_id).returncode == 70


def test_a_copy_that_cannot_be_written_is_70(project: Path) -> None:
    run_id = submitted("true")
    (project / "file").write_text("in the way")
    for folder in ("file", "file/below"):
        done = call("fetch", run_id, "--to", folder)
        assert done.returncode in (2, 70) and "Traceback" not in done.stderr


def elsewhere(home: Path, settings: str = UNREACHABLE) -> None:
    """There is a site of that name."""
    profile = home / "config" / "hpcml" / "sites" / "elsewhere.yaml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text("extends: local\n")
    (profile.parent.parent / "config.yaml").write_text(settings)


def test_runs_of_other_sites_are_shown_where_one_cannot_be_reached(home: Path) -> None:
    elsewhere(home)
    run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)

    for command in (["runs"], ["status", run.id]):
        done = call(*command)
        assert done.stdout.split("\t")[::3] == [run.id, "COMPLETED"]
    done = call("runs")
    assert done.returncode == 70
    assert re.fullmatch("hpcml: elsewhere: the workspace /proc/no/such/place .*\n", done.stderr)
    assert [run["id"] for run in json.loads(call("runs", "--json").stdout)] == [run.id]
    assert call("status", run.id).returncode == 0


def test_runs_of_other_sites_are_shown_where_the_settings_of_one_are_wrong(home: Path) -> None:
    elsewhere(home, "sites:\n  elsewhere: {acount: climate}\n")
    run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)

    done = call("runs")
    assert done.stdout.split("\t")[::3] == [run.id, "COMPLETED"]
    assert done.returncode == 70 and "key sites.elsewhere.acount" in done.stderr
    assert call("status", run.id).returncode == 0


def test_runs_of_a_site_that_cannot_be_reached_are_shown_as_on_record(
    home: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    elsewhere(home, f"sites:\n  elsewhere:\n    workspace: {there}\n")
    ended = hpcml.submit(hpcml.Job(["false"], code=None), "elsewhere").wait(30)
    going = hpcml.submit(hpcml.Job(["sleep", "600"], code=None), "elsewhere")
    hpcml.sync()
    before = {run.id: str(run.state) for run in (ended, going)}
    there.rename(tmp_path / "away")
    there.write_text("in its place")

    def told(*command: str) -> dict[str, tuple[str, str]]:
        done = call(*command, "--json")
        assert (done.returncode, done.stderr.count("\n")) == (70, 1), done.stderr
        assert str(there) in done.stderr
        return {run["id"]: (run["state"], run["reason"]) for run in json.loads(done.stdout)}

    why = f"it cannot be seen now; it was {before[going.id]} when it was last recorded"
    known = {ended.id: ("FAILED", "exit code 1"), going.id: ("UNKNOWN", why)}
    assert told("runs") == told("runs", "--site", "elsewhere") == known
    assert told("runs", "--state", "unknown") == {going.id: known[going.id]}
    assert told("status", ended.id) == {ended.id: known[ended.id]}
    assert told("status", batch_of(going.id)) == {going.id: known[going.id]}
    with pytest.warns(hpcml.records.SiteWarning, match="elsewhere is passed over"):
        assert list(hpcml.runs()) == []
    there.unlink()
    (tmp_path / "away").rename(there)
    going.cancel()


def test_sync_that_passes_over_a_site_is_70_and_records_the_others(home: Path) -> None:
    elsewhere(home)
    run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)

    done = call("sync")

    assert (done.returncode, done.stdout) == (70, "1 runs with news\n")
    assert re.match("hpcml: site elsewhere is passed over: ", done.stderr)
    assert [record.id for record in hpcml.records.find()] == [run.id]
    assert call("sync", "elsewhere").returncode == 70
    assert call("sync", "local").returncode == 0


def test_a_command_that_is_written_wrongly_is_2() -> None:
    for args in (["status"], ["runs", "--nix"], ["plot"], ["completion", "tcsh"], ["sites", "nix"]):
        assert call(*args).returncode == 2, args
