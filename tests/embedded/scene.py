"""What the tests of the embedded site share: jobs that keep a ledger, gates, and who is alive."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hpcml
from hpcml.agent import wire
from tests.conftest import eventually, processes_below

# Hooks of a client that is to kill itself.
DYING = """
import os, signal

def die(*args, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)

def then_die(function):
    def wrapped(*args, **keywords):
        function(*args, **keywords)
        die()
    return wrapped
"""

RECORD = 'echo "$NAME" >> "$LEDGER"'
WAIT_FOR_GATE = 'while [ ! -e "$GATE" ]; do sleep 0.02; done'


class Scene:
    """A folder outside every work folder, in which jobs write down that they ran."""

    def __init__(self, folder: Path, workspace: Path) -> None:
        self.folder, self.workspace = folder, workspace
        self.ledger = folder / "ledger"

    def lines(self) -> list[str]:
        """What jobs have written so far."""
        return self.ledger.read_text().split() if self.ledger.exists() else []

    def job(self, *commands: str, name: str = "ran", **options: Any) -> hpcml.Job:
        """A job of shell commands; without any, it writes its name into the ledger."""
        resources = hpcml.Resources(**options)
        env = {
            "NAME": name,
            "LEDGER": str(self.ledger),
            "SCENE": str(self.folder),
            "GATE": str(self.gate(name)),
        }
        argv = ["/bin/sh", "-c", "\n".join(commands or [RECORD])]
        return hpcml.Job(argv, name=name, env=env, code=None, resources=resources)

    def gated(self, name: str = "ran", **options: Any) -> hpcml.Job:
        """A job that writes its name into the ledger, and ends when its gate opens."""
        return self.job(RECORD, WAIT_FOR_GATE, name=name, **options)

    def gate(self, name: str = "ran") -> Path:
        """The file that a gated job waits for."""
        return self.folder / f"gate-{name}"

    def open(self, name: str = "ran") -> None:
        """Let a gated job end."""
        self.gate(name).touch()

    def batch(self, run: hpcml.Run) -> Path:
        """Folder of a run's batch."""
        return self.workspace / "runs" / run.id.rpartition(".")[0]

    def intent(self, run: hpcml.Run) -> Path:
        """What says that the queue is being asked to take a run."""
        return self.batch(run) / "attempts" / "0.intent"

    def asked_long_ago(self, run: hpcml.Run) -> None:
        """Have an intent be so old that the queue cannot be about to hear of it."""
        old = time.time() - 121
        os.utime(self.intent(run), (old, old))

    def attempt(self, run: hpcml.Run, kind: str) -> Path:
        """``.start`` or ``.end`` of a run's first attempt."""
        return self.batch(run) / "attempts" / f"{run.index}.1.{kind}"

    def started(self, run: hpcml.Run) -> bool:
        """Whether its agent has taken it; asks nobody."""
        return self.attempt(run, "start").exists()

    def ended(self, run: hpcml.Run) -> bool:
        """Whether its agent has said how it ended; asks nobody."""
        return self.attempt(run, "end").exists()

    def agent(self, run: hpcml.Run) -> int:
        """Process id of its agent, once there is one."""
        eventually(lambda: self.started(run))
        pid = wire.read_json(str(self.attempt(run, "start")))["owner"]["pid"]
        assert isinstance(pid, int)
        return pid

    def queue(self) -> list[str]:
        """Jobs in the queue."""
        return wire.QueueFolder(str(self.workspace)).jobs()

    def dispatchers(self) -> list[int]:
        """Process ids of the workspace's dispatchers."""
        mark = b"\0dispatch\0" + os.fsencode(self.workspace) + b"\0"
        return [pid for pid in processes_below(self.workspace) if mark in command_line(pid)]

    def dispatcher(self) -> int:
        """Process id of the one dispatcher there is."""
        eventually(lambda: len(self.dispatchers()) == 1)
        return self.dispatchers()[0]

    def agents(self) -> list[int]:
        """Process ids of everything that works for a run: job.sh, agents, commands."""
        return sorted(set(processes_below(self.workspace)) - set(self.dispatchers()))

    def agent_argv(self, *rest: str) -> list[str]:
        """How job.sh calls the travelling hpcml."""
        (library,) = (self.workspace / "lib").glob("hpcml-*.pyz")
        return [sys.executable, "-I", "-S", str(library), *rest]


def command_line(pid: int) -> bytes:
    """A process's arguments, each followed by NUL; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    eventually(lambda: not any(wire.started_at(pid) for pid in pids))


def write_profile(home: Path, name: str, text: str) -> str:
    """A site profile of one's own."""
    folder = home / "config" / "hpcml" / "sites"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text("extends: local\n" + textwrap.dedent(text))
    return name


def small_machine(home: Path, cpus: int, name: str = "small") -> str:
    """The embedded site with a given number of CPUs."""
    node = f"partitions: {{local: {{node: {{cpus: {cpus}}}}}}}\n"
    return write_profile(home, name, node)


def lines_without(lines: Sequence[str], *names: str) -> list[str]:
    """Ledger lines of other jobs."""
    return [line for line in lines if line not in names]
