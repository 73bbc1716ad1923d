"""What becomes of work over ssh when something on the way dies, is slow, or is not as it should."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

from hpcml.agent import wire
from hpcml.errors import TransportError
from hpcml.library import library_name
from hpcml.transports import base
from hpcml.transports.ssh import SshTransport, link
from tests.agent.pythons import pythons
from tests.conftest import eventually
from tests.contract import sshd
from tests.contract.conftest import Loop
from tests.contract.proxy import Proxy

ME = pwd.getpwuid(os.geteuid()).pw_name
PYTHON = next(iter(pythons().values()))


@pytest.fixture
def proxy(server: sshd.Server) -> Iterator[Proxy]:
    """What a way may lead through."""
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def workspace(home: Path) -> Path:
    return home / "there"


@pytest.fixture
def files(loop: Loop, workspace: Path, proxy: Proxy) -> SshTransport:
    return loop.transport(ME, str(workspace), PYTHON, proxy.port)


def helper_of(files: SshTransport) -> int:
    """The process on the site."""
    return int(files.run(["/bin/sh", "-c", "echo $PPID"]).stdout)


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".tmp-*") if path.is_file()]


# --- cut off ------------------------------------------------------------------------------


def test_what_was_cut_off_in_the_middle_is_not_there_until_it_is_there_whole(
    files: SshTransport, server: sshd.Server, workspace: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    subprocess.run(["truncate", "-s", "2G", big], check=True)
    errors: list[TransportError] = []

    def put() -> None:
        try:
            files.put({"data/big": big})
        except TransportError as error:
            errors.append(error)

    files.put({"small": b""})
    thread = threading.Thread(target=put)
    thread.start()
    eventually(lambda: any(path.stat().st_size for path in temporary_files(workspace)))
    server.stop()
    thread.join()

    assert [error.problem.partition(":")[0] for error in errors] == ["loop cannot be reached"]
    assert not (workspace / "data" / "big").exists()
    server.start()
    os.truncate(big, 1 << 20)
    files.put({"data/big": big})
    assert (workspace / "data" / "big").read_bytes() == big.read_bytes()


def test_a_connection_that_was_cut_is_mended_where_it_is_safe(
    files: SshTransport, proxy: Proxy
) -> None:
    files.put({"file": b"1"})
    for call in (
        lambda: files.get({"file": 0}),
        lambda: files.names(""),
        lambda: files.put({"file": b"2"}),
        lambda: files.usage(["file"]),
    ):
        proxy.cut()
        call()

    assert files.get({"file": 0}) == {"file": b"2"}


def test_what_may_have_been_done_is_not_done_again(files: SshTransport, workspace: Path) -> None:
    """As of an sbatch whose reply is lost: nobody knows, and nobody may guess."""
    with pytest.raises(TransportError, match="run may have been done, or not"):
        files.run(["/bin/sh", "-c", "echo once >> ran; kill -9 $PPID"])

    assert (workspace / "ran").read_text() == "once\n"
    assert files.get({"ran": 0}) == {"ran": b"once\n"}


def test_a_helper_that_was_killed_is_started_again(files: SshTransport) -> None:
    files.put({"file": b"1"})
    first = helper_of(files)
    os.kill(first, signal.SIGKILL)

    assert files.get({"file": 0}) == {"file": b"1"}
    assert helper_of(files) != first


def test_a_helper_does_not_outlive_its_client_nor_do_its_commands(
    files: SshTransport, workspace: Path
) -> None:
    helper = helper_of(files)
    thread = threading.Thread(target=suppressed(lambda: files.run(["sleep", "600"])))
    thread.start()
    eventually(lambda: sleeping(helper))
    (command,) = sleeping(helper)

    files.close()
    thread.join()

    eventually(lambda: not os.path.exists(f"/proc/{helper}"))
    eventually(lambda: not os.path.exists(f"/proc/{command}"))


def test_a_long_digest_holds_up_nobody_and_ends_with_its_client(files: SshTransport) -> None:
    """The file has no blocks, and takes hours to read."""
    files.run(["truncate", "-s", "4T", "large"])
    helper = helper_of(files)

    def digest() -> None:
        with files.holding():  # else it would be done again over another connection
            files.digest(["large"])

    thread = threading.Thread(target=suppressed(digest), daemon=True)
    thread.start()
    eventually(lambda: reads(helper, "large"))

    assert "large" in (files.names("") or ())
    files.close()
    thread.join()
    eventually(lambda: not os.path.exists(f"/proc/{helper}"))


def reads(pid: int, name: str) -> bool:
    """Whether a process has a file open."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(Path(os.readlink(descriptor)).name)
    return name in found


def suppressed(work: Callable[[], object]) -> Callable[[], None]:
    def done() -> None:
        with pytest.raises(TransportError):
            work()

    return done


def sleeping(helper: int) -> list[int]:
    return sshd.descendants(helper)


def test_a_stale_socket_is_no_obstacle(files: SshTransport, loop: Loop) -> None:
    """The process that held the connection was killed, and its socket is there still."""
    files.put({"file": b"1"})
    (socket,) = (loop.folder / "hpcml").iterdir()
    check = ["ssh", "-O", "check", "-o", f"ControlPath={socket}", "any"]
    said = subprocess.run(check, capture_output=True, text=True, check=True).stderr
    found = re.search(r"pid=(\d+)", said)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    eventually(lambda: files._open[0].dead)

    assert socket.exists()
    assert files.get({"file": 0}) == {"file": b"1"}


def test_a_server_that_comes_back_is_found_again(files: SshTransport, server: sshd.Server) -> None:
    files.put({"file": b"1"})
    server.stop()
    with pytest.raises(TransportError, match="loop cannot be reached"):
        files.get({"file": 0})
    server.start()

    assert files.get({"file": 0}) == {"file": b"1"}


def test_who_loses_the_workspace_does_not_go_on_as_if_it_were_held(
    files: SshTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have pruned it meanwhile."""
    monkeypatch.setattr(base, "PATIENCE", 5.0)
    with files.holding():
        os.kill(helper_of(files), signal.SIGKILL)
        with pytest.raises(TransportError):
            files.names("")
        with pytest.raises(TransportError, match="was lost, and with it the hold"):
            files.put({"file": b"1"})

    with files.holding(alone=True):
        assert "file" not in (files.names("") or ())


def test_who_is_interrupted_while_waiting_can_go_on(files: SshTransport) -> None:
    files.put({"file": b"1"})

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            files.run(["sleep", "600"])
    finally:
        signal.signal(signal.SIGALRM, before)

    helper = helper_of(files)
    assert files.get({"file": 0}) == {"file": b"1"}
    assert sleeping(helper)  # the very same conversation


# --- large and many -----------------------------------------------------------------------


def test_200_mb_go_there_and_come_back(files: SshTransport, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        for number in range(200):
            file.write(bytes([number]) * 1_000_000)

    files.put({"big": big})
    files.fetch({"big": tmp_path / "copy"})

    assert subprocess.run(["cmp", big, tmp_path / "copy"], check=False).returncode == 0


def test_ten_thousand_files_are_one_stream(
    files: SshTransport, proxy: Proxy, tmp_path: Path
) -> None:
    content = {f"many/{number}": b"%d" % number for number in range(10_000)}
    before = files.round_trips
    files.put(content)
    assert files.get(dict.fromkeys(content, 0)) == content
    (tmp_path / "many").mkdir()
    found = files.walk(["many"])["many"]
    files.fetch({f"many/{name}": tmp_path / "many" / name for name in found})

    assert files.round_trips - before == 4
    assert len(os.listdir(tmp_path / "many")) == 10_000


# --- what it costs ------------------------------------------------------------------------


def test_a_call_is_one_round_trip(files: SshTransport, proxy: Proxy, tmp_path: Path) -> None:
    files.put({"file": b"1"})
    source = tmp_path / "source"
    source.write_bytes(b"")
    for call in (
        lambda: files.get({"file": 0, "nothing": 0}),
        lambda: files.put({"a/1": b"1", "b/2": b"2"}),
        lambda: files.publish("runs/a", {"plan.json": b"{}"}, empty=("queue",)),
        lambda: files.run(["true"]),
        lambda: files.touch(["file", "a", "b"]),
        lambda: files.names_in(["a", "b"]),
        lambda: files.fetch({"a/1": tmp_path / "copy"}),
        lambda: files.walk(["a", "b"]),
        lambda: files.digest(["a", "b"]),
        lambda: files.put_verified({"c": source}, {"c": wire.sha256(b"")}, ()),
    ):
        said, counted = proxy.turns, files.round_trips
        call()
        assert (proxy.turns - said, files.round_trips - counted) == (1, 1)


def test_what_answers_nothing_costs_no_round_trip_of_its_own(
    files: SshTransport, proxy: Proxy
) -> None:
    turns = []
    for number in range(5):
        said = proxy.turns
        with files.together():
            files.put({f"a/{number}": b"1", "file": b"1"})
            files.remove(["file"])
            files.append("a/words", {})
            files.run(["true"])
        turns.append(proxy.turns - said)

    assert min(turns) == 1, turns  # a busy machine may cut what is said into pieces
    assert files.names("a") == {*map(str, range(5)), "words"}


def test_the_second_process_uses_the_connection_of_the_first(
    files: SshTransport, loop: Loop, proxy: Proxy, workspace: Path
) -> None:
    files.names("")
    first = proxy.turns
    loop.transport(ME, str(workspace), PYTHON, proxy.port).names("")

    assert proxy.turns - first < first / 2


# --- what is not as it should be ----------------------------------------------------------


def test_a_python_that_is_not_there_is_named(loop: Loop, workspace: Path) -> None:
    files = loop.transport(ME, str(workspace), "python3.99")

    with pytest.raises(TransportError, match=r"there is no python3\.99 on loop") as caught:
        files.names("")

    assert "Name a Python from 3.6 up" in caught.value.advice


def test_a_python_that_is_too_old_is_told_by_its_version(
    loop: Loop, workspace: Path, tmp_path: Path
) -> None:
    old = tmp_path / "python"
    pretend = "import sys; sys.version_info = (2, 7, 18)\n"
    old.write_text(
        f'#!/bin/sh\nfor word; do last=$word; [ "$1" = -c ] && break; shift; done\nshift\n'
        f'code=$1; shift\nexec {PYTHON} -c \'{pretend}\'"$code" "$@"\n'
    )
    old.chmod(0o755)

    with pytest.raises(TransportError, match=r"is Python 2\.7\.18: too old"):
        loop.transport(ME, str(workspace), str(old)).names("")

    assert not workspace.exists()


@pytest.mark.parametrize("mode", [0o770, 0o755])
def test_a_workspace_that_others_may_see_is_refused(loop: Loop, workspace: Path, mode: int) -> None:
    workspace.mkdir()
    workspace.chmod(mode)

    with pytest.raises(TransportError, match="is not this user's alone"):
        loop.transport(ME, str(workspace), PYTHON).names("")

    assert os.listdir(workspace) == []


def test_an_archive_that_is_not_whole_is_brought_again(
    loop: Loop, workspace: Path, files: SshTransport
) -> None:
    files.names("")
    (archive,) = (workspace / "lib").iterdir()
    whole = archive.read_bytes()
    archive.write_bytes(whole[:1000])
    files.close()

    assert files.names("lib") == {archive.name}
    assert archive.read_bytes() == whole


def test_an_emptied_cache_is_in_nobodys_way(
    loop: Loop, workspace: Path, home: Path, files: SshTransport
) -> None:
    """Somebody may empty it while a notebook is open; there, and here."""
    files.names("")
    files.close()
    shutil.rmtree(home / "cache")
    shutil.rmtree(workspace / "lib")

    assert files.names("lib") == {library_name()}


def test_who_is_not_let_in_is_told_how_to_log_in(loop: Loop, workspace: Path) -> None:
    files = loop.transport("nobody-of-that-name", str(workspace), PYTHON)

    with pytest.raises(TransportError, match="Permission denied") as caught:
        files.names("")

    assert caught.value.advice.startswith("Run `hpcml sites login loop`")


def test_what_ssh_asks_on_a_terminal_opens_the_way_for_all(
    way: Loop, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a passphrase stands for all that only a person can answer."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(way.folder))
    key = way.server.folder / "user"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
    files = way.transport(ME, str(workspace), PYTHON)
    with pytest.raises(TransportError) as caught:
        files.names("")
    assert caught.value.advice.startswith("Run `hpcml sites login loop`")

    leader, follower = os.openpty()
    code = "import sys; from hpcml.transports.ssh.openssh import Way; Way(*sys.argv[1:]).log_in()"
    login = subprocess.Popen(
        [sys.executable, "-c", code, "loop", "loop", ME, str(files._way.config)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    shown = b""
    while b"passphrase" not in shown:
        shown += os.read(leader, 1000)
    os.write(leader, b"secret\n")

    assert login.wait(60) == 0
    assert files.names("") == {"lib"}
    os.close(leader)


def test_an_unknown_host_key_is_the_users_to_judge(
    loop: Loop, server: sshd.Server, workspace: Path
) -> None:
    files = loop.transport(ME, str(workspace), PYTHON)
    (server.folder / f"known-{server.port}").write_text("")

    with pytest.raises(TransportError, match="Host key verification failed"):
        files.names("")


def test_a_host_key_that_has_changed_is_told_as_such(
    loop: Loop, server: sshd.Server, workspace: Path, tmp_path: Path
) -> None:
    files = loop.transport(ME, str(workspace), PYTHON)
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    known = server.folder / f"known-{server.port}"
    host = known.read_text().split()[0]
    key = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    known.write_text(f"{host} {key}\n")

    with pytest.raises(TransportError, match="host key is another one") as error:
        files.names("")
    assert "ask the site" in error.value.advice


def test_a_site_that_never_answers_is_given_up(
    loop: Loop, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "START", 2.0)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)

    with pytest.raises(TransportError, match="loop has not answered for 2 s"):
        loop.transport(ME, str(workspace), str(silent)).names("")


def test_a_folder_for_sockets_that_somebody_else_has_is_refused(
    loop: Loop, workspace: Path
) -> None:
    loop.transport(ME, str(workspace), PYTHON).names("")
    (loop.folder / "hpcml").chmod(0o755)

    with pytest.raises(TransportError, match="connections would be shared through it"):
        loop.transport(ME, str(workspace), PYTHON).names("")

    (loop.folder / "hpcml").chmod(0o700)


def test_a_command_that_prints_without_end_is_ended(files: SshTransport) -> None:
    with pytest.raises(TransportError, match="yes prints without end"):
        files.run(["yes"])

    files.put({"file": b"1"})
