"""The services of a box, started in the order in which they need each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hpcml.sites import Site
from tests.testbed import mimicry, slurmconf
from tests.testbed.hosts import CONTROL, LOGIN, Hosts
from tests.testbed.recipe import USERS
from tests.testbed.slurmconf import COMPUTE, Switches

HERE = Path(__file__).parent

ACCOUNT = slurmconf.ACCOUNTS[0]
IDLE_WATTS = 100.0


def until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Wait until something is true.

    Raises
    ------
    TimeoutError
        It did not come true.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} after {timeout:g} s")
        time.sleep(0.02)


class Services:
    """munge, MariaDB, slurmdbd, slurmctld, slurmd, slurmrestd, sshd and the energy counters."""

    def __init__(self, hosts: Hosts, switches: Switches) -> None:
        self.hosts = hosts
        self.switches = switches

    def configure(self) -> None:
        """Write the configuration that all hosts share."""
        etc = self.hosts.root / "etc"
        (etc / "hosts").write_text("\n".join([*self._host_names(), ""]))
        (etc / "motd").write_text("Welcome to the supercomputer in a box.\n")
        (etc / "resolv.conf").write_text("")
        for name, text in slurmconf.files(self.switches).items():
            (etc / "slurm" / name).write_text(text)
        programs = self.hosts.root / "usr/local/lib/box"
        programs.mkdir(exist_ok=True)
        for name in ("meter.py", "slow.py"):
            (programs / name).write_bytes((HERE / name).read_bytes())

    def _host_names(self) -> list[str]:
        hosts = (CONTROL, LOGIN, *COMPUTE)
        return ["127.0.0.1 localhost", *(f"{self.hosts.address(host)} {host}" for host in hosts)]

    def start_control(self) -> None:
        self._start_munge(CONTROL)
        if self.switches.slurmdbd:
            self.start_database()
            self._add_users()
        self.start_controller()

    def start_login(self) -> None:
        self._start_munge(LOGIN)
        self.hosts.spawn(LOGIN, "sshd.log", "/usr/sbin/sshd", "-D", "-e")
        openapi = "slurmctld,slurmdbd" if self.switches.slurmdbd else "slurmctld"
        self.hosts.spawn(
            LOGIN,
            "slurmrestd.log",
            *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
            *("env", "SLURM_JWT=daemon", "slurmrestd", "-a", "rest_auth/jwt"),
            *("-s", openapi, "0.0.0.0:6820"),
        )
        until(lambda: self.listens(LOGIN, 22), "sshd does not listen")

    def start_compute(self, host: str) -> None:
        self._start_munge(host)
        self.set_power(host, [(60.0, IDLE_WATTS)])
        mode = "400" if self.switches.powercap_of_root else "444"
        meter = ["python3", "/usr/local/lib/box/meter.py", "/run/box/curve.json", mode]
        self.hosts.spawn(host, f"meter.{host}.log", *meter)
        until((self.hosts.root_of(host) / "sys/cray/pm_counters/freshness").exists, "no counters")
        self.hosts.spawn(host, f"slurmd.{host}.log", "slurmd", "-D", "-N", host)

    def start_database(self) -> None:
        """MariaDB, and slurmdbd on it."""
        conf = self.hosts.root / "etc/slurm/slurmdbd.conf"
        conf.write_text(slurmconf.SLURMDBD_CONF)
        self.hosts.run(CONTROL, "chown", "slurm:slurm", "/etc/slurm/slurmdbd.conf", "/run/slurm")
        self.hosts.run(CONTROL, "chmod", "600", "/etc/slurm/slurmdbd.conf")
        self.hosts.run(CONTROL, "chown", "mysql:mysql", "/run/mariadbd")
        self.hosts.spawn(CONTROL, "mariadb.log", "mariadbd", "--user=mysql")
        self._wait_for(CONTROL, "mariadb-admin", "ping")
        self.hosts.spawn(CONTROL, "slurmdbd.log", "runuser", "-u", "slurm", "slurmdbd", "--", "-D")
        until(lambda: self.listens(CONTROL, 6819), "slurmdbd does not listen")

    def stop_database(self) -> None:
        self._stop("slurmdbd")
        self._stop("mariadbd")

    def start_controller(self) -> None:
        """slurmctld, which does without state files that it has not, or not yet, written."""
        self.hosts.run(CONTROL, "chown", "slurm:slurm", "/run/slurm")
        command = ["runuser", "-u", "slurm", "slurmctld", "--", "-D", "-i"]
        self.hosts.spawn(CONTROL, "slurmctld.log", *command)
        until(lambda: self.listens(CONTROL, 6817), "slurmctld does not listen")

    def stop_controller(self) -> None:
        self._stop("slurmctld")

    def mimic(self, site: Site, partition: str | None) -> None:
        """Be like a site from now on; of one partition the nodes are up."""
        self.stop_controller()
        for host in COMPUTE:
            self._stop("slurmd", host)
        up = {} if partition is None else mimicry.really(site, partition)
        etc = self.hosts.root / "etc"
        for name, text in mimicry.files(site, up, self.switches).items():
            (etc / "slurm" / name).write_text(text)
        suffix = site.launch.rendezvous_suffix or ""
        names = [f"{self.hosts.address(host)} {node} {node}{suffix}" for node, host in up.items()]
        (etc / "hosts").write_text("\n".join([*self._host_names(), *names, ""]))
        self._add_payers(site)
        self.start_controller()
        devices = site.partitions[partition].node.devices if partition else 0
        for node, host in up.items():
            for number in range(COMPUTE[host], devices):
                self._make_device(host, number)
            self.hosts.spawn(host, f"slurmd.{host}.log", "slurmd", "-D", "-N", node)
        until(lambda: all(self.node_states()[node] == "idle" for node in up), "no idle nodes")

    def _add_payers(self, site: Site) -> None:
        if accounts := ",".join({*mimicry.accounts(site)} - self._known("account")):
            self._sacctmgr("add", "account", accounts)
            self._sacctmgr("add", "user", ",".join(USERS), f"Account={accounts}")
        known = self._known("qos")
        users = ("modify", "user", "where", f"name={','.join(USERS)}", "set")
        paying = "" if site.account_required else ACCOUNT
        self._sacctmgr(*users, f"MaxSubmitJobs={site.max_submitted or -1}")
        self._sacctmgr(*users, f"DefaultAccount={paying}")
        unlimited = {"normal": ["MaxWall=-1", "MaxTRESPerJob=node=-1", "Flags=-1"]}  # as it was
        for name, limits in {**unlimited, **mimicry.qos(site)}.items():
            if name not in known:
                self._sacctmgr("add", "qos", name)
            self._sacctmgr("modify", "qos", "where", f"name={name}", "set", *limits)
            self._sacctmgr(*users, f"qos+={name}")

    def _known(self, what: str) -> set[str]:
        """Names of accounts or QOS."""
        shown = self.hosts.run(CONTROL, "sacctmgr", "-n", "-P", "show", what).stdout
        return {line.partition("|")[0] for line in shown.splitlines()}

    def _make_device(self, host: str, number: int) -> None:
        path = f"/dev/nvidia{number}"
        if not (self.hosts.root_of(host) / path.lstrip("/")).exists():
            self.hosts.run(host, "mknod", "-m", "666", path, "c", "1", "3")

    def set_power(self, host: str, curve: list[tuple[float, float]]) -> None:
        """What a compute node draws from now on: pieces of (seconds, watts), again and again."""
        folder = self.hosts.root_of(host) / "run/box"
        written = folder / "curve.json.new"
        written.write_text(str([list(piece) for piece in curve]))
        written.rename(folder / "curve.json")

    def wait_until_usable(self) -> None:
        """Until every node takes jobs."""
        until(lambda: set(self.node_states().values()) == {"idle"}, "not all nodes are idle")

    def node_states(self) -> dict[str, str]:
        """As sinfo shows them, such as idle, alloc, drain, down*."""
        shown = self.hosts.run(CONTROL, "sinfo", "-h", "-N", "-o", "%N %t").stdout
        return dict(line.split() for line in shown.splitlines())

    def logs(self, lines: int = 15) -> str:
        """The last lines of each log."""
        found = []
        for path in sorted((self.hosts.root / "var/log/box").glob("*")):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            found += [f"--- {path.name}", *last]
        return "\n".join(found)

    def _add_users(self) -> None:
        limit = self.switches.max_submit_jobs
        limits = [f"MaxSubmitJobs={limit}"] if limit is not None else []
        users, accounts = ",".join(USERS), ",".join(slurmconf.ACCOUNTS)
        self._sacctmgr("add", "account", accounts)
        default = f"DefaultAccount={ACCOUNT}"
        self._sacctmgr("add", "user", users, f"Account={accounts}", default, *limits)
        if self.switches.account_required:
            self._sacctmgr("modify", "user", "where", f"name={users}", "set", "DefaultAccount=")

    def _sacctmgr(self, *words: str) -> None:
        self.hosts.run(CONTROL, "sacctmgr", "-i", "-Q", *words)

    def _start_munge(self, host: str) -> None:
        self.hosts.run(host, "chown", "munge:munge", "/run/munge")
        munge = ["munged", "--foreground", "--force", "--log-file=/run/munge/log"]
        self.hosts.spawn(host, "munge.log", "runuser", "-u", "munge", "--", *munge)
        until((self.hosts.root_of(host) / "run/munge/munge.socket.2").exists, "no munge")

    def _stop(self, name: str, host: str = CONTROL) -> None:
        self.hosts.succeeds(host, "pkill", "-x", name)
        until(lambda: not self.hosts.succeeds(host, "pgrep", "-x", name), f"{name} lives on")

    def _wait_for(self, host: str, *command: str) -> None:
        until(lambda: self.hosts.succeeds(host, *command), f"{' '.join(command)} fails")

    def listens(self, host: str, port: int) -> bool:
        """Whether a TCP port of a host is open (its state in proc(5)'s net/tcp is 0A)."""
        pid = self.hosts.state.hosts[host].pid
        rows = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        ]
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
