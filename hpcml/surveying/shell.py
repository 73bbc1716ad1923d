"""A site's commands before anything of hpcml is there, in the environment of a login shell."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

from hpcml.agent import commands, wire
from hpcml.errors import TransportError, UnreachableError
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.surveying.finding import NoAnswerError
from hpcml.transports import Completed
from hpcml.transports.ssh import way_to
from hpcml.transports.ssh.first_contact import SHELL
from hpcml.transports.ssh.openssh import Way

NOWHERE = "/nowhere"  # a workspace until one is known
PATIENCE = 60.0  # seconds that a command may take
ASIDE = 20.0  # seconds that one may take which is asked only for what it tells
MOST = 1 << 27  # bytes that a command may print: Slurm tells of ten thousand nodes in a tenth
TELL = 'exec /bin/sh -c "exec env"'


class Commands(Protocol):
    """Whoever runs commands on a site; a transport does."""

    def run(self, argv: Sequence[str]) -> Completed:
        """Run a command; a non-zero exit code is no error here."""
        ...


class Shell(Commands, Protocol):
    """Commands, and the environment that they have.

    Attributes
    ----------
    environment : dict
        Variables of a login shell.
    """

    environment: Mapping[str, str]


def answered(argv: Sequence[str], run: Callable[[], Completed]) -> Completed:
    """What a command of a site says, if it says so soon: one that hangs may do so for ever.

    Raises
    ------
    NoAnswerError
        It has not ended in time.
    """
    answer: Future[Completed] = Future()

    def ask() -> None:
        try:
            answer.set_result(run())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(ASIDE)
    except TimeoutError:
        problem = f"{shlex.join(argv)!r} did not answer within {ASIDE:g} s"
        raise NoAnswerError(problem, "Try it by hand on the site, or again later.") from None


class LocalShell:
    """On this machine."""

    def __init__(self) -> None:
        self.environment: Mapping[str, str] = dict(os.environ)

    def run(self, argv: Sequence[str]) -> Completed:
        nothing = subprocess.DEVNULL
        try:
            done = subprocess.run(
                argv,
                stdin=nothing,
                capture_output=True,
                check=False,
                timeout=PATIENCE,
                env=commands.environment(),
            )
        except OSError as error:
            return Completed(tuple(argv), commands.NOT_FOUND, b"", (error.strerror or "").encode())
        except subprocess.TimeoutExpired:
            said = f"it has not ended within {PATIENCE:.0f} s"
            return Completed(tuple(argv), 124, b"", said.encode())
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


class SshShell:
    """Where ssh leads to. What its login shell prints of itself is passed over.

    Parameters
    ----------
    modules : sequence of str
        Those that the login shell is to load.

    Raises
    ------
    TransportError
        It cannot be reached.
    """

    def __init__(self, way: Way, modules: Sequence[str] = ()) -> None:
        self._way = way
        # A csh is a login shell only if it is given nothing else; every shell reads what to do.
        words = shlex.join([*(f"module load {name}" for name in modules), TELL])
        asked = f"{{ printf '%s\\n' {words} | \"${{SHELL:-/bin/sh}}\" -l 2> /dev/null; }}"
        lines = self._answer(asked).stdout.decode("utf-8", "surrogateescape").splitlines()
        pairs = (line.partition("=") for line in lines)
        self.environment: Mapping[str, str] = {
            name: value for name, _, value in pairs if name.isidentifier()
        }

    def run(self, argv: Sequence[str]) -> Completed:
        kept = {name: self.environment.get(name) for name in commands.KEPT}
        told = {**commands.SAID, **{name: value for name, value in kept.items() if value}}
        words = (f"{name}={value}" for name, value in told.items())
        return self._answer(shlex.join(["env", "-i", *words, *argv]), argv)

    def _answer(self, line: str, argv: Sequence[str] = ()) -> Completed:
        word = f"hpcml-{wire.random_letters(16)}"
        mark = f"printf '\\n%s\\n' {word}"
        script = f"cd /; {mark}; {mark} >&2\n{line} < /dev/null\ncode=$?; {mark}; echo $code\n"
        out, err = self._spoken(script.encode("utf-8", "surrogateescape"))
        parts = out.split(f"\n{word}\n".encode())
        if len(parts) < 3:
            raise self._way.refused(err.decode(errors="replace"))
        before, begun, after = err.partition(f"\n{word}\n".encode())
        said = after if begun else before  # of much the beginning is not kept
        return Completed(tuple(argv), int(parts[-1]), parts[1], said)

    def _spoken(self, script: bytes) -> tuple[bytes, bytes]:
        process, errors = self._way.start(SHELL)
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(PATIENCE, give_up)
        timer.daemon = True
        timer.start()
        with process:
            try:
                out = self._heard(process, script)
            finally:
                timer.cancel()
                process.kill()
                err = errors.close()
        if late.is_set():
            raise UnreachableError(
                f"{self._way.site} has not answered for {PATIENCE:.0f} s",
                f"See whether `{self._way.by_hand}` works by hand.",
            )
        return out, err

    def _heard(self, process: subprocess.Popen[bytes], script: bytes) -> bytes:
        """All that is printed until the end, which a login shell may never come to."""
        if process.stdin is None or process.stdout is None:
            raise ValueError("its input and output are pipes")
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(script)
        out = bytearray()
        while piece := process.stdout.read(1 << 16):
            out += piece
            if len(out) > MOST:
                raise TransportError(
                    f"the login shell of {self._way.site} prints without end",
                    f"See what `{self._way.by_hand} true` prints.",
                )
        return bytes(out)


def shell_of(site: Site, binding: Binding) -> Shell:
    """The shell of a site.

    Raises
    ------
    TransportError
        It cannot be reached, or by nothing that hpcml knows a shell of.
    """
    if site.transport == "local":
        return LocalShell()
    if site.transport == "ssh":
        return SshShell(way_to(site, binding), site.ssh.login_modules if site.ssh else ())
    raise TransportError(
        f"{site.name} is reached by {site.transport}, and by that nobody can be asked anything",
        "hpcml sets up what it reaches by ssh, and this machine: write your settings by hand.",
    )
