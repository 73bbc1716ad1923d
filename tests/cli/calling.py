"""Calls the command line, as a person or a script does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Mapping

HPCML = [sys.executable, "-c", "from hpcml.cli import main; main()"]


def call(
    *args: str, timeout: float = 60, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``hpcml`` with pipes for stdout and stderr."""
    return subprocess.run(
        [*HPCML, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )


def on_a_terminal(*args: str, columns: int = 120, env: Mapping[str, str] | None = None) -> str:
    """What ``hpcml`` shows on a terminal so wide."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*HPCML, *args],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **(env or {})},
    ):
        os.close(follower)
        return _all_of(leader)


def answering(answer: str, *args: str) -> str:
    """What ``hpcml`` shows on a terminal on which somebody answers its question."""
    leader, follower = pty.openpty()
    os.write(leader, f"{answer}\n".encode())
    with subprocess.Popen([*HPCML, *args], stdin=follower, stdout=follower, stderr=follower):
        os.close(follower)
        shown = _all_of(leader)
    return shown.replace("\r\n", "\n")


def _all_of(leader: int) -> str:
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the terminal's other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    return shown.decode()
