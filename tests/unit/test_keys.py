"""One model of a profile: it checks files, and tells editors and people what can be said."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcml.documents import parse, read_text
from hpcml.errors import ArgumentError
from hpcml.sites import load_site, packaged_profiles, wrong_with
from hpcml.sites.keys import all_keys, key_names, keys_of
from hpcml.sites.schema import site_schema
from hpcml.sites.skeleton import new_profile
from tests.docs.keys import PAGE, SCHEMA, page_text, schema_text


def accepted(text: str) -> bool:
    """Whether an editor accepts a profile by the schema."""
    content, _ = parse(textwrap.dedent(text), "x")
    validator = jsonschema.Draft202012Validator(site_schema())
    return not list(validator.iter_errors(content))


def test_the_schema_in_the_tree_is_what_the_model_says() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "make golden writes it anew"
    jsonschema.Draft202012Validator.check_schema(site_schema())


def test_the_reference_page_has_the_keys_as_they_are() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_text(), "make golden writes it anew"


@pytest.mark.parametrize("profile", packaged_profiles(), ids=lambda path: path.name)
def test_profiles_that_come_along_are_right_and_known_to_editors(profile: Any) -> None:
    assert wrong_with(profile.name.removesuffix(".yaml")) == []
    text = read_text(profile)
    assert text.startswith("# yaml-language-server: $schema=./schema.json\n")
    assert accepted(text)


SAID = {
    "a fact with its source": "kill_wait: {value: 3s, source: me, confidence: A}",
    "what is unknown": "partitions: {p: {nodes: unknown, time: {value: unknown, source: me}}}",
    "a source for all of a mapping": "ssh: {host: a, source: me, confidence: C}",
    "a source among names": "partitions: {source: me, p: {nodes: 1}}",
    "what it extends": "extends: local",
    "a device by its kind": "partitions: {p: {node: {device: gpu}}}",
    "one Python for both": "agent_python: python3.9",
    "walltimes by nodes": "partitions: {p: {time: [{nodes: 3, time: {value: 2h, source: me}}]}}",
    "a time by the clock": "kill_wait: 00:00:30",
    "a time of days": "partitions: {p: {time: 1-12:00}}",
    "a time of several parts": "partitions: {p: {time: 1d 12h}}",
    "memory of a unit": "partitions: {p: {node: {memory: 1.5 TiB}}}",
    "memory that is measured": "partitions: {p: {node: {memory: auto}}}",
}
NOT_SAID = {
    "an unknown key": "kill_wiat: 3s",
    "an unknown key far down": "partitions: {p: {node: {devise: gpu}}}",
    "an unknown key beside a value": "kill_wait: {value: 3s, sauce: me}",
    "a confidence of no kind": "kill_wait: {value: 3s, confidence: D}",
    "a word that is none of them": "cost_unit: euros",
    "a wrong type": "max_array: many",
    "what must be known": "partitions: {p: {node: {reserved_cores: unknown}}}",
    "a time without a unit": 'kill_wait: "30"',
    "a time that may be minutes or hours": "kill_wait: 00:30",
    "a time of no unit": "partitions: {p: {time: [{time: 3 fortnights}]}}",
    "memory without a unit": 'partitions: {p: {node: {memory: "480"}}}',
    "memory of no unit": "partitions: {p: {node: {memory: 480 gigs}}}",
    "a name with a blank": "partitions: {a b: {nodes: 1}}",
}


@pytest.mark.parametrize("case", SAID)
def test_editors_accept_what_a_profile_may_say(case: str, own: Callable[[str], Path]) -> None:
    assert accepted(SAID[case])
    assert wrong_with("_own", own(SAID[case])) == []


@pytest.mark.parametrize("case", NOT_SAID)
def test_editors_refuse_what_hpcml_refuses(case: str, own: Callable[[str], Path]) -> None:
    assert not accepted(NOT_SAID[case])
    assert wrong_with("_own", own(NOT_SAID[case])) != []


@pytest.fixture
def own(home: Path) -> Callable[[str], Path]:
    """Writes a profile that may lack anything."""

    def write(text: str) -> Path:
        path = home / "_own.yaml"
        path.write_text(text)
        return path

    return write


# --- keys ---------------------------------------------------------------------------------


def test_a_key_is_found_by_its_name_its_end_and_names_of_ones_own() -> None:
    (whole,) = keys_of("partitions.booster.node.cpus")
    assert keys_of("partitions.NAME.node.cpus") == keys_of("node.cpus") == [whole]
    assert {key.name for key in keys_of("mpi")} == {"launch.mpi", "partitions.NAME.launch.mpi"}
    assert keys_of("partitions.p.time.0.nodes")[0].name == "partitions.NAME.time.N.nodes"


def test_a_key_tells_what_it_is() -> None:
    (key,) = keys_of("kill_wait")
    assert (key.kind, key.default, key.required) == ("time", '"30s"', False)
    assert "TERM" in key.description and key.example is not None
    (key,) = keys_of("memory_option")
    assert {"optional", "required", "never"} <= set(key.allowed)
    assert keys_of("scheduler")[0].required


def test_a_key_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(ArgumentError, match="did you mean 'kill_wait'"):
        keys_of("kil_wait")


def test_every_key_is_described() -> None:
    assert [key.name for key in all_keys() if not key.description] == []
    assert key_names() == [key.name for key in all_keys()]


def test_each_comment_of_a_new_profile_can_be_taken_in() -> None:
    lines = new_profile("mine", None).splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("name:"))
    taken = 0
    for number, line in enumerate(lines[first:], first):
        if line.startswith("# ") and not line.partition("  # ")[0].rstrip().endswith(":"):
            opened = [*_opened(lines[:number], line), line[2:], *lines[number + 1 :]]
            assert accepted("".join(opened)), line
            taken += 1
    assert taken > 50


def _opened(before: list[str], line: str) -> list[str]:
    """The lines above one, with those opened that it is within."""
    found, depth = list(before), _depth(line)
    for number in range(len(before) - 1, 3, -1):
        if _depth(before[number]) < depth:
            depth = _depth(before[number])
            found[number] = before[number].removeprefix("# ")
    return found


def _depth(line: str) -> int:
    text = line.removeprefix("# ")
    return len(text) - len(text.lstrip(" "))


def test_a_new_profile_is_in_order_as_it_is(home: Path) -> None:
    folder = home / "config" / "hpcml" / "sites"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(new_profile("mine", None))
    (folder / "more.yaml").write_text(new_profile("more", "local"))
    assert load_site("mine").ssh is not None
    assert load_site("more").partitions == load_site("local").partitions
