"""What checks of a site say where the thing itself cannot be broken: clocks, other hardware."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hpcml.cli.doctor import node
from hpcml.connection import bind, reached_by
from hpcml.documents import changed
from hpcml.sites import load_site
from hpcml.sites.profile import Meter
from hpcml.surveying.finding import Finding
from hpcml.surveying.login import Login, checks
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
