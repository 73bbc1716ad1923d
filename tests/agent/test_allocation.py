"""What the agent makes of the environment of an allocation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.agent import share, wire
from hpcml.agent.allocation import Allocation
from hpcml.agent.launch import SHIM
from tests.agent.direct import Agent, command, publish

AS_JSON = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
IGNORED = re.compile("PWD|OLDPWD|SHLVL|_|LC_CTYPE")  # shells and Python set them
ON_SLURM = {"what": {"scheduler": "slurm"}}


def test_each_slot_has_its_own_part_of_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "4")
    parts = [share.environment_of(slot, 2) for slot in range(2)]

    assert [part["CUDA_VISIBLE_DEVICES"] for part in parts] == ["0,1", "2,3"]
    assert [part["ROCR_VISIBLE_DEVICES"] for part in parts] == ["4", "4"], "too few to share"


def test_jobs_are_given_what_slurm_says_but_not_how_the_agent_was_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"SLURM_JOB_ID": "5", "SLURM_EXPORT_ENV": "ALL", "TMPDIR": "/tmp/5", "PATH": "/slurm"}
    given |= {"TZ": "UTC", "SLURM_TIME_FORMAT": "%s", "HOME": "/home/me"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = Allocation(ON_SLURM).environment({"PATH": "/site", "TMPDIR": "/login"})

    assert environment["SLURM_JOB_ID"] == "5"
    assert environment["HOME"] == "/home/me"
    assert not environment.keys() & {"SLURM_EXPORT_ENV", "SLURM_TIME_FORMAT", "TZ"}
    assert (environment["PATH"], environment["TMPDIR"]) == ("/site", "/tmp/5")


def test_where_no_slurm_is_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    allocation = Allocation({"what": {"scheduler": "process"}})

    assert allocation.environment({"A": "1"}) == {"A": "1"}
    assert (allocation.facts, allocation.time_left()) == ({}, None)


def test_a_run_starts_again_in_an_allocation_with_half_of_its_walltime_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    allocation = Allocation(ON_SLURM)

    assert allocation.has_time_for_more(150.0)
    assert not allocation.has_time_for_more(300.0)


def test_an_attempt_is_followed_only_by_a_later_life_of_its_allocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    first = Allocation(ON_SLURM)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    second = Allocation(ON_SLURM)

    assert second.is_later(first.facts["allocation"])
    assert not second.is_later(second.facts["allocation"])
    assert not first.is_later(None)
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    assert not Allocation(ON_SLURM).is_later(first.facts["allocation"]), "the queue had it twice"


def test_a_run_that_was_cancelled_while_its_allocation_was_requeued_does_not_begin_again() -> None:
    job = command("/bin/sh", "-c", "echo began", checkpoint=hpcml.Checkpoint())
    batch = publish(job, scheduler="slurm")
    attempts, words = wire.Attempts(str(batch)), Path(wire.words_file(str(batch)))
    attempts.start(0, 1, allocation={"job": "5", "array": "5", "restarts": 0})
    words.write_text(json.dumps({"indices": [0], "request": "cancel", "time": time.time()}) + "\n")
    given = {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"}
    Agent(batch, env={**os.environ, **given}).wait()

    assert not (batch / "0").exists()
    end = attempts.read(0, 2, "end")
    assert wire.how_it_ended(end, None, 0.0) == (
        "CANCELLED",
        "cancelled before it started again",
    )


@pytest.mark.parametrize(
    "cut_off",
    [{"received": [15]}, {"received": [], "aborted": "Node failure on n2"}, {"received": []}],
    ids=["told to end", "its step was aborted", "neither"],
)
def test_a_run_that_was_cut_off_begins_again_with_its_allocation(cut_off: dict[str, Any]) -> None:
    job = command("/bin/sh", "-c", "echo began", checkpoint=hpcml.Checkpoint())
    batch = publish(job, scheduler="slurm")
    attempts = wire.Attempts(str(batch))
    attempts.start(0, 1, allocation={"job": "5", "array": "5", "restarts": 0})
    attempts.end(0, 1, exit_code=1, signal=None, cause=None, reason=None, **cut_off)
    given = {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"}
    Agent(batch, env={**os.environ, **given}).wait()

    begins_again = (batch / "0").exists()
    assert begins_again is (cut_off != {"received": []})


def test_a_rank_knows_its_place_and_one_a_node_tells_events() -> None:
    given = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
    given["SLURM_NODEID"] = "1"

    assert told(given) == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "1",
        "HPCML_EVENTS": "none",
    }
    assert "HPCML_EVENTS" not in told({**given, "SLURM_LOCALID": "0"})


def told(given: dict[str, str]) -> dict[str, str]:
    """What the shim adds to an environment, one of whose variables is no word."""
    environment = {"PATH": os.defpath, "ODD": "a b\n$c", **given}
    argv = ["/bin/sh", "-c", SHIM, "hpcml", sys.executable, "-c", AS_JSON, "a b"]
    done = subprocess.run(argv, env=environment, capture_output=True, check=True)
    found, arguments = json.loads(done.stdout)
    assert arguments == ["a b"]
    assert found.items() >= environment.items()
    return {
        name: found[name] for name in found.keys() - environment.keys() if not IGNORED.match(name)
    }


def test_a_command_that_is_not_there_ends_with_127_and_is_named() -> None:
    given = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}
    argv = ["/bin/sh", "-c", SHIM, "hpcml", "no-such-command"]
    done = subprocess.run(
        argv, env={**given, "SLURM_NODEID": "0"}, capture_output=True, check=False
    )

    assert done.returncode == 127
    assert b"hpcml" in done.stderr and b"no-such-command" in done.stderr
