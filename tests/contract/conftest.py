"""Sites to try a transport on."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcml import plugins
from hpcml.agent import wire
from hpcml.connection import connect
from hpcml.library import library_name
from hpcml.settings import Binding
from hpcml.sites import Node, Partition, Site
from hpcml.sites.profile import AgentPython, Ssh
from hpcml.transports.ssh import SshTransport
from tests.contract import sshd


@pytest.fixture(scope="session")
def server() -> Iterator[sshd.Server]:
    """An OpenSSH server on loopback."""
    folder = Path(tempfile.mkdtemp(prefix="hpcml-sshd-"))
    running = None
    try:
        running = sshd.Server(folder, sshd.programs()[0])
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
    with sshd.somebody(sshd.programs()[1]) as user:
        yield user


def a_site(name: str = "loop", python: str | None = None) -> Site:
    """A site that is reached by ssh."""
    node = Node(cpus=2, memory="2 GiB")
    return Site(
        name=name,
        scheduler="slurm",
        transport="ssh",
        ssh=Ssh(host=name),
        agent_python=AgentPython(login=python, compute=python),
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
        binding = Binding(workspace, python, python, library_name(), ssh_config=str(config))
        return SshTransport(a_site(python=python), binding)


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


PROFILE = """
name: far
scheduler: slurm
transport: ssh
agent_python: /usr/bin/python3
ssh: {host: loop}
partitions:
  all: {nodes: 2, time: 1h, node: {cpus: 4, memory: 8 GiB}}
"""


@pytest.fixture
def far(
    loop: Loop, home: Path, monkeypatch: pytest.MonkeyPatch, csh_user: pwd.struct_passwd
) -> Iterator[str]:
    """A site behind a chatty csh, and somebody's settings for it."""
    monkeypatch.setitem(
        plugins.BUILT_IN, "hpcml.schedulers", {"slurm": "tests.contract.pretend:PretendScheduler"}
    )
    config = loop.folder / "config-far"
    config.write_text(loop.server.config("loop", "somebody-else"))
    folder = home / "config" / "hpcml"
    (folder / "sites").mkdir(parents=True)
    (folder / "sites" / "far.yaml").write_text(PROFILE)
    (folder / "config.yaml").write_text(
        "sites:\n  far:\n"
        f"    workspace: ~/{wire.random_letters(8)}\n    user: {csh_user.pw_name}\n"
        f"    python: /opt/venv/bin/python\n    ssh_config: {config}\n"
    )
    yield "far"
    files = connect("far")._files
    assert isinstance(files, SshTransport)
    files.close()


def ssh_of(site: str) -> SshTransport:
    files = connect(site)._files
    assert isinstance(files, SshTransport)
    return files


def trips(site: str, work: Callable[[], object]) -> int:
    """Round trips that something takes, once the site has been reached."""
    files = ssh_of(site)
    files.names("")
    before = files.round_trips
    work()
    return files.round_trips - before
