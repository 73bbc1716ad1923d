"""How runs end on a real Slurm: state and reason are right, and nothing is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login, on_both_at_once
from tests.testbed.box import Box
from tests.testbed.using import PATIENCE, sbatch, shown

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
    run = either.submit(f"job('{BEGIN}exit 3')")

    assert either.wait(run) == [("FAILED", "exit code 3")]
    assert either.state(run) == ("FAILED", "exit code 3")
    assert either.ledger() == ["began"]


def test_a_command_s_own_exit_137_is_no_signal_and_no_lack_of_memory(either: Login) -> None:
    run = either.submit(f"job('{BEGIN}exit 137')")

    assert either.wait(run) == [("FAILED", "exit code 137")]
    assert either.ledger() == ["began"]


def test_a_run_cancelled_by_scancel_is_cancelled(either: Login) -> None:
    run = either.submit(f'job("{UNTIL_GATE}")')
    began(either)
    either.box.run("login", ["scancel", f"{either.queue_id(run)}_0"])

    ((state, reason),) = either.wait(run)
    assert state == "CANCELLED"
    assert "cancelled" in reason
    assert either.ledger() == ["began"]


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
    assert either.ledger() == ["began"]


def test_walltime_is_a_timeout_of_several_ranks_and_in_a_container(login: Login) -> None:
    """What starts them catches the signal that they are told by, and they would die of it."""
    code = f"""
        image, told = {login.box.image!r}, hpcml.Checkpoint(notice="5s")
        seen = {{"S": os.environ["HOME"] + "/ws"}}  # in an image, too
        def limited(image=None, checkpoint=None, **resources):
            return hpcml.Job(["/bin/sh", "-c", "{BEGIN}sleep 600"], code=None, env=seen,
                image=image, checkpoint=checkpoint,
                resources=hpcml.Resources(time="30s", cpus=1, **resources))
        jobs = [limited(tasks=2), limited(nodes=2, tasks=4, checkpoint=told),
            limited(image), limited(image, tasks=2)]
        tell([hpcml.submit(it, "box").id for it in jobs])
    """
    runs = login.do(code)

    assert login.wait(*runs) == [("TIMEOUT", "walltime of 30 s is over")] * 4
    assert login.read("ws/ledger").split() == ["began"] * (2 + 4 + 1 + 2)


def hungry(mebibytes: int) -> str:
    """A command that takes more memory than it may, and a while."""
    hoard = f"hoard = bytearray({mebibytes} << 20)"
    return f"python3 -c 'import time; {hoard}; time.sleep(60)'"


@on_both_at_once
def test_too_much_memory_is_out_of_memory(either: Login) -> None:
    run = either.submit(f"""job("{BEGIN}exec {hungry(400)}", memory="100 MiB")""")

    ((state, reason),) = either.wait(run)
    assert state == "OUT_OF_MEMORY"
    # Its agent and Slurm both watch: the first who looks is the one who tells.
    assert "the limit is 100 MiB" in reason or f"> {100 << 20})" in reason
    assert either.ledger() == ["began"]


def test_a_run_that_slurm_kills_for_the_memory_that_it_got_unasked_is_out_of_memory(
    either: Login,
) -> None:
    """Without cgroups Slurm looks, kills the whole job, and says FAILED by signal 9."""
    run = either.submit(f"""job("{BEGIN}exec {hungry(2200)}")""")

    ((state, reason),) = either.wait(run, timeout=90)
    assert state == "OUT_OF_MEMORY"
    assert reason.startswith("Slurm killed it: StepId=")
    assert "exceeded memory limit" in reason
    assert either.ledger() == ["began"]


def test_a_run_whose_rank_slurm_kills_for_memory_is_out_of_memory(either: Login) -> None:
    run = either.submit(f"""job("{BEGIN}exec {hungry(2200)}", nodes=2, tasks=2)""")

    ((state, reason),) = either.wait(run)
    assert state == "OUT_OF_MEMORY", reason
    # Of the nodes that find too much in use one may cancel the step, or the whole job.
    assert reason.startswith(
        ("a rank was killed for want of memory: StepId=", "Slurm killed it: Exceeded job memory")
    )
    assert either.ledger() == ["began"] * 2, "each of two ranks"


@pytest.mark.parametrize("asked", [', memory="100 MiB"', ""], ids=["asked for", "not asked for"])
def test_a_run_that_the_kernel_kills_for_memory_is_out_of_memory_and_its_limit_is_told(
    confined: Login, asked: str
) -> None:
    run = confined.submit(f"""job("{BEGIN}exec {hungry(2200)}"{asked})""")

    reason = "the kernel killed a process of the run for want of memory; the limit is "
    most = 100 if asked else 2000  # what this site gives a CPU
    assert confined.wait(run) == [("OUT_OF_MEMORY", f"{reason}{most} MiB")]
    assert slurm_s_word(confined, run) == "OUT_OF_MEMORY"
    assert confined.ledger() == ["began"]


def test_a_run_whose_rank_the_kernel_kills_for_memory_is_out_of_memory(confined: Login) -> None:
    run = confined.submit(f"""job("{BEGIN}exec {hungry(2200)}", nodes=2, tasks=2)""")

    ((state, reason),) = confined.wait(run)
    assert state == "OUT_OF_MEMORY"
    assert reason.startswith("a rank was killed for want of memory: Detected 1 oom_kill event in")
    assert confined.ledger() == ["began"] * 2, "each of two ranks"


def test_a_run_that_lost_its_agent_and_its_memory_is_out_of_memory_by_slurm_s_word(
    confined: Login,
) -> None:
    """Nobody is left to write an end; what is known is what Slurm says."""
    run = confined.submit(f"""job("{BEGIN}{hungry(2200)}; kill -KILL $PPID")""")

    assert confined.wait(run, timeout=90) == [
        ("OUT_OF_MEMORY", "it took more memory than it was given (Slurm: OUT_OF_MEMORY)")
    ]
    assert confined.ledger() == ["began"]


@on_both_at_once
def test_a_lost_node_is_node_fail_for_all_who_had_it_and_they_are_not_run_again(
    either: Login,
) -> None:
    """One has lost its agent, of the other it is the second node."""
    alone = either.submit(f'job("{UNTIL_GATE}", options={{"nodelist": "cpu2"}})')
    on_both = either.submit(f'job("{UNTIL_GATE}", nodes=2, tasks=2)')
    began(either, 3)
    agents = [f"ws/runs/{run[:-6]}/attempts/0.1.start" for run in (alone, on_both)]
    hosts = [json.loads(either.read(path))["owner"]["host"] for path in agents]
    either.box.kill_node("cpu2")
    try:
        reasons = [either.becomes(run, "NODE_FAIL") for run in (alone, on_both)]
    finally:
        either.box.revive_node("cpu2")

    assert hosts == ["cpu2", "cpu1"]
    assert ["node" in reason for reason in reasons] == [True, True]
    assert either.ledger() == ["began"] * 3


@contextmanager
def told_late(login: Login, run: str) -> Iterator[None]:
    """The agent of a run does not hear of what Slurm does to its job meanwhile, but srun does."""
    start = json.loads(login.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))
    host, job = start["owner"]["host"], start["allocation"]["job"]
    batch_step = "-f", f"slurmstepd: .{job}.batch"
    login.box.hosts.run(host, "pkill", "-STOP", *batch_step)
    try:
        yield
    finally:
        login.box.hosts.run(host, "pkill", "-CONT", *batch_step)


def ended_by_srun_alone(login: Login, run: str) -> dict[str, Any]:
    """What its agent has written of a run whose srun has ended; nobody has told it why."""
    path = f"ws/runs/{run[:-6]}/attempts/0.1.end"
    eventually(lambda: login.read(path), PATIENCE)
    end: dict[str, Any] = json.loads(login.read(path))
    assert (end["received"], end["signal"], end["cause"]) == ([], None, None)
    assert end["exit_code"] != 0
    return end


def test_a_lost_node_is_node_fail_though_srun_has_ended_before_slurm_ends_the_job(
    login: Login,
) -> None:
    """srun hears of it first: to the agent it looks as if the command had just ended with 1."""
    run = login.submit(f'job("{UNTIL_GATE}", nodes=2, tasks=2)')
    began(login, 2)
    try:
        with told_late(login, run):
            login.box.kill_node("cpu2")
            end = ended_by_srun_alone(login, run)
            assert login.state(run)[0] in ("RUNNING", "NODE_FAIL")
        reason = login.becomes(run, "NODE_FAIL")
    finally:
        login.box.revive_node("cpu2")

    assert end["aborted"] == "Node failure on cpu2"
    assert "node" in reason
    assert login.ledger() == ["began"] * 2


def test_a_run_is_cancelled_though_srun_has_ended_before_slurm_ends_the_job(login: Login) -> None:
    by_hand, by_hpcml = (login.submit(f'job("{UNTIL_GATE}", nodes=2, tasks=2)') for _ in range(2))
    began(login, 4)
    with told_late(login, by_hand):
        login.box.run("login", ["scancel", login.queue_id(by_hand)])
        assert ended_by_srun_alone(login, by_hand)["aborted"]
        assert login.state(by_hand)[0] in ("RUNNING", "CANCELLED")
    with told_late(login, by_hpcml):
        login.cancel(by_hpcml)
        eventually(lambda: login.state(by_hpcml)[0] == "CANCELLED", PATIENCE)

    assert "cancelled" in login.becomes(by_hand, "CANCELLED")
    assert login.state(by_hpcml) == ("CANCELLED", "cancelled while it ran")
    assert login.ledger() == ["began"] * 4


def test_a_rank_that_fails_is_the_run_s_own_failure_though_srun_cancels_the_others(
    login: Login,
) -> None:
    one = "[ $SLURM_PROCID = 0 ] || exit 3; exec sleep 60"
    run = login.submit(f'job("{one}", nodes=2, tasks=2)')

    assert login.wait(run) == [("FAILED", "exit code 143")]  # srun gives the highest of all ranks'
    assert "aborted" not in json.loads(login.read(f"ws/runs/{run[:-6]}/attempts/0.1.end"))


@on_both_at_once
def test_a_run_that_must_give_way_is_preempted(either: Login) -> None:
    job = f'job("{UNTIL_GATE}", options={{"partition": "low"}})'
    run = either.submit(job)
    began(either)
    start = json.loads(either.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))
    other = either.box.preempt(start["owner"]["host"])
    try:
        ((state, reason),) = either.wait(run)
    finally:
        either.box.cancel(other)

    assert (state, "give way" in reason) == ("PREEMPTED", True)
    assert either.ledger() == ["began"]


@on_both_at_once
def test_a_held_job_waits_says_who_holds_it_and_runs_once_when_it_is_released(
    either: Login,
) -> None:
    others = occupy(either.box)
    run = either.submit(f'job("{BEGIN}", cpus=8)')
    either.box.run("login", ["scontrol", "hold", either.queue_id(run)])
    either.box.run("login", ["scancel", others])

    state, reason = either.state(run)
    assert state == "PENDING"
    assert reason.startswith("held by you (JobHeldUser): scontrol release")
    either.box.run("login", ["scontrol", "release", either.queue_id(run)])
    assert either.wait(run) == [("COMPLETED", "")]
    assert either.ledger() == ["began"]


def occupy(box: Box, *words: str) -> str:
    """Have another job hold all CPU nodes. Gives its id."""
    return sbatch(box, "-N2", "--exclusive", "--wrap=sleep 600", *words)


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


def forgotten(site: Login, job: str) -> None:
    """Wait until the controller knows nothing of a job any more."""
    show = ["scontrol", "show", "job", job]
    eventually(lambda: site.box.run("login", show, check=False).returncode, PATIENCE)


def test_what_comes_after_a_run_that_slurm_has_forgotten_looks_at_its_files(
    forgetful_login: Login,
) -> None:
    site = forgetful_login
    good, bad = site.submit(f'job("{BEGIN}")'), site.submit("job('exit 1')")
    assert site.wait(good, bad) == [("COMPLETED", ""), ("FAILED", "exit code 1")]
    forgotten(site, site.queue_id(good))
    forgotten(site, site.queue_id(bad))
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
    assert either.ledger() == ["began"]


def test_on_a_full_disk_runs_are_seen_and_an_end_that_cannot_be_written_down_is_unknown(
    login: Login,
) -> None:
    """Of one that lost its agent, and of one that never began, Slurm's word is all there is."""
    well, killed = login.submit(f'job("{BEGIN}")'), login.submit(f'job("{UNTIL_GATE}", cpus=8)')
    assert login.wait(well) == [("COMPLETED", "")]
    began(login, 2)
    never = login.submit(f'job("{BEGIN}", nodes=2, cpus=8)')
    login.box.run("login", ["scancel", login.queue_id(never)])
    kill_agents(login)
    assert slurm_s_word(login, killed) == "FAILED"
    login.box.fill_disk("/scratch")
    try:
        eventually(lambda: "cannot be written down" in login.state(killed)[1], PATIENCE)
        full = login.seen(well, killed, never)
    finally:
        login.box.free_disk("/scratch")

    assert full[0] == ("COMPLETED", "")
    for (state, reason), word in zip(full[1:], ("FAILED: killed", "CANCELLED: it"), strict=True):
        assert (state, reason.startswith(f"it has ended ({word}")) == ("UNKNOWN", True)
        assert reason.endswith("No space left on device")
    states = [state for state, _ in login.seen(well, killed, never)]
    assert states == ["COMPLETED", "FAILED", "CANCELLED"]


def test_a_run_that_the_controller_has_forgotten_is_judged_by_the_accounting(
    strict_login: Login,
) -> None:
    """One that lost its agent, one that had to give way, and one that never began."""
    site = strict_login
    low = '{"partition": "low", "nodelist": "gpu1"}'
    yielding = site.submit(f"job('{UNTIL_GATE}', options={low})")
    lost = site.submit(f"job('{UNTIL_GATE}', cpus=8)")
    began(site, 2)
    never = site.submit(f"job('{BEGIN}', nodes=2, cpus=8)")
    site.box.run("login", ["scancel", site.queue_id(never)])
    kill_agents(site)
    other = site.box.preempt("gpu1")
    try:
        for run in (yielding, lost, never):
            forgotten(site, site.queue_id(run))
    finally:
        site.box.cancel(other)

    first, second, (state, reason) = site.seen(yielding, lost, never)
    assert first == ("PREEMPTED", "it had to give way to a job that comes first (Slurm: PREEMPTED)")
    assert second == ("FAILED", "killed by signal 9 (SIGKILL) (Slurm: FAILED)")
    assert (state, reason.startswith("it never began: cancelled by user")) == ("CANCELLED", True)
    assert site.ledger() == ["began"] * 2


def test_a_missing_job_is_not_called_completed(forgetful_login: Login) -> None:
    """Its agent was killed, and Slurm has forgotten it: nobody can say how it ended."""
    run = forgetful_login.submit(f'job("{UNTIL_GATE}")')
    began(forgetful_login)
    kill_agents(forgetful_login)
    forgotten(forgetful_login, forgetful_login.queue_id(run))

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
