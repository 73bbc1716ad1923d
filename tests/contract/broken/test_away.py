"""A site that is away for a while: who waits goes on waiting, and everybody is told why."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

import hpcml
from hpcml import poller
from hpcml.agent import wire
from hpcml.batch import batch_of
from hpcml.cli.looking import wait_command
from hpcml.connection import connect
from hpcml.errors import TransportError, UnreachableError
from hpcml.transports.ssh import SshTransport
from hpcml.transports.ssh.openssh import Way
from tests.conftest import eventually
from tests.contract import sshd
from tests.contract.conftest import ssh_of
from tests.contract.test_staging import PRETEND

MAIN = PRETEND + "from hpcml.cli import main; main()"
END = {"exit_code": 0, "signal": None, "received": [], "cause": None, "time": 1.0}


@pytest.fixture
def run(far: str) -> hpcml.Run:
    """A run that waits there."""
    return hpcml.submit(hpcml.Job(["true"], code=None), site=far)


def write(run: hpcml.Run, **files: bytes) -> None:
    """Files of a run, by their paths in its batch's folder."""
    folder = f"runs/{batch_of(run.id)}"
    connect(run.site).files.put({f"{folder}/{name}": data for name, data in files.items()})


def end(run: hpcml.Run) -> None:
    write(run, **{"attempts/0.1.end": wire.canonical(END)})


class Command:
    """The command line, at work."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            command = [sys.executable, "-c", MAIN, *args]
            self.process = subprocess.Popen(command, stdout=out, stderr=err)

    def has_said(self, text: str) -> None:
        """Wait until it has said so, on stderr."""
        eventually(lambda: text in self.err.read_text(), 60)


@pytest.mark.parametrize("args", [("wait",), ("logs", "-f")], ids=["wait", "logs -f"])
def test_who_waits_from_the_beginning_of_an_outage_sees_the_end(
    run: hpcml.Run, server: sshd.Server, tmp_path: Path, args: tuple[str, ...]
) -> None:
    write(run, **{"0/stdout": b"hello\n"})
    end(run)
    ssh_of("far").close()
    server.stop()
    command = Command(tmp_path, *args, run.id)
    command.has_said("waiting goes on")
    server.start()

    assert command.process.wait(60) == 0, command.err.read_text()
    assert ("COMPLETED" if args == ("wait",) else "hello\n") in command.out.read_text()
    assert command.err.read_text().count("waiting goes on") == 1
    assert "hpcml: far cannot be reached: " in command.err.read_text()


def test_an_outage_while_logs_are_followed_loses_and_repeats_nothing(
    run: hpcml.Run, server: sshd.Server, tmp_path: Path
) -> None:
    write(run, **{"0/stdout": b"first\n"})
    command = Command(tmp_path, "logs", "-f", run.id)
    eventually(lambda: command.out.read_text() == "first\n", 60)
    server.stop()
    command.has_said("waiting goes on")
    server.start()
    write(run, **{"0/stdout": b"first\nsecond\n"})
    end(run)

    assert command.process.wait(60) == 0, command.err.read_text()
    assert command.out.read_text() == "first\nsecond\n"


def test_a_site_that_asks_for_a_login_is_an_error_at_once(
    run: hpcml.Run, server: sshd.Server, tmp_path: Path
) -> None:
    ssh_of("far").close()
    server.stop()
    server.start()
    (server.folder / "authorized").write_text("")
    command = Command(tmp_path, "wait", run.id)

    assert command.process.wait(60) == 70
    assert "hpcml sites login far" in command.err.read_text()


def test_who_waits_is_told_when_a_site_that_was_away_asks_for_a_login(
    run: hpcml.Run, server: sshd.Server, tmp_path: Path
) -> None:
    command = Command(tmp_path, "wait", run.id)
    command.has_said("is PENDING")
    server.stop()
    command.has_said("waiting goes on")
    (server.folder / "authorized").write_text("")
    server.start()
    try:
        command.has_said("hpcml sites login far")
    finally:
        command.process.kill()
        command.process.wait()


def test_waiting_for_a_site_ends_with_its_time(
    run: hpcml.Run, server: sshd.Server, tmp_path: Path
) -> None:
    ssh_of("far").close()
    server.stop()
    command = Command(tmp_path, "wait", "--timeout", "2", run.id)

    assert command.process.wait(60) == 70


@pytest.fixture
def silent(run: hpcml.Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The site does not answer who connects to it now, as long as the test lasts."""
    over = threading.Event()

    def connecting(self: SshTransport) -> NoReturn:
        over.wait()
        raise UnreachableError("it has not answered", "Wait.")

    assert run.state == "PENDING"
    ssh_of(run.site).close()
    monkeypatch.setattr(SshTransport, "_connected", connecting)
    monkeypatch.setattr(poller, "SILENCE", 0.5)
    yield
    over.set()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("known", [True, False], ids=["seen-before", "attached"])
def test_waiting_ends_with_its_time_though_the_site_is_still_being_connected_to(
    run: hpcml.Run, known: bool
) -> None:
    """Else it would last as long as that does: half a minute."""
    if not known:
        poller.poller("far").views.clear()
        with pytest.raises(UnreachableError, match="no answer within"):
            run.wait(0.5)
    else:
        run.wait(0.5)
    for look in (lambda: run.exception(0.5), lambda: run.result(0.5)):
        with pytest.raises(UnreachableError, match="no answer within"):
            look()


@pytest.mark.usefixtures("silent")
def test_the_command_that_waits_ends_with_its_time_likewise(run: hpcml.Run) -> None:
    done = CliRunner().invoke(wait_command, ["--timeout", "0.5", "--site", "far", run.id])

    assert isinstance(done.exception, UnreachableError)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("ssh: connect to host box port 22: Connection refused", UnreachableError),
        ("ssh: connect to host box port 22: No route to host", UnreachableError),
        ("Could not resolve hostname box: Temporary failure in name resolution", UnreachableError),
        ("", UnreachableError),
        ("ssh: Could not resolve hostname bxo: Name or service not known", TransportError),
        ("alice@box: Permission denied (publickey,keyboard-interactive).", TransportError),
        ("Host key verification failed.", TransportError),
    ],
)
def test_what_will_not_pass_by_itself_is_no_outage(said: str, kind: type[TransportError]) -> None:
    assert type(Way("box", "box").refused(said)) is kind


def test_no_file_is_left_open_where_a_connection_failed_or_broke(
    run: hpcml.Run, server: sshd.Server
) -> None:
    command = [sys.executable, "-X", "dev", "-c", MAIN, "sync"]
    for code in (0, 70):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "unclosed" not in done.stderr
        ssh_of("far").close()
        server.stop()
