"""CPU time of whole process trees, and ratios that a busy machine leaves alone."""

from __future__ import annotations

import ctypes
import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class LeftOut:
    """What was to be measured and is not: a table without it does not count as complete."""

    what: str
    why: str


_homes = tempfile.TemporaryDirectory(prefix="hpcml-benchmarks-")  # removed at exit
ROUNDS = 11


def adopt_orphans() -> None:
    """Have daemons that our children start become our children, so that they are counted."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_seconds(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """CPU time (user and system, in s) of a command and of everything that it leaves running."""
    return cpu_and_output(argv, environment)[0]


def cpu_and_output(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """As :func:`cpu_seconds`, and what the command prints.

    Returns when the last of these processes has ended. Needs :func:`adopt_orphans`.

    Raises
    ------
    RuntimeError
        The command failed.
    """
    before = _children()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    if process.returncode:
        raise RuntimeError(f"{argv} failed: {output}")
    return _children() - before, output


def alternate(*measures: Callable[[], float], rounds: int = ROUNDS) -> list[float]:
    """Medians of several measures, taken in turns so that a slow moment hits all of them."""
    for measure in measures:
        measure()
    taken = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def fresh_home(folder: Path | None = None) -> dict[str, str]:
    """An environment whose home is new and empty, in a folder that somebody removes."""
    home = Path(tempfile.mkdtemp(dir=folder or _homes.name))
    names = {"HOME": "", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "s", "XDG_CACHE_HOME": "k"}
    names["XDG_DATA_HOME"] = "d"
    return {**os.environ, **{variable: str(home / name) for variable, name in names.items()}}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
