"""What Slurm's accounting has of runs, on record beside what their agents say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login
from tests.slurm.test_causes import UNTIL_GATE, hungry
from tests.testbed.box import Box
from tests.testbed.using import PATIENCE, accounted

pytestmark = pytest.mark.testbed

RECORD = """
    hpcml.sync("box")
    (found,) = hpcml.records.find(id=S["run"])
    tell({
        "final": found.final, "awaited": found.awaited, "state": found.state,
        "lives": [vars(life) for life in found.allocations],
        "energy": vars(found.energy),
        "disagreements": found.disagreements,
        "in": [attempt.life for attempt in found.attempts],
        "queue": [it.source for it in found.figures if it.name == "queue"],
    })
"""
COMPARED = """
    table = hpcml.compare(S["runs"])
    tell({"marks": table.marks, "figures": [
        {column.key: value for column, value in point.figures.items() if "energy" in column.key}
        for point in table.points
    ]})
"""
SHOWN = """
    from click.testing import CliRunner
    from hpcml.cli import cli
    tell(CliRunner().invoke(cli, ["show", S["run"]]).output)
"""
WATTS = 300.0


@pytest.fixture
def metered(login: Login) -> Login:
    """A site whose nodes use 300 W, as only Slurm can read."""
    draw(login.box, WATTS)
    return Login(login.box, facts="system_root: /nothing/here")


def draw(box: Box, watts: float) -> None:
    """Have all CPU nodes use so much from now on."""
    for host in ("cpu1", "cpu2"):
        box.set_power(host, (60.0, watts))


def is_that_of(watts: float, joules: float, slept: float, elapsed: float) -> bool:
    """Whether it is the energy of a command that slept so long.

    Counters are read once a second; what has elapsed is in whole seconds, with what comes before
    the command and after it.
    """
    return watts * (slept - 1) <= joules <= watts * (elapsed + 2)


def final(site: Login, run: str) -> Any:
    """The record of a run once all that is awaited has come."""
    eventually(lambda: site.do(RECORD, run=run)["final"], PATIENCE)
    return site.do(RECORD, run=run)


def test_slurm_s_own_figures_of_a_run_are_on_record(metered: Login) -> None:
    run = metered.submit("job('sleep 4', nodes=2, tasks=2, cpus=8)")
    assert metered.wait(run) == [("COMPLETED", "")]

    found = final(metered, run)
    (life,) = found["lives"]
    assert (life["source"], life["state"], life["exit_code"]) == ("slurm", "COMPLETED", 0)
    assert life["submitted"] <= life["eligible"] <= life["started"] <= life["ended"]
    assert life["elapsed"] >= 4
    assert (life["cpus"], life["nodes"], life["hosts"]) == (16, 2, "cpu[1-2]")
    assert life["max_rss"] > 0 and life["alone"] is True
    assert (found["in"], found["queue"], found["disagreements"]) == ([1], ["slurm"], [])
    assert 0 < life["covered"] <= life["elapsed"], "of the time of srun alone"
    assert is_that_of(2 * WATTS, life["joules"], 4, life["covered"])


def test_the_energy_by_slurm_is_on_record_and_compared_where_no_meter_of_ours_has_any(
    metered: Login,
) -> None:
    run = metered.submit("job('sleep 10', cpus=8)")
    assert metered.wait(run) == [("COMPLETED", "")]

    found = final(metered, run)
    (life,), energy = found["lives"], found["energy"]
    assert is_that_of(WATTS, life["joules"], 10, life["elapsed"])
    assert (energy["joules"], energy["uncertainty"]) == (life["joules"], None)
    assert (energy["source"], energy["scope"], energy["exclusive"]) == ("slurm", "allocation", True)
    assert energy["covered"] == energy["seconds"] == life["elapsed"]
    told = metered.do('tell(str(hpcml.attach(S["run"], "box").energy))', run=run)
    assert "(allocation, slurm), measured for" in told
    shown = metered.do(SHOWN, run=run)
    assert "(allocation, slurm)" in shown and "on cpu" in shown and " alone; " in shown
    (figures,) = metered.do(COMPARED, runs=[run])["figures"]
    assert figures == {"energy:allocation": life["joules"]}


def test_zero_joules_by_slurm_are_not_measured(metered: Login) -> None:
    """It writes them where it could not read a counter; one that stands still tells no more."""
    draw(metered.box, 0.0)
    try:
        run = metered.submit("job('sleep 3', cpus=8)")
        assert metered.wait(run) == [("COMPLETED", "")]
    finally:
        draw(metered.box, WATTS)

    found = final(metered, run)
    (life,) = found["lives"]
    columns = ["--noheader", "--parsable2", "--format=ConsumedEnergyRaw"]
    asked = ["sacct", *columns, f"--jobs={metered.queue_id(run)}"]
    assert metered.box.run("login", asked).stdout.split() == ["0"], "of the batch step"
    assert (life["joules"], life["covered"]) == (None, 0.0)
    assert found["energy"]["joules"] is None
    assert metered.do(COMPARED, runs=[run])["figures"] == [{}]


def test_the_devices_that_a_run_had_are_on_record(login: Login) -> None:
    run = login.submit("job('true', device='gpu', devices=2)")
    assert login.wait(run) == [("COMPLETED", "")]

    (life,) = final(login, run)["lives"]
    assert (life["devices"], life["nodes"]) == (2, 1)
    assert life["hosts"] in ("gpu1", "gpu2")


def test_our_own_meter_comes_first_and_both_are_on_record(login: Login) -> None:
    draw(login.box, WATTS)
    run = login.submit("job('sleep 8')")
    assert login.wait(run) == [("COMPLETED", "")]

    found = final(login, run)
    assert found["energy"]["source"] == "powercap"
    (life,) = found["lives"]
    assert life["joules"] > found["energy"]["joules"] > 0
    assert (life["alone"], found["disagreements"]) == (False, [])


def test_runs_that_share_an_allocation_share_its_figures_and_have_no_energy_of_their_own(
    metered: Login,
) -> None:
    options = 'options={"partition": "whole"}, cpus=4, time="1m"'
    runs = metered.submit(f"job('sleep 3', {options}).sweep(points=[{{}}] * 4)")
    assert metered.wait(*runs) == [("COMPLETED", "")] * 4

    found = [final(metered, run) for run in runs]
    for one in found:
        (life,) = one["lives"]
        assert life["runs"] > 1 and life["joules"] > 0 and life["alone"] is True
        assert one["energy"]["joules"] is None
        assert f"of an allocation of {life['runs']} runs" in one["energy"]["why"]
        assert (one["queue"], one["disagreements"]) == (["queue and events"], [])
    assert metered.do(COMPARED, runs=runs)["figures"] == [{}] * 4


def test_a_run_that_gave_way_has_two_lives_on_record(login: Login) -> None:
    checkpoint = "checkpoint=hpcml.Checkpoint(notice='1s')"
    run = login.submit(f'job("{UNTIL_GATE}", options={{"partition": "low"}}, {checkpoint})')
    eventually(lambda: login.ledger() == ["began"], PATIENCE)
    login.give_way(run)
    eventually(lambda: login.ledger() == ["began"] * 2, PATIENCE)
    login.open_gate()
    assert login.wait(run) == [("COMPLETED", "")]

    found = final(login, run)
    assert [life["state"] for life in found["lives"]] == ["PREEMPTED", "COMPLETED"]
    assert found["in"] == [1, 2]
    assert found["disagreements"] == []


@pytest.mark.parametrize(
    ("command", "state", "code"), [("exit 3", "FAILED", 3), ("kill -9 $$", "FAILED", None)]
)
def test_slurm_and_the_agent_agree_on_how_runs_end(
    login: Login, command: str, state: str, code: int | None
) -> None:
    run = login.submit(f"job('{command}')")
    assert login.wait(run)[0][0] == state

    found = final(login, run)
    (life,) = found["lives"]
    assert life["state"] == "FAILED"
    assert code in (None, life["exit_code"])
    assert found["disagreements"] == []


def test_a_cancelled_run_is_cancelled_by_both_accounts(login: Login) -> None:
    run = login.submit(f'job("{UNTIL_GATE}")')
    eventually(login.ledger, PATIENCE)  # to Slurm it runs before its agent has begun
    login.cancel(run)
    assert login.wait(run)[0][0] == "CANCELLED"

    found = final(login, run)
    assert [life["meaning"] for life in found["lives"]] == ["CANCELLED"]
    assert found["disagreements"] == []


def shown(site: Login, run: str) -> str:
    """The line on disagreement that ``hpcml show`` prints; empty if there is none."""
    lines = str(site.do(SHOWN, run=run)).splitlines()
    return next((line.strip() for line in lines if line.strip().startswith("disagreement")), "")


def test_slurm_counts_a_kill_for_memory_that_the_script_has_got_over_and_both_are_shown(
    confining: Box,
) -> None:
    """To the agent it ended well, by its exit code; to Slurm any kill in it is OUT_OF_MEMORY."""
    site = Login(confining)
    run = site.submit(f"""job("{hungry(400)} || true", memory="100 MiB")""")
    assert site.wait(run) == [("COMPLETED", "")]

    sentence = "Slurm says OUT_OF_MEMORY, signal 125; the agent says COMPLETED, exit code 0"
    assert final(site, run)["disagreements"] == [sentence]
    assert sentence in shown(site, run)
    assert site.wait(run) == [("COMPLETED", "")], "a final state never changes"


def test_slurm_loses_a_node_before_it_hears_of_the_end_and_both_accounts_are_shown(
    login: Login,
) -> None:
    """The end is on disk; what would tell Slurm of it stands still, and dies with its node."""
    run = login.submit(f'job("{UNTIL_GATE}")')
    eventually(login.ledger, PATIENCE)
    start = json.loads(login.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))
    node = start["owner"]["host"]
    login.box.hosts.run(node, "pkill", "-STOP", "slurmstepd")
    login.open_gate()
    eventually(lambda: login.read(f"ws/runs/{run[:-6]}/attempts/0.1.end"), PATIENCE)
    login.box.kill_node(node)
    job = login.queue_id(run)
    try:
        eventually(lambda: "NODE_FAIL" in accounted(login.box, job, "State"), PATIENCE)
    finally:
        login.box.revive_node(node)

    assert login.wait(run) == [("COMPLETED", "")]
    sentence = "Slurm says NODE_FAIL, exit code 1; the agent says COMPLETED, exit code 0"
    assert sentence in final(login, run)["disagreements"]
    assert sentence in shown(login, run)


def test_without_accounting_runs_are_final_on_record_at_once_and_have_no_figures_of_it(
    login_without_accounting: Login,
) -> None:
    site = login_without_accounting
    run = site.submit("job('true')")
    assert site.wait(run) == [("COMPLETED", "")]
    found = final(site, run)
    assert (found["lives"], found["awaited"], found["queue"]) == ([], None, ["queue and events"])


def test_while_the_database_is_down_nothing_is_lost_and_what_comes_later_is_recorded(
    login: Login,
) -> None:
    login.box.stop_database()
    try:
        run = login.submit("job('true')")
        assert login.wait(run) == [("COMPLETED", "")]
        found = login.do(RECORD, run=run)
        assert (found["state"], found["final"], found["lives"]) == ("COMPLETED", False, [])
        assert "accounting did not answer" in found["awaited"]
        marks = login.do(COMPARED, runs=[run])["marks"]
        assert any("accounting did not answer" in mark for mark in marks)
    finally:
        login.box.start_database()

    (life,) = final(login, run)["lives"]
    assert (life["state"], life["runs"]) == ("COMPLETED", 1)
