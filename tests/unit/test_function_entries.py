"""What a plan says of a function, and which functions and arguments are refused."""

from __future__ import annotations

import functools
import importlib.util
import math
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.call import Function as Loaded
from hpcml.errors import JobError, PlanError
from hpcml.resolving.functions import find_function
from hpcml.results import HERE

WORK = """
def train(width, lr=0.1, *, depth=2): return width * depth
def any_of(first, **rest): return rest
def positional(x, /): return x
def positional_with_default(x=1, /, y=2): return x, y
def fresh(): pass
fresh.fork = False

class Model:
    def __init__(self, width): self.width = width
    def fit(self, epochs): return self.width * epochs
    def __call__(self, epochs): return self.fit(epochs)
    @classmethod
    def of(cls, width): return cls(width)

class Resumed:
    def __call__(self): pass
    def checkpoint(self): pass

nested = lambda x: x
"""


@pytest.fixture
def work(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module of the project."""
    (project / "work.py").write_text(WORK)
    monkeypatch.syspath_prepend(project)
    yield importlib.import_module("work")
    del sys.modules["work"]


def refused(function: Callable[..., Any], **fields: Any) -> str:
    with pytest.raises((JobError, PlanError)) as caught:
        hpcml.plan(hpcml.Job(function, **fields))
    return str(caught.value)


# --- arguments ----------------------------------------------------------------------------


def test_a_parameter_that_is_missing_is_named(work: types.ModuleType) -> None:
    assert "needs 'width'" in refused(work.train, params={"lr": 1})
    assert "needs 'first'" in refused(work.any_of, params={"second": 1})
    assert "needs 'epochs'" in refused(work.Model(3).fit)
    assert "needs 'width'" in refused(work.Model)
    sweep = hpcml.Job(work.train).sweep(points=[{"width": 1}, {"lr": 1}])
    with pytest.raises(PlanError, match=r"points\[1\]\.params.*needs 'width'"):
        hpcml.plan(sweep)


def test_a_parameter_that_is_unknown_is_refused_with_the_nearest(work: types.ModuleType) -> None:
    said = refused(work.train, params={"width": 1, "detph": 3})
    assert "params.detph" in said and "depth" in said
    assert "params.self" in refused(work.Model(3).fit, params={"self": 1, "epochs": 1})
    assert "params.x" in refused(work.positional_with_default, params={"x": 1})


def test_what_can_be_given_by_position_only_is_refused(work: types.ModuleType) -> None:
    assert "'x' cannot be given by name" in refused(work.positional, params={"x": 1})


def test_defaults_inputs_and_any_other_keywords_will_do(work: types.ModuleType) -> None:
    for function, params in (
        (work.train, {"width": 1}),
        (work.train, {"width": 1, "depth": 3, "lr": 0}),
        (work.any_of, {"first": 1, "whatever": 2}),
        (work.positional_with_default, {"y": 1}),
        (work.Model(3), {"epochs": 1}),
        (work.Model.of, {"width": 1}),
        (functools.partial(work.train, 3), {"lr": 1}),
        (math.hypot, {}),
    ):
        assert hpcml.plan(hpcml.Job(function, params=params)).what["params"] == params
    hpcml.plan(hpcml.Job(work.train, inputs={"width": __file__}))


def test_a_function_takes_no_arguments_of_a_command_line(work: types.ModuleType) -> None:
    assert "a function takes keywords" in refused(work.train, params={"width": 1}, args=["-v"])


def test_a_coroutine_function_is_refused(project: Path) -> None:
    async def main() -> None:
        pass

    assert "asyncio.run" in refused(main)


# --- by reference or by value -------------------------------------------------------------


def test_a_plan_names_what_can_be_imported_and_is_the_same_every_time(
    work: types.ModuleType,
) -> None:
    job = hpcml.Job(work.train, params={"width": 1})
    plan = hpcml.plan(job)
    entry = {"kind": "function", "target": "work:train", "path": ["."]}
    assert plan.what["entry"] == entry and plan.name == "train"
    assert plan.digest == hpcml.plan(job).digest
    assert hpcml.plan(hpcml.Job(work.fresh)).what["entry"]["fork"] is False


@pytest.mark.parametrize("name", ["nested", "Model(2).fit", "Model(2)", "Model.of"])
def test_what_has_no_name_of_its_own_goes_by_value_with_its_modules_code(
    work: types.ModuleType, name: str
) -> None:
    found = find_function(eval(name, vars(work)))
    assert found.pickled is not None and found.as_data()["python"] == HERE
    assert found.root == str(Path.cwd())


def test_a_function_that_its_module_calls_otherwise_goes_by_value(work: types.ModuleType) -> None:
    """The name leads to something else, or to nothing."""
    original = work.train
    work.train = work.fresh
    assert find_function(original).pickled is not None


def test_a_module_that_was_loaded_by_hand_goes_by_value(project: Path) -> None:
    """Its name is known in this process only; what the pickle holds must not refer to it."""
    (project / "file.py").write_text("factor = 3\ndef f(x): return factor * x\n")
    spec = importlib.util.spec_from_file_location("by_hand", project / "file.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["by_hand"] = module
    spec.loader.exec_module(module)
    pickled = find_function(module.f).pickled
    del sys.modules["by_hand"]

    import pickle

    assert pickled is not None and pickle.loads(pickled)(2) == 6


def test_a_module_run_with_m_brings_the_folder_of_its_package(
    project: Path, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (project / "package").mkdir()
    (project / "package/__init__.py").write_text("")
    (project / "package/other.py").write_text("one = 1\n")
    (project / "package/start.py").write_text(
        "from hpcml.resolving.functions import find_function\n"
        "from .other import one\n"
        "def f(): return one\n"
        "print(find_function(f).root)\n"
    )
    argv = [sys.executable, "-m", "package.start"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(project)


def test_a_function_that_holds_what_lives_here_only_is_refused(project: Path) -> None:
    lock = threading.Lock()
    said = refused(lambda: lock)
    assert "cannot be imported, nor pickled: TypeError" in said and "Put it into a module" in said


def test_a_function_that_holds_much_data_is_told_about_inputs(project: Path) -> None:
    data = bytes(60 * 10**6)
    said = refused(lambda: data)
    assert "may have 50 MB" in said and "Job(inputs=...)" in said


def test_code_must_hold_the_module_and_none_takes_none(
    work: types.ModuleType, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = refused(work.fresh, code=str(elsewhere))
    assert "work:fresh is imported from" in said
    assert hpcml.plan(hpcml.Job(work.fresh, code=None)).what["code"] is None


def test_a_function_with_a_checkpoint_has_the_default(work: types.ModuleType) -> None:
    assert hpcml.plan(hpcml.Job(work.Resumed())).what["checkpoint"]["requeues"] == 3
    assert "checkpoint" not in hpcml.plan(hpcml.Job(work.fresh)).what


def test_a_pickle_that_is_not_what_its_name_says_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/abc.pkl").write_bytes(b"cos\nmkdir\n(S'trace'\ntR.")
    entry = {"kind": "function", "target": "f", "pickle": "abc", "python": HERE}
    loaded = Loaded(str(tmp_path / "runs/batch"), {"what": {"entry": entry}}, "")
    with pytest.raises(RuntimeError, match="not what its name says"):
        loaded.load()
    assert not Path("trace").exists()


def test_a_misspelt_input_is_named(project: Path) -> None:
    (project / "data").touch()
    (project / "infer.py").write_text("import hpcml\nhpcml.input_path('model', 'model.pt')\n")

    def read(model: str = "default") -> str:
        return model

    for entry in (read, "infer.py"):
        with pytest.raises(JobError, match=r"inputs\.modle: .*\n.*did you mean 'model'"):
            hpcml.plan(entry, inputs={"modle": "data"})
        hpcml.plan(entry, inputs={"t2m": "data"})  # it may ask for it in another way
        hpcml.plan(entry, inputs={"modle": "data", "model": "data"})
