"""Shells to complete in, as Debian installs them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcml.cli.doctor.here import OPTIONAL
from tests.cli.calling import HPCML, ready


def shell_of(name: str) -> str:
    """A shell; installed by apt-get if it is not there."""
    for _ in range(2):
        found = shutil.which(name)
        if found:
            return found
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if shutil.which("apt-get") and (not root or shutil.which("sudo")):
            for command in (["update"], ["install", "-y", name]):
                apt_get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *command]
                subprocess.run([*root, *apt_get], stdin=subprocess.DEVNULL, check=False)
    pytest.fail(
        f"{name} is needed here, and apt-get could not install it (that takes root, or sudo "
        f"without a password). On Debian or Ubuntu: apt-get install {name}"
    )


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
