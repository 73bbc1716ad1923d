"""Which run a process belongs to: told at import, or to a child that was forked afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import injob
from hpcml.agent import wire
from tests.agent.pythons import pythons

PYTHONS = pythons()
every_python = pytest.mark.parametrize("version", PYTHONS)
ROOT = Path(hpcml.__file__).parents[1]


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """The files of a batch of three runs, as far as a job's code reads them."""
    folder = tmp_path / "batch"
    folder.mkdir()
    plan: dict[str, Any] = {
        "what": {"params": {"width": 8, "lr": 0.5}, "checkpoint": {"path": "state", "requeues": 3}},
        "where": {"inputs": {"data": "/data"}},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    points = [{"params": {"width": width}} for width in (1, 10, 100)]
    (folder / "points.jsonl").write_bytes(b"".join(wire.canonical(p) + b"\n" for p in points))
    for index in range(3):
        (folder / str(index) / "work").mkdir(parents=True)
    return folder


def python(code: str, *, version: str | None = None, **environment: object) -> str:
    """What a Python says that knows these variables."""
    variables = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    variables.update({name: str(value) for name, value in environment.items()})
    done = subprocess.run(
        [PYTHONS[version] if version else sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" and done.returncode == 0, done.stderr
    return done.stdout


def logged(batch: Path, index: int, name: str) -> list[Any]:
    events = wire.parse_lines((batch / str(index) / "events.jsonl").read_bytes())
    return [event["v"][name] for event in events if name in event.get("v", ())]


# --- the run's line of points.jsonl ---------------------------------------------------------------

SHOW = "import hpcml; print(sorted(hpcml.params().items()))"


@pytest.mark.parametrize("index, width", [(0, 1), (1, 10), (2, 100)])
def test_a_run_finds_its_point_by_its_number(batch: Path, index: int, width: int) -> None:
    said = python(SHOW, HPCML_BATCH=batch, HPCML_INDEX=index)

    assert said == f"[('lr', 0.5), ('width', {width})]\n"


def test_a_run_that_is_told_where_its_point_is_reads_no_other(batch: Path) -> None:
    """A million lines before it, say: they are not looked at, nor are they counted."""
    path = batch / "points.jsonl"
    point = path.read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"no line " * 1000 + point + b"torn")

    said = python(SHOW, HPCML_BATCH=batch, HPCML_INDEX=2, HPCML_POINT=8000)

    assert said == "[('lr', 0.5), ('width', 100)]\n"


# --- forked after the import ----------------------------------------------------------------------

WARM = """
import os, sys
import hpcml
from hpcml import injob

injob.watch_use()
epoch = hpcml.phase("epoch")  # as a module may, at its import

def run():
    state = hpcml.checkpoint()
    print(hpcml.params(width=0, lr=0).width, hpcml.input_path("data"), flush=True)
    print(hpcml.output_path("model.pt"), state.path, flush=True)
    pids = []
    for n in range(2):
        pids.append(os.fork())
        if pids[-1] == 0:
            work("c%d" % n)
    work("parent", pids)

def work(name, pids=None):
    for step in range(300):
        with epoch:
            hpcml.log(step=step, **{name: 0.5})
    if pids is None:
        os._exit(0)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0

assert not injob.used
for index in (0, 2):
    pid = os.fork()
    if pid == 0:
        os.environ["HPCML_INDEX"] = str(index)
        injob.bind()
        run()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert injob._emit is injob._note_use and not injob.used  # nothing of it came back
"""


@every_python
def test_children_of_one_import_are_runs_of_their_own_under(version: str, batch: Path) -> None:
    """Each records, forks and asks as if it had made the import itself."""
    said = python(WARM, version=version, HPCML_BATCH=batch)

    assert said.splitlines() == [
        "1 /data",
        f"{batch}/0/work/model.pt {batch}/0/work/state",
        "100 /data",
        f"{batch}/2/work/model.pt {batch}/2/work/state",
    ]
    for index in (0, 2):
        for name in ("parent", "c0", "c1"):
            assert logged(batch, index, name) == [0.5] * 300
    assert not (batch / "1" / "events.jsonl").exists()


def test_binding_again_and_again_adds_no_hook(batch: Path) -> None:
    code = """
    import os
    hooks, register = [], os.register_at_fork
    os.register_at_fork = lambda **hook: hooks.append(hook) or register(**hook)
    from hpcml import injob
    for _ in range(10):
        injob.bind()
    print(sum(hook["after_in_child"].__module__ == "hpcml.injob" for hook in hooks))
    """
    assert python(code, HPCML_BATCH=batch, HPCML_INDEX=0) == "1\n"


def test_a_process_bound_to_another_run_writes_to_that_one(batch: Path) -> None:
    code = """
    import os, hpcml
    hpcml.log(step=0, x=1.0)
    before = hpcml.params().width, hpcml.checkpoint().path
    os.environ["HPCML_INDEX"] = "1"
    hpcml.injob.bind()
    hpcml.log(step=0, x=2.0)
    print(*before, hpcml.params().width, hpcml.checkpoint().path)
    """
    said = python(code, HPCML_BATCH=batch, HPCML_INDEX=0)

    assert said == f"1 {batch}/0/work/state 10 {batch}/1/work/state\n"
    assert (logged(batch, 0, "x"), logged(batch, 1, "x")) == ([1.0], [2.0])


# --- watching use ---------------------------------------------------------------------------------


@pytest.fixture
def watched(project: Path) -> Iterator[None]:
    injob.watch_use()
    yield
    injob.bind()


USES: dict[str, Callable[[], object]] = {
    "params": lambda: hpcml.params(width=8),
    "input_path": lambda: hpcml.input_path("data", "here"),
    "output_path": lambda: hpcml.output_path("model.pt"),
    "phase": lambda: hpcml.phase("epoch").__enter__(),
    "log": lambda: hpcml.log(step=1, loss=0.5),
    "log of anything": lambda: hpcml.log(samples=3, loss=object()),
    "describe": lambda: hpcml.describe(model="toy"),
    "checkpoint": lambda: hpcml.checkpoint(),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_depends_on_the_run_is_noticed(watched: None, use: str) -> None:
    assert not injob.used

    USES[use]()

    assert injob.used


@pytest.mark.parametrize("name, found", [("params", {"width": 8}), ("input_path", "here")])
def test_what_is_watched_behaves_as_outside_a_run(watched: None, name: str, found: object) -> None:
    assert USES[name]() == found


def test_making_a_phase_is_no_use(watched: None) -> None:
    hpcml.phase("epoch")

    assert not injob.used


def test_watching_is_over_with_the_next_binding(watched: None, project: Path) -> None:
    injob.bind()
    for use in USES.values():
        use()

    assert not injob.used and injob._emit is None and list(project.iterdir()) == []


def test_each_watch_begins_anew(watched: None) -> None:
    hpcml.params()
    injob.watch_use()

    assert not injob.used
