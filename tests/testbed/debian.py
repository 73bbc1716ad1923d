"""Debian's packages that tests and boxes need of the machine, installed where they are missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

DPKG = "/var/lib/dpkg"
OTHERS = 600  # seconds for which somebody else may be installing something

T = TypeVar("T")


class CannotInstall(Exception):
    """What is needed, and why it is not there."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}. {advice}")
        self.problem, self.advice = problem, advice


def needed(find: Callable[[], T | None], *packages: str) -> T:
    """What a test needs of the machine; installed by apt-get if it is not found.

    Tests run side by side, and apt-get does not wait for another one: they take turns.

    Parameters
    ----------
    find
        Gives what is needed, or None where it is missing.

    Raises
    ------
    CannotInstall
        It is still not there.
    """
    names = " ".join(packages)
    found = find()
    if found is not None:
        return found
    if shutil.which("apt-get") is None:
        raise CannotInstall(f"{names} is missing, and there is no apt-get", "Install it.")
    with _alone():
        found = find()  # another test may have installed it meanwhile
        if found is not None:
            return found
        said = _install(packages)
    found = find()
    if found is None:
        raise CannotInstall(
            f"{names} is missing, and apt-get could not install it",
            f"On Debian or Ubuntu, as root: apt-get install {names}\nIt said: {said}",
        )
    return found


@contextmanager
def _alone() -> Iterator[None]:
    folder = os.open(DPKG, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # dpkg's own locks are other files, and of another kind
        yield
    finally:
        os.close(folder)


def _install(packages: tuple[str, ...]) -> str:
    """Install packages, as far as it goes; what apt-get has said if it failed."""
    install = ["install", "-y", "--no-install-recommends", *packages]
    if _apt_get(*install) is None:
        return ""
    _apt_get("update")  # the lists may be old, or none
    return _apt_get(*install) or ""


def _apt_get(*words: str) -> str | None:
    """What it said if it failed."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = ["-q", "-o", f"DPkg::Lock::Timeout={OTHERS}"]
    argv = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options, *words]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:  # there is no sudo
        return str(error)
    return None if done.returncode == 0 else f"exit code {done.returncode}\n{done.stderr}"
