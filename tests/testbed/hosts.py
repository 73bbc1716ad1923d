"""The hosts of a box: namespaces of the kernel, connected by a switch that is in the box too.

A box is a process (`init.py`) in network, mount, UTS, IPC and PID namespaces of its own; each
host is a process in such namespaces below them. When the first one ends, the kernel ends all
others, and removes their mounts and network devices.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from tests.testbed.machine import CannotHaveBox, CommandFailed, run
from tests.testbed.rootfs import RootFs
from tests.testbed.slurmconf import COMPUTE
from tests.testbed.state import MEMORY, Process, State, link_name, memory_cgroup

LOGIN, CONTROL = "login", "control"

# Last number of each host's address in the box's network, 198.18.N.0/24. These addresses are
# reserved for testing (RFC 2544): they are nobody's network.
ADDRESSES = {CONTROL: 2, LOGIN: 3} | {name: 11 + i for i, name in enumerate(COMPUTE)}

OWN = ("/tmp/", "/run/", "/dev/", "/proc/", "/sys/")  # what each host has for itself

HERE = Path(__file__).parent
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def refused(said: str) -> NoReturn:
    """Raise `CannotHaveBox` for what the kernel does not allow."""
    raise CannotHaveBox(
        f"the kernel does not allow its namespaces, mounts or network devices:\n{said}\n",
        "It takes a machine (not a container) with overlayfs, veth and bridges.",
    )


class Hosts:
    """The namespaces of a box and of its hosts."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._outside: subprocess.Popen[bytes] | None = None

    # -- making

    def start_box(self, rootfs: RootFs, home_inodes: int | None, binds: Mapping[str, str]) -> int:
        """Make the box itself. Gives the lifeline: the box ends when this file is closed."""
        reading, writing = os.pipe()
        command = ["unshare", *NAMESPACES, "--fork", sys.executable, "-I", "-S"]
        first = subprocess.Popen(
            [*command, HERE / "init.py", str(reading)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.state.folder / "first.log").open("w"),
            pass_fds=[reading],
            start_new_session=True,
            cwd="/",
        )
        os.close(reading)
        assert first.stdout is not None
        self._outside = first
        with first.stdout as said:
            pid = said.readline()
        if not pid:
            refused((self.state.folder / "first.log").read_text())
        self.state.first = Process.of(int(pid))
        self.state.save()
        mounting = ("sh", HERE / "box.sh", self.state.folder, rootfs.layers, str(home_inodes or 0))
        try:
            self._in_box(*mounting, *ADDRESSES)
        except CommandFailed as failed:
            refused(str(failed))
        for source, target in binds.items():
            self._bind(source, target)
        return writing

    def start(self, names: Iterable[str]) -> None:
        """Make hosts, which may have been there before."""
        starting = {name: self._starting(name) for name in names}
        for name, process in starting.items():
            assert process.stdout is not None
            with process.stdout as said:
                pid, ready = said.readline().strip(), said.readline().strip()
            process.wait()
            if ready != "ready":
                log = self.state.folder / f"{name}.log"
                raise OSError(f"host {name} does not start: {log.read_text()}")
            self.state.hosts[name] = Process.of(int(pid))
        self.state.save()

    def connect_login(self) -> None:
        """Connect the login node, and no other one, with the machine."""
        link, number = link_name(self.state.name), self.state.number
        login = str(self.state.hosts[LOGIN].pid)
        run("ip", "link", "add", link, *f"type veth peer name outside netns {login}".split())
        run("ip", "address", "add", f"198.19.{number}.1/30", "dev", link)
        run("ip", "link", "set", link, "up")
        self.run(LOGIN, "ip", "address", "add", f"{self.login_address}/30", "dev", "outside")
        self.run(LOGIN, "ip", "link", "set", "outside", "up")

    def _starting(self, name: str) -> subprocess.Popen[str]:
        inside = self.state.folder / "inside"
        host = [
            *("nsenter", f"--net={inside}/net/{name}"),
            *self._confining(name),
            *("unshare", *(it for it in NAMESPACES if it != "--net"), "--fork", "--kill-child"),
            *("env", f"MACHINE_PROC={inside}/proc"),
            *("sh", str(HERE / "host.sh"), f"{inside}/root", name, f"{self.address(name)}/24"),
            *(str(COMPUTE.get(name, 0)), "tini", "-s", "--", "sleep", "infinity"),
        ]
        # The shell ends at once, so that the host is a child of the box's first process.
        command = [*self._entering_box(), "sh", "-c", 'setsid "$@" &', "sh", *host]
        with (self.state.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def _confining(self, name: str) -> list[str]:
        """The beginning of a command in a host's own part of the memory cgroups, if it has one."""
        if not (self.state.switches.get("memory_enforced") and name in COMPUTE):
            return []
        if not MEMORY.is_dir():
            raise CannotHaveBox(
                f"memory is not limited in cgroups of version 1, at {MEMORY}",
                "Boot with systemd.unified_cgroup_hierarchy=0.",
            )
        folder = memory_cgroup(self.state.name) / name
        folder.mkdir(parents=True, exist_ok=True)
        entering = 'echo $$ >"$0" && exec "$@"'
        return ["env", "MEMORY_CGROUP=yes", "sh", "-c", entering, f"{folder}/cgroup.procs"]

    def _bind(self, source: str, target: str) -> None:
        if target.startswith(OWN):
            raise CannotHaveBox(
                f"its hosts would not see {target}: each has {', '.join(OWN)} of its own",
                "Have the project, its .venv and the Python somewhere else.",
            )
        where = f"{self.state.folder}/inside/root{target}"
        if os.path.isdir(source):
            self._in_box("mkdir", "-p", where)
        else:
            self._in_box("mkdir", "-p", os.path.dirname(where))
            self._in_box("touch", where)
        self._in_box("mount", "--bind", source, where)
        self._in_box("mount", "-o", "remount,bind,ro", where)

    def reap(self) -> None:
        """Take note of the end of the box's own process, so that no zombie is left."""
        if self._outside is not None:
            self._outside.wait(timeout=120)

    # -- being there

    @property
    def login_address(self) -> str:
        """By which the machine reaches the login node."""
        return f"198.19.{self.state.number}.2"

    def address(self, host: str) -> str:
        """Of a host in the box's own network."""
        return f"198.18.{self.state.number}.{ADDRESSES[host]}"

    @property
    def root(self) -> Path:
        """The hosts' shared root file system, as the machine sees it."""
        first = self.state.first
        assert first is not None
        return Path(f"/proc/{first.pid}/root{self.state.folder}/inside/root")

    def root_of(self, host: str) -> Path:
        """A host's root file system with what is its own, as the machine sees it."""
        return Path(f"/proc/{self.state.hosts[host].pid}/root")

    def entering(self, host: str, user: str = "root") -> list[str]:
        """The beginning of a command that runs on a host, without a login shell."""
        enter = ["nsenter", f"--target={self.state.hosts[host].pid}", *NAMESPACES, "--"]
        home = "/root" if user == "root" else f"/home/{user}"
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
        if user == "root":
            become = ["env", "-i", "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash"]
        return [*enter, *become, "env", f"--chdir={home}", f"PATH={PATH}", "LANG=C.UTF-8"]

    def run(
        self, host: str, *argv: str, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as root; raises `CommandFailed` where it fails."""
        return run(*self.entering(host), *argv, stdin=stdin, timeout=timeout)

    def succeeds(self, host: str, *argv: str) -> bool:
        """Whether a command gives the exit code 0."""
        try:
            self.run(host, *argv)
        except (CommandFailed, subprocess.TimeoutExpired):
            return False
        return True

    def spawn(self, host: str, log: str, *argv: str) -> None:
        """Start a command on a host that goes on; what it says goes to ``/var/log/box/LOG``."""
        background = f'setsid "$@" </dev/null >>/var/log/box/{log} 2>&1 &'
        self.run(host, "sh", "-c", background, "sh", *argv)

    def kill(self, host: str) -> None:
        """End a host at once, as by loss of power."""
        process = self.state.hosts[host]
        self._in_box("ip", "link", "set", host, "down")
        os.kill(process.pid, 9)

    def plug(self, host: str, *, connected: bool) -> None:
        """Pull a host's network cables, or put them in again."""
        way = "up" if connected else "down"
        self._in_box("ip", "link", "set", host, way)
        if host == LOGIN:
            run("ip", "link", "set", link_name(self.state.name), way)

    def _entering_box(self) -> list[str]:
        first = self.state.first
        assert first is not None
        return ["nsenter", f"--target={first.pid}", *NAMESPACES, "--"]

    def _in_box(self, *argv: str | Path) -> None:
        run(*self._entering_box(), *argv)
