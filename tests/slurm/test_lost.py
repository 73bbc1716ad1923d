"""Clients and sbatch killed at the wrong moment: nothing is lost, and nothing runs twice."""

from __future__ import annotations

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login, on_both_at_once
from tests.slurm.test_causes import BEGIN, UNTIL_GATE, began, forgotten, kill_agents, occupy
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

RESUME = 'hpcml.attach(S["run"], "box").resume(); tell(0)'
QUEUED = ["squeue", "--me", "--noheader", "--format=%F"]
KILLED = """
    import os, signal
    from hpcml.transports.local import LocalTransport
    plain = LocalTransport.run
    def run(self, argv, stdin=b""):
        if argv[0] != "sbatch":
            return plain(self, argv, stdin)
        if S["when"] == "after":
            plain(self, argv, stdin)
        print("KILLED", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    LocalTransport.run = run
    hpcml.submit(job(S["command"]), "box")
"""


def killed(site: Login, when: str) -> str:
    """Submit from a process that is killed before or after it has called sbatch. Gives the run."""
    argv = site.argv(KILLED, {}, {"when": when, "command": BEGIN})
    done = site.box.run("login", argv, check=False)
    assert "KILLED" in done.stdout, done.stderr
    return the_run(site)


def the_run(site: Login) -> str:
    """The one that was submitted, as far as that came."""
    batch = site.box.run("login", ["ls", f"{site.home}/ws/runs"]).stdout.strip()
    return f"{batch}.00000"


def refused(site: Login) -> dict[str, str]:
    """What is said to who submits in vain."""
    code = """
        from hpcml.errors import HpcmlError
        try: hpcml.submit(job(S["command"]), "box")
        except HpcmlError as error: tell({**vars(error), "kind": type(error).__name__})
    """
    told: dict[str, str] = site.do(code, command=BEGIN)
    return told


def asked_long_ago(site: Login, run: str) -> None:
    """Have the queue been asked to take it long ago, if it still is not known whether it did."""
    intent = f"{site.home}/ws/runs/{run.rpartition('.')[0]}/attempts/0.intent"
    site.box.run("login", ["touch", "-c", "-d", "-10 minutes", intent])


def test_a_client_killed_after_sbatch_is_found_by_the_job_s_name(either: Login) -> None:
    run = killed(either, "after")

    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


def test_a_client_killed_before_sbatch_leaves_a_run_that_is_resumed_and_runs_once(
    either: Login,
) -> None:
    run = killed(either, "before")
    assert either.state(run)[0] == "UNKNOWN", "the queue may still hear of it"

    asked_long_ago(either, run)
    assert either.state(run)[0] == "PREPARING"
    either.do(RESUME, run=run)

    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


def test_an_array_that_slurm_forgot_before_its_id_was_written_down_is_known_by_what_began_in_it(
    forgetful_login: Login,
) -> None:
    """One of it began and ended; the other one never did, and nobody can say any more why."""
    site = forgetful_login
    swept = KILLED.replace('), "box")', ").sweep(x=[0, 1]), 'box', max_running=1)")
    argv = site.argv(swept, {}, {"when": "after", "command": UNTIL_GATE})
    site.box.run("login", argv, check=False)
    began(site)
    batch = site.box.run("login", ["ls", f"{site.home}/ws/runs"]).stdout.strip()
    (job,) = site.box.run("login", QUEUED).stdout.split()[:1]
    site.box.run("login", ["scancel", f"{job}_1"])
    site.open_gate()
    forgotten(site, job)

    (first, _), (second, reason) = site.seen(f"{batch}.00000", f"{batch}.00001")
    assert (first, second) == ("COMPLETED", "UNKNOWN")
    assert "the queue took it, and does not know it any more" in reason
    assert site.queue_id(f"{batch}.00000") == job


def test_an_array_that_was_cancelled_before_its_id_was_written_down_is_found_in_the_accounting(
    strict_login: Login,
) -> None:
    """It was never eligible: such jobs the accounting tells to those alone who ask for them."""
    site = strict_login
    occupy(site.box, "--account=climate")
    run = killed(site, "after")
    job = site.box.run("login", [*QUEUED, f"--name=hpcml-{run[:-6]}-0"]).stdout.strip()
    site.box.run("login", ["scancel", job])
    forgotten(site, job)
    asked_long_ago(site, run)

    state, reason = site.state(run)
    assert (state, reason.startswith("it never began: cancelled by user")) == ("CANCELLED", True)
    assert site.queue_id(run) == job
    resumed = """
        from hpcml.errors import RunStateError
        try: tell(hpcml.attach(S["run"], "box").resume())
        except RunStateError as error: tell(error.problem)
    """
    assert site.do(resumed, run=run) == f"{run[:-6]} waits for nothing"


def test_a_reply_of_sbatch_that_is_lost_does_not_queue_it_twice(either: Login) -> None:
    either.box.lose_sbatch_reply()
    runs_once_though_sbatch_says_nothing(either)


@on_both_at_once
def test_an_sbatch_that_is_killed_before_it_submits_is_told_of_and_the_run_is_resumed_and_runs_once(
    either: Login,
) -> None:
    either.box.kill_sbatch("before")
    try:
        told = refused(either)
    finally:
        either.box.restore_sbatch()

    run = the_run(either)
    assert told["kind"] == "TransportError"
    killed = "sbatch says: nothing (killed by signal 9 (SIGKILL))"
    assert told["problem"] == f"box: whether {run[:-6]}.0 was queued is not known; {killed}"
    assert f"`hpcml resume {run[:-6]}`" in told["advice"]
    assert either.state(run)[0] == "UNKNOWN", "the queue may still hear of it"

    asked_long_ago(either, run)
    either.do(RESUME, run=run)
    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


@on_both_at_once
def test_an_sbatch_that_is_killed_after_it_has_submitted_does_not_queue_it_twice(
    either: Login,
) -> None:
    either.box.kill_sbatch("after")
    runs_once_though_sbatch_says_nothing(either)


def runs_once_though_sbatch_says_nothing(site: Login) -> None:
    try:
        run = site.submit(f'job("{BEGIN}")')
    finally:
        site.box.restore_sbatch()

    assert site.wait(run) == [("COMPLETED", "")]
    assert site.ledger() == ["began"]


@on_both_at_once
def test_a_controller_that_is_down_refuses_and_the_submission_is_resumed(either: Login) -> None:
    either.box.stop_controller()
    try:
        told = refused(either)
    finally:
        either.box.start_controller()

    run = the_run(either)
    assert told["kind"] in ("QueueError", "TransportError")
    assert f"`hpcml resume {run[:-6]}`" in told["advice"]
    asked_long_ago(either, run)
    either.do(RESUME, run=run)
    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


def test_the_accounting_being_down_leaves_the_end_of_a_dead_run_to_the_controller(
    login: Login,
) -> None:
    run = login.submit(f'job("{UNTIL_GATE}")')
    began(login)
    login.box.stop_database()
    try:
        kill_agents(login)
        reason = login.becomes(run, "FAILED")
    finally:
        login.box.start_database()

    assert "9 (SIGKILL)" in reason
    eventually(lambda: login.state(run)[0] == "FAILED", PATIENCE)


def test_of_two_jobs_for_one_run_the_one_that_came_late_says_nothing_of_it(either: Login) -> None:
    """It ends at once, and for Slurm all is well; the other one is still at work."""
    run = either.submit(f'job("{UNTIL_GATE}")')
    began(either)
    code = """
        from hpcml.schedulers.slurm import SlurmScheduler
        from hpcml.testing.schedulers import chunk_of
        from hpcml.connection import connect
        SlurmScheduler.patience = 0.0
        run, queue = hpcml.attach(S["run"], "box"), connect("box").queue
        chunk = chunk_of(run)
        (late,) = queue.submit([chunk])
        batch = S["run"].rpartition(".")[0]
        folder = f"{os.environ['HOME']}/ws/runs/{batch}/attempts"
        open(f"{folder}/{wire.queued_name('0', late, time.time())}", "x").close()
        again = hpcml.attach(S["run"], "box")
        while late in os.popen("squeue --me --noheader --format=%F").read():
            time.sleep(0.5)
        looks = [str(again.state) for _ in range(4) if not time.sleep(0.5)]
        open(S["gate"], "w").close()
        tell([looks, str(again.wait(60).state)])
    """
    looks, end = either.do(code, run=run, gate=f"{either.home}/gate")

    assert set(looks) <= {"UNKNOWN", "RUNNING"}
    assert end == "COMPLETED"
    assert either.ledger() == ["began"]
