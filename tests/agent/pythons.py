"""Every Python from 3.6 on that this machine has."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NAME = re.compile(r"python3\.(\d+)")


@functools.cache
def pythons() -> dict[str, str]:
    """Paths by version (``"3.6"``): those on PATH, and all that ``pyenv`` keeps."""
    found = {f"3.{sys.version_info.minor}": sys.executable}
    for folder in [*os.get_exec_path(), *_pyenv()]:
        for path in sorted(Path(folder).glob("python3.*")):
            match = NAME.fullmatch(path.name)
            minor = match.group(1) if match else "0"
            new = int(minor) >= 6 and f"3.{minor}" not in found
            if new and _is_python(path, minor):
                found[f"3.{minor}"] = str(path)
    return dict(sorted(found.items(), key=lambda item: int(item[0][2:])))


def _pyenv() -> list[str]:
    command = shutil.which("pyenv")
    if command is None:
        return []
    root = subprocess.run([command, "root"], capture_output=True, text=True, check=True)
    return [str(path) for path in sorted(Path(root.stdout.strip(), "versions").glob("*/bin"))]


def _is_python(path: Path, minor: str) -> bool:
    """Whether it is what its name says, and no wrapper around something else."""
    with path.open("rb") as file:
        if file.read(2) == b"#!":
            return False
    tell = [str(path), "-I", "-S", "-c", "import sys; print(sys.version_info[1])"]
    done = subprocess.run(tell, capture_output=True, text=True, check=False)
    return done.stdout.strip() == minor
