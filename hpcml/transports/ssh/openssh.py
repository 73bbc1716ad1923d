"""The system's OpenSSH: how it is called, and what it means when it fails.

The user's configuration holds: certificates, keys, host keys, and what else nobody says here. All
connections of a user to a site share one, which OpenSSH keeps for a while after the last has ended.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from hpcml.agent import files
from hpcml.errors import TransportError, UnreachableError

KEPT = 1800  # seconds for which an unused connection stays open
ALIVE = 15  # seconds between two signs of life; after three without, the connection is given up
SOCKET = 40 + 17  # characters of ssh's own names for it: a hash, and a suffix while it is made
LONGEST = 107  # characters of a socket's path
KEPT_OF_ERRORS = 1 << 16  # bytes of what an ssh prints as errors: its end says why
LINGER = 1.0  # seconds in which that comes to its end once ssh has ended

LOGIN = (
    "Permission denied",
    "keyboard-interactive",
    "Host key verification failed",
    "Too many authentication failures",
    "passphrase",
)
CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
NO_HOST = ("Name or service not known", "No address associated with hostname")


class Errors:
    """The end of what an ssh, and the login shell, print as errors: they may do so without end.

    Parameters
    ----------
    descriptor : int
        The end of a pipe, which is closed here.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe, self._kept = os.fdopen(descriptor, "rb", 0), b""
        self._thread = threading.Thread(target=self._read, name="errors of ssh", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """The pipe."""
        return self._pipe.fileno()

    def close(self) -> bytes:
        """All that is kept, once ssh has ended; what it has left may have the pipe open."""
        self._thread.join(LINGER)
        if not self._thread.is_alive():
            self._pipe.close()
        return self._kept

    def _read(self) -> None:
        while piece := self._pipe.read(KEPT_OF_ERRORS):
            self._kept = (self._kept + piece)[-KEPT_OF_ERRORS:]


@dataclass(frozen=True)
class Way:
    """How a site is reached.

    Attributes
    ----------
    site : str
        Its name, for messages.
    host : str
        As ``~/.ssh/config`` knows it.
    user, config : str or None
        What is not left to OpenSSH: the user's name there, a file in place of ``~/.ssh/config``.
    port : int or None
    jump : str or None
        A host by way of which it is reached: as the same user, unless it says ``user@``.
    ipv4 : bool
        Not by IPv6. OpenSSH takes these three before what its configuration says of the host.
    """

    site: str
    host: str
    user: str | None = None
    config: str | None = None
    port: int | None = None
    jump: str | None = None
    ipv4: bool = False

    @property
    def by_hand(self) -> str:
        """The command with which somebody tries it."""
        return shlex.join(["ssh", *self._options(), self.host])

    def _options(self) -> list[str]:
        options = ["-4"] if self.ipv4 else []
        if self.config is not None:
            options += ["-F", os.path.expanduser(self.config)]
        if self.user is not None:
            options += ["-l", self.user]
        if self.port is not None:
            options += ["-p", str(self.port)]
        if self.jump is not None:
            as_user = "" if self.user is None or "@" in self.jump else f"{self.user}@"
            options += ["-J", as_user + self.jump]
        return options

    def argv(self, *options: str, batch: bool = True) -> list[str]:
        """An ssh with options, up to the host."""
        ours = {
            "ControlMaster": "auto",
            "ControlPath": f"{control_folder()}/%C",
            "ControlPersist": f"{KEPT}",
            "ServerAliveInterval": f"{ALIVE}",
            "ServerAliveCountMax": "3",
            "ConnectTimeout": "30",
            "BatchMode": "yes" if batch else "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "RequestTTY": "no",
            "LogLevel": "ERROR",
        }
        argv = ["ssh", "-a", "-x", *self._options()]
        for name, value in ours.items():
            argv += ["-o", f"{name}={value}"]
        return [*argv, *options, "--", self.host]

    def known_user(self) -> str | None:
        """Who one is there by OpenSSH's configuration; this machine's user where it says nothing.

        ``None``: this OpenSSH does not tell.
        """
        argv = ["ssh", "-G", *self._options(), self.host]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError as error:
            raise no_ssh(error) from error
        words = (line.split() for line in done.stdout.splitlines())
        return next((user for key, *rest in words if key == "user" for user in rest), None)

    def is_open(self) -> bool:
        """Whether there is a connection that can be shared."""
        return self._ended("-O", "check") == 0

    def close(self) -> None:
        """Give up the shared connection, if there is one."""
        self._ended("-O", "exit")

    def log_in(self) -> None:
        """Open the shared connection, asking on the terminal what there is to ask.

        Raises
        ------
        TransportError
            The site refuses.
        """
        if self.is_open():
            return
        try:
            # It stays, and must not keep a pipe open that somebody reads to its end.
            login = self.argv("-f", "-N", batch=False)
            done = subprocess.run(login, stdout=subprocess.DEVNULL, check=False)
        except OSError as error:
            raise no_ssh(error) from error
        if done.returncode:
            raise TransportError(
                f"{self.site} cannot be reached: ssh ended with exit code {done.returncode}",
                f"Try `{self.by_hand}` by hand.",
            )

    def start(self, command: str) -> tuple[subprocess.Popen[bytes], Errors]:
        """Run a command of the login shell, its input and output being pipes.

        No terminal, and no signal of one, reaches it.
        """
        if has_terminal():
            self.log_in()
        argv = [*self.argv("-T"), command]
        reading, writing = os.pipe()
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=writing,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            os.close(reading)
            raise no_ssh(error) from error
        finally:
            os.close(writing)
        return process, Errors(reading)

    def refused(self, said: str) -> TransportError:
        """What it means that ssh has ended before the site's shell answered."""
        said = said.strip() or "ssh ended without a word"
        if CHANGED in said:
            problem = f"{self.site} cannot be reached: its host key is another one than it had"
            advice = "It may be another machine: ask the site which is right, before you log in."
            return TransportError(problem, advice)
        problem = f"{self.site} cannot be reached: {said.splitlines()[-1]}"
        if any(word in said for word in LOGIN):
            advice = f"Run `hpcml sites login {self.site}`: it asks what there is to ask."
            return TransportError(problem, advice)
        final = any(word in said for word in NO_HOST)
        error = TransportError if final else UnreachableError
        advice = f"Try `{self.by_hand}` by hand."
        if self.jump is not None:  # OpenSSH does not pass on what that says
            advice += f" If {self.jump} wants a login, run `hpcml sites login {self.site}`."
        return error(problem, advice)

    def _ended(self, *options: str) -> int:
        try:
            return subprocess.run(self.argv(*options), capture_output=True, check=False).returncode
        except OSError as error:
            raise no_ssh(error) from error


def no_ssh(error: OSError) -> TransportError:
    """What to say where there is no ssh."""
    return TransportError(f"ssh cannot be run: {error.strerror}", "Install OpenSSH's client.")


def has_terminal() -> bool:
    """Whether somebody can be asked for a password: never in the middle of something else."""
    return (
        threading.current_thread() is threading.main_thread()
        and sys.stdin is not None
        and sys.stdin.isatty()
        and sys.stderr.isatty()
    )


def control_folder() -> Path:
    """A folder of this user's alone, for the sockets of connections.

    Raises
    ------
    TransportError
        Somebody else has it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime, "hpcml")
    if not os.path.isabs(runtime) or len(str(folder)) + 1 + SOCKET > LONGEST:
        folder = Path(tempfile.gettempdir(), f"hpcml-{os.geteuid()}")
    if len(str(folder)) + 1 + SOCKET > LONGEST:
        folder = Path("/tmp", f"hpcml-{os.geteuid()}")  # noqa: S108 (looked at below)
    try:
        folder.mkdir(0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise TransportError(
            f"{folder} cannot be made: {error.strerror}", "Set XDG_RUNTIME_DIR to your own folder."
        ) from error
    if status.st_uid != os.geteuid():
        problem = f"{folder} belongs to {files.whose(status)}"
        advice = "Set XDG_RUNTIME_DIR to your own folder."
        raise TransportError(f"{problem}, and connections would be shared through it", advice)
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise TransportError(
            f"{folder} is not this user's alone, and connections would be shared through it",
            f"Remove it, or run `chmod 700 {folder}`.",
        )
    return folder
