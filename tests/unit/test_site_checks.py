"""What checks of a site say where the thing itself cannot be broken: clocks, other hardware."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hpcml.cli import doctor
from hpcml.cli.doctor import node
from hpcml.connection import bind, reached_by
from hpcml.documents import changed
from hpcml.sites import load_site
from hpcml.sites.launching import Container
from hpcml.sites.profile import Meter
from hpcml.surveying import shell
from hpcml.surveying.finding import Finding
from hpcml.surveying.login import Login, checks, profile
from hpcml.transports import Completed
from hpcml.transports.local import LocalTransport
from tests.cli.calling import call

SEEN: dict[str, Any] = {
    "host": "n1",
    "architecture": "x86_64",
    "cpus": 96,
    "memory": 512 << 30,
    "devices": "0,1,2,3",
    "energy": [True, {"powercap": {"status": "measured", "reason": ""}}],
    "container": None,
}


def here() -> Login:
    site = load_site("local")
    binding = bind(site)
    return Login(site, lambda: (binding, reached_by(site, binding)))


def found(login: Login, name: str) -> list[Finding]:
    return list(dict(checks(login))[name]())


@pytest.mark.parametrize(("skew", "told"), [(-60, "60 s behind"), (7, "7 s ahead of")])
def test_a_site_s_clock_that_is_off_is_told(
    skew: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (well,) = found(here(), "clock")
    assert well.verdict == "ok"
    monkeypatch.setattr(LocalTransport, "now", lambda self: time.time() + skew)
    (off,) = found(here(), "clock")
    assert off.verdict == "warn" and told in off.what


def test_the_machine_in_front_of_one_can_be_looked_at_in_the_same_way(workspace: Path) -> None:
    done = call("sites", "doctor", "local", "--job")
    assert done.returncode == 0, done.stdout
    lines = [line.split("\t")[:2] for line in done.stdout.splitlines()]
    assert ["ok", "workspace"] in lines and ["ok", "compute node"] in lines


def test_the_space_that_is_told_is_that_of_the_workspace_wherever_the_client_is(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, there = here(), os.statvfs("/proc")
    login.files.names("")
    monkeypatch.chdir("/proc")
    seen = login.look[2]
    assert seen != [there.f_bavail * there.f_frsize, there.f_files, there.f_favail]
    assert seen[1] == os.statvfs(workspace).f_files


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A site of which each command hangs."""
    end = threading.Event()

    def hangs(files: LocalTransport, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        end.wait()
        return Completed(tuple(argv), 0, b"", b"")

    monkeypatch.setattr(LocalTransport, "run", hangs)
    monkeypatch.setattr(shell, "ASIDE", 0.1)
    yield "did not answer within 0.1 s"
    end.set()


def test_what_a_command_that_hangs_would_say_is_not_known(hanging: str) -> None:
    site = load_site("local")
    container, binding = Container(runtime="apptainer"), bind(site)
    slow = changed(site, quota=["quota", "-s"], container=container, scheduler="slurm")
    login = Login(slow, lambda: (binding, reached_by(site, binding)))
    commands = {
        "quota": "quota -s",
        "container": "apptainer --version",
        "queue": "sbatch --test-only",
        "profile": "scontrol show config",
    }
    all_checks = {**dict(checks(login)), "profile": partial(profile, login)}
    said = {one["check"]: one for one in doctor.examine((it, all_checks[it]) for it in commands)}
    for check, command in commands.items():
        assert said[check]["verdict"] == "unknown", check
        assert said[check]["what"] == f"{command!r} {hanging}"


def node_says(**differs: Any) -> list[Finding]:
    seen, site = {**SEEN, **differs}, load_site("juwels-booster")
    hardware = site.partitions["booster"].node
    return [
        *node._hardware(seen, hardware, "booster"),
        *node._devices(seen, "booster", 4),
        *node._energy(seen, site),
        *node._container(seen, site, "booster"),
    ]


@pytest.mark.parametrize(
    ("differs", "verdict", "told"),
    [
        ({"architecture": "aarch64"}, "bad", "is x86_64, n1 is aarch64"),
        ({"cpus": 8}, "warn", "n1 has 8"),
        ({"memory": 1 << 30}, "warn", "n1 has 1.0 GiB"),
        ({"devices": "0"}, "bad", "4 devices were asked for, and 1 can be used"),
        ({"devices": None}, "unknown", "the environment names none"),
        ({"container": [1, "not in the group"]}, "warn", "exit code 1: not in the group"),
    ],
)
def test_a_node_that_is_not_as_it_is_said_to_be_is_told(
    differs: dict[str, Any], verdict: str, told: str
) -> None:
    as_said = node_says()
    (new,) = [one for one in node_says(**differs) if one not in as_said]
    assert new.verdict == verdict and told in new.what


def test_counters_that_nobody_may_read_are_not_known_or_missed_where_they_are_expected() -> None:
    seen = {**SEEN, "energy": [False, {"powercap": {"status": "denied", "reason": "no right"}}]}
    site = load_site("juwels-booster")
    (said,) = node._energy(seen, changed(site, energy=[]))
    assert said.verdict == "unknown" and "no right" in said.what
    expected = Meter(name="rapl", scope="cpu", readable="yes")
    (said,) = node._energy(seen, changed(site, energy=[expected]))
    assert said.verdict == "warn" and "the profile expects rapl" in said.what
