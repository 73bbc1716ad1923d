"""``hpcml prune``: shown first, done with --yes or after asking."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.batch import batch_of
from tests.cli.test_commands import call
from tests.conftest import eventually

ALL = "--down-to=0B"
ITEM_KEYS = {"kind", "name", "about", "bytes", "whole", "age", "paths"}


@pytest.fixture
def run(script: Callable[..., str], workspace: Path) -> hpcml.Run:
    """A run that has ended, and left the queue."""
    run = hpcml.submit(script("print(1)")).wait(30)
    eventually(lambda: not list((workspace / "queue").glob("*.job")))
    return run


def there(run: hpcml.Run) -> bool:
    done = call("runs", "--json")
    return run.id in [row["id"] for row in json.loads(done.stdout)]


def test_everything_that_has_ended_goes_with_an_age_of_nothing(run: hpcml.Run) -> None:
    done = call("prune", "--older-than", "0s", "--without-records", "--yes")
    assert done.returncode == 0 and not there(run), done.stderr


def test_in_a_pipe_it_is_a_dry_run_and_says_so(run: hpcml.Run) -> None:
    done = call("prune", ALL)

    assert done.returncode == 0
    (row,) = done.stdout.splitlines()
    assert row.split("\t")[0] == "runs" and row.split("\t")[3] == batch_of(run.id)
    assert "this was a dry run" in done.stderr and "can be freed on local" in done.stderr
    assert there(run)


def test_with_yes_it_is_done(run: hpcml.Run) -> None:
    done = call("prune", ALL, "--yes")

    assert done.returncode == 0, done.stderr
    assert "were freed on local: 1 × runs." in done.stdout
    assert not there(run)
    assert "There is nothing to free." in call("prune", ALL, "--yes").stderr


def test_json_has_its_documented_shape(run: hpcml.Run) -> None:
    shown, done = (json.loads(call("prune", ALL, "--json", *yes).stdout) for yes in ([], ["-y"]))

    for data in (shown, done):
        assert set(data) == {"site", "workspace", "freed", "bytes", "items", "kept"}
        (item,) = data["items"]
        assert set(item) == ITEM_KEYS and item["paths"] == [f"runs/{batch_of(run.id)}"]
        assert data["bytes"] == item["bytes"] > 0
    assert (shown["freed"], done["freed"]) == (False, True)


def test_what_had_to_stay_is_told_and_is_no_success(run: hpcml.Run, home: Path) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("records: postgresql://nobody@127.0.0.1:1/none\n")

    done = call("prune", ALL, "--yes")

    assert done.returncode == 70
    assert "1 of 1 had to stay" in done.stderr and "cannot be recorded" in done.stderr
    assert there(run)
    assert call("prune", ALL, "--yes", "--without-records").returncode == 0
    assert not there(run)


def test_a_wrong_age_is_one_message(home: Path) -> None:
    done = call("prune", "--older-than=30")

    assert done.returncode == 70 and "Traceback" not in done.stderr
    assert "older_than" in done.stderr


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_it_asks(run: hpcml.Run, answer: str) -> None:
    leader, follower = pty.openpty()
    argv = [sys.executable, "-c", "from hpcml.cli import main; main()", "prune", ALL]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    shown = b""
    with subprocess.Popen(
        argv, stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        while b"[y/N]" not in shown:
            shown += os.read(leader, 4096)
        os.write(leader, answer.encode() + b"\n")
        try:
            while piece := os.read(leader, 4096):
                shown += piece
        except OSError:  # the terminal's other side is closed
            pass
    os.close(leader)

    assert process.returncode == 0 and batch_of(run.id) in shown.decode()
    assert there(run) is (answer == "n")
