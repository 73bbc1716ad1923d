"""The tree keeps the promises that the architecture makes about it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hpcml"
SITE_SIDE = [PACKAGE / "agent", PACKAGE / "__init__.py", PACKAGE / "injob.py"]
PUBLIC_FUNCTIONS = [
    "attach",
    "checkpoint",
    "compare",
    "describe",
    "input_path",
    "log",
    "output_path",
    "params",
    "phase",
    "plan",
    "prune",
    "resubmit",
    "runs",
    "submit",
    "sync",
]


def tool(name: str) -> Path:
    """A command of the environment that runs these tests."""
    command = Path(sys.executable).with_name(name)
    assert command.exists(), f"{name} is not installed here: use `make test`"
    return command


def vermin(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Ask vermin whether these files keep to Python 3.6, annotations included.

    Annotations count because 3.6 evaluates them. Lines that ask for something
    newer only where it is there say so to vermin by ``# novm``.
    """
    options = ["--target=3.6-", "--violations", "--no-tips", "--eval-annotations"]
    return subprocess.run(
        [tool("vermin"), *options, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def unions_in_annotations(source: str) -> list[int]:
    """Lines with an annotation such as ``int | None``.

    vermin can look for these too, but takes ``os.O_CREAT | os.O_EXCL`` for one.
    """
    nodes = list(ast.walk(ast.parse(source)))
    annotations = [getattr(node, "annotation", None) for node in nodes]
    annotations += [getattr(node, "returns", None) for node in nodes]
    return [
        part.lineno
        for annotation in annotations
        if annotation is not None
        for part in ast.walk(annotation)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr)
    ]


def site_side_files() -> list[Path]:
    return [f for p in SITE_SIDE for f in ([p] if p.is_file() else sorted(p.rglob("*.py")))]


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_no_module_bears_the_name_of_a_public_function(name: str) -> None:
    """Importing ``hpcml.plan`` the module would replace ``hpcml.plan()``."""
    taken = [p.name for p in PACKAGE.iterdir() if p.name == name or p.name.startswith(f"{name}.")]
    assert not taken, f"rename hpcml/{taken[0]}: hpcml.{name}() is a function"


def test_imports_point_downwards() -> None:
    """Every import contract in pyproject.toml holds."""
    command = [tool("lint-imports"), "--no-cache", "--no-logo"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_runs_at_a_site_needs_no_more_than_python_3_6() -> None:
    """The agent and what `import hpcml` runs in a job use nothing newer than 3.6."""
    result = vermin(*SITE_SIDE)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations",
        "if (n := 1): pass",
        "def f(x: list[int]): pass",
        "import subprocess\nsubprocess.run(['a'], capture_output=True)",
        "import dataclasses",
        "def f(x, /): pass",
        "x = 1\nprint(f'{x=}')",
    ],
)
def test_the_3_6_guard_sees_what_3_6_lacks(code: str, tmp_path: Path) -> None:
    """A guard that cannot fail guards nothing."""
    newer = tmp_path / "newer.py"
    newer.write_text(code + "\n")
    result = vermin(newer)
    assert result.returncode == 1
    assert "Minimum required versions: 3." in result.stdout + result.stderr


def test_the_3_6_guard_accepts_what_3_6_has(tmp_path: Path) -> None:
    """A guard that always fails would be switched off."""
    older = tmp_path / "older.py"
    older.write_text("from typing import List\ndef f(x: List[int]) -> str: return f'{x}'\n")
    assert vermin(older).returncode == 0


def test_what_runs_at_a_site_annotates_without_unions() -> None:
    """``int | None`` is evaluated where it stands, and fails before Python 3.10."""
    found = {f.name: unions_in_annotations(f.read_text()) for f in site_side_files()}
    assert found
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code", ["def f(x: int | None): pass", "def f() -> None | int: pass", "x: int | str = 1"]
)
def test_the_union_guard_sees_unions(code: str) -> None:
    """Arguments, results and variables are looked at."""
    assert unions_in_annotations(code) == [1]


def test_what_runs_at_a_site_does_not_postpone_annotations() -> None:
    """``from __future__ import annotations`` is a syntax error on Python 3.6."""
    postpones = "from __future__ import annotations"
    assert [f for f in site_side_files() if postpones in f.read_text()] == []
