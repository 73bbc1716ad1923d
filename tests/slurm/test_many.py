"""Many runs on a real Slurm: arrays in chunks, throttles, allocations that several share."""

from __future__ import annotations

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login
from tests.slurm.test_causes import BEGIN, UNTIL_GATE, occupy
from tests.testbed.machine import CommandFailed
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

SAY = "echo $HPCML_INDEX >> $S/ledger"
ON = "echo $(hostname) $SLURM_JOB_ID >> $S/hosts; "


def jobs(site: Login) -> list[str]:
    """Ids of the arrays of a user that are in the queue."""
    listed = site.box.run("login", ["squeue", "--me", "--noheader", "--format=%F"]).stdout
    return sorted(set(listed.split()))


def queue_files(site: Login, run: str) -> list[str]:
    """Those that say which chunks the queue has, without when and under which id, and others."""
    return [it.replace(".queued.", ".queued ").split()[0] for it in site.queue_files(run)]


def test_a_sweep_is_one_array_and_each_run_runs_once(either: Login) -> None:
    runs = either.submit(f"job('{SAY}').sweep(x=range(12))")

    assert {state for state, _ in either.wait(*runs)} == {"COMPLETED"}
    assert sorted(map(int, either.ledger())) == list(range(12))
    assert queue_files(either, runs[0]) == ["0.out", "0.queued"]


def test_points_go_in_chunks_of_the_largest_array(strict_login: Login) -> None:
    """Of 10, where 15 are few enough to be in the queue at once."""
    runs = strict_login.submit(f"job('{SAY}').sweep(x=range(15))")

    assert {state for state, _ in strict_login.wait(*runs)} == {"COMPLETED"}
    assert sorted(map(int, strict_login.ledger())) == list(range(15))
    assert queue_files(strict_login, runs[0]) == ["0.out", "0.queued", "1.out", "1.queued"]


def test_more_points_than_one_may_submit_share_allocations(strict_login: Login) -> None:
    runs = strict_login.submit(f"job('{SAY}').sweep(x=range(50))")

    assert {state for state, _ in strict_login.wait(*runs, timeout=120)} == {"COMPLETED"}
    assert sorted(map(int, strict_login.ledger())) == list(range(50))


NOT_NOW = """
    from hpcml.errors import QueueError, RefusedError
    try: hpcml.submit({job}, "box")
    except RefusedError: raise
    except QueueError as error: tell([error.problem, error.advice])
"""


def not_now(site: Login, job: str) -> list[str]:
    """Problem and advice of a submission that the queue would take at another time."""
    told: list[str] = site.do(NOT_NOW.format(job=job))
    return told


def fill(site: Login, *arrays: str) -> None:
    """Have somebody's jobs wait in the queue, until they are cancelled."""
    hold = ["--hold", "--account=climate", "--output=/dev/null", "--job-name=hold", "--wrap=true"]
    for array in arrays:
        site.box.run("login", ["sbatch", f"--array={array}", *hold])


def the_batch(site: Login) -> str:
    """The only one of a user."""
    return site.box.run("login", ["ls", f"{site.home}/ws/runs"]).stdout.strip()


def resume(site: Login, run: str) -> None:
    site.do('hpcml.attach(S["run"], "box").resume(); tell(0)', run=run)


def test_what_is_more_than_one_may_submit_now_is_told_and_resumed_later(
    strict_login: Login,
) -> None:
    fill(strict_login, "0-9", "0-9")
    told = not_now(strict_login, f"job('{SAY}')")
    run = f"{the_batch(strict_login)}.00000"

    assert "AssocMaxSubmitJobLimit" in told[0]
    assert "Wait until others have ended" in told[1] and f"hpcml resume {run[:-6]}" in told[1]
    state, reason = strict_login.state(run)
    assert state == "PREPARING" and "AssocMaxSubmitJobLimit" in reason
    with pytest.raises(CommandFailed, match="AssocMaxSubmitJobLimit"):
        resume(strict_login, run)
    strict_login.box.run("login", ["scancel", "--name=hold"])
    resume(strict_login, run)

    assert strict_login.wait(run) == [("COMPLETED", "")]
    assert strict_login.ledger() == ["0"]


def test_a_partition_that_takes_no_jobs_now_is_told_and_the_run_resumed_later(
    login: Login,
) -> None:
    set_to = ["control", "scontrol", "update", "PartitionName=short"]
    login.box.hosts.run(*set_to, "State=INACTIVE")
    try:
        told = not_now(login, f"job('{SAY}', options={{'partition': 'short'}})")
        run = f"{the_batch(login)}.00000"
        assert "Required partition not available" in told[0] and "sinfo" in told[1]
        assert login.state(run)[0] == "PREPARING"
    finally:
        login.box.hosts.run(*set_to, "State=UP")
    resume(login, run)

    assert login.wait(run) == [("COMPLETED", "")]


REFUSED = """
    from hpcml.errors import RefusedError
    try: hpcml.submit({job}, "box")
    except RefusedError as error: tell([error.problem, error.advice])
"""


def refused(site: Login, job: str) -> list[str]:
    """Problem and advice of a submission that is refused."""
    told: list[str] = site.do(REFUSED.format(job=job))
    return told


def half_taken(site: Login) -> list[str]:
    """Fifteen runs, of which the queue has taken the first ten: their array, and not the second."""
    fill(site, "0-7")
    told = not_now(site, f'job("{UNTIL_GATE}").sweep(x=range(15))')
    batch = the_batch(site)
    runs = [f"{batch}.{index:05}" for index in range(15)]
    assert "It has the others of 15 runs, not 5." in told[1]
    assert {state for state, _ in site.seen(*runs[10:])} == {"PREPARING"}
    return runs


def test_of_a_sweep_that_is_more_than_one_may_submit_now_the_rest_follows_and_nothing_runs_twice(
    strict_login: Login,
) -> None:
    runs = half_taken(strict_login)
    strict_login.open_gate()
    assert strict_login.wait(*runs[:10]) == [("COMPLETED", "")] * 10
    resume(strict_login, runs[0])

    assert strict_login.wait(*runs) == [("COMPLETED", "")] * 15
    with pytest.raises(CommandFailed, match="waits for nothing"):
        resume(strict_login, runs[0])
    assert len(strict_login.ledger()) == 15


def test_of_a_sweep_that_was_taken_in_part_each_part_can_be_cancelled(strict_login: Login) -> None:
    runs = half_taken(strict_login)
    with pytest.raises(CommandFailed, match="can only be cancelled together"):
        strict_login.cancel(runs[12])
    strict_login.cancel(runs[0])
    assert {state for state, _ in strict_login.seen(*runs[10:])} == {"PREPARING"}
    strict_login.cancel(*runs[10:])
    strict_login.open_gate()

    assert [state for state, _ in strict_login.wait(*runs)] == [
        "CANCELLED",
        *["COMPLETED"] * 9,
        *["CANCELLED"] * 5,
    ]
    with pytest.raises(CommandFailed, match="waits for nothing"):
        resume(strict_login, runs[0])


def test_an_account_that_is_none_is_refused_with_advice_and_its_run_has_ended(
    strict_login: Login,
) -> None:
    strict_login.write(
        ".config/hpcml/config.yaml",
        "sites: {box: {python: /usr/bin/python3, account: nobodys}}\n",
    )
    planned = strict_login.do('tell(hpcml.plan(job("true"), "box").script)')
    told = refused(strict_login, 'job("true")')
    batch = the_batch(strict_login)
    run = f"{batch}.00000"

    assert "#SBATCH --account=nobodys" in planned
    assert "Invalid account" in told[0]
    assert "The account was 'nobodys', by sites.box.account in the settings" in told[1]
    assert f"`hpcml resubmit {run}`" in told[1]
    state, reason = strict_login.state(run)
    assert (state, "Invalid account" in reason) == ("FAILED", True)

    strict_login.write(
        ".config/hpcml/config.yaml",
        "sites: {box: {python: /usr/bin/python3, account: climate}}\n",
    )
    again = strict_login.do('tell(hpcml.resubmit(S["run"])[0].id)', run=run)
    assert strict_login.wait(again) == [("COMPLETED", "")]


def test_what_comes_after_a_run_that_was_refused_is_cancelled(strict_login: Login) -> None:
    account = "sites: {{box: {{python: /usr/bin/python3, account: {}}}}}\n"
    strict_login.write(".config/hpcml/config.yaml", account.format("nobodys"))
    refused(strict_login, 'job("true")')
    batch = the_batch(strict_login)
    strict_login.write(".config/hpcml/config.yaml", account.format("climate"))
    after = strict_login.submit(f"job('{BEGIN}')", after=f"{batch}.00000")

    reason = f"it was to run after {batch}.00000, which is FAILED"
    assert strict_login.wait(after) == [("CANCELLED", reason)]
    assert strict_login.ledger() == []


KILLED = """
    {hook}
    hpcml.Runs([hpcml.attach(it, "box") for it in S["runs"]]).cancel()
"""
BEFORE_SCANCEL = "SlurmScheduler._scancel = lambda *_: os.kill(os.getpid(), 9)"
BEFORE_THE_RUNS_END = "SlurmScheduler._refuse = lambda *_: os.kill(os.getpid(), 9)"


def killed_while_it_cancels(site: Login, runs: list[str], hook: str) -> None:
    with pytest.raises(CommandFailed):
        site.do(KILLED.format(hook=hook), runs=runs)


def test_killed_before_it_calls_scancel_what_runs_ends_and_what_waits_never_runs(
    strict_login: Login,
) -> None:
    """Two arrays; the one that waits is held, and says how it comes out of the queue."""
    runs = strict_login.submit(f'job("{UNTIL_GATE}").sweep(x=range(14))', max_running=10)
    eventually(lambda: len(strict_login.ledger()) == 10, PATIENCE)
    killed_while_it_cancels(strict_login, runs, BEFORE_SCANCEL)

    assert strict_login.wait(*runs[:10]) == [("CANCELLED", "cancelled while it ran")] * 10
    assert strict_login.wait(*runs[10:]) == [("CANCELLED", "cancelled before it started")] * 4
    assert len(strict_login.ledger()) == 10


def test_killed_before_it_calls_scancel_what_is_still_queued_can_be_cancelled_again(
    login: Login,
) -> None:
    occupy(login.box)
    run = login.submit(f"job('{BEGIN}')")
    killed_while_it_cancels(login, [run], BEFORE_SCANCEL)

    assert login.state(run) == (
        "PENDING",
        "cancelled, so that it will not run; `hpcml cancel` takes it out of the queue",
    )
    assert login.queue_id(run) in jobs(login)
    login.cancel(run)
    assert login.state(run) == ("CANCELLED", "cancelled before it started")
    assert login.queue_id(run) not in jobs(login)


def test_killed_after_scancel_a_run_that_waited_is_cancelled_by_slurm_s_word(
    either: Login,
) -> None:
    occupy(either.box)
    run = either.submit(f"job('{BEGIN}')")
    killed_while_it_cancels(either, [run], BEFORE_THE_RUNS_END)

    ((state, reason),) = either.wait(run)
    assert (state, reason.startswith("it never began: cancelled")) == ("CANCELLED", True)
    assert either.ledger() == []


def test_no_more_runs_than_allowed_run_at_once(login: Login) -> None:
    runs = login.submit(f'job("{UNTIL_GATE}").sweep(x=range(5))', max_running=2)
    eventually(lambda: len(login.ledger()) == 2, PATIENCE)

    states = login.seen(*runs)
    assert [state for state, _ in states].count("RUNNING") == 2
    waiting = {reason for state, reason in states if state == "PENDING"}
    assert waiting == {"as many of its batch run as may at once (JobArrayTaskLimit)"}
    login.open_gate()
    assert {state for state, _ in login.wait(*runs)} == {"COMPLETED"}
    assert len(login.ledger()) == 5


def test_no_more_runs_than_allowed_run_at_once_though_chunks_follow(strict_login: Login) -> None:
    runs = strict_login.submit(f'job("{UNTIL_GATE}").sweep(x=range(14))', max_running=10)
    eventually(lambda: len(strict_login.ledger()) == 10, PATIENCE)

    states = [state for state, _ in strict_login.seen(*runs)]
    assert states == ["RUNNING"] * 10 + ["PENDING"] * 4
    strict_login.open_gate()
    assert {state for state, _ in strict_login.wait(*runs)} == {"COMPLETED"}


def test_no_more_jobs_of_a_list_than_allowed_run_at_once(login: Login) -> None:
    runs = login.submit(f'[job("{UNTIL_GATE}") for _ in range(4)]', max_running=2)
    eventually(lambda: len(login.ledger()) == 2, PATIENCE)

    states = [state for state, _ in login.seen(*runs)]
    assert states == ["RUNNING"] * 2 + ["PENDING"] * 2
    login.open_gate()
    assert {state for state, _ in login.wait(*runs)} == {"COMPLETED"}


CANCELLED_BY_HALVES = """
    runs = hpcml.submit(job("true", options={"hold": True}).sweep(x=range(1500)), "box")
    odd, even = hpcml.Runs(runs[1::2]), hpcml.Runs(runs[::2])
    odd.cancel()
    half = [sorted(set(part.states.values())) for part in (odd, even)]
    even.cancel()
    tell([runs[0].id, half, sorted(set(runs.states.values()))])
"""


def test_of_more_points_than_a_real_site_s_largest_array_every_second_is_cancelled(
    login: Login,
) -> None:
    """MaxArraySize is 1,001, as Slurm has it where nobody has said otherwise."""
    site = Login(login.box, facts="max_array: 1001")
    first, half, states = site.do(CANCELLED_BY_HALVES)

    assert [it for it in queue_files(site, first) if it != "0.words"] == ["0.queued", "1.queued"]
    assert half == [["CANCELLED"], ["PENDING"]]
    assert states == ["CANCELLED"]
    eventually(lambda: jobs(site) == [], PATIENCE)


def test_two_hundred_runs_of_one_core_share_two_whole_nodes_in_two_jobs(login: Login) -> None:
    options = 'options={"partition": "whole"}, cpus=1, time="1m"'
    runs = login.submit(f"job('{SAY}; {ON}', {options}).sweep(x=range(200))")

    assert {state for state, _ in login.wait(*runs, timeout=120)} == {"COMPLETED"}
    assert sorted(map(int, login.ledger())) == list(range(200))
    hosts = set(login.read("hosts").splitlines())
    assert len(hosts) == 2, hosts


def test_a_run_in_a_shared_allocation_waits_runs_and_is_cancelled_alone(login: Login) -> None:
    """Eight slots work at once; cancelling one run leaves the others alone."""
    options = 'options={"partition": "whole"}, cpus=4, time="1m"'
    runs = login.submit(f'job("{UNTIL_GATE}", {options}).sweep(x=range(8))')
    eventually(lambda: len(login.ledger()) == 4, PATIENCE)
    states = login.seen(*runs)
    going = [run for run, (state, _) in zip(runs, states, strict=True) if state == "RUNNING"]
    waiting = [run for run, (state, _) in zip(runs, states, strict=True) if state == "PENDING"]
    assert (len(going), len(waiting)) == (4, 4)
    assert {reason for state, reason in states if state == "PENDING"} == {
        "its allocation works at other runs"
    }
    login.cancel(going[0], waiting[0])
    assert login.wait(going[0]) == [("CANCELLED", "cancelled while it ran")]
    assert login.wait(waiting[0]) == [("CANCELLED", "cancelled before it started")]
    login.open_gate()

    rest = [run for run in runs if run not in (going[0], waiting[0])]
    assert {state for state, _ in login.wait(*rest)} == {"COMPLETED"}


def test_a_shared_allocation_that_is_cancelled_ends_all_of_its_runs(login: Login) -> None:
    options = 'options={"partition": "whole"}, cpus=4, time="1m"'
    runs = login.submit(f'job("{UNTIL_GATE}", {options}).sweep(x=range(8))')
    eventually(lambda: len(login.ledger()) == 4, PATIENCE)
    login.box.run("login", ["scancel", login.queue_id(runs[0])])

    assert {state for state, _ in login.wait(*runs)} == {"CANCELLED"}
    assert len(login.ledger()) == 4


def test_what_comes_after_one_run_of_a_shared_allocation_looks_at_that_run(login: Login) -> None:
    options = 'options={"partition": "whole"}, cpus=4, time="1m"'
    fail = "[ $HPCML_INDEX != 1 ]"
    runs = login.submit(f'job("{fail}", {options}).sweep(x=range(4))')
    good = login.submit(f"job('{BEGIN}')", after=runs[0])
    bad = login.submit(f"job('{BEGIN}')", after=runs[1])

    assert login.wait(good) == [("COMPLETED", "")]
    assert login.wait(bad) == [
        ("CANCELLED", f"it was to run after {runs[1]}, which is FAILED"),
    ]


def test_tasks_cancelled_by_hand_out_of_an_array_that_waits_are_cancelled(login: Login) -> None:
    """They leave a hole in what the queue lists; the others go on waiting."""
    occupy(login.box)
    runs = login.submit("job('true', cpus=8).sweep(x=range(6))")
    job = login.queue_id(runs[0])
    login.box.run("login", ["scancel", f"{job}_2", f"{job}_3"])

    eventually(lambda: login.state(runs[2])[0] == "CANCELLED", PATIENCE)
    states = [state for state, _ in login.seen(*runs)]
    assert states == ["PENDING"] * 2 + ["CANCELLED"] * 2 + ["PENDING"] * 2


def test_many_runs_are_one_squeue_and_one_sbatch(login: Login) -> None:
    """One squeue a task, and a fixed sleep a submission, elsewhere."""
    counted = login.do(
        """
        import collections
        from hpcml.transports.local import LocalTransport
        calls, plain = collections.Counter(), LocalTransport.run
        def run(self, argv, stdin=b""):
            calls[argv[0]] += 1
            return plain(self, argv, stdin)
        LocalTransport.run = run
        slept, real = [], time.sleep
        time.sleep = lambda seconds: slept.append(seconds) or real(seconds)
        runs = hpcml.submit(job("sleep 600").sweep(x=range(100)), "box")
        submitted = dict(calls), list(slept)
        calls.clear()
        states = runs.states
        looked = dict(calls)
        runs.cancel()
        tell([submitted, looked, sorted(set(states.values()))])
        """
    )
    (submitted, slept), looked, states = counted

    assert submitted == {"sbatch": 1}
    assert slept == []
    assert looked == {"squeue": 1}
    assert set(states) <= {"PENDING", "RUNNING"}


def test_who_submits_from_within_a_job_gives_nothing_of_it_along(login: Login) -> None:
    """SLURM_* and SBATCH_* of the caller, inherited elsewhere, would change the job."""
    caller = {
        "SLURM_JOB_ID": "4711",
        "SLURM_ARRAY_TASK_ID": "9",
        "SBATCH_PARTITION": "short",
        "SBATCH_HOLD": "1",
        "SBATCH_TIMELIMIT": "1",
        "SQUEUE_FORMAT": "%i",
        "SACCT_FORMAT": "JobID",
    }
    code = "job('echo $SLURM_JOB_PARTITION > $S/ledger; env > $S/environment', time='3m')"
    run = login.submit(code, environment=caller)

    assert login.wait(run) == [("COMPLETED", "")]
    assert login.ledger() == ["cpu"]
    environment = login.read("environment").splitlines()
    assert "SBATCH_PARTITION=short" not in environment
    assert "SLURM_JOB_ID=4711" not in environment
    assert f"HOME={login.home}" in environment


def test_devices_of_an_allocation_are_seen_and_shared_out_to_slots(login: Login) -> None:
    see = "echo $CUDA_VISIBLE_DEVICES >> $S/ledger"
    for devices in (1, 2, 4):
        run = login.submit(f"job('{see}', device='gpu', devices={devices}, tasks=1)")
        assert login.wait(run) == [("COMPLETED", "")]
    assert login.ledger() == ["0", "0,1", "0,1,2,3"]


# What each rank sees; a run goes on until all four do.
SEE = (
    "for seen in $CUDA_VISIBLE_DEVICES $ROCR_VISIBLE_DEVICES $ZE_AFFINITY_MASK; do "
    "echo $SLURMD_NODENAME $HPCML_INDEX $seen >> $S/ledger; done; touch $S/at.$HPCML_INDEX; "
    "until [ -e $S/at.0 -a -e $S/at.1 -a -e $S/at.2 -a -e $S/at.3 ]; do sleep 0.1; done"
)


@pytest.mark.parametrize(
    ("tasks", "asked", "seen"),
    [
        (1, "gres: gpu:a100", [{"0,1"}, {"2,3"}]),
        (2, "gres: gpu:a100", [{"0,1"}, {"2,3"}]),
        (2, "devices_by: gpus-per-node", [{"0,1"}, {"2,3"}]),
        (2, "devices_by: gpus-per-task", [{"0", "1"}, {"2", "3"}]),
    ],
)
def test_the_devices_of_a_whole_node_are_shared_out_to_the_runs_on_it(
    login: Login, tasks: int, asked: str, seen: list[set[str]]
) -> None:
    profile = ".config/hpcml/sites/box.yaml"
    node = "{device: gpu, devices: 4, cpus: 8, memory: 16000 MiB}"
    text = login.read(profile)
    own = "node_sharing: exclusive, time: 1h, "
    assert f"{own}node: *node" in text
    login.write(profile, text.replace(f"{own}node: *node", f"{own}{asked}, node: {node}"))
    asked = f"device='gpu', devices=2, tasks={tasks}, cpus=1, options={{'partition': 'whole'}}"
    runs = login.submit(f"job('{SEE}', {asked}).sweep(x=range(4))")

    assert login.wait(*runs) == [("COMPLETED", "")] * 4
    found: dict[str, dict[str, set[str]]] = {}
    for line in login.read("ledger").splitlines():
        node, run, devices = line.split()
        found.setdefault(node, {}).setdefault(run, set()).add(devices)
    assert [sorted(of.values(), key=min) for of in found.values()] == [seen, seen]


def test_the_ids_of_a_batch_are_written_down(login: Login) -> None:
    run = login.submit("job('true')")
    assert login.queue_id(run).isdigit()
