"""The way to a site: another port, a jump host, IPv4 alone, a certificate."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcml.documents import changed
from hpcml.errors import TransportError
from hpcml.library import library, library_name
from hpcml.settings import Binding
from hpcml.sites.profile import Ssh
from hpcml.surveying.shell import SshShell
from hpcml.transports.ssh import SshTransport, openssh, way_to
from hpcml.transports.ssh.link import Clock, Link
from hpcml.transports.ssh.openssh import KEPT_OF_ERRORS, Way
from tests.agent.pythons import pythons
from tests.contract import sshd
from tests.contract.conftest import Loop, a_site, a_way

ME = pwd.getpwuid(os.geteuid()).pw_name
PYTHON = next(iter(pythons().values()))


@pytest.fixture
def way(server: sshd.Server) -> Iterator[Loop]:
    """One with connections of its own: elsewhere they are known by host and user."""
    with a_way(server) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[sshd.Server]:
    """A second server, by way of which one gets to the first."""
    folder = tmp_path / "gate"
    folder.mkdir()
    made = sshd.Server(folder, sshd.programs()[0])
    yield made
    made.stop()


def binding(config: Path, there: Path, **yours: str) -> Binding:
    return Binding(
        str(there), PYTHON, PYTHON, library_name(), ssh_config=str(config), user=ME, **yours
    )


def reached(ssh: Ssh, yours: Binding) -> set[str] | None:
    """What is in the workspace, by way of a profile that says so and settings."""
    files = SshTransport(changed(a_site(python=PYTHON), ssh=ssh), yours)
    try:
        return files.names("")
    finally:
        files.close()


def nobody_listens() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_profiles_port_counts_more_than_ssh_s_own_configuration(
    loop: Loop, server: sshd.Server, home: Path
) -> None:
    config = loop.folder / "config"
    closed = nobody_listens()
    said = server.config("loop", "somebody-else").replace(f"Port {server.port}", f"Port {closed}")
    config.write_text(said)
    yours = binding(config, home / "there")

    with pytest.raises(TransportError, match=f"port {closed}: Connection refused"):
        reached(Ssh(host="loop"), yours)
    assert reached(Ssh(host="loop", port=server.port), yours) == {"lib"}


def test_a_profile_without_a_port_leaves_it_to_ssh(
    loop: Loop, server: sshd.Server, home: Path
) -> None:
    config = loop.folder / "config"
    config.write_text(server.config("loop", "somebody-else"))

    assert reached(Ssh(host="loop"), binding(config, home / "there")) == {"lib"}


def test_a_jump_host_is_gone_through_as_the_same_user(
    loop: Loop, server: sshd.Server, gate: sshd.Server, home: Path
) -> None:
    config = loop.folder / "config"
    config.write_text(server.config("loop", "somebody-else") + gate.config("gate", "somebody-else"))
    before = (gate.folder / "log").stat().st_size

    assert reached(Ssh(host="loop", jump="gate"), binding(config, home / "there")) == {"lib"}
    passed = (gate.folder / "log").read_bytes()[before:].decode()
    assert f"Accepted publickey for {ME}" in passed


def test_a_jump_host_that_lets_nobody_in_may_be_a_matter_of_login(
    loop: Loop, server: sshd.Server, gate: sshd.Server, home: Path
) -> None:
    config = loop.folder / "config"
    config.write_text(server.config("loop", ME) + gate.config("gate", ME))
    (gate.folder / "authorized").write_text("")

    with pytest.raises(TransportError, match="loop cannot be reached") as caught:
        reached(Ssh(host="loop", jump="gate"), binding(config, home / "there"))
    assert "If gate wants a login, run `hpcml sites login loop`" in caught.value.advice


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The key that signs certificates of users."""
    key = tmp_path / "authority"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


@pytest.fixture
def trusting(authority: Path, tmp_path: Path) -> Iterator[sshd.Server]:
    """A server that knows no user's key, only who signs certificates."""
    folder = tmp_path / "trusting"
    folder.mkdir()
    made = sshd.Server(folder, sshd.programs()[0], TrustedUserCAKeys=f"{authority}.pub")
    (folder / "authorized").write_text("")
    yield made
    made.stop()


def signed(server: sshd.Server, authority: Path, name: str, valid: str) -> Path:
    """A certificate of a server's user, which lies where ssh does not look by itself."""
    public = server.folder / f"{name}.pub"
    public.write_bytes((server.folder / "user.pub").read_bytes())
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", name, "-n", ME, "-V", valid, public]
    subprocess.run(sign, check=True)
    return server.folder / f"{name}-cert.pub"


def test_a_certificate_that_ssh_s_own_configuration_names_lets_one_in_while_it_is_valid(
    loop: Loop, trusting: sshd.Server, authority: Path, home: Path
) -> None:
    config = loop.folder / "config"
    plain = trusting.config("loop", ME)
    yours = binding(config, home / "there")
    config.write_text(plain)
    with pytest.raises(TransportError, match="Permission denied"):
        reached(Ssh(host="loop"), yours)

    old = signed(trusting, authority, "old", "-2d:-1d")
    config.write_text(f"{plain}  CertificateFile {old}\n")
    with pytest.raises(TransportError, match="Permission denied") as caught:
        reached(Ssh(host="loop"), yours)
    assert "hpcml sites login loop" in caught.value.advice

    new = signed(trusting, authority, "new", "+1d")
    config.write_text(f"{plain}  CertificateFile {new}\n")
    assert reached(Ssh(host="loop"), yours) == {"lib"}
    assert "ID new" in (trusting.folder / "log").read_text()


def test_where_ipv6_does_not_work_it_is_not_tried(
    loop: Loop, server: sshd.Server, home: Path
) -> None:
    config = loop.folder / "config"
    config.write_text(server.config("loop", ME) + "  AddressFamily inet6\n")
    yours = binding(config, home / "there")

    with pytest.raises(TransportError):
        reached(Ssh(host="loop"), yours)
    assert reached(Ssh(host="loop", ipv4=True), yours) == {"lib"}


def test_a_host_of_your_own_is_reached_as_ssh_s_configuration_says_alone(
    loop: Loop, server: sshd.Server, home: Path
) -> None:
    """The profile's port, jump host and IP version belong to the profile's host."""
    config = loop.folder / "config"
    config.write_text(server.config("mine", "somebody-else"))
    facts = Ssh(host="loop", port=nobody_listens(), jump="nowhere.invalid", ipv4=True)
    yours = binding(config, home / "there", ssh_host="mine")

    assert reached(facts, yours) == {"lib"}
    assert way_to(changed(a_site(), ssh=facts), yours).port is None


def test_a_folder_of_sockets_that_somebody_else_has_is_told_with_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hpcml").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(openssh, "LONGEST", 1000)
    assert openssh.control_folder() == tmp_path / "hpcml"
    monkeypatch.setattr(os, "geteuid", lambda: -2)
    with pytest.raises(TransportError, match=f"hpcml belongs to {ME},") as caught:
        openssh.control_folder()
    assert caught.value.advice == "Set XDG_RUNTIME_DIR to your own folder."


MUCH = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2"


@pytest.fixture
def talkative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh to this machine that says much before it does anything."""
    command = tmp_path / "bin" / "ssh"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\n{MUCH}\nfor last; do :; done\nexec sh -c "$last"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return command


def test_of_what_is_printed_as_errors_without_end_the_end_is_kept(talkative: Path) -> None:
    shell = SshShell(Way("far", "far"))
    brief = shell.run(["sh", "-c", "echo why >&2"])
    much = shell.run(["sh", "-c", f"{MUCH}; echo why >&2; echo found"])

    assert brief.stderr.strip() == b"why"
    assert much.stdout.strip() == b"found" and much.stderr.strip().endswith(b"x\nwhy")
    assert len(much.stderr) <= KEPT_OF_ERRORS


def test_what_ssh_says_last_is_why_it_ended_however_much_it_said_before(
    talkative: Path, home: Path
) -> None:
    talkative.write_text(talkative.read_text() + "echo the line is cut >&2\nexit 255\n")
    text = talkative.read_text().replace("exec sh", "#")
    talkative.write_text(text)
    with pytest.raises(TransportError, match="far cannot be reached: the line is cut"):
        Link(Way("far", "far"), PYTHON, str(home / "there"), library(), "", (), Clock())


def test_what_is_to_be_tried_by_hand_goes_the_same_way() -> None:
    way = Way("site", "login.example.org", "me", "/a folder/config", 8822, "gate.example.org", True)
    tried = "ssh -4 -F '/a folder/config' -l me -p 8822 -J me@gate.example.org login.example.org"
    assert way.by_hand == tried
    assert "-J you@gate" in Way("site", "host", "me", jump="you@gate").by_hand
    assert Way("site", "host").by_hand == "ssh host"
