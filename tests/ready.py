"""A Python that has loaded hpcml, and becomes each program that it is asked for, by a fork.

Loading takes most of the time of a short program. All else is as in a new process: its
variables, folder, arguments and streams, and how it ends.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

LOADED = [
    *(f"hpcml.cli.{name}" for name in ("looking", "remembering", "sites", "submitting")),
    *("hpcml.records", "hpcml.run", "hpcml.schedulers.process", "hpcml.schedulers.slurm"),
    *("hpcml.submission", "hpcml.transports.local", "hpcml.transports.ssh"),
    *("alembic.command", "rich.console", "rich.live", "rich.table", "sqlalchemy.orm", "yaml"),
]
EARLY = ("LANG", "LC_", "PYTHON", "TZ")  # so begin variables that are read as a Python starts
LONGEST = 1 << 20  # bytes of a message


class Ready:
    """Such a Python; it ends with this process.

    Parameters
    ----------
    python
        The beginning of its command.

    Attributes
    ----------
    environment : dict
        Its own variables.
    """

    def __init__(self, python: Sequence[str]) -> None:
        self._socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            code = f"from tests import ready; exec(ready.serve({there.fileno()}))"
            root = Path(__file__).parents[1]
            subprocess.Popen([*python, "-c", code], pass_fds=[there.fileno()], cwd=root)
        self.environment: dict[str, str] = json.loads(self._socket.recv(LONGEST))

    def can_have(self, environment: Mapping[str, str]) -> bool:
        """Whether a program can have these variables: some are read when a Python starts."""
        return _early(environment) == _early(self.environment)

    def start(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        streams: Sequence[int],
        timeout: float,
    ) -> int:
        """Begin a program, which is Python code and arguments, with its three streams.

        Returns a pipe, from which its exit code comes as text; -N if signal N has ended it.
        After `timeout` it ends, and says on stderr where it was.
        """
        answer, its_answer = os.pipe()
        asked = {"program": program, "environment": dict(environment), "folder": folder}
        message = json.dumps({**asked, "timeout": timeout}).encode()
        socket.send_fds(self._socket, [message], [its_answer, *streams])
        os.close(its_answer)
        return answer

    def run(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with pipes for stdout and stderr."""
        (stdout, its_stdout), (stderr, its_stderr) = os.pipe(), os.pipe()
        streams = [0, its_stdout, its_stderr]
        answer = self.start(program, environment, folder, streams, timeout)
        os.close(its_stdout)
        os.close(its_stderr)
        out, err, code = all_of(stdout, stderr, answer, timeout=timeout + 10)
        return subprocess.CompletedProcess(program, int(code), out, err)


def all_of(*streams: int, timeout: float) -> list[str]:
    """What comes from pipes and terminals until they are closed."""
    read = dict.fromkeys(streams, b"")
    left, deadline = set(streams), time.monotonic() + timeout
    while left:
        readable, _, _ = select.select(left, [], [], max(0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError(f"after {timeout} s there is no end of it: {read}")
        for stream in readable:
            try:
                piece = os.read(stream, 1 << 16)
            except OSError:  # the terminal's other side is closed
                piece = b""
            read[stream] += piece
            if not piece:
                left.remove(stream)
                os.close(stream)
    return [text.decode() for text in read.values()]


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: it for name, it in environment.items() if name.startswith(EARLY)}


# -- in the Python that is ready


def serve(number: int) -> str:
    """Fork for each program; this returns only in the forks, with their code."""
    for name in LOADED:
        import_module(name)
    gc.freeze()
    asking = socket.socket(fileno=number)
    asking.send(json.dumps(dict(os.environ)).encode())
    running: dict[int, tuple[int, int]] = {}  # what is readable at its end: process, answer
    while True:
        for readable in select.select([asking.fileno(), *running], [], [])[0]:
            if readable != asking.fileno():
                os.close(readable)
                pid, answer = running.pop(readable)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(answer, str(code).encode())
                os.close(answer)
                continue
            message, files, _, _ = socket.recv_fds(asking, LONGEST, 4)
            if not message:
                os._exit(0)  # nobody can ask any more
            pid = os.fork()
            if pid == 0:
                asking.close()
                for one in (*running, *(answer for _, answer in running.values())):
                    os.close(one)
                return _become(streams=files, **json.loads(message))
            running[os.pidfd_open(pid)] = pid, files[0]
            for one in files[1:]:
                os.close(one)


def _become(
    program: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    streams: Sequence[int],
    timeout: float,
) -> str:
    """Be a program from now on. Gives its code."""
    os.close(streams[0])
    for number, stream in enumerate(streams[1:]):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    code, *sys.argv[1:] = program
    # Whether they are terminals is asked when they are opened.
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    faulthandler.dump_traceback_later(timeout, exit=True)
    return code
