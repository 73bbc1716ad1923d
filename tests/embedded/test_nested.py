"""A job submits jobs: they join the queue that it is in, and everybody sees them."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.batch import load_outbox, outbox_ids
from hpcml.connection import connect
from hpcml.sites import load_site
from tests.conftest import eventually
from tests.embedded.scene import RECORD, Scene, kill, small_machine, write_profile

Write = Callable[..., str]

PARENT = """
import hpcml

run = hpcml.submit("child.py", site="small").wait(60)
print(run.id, run.state, run.output("answer").read_text())
"""
CHILD = """
import hpcml

with open(hpcml.output_path("answer"), "w") as file:
    file.write("42")
"""

WAIT = """
import os, time

while not os.path.exists(os.environ["GATE"]):
    time.sleep(0.02)
"""


def batch_data(scene: Scene, run: hpcml.Run) -> dict[str, object]:
    """What ``plan.json`` says of the submission."""
    data = json.loads((scene.batch(run) / "plan.json").read_text())["batch"]
    assert isinstance(data, dict)
    return data


@pytest.fixture
def small(home: Path) -> str:
    """A machine with room for a job and one that it submits."""
    return small_machine(home, cpus=2)


def test_a_job_submits_another_and_uses_what_that_left(
    script: Write, small: str, scene: Scene
) -> None:
    """Both are in the same queue and workspace, and the inner one names the outer one."""
    script(CHILD, "child.py")
    entry = script(PARENT.replace('"child.py"', 'hpcml.Job("child.py", outputs=["answer"])'))

    outer = hpcml.submit(entry, site=small).wait(60)

    assert outer.state == "COMPLETED", outer.logs()
    identifier, state, answer = outer.logs(stream="stdout").split()
    assert (state, answer) == ("COMPLETED", "42")
    found = {run.id: run for run in hpcml.runs(site=small)}
    assert list(found) == [outer.id, identifier]
    inner = found[identifier]
    assert inner.state == "COMPLETED" and inner.site == small
    assert batch_data(scene, inner)["parent"] == outer.id
    assert batch_data(scene, outer)["parent"] is None
    assert outbox_ids() == []


def test_inner_jobs_are_run_as_the_outer_one_was(script: Write, small: str, home: Path) -> None:
    """The same workspace, Python, agent and travelling hpcml, and the user's own folders."""
    script("print('ran')", "child.py")
    outer = hpcml.submit(script(PARENT.replace(', run.output("answer").read_text()', "")), small)
    assert outer.wait(60).state == "COMPLETED", outer.logs()
    inner = hpcml.attach(outer.logs(stream="stdout").split()[0])

    for place in ("workspace", "python", "agent_python", "library"):
        assert inner.plan.where[place] == outer.plan.where[place], place
    assert inner.plan.where["environment"] == outer.plan.where["environment"]
    assert inner.plan.where["environment"]["XDG_STATE_HOME"] == str(home / "state")


@pytest.mark.parametrize("cpus", [1, 3])
def test_three_levels_wait_for_each_other(
    script: Write, home: Path, scene: Scene, cpus: int
) -> None:
    """Whoever waits for a job that it submitted lends it its cores."""
    site = small_machine(home, cpus=cpus)
    entry = script(
        """
        import hpcml

        depth = hpcml.params(depth=3).depth
        if depth > 1:
            run = hpcml.submit("train.py", site="small", params={"depth": depth - 1}).wait(60)
            print(run.state, run.id, run.logs(stream="stdout"))
        else:
            print("bottom")
        """
    )

    top = hpcml.submit(entry, site=site).wait(60)

    words = top.logs(stream="stdout").split()
    assert words[::2] == ["COMPLETED", "COMPLETED", "bottom"], top.logs()
    middle, bottom = hpcml.attach(words[1]), hpcml.attach(words[3])
    assert batch_data(scene, bottom)["parent"] == middle.id
    assert batch_data(scene, middle)["parent"] == top.id


def test_the_queue_knows_who_submitted_a_job(script: Write, small: str, scene: Scene) -> None:
    """So that it can tell a job that waits for its children from one that works."""
    script(WAIT, "child.py")
    gate = str(scene.gate())
    child = f"hpcml.Job('child.py', env={{'GATE': {gate!r}}})"
    entry = script(f"import hpcml; hpcml.submit({child}, site='small').wait()")
    run = hpcml.submit(entry, site=small)
    eventually(lambda: len(scene.queue()) == 2)

    entries = [wire.QueueFolder(str(scene.workspace)).entry(job) for job in scene.queue()]

    assert [entry["parent"] for entry in entries] == [None, run.id]
    scene.open()
    assert run.wait(30).state == "COMPLETED"


def test_a_job_waits_for_a_dispatcher_and_starts_none(
    script: Write, small: str, scene: Scene
) -> None:
    """One that it started would be ended as its leftover, and with it the queue."""
    script("pass", "child.py")
    entry = script(
        """
        import os, sys, time
        import hpcml

        def tell(event, details):
            if event == "subprocess.Popen" and "dispatch" in details[1]:
                print("the job started a dispatcher", flush=True)

        sys.addaudithook(tell)
        print("begun", flush=True)
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.02)
        run = hpcml.submit("child.py", site="small")
        run.wait(0.5)
        print("submitted", flush=True)
        """
    )
    outer = hpcml.submit(hpcml.Job(entry, env={"GATE": str(scene.gate())}), site=small)
    stdout = scene.batch(outer) / "0" / "stdout"
    eventually(lambda: stdout.exists() and stdout.read_text())
    kill(scene.dispatcher())

    scene.open()
    eventually(lambda: scene.ended(outer))

    assert stdout.read_text() == "begun\nsubmitted\n"
    inner = hpcml.runs(site=small)[-1]
    assert inner.wait(30).state == "COMPLETED"


def test_an_inner_submission_that_is_broken_off_keeps_its_parent(
    script: Write, small: str, scene: Scene
) -> None:
    """Whoever resumes it, from outside too."""
    script("pass", "child.py")
    entry = script(
        """
        import os, signal
        import hpcml, hpcml.submission

        hpcml.submission._appears_at_once = lambda *_: False  # it would be nowhere
        hpcml.submission.publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        hpcml.submit("child.py", site="small")
        """
    )
    outer = hpcml.submit(entry, site=small).wait(60)
    (left,) = outbox_ids()
    batch = load_outbox(left)
    assert batch is not None and batch.submission.parent == outer.id

    inner = hpcml.attach(left).resume().wait(30)

    assert inner.state == "COMPLETED"
    assert batch_data(scene, inner)["parent"] == outer.id


def test_a_job_sees_runs_and_plans_offline(script: Write, small: str) -> None:
    script("pass", "child.py")
    entry = script(
        """
        import hpcml

        print(*[run.state for run in hpcml.runs()], hpcml.plan("child.py", "small").name)
        """
    )
    assert hpcml.submit(entry, site=small).wait(30).logs() == "RUNNING child\n"


# --- families in a small machine ----------------------------------------------------------

MEETING = """
import os, sys, time
import hpcml

scene, name, *needs = sys.argv[1:]
open(f"{scene}/{name}", "w").close()
while len([each for each in os.listdir(scene) if each.startswith("parent")]) < 2:
    time.sleep(0.02)
keys = ("cpus", "memory")
resources = hpcml.Resources(**dict(zip(keys, (int(needs[0]), *needs[1:]))))
run = hpcml.submit(hpcml.Job("child.py", resources=resources), site="small").wait(100)
print(run.state, run.reason)
"""


def meeting(scene: Scene, name: str, *needs: str, memory: str | None = None) -> hpcml.Job:
    """A parent that waits for the other one to be there before it submits a child."""
    argv = [str(scene.folder), f"parent-{name}", *needs]
    return hpcml.Job("train.py", args=argv, resources=hpcml.Resources(cpus=1, memory=memory))


def test_two_parents_whose_children_want_the_whole_machine_end(
    script: Write, small: str, scene: Scene
) -> None:
    script("pass", "child.py")
    script(MEETING)

    runs = hpcml.submit([meeting(scene, "a", "2"), meeting(scene, "b", "2")], small).wait(120)

    assert [run.logs(stream="stdout") for run in runs] == ["COMPLETED \n"] * 2, runs[0].logs()


def shares(home: Path) -> Callable[[int], str]:
    """Parts of the machine's memory in percent."""
    node = load_site(small_machine(home, cpus=2)).partitions["local"].node
    return lambda percent: f"{node.memory_bytes * percent // 100 >> 10} KiB"


def test_a_child_for_which_its_waiting_parent_leaves_no_memory_is_refused(
    script: Write, home: Path, scene: Scene
) -> None:
    """What the parent asked for is its own; the child would wait for ever."""
    share = shares(home)
    script("pass", "child.py")
    script(MEETING)
    (scene.folder / "parent-other").touch()

    run = hpcml.submit(meeting(scene, "a", "1", share(50), memory=share(60)), "small").wait(60)

    said = run.logs(stream="stdout")
    assert said.startswith("FAILED it asks for more than this machine has left beside the runs")
    assert "2 CPUs" in said


def test_a_child_waits_for_memory_that_another_family_will_give_back(
    script: Write, home: Path, scene: Scene
) -> None:
    """It is refused only when nothing else can end."""
    share = shares(home)
    script("pass", "child.py")
    script(MEETING)

    runs = hpcml.submit(
        [
            meeting(scene, "a", "1", share(50), memory=share(45)),
            meeting(scene, "b", "1", share(5), memory=share(45)),
        ],
        "small",
    ).wait(120)

    assert [run.logs(stream="stdout") for run in runs] == ["COMPLETED \n"] * 2, runs[0].logs()


FAMILY = """
import hpcml, os

def parent(i, ledger):
    job = hpcml.Job(["/bin/sh", "-c", f"echo child-{i} >> {ledger}"], code=None)
    run = hpcml.submit(job, site="small").wait(100)
    with open(ledger, "a") as file:
        file.write(f"parent-{i}\\n")
    return str(run.state)
"""


def test_twenty_parents_on_two_cpus_each_wait_for_a_child(
    project: Path, small: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that wants the whole machine, and came before the children, waits for them all."""
    (project / "family.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(project)
    family = importlib.import_module("family")
    resources = hpcml.Resources(cpus=1)
    job = hpcml.Job(family.parent, params={"ledger": str(scene.ledger)}, resources=resources)

    parents = hpcml.submit(job.sweep(i=range(20)), small)
    whole = hpcml.submit(scene.job(name="whole", cpus=2), small)
    parents.wait(150)

    assert [run.result() for run in parents] == ["COMPLETED"] * 20
    assert whole.wait(30).state == "COMPLETED"
    lines = scene.lines()
    assert lines[-1] == "whole" and len(set(lines)) == len(lines) == 41
    children = [run for run in hpcml.runs(site=small) if run not in {*parents, whole}]
    assert sorted(str(batch_data(scene, run)["parent"]) for run in children) == sorted(
        run.id for run in parents
    )
    eventually(lambda: not scene.dispatchers() and not scene.agents() and not scene.queue())


def test_a_sweep_of_others_makes_room_for_a_child_that_needs_more(
    script: Write, small: str, scene: Scene
) -> None:
    """Its parent waits; the sweep goes on when both have ended."""
    script("import os; open(os.environ['LEDGER'], 'a').write('child\\n')", "child.py")
    entry = script(
        f"""
        import hpcml

        env = {{"LEDGER": {str(scene.ledger)!r}}}
        job = hpcml.Job("child.py", env=env, resources=hpcml.Resources(cpus=2))
        print(hpcml.submit(job, site="small").wait(100).state)
        """
    )
    parent = hpcml.submit(hpcml.Job(entry, resources=hpcml.Resources(cpus=1)), small)
    points = scene.job(RECORD, "sleep 0.02", name="point", cpus=1).sweep(i=range(300))
    others = hpcml.submit(points, small)

    assert parent.wait(100).logs(stream="stdout") == "COMPLETED\n"
    assert "child" in scene.lines()[:250]
    assert {str(run.state) for run in others.wait(100)} == {"COMPLETED"}


def test_a_family_ends_though_its_dispatcher_is_killed_and_nobody_looks(
    script: Write, home: Path, scene: Scene
) -> None:
    """The parent's agent sees to it that there is a dispatcher."""
    site = small_machine(home, cpus=1)
    script("pass", "child.py")
    entry = script(
        """
        import os, time
        import hpcml

        run = hpcml.submit("child.py", site="small")
        print("submitted", flush=True)
        while run.state != "COMPLETED":
            time.sleep(0.05)
        """
    )
    parent = hpcml.submit(entry, site=site)
    stdout = scene.batch(parent) / "0" / "stdout"
    killed = set()

    def kill_what_serves() -> bool:
        found = scene.dispatchers()
        kill(*found)
        killed.update(found)
        return stdout.exists() and bool(stdout.read_text())

    eventually(kill_what_serves)
    eventually(lambda: scene.ended(parent), timeout=30)  # asks nobody

    assert killed and parent.state == "COMPLETED"
    eventually(lambda: not scene.dispatchers() and not scene.queue())


def test_a_child_goes_on_when_its_parent_is_cancelled(
    script: Write, small: str, scene: Scene
) -> None:
    """It is a job of its own: whoever wants it to end cancels it, too."""
    script(WAIT, "child.py")
    child = f"hpcml.Job('child.py', env={{'GATE': {str(scene.gate())!r}}})"
    entry = script(f"import hpcml; hpcml.submit({child}, site='small').wait()")
    parent = hpcml.submit(entry, site=small)
    eventually(lambda: len(hpcml.runs(site=small)) == 2)
    inner = hpcml.runs(site=small)[-1]
    eventually(lambda: inner.state == "RUNNING")

    assert parent.cancel().wait(30).state == "CANCELLED"

    assert inner.state == "RUNNING"
    scene.open()
    assert inner.wait(30).state == "COMPLETED"
    eventually(lambda: not scene.dispatchers() and not scene.agents() and not scene.queue())


# --- what is refused ----------------------------------------------------------------------


def test_a_job_cannot_submit_to_another_queue(script: Write, home: Path) -> None:
    """Nobody may be there to serve it, and the job must not start what does."""
    write_profile(home, "elsewhere", f'workspace: "{home}/elsewhere"')
    run = hpcml.submit(script("import hpcml; hpcml.submit('x.py', 'elsewhere')")).wait(30)
    assert run.state == "FAILED"
    said = run.logs(stream="stderr")
    assert f"{home}/elsewhere of elsewhere is not the one that this job is in" in said
    assert 'site="local"' in said


def test_a_job_cannot_submit_to_a_batch_system(script: Write, home: Path) -> None:
    write_profile(home, "cluster", "scheduler: slurm")
    run = hpcml.submit(script("import hpcml; hpcml.submit('x.py', 'cluster')")).wait(30)
    assert run.state == "FAILED"
    assert "a job cannot submit to cluster" in run.logs(stream="stderr")


def test_a_job_without_its_environment_is_told_what_is_missing(script: Write) -> None:
    entry = script("import os; del os.environ['HPCML_BATCH']; import hpcml; hpcml.runs()")
    assert "HPCML_BATCH does not say" in hpcml.submit(entry).wait(30).logs(stream="stderr")


@pytest.mark.parametrize("call", ["submit('x.py')", "plan('x.py')"])
def test_a_python_without_pydantic_is_told_what_to_do(script: Write, home: Path, call: str) -> None:
    """Marks need nothing; submitting needs what a client needs."""
    folder = home / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"sites: {{local: {{python: {folder}/bin/python}}}}")
    entry = script(f"import hpcml; hpcml.log(loss=0.5); print(1, flush=True); hpcml.{call}")

    run = hpcml.submit(entry).wait(30)

    said = run.logs(stream="stderr")
    assert run.state == "FAILED" and run.logs(stream="stdout") == "1\n"
    missing = rf"HpcmlError: hpcml needs the package '(pydantic|yaml)', which {folder}/bin/"
    assert re.search(missing, said)
    assert "Install hpcml into a Python, and name that in the settings" in said


# --- what goes on to inner jobs -----------------------------------------------------------


def test_nothing_of_the_outer_run_goes_on_to_the_inner_ones(script: Write, small: str) -> None:
    """Their environment is made from a list of names; PYTHONPATH is the agent's to set."""
    script("import json, os; print(json.dumps(dict(os.environ)))", "child.py")
    entry = script(
        """
        import os
        import hpcml

        os.environ["SUBMITIT_EXECUTOR"] = os.environ["HPCML_INPUT_DATA"] = "outer"
        run = hpcml.submit("child.py", "small").wait(60)
        print(run.id, run.logs(stream="stdout"))
        """
    )
    outer = hpcml.submit(hpcml.Job(entry, env={"PYTHONPATH": "/x", "MINE": "y"}), site=small)
    identifier, _, printed = outer.wait(60).logs(stream="stdout").partition(" ")
    inner, environment = hpcml.attach(identifier), json.loads(printed)

    workspace = connect(small).binding.workspace
    batch = f"{workspace}/runs/{identifier.rpartition('.')[0]}"
    own = {"HPCML_BATCH": batch, "HPCML_INDEX": "0", "HPCML_RUN_ID": identifier, "HPCML_POINT": "0"}
    library = os.path.join(workspace, "lib", inner.plan.where["library"])
    own |= {"PYTHONPATH": library, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    assert {key: environment[key] for key in own} == own
    assert set(environment) - set(own) <= {*wire.INHERITED, "LC_CTYPE", "PWD", "SHLVL", "_"}


def test_a_workspace_behind_a_link_is_the_same_one_in_a_job(
    script: Write, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_profile(
        home,
        "small",
        f"""
        workspace: {tmp_path}/link/here
        partitions: {{local: {{node: {{cpus: 2}}}}}}
        """,
    )
    script(CHILD, "child.py")
    entry = script(textwrap.dedent(PARENT).replace(', run.output("answer").read_text()', ""))

    outer = hpcml.submit(entry, site="small").wait(60)

    assert outer.state == "COMPLETED", outer.logs()
    assert [run.state for run in hpcml.runs(site="small")] == ["COMPLETED", "COMPLETED"]
    inner = hpcml.runs(site="small")[-1]
    assert inner.plan.where["workspace"] == f"{tmp_path}/link/here"


def test_a_module_that_submits_its_own_function_when_it_is_imported_is_refused(
    module: Callable[..., Any], small: str
) -> None:
    """As without a main guard: each job would import it, and submit the next."""
    work = module(
        """
        import os
        import hpcml
        def f(n): return n
        if "HPCML_RUN_ID" in os.environ:  # else this test would submit it, too
            hpcml.submit(f, "small", params={"n": 1})
        """
    )
    run = hpcml.submit(hpcml.Job(work.f), site=small, params={"n": 1})

    assert run.wait(60).state == "FAILED"
    assert "submits when it is imported" in run.reason
    assert [found.id for found in hpcml.runs()] == [run.id]


def test_a_job_that_submits_itself_comes_to_an_end(script: Write, small: str) -> None:
    script("import hpcml; hpcml.submit('again.py', 'small')", "again.py")
    hpcml.submit("again.py", small)

    eventually(lambda: hpcml.runs(state="FAILED"), timeout=120)

    runs = hpcml.runs()
    assert len(runs) == 17 and runs[-1].state == "FAILED"
    assert "submitted each other" in runs[-1].logs(stream="stderr")


def test_what_a_job_has_printed_is_seen_before_it_ends(script: Write, small: str) -> None:
    run = hpcml.submit(script("print('here'); import time; time.sleep(60)"), small)
    eventually(lambda: run.logs() == "here\n")
    run.cancel()
