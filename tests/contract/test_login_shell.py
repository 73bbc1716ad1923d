"""Where only a login shell finds a command: what becomes of shells that do not answer."""

from __future__ import annotations

import os
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


def test_a_login_shell_that_goes_on_for_ever_ends_with_what_it_waits_for(tmp_path: Path) -> None:
    (tmp_path / ".profile").write_text(PROFILE)
    child = tmp_path / "child"
    text = first_contact.script("word", sys.executable, f"{tmp_path}/ws", "lib.pyz", 1, "no-such")
    hurried = text.replace(b"PATIENCE = 20", b"PATIENCE = 2")
    environment = {"HOME": str(tmp_path), "SHELL": "/bin/sh", "PATH": os.defpath}
    done = subprocess.run(["/bin/sh"], input=hurried, env=environment, capture_output=True)

    assert b'"send": 1' in done.stdout, "it goes on without"
    eventually(lambda: not child.exists() or not is_alive(child.read_text().strip() or "0"))


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
