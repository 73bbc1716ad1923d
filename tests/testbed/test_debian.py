"""What tests need of Debian's packages is installed once, by whoever comes first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.debian import CannotInstall, needed

# Like the real one, it does not wait for another that is at work.
APT_GET = """\
#!/bin/sh
echo "$@" >>{folder}/calls
mkdir {folder}/at-work || {{ echo 'E: Could not get lock' >&2; exit 100; }}
sleep 0.3
{act}
code=$?
rmdir {folder}/at-work
exit $code
"""
INSTALL = """
import os, sys
from pathlib import Path
from tests.testbed import debian

os.geteuid = lambda: 0  # no sudo
debian.DPKG = sys.argv[1]
tool = Path(sys.argv[1], "tool")
print(debian.needed(lambda: tool if tool.exists() else None, "tools"))
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One where nothing is installed, and apt-get makes a file."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("tests.testbed.debian.DPKG", str(tmp_path))
    does(tmp_path, "true")
    return tmp_path


def does(machine: Path, act: str) -> None:
    apt_get = machine / "apt-get"
    apt_get.write_text(APT_GET.format(folder=machine, act=act))
    apt_get.chmod(0o755)


def calls(machine: Path) -> list[str]:
    """Names of what apt-get was called for."""
    lines = (machine / "calls").read_text().splitlines()
    return [word for line in lines for word in line.split() if word in ("install", "update")]


def test_tests_that_need_the_same_at_the_same_time_take_turns(machine: Path) -> None:
    does(machine, f"touch {machine}/tool")
    argv = [sys.executable, "-c", INSTALL, str(machine)]
    others = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [one.communicate()[0] for one in others] == [f"{machine}/tool\n"] * 4
    assert calls(machine) == ["install"]


def test_old_lists_of_packages_are_brought_up_to_date(machine: Path) -> None:
    """The first call knows of no such package."""
    lists = machine / "lists"
    does(machine, f"case $* in *update*) touch {lists} ;; *) [ -e {lists} ] ;; esac")
    assert needed(lambda: lists if lists.exists() else None, "tools") == lists
    assert calls(machine) == ["install", "update", "install"]


def test_what_cannot_be_installed_is_named_with_what_apt_get_said(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(machine, "echo 'E: Unable to locate package tools' >&2; false")
    with pytest.raises(CannotInstall, match=r"apt-get install tools\nIt said: (.|\n)*Unable to"):
        needed(lambda: None, "tools")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CannotInstall, match="tools is missing, and there is no apt-get"):
        needed(lambda: None, "tools")
