"""``hpcml doctor`` tries things, says what to do, and is not ended by what does not work."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.cli import doctor
from hpcml.cli.doctor import here, sites
from hpcml.connection import connect
from hpcml.sites import profile_of
from hpcml.surveying import login
from hpcml.surveying.finding import ok
from hpcml.transports import FileStatus
from hpcml.transports.local import LocalTransport
from tests.cli.calling import HPCML, call
from tests.counters import two_sockets


def findings(*, code: int | None = None, **env: str) -> dict[str, list[dict[str, str]]]:
    """What the doctor finds, by check."""
    done = call("doctor", "--json", env=env)
    diagnosis = json.loads(done.stdout)
    assert done.returncode == (0 if diagnosis["ok"] else 1)
    assert code in (None, done.returncode)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in diagnosis["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def settings(home: Path, text: str) -> Path:
    path = home / "config" / "hpcml" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def verdicts(found: dict[str, list[dict[str, str]]], check: str) -> list[str]:
    return [finding["verdict"] for finding in found[check]]


def test_where_everything_works_the_exit_code_is_0(workspace: Path) -> None:
    found = findings(code=0)
    assert {finding["verdict"] for check in found.values() for finding in check} <= {"ok", "warn"}
    assert sys.executable in found["python"][0]["what"]
    assert str(workspace) in found["workspace"][0]["what"]
    assert [path.name for path in workspace.iterdir()] == ["queue"], "it leaves nothing behind"


@pytest.mark.usefixtures("small_packages")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount")
def test_a_workspace_on_a_read_only_file_system_is_bad_and_said_to_be_so(workspace: Path) -> None:
    connect("local")  # makes it
    here = shlex.quote(str(workspace))
    mount = f"mount --bind {here} {here} && mount -o remount,ro,bind {here}"
    line = f"{mount} && exec {shlex.join([*HPCML, 'doctor', '--json'])}"
    argv = ["unshare", "--mount", "sh", "-c", line]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if not done.stdout:
        pytest.skip(f"no mount can be made here: {done.stderr}")
    told = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert told["queue"]["verdict"] == told["workspace"]["verdict"] == "bad"
    assert "cannot be read and written" in told["queue"]["what"]
    assert "Please report it" not in done.stdout


@pytest.mark.usefixtures("small_packages")
def test_in_a_pipe_it_is_a_line_a_finding_and_the_advice_is_in_it() -> None:
    done = call("doctor")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert {len(line) for line in lines} == {4}
    assert all(line[3] for line in lines if line[0] != "ok")


@pytest.mark.usefixtures("small_packages")
def test_wrong_settings_are_told_with_file_and_line_and_the_rest_goes_on(home: Path) -> None:
    path = settings(home, "sites:\n  local:\n    workspce: /x\n")
    found = findings(code=1)
    (said,) = found["settings"]
    assert said["verdict"] == "bad" and f"{path}, line 3" in said["what"]
    assert "did you mean 'workspace'?" in said["advice"]
    assert verdicts(found, "python") == ["ok"] and "workspace" not in found


@pytest.mark.usefixtures("small_packages")
def test_a_wrong_profile_is_told_with_file_and_line(home: Path) -> None:
    profile = home / "config" / "hpcml" / "sites" / "small.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("extends: local\nkill_wait: soon\n")
    said = [one for one in findings(code=1)["profiles"] if one["verdict"] == "bad"]
    assert len(said) == 1 and f"{profile}, line 2" in said[0]["what"]


def test_a_package_that_is_missing_is_told_with_the_command_that_installs_it(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "mlflow.py").write_text("raise ImportError('half installed')")
    (broken / "pandas.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pandas'\", name='pandas')"
    )
    paths = os.pathsep.join([str(broken), os.getcwd(), os.environ.get("PYTHONPATH", "")])
    found = {
        one["what"].split()[0].rstrip(","): one for one in findings(PYTHONPATH=paths)["packages"]
    }
    assert found["pandas"]["verdict"] == "warn"
    assert found["pandas"]["advice"] == f'{sys.executable} -m pip install "hpcml[plot]"'
    assert "half installed" in found["mlflow"]["what"]
    assert found["matplotlib"]["verdict"] == "ok"


@pytest.mark.usefixtures("small_packages")
def test_a_workspace_that_cannot_be_used_is_bad(home: Path) -> None:
    settings(home, "sites:\n  local:\n    workspace: /proc/no/such/place\n")
    found = findings(code=1)
    assert verdicts(found, "workspace") == ["bad"]
    assert verdicts(found, "records") == ["ok"]


def test_a_file_system_whose_clock_is_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = LocalTransport.list

    def late(self: LocalTransport, folder: str) -> list[FileStatus] | None:
        entries = honest(self, folder) or []
        return [FileStatus(one.name, one.size, one.mtime - 100, one.kind) for one in entries]

    monkeypatch.setattr(LocalTransport, "list", late)
    _, said = sites.workspace("local")
    assert said.verdict == "warn" and "100 s off" in said.what


def test_little_space_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (plenty,) = sites.space("local")
    assert plenty.verdict == "ok"
    monkeypatch.setattr(login, "LEAST_SPACE", 1 << 62)
    (little,) = sites.space("local")
    assert little.verdict == "warn" and "free" in little.what


def test_the_queues_process_is_looked_for_and_not_started(workspace: Path, unserved: None) -> None:
    (idle,) = sites.queue("local")
    assert idle.verdict == "ok" and "nothing is in it" in idle.what
    hpcml.submit(hpcml.Job(["true"], code=None))
    (dead,) = sites.queue("local")
    assert dead.verdict == "warn" and "1 submissions" in dead.what
    assert "hpcml runs" in dead.advice


def test_a_queue_that_is_served_is_ok() -> None:
    run = hpcml.submit(hpcml.Job(["sleep", "60"], code=None))
    (served,) = sites.queue("local")
    assert served.verdict == "ok" and "is alive; 1 submissions" in served.what
    run.cancel()


@pytest.mark.usefixtures("small_packages")
def test_a_python_of_jobs_that_does_not_start_is_bad(home: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho broken interpreter >&2\nexit 3\n")
    python.chmod(0o755)
    settings(home, f"sites:\n  local:\n    python: {python}\n")
    found = findings(code=1)
    (said,) = found["job python"]
    assert said["verdict"] == "bad" and "exit code 3: broken interpreter" in said["what"]
    assert "sites.local.python" in said["advice"]
    settings(home, f"sites:\n  local:\n    python: {tmp_path / 'nowhere'}\n")
    assert verdicts(findings(code=1), "job python") == ["bad"]


def test_energy_counters_are_tried(home: Path, tmp_path: Path) -> None:
    profile = home / "config" / "hpcml" / "sites" / "local.yaml"
    profile.parent.mkdir(parents=True)
    packaged = profile_of("local").read_text()
    profile.write_text(f"{packaged}system_root: {tmp_path}\n")

    *_, none = sites.agent("local")
    assert none.verdict == "warn" and "there is no /sys/class/powercap" in none.what
    two_sockets(tmp_path)
    *_, some = sites.agent("local")
    assert some == ("ok", "energy counters can be read (powercap)", "")


@pytest.mark.usefixtures("small_packages")
def test_records_are_looked_at_and_not_made(home: Path) -> None:
    index = home / "state" / "hpcml" / "index.db"
    assert "none yet" in findings()["records"][0]["what"]
    assert not index.exists()
    hpcml.sync()
    (said,) = findings(code=0)["records"]
    assert said["verdict"] == "ok" and f"{index}: schema" in said["what"]
    with sqlite3.connect(index) as database:
        database.execute("UPDATE alembic_version SET version_num = 'r9999'")
    (said,) = findings(code=1)["records"]
    assert said["verdict"] == "bad" and "of a newer hpcml" in said["what"]
    index.write_bytes(b"no database at all" * 100)
    (said,) = findings(code=1)["records"]
    assert said["verdict"] == "bad" and "sync" in said["advice"]
    assert index.exists(), "it is not moved aside"


def test_a_server_of_records_that_does_not_answer_is_bad(home: Path) -> None:
    settings(home, "records: postgresql://nobody@127.0.0.1:1/none\n")
    (said,) = findings(code=1)["records"]
    assert said["verdict"] == "bad" and "127.0.0.1" in said["what"]


def test_git_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (said,) = here.git()
    assert said.verdict == "warn" and "Install git" in said.advice


def test_a_check_that_fails_or_hangs_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    hang = threading.Event()

    def hangs() -> Any:
        yield ok("before")
        hang.wait()

    def fails() -> Any:
        raise ZeroDivisionError("a mistake")

    checks = [("one", hangs), ("two", fails), ("three", lambda: [ok("well")])]
    found = list(doctor.examine(checks))
    hang.set()
    assert [(one["check"], one["verdict"]) for one in found] == [
        ("one", "ok"),
        ("one", "bad"),
        ("two", "bad"),
        ("three", "ok"),
    ]
    assert "no answer" in found[1]["what"] and "a mistake" in found[2]["what"]
