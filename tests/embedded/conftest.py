"""Fixtures of the embedded site's tests."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.embedded.scene import Scene


@pytest.fixture
def scene(tmp_path: Path, workspace: Path) -> Scene:
    """Where jobs write down that they ran, and what the workspace shows."""
    folder = tmp_path / "scene"
    folder.mkdir()
    return Scene(folder, workspace)


@pytest.fixture
def module(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Writes a module into the project and imports it: ``module("def f(): ...")`` is ``work``."""
    before = set(sys.modules)

    def write(text: str, name: str = "work", folder: str = "") -> ModuleType:
        path = (project / folder).joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(project / folder)
        return importlib.import_module(name)

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(project)):
            del sys.modules[name]
