"""A supercomputer in a box: a login node, a controller, four compute nodes, on one machine.

    with Box(max_submit_jobs=20) as box:
        box.run("login", ["sbatch", "--wrap", "hostname"])

Needs root on Linux and a mirror of Debian; the first one takes minutes, later ones seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from hpcml.sites import Site
from tests.testbed import machine
from tests.testbed.faults import Faults
from tests.testbed.hosts import CONTROL, LOGIN, Hosts
from tests.testbed.recipe import IMAGE, USERS
from tests.testbed.rootfs import root_file_system
from tests.testbed.services import Services
from tests.testbed.slurmconf import COMPUTE, Switches
from tests.testbed.state import FOLDER, Process, State, claim

ROOT = Path(__file__).parents[2]

CHATTY = {
    ".bashrc": "echo 'Quota: 12 % of your budget is left.'\n",
    ".cshrc": "echo 'Quota: 12 % of your budget is left.'\n",
}


SLURM_OF_PROFILE = """
mkdir -p /opt/slurm/bin
for name in sbatch squeue sacct scontrol scancel sinfo srun; do
    cp /usr/bin/$name /opt/slurm/bin
    mount --bind /dev/null /usr/bin/$name
done
echo 'export PATH=$PATH:/opt/slurm/bin LD_LIBRARY_PATH=/opt/slurm/lib' > /etc/profile.d/slurm.sh
echo 'setenv PATH ${PATH}:/opt/slurm/bin' >> /etc/csh.login
echo 'setenv LD_LIBRARY_PATH /opt/slurm/lib' >> /etc/csh.login
"""


def this_python() -> dict[str, str]:
    """What the hosts need to see (`binds`) so that `python` runs on them."""
    found = {sys.prefix, sys.base_prefix, str(ROOT)}
    if sys.base_prefix == "/usr":  # the hosts have a /usr, with another Python
        found -= {"/usr"}
        found |= {os.path.realpath(sys.executable), sysconfig.get_path("stdlib")}
    return {path: path for path in sorted(found)}


def python() -> list[str]:
    """The beginning of a command on a host that runs this Python, with hpcml and its libraries."""
    libraries = f"PYTHONPATH={ROOT}:{sysconfig.get_path('purelib')}"
    return ["env", libraries, os.path.realpath(sys.executable)]


class Box(Faults):
    """One supercomputer. As a context manager it is up inside, and gone without trace after it.

    Parameters
    ----------
    name
        Up to 9 of a-z and 0-9; everything that it makes on the machine bears it. None: one
        that is free.
    binds
        Folders and files of the machine that all hosts see read-only: ``{"/data": "/data"}``;
        `this_python` gives those with which hpcml itself runs in the box, by `python`.
    **switches
        See `tests.testbed.slurmconf.Switches`.

    Attributes
    ----------
    image : str
        An Apptainer image with a Python, readable for everybody in the box.
    """

    image = IMAGE

    def __init__(
        self, name: str | None = None, *, binds: Mapping[str, str] | None = None, **switches: Any
    ) -> None:
        self.switches = Switches(**switches)
        self._wanted_name, self._binds = name, binds or {}
        self._lifeline: int | None = None
        self._sizes: dict[tuple[str, str], int] = {}

    @classmethod
    def of_name(cls, name: str) -> Box:
        """A box that is up already.

        Raises
        ------
        LookupError
            There is none of that name.
        """
        try:
            state = State.load(FOLDER / name)
        except FileNotFoundError:
            raise LookupError(f"there is no box {name!r}: make box") from None
        box = cls(name, **state.switches)
        box._use(state)
        return box

    def _use(self, state: State) -> None:
        self.state = state
        self.hosts = Hosts(state)
        self.services = Services(self.hosts, self.switches)

    @property
    def name(self) -> str:
        return self.state.name

    # -- up and down

    def up(self) -> Box:
        """Start it; it ends with this process, if not by `down` before.

        Raises
        ------
        CannotHaveBox
            The machine has not what it takes.
        """
        machine.make_ready()
        rootfs = root_file_system()
        self._use(claim(self._wanted_name, Process.of(os.getpid()), asdict(self.switches)))
        try:
            self._lifeline = self.hosts.start_box(rootfs, self.switches.home_inodes, self._binds)
            self.hosts.start([CONTROL, LOGIN, *COMPUTE])
            self.hosts.connect_login()
            self.services.configure()
            self._furnish_homes()
            self.services.start_control()
            self.services.start_login()
            if self.switches.slurm_of_profile:
                self.hosts.run(LOGIN, "sh", "-ec", SLURM_OF_PROFILE)
            for host in COMPUTE:
                self.services.start_compute(host)
            self.services.wait_until_usable()
        except BaseException as problem:
            problem.add_note(self.services.logs())
            self.down()
            raise
        return self

    def keep(self) -> None:
        """Let it live on when this process ends."""
        assert self._lifeline is not None
        os.write(self._lifeline, b"!")
        self.state.owner = None
        self.state.save()

    def down(self) -> None:
        """End it; nothing of it is left."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        self.state.remove()
        self.hosts.reap()

    def __enter__(self) -> Box:
        return self.up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()

    # -- using it

    def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: str = "alice",
        stdin: str | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, in the user's home, without a login shell.

        Where it lasts longer than `timeout` it is given up, but goes on in the box.

        Raises
        ------
        tests.testbed.machine.CommandFailed
            With `check`, if its exit code is not 0.
        """
        command = [*self.hosts.entering(host, user), *argv]
        try:
            return machine.run(*command, stdin=stdin, timeout=timeout)
        except machine.CommandFailed as failed:
            if check:
                raise
            return failed.done

    def ssh_config(self, user: str = "alice") -> Path:
        """A configuration with which ``ssh -F CONFIG box`` reaches the login node as a user."""
        folder = self.state.folder / f"ssh-{user}"
        config = folder / "config"
        if config.exists():
            return config
        folder.mkdir(mode=0o700, exist_ok=True)
        key = folder / "key"
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", user, "-f", key)
        authorize = "umask 077; mkdir -p ~/.ssh; cat >>~/.ssh/authorized_keys"
        public = key.with_suffix(".pub").read_text()
        self.run(LOGIN, ["/bin/sh", "-c", authorize], user=user, stdin=public)
        address = self.hosts.login_address
        host_key = (self.hosts.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        (folder / "known_hosts").write_text(f"{address} {host_key}")
        lines = (
            "Host box",
            f"    HostName {address}",
            f"    User {user}",
            f"    IdentityFile {key}",
            "    IdentitiesOnly yes",
            f"    UserKnownHostsFile {folder}/known_hosts",
            "    GlobalKnownHostsFile none",
            "    StrictHostKeyChecking yes",
            "    BatchMode yes",
        )
        config.write_text("\n".join([*lines, ""]))
        return config

    def shell(self, host: str = LOGIN, user: str = "alice") -> int:
        """A shell on a host, for a person. Gives its exit code."""
        login = [*self.hosts.entering(host), "TERM=" + os.environ.get("TERM", "dumb")]
        return subprocess.run([*login, "runuser", "-l", user], check=False).returncode

    def set_power(self, host: str, *curve: tuple[float, float]) -> None:
        """What a compute node draws from now on: pieces of (seconds, watts), again and again."""
        self.services.set_power(host, list(curve))

    def mimic(self, site: Site, partition: str | None = None) -> None:
        """Be like a real site from now on: its nodes, partitions, limits, QOS and accounts.

        Parameters
        ----------
        site
            Its profile.
        partition
            Whose nodes are up, so that jobs run on them. None: jobs can be submitted only.
        """
        self.services.mimic(site, partition)

    def path(self, host: str, path: str) -> Path:
        """Where the machine finds a file of a host. (Absolute links in it lead astray.)"""
        return self.hosts.root_of(host) / path.lstrip("/")

    def _furnish_homes(self) -> None:
        for user in USERS:
            if self.switches.login_shell != "/bin/bash":
                self.hosts.run(LOGIN, "usermod", "--shell", self.switches.login_shell, user)
            if self.switches.chatty:
                for name, text in CHATTY.items():
                    self.run(
                        LOGIN,
                        ["sh", "-c", f"cat - ~/{name} >~/new; mv ~/new ~/{name}"],
                        user=user,
                        stdin=text,
                    )
