"""What goes wrong at a site, on demand."""

from __future__ import annotations

import os
import shlex

from tests.testbed.hosts import CONTROL, LOGIN, Hosts
from tests.testbed.machine import run
from tests.testbed.services import Services, until

SLOW_PORT = 2222

SBATCH = "/usr/local/bin/sbatch"  # before /usr/bin in everybody's PATH

REPLY_LATE = """\
#!/bin/sh
reply=$(/usr/bin/sbatch "$@")
code=$?
sleep {seconds}
[ -z "$reply" ] || printf '%s\\n' "$reply"
exit $code
"""

REPLY_LOST = """\
#!/bin/sh
/usr/bin/sbatch "$@" >/dev/null
echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2
exit 1
"""

KILLED = {
    "before": "#!/bin/sh\nkill -KILL $$\n",
    "after": '#!/bin/sh\n/usr/bin/sbatch "$@" >/dev/null\nkill -KILL $$\n',
}

REDIRECT = f"""\
table ip slow {{
    chain in {{
        type nat hook prerouting priority dstnat
        iifname "outside" tcp dport 22 redirect to :{SLOW_PORT}
    }}
}}
"""


class Faults:
    """Methods of a `Box`. What is broken stays so until the method that repairs it."""

    hosts: Hosts
    services: Services
    _sizes: dict[tuple[str, str], int]  # in bytes, of disks that are full, by path and host

    # -- Slurm itself

    def stop_controller(self) -> None:
        """End slurmctld: squeue and sbatch fail."""
        self.services.stop_controller()

    def start_controller(self) -> None:
        self.services.start_controller()
        until(lambda: self.hosts.succeeds(LOGIN, "scontrol", "ping"), "the controller is silent")

    def stop_database(self) -> None:
        """End slurmdbd and MariaDB: sacct fails."""
        self.services.stop_database()

    def start_database(self) -> None:
        self.services.start_database()
        until(
            lambda: self.hosts.succeeds(LOGIN, "sacctmgr", "-n", "show", "cluster"),
            "the database is silent",
        )

    # -- hosts

    def drop_network(self, host: str) -> None:
        """Pull a host's cables: it lives on, and nothing reaches it. No connection is closed."""
        self.hosts.plug(host, connected=False)

    def restore_network(self, host: str) -> None:
        self.hosts.plug(host, connected=True)

    def kill_node(self, host: str) -> None:
        """End a compute node with all that runs on it, as by loss of power."""
        self.hosts.kill(host)
        until(lambda: not self.hosts.state.hosts[host].alive, f"{host} lives on")

    def revive_node(self, host: str) -> None:
        """Start it anew: its ``/tmp`` is empty, and it takes jobs again."""
        self.hosts.start([host])
        self.hosts.plug(host, connected=True)
        self.services.start_compute(host)
        until(lambda: self.services.node_states()[host] == "idle", f"{host} does not come back")

    def drain(self, host: str, reason: str = "maintenance") -> None:
        """Have a node take no more jobs; those on it go on."""
        self._scontrol("update", f"NodeName={host}", "State=DRAIN", f"Reason={reason}")

    def resume(self, host: str) -> None:
        self._scontrol("update", f"NodeName={host}", "State=RESUME")

    def preempt(self, host: str) -> str:
        """Have jobs of the partition ``low`` on a node give way to another one of bob's.

        Gives the id of that job, which takes the whole node until `cancel`.
        """
        partition = "gpu" if host.startswith("gpu") else "cpu"
        where = ["--exclusive", f"--nodelist={host}", f"--partition={partition}"]
        bob = self.hosts.entering(LOGIN, "bob")
        quiet = ["--output=/dev/null", "--account=weather", "--parsable"]
        if not self.services.switches.slurmdbd:
            quiet.remove("--account=weather")
        return run(*bob, "/usr/bin/sbatch", *quiet, *where, "--wrap=sleep 3600").stdout.strip()

    def cancel(self, job: str) -> None:
        """As an administrator."""
        self.hosts.run(CONTROL, "scancel", job)

    # -- disks

    def fill_disk(self, path: str, host: str = LOGIN) -> None:
        """Leave no space on ``/home``, ``/scratch`` (everywhere) or a host's ``/tmp``."""
        statistics = os.statvfs(f"{self.hosts.root_of(host)}{path}")
        used = statistics.f_blocks - statistics.f_bfree
        self._sizes.setdefault((path, host), statistics.f_blocks * statistics.f_bsize)
        self._resize(path, host, max(1, used) * statistics.f_bsize)

    def free_disk(self, path: str, host: str = LOGIN) -> None:
        """Have it as large as it was."""
        self._resize(path, host, self._sizes.pop((path, host)))

    # -- the way in

    def delay_sbatch(self, seconds: float) -> None:
        """sbatch does what it should, and says so late."""
        self._replace_sbatch(REPLY_LATE.format(seconds=shlex.quote(str(seconds))))

    def lose_sbatch_reply(self) -> None:
        """sbatch does what it should, and reports a timeout instead of the job's id."""
        self._replace_sbatch(REPLY_LOST)

    def kill_sbatch(self, when: str) -> None:
        """sbatch is killed "before" it submits, or "after" that, before it says the job's id."""
        self._replace_sbatch(KILLED[when])

    def restore_sbatch(self) -> None:
        (self.hosts.root / SBATCH.lstrip("/")).unlink(missing_ok=True)

    def drop_ssh(self) -> None:
        """End all SSH connections to the login node, in mid-stream. New ones are welcome."""
        self.hosts.succeeds(LOGIN, "pkill", "-KILL", "-x", "sshd-session|sshd-auth")

    def slow_network(self, milliseconds: float = 25) -> None:
        """Have bytes of new SSH connections take that much longer, each way."""
        self.fast_network()
        slow = ["python3", "/usr/local/lib/box/slow.py", str(SLOW_PORT), "22", str(milliseconds)]
        self.hosts.spawn(LOGIN, "slow.log", *slow)
        until(lambda: self.services.listens(LOGIN, SLOW_PORT), "the slow way is not there")
        self.hosts.run(
            LOGIN,
            *("nft", "-f", "-"),
            stdin=REDIRECT,
        )

    def fast_network(self) -> None:
        """End `slow_network`, and the connections that went that way."""
        self.hosts.succeeds(LOGIN, "nft", "delete", "table", "ip", "slow")
        self.hosts.succeeds(LOGIN, "pkill", "-KILL", "-f", "/usr/local/lib/box/slow.py")
        until(lambda: not self.services.listens(LOGIN, SLOW_PORT), "the slow way is still there")

    def _replace_sbatch(self, text: str) -> None:
        path = self.hosts.root / SBATCH.lstrip("/")
        new = path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.rename(path)

    def _resize(self, path: str, host: str, size: int) -> None:
        self.hosts.run(host, "mount", "-o", f"remount,size={size}", path)

    def _scontrol(self, *words: str) -> None:
        self.hosts.run(CONTROL, "scontrol", *words)
