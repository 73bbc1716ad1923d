"""What runs on the site runs under every Python from 3.6 on that can be found here."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcml.job import Job
from hpcml.timeline import tell
from tests.agent.direct import Agent, publish, run
from tests.agent.pythons import pythons

PYTHONS = pythons()
every_python = pytest.mark.parametrize("version", PYTHONS)

TRAIN = """
import json, os, sys, threading
import hpcml

p = hpcml.params(width=8, name="x")
hpcml.describe(model="toy", precision="fp32", global_batch=p.width)
with hpcml.phase("train"):
    for step in range(3):
        with hpcml.phase("epoch"):
            hpcml.log(step=step, samples=p.width, loss=1.0 / (step + 1))
with open(hpcml.output_path("out/model.pt"), "w") as file:
    file.write("weights")
print(sys.version_info[1], p.width, p["name"], hpcml.input_path("data"))
"""

FORKING = """
import os, threading
import hpcml

def work(name):
    for step in range(200):
        hpcml.log(step=step, **{name: 0.5})

hpcml.log(step=0, parent=1.0)
threads = [threading.Thread(target=work, args=("t%d" % n,)) for n in range(3)]
for thread in threads:
    thread.start()
children = []
for n in range(10):  # while the threads log
    pid = os.fork()
    if pid == 0:
        work("c%d" % n)
        os._exit(0)
    children.append(pid)
statuses = [os.waitpid(pid, 0)[1] for pid in children]
for thread in threads:
    thread.join()
hpcml.log(step=1, parent=2.0)
print(statuses)
"""


def test_the_pythons_are_told(record_property: Callable[[str, object], None]) -> None:
    """Which they are stands in the other tests' names, too."""
    record_property("pythons", PYTHONS)
    print("pythons:", PYTHONS)
    assert f"3.{sys.version_info.minor}" in PYTHONS


@every_python
def test_a_run_under(version: str, script: Callable[..., str], tmp_path: Path) -> None:
    """Agent and job alike."""
    python = PYTHONS[version]
    (tmp_path / "data").write_text("x")
    job = Job(
        script(TRAIN),
        params={"width": 64},
        inputs={"data": str(tmp_path / "data")},
        outputs=["out/model.pt"],
    )

    ended = Agent(publish(job, python=python), python=python).wait()

    assert ended.said == "" and ended.stderr == ""
    assert ended.stdout == f"{version[2:]} 64 x {tmp_path / 'data'}\n"
    assert ended.state == "COMPLETED", ended.end["reason"]
    assert ended.end["outputs"]["out/model.pt"]["bytes"] == len("weights")
    assert ended.end["usage"]["max_rss"] > 1 << 20
    assert ended.event("python")["version"].startswith(f"{version}.")
    story = tell(ended.events, None)
    assert [point.value for point in story.history["loss"]] == [1.0, 1 / 2, 1 / 3]
    assert story.described == {"model": "toy", "precision": "fp32", "global_batch": 64}
    assert story.timeline.samples == {"train": 192, "epoch": 192}
    assert [span.complete for span in story.timeline.spans] == [True] * 4


@every_python
def test_forks_and_threads_under(version: str, script: Callable[..., str]) -> None:
    """Also before 3.7, whose forks nobody is told of."""
    python = PYTHONS[version]

    ended = run(Job(script(FORKING)), python=python)

    assert ended.stdout == f"{[0] * 10}\n", ended.stderr
    assert "hpcml" not in ended.stderr.replace(str(ended.batch), "")  # it may warn of the forks
    history = tell(ended.events, None).history
    assert [point.value for point in history["parent"]] == [1.0, 2.0]
    for name in [f"t{n}" for n in range(3)] + [f"c{n}" for n in range(10)]:
        assert sorted(point.step or 0 for point in history[name]) == list(range(200)), name
    assert b"\0" not in (ended.folder / "events.jsonl").read_bytes()


@every_python
def test_walltime_and_leftovers_under(version: str) -> None:
    python = PYTHONS[version]
    job = Job(["/bin/sh", "-c", "setsid sleep 60 & trap '' TERM; sleep 60; sleep 60"], code=None)

    ended = Agent(
        publish(job, time=0.4, notice=0.2, kill_wait=0.2, memory=500 << 20), python=python
    ).wait()

    assert ended.state == "TIMEOUT" and ended.said == ""


def test_bytecode_travels_for_this_python_and_source_for_all(script: Callable[..., str]) -> None:
    batch = publish(Job(script("print(1)")))
    (library,) = (batch.parents[1] / "lib").iterdir()

    names = zipfile.ZipFile(library).namelist()

    agent = [name for name in names if name.startswith("hpcml/agent/") and name.endswith(".py")]
    assert agent and all(f"{name}c" in names for name in [*agent, "hpcml/injob.py"])


@every_python
def test_only_the_first_agent_of_a_python_compiles(version: str) -> None:
    """What it has compiled is found by the others, and by nobody before 3.7."""
    job = Job(["true"], code=None)
    folder = publish(job, runs=2, python=PYTHONS[version])
    libraries = folder.parents[1] / "lib"
    assert Agent(folder, python=PYTHONS[version]).wait().code == 0

    ours = version == f"3.{sys.version_info.minor}"
    left = {path.name.split(".")[1] for path in libraries.glob("hpcml-*.zip")}
    wanted = f"cpython-{version.replace('.', '')}"
    assert left == (set() if ours or version == "3.6" else {wanted})

    for path in libraries.glob("hpcml-*.pyz"):  # without its modules, it is still an agent
        if left:
            empty_but_for_main(path)
    assert Agent(folder, 1, python=PYTHONS[version]).wait().code == 0


def empty_but_for_main(archive: Path) -> None:
    """What is left of a travelling file if all of its modules are taken from elsewhere."""
    with zipfile.ZipFile(archive) as whole:
        main = whole.read("__main__.py")
    with zipfile.ZipFile(archive, "w") as rest:
        rest.writestr("__main__.py", main)
