"""Profiles and settings: what is wrong in them is named with file, line, key and what would do."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.connection import bind
from hpcml.errors import HpcmlError, ProfileError
from hpcml.settings import load_settings
from hpcml.sites import load_site, site_names, wrong_with

ROOT = Path(__file__).resolve().parents[2]

Write = Callable[..., Path]

MINE = """\
name: mine
scheduler: process
transport: local
workspace: "{data}/mine"
partitions:
  small:
    nodes: 1
    time: 1h
    node: {device: cpu, cpus: 2, memory: 4 GiB}
"""


@pytest.fixture
def profile(home: Path) -> Write:
    """Writes a site profile of the user's own."""

    def write(text: str, name: str = "mine") -> Path:
        path = home / "config" / "hpcml" / "sites" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def settings(home: Path) -> Write:
    """Writes the settings."""

    def write(text: str) -> Path:
        path = home / "config" / "hpcml" / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


# --- what is right ------------------------------------------------------------------------


def test_the_profile_that_comes_along_is_measured_when_it_is_loaded(home: Path) -> None:
    site = load_site("local")

    node = site.partitions["local"].node
    assert node.cpus == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 <= pages - node.memory_bytes < 1024
    assert site.workspace == str(home / "data" / "hpcml" / "local")
    assert (site.scheduler, site.transport, site.kill_wait) == ("process", "local", "10s")
    assert {key for key, origin in site.origins.items() if origin.source} == {
        "kill_wait",
        "partitions.local.time",
    }


def test_a_profile_of_ones_own_is_found_and_listed(profile: Write) -> None:
    profile(MINE)

    assert load_site("mine").partitions["small"].node.memory_bytes == 4 << 30
    assert {"local", "mine"} <= set(site_names())


def test_a_profile_of_ones_own_goes_before_the_one_that_comes_along(profile: Write) -> None:
    profile(MINE.replace("name: mine", "name: local"), "local")

    assert list(load_site("local").partitions) == ["small"]


def test_a_profile_extends_another_and_changes_only_what_it_says(profile: Write) -> None:
    profile(MINE)
    profile("extends: mine\nkill_wait: 3s\npartitions: {small: {time: 2h}}", "other")

    site = load_site("other")

    small = site.partitions["small"]
    assert (site.name, site.kill_wait, small.time) == ("other", "3s", "2h")
    assert (small.node.cpus, site.workspace) == (2, load_site("mine").workspace)


def test_a_chain_of_profiles_adds_up(profile: Write) -> None:
    profile("extends: local\nkill_wait: 1s\ndescription: a", "a")
    profile("extends: a\ndescription: b", "b")

    assert (load_site("b").kill_wait, load_site("b").description) == ("1s", "b")


def test_settings_say_where_the_workspace_is_and_which_python(settings: Write) -> None:
    settings(
        """
        sites:
          local: {workspace: ~/elsewhere, python: /opt/py/bin/python, account: abc123, user: me}
        """
    )

    binding = bind(load_site("local"))

    assert binding.workspace == os.path.expanduser("~/elsewhere")
    assert binding.python == "/opt/py/bin/python"
    assert (binding.account, binding.user) == ("abc123", "me")


def test_without_settings_there_are_defaults(home: Path) -> None:
    binding = bind(load_site("local"))

    assert load_settings().sites == {}
    assert binding.workspace == str(home / "data" / "hpcml" / "local")
    assert binding.account is None


def test_empty_settings_are_no_settings(settings: Write) -> None:
    settings("# nothing yet\n")

    assert load_settings().sites == {}


def test_the_profile_of_the_demo_on_a_box_is_in_order() -> None:
    assert wrong_with("box", ROOT / "examples" / "box" / "box.yaml") == []


# --- what is wrong ------------------------------------------------------------------------

REFUSED = {
    "an unknown key": (MINE.replace("scheduler:", "schedular:"), 2, "schedular", ["scheduler"]),
    "an unknown key far down": (
        MINE.replace("device: cpu", "devise: cpu"),
        9,
        "partitions.small.node.devise",
        ["unknown key", "did you mean 'device'?"],
    ),
    "an unknown key of a partition": (
        MINE.replace("    time: 1h", "    tme: 1h"),
        8,
        "partitions.small.tme",
        ["did you mean 'time'?"],
    ),
    "a missing key": (
        MINE.replace("cpus: 2, ", ""),
        9,
        "partitions.small.node.cpus",
        ["missing", "Add it."],
    ),
    "a time without a unit": (
        MINE.replace("time: 1h", 'time: "60"'),
        8,
        "partitions.small.time",
        ["no unit", "60m"],
    ),
    "a time that is a number": (
        MINE.replace("time: 1h", "time: 3600"),
        8,
        "partitions.small.time",
        ["3600 is no time with a unit", "3600s"],
    ),
    "a memory with a unit of no kind": (
        MINE.replace("4 GiB", "4 Gigs"),
        9,
        "partitions.small.node.memory",
        ["node.memory: unknown unit 'Gigs' in '4 Gigs': did you mean", "GiB"],
    ),
    "CPUs in words": (
        MINE.replace("cpus: 2", "cpus: many"),
        9,
        "partitions.small.node.cpus",
        ["a whole number or auto is expected", "It says 'many'"],
    ),
    "no CPUs at all": (
        MINE.replace("cpus: 2", "cpus: 0"),
        9,
        "partitions.small.node.cpus",
        ["a number from 1 up is expected", "It says 0."],
    ),
    "no nodes": (MINE.replace("nodes: 1", "nodes: 0"), 7, "partitions.small.nodes", ["from 1 up"]),
    "no partitions": (
        MINE[: MINE.index("  small")] + "  {}\n",
        5,
        "partitions",
        ["one at least is"],
    ),
    "a list where a mapping is meant": (
        MINE[: MINE.index("  small")] + "  - small\n",
        5,
        "partitions",
        ["a mapping is expected"],
    ),
    "a partition whose name would be more than a word": (
        MINE.replace("  small:", '  "a\\nrm -rf x":'),
        6,
        "rm -rf",
        ["one word of letters"],
    ),
    "a word that is none of those": (
        MINE.replace("    time: 1h", "    time: 1h\n    internet: maybe"),
        9,
        "partitions.small.internet",
        ["yes, no, proxy or push-only is expected"],
    ),
    "a switch in words": (
        MINE.replace("    time: 1h", "    time: 1h\n    own_account: perhaps"),
        9,
        "partitions.small.own_account",
        ["true or false is expected"],
    ),
    "a text where a list is meant": (MINE + "quota: du\n", 10, "quota", ["a list is expected"]),
    "a limit of a list": (
        MINE.replace("time: 1h", "time: [{nodes: 2, tme: 1h}]"),
        8,
        "partitions.small.time.0.tme",
        ["did you mean 'time'?"],
    ),
    "a time of a limit": (
        MINE.replace("time: 1h", "time: [{nodes: 2, time: 1x}]"),
        8,
        "partitions.small.time.0.time",
        ["unknown unit 'x'"],
    ),
    "a key twice": (MINE + "transport: ssh\n", 10, "'transport'", ["stands twice", "line 3"]),
    "a key twice far down": (
        MINE.replace("    time: 1h", "    time: 1h\n    time: 2h"),
        9,
        "'time'",
        ["stands twice", "line 8"],
    ),
    "another site's name": (MINE.replace("name: mine", "name: yours"), 1, "name", ["name: mine"]),
    "a wait of no length": (MINE + "kill_wait: 0s\n", 10, "kill_wait", ["no time"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_profile_is_refused_with_file_line_and_key(case: str, profile: Write) -> None:
    text, line, key, words = REFUSED[case]
    path = profile(text)

    with pytest.raises(ProfileError) as caught:
        load_site("mine")

    message = str(caught.value)
    assert f"{path}, line {line}" in message
    for word in [key, *words]:
        assert word in message


BROKEN = {
    "no YAML": "a: [1,\nb: 2",
    "a tab": "a:\n\tb: 1",
    "two documents": "a: 1\n---\nb: 2\n",
    "no mapping": "- a\n- b\n",
    "a bare word": "hello",
    "a day that is none": MINE.replace("time: 1h", "time: 2026-02-31"),
    "a key of no kind": "? [a, b]\n: c\n",
    "an object of Python": "a: !!python/object/apply:os.system ['touch canary']\n",
    "an alias of nothing": "a: *b\n",
    "brackets without an end": "[" * 5000,
    "a NUL": "a: \0\n",
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_yaml_mapping_is_refused_by_file(case: str, profile: Write) -> None:
    path = profile(BROKEN[case])

    with pytest.raises(ProfileError, match=str(path)):
        load_site("mine")

    assert not Path("canary").exists()


def test_an_unknown_site_is_told_with_the_nearest_and_where_to_put_ones_own(home: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        hpcml.plan("train.py", site="locla")

    assert "did you mean 'local'?" in str(caught.value)
    assert str(home / "config" / "hpcml" / "sites") in str(caught.value)


@pytest.mark.parametrize("name", ["", "../local", "/etc/passwd", "a\0b", "a\nb"])
def test_a_sites_name_is_no_path(name: str) -> None:
    with pytest.raises(ProfileError, match="there is no site"):
        load_site(name)


def test_a_profile_that_extends_nothing_there_says_who_wanted_it(profile: Write) -> None:
    path = profile("name: mine\nextends: locale\n")

    with pytest.raises(ProfileError) as caught:
        load_site("mine")

    assert f"{path}, line 2, column 1, key extends: there is no site 'locale'" in str(caught.value)
    assert "did you mean 'local'?" in str(caught.value)


def test_a_profile_that_extends_its_own_name_is_not_told_to_do_so(profile: Write) -> None:
    profile("extends: mine\n")

    with pytest.raises(ProfileError, match="there is no site 'mine' below it") as caught:
        load_site("mine")

    assert "did you mean 'mine'" not in str(caught.value)


def test_profiles_that_extend_each_other_are_refused(profile: Write) -> None:
    profile("extends: b", "a")
    profile("extends: c", "b")
    profile("extends: a", "c")

    with pytest.raises(ProfileError, match="extends itself by way of a → b → c"):
        load_site("a")


def test_a_mistake_in_an_extended_profile_is_named_where_it_stands(profile: Write) -> None:
    base = profile(MINE + "kill_wait: 5\n")
    profile("extends: mine\ndescription: its own\n", "other")

    with pytest.raises(ProfileError, match=f"{base}, line 10, column 1, key kill_wait"):
        load_site("other")


def test_a_profile_that_is_not_utf8_is_refused(profile: Write) -> None:
    path = profile(MINE)
    path.write_bytes(b"name: m\xfcnchen\n")

    with pytest.raises(ProfileError, match=f"{path}, line 1, column 8: .* byte 0xfc is no UTF-8"):
        load_site("mine")


WRONG_SETTINGS = {
    "an unknown key": ("sites:\n  local:\n    worksapce: /x\n", 3, "did you mean 'workspace'?"),
    "an unknown top key": ("site:\n  local: {}\n", 1, "did you mean 'sites'?"),
    "a relative workspace": ("sites:\n  local:\n    workspace: runs\n", 3, "path from the root"),
    "a number": ("sites:\n  local:\n    account: 12\n", 3, "text is expected"),
    "a project that leads elsewhere": ("sites:\n  x:\n    project: ../etc\n", 3, "one word"),
    "a user in several words": ("sites:\n  x:\n    user: a b\n", 3, "one word"),
    "nothing of a site": ("sites:\n  local:\n", 2, "a mapping is"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_wrong_settings_are_refused_with_file_line_and_key(case: str, settings: Write) -> None:
    text, line, words = WRONG_SETTINGS[case]
    path = settings(text)

    with pytest.raises(ProfileError) as caught:
        load_settings()

    assert re.search(f"{path}, line {line}, column [0-9]+, key sit", str(caught.value))
    assert words in str(caught.value)


def test_settings_that_cannot_be_read_are_no_missing_settings(home: Path) -> None:
    path = home / "config" / "hpcml" / "config.yaml"
    path.mkdir(parents=True)

    with pytest.raises(ProfileError, match=f"{path} cannot be read"):
        load_settings()


def test_a_site_without_a_workspace_asks_for_one(profile: Write, settings: Write) -> None:
    profile(MINE.replace('workspace: "{data}/mine"\n', ""))

    with pytest.raises(ProfileError, match=r"sites\.mine\.workspace"):
        bind(load_site("mine"))

    settings("sites: {mine: {workspace: /scratch/me}}")
    assert bind(load_site("mine")).workspace == "/scratch/me"


def test_a_scheduler_that_nobody_knows_is_refused_at_plan_time(
    profile: Write, script: Callable[..., str]
) -> None:
    profile(MINE.replace("scheduler: process", "scheduler: proces"))

    with pytest.raises(HpcmlError, match="did you mean 'process'"):
        hpcml.plan(script("print(1)"), site="mine")
