"""A command is started as a shell would, whatever the agent itself hears, ignores and has open."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcml.agent import starting

PATH = {"PATH": os.defpath}


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def printed(argv: list[str], folder: Path, out: int, **more: Any) -> str:
    """What a command prints."""
    pid = starting.start(argv, str(folder), PATH, [out, out], **more)
    assert os.waitpid(pid, 0)[1] == 0
    return (folder / "out").read_text()


def test_a_command_finds_no_signal_ignored_or_blocked(tmp_path: Path, out: int) -> None:
    """Python ignores SIGPIPE; while a command starts, others are blocked."""
    said = printed(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], tmp_path, out)
    masks = [int(line.split()[1], 16) for line in said.splitlines()]
    # 32 and 33 are the C library's own: nobody can set them, and who started us may ignore them.
    assert [mask & ~(0b11 << 31) for mask in masks] == [0, 0]


def test_a_command_leads_a_session_and_has_no_input(tmp_path: Path, out: int) -> None:
    said = printed(["sh", "-c", "cat; cut -d' ' -f6 /proc/$$/stat; echo $$"], tmp_path, out)
    session, pid = said.split()
    assert session == pid


def test_a_command_inherits_what_it_is_to_keep_and_nothing_else(tmp_path: Path, out: int) -> None:
    kept, other = (os.open("/", os.O_RDONLY) for _ in range(2))
    os.set_inheritable(other, True)
    look = 'for n in "$@"; do if [ -e "/proc/$$/fd/$n" ]; then echo "$n"; fi; done'
    said = printed(["sh", "-c", look, "sh", str(kept), str(other)], tmp_path, out, keep=[kept])
    os.close(kept)
    os.close(other)
    assert said.split() == [str(kept)]


@pytest.mark.parametrize(
    ("program", "number"),
    [("no-such-program", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/etc", errno.EACCES)],
)
def test_what_cannot_be_run_is_told_as_the_system_says_it(
    program: str, number: int, out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, forked = os.fork, []
    monkeypatch.setattr(os, "fork", lambda: forked.append(fork()) or forked[-1])
    with pytest.raises(OSError) as caught:
        starting.start([program], "/", PATH, [out, out])
    assert caught.value.errno == number
    (pid,) = forked
    with pytest.raises(ChildProcessError):  # it has left no process
        os.waitpid(pid, os.WNOHANG)


def test_a_signal_that_comes_before_the_command_is_there_is_the_commands(out: int) -> None:
    """This process would only remember it."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        pid = starting.start(
            ["true"], "/", PATH, [out, out], enter=lambda: os.kill(os.getpid(), signal.SIGTERM)
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM


CLOSED = """
import os, sys
from hpcml.agent import starting
for descriptor in (0, 1, 2):
    os.close(descriptor)
err, out = (os.open(name, os.O_WRONLY | os.O_CREAT) for name in ("err", "out"))
argv = ["sh", "-c", "echo out; echo err >&2"]
os.waitpid(starting.start(argv, ".", {"PATH": os.defpath}, [out, err]), 0)
"""


def test_streams_may_lie_where_others_are_to_be(tmp_path: Path) -> None:
    """Who starts an agent may have closed its standard streams."""
    subprocess.run([sys.executable, "-c", CLOSED], cwd=tmp_path, check=True)
    assert [(tmp_path / name).read_text() for name in ("out", "err")] == ["out\n", "err\n"]
