"""What tests say to Slurm in a box, shortly."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from tests.conftest import eventually
from tests.testbed.box import Box

PATIENCE = 90.0  # seconds: Slurm looks at silent nodes every few of them, on a busy machine later


def sbatch(box: Box, *words: str, user: str = "alice") -> str:
    """Submit a job that keeps its output to itself. Gives its id."""
    quiet = ["--parsable", "--output=/dev/null"]
    return box.run("login", ["sbatch", *quiet, *words], user=user).stdout.strip()


def refused(box: Box, *words: str) -> str:
    """What sbatch says about a job that it does not take."""
    done = box.run("login", ["sbatch", "--output=/dev/null", *words], check=False)
    assert done.returncode != 0, f"sbatch took it: {done.stdout}"
    return done.stderr


def shown(box: Box, job: str, field: str) -> str:
    """What scontrol shows of a job."""
    words = box.run("login", ["scontrol", "-o", "show", "job", job]).stdout.split()
    return next(word.removeprefix(f"{field}=") for word in words if word.startswith(f"{field}="))


def becomes(box: Box, job: str, state: str) -> None:
    """Wait until a job is in a state."""
    eventually(lambda: shown(box, job, "JobState") == state, PATIENCE)


def accounted(box: Box, job: str, *fields: str) -> list[str]:
    """What sacct shows of a job, without its steps."""
    line = ["sacct", "-X", "-n", "-P", "-j", job, f"--format={','.join(fields)}"]
    return box.run("login", line).stdout.strip().split("|")


def ssh(box: Box, *words: str, user: str = "alice") -> subprocess.CompletedProcess[str]:
    """A command on the login node, from the machine, by its OpenSSH."""
    command = ["ssh", "-F", str(box.ssh_config(user)), "-o", "ConnectTimeout=3", "box", *words]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def seconds(call: Callable[..., object], *arguments: object) -> float:
    """How long a call takes."""
    begin = time.monotonic()
    call(*arguments)
    return time.monotonic() - begin
