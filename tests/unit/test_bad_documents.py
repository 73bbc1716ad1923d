"""Profiles that want to do harm, or are no profiles: one clear error, in little time and memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import yaml

from hpcml.documents import check_model, parse, read_text, remembered
from hpcml.errors import ProfileError
from hpcml.sites import Site, load_site, loading, read_site, site_names, wrong_with

M = 1 << 20
WHOLE = """\
name: mine
scheduler: process
transport: local
partitions:
  p: {nodes: 1, time: 1h, node: {cpus: 1, memory: 1 GiB}}
"""


@pytest.fixture
def folder(home: Path) -> Path:
    found = home / "config" / "hpcml" / "sites"
    found.mkdir(parents=True)
    return found


@pytest.fixture(params=["libyaml", "pyyaml alone"])
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pyyaml alone":
        monkeypatch.delattr(yaml, "CSafeLoader")


def refused(text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        parse.__wrapped__(text, "mine.yaml")
    return str(caught.value)


# --- what YAML can say, and no profile does -----------------------------------------------

REFUSED = {
    "a tab": ("a:\n\tb: 1\n", "line 2, column 1: a tab indents"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' stands twice"),
    "a number as a key": ("1: a\n", "line 1, column 1: the key 1 is no text"),
    "a truth as a key": ("a:\n  true: b\n", "line 2, column 3: the key true is no text"),
    "nothing as a key": ("a: {~: 1}\n", "line 1, column 5: the key ~ is no text"),
    "a list as a key": ("? [a]\n: b\n", "line 1, column 3: the key a list or mapping is no text"),
    "an object": ("a: !!python/object/apply:os.system [x]\n", "line 1, column 4: the tag"),
    "a name of Python's": ("a: !!python/name:os.system\n", "tag:yaml.org,2002:python/name:os.sys"),
    "a set": ("a: !!set {b}\n", "line 1, column 4: the tag tag:yaml.org,2002:set is not read"),
    "a tag of nobody's": ("a: !b c\n", "the tag !b is not read"),
    "an alias of nothing": ("a: *b\n", "line 1, column 4: *b stands for nothing"),
    "an alias within itself": ("a: &a [*a]\n", "line 1, column 8: *a stands for nothing that is"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2, column 1: a second document begins"),
    "a list": ("- a\n", "line 1, column 1: a mapping is expected"),
    "a word": ("hello\n", "line 1, column 1: a mapping is expected"),
    "a merge of words": ("a: {<<: b}\n", "line 1, column 9: << takes mappings"),
    "an escape of a terminal": ('a: "\\e[2J"\n', "line 1, column 4: there is U+001B"),
    "an escape that turns what follows": ('a: "\\u202Eb"\n', "U+202E (right-to-left override)"),
    "a NUL": ('a: "\\0"\n', "there is U+0000 (a control character) in it"),
    "brackets without end": ("[" * M, "line 1, column 34: it is nested deeper than 32 levels"),
    "mappings without end": ("{a: " * 9999, "nested deeper than 32 levels"),
    "a long value": ("a: " + "x" * 99_999, "more than 10,000 characters"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(9999)), "more than 10,000 values"),
}


@pytest.mark.usefixtures("either_parser", "home")
@pytest.mark.parametrize("case", REFUSED)
def test_what_no_profile_says_is_refused_with_line_and_column(case: str) -> None:
    text, words = REFUSED[case]
    said = refused(text)
    assert said.startswith("mine.yaml, line ") and words in said


def test_words_mean_what_they_look_like(home: Path) -> None:
    text = "a: no\nb: 10:30\nc: 2026-02-31\nd: 007\ne: 12\nf: true\ng: ~\nh: '12'\ni: 1.5\non: x\n"
    assert parse(text, "x")[0] == {
        **{"a": "no", "b": "10:30", "c": "2026-02-31", "d": "007", "e": 12, "f": True, "g": None},
        **{"h": "12", "i": 1.5, "on": "x"},
    }


def test_a_mapping_merges_another_and_what_it_says_itself_counts(home: Path) -> None:
    text = "a: &a {k: 1, l: 2}\nb: &b {m: 3, l: 4}\nc:\n  <<: [*a, *b]\n  k: 5\n"
    content, marks = parse(text, "x")
    assert content["c"] == {"k": 5, "l": 2, "m": 3}
    assert [marks["c", key].line for key in "klm"] == [5, 1, 2]


def grown(link: str) -> str:
    lines = "".join(f"a{n}: &a{n} {link.replace('PREVIOUS', f'*a{n - 1}')}\n" for n in range(1, 12))
    return f"a0: &a0 {{k: v}}\n{lines}"


def times_nine(word: str) -> str:
    return "[" + ", ".join([word] * 9) + "]"


GROWING = {
    "aliases that multiply": grown(times_nine("PREVIOUS")),
    "merges that multiply": grown("{<<: " + times_nine("PREVIOUS") + "}"),
    "aliases that nest": "a0: &a0 x\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)),
    "one long comment": "#" * (M - 1),
    "lines of nothing": "\n" * M,
    "escapes": '"' + "\\x41" * (M // 4),
    "an anchor a value": "a: [" + "&a x, " * (M // 8) + "]",
    "a version": "%YAML " + "1" * (M - 6),
    "dashes": "- " * (M // 2),
}

BOUNDED = """
import resource, sys, yaml
import hpcml.sites
if sys.argv[2] == "pyyaml alone":
    del yaml.CSafeLoader
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
print(*hpcml.sites.wrong_with("mine"), sep="\\n")
"""


@pytest.mark.parametrize("parser", ["libyaml", "pyyaml alone"])
@pytest.mark.parametrize("case", GROWING)
def test_what_grows_when_it_is_read_is_bounded(case: str, parser: str, folder: Path) -> None:
    (folder / "mine.yaml").write_text(GROWING[case])
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, case, parser], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mine.yaml" in done.stdout and len(done.stdout) < 10_000


# --- what is no text, or no file ----------------------------------------------------------


UNREADABLE = {
    "Latin 1": (b"name: mine\na: m\xfc\n", "line 2, column 5: it cannot be read: byte 0xfc is no"),
    "UTF-16": (WHOLE.encode("utf-16"), "line 1, column 1: it cannot be read: byte 0xff is no UTF"),
    "a right-to-left override": ("# a\u202eb\n".encode(), "line 1, column 4: U+202E (right-to-"),
    "what is not seen": ("a: b\u200bc\n".encode(), "line 1, column 5: U+200B (zero width space)"),
    "an escape": (b"# \x1b[2J\n", "line 1, column 3: U+001B (a control character) stands there"),
    "a NUL": (b"a: \0\n", "line 1, column 4: U+0000"),
    "a mark in the middle": ("a: \ufeffb\n".encode(), "U+FEFF"),
    "more than a MiB": (b"#" * (M + 1), "cannot be read: it is larger than 1 MiB"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_clear_text_is_refused_with_its_place(case: str, folder: Path) -> None:
    data, words = UNREADABLE[case]
    (folder / "mine.yaml").write_bytes(data)
    with pytest.raises(ProfileError) as caught:
        load_site("mine")
    assert str(folder / "mine.yaml") in str(caught.value) and words in str(caught.value)


def test_a_byte_order_mark_and_lines_of_windows_are_read(folder: Path) -> None:
    data = WHOLE.replace("\n", "\r\n").encode("utf-8-sig")
    (folder / "mine.yaml").write_bytes(data)
    assert load_site("mine").scheduler == "process"


def test_what_stands_in_a_files_place_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "fifo.yaml")
    (folder / "device.yaml").symlink_to("/dev/zero")
    (folder / "terminal.yaml").symlink_to("/dev/tty")
    (folder / "folder.yaml").mkdir()
    (folder / "circle.yaml").symlink_to(folder / "circle.yaml")
    (folder / "nowhere.yaml").symlink_to(folder / "gone")
    with socket.socket(socket.AF_UNIX) as server, chdir(folder):  # a socket's path is short
        server.bind("socket.yaml")
    for name in ("fifo", "device", "terminal", "folder", "circle", "nowhere", "socket"):
        with pytest.raises(ProfileError, match=f"{folder}/{name}.yaml cannot be read: "):
            load_site(name)
        assert name in site_names()  # it is listed, with what is wrong


def test_a_value_that_looks_like_shell_is_no_option(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        WHOLE + 'modules: ["a; rm -rf ~", "$(x)", "--help me"]\nkill_wait: "`reboot`"\n'
        "ssh: {host: -oProxyCommand=x}\n"
    )
    said = "\n".join(map(str, wrong_with("mine")))
    for key in ("modules.0", "modules.1", "modules.2", "kill_wait", "ssh.host"):
        assert f"key {key}: " in said


def test_a_profile_that_is_a_value_as_a_whole_is_refused_and_breaks_no_other(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site-configs" / "mine.yaml"
    path.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    for value in ("3", "[a]", "{prelude: [a]}"):
        path.write_text(f"extends: local\nvalue: {value}\n")
        assert "line 2, column 1, key value: unknown key" in str(wrong_with("mine")[0])
        with pytest.raises(ProfileError):
            load_site("mine")


def test_all_that_is_wrong_is_found_at_once(folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_text(
        "name: mine\nschedular: process\ntransport: local\nkill_wait: {value: 3, confidence: D}\n"
        "partitions:\n  p: {nodes: 0, time: 1x, node: {cpus: 1, memory: 1 GiB, devise: gpu}}\n"
    )
    said = [str(error) for error in wrong_with("mine")]
    found = {re.search(r"line (\d+), column (\d+), key ([a-z_.]+)", one)[0] for one in said}  # type: ignore[index]
    assert found == {
        "line 2, column 1, key schedular",
        "line 1, column 1, key scheduler",
        "line 4, column 23, key kill_wait.confidence",
        "line 4, column 1, key kill_wait",
        "line 6, column 7, key partitions.p.nodes",
        "line 6, column 17, key partitions.p.time",
        "line 6, column 58, key partitions.p.node.devise",
    }
    assert all(one.startswith(str(path)) for one in said)
    with pytest.raises(ProfileError) as caught:
        load_site("mine")
    assert len(caught.value.others) + 1 <= len(said)


def test_all_keys_that_stand_twice_are_told_at_once(folder: Path) -> None:
    (folder / "mine.yaml").write_text(WHOLE + "name: b\nssh: {host: a, host: b}\n")
    said = [str(error) for error in wrong_with("mine")]
    assert ["line 6" in said[0], "line 7" in said[1], len(said)] == [True, True, 2]


# --- what was read is remembered ----------------------------------------------------------


@pytest.fixture
def cache(home: Path) -> Path:
    return home / "cache" / "hpcml" / "documents"


def test_what_was_read_is_remembered_for_its_owner_alone(cache: Path) -> None:
    told = parse.__wrapped__(WHOLE, "x")
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert remembered.recall(WHOLE) is not None and remembered.recall(WHOLE + " ") is None
    assert parse.__wrapped__(WHOLE, "x") == told
    assert parse.__wrapped__(WHOLE, "y")[1]["name",].file == "y"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data.replace(b"process", b"pr0cess"),
        lambda data: b"",
        lambda data: b"\xff" * 80,
        lambda data: b"null",
    ],
    ids=["cut", "changed", "empty", "noise", "another form"],
)
def test_what_is_damaged_is_not_believed_and_read_again(cache: Path, damage: object) -> None:
    told = parse.__wrapped__(WHOLE, "x")
    (kept,) = cache.iterdir()
    kept.write_bytes(damage(kept.read_bytes()))  # type: ignore[operator]
    assert remembered.recall(WHOLE) is None
    assert parse.__wrapped__(WHOLE, "x") == told
    assert remembered.recall(WHOLE) is not None


def test_another_version_of_hpcml_reads_for_itself(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse.__wrapped__(WHOLE, "x")
    monkeypatch.setattr(remembered, "_reader", lambda: "another")
    assert remembered.recall(WHOLE) is None


@pytest.mark.parametrize("shape", ["[1, 2]", "[[], []]", "{}", '[{}, [[["a"], 1]]]', "[{}, [1]]"])
def test_what_has_another_shape_is_thrown_away_and_read_again(cache: Path, shape: str) -> None:
    told = parse.__wrapped__(WHOLE, "x")
    (kept,) = cache.iterdir()
    kept.write_text(f"{hashlib.sha256(shape.encode()).hexdigest()}\n{shape}")
    assert remembered.recall(WHOLE) is None
    assert parse.__wrapped__(WHOLE, "x") == told
    assert remembered.recall(WHOLE) is not None


FACTS = {
    "a list": "[1]",
    "no class": '{"facts": {}}',
    "another class": '{"class": "Node", "facts": {"cpus": 1, "memory": "1 GiB"}}',
    "a class that is not there": '{"class": "Sight", "facts": {}}',
    "facts that are not there": '{"class": "Site", "facts": {"nme": "x"}}',
    "what cannot be": '{"class": "Limit", "facts": {}}',
}


@pytest.mark.parametrize("shape", FACTS)
def test_facts_of_another_shape_are_thrown_away_and_checked_again(folder: Path, shape: str) -> None:
    (folder / "mine.yaml").write_text(WHOLE)
    content = parse(WHOLE, "x")[0]
    told = check_model(Site, content, {}, "x")
    remembered.keep_data("Site", content, json.loads(FACTS[shape]))
    assert remembered.recall_facts(Site, content) is None
    assert check_model(Site, content, {}, "x") == told
    assert remembered.recall_facts(Site, content) == told


def test_facts_are_the_same_when_they_are_recalled(home: Path) -> None:
    """Of all profiles that come with hpcml; and of what is wrong nothing is remembered."""
    for name in site_names():
        for _ in range(2):
            loading._load.cache_clear()
            assert read_site(name) == load_site(name)
    with pytest.raises(ProfileError):
        check_model(Site, {"name": "x"}, {}, "x")
    assert remembered.recall_facts(Site, {"name": "x"}) is None


def test_a_cache_that_cannot_be_used_harms_nothing(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in its place")
    assert parse.__wrapped__(WHOLE, "x")[0]["name"] == "mine"


def test_a_cache_that_others_may_write_to_is_not_believed(cache: Path) -> None:
    parse.__wrapped__(WHOLE, "x")
    cache.chmod(0o777)
    assert remembered.recall(WHOLE) is None


def test_text_is_read_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a: é\n", encoding="utf-8")
    assert read_text(tmp_path / "a") == "a: é\n"
