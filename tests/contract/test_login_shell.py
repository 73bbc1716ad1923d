"""Where only a login shell finds a command: what becomes of shells that do not answer."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from hpcml.transports.ssh import first_contact
from tests.conftest import eventually

PROFILE = "export PATH=$PATH:$HOME/bin\nsh -c 'echo $$ > ~/child; exec sleep 1000000'\n"


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


HELPER = """
import os
print(os.environ.get("LD_LIBRARY_PATH"), os.environ["HPCML_LD_LIBRARY_PATH"])
"""


def test_the_libraries_of_a_login_shell_are_for_the_commands_that_it_finds(tmp_path: Path) -> None:
    """Its LD_LIBRARY_PATH might keep a Python from starting, or give it other libraries."""
    command = tmp_path / "opt" / "sbatch"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    lines = f"export PATH=$PATH:{command.parent} LD_LIBRARY_PATH=/opt/slurm/lib\n"
    (tmp_path / ".profile").write_text(lines)
    library = tmp_path / "ws" / "lib" / "lib.pyz"
    library.parent.mkdir(parents=True)
    (tmp_path / "ws").chmod(0o700)
    library.write_text(HELPER)
    library.chmod(0o600)
    size = library.stat().st_size
    text = first_contact.script("word", sys.executable, f"{tmp_path}/ws", "lib.pyz", size, "sbatch")
    environment = {"HOME": str(tmp_path), "SHELL": "/bin/sh", "PATH": os.defpath}
    done = subprocess.run(["/bin/sh"], input=text, env=environment, capture_output=True)

    assert done.stdout.splitlines()[-1] == b"None /opt/slurm/lib", done.stderr


def test_a_login_shell_that_goes_on_for_ever_ends_with_what_it_waits_for(tmp_path: Path) -> None:
    (tmp_path / ".profile").write_text(PROFILE)
    child = tmp_path / "child"
    text = first_contact.script("word", sys.executable, f"{tmp_path}/ws", "lib.pyz", 1, "no-such")
    hurried = text.replace(b"PATIENCE = 20", b"PATIENCE = 2")
    environment = {"HOME": str(tmp_path), "SHELL": "/bin/sh", "PATH": os.defpath}
    done = subprocess.run(["/bin/sh"], input=hurried, env=environment, capture_output=True)

    assert b'"send": 1' in done.stdout, "it goes on without"
    eventually(lambda: not child.exists() or not is_alive(child.read_text().strip() or "0"))


def test_a_workspace_that_somebody_else_has_is_told_with_whose_it_is(tmp_path: Path) -> None:
    """No chmod of yours would help. Here it is who asks that is somebody else."""
    text = first_contact.script("word", sys.executable, str(tmp_path), "lib.pyz", 1)
    other = text.replace(b"import json, os,", b"import os; os.geteuid = lambda: -2\nimport json,")
    done = subprocess.run(["/bin/sh"], input=other, capture_output=True)
    said = json.loads(done.stdout.split(b"word ")[-1])

    me = pwd.getpwuid(os.geteuid()).pw_name
    assert said["problem"] == f"{tmp_path} belongs to {me}"
    assert said["advice"] == "Choose another workspace in the settings."


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_modules_that_a_site_names_are_loaded_before_a_command_is_looked_for(
    tmp_path: Path, shell: str
) -> None:
    """What takes the helper's place says which PATH it got."""
    (tmp_path / ".profile").write_text("module() { export PATH=$PATH:$HOME/$2; }\n")
    command = tmp_path / "slurm" / "bin" / "no-such"
    command.parent.mkdir(parents=True)
    command.write_text("")
    command.chmod(0o755)
    library = tmp_path / "ws" / "lib" / "lib.pyz"
    library.parent.mkdir(parents=True)
    library.write_text("import os; print(os.environ['PATH'])")
    for folder in (tmp_path / "ws", library.parent):
        folder.chmod(0o700)
    environment = {"HOME": str(tmp_path), "SHELL": shell, "PATH": os.defpath}
    found = []
    for modules in ([], ["slurm/bin"]):
        workspace, size = str(tmp_path / "ws"), library.stat().st_size
        text = first_contact.script(
            "word", sys.executable, workspace, "lib.pyz", size, "no-such", modules
        )
        done = subprocess.run(["/bin/sh"], input=text, env=environment, stdout=subprocess.PIPE)
        found.append(str(command.parent) in done.stdout.decode().split("\n")[-2].split(":"))
    assert found == [False, True]
