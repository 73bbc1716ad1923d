"""What Slurm's accounting measured of runs."""

from __future__ import annotations

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

FACTS = """
    from hpcml.poller import poller
    batch, _, index = S["run"].rpartition(".")
    view = poller("box").view(batch)
    view.read_files()
    found = view.connection.queue.facts(view.chunks[0].chunk, [int(index)])
    tell([life.__dict__ for life in found.get(int(index), [])])
"""


def test_slurm_s_own_figures_of_a_run_are_at_hand(login: Login) -> None:
    for host in ("cpu1", "cpu2"):
        login.box.set_power(host, (60.0, 300.0))
    run = login.submit("job('sleep 4', nodes=2, tasks=2, cpus=8)")
    assert login.wait(run) == [("COMPLETED", "")]
    eventually(lambda: [it["state"] for it in login.do(FACTS, run=run)] == ["COMPLETED"], PATIENCE)

    (life,) = login.do(FACTS, run=run)
    assert life["submitted"] <= life["started"] <= life["ended"]
    assert life["elapsed"] >= 4
    assert life["resources"]["cpu"] == "16"
    assert life["nodes"] == "cpu[1-2]"
    assert life["max_rss"] > 0
    assert life["energy"] >= 600, "two nodes of 300 W, of one second at the very least"


def test_the_energy_of_a_run_without_srun_is_that_of_its_node(login: Login) -> None:
    for host in ("cpu1", "cpu2"):
        login.box.set_power(host, (60.0, 300.0))
    run = login.submit("job('sleep 4')")
    assert login.wait(run) == [("COMPLETED", "")]
    eventually(lambda: [it["state"] for it in login.do(FACTS, run=run)] == ["COMPLETED"], PATIENCE)

    assert login.do(FACTS, run=run)[0]["energy"] >= 300


def test_without_accounting_there_are_no_figures(login_without_accounting: Login) -> None:
    site = login_without_accounting
    run = site.submit("job('true')")
    assert site.wait(run) == [("COMPLETED", "")]
    assert site.do(FACTS, run=run) == []
