"""Functions as jobs: by reference and by value, wherever they come from, in whichever Python."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hpcml
from hpcml.results import HERE
from tests.agent.pythons import pythons
from tests.embedded.scene import Scene

Module = Callable[..., ModuleType]
Write = Callable[..., str]
Another = Callable[..., subprocess.CompletedProcess[str]]
OTHERS = {name: path for name, path in pythons().items() if int(name[2:]) >= 8 and name != HERE}


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


def in_python(python: Path | str, home: Path) -> None:
    """From now on the embedded site's jobs have this Python."""
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"sites: {{local: {{python: {python}}}}}")


def bare_venv(python: str, folder: Path) -> Path:
    """The Python of an environment with nothing in it."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


# --- by reference -------------------------------------------------------------------------


def test_what_can_be_imported_goes_by_reference_with_the_code_around_it(
    module: Module, script: Write
) -> None:
    """A function, a class, a static method; nothing of them is pickled."""
    script("factor = 10", "beside.py")
    work = module(
        """
        import beside

        def scaled(x): return x * beside.factor

        class Model(dict):
            def __init__(self, width): super().__init__(width=width)

            @staticmethod
            def twice(x): return 2 * x
        """
    )
    jobs = [
        hpcml.Job(work.scaled, params={"x": 4}),
        hpcml.Job(work.Model, params={"width": 8}),
        hpcml.Job(work.Model.twice, params={"x": 4}),
    ]

    runs = hpcml.submit(jobs)

    assert runs.results() == [40, {"width": 8}, 8]
    assert type(runs[1].result()) is work.Model
    entries = [run.plan.what["entry"] for run in runs]
    assert [entry["target"] for entry in entries] == [
        "work:scaled",
        "work:Model",
        "work:Model.twice",
    ]
    assert not any("pickle" in entry or "python" in entry for entry in entries)
    assert runs[0].name == "scaled" and runs[0].plan.digest == hpcml.plan(jobs[0]).digest


@pytest.mark.parametrize("folder", ["", "src"])
def test_a_package_in_a_repository_is_found_wherever_one_submits_from(
    module: Module, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """At its top or in ``src/``; the job's folder is the one submitted from, or the top."""
    (project / "data").mkdir()
    (project / "data/table.txt").write_text("41")
    (project / folder / "package").mkdir(parents=True)
    (project / folder / "package/__init__.py").write_text("")
    (project / folder / "package/other.py").write_text("one = 1\n")
    text = """
        import os
        from .other import one

        def f(path): return one + int(open(path).read()), os.path.basename(os.getcwd())
    """
    work = module(text, "package.work", folder)
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "all")

    runs = [hpcml.submit(work.f, params={"path": "data/table.txt"})]
    monkeypatch.chdir(project / "data")
    runs += [hpcml.submit(work.f, params={"path": "table.txt"})]
    monkeypatch.chdir(tmp_path)
    runs += [hpcml.submit(work.f, params={"path": "data/table.txt"})]

    assert [run.result(60) for run in runs] == [(42, "work"), (42, "work"), (42, "work")]
    assert runs[0].digest == runs[2].digest


def test_a_function_that_is_installed_takes_no_code_along(project: Path) -> None:
    (project / "not_wanted.py").write_text("")
    runs = hpcml.submit(
        [
            hpcml.Job(statistics.fmean, params={"data": [1, 2, 6]}),
            hpcml.Job(json.dumps, params={"obj": [1], "indent": None}),
        ]
    )
    assert runs.results() == [3.0, "[1]"]
    assert [run.plan.what["code"] for run in runs] == [None, None]


def test_arguments_are_parameters_and_paths_of_inputs(
    module: Module, project: Path, tmp_path: Path
) -> None:
    """Whatever their names; defaults are the function's own."""
    (tmp_path / "t2m.txt").write_text("280.5")
    work = module(
        """
        import hpcml

        def train(self, function, t2m, *, lr=0.1, args=(), **rest):
            """
        + '''"""Names that others use for themselves."""
            return self, function, open(t2m).read(), lr, args, rest, hpcml.params()

        class Data:
            def __init__(self, n): self.n = n
            def total(self, plus): return self.n + plus
        '''
    )
    params = {"self": 1, "function": "relu", "kwargs": {"a": None}, "call": "é"}
    inputs = {"t2m": str(tmp_path / "t2m.txt"), "unasked": str(tmp_path / "t2m.txt")}
    run = hpcml.submit(work.train, params=params, inputs=inputs)
    method = hpcml.submit(work.Data(40).total, params={"plus": 2})

    rest = {"kwargs": {"a": None}, "call": "é"}
    assert run.result(60) == (1, "relu", "280.5", 0.1, (), rest, params)
    assert method.result(60) == 42


# --- by value -----------------------------------------------------------------------------

BY_VALUE = """
import functools
import hpcml, beside

class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, x): return self.n + x + beside.factor

def make(n):
    def add(x): return n + x
    return add

def main(x):
    import late
    return late.late(x) + beside.factor

functions = [lambda x: x + 1, make(2), functools.partial(beside.plus, 3), Adder(4), main]
if __name__ == "__main__":
    runs = hpcml.submit([hpcml.Job(f, params={"x": 0}) for f in functions])
    print(*runs.results(), *["pickle" in run.plan.what["entry"] for run in runs])
"""


@pytest.fixture
def beside(script: Write) -> None:
    """Modules that functions by value use."""
    script("factor = 100\ndef plus(a, x): return a + x\n", "beside.py")
    script("def late(x): return x + 5\n", "late.py")


@pytest.mark.usefixtures("beside")
def test_a_script_submits_its_own_functions_lambdas_closures_partials_and_objects(
    script: Write, project: Path, tmp_path: Path
) -> None:
    """With the modules beside the script, though it is started from elsewhere."""
    entry = project / script(BY_VALUE)
    argv = [sys.executable, str(entry)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "2", "3", "104", "105"] + ["True"] * 5, done.stderr


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("start", [["-c", BY_VALUE], ["-"]])
def test_an_interpreter_without_a_file_submits_its_own_functions(
    project: Path, start: list[str]
) -> None:
    """As a notebook does: modules of the current folder that it has loaded go along."""
    argv = [sys.executable, *start]
    done = subprocess.run(argv, input=BY_VALUE, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "2", "3", "104", "105"] + ["True"] * 5, done.stderr


def test_a_partial_brings_the_module_of_its_function(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import functools

    work = module("def f(a, x): return a, x")
    monkeypatch.chdir(tmp_path)
    run = hpcml.submit(functools.partial(work.f, 1), params={"x": 2})
    assert run.result(60) == (1, 2)


def test_a_loop_over_lambdas_is_a_sweep_of_what_they_hold(project: Path) -> None:
    """Each is pickled with what it held when it was submitted."""
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec("def make(n): return lambda: n * 10", space)
    runs = hpcml.submit([hpcml.Job(space["make"](n)) for n in range(3)])
    assert runs.results() == [0, 10, 20]


# --- the job's Python ---------------------------------------------------------------------


@pytest.mark.parametrize("version", OTHERS)
def test_a_bare_python_of_another_version_calls_what_it_can_import(
    module: Module, home: Path, tmp_path: Path, version: str
) -> None:
    """It needs neither submitit nor cloudpickle; results and exceptions come back from it."""
    work = module(
        """
        import sys

        def f(x):
            if x == 2:
                raise ValueError("two")
            return "%d.%d" % sys.version_info[:2], {"x": x}
        """
    )
    in_python(bare_venv(OTHERS[version], tmp_path / "venv"), home)

    runs = hpcml.submit(hpcml.Job(work.f).sweep(x=[0, 1, 2])).wait(60)

    assert [run.result() for run in runs[:2]] == [(version, {"x": 0}), (version, {"x": 1})]
    error = runs[2].exception()
    assert "ValueError: two" in str(error) and "ValueError: two" in runs[2].reason
    assert "work.py" in str(error.__cause__), runs[2].logs()


def test_a_bare_python_of_the_clients_version_calls_functions_by_value(
    project: Path, home: Path, tmp_path: Path
) -> None:
    in_python(bare_venv(sys.executable, tmp_path / "venv"), home)
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec("def f(x):\n    import sys\n    return x, sys.prefix", space)
    runs = hpcml.submit(hpcml.Job(space["f"]).sweep(x=[1, 2]))
    assert runs.results() == [(n, str(tmp_path / "venv")) for n in (1, 2)]


class Traced:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __call__(self) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


@pytest.mark.skipif(not OTHERS, reason="this machine has one Python only")
def test_a_function_by_value_is_refused_by_another_python_before_it_is_unpickled(
    project: Path, home: Path, tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytecode of another version may crash the interpreter, or do something else."""
    monkeypatch.setattr(Traced, "__module__", "nowhere")
    trace, (version, python) = tmp_path / "trace", next(iter(OTHERS.items()))
    in_python(python, home)

    runs = hpcml.submit(hpcml.Job(Traced(str(trace))).sweep(points=[{}, {}, {}])).wait(60)

    for run in runs:
        said = f"was pickled by Python {HERE}, and the job's Python is {version}"
        assert run.state == "FAILED" and said in run.reason
        for text in (said, "put it into a module", f"submit from Python {version}"):
            assert text in str(run.exception())
    assert not trace.exists()


# --- in a notebook ------------------------------------------------------------------------

CELLS = """
import hpcml

factor = 10

def scaled(x):
    return x * factor
---
run = hpcml.submit(scaled, params={"x": 4})
print(await run)
---
runs = hpcml.submit(hpcml.Job(scaled).sweep(x=[1, 2]))
print(sum([await run for run in runs]))
"""


def test_a_notebook_submits_a_function_of_a_cell_and_awaits_it(project: Path) -> None:
    """A real kernel, in which the loop runs already."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(cwd=str(project))
    try:
        printed = [run_cell(client, cell) for cell in CELLS.split("---\n")]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert printed == ["", "40\n", "30\n"]


def run_cell(client: Any, cell: str) -> str:
    """What a cell prints, on stderr too."""
    printed: list[str] = []

    def note(message: dict[str, Any]) -> None:
        content = message["content"]
        printed.append(content.get("text", "") + "\n".join(content.get("traceback", ())))

    client.execute_interactive(cell, output_hook=note, timeout=60)
    return "".join(printed)


def test_a_result_can_be_loaded_whatever_umask_the_function_has_set(module: Module) -> None:
    work = module("import os\ndef f(): return os.umask(0o002)")
    assert hpcml.submit(work.f).result(60) == 0o077
