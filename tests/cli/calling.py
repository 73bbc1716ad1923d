"""Calls the command line, as a person or a script does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache

from tests.ready import Ready, all_of

MAIN = "from hpcml.cli import main; main()"
HPCML = [sys.executable, "-c", MAIN]


@cache
def ready() -> Ready:
    """A Python that becomes a call."""
    return Ready([sys.executable])


def call(
    *args: str, timeout: float = 60, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``hpcml`` with pipes for stdout and stderr."""
    environment = {**os.environ, **(env or {})}
    if ready().can_have(environment):
        return ready().run([MAIN, *args], environment, os.getcwd(), timeout)
    return subprocess.run(
        [*HPCML, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment,
    )


def on_a_terminal(*args: str, columns: int = 120, env: Mapping[str, str] | None = None) -> str:
    """What ``hpcml`` shows on a terminal so wide."""
    return _shown(args, {"TERM": "xterm", "COLUMNS": str(columns), **(env or {})})


def answering(answer: str, *args: str) -> str:
    """What ``hpcml`` shows on a terminal on which somebody answers its question."""
    return _shown(args, typed=f"{answer}\n").replace("\r\n", "\n")


def _shown(args: Sequence[str], env: Mapping[str, str] | None = None, typed: str = "") -> str:
    leader, follower = pty.openpty()
    os.write(leader, typed.encode())
    environment = {**os.environ, **(env or {})}
    answer = ready().start([MAIN, *args], environment, os.getcwd(), [follower] * 3, timeout=60)
    os.close(follower)
    shown, _ = all_of(leader, answer, timeout=70)
    return shown
