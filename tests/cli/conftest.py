"""Shells to complete in, as Debian installs them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from hpcml.cli.doctor.here import OPTIONAL
from tests.cli.calling import HPCML, ready
from tests.conftest import installed


def shell_of(name: str) -> str:
    """Its path."""
    return installed(lambda: shutil.which(name), name)


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``hpcml`` of this tree is a command on PATH."""
    command = tmp_path / "bin" / "hpcml"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{HPCML[-1]}' \"$@\"\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return command


@pytest.fixture
def small_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty modules stand in for the packages that the doctor imports: these take seconds."""
    ready()  # which has the real ones
    folder = tmp_path / "packages"
    folder.mkdir()
    for modules, _ in OPTIONAL.values():
        for name in modules:
            (folder / f"{name}.py").touch()
    others = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *others]))
