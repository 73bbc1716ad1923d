"""A job submits jobs: they join the queue that it is in, and everybody sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.batch import load_outbox, outbox_ids
from hpcml.connection import INHERITED, connect
from tests.conftest import eventually
from tests.embedded.scene import Scene, kill, small_machine, write_profile

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


def test_three_levels_wait_for_each_other_where_there_is_room(
    script: Write, home: Path, scene: Scene
) -> None:
    site = small_machine(home, cpus=3)
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
        import os, time
        import hpcml

        print("begun", flush=True)
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.02)
        run = hpcml.submit("child.py", site="small")
        print(run.wait(0.5).state, flush=True)
        """
    )
    outer = hpcml.submit(hpcml.Job(entry, env={"GATE": str(scene.gate())}), site=small)
    stdout = scene.batch(outer) / "0" / "stdout"
    eventually(lambda: stdout.exists() and stdout.read_text())
    kill(scene.dispatcher())

    scene.open()
    eventually(lambda: scene.ended(outer))

    assert stdout.read_text() in ("begun\nPENDING\n", "begun\nCOMPLETED\n")
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

        hpcml.submission.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        hpcml.submit("child.py", site="small")
        """
    )
    outer = hpcml.submit(entry, site=small).wait(60)
    (left,) = outbox_ids()
    batch = load_outbox(left)
    assert batch is not None and batch.parent == outer.id

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


@pytest.mark.parametrize("name", ["submit", "runs", "Plan"])
def test_a_python_without_pydantic_is_told_what_to_do(script: Write, home: Path, name: str) -> None:
    """Marks need nothing; submitting needs what a client needs."""
    folder = home / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    settings = home / "config" / "hpcml" / "settings.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"sites: {{local: {{python: {folder}/bin/python}}}}")
    entry = script(f"import hpcml; hpcml.log(loss=0.5); print(1, flush=True); hpcml.{name}")

    run = hpcml.submit(entry).wait(30)

    said = run.logs(stream="stderr")
    assert run.state == "FAILED" and run.logs(stream="stdout") == "1\n"
    assert f"HpcmlError: hpcml.{name} needs the package 'pydantic', which {folder}/bin/py" in said
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
    own |= {"PYTHONPATH": library, "OMP_NUM_THREADS": "1"}
    assert {key: environment[key] for key in own} == own
    assert set(environment) - set(own) <= {*INHERITED, "LC_CTYPE", "PWD", "SHLVL", "_"}


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
