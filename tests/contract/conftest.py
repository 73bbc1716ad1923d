"""Sites to try a transport on."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcml.library import library, library_name
from hpcml.settings import Binding
from hpcml.sites import Node, Partition, Site
from hpcml.sites.profile import Ssh
from hpcml.transports.ssh import SshTransport
from tests.contract import sshd


@pytest.fixture(scope="session")
def server() -> Iterator[sshd.Server]:
    """An OpenSSH server on loopback."""
    folder = Path(tempfile.mkdtemp(prefix="hpcml-sshd-"))
    running = None
    try:
        running = sshd.Server(folder, sshd.installed()[0])
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def csh_user() -> Iterator[pwd.struct_passwd]:
    """Somebody with a chatty csh; whoever runs the tests where there is no root."""
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid())
        return
    with sshd.somebody(sshd.installed()[1]) as user:
        yield user


def a_site(name: str = "loop", python: str | None = None) -> Site:
    """A site that is reached by ssh."""
    node = Node(cpus=2, memory="2 GiB")
    return Site(
        name=name,
        scheduler="slurm",
        transport="ssh",
        ssh=Ssh(host=name),
        python=python,
        partitions={"all": Partition(nodes=1, time="1h", node=node)},
    )


@dataclass
class Loop:
    """The way to a server on loopback.

    Attributes
    ----------
    folder : Path
        A short one, in which the way's own sockets are.
    """

    server: sshd.Server
    folder: Path

    def transport(
        self,
        user: str,
        workspace: str,
        python: str = "/usr/bin/python3",
        port: int | None = None,
    ) -> SshTransport:
        """A conversation that has not begun."""
        config = self.folder / f"config-{user}-{port or self.server.port}"
        config.write_text(self.server.config("loop", user, port))
        library()
        binding = Binding(workspace, python, python, library_name(), ssh_config=str(config))
        return SshTransport(a_site(), binding)


@pytest.fixture(scope="session")
def way(server: sshd.Server) -> Iterator[Loop]:
    """One for all tests that do it no harm: they share its connections."""
    with a_way(server) as made:
        yield made


@pytest.fixture
def loop(way: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """That one, in use."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(way.folder))
    return way


@contextmanager
def a_way(server: sshd.Server) -> Iterator[Loop]:
    """A way with connections of its own, which are closed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hpcml-way-"))
    try:
        yield Loop(server, folder)
    finally:
        for socket in (folder / "hpcml").glob("*"):
            exit_master = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "any"]
            subprocess.run(exit_master, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
