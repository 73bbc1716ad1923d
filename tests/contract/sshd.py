"""A real OpenSSH server of the tests' own on loopback, and somebody to log in as."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcml.agent import wire
from tests.conftest import eventually, installed

# A login shell that says a lot, on both streams, and does not end its last line.
CHATTY_CSH = 'echo "Welcome to the machine"\nsh -c "echo hear me >&2"\necho -n "no end of line"\n'
CHATTY_SH = CHATTY_CSH + 'export FROM_THE_RC_FILE="yes"\n'


def programs() -> tuple[str, str]:
    """Paths of sshd and csh."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"

    def find() -> tuple[str, str] | None:
        found = [shutil.which(name, path=path) for name in ("sshd", "csh", "ssh")]
        return (str(found[0]), str(found[1])) if all(found) else None

    return installed(find, "openssh-server", "openssh-client", "csh")


@contextmanager
def somebody(shell: str) -> Iterator[pwd.struct_passwd]:
    """An ordinary user with a home and a chatty login shell, gone afterwards."""
    name = f"hpcml{wire.random_letters(6)}"
    home = Path(tempfile.mkdtemp(prefix="hpcml-home-")) / name
    home.parent.chmod(0o755)
    subprocess.run(["useradd", "-m", "-d", home, "-s", shell, name], check=True)
    subprocess.run(["usermod", "-p", "*", name], check=True)  # locked out would be "!"
    try:
        for file, text in ((".cshrc", CHATTY_CSH), (".bashrc", CHATTY_SH)):
            (home / file).write_text(text)
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "-r", "-f", name], check=False, capture_output=True)
        shutil.rmtree(home.parent, ignore_errors=True)


class Server:
    """An sshd that lets in whoever has the key; ``more`` are settings of its own.

    Attributes
    ----------
    port : int
        On loopback; the same after :meth:`start` has been called again.
    """

    def __init__(self, folder: Path, sshd: str, **more: object) -> None:
        self.folder, self._sshd = folder, sshd
        for name in ("host", "user"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(key, check=True)
        (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        settings = {
            "ListenAddress": "127.0.0.1",
            "Port": self.port,
            "HostKey": folder / "host",
            "PidFile": folder / "pid",
            "AuthorizedKeysFile": folder / "authorized",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "StrictModes": "no",
            "UsePAM": "no",
            "MaxSessions": 50,
            **more,
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        (folder / "sshd_config").write_text(text)
        folder.chmod(0o755)  # sshd reads the keys as whoever logs in
        self.start()

    def start(self) -> None:
        """Listen."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = [self._sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._answers)

    def stop(self) -> None:
        """Neither listen nor know anybody any more: its connections are cut."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        self.process.wait()

    def config(self, name: str, user: str, port: int | None = None) -> str:
        """What ``~/.ssh/config`` says of it."""
        host_key = (self.folder / "host.pub").read_text()
        known = self.folder / f"known-{port or self.port}"
        known.write_text(f"[127.0.0.1]:{port or self.port} {host_key}")
        return (
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port or self.port}\n  User {user}\n"
            f"  IdentityFile {self.folder / 'user'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n"
        )

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def descendants(pid: int) -> list[int]:
    """All processes below one, deepest first."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(entry.parent.name)
            found += [*descendants(child), child]
    return found
