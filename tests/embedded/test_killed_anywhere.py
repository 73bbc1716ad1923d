"""A client killed anywhere loses nothing and runs nothing twice.

The eight rows of the table "submit, killed after each step" (docs/architecture.md). The client is
another Python process that kills itself, by SIGKILL, through a hook at exactly that point; this
process is the "new Python" that finds what it left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml import batch as batches
from hpcml import submission
from hpcml.agent import wire
from hpcml.errors import RunNotFoundError, RunStateError
from hpcml.schedulers.process import ProcessScheduler
from tests.conftest import eventually, processes_below
from tests.embedded.scene import DYING, RECORD, Scene, write_profile

CLIENT = (
    DYING
    + """
import sys
import hpcml, hpcml.batch, hpcml.library, hpcml.batch_view, hpcml.submission as submission
from hpcml.agent import wire
from hpcml.batch import Batch
from hpcml.schedulers.process import ProcessScheduler
from hpcml.transports.local import LocalTransport

def die_before_renaming_to(start, end):
    rename = os.rename
    def hooked(source, target):
        if str(target).startswith(start) and str(target).endswith(end):
            die()
        rename(source, target)
    os.rename = hooked

def die_halfway_through(name):
    write = wire.write_private
    def hooked(path, data, sync=False):
        if "/runs/.tmp-" in path and path.endswith(name):
            with open(path, "wb") as file:
                file.write(data[: len(data) // 2])
            die()
        write(path, data, sync)
    wire.write_private = hooked

site = os.environ["XDG_DATA_HOME"]
"""
)

SUBMIT = """
run = hpcml.submit(hpcml.Job("train.py", env={"LEDGER": os.environ["LEDGER"]}))
"""

PUBLISHED = "submission.publish = then_die(submission.publish)"

TRAIN = """
import os

with open(os.environ["LEDGER"], "a") as ledger:
    ledger.write("ran\\n")
"""


Killed = Callable[..., None]


@pytest.fixture
def killed(
    scene: Scene,
    script: Callable[..., str],
    another_python: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Killed:
    """Submits train.py in another Python that kills itself by way of the given hook."""
    script(TRAIN)
    monkeypatch.setenv("LEDGER", str(scene.ledger))

    def run(hook: str, then: str = "") -> None:
        done = another_python(CLIENT + hook + SUBMIT + then)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


def the_run() -> hpcml.Run:
    """The only run that can be found."""
    (run,) = hpcml.runs()
    return run


def nothing_stirs(scene: Scene, home: Path) -> None:
    """Nobody works on the run, nothing is in the queue, and the job has not run."""
    assert processes_below(home) == []
    assert not list(home.rglob("*.job"))
    assert scene.lines() == []


def ran_once(scene: Scene, run: hpcml.Run) -> None:
    """The run is COMPLETED, its job has executed once, and that stays so."""
    assert run.wait(30).state == "COMPLETED", run.reason
    eventually(lambda: not scene.dispatchers() and not scene.queue())
    assert scene.lines() == ["ran"]
    assert [seen.state for seen in hpcml.runs()] == ["COMPLETED"]
    assert list(batches.outbox_folder().glob("*.jsonl")) == []


# --- row 1: there is no run ---------------------------------------------------------------


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param("Batch.save = die", id="before-the-outbox"),
        pytest.param("die_before_renaming_to('', '.jsonl')", id="before-the-rename"),
    ],
)
def test_killed_before_the_outbox_has_it_there_is_no_run(
    killed: Killed, hook: str, scene: Scene, home: Path
) -> None:
    killed(hook)

    assert list(hpcml.runs()) == []
    for rest in batches.outbox_folder().glob(".tmp-*"):
        with pytest.raises(RunNotFoundError):
            hpcml.attach(rest.name)
    with pytest.raises(RunNotFoundError):
        hpcml.attach("20261121-141502-k3f9a2.00000")
    nothing_stirs(scene, home)


def test_killed_while_the_outbox_is_written_leaves_only_a_temporary_file(killed: Killed) -> None:
    killed("die_before_renaming_to('', '.jsonl')")

    names = os.listdir(batches.outbox_folder())

    assert len(names) == 1 and names[0].startswith(".tmp-")
    assert batches.outbox_ids() == []


# --- rows 2 to 4: nothing starts unasked, resume or cancel --------------------------------

BEFORE_THE_QUEUE = [
    pytest.param("os.fsync = die", "CREATED", id="2-in-the-outbox-not-yet-on-disk-for-good"),
    pytest.param("Batch.save = then_die(Batch.save)", "CREATED", id="2-in-the-outbox"),
    pytest.param("submission.prepare = die", "PREPARING", id="3-nothing-prepared"),
    pytest.param(
        "die_before_renaming_to(site, '.pyz')", "PREPARING", id="3-half-of-the-library-there"
    ),
    pytest.param(
        "submission.put_library = then_die(submission.put_library)",
        "PREPARING",
        id="3-library-there",
    ),
    pytest.param("die_before_renaming_to(site, '.tar')", "PREPARING", id="3-half-of-the-code"),
    pytest.param("submission.publish = die", "PREPARING", id="3-all-prepared"),
    pytest.param("die_halfway_through('plan.json')", "PREPARING", id="4-within-the-first-file"),
    pytest.param("die_halfway_through('job.sh')", "PREPARING", id="4-within-the-last-file"),
    pytest.param(
        "LocalTransport.publish = (lambda real: lambda self, folder, *a, **k:"
        " (die_before_renaming_to(site, folder), real(self, folder, *a, **k)))"
        "(LocalTransport.publish)",
        "PREPARING",
        id="4-before-the-rename",
    ),
]


@pytest.mark.parametrize("hook, state", BEFORE_THE_QUEUE)
def test_killed_before_the_queue_is_asked_resume_executes_it_once(
    killed: Killed, hook: str, state: str, scene: Scene, home: Path
) -> None:
    killed(hook)
    run = the_run()
    assert run.state == state
    assert "hpcml resume" in run.reason
    assert hpcml.attach(run.id) == run
    with pytest.raises(RunStateError, match="would wait for ever"):
        run.wait(10)
    nothing_stirs(scene, home)

    run.resume()

    ran_once(scene, run)


@pytest.mark.parametrize("hook, state", BEFORE_THE_QUEUE)
def test_killed_before_the_queue_is_asked_cancel_executes_it_never(
    killed: Killed, hook: str, state: str, scene: Scene, home: Path
) -> None:
    killed(hook)
    run = the_run()
    assert run.state == state

    run.cancel()

    assert run.wait(30).state == "CANCELLED"
    with pytest.raises(RunStateError):
        run.resume()
    eventually(lambda: not scene.dispatchers())
    nothing_stirs(scene, home)
    assert the_run().state == "CANCELLED"


@pytest.mark.parametrize(
    "hook, published",
    [
        pytest.param("die_halfway_through('job.sh')", False, id="4-half-uploaded"),
        pytest.param(PUBLISHED, True, id="5-published"),
    ],
)
def test_a_batch_is_on_the_site_whole_or_not_at_all(
    killed: Killed, hook: str, published: bool, scene: Scene
) -> None:
    killed(hook)

    batch = scene.batch(the_run())

    assert batch.exists() is published
    if published:
        assert sorted(os.listdir(batch)) == ["attempts", "job.sh", "plan.json"]
        assert os.listdir(batch / "attempts") == ["0.intent"]


def test_a_resumed_submission_that_is_killed_again_is_resumed_again(
    killed: Killed,
    another_python: Callable[..., subprocess.CompletedProcess[str]],
    scene: Scene,
) -> None:
    killed("Batch.save = then_die(Batch.save)")
    run = the_run()

    done = another_python(CLIENT + f"submission.prepare = die\nhpcml.attach({run.id!r}).resume()")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run.state == "PREPARING" and "hpcml resume" in run.reason

    run.resume()
    ran_once(scene, run)


def test_editing_the_code_after_the_kill_changes_nothing(
    killed: Killed, script: Callable[..., str], scene: Scene
) -> None:
    killed("Batch.save = then_die(Batch.save)")
    script("raise SystemExit('this was not submitted')")

    run = the_run()
    run.resume()

    ran_once(scene, run)


def test_the_code_that_waits_for_a_site_stays_though_another_site_has_it(
    home: Path,
    tmp_path: Path,
    script: Callable[..., str],
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    other = write_profile(home, "other", f"workspace: {tmp_path / 'other'}")
    train = script("print(1)")
    another_python(
        "import os, hpcml, hpcml.submission as s\ns.prepare = lambda *a: os._exit(0)\n"
        f"hpcml.submit({train!r}, site={other!r})"
    )
    (waiting,) = hpcml.runs(other)
    hpcml.submit(train).wait(30)

    waiting.resume()
    assert waiting.wait(30).logs() == "1\n"
    assert os.listdir(home / "cache" / "hpcml" / "code") == []


def test_a_submission_under_way_is_nobody_elses(scene: Scene) -> None:
    """Resume and cancel keep their hands off while the submitting process lives."""
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import hpcml.submission as s, time; s.prepare = lambda *a: time.sleep(60)\n"
            "s.submit(s.Job(['true'], code=None))",
        ]
    )
    try:
        eventually(batches.outbox_ids)
        run = the_run()
        assert run.state in ("CREATED", "PREPARING") and f"process {owner.pid}" in run.reason
        with pytest.raises(RunStateError, match=str(owner.pid)):
            run.resume()
        with pytest.raises(RunStateError, match=str(owner.pid)):
            run.cancel()
        assert not run.wait(0.1).state.final
    finally:
        owner.kill()
        owner.wait()
    assert "hpcml resume" in run.reason


def test_of_four_that_resume_at_once_the_job_executes_once(killed: Killed, scene: Scene) -> None:
    killed("submission.publish = die")
    run = the_run()
    code = (
        "import sys, hpcml\nfrom hpcml.errors import RunStateError\n"
        f"run = hpcml.attach({run.id!r})\nprint('ready', flush=True)\nsys.stdin.read()\n"
        "try: run.resume()\nexcept RunStateError as error: print(error)\n"
    )
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for client in clients:
        assert client.stdout is not None and client.stdout.readline() == "ready\n"
    for client in clients:
        assert client.stdin is not None
        client.stdin.close()
    assert [client.wait(30) for client in clients] == [0] * 4
    for client in clients:
        assert client.stdout is not None
        client.stdout.close()

    ran_once(scene, run)


# --- rows 5 and 6: the queue may have been asked, its reply is unknown --------------------

NOT_TAKEN = [
    pytest.param(PUBLISHED, id="not-asked"),
    pytest.param("ProcessScheduler.submit = die", id="about-to-ask"),
]
TAKEN = [
    pytest.param("ProcessScheduler.wake = die", id="dispatcher-not-told"),
    pytest.param("ProcessScheduler.submit = then_die(ProcessScheduler.submit)", id="all-told"),
    pytest.param("LocalTransport.move = die", id="its-id-half-written-down"),
]


@pytest.mark.parametrize("hook", NOT_TAKEN)
def test_an_intent_the_queue_does_not_know_is_unknown_until_it_is_old(
    killed: Killed, hook: str, scene: Scene, home: Path
) -> None:
    killed(hook)
    run = the_run()
    assert scene.intent(run).exists()
    assert run.state == "UNKNOWN" and not run.state.final
    with pytest.raises(RunStateError, match="Resume again in"):
        run.resume()
    assert not run.wait(0.1).state.final, "the queue may still be about to hear of it"
    nothing_stirs(scene, home)

    scene.asked_long_ago(run)
    assert run.state == "PREPARING" and "hpcml resume" in run.reason
    nothing_stirs(scene, home)
    run.resume()

    ran_once(scene, run)


@pytest.mark.parametrize("hook", NOT_TAKEN)
def test_an_intent_the_queue_does_not_know_can_be_cancelled(
    killed: Killed, hook: str, scene: Scene, home: Path
) -> None:
    killed(hook)
    run = the_run()

    assert run.cancel().wait(30).state == "CANCELLED"
    late = submission.connect("local").queue.submit([run._view().part_of(0).chunk])

    eventually(lambda: not scene.queue() and not scene.dispatchers())
    assert late and scene.lines() == []
    assert the_run().state == "CANCELLED"


@pytest.mark.parametrize("hook", TAKEN)
def test_an_intent_the_queue_had_heard_runs_once_whoever_looks(
    killed: Killed, hook: str, scene: Scene
) -> None:
    killed(hook)
    run = the_run()
    assert run.state in ("PENDING", "RUNNING", "COMPLETED")

    assert run.wait(30).state == "COMPLETED"
    eventually(lambda: not scene.dispatchers())
    assert scene.lines() == ["ran"]


@pytest.mark.parametrize("hook", TAKEN)
def test_an_intent_the_queue_had_heard_runs_once_when_resumed(
    killed: Killed,
    hook: str,
    scene: Scene,
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    killed(hook)
    (identifier,) = batches.outbox_ids()

    done = another_python(f"import hpcml; hpcml.attach({identifier!r}).resume()")

    assert done.returncode == 0, done.stderr
    eventually(scene.lines)  # nobody looks: resuming alone has told the queue
    eventually(lambda: not scene.dispatchers() and not scene.queue())
    ran_once(scene, hpcml.attach(identifier))


def test_an_intent_the_queue_had_heard_is_running_while_it_runs(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    job = scene.gated()
    code = (
        f"{CLIENT}ProcessScheduler.submit = then_die(ProcessScheduler.submit)\n"
        f"hpcml.submit(hpcml.Job({job.entry!r}, env={dict(job.env)!r}, code=None))"
    )
    assert another_python(code).returncode == -signal.SIGKILL
    eventually(scene.lines)

    run = the_run()

    assert run.state == "RUNNING"
    scene.open()
    ran_once(scene, run)


@pytest.mark.parametrize("then", ["look", "resume", "cancel"])
def test_an_intent_whose_job_is_over_already_executes_no_second_time(
    killed: Killed, then: str, scene: Scene
) -> None:
    killed("ProcessScheduler.submit = then_die(ProcessScheduler.submit)")
    (identifier,) = batches.outbox_ids()
    eventually(lambda: scene.lines() and not scene.queue() and not scene.dispatchers())
    run = hpcml.attach(identifier)
    scene.asked_long_ago(run)

    if then == "resume":
        run.resume()
    elif then == "cancel":
        run.cancel()

    assert run.wait(10).state == "COMPLETED"
    assert not scene.queue() and scene.lines() == ["ran"]


@pytest.mark.parametrize("then", ["look", "resume"])
def test_an_intent_that_said_something_of_its_own_becomes_the_queues_id_all_the_same(
    killed: Killed, then: str, scene: Scene
) -> None:
    """As those that were written before an intent was empty."""
    killed("ProcessScheduler.submit = then_die(ProcessScheduler.submit)")
    (intent,) = scene.workspace.glob("runs/*/attempts/0.intent")
    intent.write_bytes(wire.canonical({"owner": wire.NOBODY, "time": intent.stat().st_mtime}))
    run = hpcml.attach(intent.parts[-3])

    if then == "resume":
        run.resume()

    ran_once(scene, run)
    assert hpcml.submit(scene.job(name="after"), after=run).wait(30).state == "COMPLETED"


# --- row 7: the site knows ----------------------------------------------------------------


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param("Batch.forget = die", id="outbox-still-there"),
        pytest.param("Batch.forget = then_die(Batch.forget)", id="all-done"),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_killed_once_the_site_knows_it_runs_by_itself(
    killed: Killed, hook: str, resumed: bool, scene: Scene
) -> None:
    killed(hook)
    run = the_run()
    assert "0" in wire.queued_as(os.listdir(scene.batch(run) / "attempts"))
    assert run.state in ("PENDING", "RUNNING", "COMPLETED")

    if resumed and batches.outbox_ids():
        run.resume()

    assert run.wait(30).state == "COMPLETED"
    eventually(lambda: not scene.dispatchers() and not scene.queue())
    assert scene.lines() == ["ran"]


# --- row 8: waiting and collecting --------------------------------------------------------

DIE_WHEN_RUNNING = """
judge = hpcml.batch_view.BatchView.judge
def hooked(self, status):
    done = judge(self, status)
    if any(seen.state == "RUNNING" for seen in self.seen.values()):
        die()
    return done
hpcml.batch_view.BatchView.judge = hooked
"""


def test_killed_while_it_waits_the_run_goes_on(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = hpcml.submit(scene.gated())
    code = f"{CLIENT}{DIE_WHEN_RUNNING}hpcml.attach({run.id!r}).wait()"

    done = another_python(code)

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run.state == "RUNNING"
    scene.open()
    ran_once(scene, run)


HALF_A_COPY = """
from hpcml.transports.base import Arriving
write = Arriving.write
def half(self, data):
    write(self, data[: len(data) // 2])
    die()
Arriving.write = half
"""


def test_killed_while_it_collects_one_collects_again(
    scene: Scene,
    tmp_path: Path,
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    run = hpcml.submit(scene.job(RECORD, "seq 10000 > numbers")).wait(30)
    folder = tmp_path / "fetched"
    code = f"{CLIENT}{HALF_A_COPY}hpcml.attach({run.id!r}).fetch({str(folder)!r})"

    done = another_python(code)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (folder / "numbers").exists(), "what was half copied is not there"

    run.fetch(folder)
    assert (folder / "numbers").read_text().split() == [str(n) for n in range(1, 10001)]
    ran_once(scene, run)


# --- what holds for all rows --------------------------------------------------------------


def test_two_jobs_in_the_queue_for_one_batch_execute_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = wire.enqueue
    ids = []

    def twice(workspace: str, entry: dict[str, object]) -> str:
        ids.extend([enqueue(workspace, entry), enqueue(workspace, entry)])
        return str(ids[-1])

    monkeypatch.setattr(wire, "enqueue", twice)
    run = hpcml.submit(scene.job())

    assert len(set(ids)) == 2
    ran_once(scene, run)


def test_a_second_call_of_the_queue_after_the_end_executes_nothing(
    scene: Scene,
) -> None:
    run = hpcml.submit(scene.job()).wait(30)
    chunk = run._view().part_of(0).chunk
    assert chunk is not None

    ProcessScheduler.submit(submission.connect("local").queue, [chunk])  # type: ignore[arg-type]

    eventually(lambda: not scene.queue())
    ran_once(scene, run)


def test_a_client_with_an_empty_outbox_finds_the_run_on_the_site(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hpcml.submit(scene.gated())
    eventually(lambda: scene.started(run))

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-laptop"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-cache"))
    found = hpcml.attach(run.id, site="local")

    assert found.state == "RUNNING"
    assert list(hpcml.runs()) == [run]
    scene.open()
    ran_once(scene, found)


def test_a_client_with_an_empty_outbox_can_cancel_what_another_left_half_submitted(
    killed: Killed, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    killed(PUBLISHED)
    identifier = the_run().id

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-laptop"))
    found = hpcml.attach(identifier, site="local")
    assert found.state == "UNKNOWN", "the queue may still hear of it"
    assert found.cancel().state == "CANCELLED"

    eventually(lambda: not scene.dispatchers())
    nothing_stirs(scene, home)


def test_a_run_looked_at_before_it_was_resumed_is_waited_for(
    killed: Killed,
    scene: Scene,
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """What this process knows of a broken submission is old once another one has resumed it."""
    killed("submission.publish = die")
    run = the_run()
    assert run.state == "PREPARING"

    done = another_python(f"import hpcml; hpcml.attach({run.id!r}).resume()")

    assert done.returncode == 0, done.stderr
    ran_once(scene, run)
