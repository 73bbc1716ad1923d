"""Lines of bash that a site runs before each run; one that fails fails the run, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import hpcml
from tests.embedded.scene import Scene, write_profile

Module = Callable[..., ModuleType]
Site = Callable[..., str]


@pytest.fixture
def site(home: Path) -> Site:
    """Writes the profile of a machine with a prelude."""

    def write(*lines: str) -> str:
        return write_profile(home, "prepared", f"prelude: {json.dumps(lines)}\n")

    return write


def test_a_run_sees_what_the_prelude_sets_and_what_the_job_says_itself_counts(
    scene: Scene, site: Site
) -> None:
    job = scene.job("echo $NAME $SITE; pwd", name="mine")
    run = hpcml.submit(job, site('export NAME=theirs SITE="it\'s there"', "cd /")).wait()

    name, folder = run.logs().splitlines()
    assert name == "mine it's there"
    assert folder.endswith("/work")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo it is broken >&2; false", "it is broken"),
        ("no_such_command", "no_such_command: command not found"),
        ("exit 3", "exit code 3"),
        ("exit 0", "exit code 0"),
        ("exec true", "exit code 0"),
        ("kill -9 $$", "signal 9"),
        ("set -C; false", "exit code 1"),
        ("if", "syntax error"),
        ("set -u; : $NOT_SET_AT_ALL", "NOT_SET_AT_ALL: unbound variable"),
    ],
)
def test_a_run_whose_prelude_fails_is_failed_and_says_by_which_line(
    line: str, said: str, scene: Scene, site: Site
) -> None:
    run = hpcml.submit(scene.job(), site("true", line, "echo too late")).wait()

    assert run.state == "FAILED"
    assert f"before its command started, {line!r} failed: " in run.reason
    assert said in run.reason
    assert scene.lines() == [], "it has not begun"


def test_functions_see_the_prelude_in_a_warm_interpreter_too(module: Module, site: Site) -> None:
    work = module("import os\ndef f(n): return os.environ['SITE'], n")
    job = hpcml.Job(work.f, resources=hpcml.Resources(time="5m"))
    runs = hpcml.submit(job.sweep(n=[1, 2, 3]), site("export SITE=there"))

    assert [run.result() for run in runs] == [("there", 1), ("there", 2), ("there", 3)]


def test_functions_whose_prelude_fails_are_failed_each_with_that_reason(
    module: Module, site: Site
) -> None:
    work = module("def f(n): return n")
    runs = hpcml.submit(hpcml.Job(work.f).sweep(n=[1, 2]), site("echo broken >&2; false")).wait()

    assert {(str(run.state), "broken" in run.reason) for run in runs} == {("FAILED", True)}
