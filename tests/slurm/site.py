"""hpcml on the login node of a supercomputer in a box, as a user of it."""

from __future__ import annotations

import json
import textwrap
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

from hpcml.agent import wire
from hpcml.states import State
from tests.conftest import eventually
from tests.ready import Ready
from tests.testbed.box import Box, python
from tests.testbed.machine import CommandFailed
from tests.testbed.using import PATIENCE

PROFILE = """\
name: box
scheduler: slurm
transport: local
workspace: {home}/ws
agent_python: /usr/bin/python3
kill_wait: 2s
{facts}
partitions:
  cpu:
    nodes: 2
    time: 1d
    {partition}
    node: &node {{device: cpu, cpus: 8, memory: 16000 MiB}}
  whole: {{nodes: 2, node_sharing: exclusive, time: 1h, node: *node}}
  low: {{nodes: 2, time: 1h, node: *node}}
  short: {{nodes: 2, time: 5m, node: *node}}
  gpu:
    nodes: 2
    time: 1h
    gres: gpu:a100
    node: {{device: gpu, devices: 4, cpus: 8, memory: 16000 MiB}}
"""

PREAMBLE = """\
import json, os, sys, time
import hpcml
from hpcml.agent import wire
from hpcml.states import State
import logging; logging.captureWarnings(False)
from hpcml.schedulers.slurm import SlurmScheduler
SlurmScheduler.patience = 5.0  # these hosts see at once what another one has written
S = json.loads({said!r})
def job(command, name="job", env=(), checkpoint=None, outputs=(), **resources):
    return hpcml.Job(["/bin/sh", "-c", command], name=name, code=None, checkpoint=checkpoint,
        env={{"S": os.environ["HOME"], **dict(env)}}, outputs=outputs,
        resources=hpcml.Resources(**{{"time": "5m", **resources}}))
def tell(value): print("TOLD", json.dumps(value, default=str))
"""


def on_both_at_once(test: Callable[[Login], None]) -> Callable[[Login, Login], None]:
    """What a test mostly waits for it waits for with accounting and without at the same time."""

    def both(login: Login, login_without_accounting: Login) -> None:
        with ThreadPoolExecutor() as pool:
            found = [pool.submit(test, site) for site in (login, login_without_accounting)]
        for kind, one in zip(("with", "without"), found, strict=True):
            error = one.exception()
            if error is not None:
                error.add_note(f"This was {kind} accounting.")
                raise error

    both.__doc__ = test.__doc__
    return both


@cache
def ready(*python: str) -> Ready:
    """A Python on a host, which becomes what is to be done there."""
    return Ready(python)


class Login:
    """A user's home of its own on the login node, with a profile of the site and settings.

    Attributes
    ----------
    home : str
        Below ``/scratch``: all hosts see it.
    """

    def __init__(
        self, box: Box, *, facts: str = "", partition: str = "", account: str = ""
    ) -> None:
        self.box = box
        self.home = f"/scratch/{uuid.uuid4().hex[:8]}"
        profile = PROFILE.format(home=self.home, facts=facts, partition=partition)
        self.write(".config/hpcml/sites/box.yaml", profile)
        yours = "python: /usr/bin/python3" + (f", account: {account}" if account else "")
        self.write(".config/hpcml/config.yaml", f"sites: {{box: {{{yours}}}}}\n")

    def write(self, path: str, text: str) -> None:
        put = 'umask 077; mkdir -p "$(dirname "$1")" && cat > "$1"'
        self.box.run("login", ["sh", "-c", put, "sh", f"{self.home}/{path}"], stdin=text)

    def argv(self, code: str, environment: dict[str, str], values: dict[str, Any]) -> list[str]:
        """A command that runs code with hpcml at hand."""
        named = [f"HOME={self.home}", *(f"{name}={it}" for name, it in environment.items())]
        text = self._program(code, values)
        return ["env", f"--chdir={self.home}", *named, *python(), "-c", text]

    def _program(self, code: str, values: dict[str, Any]) -> str:
        return PREAMBLE.format(said=json.dumps(values)) + textwrap.dedent(code)

    def do(
        self,
        code: str,
        environment: dict[str, str] | None = None,
        patience: float = 120,
        **values: Any,
    ) -> Any:
        """Run code that may use ``S``, the values, and ``job``; gives what it tells."""
        host = ready(*self.box.hosts.entering("login", "alice"), *python())
        variables = {**host.environment, "HOME": self.home, **(environment or {})}
        done = host.run([self._program(code, values)], variables, self.home, patience)
        told = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
        if done.returncode or not told:
            raise CommandFailed([code], done)
        return json.loads(told[-1].removeprefix("TOLD "))

    # -- runs

    def submit(self, job: str, **submitting: Any) -> Any:
        """Submit ``job(...)``, given as code. Gives the id, or of several the ids."""
        code = f"""
            made = hpcml.submit({job}, "box", **S)
            tell(made.id if isinstance(made, hpcml.Run) else [run.id for run in made])
        """
        return self.do(code, **submitting)

    def seen(self, *runs: str) -> list[tuple[str, str]]:
        """State and reason of runs, of one look."""
        code = """
            runs = hpcml.Runs([hpcml.attach(one, "box") for one in S["runs"]])
            tell([(seen.state, seen.reason) for _, seen in runs.seen()])
        """
        return [(state, reason) for state, reason in self.do(code, runs=runs)]

    def state(self, run: str) -> tuple[str, str]:
        return self.seen(run)[0]

    def wait(self, *runs: str, timeout: float = 60) -> list[tuple[str, str]]:
        """Wait until runs have ended: their states and reasons."""
        code = """
            runs = hpcml.Runs([hpcml.attach(one, "box") for one in S["runs"]])
            for run in runs: run.wait(S["timeout"])
            tell([(run.last_seen.state, run.last_seen.reason) for run in runs])
        """
        found = self.do(code, runs=runs, timeout=timeout)
        return [(state, reason) for state, reason in found]

    def becomes(self, run: str, state: str) -> str:
        """Wait until a run is in a state; gives the reason."""
        seen: list[tuple[str, str]] = []

        def looked() -> bool:
            seen[:] = [self.state(run)]
            return seen[0][0] == state or State(seen[0][0]).final

        with suppress(AssertionError):
            eventually(looked, PATIENCE)
        assert seen[0][0] == state, seen
        return seen[0][1]

    def give_way(self, run: str) -> None:
        """Have a run that goes on give way to another job, and start again at once."""
        start = json.loads(self.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))
        other = self.box.preempt(start["owner"]["host"])
        try:
            eventually(lambda: self.state(run)[0] == "PENDING", PATIENCE)
        finally:
            self.box.cancel(other)
        again = f"JobId={self.queue_id(run)}_0", "StartTime=now"
        self.box.hosts.run("control", "scontrol", "update", *again)

    def cancel(self, *runs: str) -> None:
        code = 'hpcml.Runs([hpcml.attach(it, "box") for it in S["runs"]]).cancel(); tell(0)'
        self.do(code, runs=runs)

    # -- what is on disk

    def read(self, path: str) -> str:
        """A file of the home; empty if there is none."""
        return self.box.run("login", ["cat", f"{self.home}/{path}"], check=False).stdout

    def ledger(self) -> list[str]:
        """What jobs have written into ``$S/ledger``."""
        return self.read("ledger").split()

    def open_gate(self, name: str = "gate") -> None:
        self.write(name, "")

    def queue_id(self, run: str) -> str:
        """The id of the array that a run of the first chunk is in."""
        return wire.queued_as(self.queue_files(run))["0"][0]

    def queue_files(self, run: str) -> list[str]:
        """What is in the ``attempts/`` of a run's batch besides the attempts themselves."""
        folder = f"{self.home}/ws/runs/{run.rpartition('.')[0]}/attempts"
        names = self.box.run("login", ["ls", folder]).stdout.split()
        return sorted(name for name in names if not name.endswith((".start", ".end")))
