"""Jobs with a checkpoint go on: in the same allocation, in another one, after they gave way."""

from __future__ import annotations

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login
from tests.slurm.test_causes import UNTIL_GATE
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

ONCE_MORE = (
    "echo $SLURM_JOB_ID $SLURM_RESTART_COUNT >> $S/lives; "
    "[ -e saved ] || { touch saved; exit 144; }"
)
CHECKPOINT = "checkpoint=hpcml.Checkpoint(notice='1s')"


def lives(site: Login) -> list[str]:
    return site.read("lives").splitlines()


def test_a_run_that_leaves_early_goes_on_in_the_same_allocation(either: Login) -> None:
    run = either.submit(f'job("{ONCE_MORE}", {CHECKPOINT})')

    assert either.wait(run) == [("COMPLETED", "")]
    first, second = lives(either)
    assert first == second


def test_a_run_that_leaves_at_the_end_of_its_time_goes_on_in_another_allocation(
    login: Login,
) -> None:
    """Slurm waits two minutes before it starts a job again; an administrator need not."""
    job = f'job("sleep 40; {ONCE_MORE}", time="1m", {CHECKPOINT})'
    run = login.submit(job)
    eventually(lambda: "requeued" in login.state(run)[1], PATIENCE)
    login.box.hosts.run(
        "control", "scontrol", "update", f"JobId={login.queue_id(run)}_0", "StartTime=now"
    )

    assert login.wait(run, timeout=120) == [("COMPLETED", "")]
    assert [life.split()[1:] for life in lives(login)] == [[], ["1"]]


def test_a_run_with_a_checkpoint_that_gave_way_starts_again_as_another_attempt(
    login: Login,
) -> None:
    job = f'job("{UNTIL_GATE}", options={{"partition": "low"}}, {CHECKPOINT})'
    run = login.submit(job)
    eventually(lambda: login.ledger() == ["began"], PATIENCE)
    login.give_way(run)
    eventually(lambda: login.ledger() == ["began"] * 2, PATIENCE)
    login.open_gate()

    assert login.wait(run) == [("COMPLETED", "")]
    numbers = login.do(
        'tell([it.number for it in hpcml.attach(S["run"], "box").attempts])', run=run
    )
    assert numbers == [1, 2]
