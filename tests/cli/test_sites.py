"""``hpcml sites`` lists profiles, broken ones too, and says where each fact is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcml.sites import profile_of
from tests.cli.calling import call

PACKAGED = str(profile_of("local"))


@pytest.fixture
def small(home: Path) -> Path:
    """A profile of one's own, and settings."""
    profile = home / "config" / "hpcml" / "sites" / "small.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("extends: local\npartitions:\n  local:\n    node: {cpus: 1}\n")
    settings = home / "config" / "hpcml" / "settings.yaml"
    settings.write_text("sites:\n  small:\n    account: hpc123\n    workspace: ~/small\n")
    return profile


def test_profiles_that_come_along_and_those_of_ones_own_are_listed(
    small: Path, home: Path, workspace: Path
) -> None:
    rows = [line.split("\t") for line in call("sites").stdout.splitlines()]
    assert [row[:4] for row in rows if row[0] in ("local", "small")] == [
        ["local", "process", str(workspace), PACKAGED],
        ["small", "process", str(home / "small"), str(small)],
    ]
    names = [row[0] for row in rows]
    assert "juwels-booster" in names
    assert "_jsc" not in names, "it is only there to be extended"


def test_a_profile_that_is_wrong_is_listed_with_what_is_wrong(small: Path) -> None:
    small.write_text("extends: local\nkill_wiat: 3s\n")
    done = call("sites")
    assert done.returncode == 0
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("small"))
    assert (
        f"{small}, line 2, column 1, key kill_wiat: unknown key did you mean 'kill_wait'?" in line
    )
    assert call("sites", "show", "small").returncode == 70


def test_each_fact_of_a_site_is_shown_with_its_file_and_line(small: Path, home: Path) -> None:
    told = json.loads(call("sites", "show", "small", "--json").stdout)
    facts = {fact["key"]: fact for fact in told["facts"]}
    node = "partitions.local.node"
    assert facts[f"{node}.cpus"]["value"] == 1
    assert facts[f"{node}.cpus"]["where"] == f"{small}, line 4"
    lines = Path(PACKAGED).read_text().splitlines()
    below = lines.index("      memory: auto") + 1
    assert facts[f"{node}.memory"]["where"] == f"measured, as asked in {PACKAGED}, line {below}"
    assert facts["kill_wait"]["source"].startswith("a choice of hpcml")
    assert (facts["name"]["value"], facts["name"]["where"]) == ("small", str(small))
    settings = home / "config" / "hpcml" / "settings.yaml"
    assert facts["yours.account"]["where"] == f"{settings}, line 3"
    assert facts["yours.account"]["value"] == "hpc123"


def test_what_nobody_says_is_hpcmls_default(small: Path) -> None:
    small.write_text(
        "name: small\nscheduler: process\ntransport: local\nworkspace: /tmp/x\n"
        "partitions: {p: {nodes: 1, time: 1h, node: {cpus: 1, memory: 1 GiB}}}\n"
    )
    rows = [line.split("\t") for line in call("sites", "show", "small").stdout.splitlines()]
    assert ["kill_wait", "30s", "default of hpcml"] in rows
    assert ["scheduler", "process", f"{small}, line 2"] in rows


def test_a_site_that_is_not_there_is_answered_with_the_nearest_one() -> None:
    done = call("sites", "show", "lokal")
    assert done.returncode == 70 and "did you mean 'local'?" in done.stderr
