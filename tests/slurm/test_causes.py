"""How runs end on a real Slurm: state and reason are right, and nothing is made up."""

from __future__ import annotations

import json

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login, on_both_at_once
from tests.testbed.box import Box
from tests.testbed.using import PATIENCE, shown

pytestmark = pytest.mark.testbed

STUBBORN = "trap '' TERM; echo began >> $S/ledger; while :; do sleep 0.2; done"
BEGIN = "echo began >> $S/ledger; "
UNTIL_GATE = BEGIN + "while [ ! -e $S/gate ]; do sleep 0.1; done"


def began(site: Login, times: int = 1) -> None:
    eventually(lambda: site.ledger() == ["began"] * times, PATIENCE)


def test_a_run_that_ends_well_is_completed_and_has_run_once(either: Login) -> None:
    run = either.submit(f"job('{BEGIN}')")

    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


def test_an_exit_code_is_told_and_stays_what_it_is(either: Login) -> None:
    """FAILED turned COMPLETED at the next poll, elsewhere."""
    run = either.submit("job('exit 3')")

    assert either.wait(run) == [("FAILED", "exit code 3")]
    assert either.state(run) == ("FAILED", "exit code 3")


def test_a_command_s_own_exit_137_is_no_signal_and_no_lack_of_memory(either: Login) -> None:
    run = either.submit("job('exit 137')")

    assert either.wait(run) == [("FAILED", "exit code 137")]


def test_a_run_cancelled_by_scancel_is_cancelled(either: Login) -> None:
    run = either.submit(f'job("{UNTIL_GATE}")')
    began(either)
    either.box.run("login", ["scancel", f"{either.queue_id(run)}_0"])

    ((state, reason),) = either.wait(run)
    assert state == "CANCELLED"
    assert "cancelled" in reason


def test_a_run_cancelled_before_it_began_is_cancelled_at_once(either: Login) -> None:
    occupy(either.box)
    run = either.submit(f'job("{BEGIN}", cpus=8)')
    either.cancel(run)

    assert either.state(run) == ("CANCELLED", "cancelled before it started")
    eventually(lambda: either.queue_id(run) not in queued(either.box), PATIENCE)
    assert either.ledger() == []


def test_a_run_cancelled_by_scancel_before_it_began_is_cancelled(either: Login) -> None:
    occupy(either.box)
    run = either.submit(f'job("{BEGIN}", cpus=8)')
    either.box.run("login", ["scancel", either.queue_id(run)])

    ((state, reason),) = either.wait(run)
    assert (state, reason.startswith("it never began: cancelled")) == ("CANCELLED", True)
    assert either.ledger() == []


def queued(box: Box) -> str:
    return box.run("login", ["squeue", "--me", "--noheader", "--format=%F"]).stdout


def test_walltime_is_a_timeout_also_of_a_command_that_does_not_listen(either: Login) -> None:
    run = either.submit(f"""job("{STUBBORN}", time="3s")""")

    ((state, reason),) = either.wait(run)
    assert (state, reason) == ("TIMEOUT", "walltime of 3 s is over")


def hungry(mebibytes: int) -> str:
    hoard = f"hoard = bytearray({mebibytes} << 20)"
    return f"python3 -c 'import time; {hoard}; time.sleep(60)'"


def test_too_much_memory_is_out_of_memory(login: Login) -> None:
    run = login.submit(f"""job("exec {hungry(400)}", memory="100 MiB")""")

    ((state, reason),) = login.wait(run)
    assert state == "OUT_OF_MEMORY"
    # Its agent and Slurm both watch: the first who looks is the one who tells.
    assert "the limit is 100 MiB" in reason or f"> {100 << 20})" in reason


def test_a_run_that_slurm_kills_for_the_memory_that_it_got_unasked_is_out_of_memory(
    either: Login,
) -> None:
    """Without cgroups Slurm looks, kills the whole job, and says FAILED by signal 9."""
    run = either.submit(f"""job("exec {hungry(3000)}")""")

    ((state, reason),) = either.wait(run, timeout=90)
    assert state == "OUT_OF_MEMORY"
    assert reason.startswith("Slurm killed it: StepId=")
    assert "exceeded memory limit" in reason


def test_a_run_whose_rank_slurm_kills_for_memory_is_out_of_memory(login: Login) -> None:
    run = login.submit(f"""job("exec {hungry(3000)}", nodes=2, tasks=2)""")

    ((state, reason),) = login.wait(run)
    assert state == "OUT_OF_MEMORY"
    assert reason.startswith("a rank was killed for want of memory: StepId=")


@pytest.mark.parametrize("asked", [', memory="100 MiB"', ""], ids=["asked for", "not asked for"])
def test_a_run_that_the_kernel_kills_for_memory_is_out_of_memory_and_its_limit_is_told(
    confined: Login, asked: str
) -> None:
    run = confined.submit(f"""job("exec {hungry(3000)}"{asked})""")

    reason = "the kernel killed a process of the run for want of memory; the limit is "
    most = 100 if asked else 2000  # what this site gives a CPU
    assert confined.wait(run) == [("OUT_OF_MEMORY", f"{reason}{most} MiB")]
    assert slurm_s_word(confined, run) == "OUT_OF_MEMORY"


def test_a_run_whose_rank_the_kernel_kills_for_memory_is_out_of_memory(confined: Login) -> None:
    run = confined.submit(f"""job("exec {hungry(3000)}", nodes=2, tasks=2)""")

    ((state, reason),) = confined.wait(run)
    assert state == "OUT_OF_MEMORY"
    assert reason.startswith("a rank was killed for want of memory: Detected 1 oom_kill event in")


def test_a_run_that_lost_its_agent_and_its_memory_is_out_of_memory_by_slurm_s_word(
    confined: Login,
) -> None:
    """Nobody is left to write an end; what is known is what Slurm says."""
    run = confined.submit(f"""job("{hungry(3000)}; kill -KILL $PPID")""")

    assert confined.wait(run, timeout=90) == [
        ("OUT_OF_MEMORY", "it took more memory than it was given (Slurm: OUT_OF_MEMORY)")
    ]


@on_both_at_once
def test_a_lost_node_is_node_fail_and_the_run_is_not_run_again(either: Login) -> None:
    run = either.submit(f'job("{UNTIL_GATE}")')
    began(either)
    start = json.loads(either.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))
    node = start["owner"]["host"]
    either.box.kill_node(node)
    try:
        reason = either.becomes(run, "NODE_FAIL")
    finally:
        either.box.revive_node(node)

    assert "node" in reason
    assert either.ledger() == ["began"]


def test_a_run_that_must_give_way_is_preempted(login: Login) -> None:
    job = f'job("{UNTIL_GATE}", options={{"partition": "low"}})'
    run = login.submit(job)
    began(login)
    start = json.loads(login.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))
    other = login.box.preempt(start["owner"]["host"])
    try:
        ((state, reason),) = login.wait(run)
    finally:
        login.box.cancel(other)

    assert (state, "give way" in reason) == ("PREEMPTED", True)
    assert login.ledger() == ["began"]


def test_a_held_job_waits_and_says_who_holds_it(either: Login) -> None:
    occupy(either.box)
    run = either.submit(f'job("{BEGIN}", nodes=2, cpus=8)')
    either.box.run("login", ["scontrol", "hold", either.queue_id(run)])

    state, reason = either.state(run)
    assert state == "PENDING"
    assert reason.startswith("held by you (JobHeldUser): scontrol release")


def occupy(box: Box) -> None:
    """Have another job hold all CPU nodes."""
    whole = ["-N2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"]
    box.run("login", ["sbatch", *whole])


@on_both_at_once
def test_why_a_run_waits_is_told_in_words(either: Login) -> None:
    occupy(either.box)
    run = either.submit('job("true", cpus=8)')

    eventually(lambda: "waits for" in either.state(run)[1], PATIENCE)
    state, reason = either.state(run)
    assert state == "PENDING"
    assert "(Resources)" in reason or "(Priority)" in reason


@on_both_at_once
def test_what_comes_after_a_failure_is_cancelled_and_never_runs(either: Login) -> None:
    first = either.submit(f'job("{UNTIL_GATE}; exit 1")')
    second = either.submit(f'job("{BEGIN}")', after=first)
    eventually(lambda: "comes after" in either.state(second)[1], PATIENCE)
    either.open_gate()

    ((state, reason),) = either.wait(second)
    assert state == "CANCELLED"
    assert reason.startswith(f"it was to run after {first}")
    assert either.wait(first) == [("FAILED", "exit code 1")]
    assert either.ledger() == ["began"]


@on_both_at_once
def test_what_comes_after_a_success_runs(either: Login) -> None:
    first = either.submit(f'job("sleep 3; {BEGIN}")')
    second = either.submit(f'job("{BEGIN}")', after=first)

    assert either.wait(first, second) == [("COMPLETED", "")] * 2


def forgotten(site: Login, run: str) -> None:
    """Wait until Slurm knows nothing of a run any more."""
    show = ["scontrol", "show", "job", site.queue_id(run)]
    eventually(lambda: site.box.run("login", show, check=False).returncode, PATIENCE)


def test_what_comes_after_a_run_that_slurm_has_forgotten_looks_at_its_files(
    forgetful_login: Login,
) -> None:
    site = forgetful_login
    good, bad = site.submit(f'job("{BEGIN}")'), site.submit("job('exit 1')")
    assert site.wait(good, bad) == [("COMPLETED", ""), ("FAILED", "exit code 1")]
    forgotten(site, good)
    forgotten(site, bad)
    after_good = site.submit(f'job("{BEGIN}")', after=good)
    after_bad = site.submit(f'job("{BEGIN}")', after=bad)

    assert site.wait(after_good, after_bad) == [
        ("COMPLETED", ""),
        ("CANCELLED", f"it was to run after {bad}, which is FAILED"),
    ]
    assert site.ledger() == ["began", "began"]


@on_both_at_once
def test_what_ended_well_for_slurm_alone_is_not_good_enough_to_come_after(
    either: Login,
) -> None:
    """Its exit code is 0, but its output is missing: Slurm says COMPLETED, its files FAILED."""
    first = either.submit("job('true', outputs=['model.pt'])")
    second = either.submit(f'job("{BEGIN}")', after=first)

    ((state, reason),) = either.wait(second)
    assert state == "CANCELLED"
    assert reason.startswith(f"it was to run after {first}")
    assert either.ledger() == []


@on_both_at_once
def test_while_the_controller_is_down_nothing_but_unknown_is_said(either: Login) -> None:
    run = either.submit(f'job("{UNTIL_GATE}")')
    began(either)
    either.box.stop_controller()
    try:
        told = either.do(
            """
            import hpcml.errors
            run = hpcml.attach(S["run"], "box")
            try: said = run.state
            except hpcml.errors.QueueError as error: said = "QueueError: " + error.problem
            tell(said)
            """,
            run=run,
        )
        either.open_gate()
    finally:
        either.box.start_controller()

    assert told == "UNKNOWN" or told.startswith("QueueError: box: squeue says: ")
    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


WATCHED = """
    import hpcml.errors
    names = "goes", "ends", "waits"
    runs = {name: hpcml.attach(S[name], "box") for name in names}
    said = {name: set() for name in names}
    begun, opened = time.monotonic(), False
    while time.monotonic() - begun < S["seconds"]:
        for name, run in runs.items():
            try: said[name].add(str(run.state))
            except hpcml.errors.QueueError: said[name].add("no answer")
        if not opened and time.monotonic() - begun > S["seconds"] / 3:
            open(os.environ["HOME"] + "/early", "w").close()
            opened = True
        time.sleep(1)
    tell({name: sorted(states) for name, states in said.items()})
"""


@on_both_at_once
def test_while_the_controller_is_down_for_three_minutes_nothing_false_is_said_of_any_run(
    either: Login,
) -> None:
    """One goes on, one ends meanwhile, one waits. Soon after it is back all have ended."""
    early = UNTIL_GATE.replace("gate", "early")
    goes, ends = either.submit(f'job("{UNTIL_GATE}")'), either.submit(f'job("{early}")')
    waits = either.submit(f'job("{BEGIN}")', after=goes)
    began(either, 2)
    either.box.stop_controller()
    try:
        seconds = 180.0
        said = either.do(WATCHED, patience=400, goes=goes, ends=ends, waits=waits, seconds=seconds)
    finally:
        either.box.start_controller()
    either.open_gate()

    nothing = {"UNKNOWN", "no answer"}
    assert set(said["goes"]) <= nothing | {"RUNNING"}
    assert set(said["ends"]) <= nothing | {"RUNNING", "COMPLETED"}
    assert set(said["waits"]) <= nothing | {"PENDING"}
    assert either.wait(goes, ends, waits) == [("COMPLETED", "")] * 3
    assert either.ledger() == ["began"] * 3


@on_both_at_once
def test_a_run_whose_agent_was_killed_failed_though_others_would_call_it_gone(
    either: Login,
) -> None:
    run = either.submit(f'job("{UNTIL_GATE}")')
    began(either)
    kill_agents(either)

    ((state, reason),) = either.wait(run, timeout=90)
    assert (state, "9 (SIGKILL)" in reason) == ("FAILED", True)


def test_a_missing_job_is_not_called_completed(forgetful_login: Login) -> None:
    """Its agent was killed, and Slurm has forgotten it: nobody can say how it ended."""
    run = forgetful_login.submit(f'job("{UNTIL_GATE}")')
    began(forgetful_login)
    kill_agents(forgetful_login)
    forgotten(forgetful_login, run)

    state, reason = forgetful_login.state(run)
    assert state == "UNKNOWN"
    assert "neither its agent nor the queue" in reason


def slurm_s_word(site: Login, run: str) -> str:
    """The state of a run's allocation, as the controller shows it once that has ended."""
    job, going = f"{site.queue_id(run)}_0", ("RUNNING", "COMPLETING")
    eventually(lambda: shown(site.box, job, "JobState") not in going, PATIENCE)
    return shown(site.box, job, "JobState")


def kill_agents(site: Login) -> None:
    for host in ("cpu1", "cpu2"):
        site.box.run(
            host, ["pkill", "-KILL", "-u", "alice", "-f", "/bin/python3 -I -S"], check=False
        )
