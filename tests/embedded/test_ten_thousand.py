"""Thousands of points of which 1 % fail, while client, dispatcher and agents are killed.

The suite takes fewer than ten thousand, for time; ``POINTS=10000 pytest <this file>`` takes all.
"""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import hpcml
from hpcml.agent import wire
from hpcml.batch import outbox_ids
from tests.conftest import eventually
from tests.embedded.scene import Scene, command_line, kill, small_machine

POINTS = int(os.environ.get("POINTS", "3000"))
KILLED_DISPATCHERS, KILLED_AGENTS = 6, 2

MODULE = """
import os

def work(i, ledger):
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, b"%d\\n" % i)
    os.close(descriptor)
    if i % 100 == 7:
        raise ValueError("point %d" % i)
"""

SUBMIT = """
import hpcml, points, sys

job = hpcml.Job(points.work, params={{"ledger": {ledger!r}}}, resources=hpcml.Resources(cpus=1))
hpcml.submit(job.sweep(i=range({count})), site="small").wait()
"""

LOOK = """
import hpcml, json, sys

print(json.dumps([[run.index, str(run.state), run.reason] for run in hpcml.runs(site="small")]))
"""


def start_client(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """Another Python in the project's folder."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=folder)


def slot_agents(scene: Scene) -> list[int]:
    """Process ids of the agents of slots."""
    return [pid for pid in scene.agents() if b"\0run\0" in command_line(pid)]


def resumed(scene: Scene) -> None:
    """Go on with the submission that was broken off, however far it had come."""
    (identifier,) = outbox_ids()
    run = hpcml.runs(batch=identifier)[0]
    if scene.intent(run).exists():
        scene.asked_long_ago(run)
    run.resume()


def test_every_point_ends_once_whatever_is_killed(
    script: Callable[..., str], home: Path, scene: Scene, project: Path
) -> None:
    """A point runs once; it may run and be FAILED if its agent was killed, and then it says so."""
    chance = random.Random(20261121)
    script(MODULE, "points.py")
    small_machine(home, cpus=2)
    code = SUBMIT.format(ledger=str(scene.ledger), count=POINTS)

    client = start_client(code, project)
    eventually(lambda: outbox_ids())
    client.kill()
    client.wait()
    if outbox_ids():
        resumed(scene)
    waiting = start_client('import hpcml; hpcml.runs(site="small").wait()', project)
    (batch,) = (scene.workspace / "runs").iterdir()
    attempts = wire.Attempts(str(batch))

    def ended() -> int:
        return sum(name.endswith(".end") for name in os.listdir(attempts.folder))

    hits = ["dispatcher"] * KILLED_DISPATCHERS + ["agent"] * KILLED_AGENTS + ["client"]
    chance.shuffle(hits)
    moments = sorted(chance.randrange(POINTS // 50, POINTS * 9 // 10) for _ in hits)
    for moment, hit in zip(moments, hits, strict=True):
        eventually(lambda moment=moment: ended() >= moment, timeout=300)  # type: ignore[misc]
        if hit == "client":
            waiting.kill()
            waiting.wait()
            waiting = start_client('import hpcml; hpcml.runs(site="small").wait()', project)
        elif hit == "dispatcher":
            kill(*scene.dispatchers())
        else:
            eventually(lambda: slot_agents(scene))
            kill(chance.choice(slot_agents(scene)))

    assert waiting.wait(600) == 0
    eventually(lambda: not scene.dispatchers() and not scene.agents(), timeout=30)

    lines = collections.Counter(map(int, scene.lines()))
    wrong = set(range(7, POINTS, 100))
    runs = hpcml.runs(site="small")
    states = {run.index: str(run.state) for run in runs}
    shot = {run.index for run in runs if "its agent" in run.reason}
    raised = {run.index for run in runs if run.reason.startswith("ValueError")}
    assert len(states) == POINTS
    assert max(lines.values()) == 1, "no point ran twice"
    assert set(range(POINTS)) - set(lines) <= shot, "all others ran"
    assert len(shot) <= KILLED_AGENTS
    assert {i for i in states if states[i] != "COMPLETED"} == raised | shot
    assert raised <= wrong <= raised | shot
    seen = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, check=True)
    assert json.loads(seen.stdout) == [[run.index, str(run.state), run.reason] for run in runs]
    assert not [name for name in os.listdir(scene.workspace / "queue") if ".job" in name]
