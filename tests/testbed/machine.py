"""What the machine must have for a box, and how commands are run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.testbed.debian import CannotInstall, needed

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Command -> the Debian package that has it.
COMMANDS = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}


class CannotHaveBox(Exception):
    """There is no box on this machine: what is missing, and what was left out because of it."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(
            f"no supercomputer in a box: {problem}. {advice} Everything that needs Slurm was "
            "left out, and is not tested."
        )


class CommandFailed(Exception):
    """A command gave another exit code than 0; it, the code and what it said."""

    def __init__(self, argv: Iterable[str], done: subprocess.CompletedProcess[str]) -> None:
        self.done = done
        said = "\n".join(text for text in (done.stdout, done.stderr) if text)
        super().__init__(f"exit code {done.returncode} from {' '.join(argv)}\n{said}")


def run(
    *argv: str | Path,
    stdin: str | None = None,
    timeout: float = 600,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine; raises `CommandFailed` where it fails."""
    words = [str(word) for word in argv]
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        pass_fds=pass_fds,
        **given,
    )
    if done.returncode != 0:
        raise CommandFailed(words, done)
    return done


def make_ready() -> None:
    """Check what a box needs of the machine, and install by apt what is missing.

    Raises
    ------
    CannotHaveBox
        What is missing and cannot be installed.
    """
    if os.geteuid() != 0:
        raise CannotHaveBox("it takes root", "Run it as root, on Linux.")
    filesystems = Path("/proc/filesystems").read_text().split()
    for kind in ("overlay", "tmpfs"):
        if kind not in filesystems and shutil.which("modprobe"):
            subprocess.run(["modprobe", kind], check=False, capture_output=True)
            filesystems = Path("/proc/filesystems").read_text().split()
        if kind not in filesystems:
            raise CannotHaveBox(f"the kernel has no {kind}", "Use another machine.")
    packages = sorted(_missing())
    try:
        needed(lambda: None if _missing() else True, *packages)
    except CannotInstall as problem:
        raise CannotHaveBox(problem.problem, problem.advice) from problem


def _missing() -> set[str]:
    """Debian packages that are to be installed."""
    packages = {package for command, package in COMMANDS.items() if not shutil.which(command)}
    return packages if KEYRING.exists() else {*packages, "debian-archive-keyring"}
