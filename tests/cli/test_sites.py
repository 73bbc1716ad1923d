"""``hpcml sites`` lists profiles, broken ones too, and says where each fact is from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpcml.sites import profile_of
from tests.cli.calling import call, on_a_terminal

PACKAGED = str(profile_of("local"))


@pytest.fixture
def small(home: Path) -> Path:
    """A profile of one's own, and settings."""
    profile = home / "config" / "hpcml" / "sites" / "small.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("extends: local\npartitions:\n  local:\n    node: {cpus: 1}\n")
    settings = home / "config" / "hpcml" / "config.yaml"
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
    settings = home / "config" / "hpcml" / "config.yaml"
    assert facts["yours.account"]["where"] == f"{settings}, line 3"
    assert facts["yours.account"]["value"] == "hpc123"


def test_how_sure_a_fact_is_is_shown_of_those_in_lists_too() -> None:
    rows = [line.split("\t") for line in call("sites", "show", "lumi-g").stdout.splitlines()]
    (meter,) = (row for row in rows if row[0] == "energy.0.name")
    assert meter[1] == "pm_counters" and "a Cray EX has them" in meter[2]
    assert meter[2].endswith("; confidence C")
    assert ["energy.1.name", "slurm"] in [row[:2] for row in rows]
    assert ["energy.0.interval", "", "default of hpcml"] in rows


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


def test_a_key_is_explained(small: Path) -> None:
    shown = call("sites", "explain", "memory_option").stdout
    for words in ("partitions.NAME.memory_option", "--mem", "optional, required", "example"):
        assert words in shown
    done = call("sites", "explain", "kil_wait")
    assert done.returncode == 70 and "did you mean 'kill_wait'?" in done.stderr
    assert "kill_wait\ttime\tBetween TERM and KILL." in call("sites", "explain").stdout


def test_validate_says_all_that_is_wrong_of_a_name_or_a_file(small: Path, tmp_path: Path) -> None:
    assert call("sites", "validate").returncode == 0
    assert call("sites", "validate", "small").stdout == f"{small}: in order\n"
    small.write_text("extends: local\nkill_wiat: 3s\nmax_array: 0\n")
    for named in ("small", str(small)):
        done = call("sites", "validate", named)
        assert done.returncode == 1
        assert f"{small}, line 2, column 1, key kill_wiat: unknown key" in done.stdout
        assert f"{small}, line 3, column 1, key max_array: " in done.stdout
    done = call("sites", "validate", "smal", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert "there is no site 'smal'" in done.stdout and "none.yaml cannot be read" in done.stdout


def test_what_differs_between_sites_is_shown_with_where_it_is_from(small: Path) -> None:
    small.write_text("extends: local\nkill_wait: {value: 3s, source: I have tried it}\n")
    lines = call("sites", "diff", "small", "local").stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    assert [row[0] for row in rows] == ["kill_wait", "yours.workspace", "yours.account"]
    assert rows[0][1] == f"3s ({small}, line 2; I have tried it)" and "10s" in rows[0][2]
    assert rows[2][2] == ""
    assert call("sites", "diff", "local", "local").stdout == ""


def test_a_new_profile_is_in_order_and_replaces_none(home: Path) -> None:
    path = home / "config" / "hpcml" / "sites" / "mine.yaml"
    assert call("sites", "new", "mine").stdout == f"{path}\n"
    assert call("sites", "validate", "mine").returncode == 0
    before = path.read_text()
    done = call("sites", "new", "mine", "--from", "local")
    assert done.returncode == 70 and "there is a site mine already" in done.stderr
    done = call("sites", "new", "mine", "--from", "mine")
    assert done.returncode == 70 and "is there already" in done.stderr
    assert path.read_text() == before
    call("sites", "new", "local", "--from", "local")
    assert "local.yaml" in call("sites", "validate", "local").stdout
    assert call("sites", "new", "more", "--from", "lokal").returncode == 70
    done = call("sites", "new", "lumi-g")  # else a skeleton would stand before the site's profile
    assert done.returncode == 70 and "there is a site lumi-g already" in done.stderr
    for name in ("../x", "a/b", ".x", ""):
        assert "is no name" in call("sites", "new", name).stderr
    assert {one.name for one in path.parent.iterdir()} == {"mine.yaml", "local.yaml"}


def test_the_schema_is_printed_as_it_stands_beside_the_profiles() -> None:
    assert call("sites", "schema").stdout == (Path(PACKAGED).parent / "schema.json").read_text()


def test_a_projects_profile_is_listed_and_shown_before_anybody_agrees(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "site-configs" / "theirs.yaml"
    profile.parent.mkdir()
    profile.write_text("extends: local\nprelude: [evil]\n")
    monkeypatch.chdir(tmp_path)
    (line,) = (it for it in call("sites").stdout.splitlines() if it.startswith("theirs"))
    assert "acts as you" in line
    assert "prelude\t['evil']" in call("sites", "show", "theirs").stdout
    assert "theirs" in on_a_terminal("sites")  # it asks nothing


@pytest.mark.parametrize("words", [("plan", "--", "true"), ("sites", "show", "juwels-booster")])
def test_what_is_known_of_a_site_is_read_once_and_loads_little(
    words: tuple[str, ...], home: Path
) -> None:
    """Neither a database nor tables; YAML when a file is read for the first time, and not again."""
    heavy = {"sqlalchemy", "alembic", "rich", "yaml", "hpcml.run", "submitit"}
    code = (
        "import sys; from hpcml.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    argv = [sys.executable, "-c", code, *words]
    first, again = (
        subprocess.run(argv, capture_output=True, text=True, check=True).stderr.splitlines()[-1]
        for _ in range(2)
    )
    assert (first, again) == ("['yaml']", "[]")
