"""Commands: whatever the process that starts them is like, they get on, and the truth is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcml.agent import commands, files
from tests.conftest import eventually

TELLS = "read line; echo got $line; echo woe >&2; exit 3"


@pytest.fixture(params=["spawned", "by Popen"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> commands.Commands:
    """Both ways to start one: Pythons before 3.8, and for old C libraries, know Popen alone."""
    if request.param == "by Popen":

        def too_old(*_: object, **__: object) -> int:
            raise NotImplementedError

        monkeypatch.setattr(os, "posix_spawnp", too_old)
    return commands.Commands()


@pytest.fixture
def back(tmp_path: Path) -> Iterator[Path]:
    """A folder to go to; the test comes back from it."""
    here = os.getcwd()
    yield tmp_path
    os.chdir(here)


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_a_command_tells_how_it_ended_and_what_it_printed(run: commands.Commands) -> None:
    assert run.run(sh(TELLS), b"this\n") == (3, b"got this\n", b"woe\n")
    assert run.run(["no-such-command"])[0] == 127
    assert run.run(sh("kill -15 $$"))[0] == -signal.SIGTERM


def test_a_command_is_found_on_the_path_of_this_process(
    run: commands.Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "squeue").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert run.run(["squeue"]) == (0, b"mine\n", b"")


def test_a_command_has_no_terminal_to_ask_and_hears_no_interrupt_of_ours(
    run: commands.Commands,
) -> None:
    _, told, _ = run.run(sh("ps -o sid= -p $$; ps -o pgid= -p $$; echo $$"))

    session, group, process = map(int, told.split())
    assert session == group == process


def test_a_command_is_not_deaf_to_a_closed_pipe(run: commands.Commands) -> None:
    """Python ignores SIGPIPE, and what it starts must not."""
    assert run.run(["/bin/bash", "-c", "yes | head -1 >/dev/null; echo ${PIPESTATUS[0]}"])[1] == (
        b"%d\n" % (128 + signal.SIGPIPE)
    )


def test_where_this_process_is_in_a_folder_that_is_gone_commands_are_somewhere(
    run: commands.Commands, back: Path
) -> None:
    """sbatch and its like refuse to be nowhere."""
    gone = back / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()

    assert run.run(sh("pwd -P"))[:2] == (0, b"/\n")


def test_a_command_that_reads_after_it_has_said_all_gets_all_of_its_input(
    run: commands.Commands, tmp_path: Path
) -> None:
    got = tmp_path / "got"
    script = f"exec >/dev/null 2>&1; cat > {got}; sync {got}"
    much = b"0123456789" * 100_000

    assert run.run(sh(script), much)[0] == 0
    assert got.read_bytes() == much


def test_who_prints_without_end_is_ended(
    run: commands.Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MOST_PRINTED", 1 << 16)

    with pytest.raises(commands.EndlessError):
        run.run(["yes"])


def test_no_descriptor_stays_open(run: commands.Commands) -> None:
    run.run(["true"])
    before = os.listdir("/proc/self/fd")
    for argv in (["true"], ["no-such-command"], sh("echo x; echo y >&2")):
        run.run(argv, b"input")

    assert os.listdir("/proc/self/fd") == before


def test_a_command_inherits_no_descriptor(run: commands.Commands) -> None:
    """Whoever called this process may hold a lock by one, or wait for a pipe's end."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    script = f"[ ! -e /proc/self/fd/{writing} ] && [ -e /proc/self/fd/2 ]"
    ended = run.run(sh(script))[0]
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert ended == 0


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_a_process_without_streams_of_its_own_can_start_commands(
    closed: list[int], tmp_path: Path
) -> None:
    """A daemon has none; the pipes then get their numbers."""
    program = f"""
        import os
        from hpcml.agent import commands
        for stream in {closed}: os.close(stream)
        told = repr(commands.Commands().run(["/bin/sh", "-c", "{TELLS}"], b"this\\n"))
        open("told", "w").write(told)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, check=True)

    assert (tmp_path / "told").read_text() == repr((3, b"got this\n", b"woe\n"))


def test_an_end_that_somebody_else_has_waited_for_is_not_called_a_success(tmp_path: Path) -> None:
    """Popen would say 0."""
    (tmp_path / "ws").mkdir(0o700)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    there = files.Files(str(tmp_path / "ws"))
    try:
        with pytest.raises(files.Trouble, match="how false ended is not known"):
            there.run(["false"], b"")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert not there._commands._groups, "another process may have its number by now"


def test_commands_under_way_can_be_ended(run: commands.Commands) -> None:
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(run.run(["sleep", "100"])[0]))
    thread.start()
    eventually(lambda: run._groups)

    def has_ended() -> bool:
        run.end()  # again: it may not have become the command yet
        thread.join(0.1)
        return not thread.is_alive()

    eventually(has_ended)
    assert ended == [-signal.SIGTERM]
