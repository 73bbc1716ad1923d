"""What ``--json`` prints has the shape that is documented, no key more and none less."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import click
import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

import hpcml
from hpcml.cli import COMMANDS, cli, shapes
from hpcml.planning import run_digest
from tests.cli.calling import call

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"
WITHOUT = {"completion", "top"}  # a program for a shell, and a live screen
DESCRIBED_ELSEWHERE = {"Column", "Row", "Point", "Summary"}  # in docs/compare.md


def strict(shape: Any) -> Any:
    """A shape with which pydantic refuses unknown keys, NaN, and "1" for 1."""
    if is_typeddict(shape):
        fields = {key: strict(kind) for key, kind in get_type_hints(shape).items()}
        model = TypedDict(shape.__name__, fields)  # type: ignore[misc]
        config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        model.__pydantic_config__ = config  # type: ignore[attr-defined]
        return model
    if get_origin(shape) in (list, dict):
        return get_origin(shape)[tuple(map(strict, get_args(shape)))]
    if get_origin(shape) in (Union, UnionType):
        return Union[tuple(map(strict, get_args(shape)))]  # noqa: UP007
    return shape


def check(command: str, text: str) -> Any:
    """What a command has printed, which is of its shape."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(text, parse_constant=refuse)
    TypeAdapter(strict(shapes.SHAPES[command])).validate_json(text)
    return found


def tables() -> dict[str, list[list[str]]]:
    """The cells of each table of the documentation, by the heading above it."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in DOCS.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith("|--"):
            cells = [cell.strip() for cell in line.replace(r"\|", "/").strip("|").split("|")]
            found.setdefault(heading, []).append(cells)
    return {heading: rows[1:] for heading, rows in found.items()}


def test_the_documentation_names_the_shape_of_every_command() -> None:
    documented = {re.sub("`", "", command): shape for command, shape in tables()["JSON"]}
    names = {
        command: f"list of {get_args(shape)[0].__name__}"
        if get_origin(shape) is list
        else shape.__name__
        for command, shape in shapes.SHAPES.items()
    }
    assert documented == names


def test_the_documentation_has_every_key_of_every_shape() -> None:
    told = tables()
    for name, shape in vars(shapes).items():
        if is_typeddict(shape) and name not in DESCRIBED_ELSEWHERE:
            assert [key.strip("`") for key, _ in told[name]] == list(get_type_hints(shape)), name


def test_every_command_has_json_and_a_shape() -> None:
    context = click.Context(cli)
    for name in set(COMMANDS) - WITHOUT:
        command = cli.get_command(context, name)
        assert command is not None
        leaves = {name: command}
        if name == "import":  # a command for each tool
            assert isinstance(command, click.Group)
            leaves = {f"{name} {tool}": one for tool, one in command.commands.items()}
        for path, leaf in leaves.items():
            assert any("--json" in option.opts for option in leaf.params), path
            assert path in shapes.SHAPES


@pytest.mark.parametrize(
    "wrong",
    [
        '{"runs": 1}',
        '{"runs": "1", "mirrored": null, "passed_over": []}',
        '{"runs": 1, "mirrored": null, "passed_over": [], "x": 1}',
    ],
)
def test_the_guard_sees_what_is_no_such_shape(wrong: str) -> None:
    with pytest.raises(ValidationError):
        check("sync", wrong)


def test_commands_about_runs_print_them_in_their_shape(
    script: Callable[..., str], tmp_path: Path
) -> None:
    script("print('hello')")
    submitted = check("submit", call("submit", "--json", "--wait", "train.py").stdout)
    assert (submitted["state"], submitted["exit_code"], submitted["signal"]) == (
        "COMPLETED",
        0,
        None,
    )
    run_id = submitted["id"]
    for command in (["runs"], ["status", run_id], ["wait", run_id], ["cancel", run_id]):
        assert check(command[0], call(*command, "--json").stdout) == [submitted]
    logs = check("logs", call("logs", run_id, "--json").stdout)
    assert logs == {"stdout": "hello\n", "stderr": ""}
    (fetched,) = check("fetch", call("fetch", run_id, "--json", "--to", str(tmp_path)).stdout)
    assert Path(fetched["folder"], f"{run_id}.stdout").read_text() == "hello\n"
    again = check("resubmit", call("resubmit", "--json", "--wait", run_id).stdout)
    assert [run["digest"] for run in again] == [submitted["digest"]]
    plan = call("plan", "--json", "train.py").stdout
    check("plan", plan)
    assert run_digest(hpcml.Plan.from_json(plan), {}) == submitted["digest"]


def test_a_run_that_has_not_ended_or_was_killed_has_the_same_shape(project: Path) -> None:
    run_id = call("submit", "--code", "none", "--", "sleep", "60").stdout.strip()
    assert check("status", call("status", "--json", run_id).stdout)[0]["exit_code"] is None
    check("cancel", call("cancel", "--json", run_id).stdout)
    done = call("submit", "--code", "none", "--json", "--wait", "--", "sh", "-c", "kill -9 $$")
    assert check("submit", done.stdout)["signal"] == 9
    well = call("submit", "--code", "none", "--wait", "--", "true").stdout.strip()
    nothing = call("resubmit", "--failed", "--json", well)
    assert check("resubmit", nothing.stdout) == []


def test_records_print_their_shape_without_any_nan(script: Callable[..., str]) -> None:
    script("import hpcml; hpcml.log(loss=float('nan'), skill=float('-inf'), step=1)")
    swept = call("sweep", "train.py", "-a", "width=1,2", "--wait", "--json")
    first, _ = check("sweep", swept.stdout)
    batch = first["id"].partition(".")[0]
    compared = check("compare", call("compare", "--json", batch).stdout)
    assert compared["points"][0]["figures"]["metric:loss"] == "NaN"
    assert check("sync", call("sync", "--json").stdout) == {
        "runs": 0,
        "mirrored": None,
        "passed_over": [],
    }
    (shown, _) = check("show", call("show", "--json", batch).stdout)
    assert (shown["id"], shown["allocations"], shown["disagreements"]) == (first["id"], [], [])
    assert shown["attempts"][0]["exit_code"] == 0
    check("prune", call("prune", "--down-to", "0 B", "--json").stdout)
    freed = check("prune", call("prune", "--down-to", "0 B", "--yes", "--json").stdout)
    assert freed["freed"] and batch in {item["name"] for item in freed["items"]}
    assert hpcml.records.find(batch=batch)
    check("import submitit", call("import", "submitit", str(Path.home()), "--json").stdout)


def test_sites_and_the_doctor_print_their_shapes() -> None:
    listed = check("sites", call("sites", "--json").stdout)
    assert "local" in [site["name"] for site in listed]
    for args in (["show", "local", "--json"], ["--json", "show", "local"]):
        check("sites show", call("sites", *args).stdout)
    found = check("sites match", call("sites", "match", "--json", "--", "hostname").stdout)
    assert ("local", True, 1) in {(it["site"], it["fits"], it["nodes"]) for it in found}
    assert check("sites list", call("sites", "list", "--json").stdout) == listed
    assert check("sites explain", call("sites", "explain", "--json").stdout)
    assert check("sites validate", call("sites", "validate", "local", "--json").stdout)
    assert check("sites diff", call("sites", "diff", "local", "lumi-g", "--json").stdout)
    check("doctor", call("doctor", "--json").stdout)


@pytest.mark.parametrize(
    ("args", "kind", "code"),
    [
        (["status", "20200101-000000-aaaaaa.00000"], "RunNotFoundError", 70),
        (["submit", "--site", "lokal", "--code", "none", "--", "true"], "ProfileError", 70),
        (["logs", "-f", "20200101-000000-aaaaaa.00000"], "UsageError", 2),
        (["wait", "--timeout", "soon", "20200101-000000-aaaaaa.00000"], "UsageError", 2),
        (["runs", "--no-such-option"], "UsageError", 2),
    ],
)
def test_a_command_that_fails_says_so_in_json_and_on_stderr(
    args: list[str], kind: str, code: int
) -> None:
    done = call(args[0], "--json", *args[1:])
    assert done.returncode == code
    TypeAdapter(strict(shapes.Failed)).validate_json(done.stdout)
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == kind
    assert error["problem"] in done.stderr


def test_an_option_of_the_job_is_not_taken_for_hpcmls() -> None:
    done = call("submit", "--site", "lokal", "--code", "none", "--", "./simulate", "--json")
    assert (done.returncode, done.stdout) == (70, "")
