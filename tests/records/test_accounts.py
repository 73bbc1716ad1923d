"""What a queue's accounting has of runs, on record beside what their agents say."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

import hpcml
from hpcml import accounts, records
from hpcml.cli import cli
from hpcml.errors import QueueError
from hpcml.records import ingesting
from hpcml.records.gathering import Figure
from hpcml.records.model import AttemptRecord, Record
from hpcml.schedulers import Accounted, Chunk
from hpcml.schedulers.process import ProcessScheduler
from tests.byhand import ByHand
from tests.cli.test_shapes import check
from tests.comparison.known import energy, record, table
from tests.records.telling import NOW, events, log

Answer = dict[int, Sequence[Accounted]] | None | QueueError


def life(**fields: Any) -> Accounted:
    """An allocation that one run had for itself, and that ended well long ago."""
    usual: dict[str, Any] = {
        "source": "slurm",
        "job": "7",
        "runs": 1,
        "state": "COMPLETED",
        "meaning": "COMPLETED",
        "exit_code": 0,
        "signal": 0,
        "submitted": NOW - 5,
        "eligible": NOW - 4,
        "started": NOW - 1,
        "ended": NOW + 9,
        "elapsed": 10.0,
        "cpus": 8,
        "nodes": 1,
        "hosts": "cpu1",
        "max_rss": 3 << 20,
        "joules": 2739.0,
        "covered": 10.0,
        "alone": True,
    }
    return Accounted(**usual | fields)


class Asked:
    """An accounting that says what a test says, of all chunks; it counts how often it is asked."""

    def __init__(self) -> None:
        self.answer: Answer = {}
        self.times = 0

    def facts(self, chunks: Sequence[Chunk]) -> Any:
        self.times += 1
        if isinstance(self.answer, QueueError):
            raise self.answer
        return None if self.answer is None else {it.name: self.answer for it in chunks}


@pytest.fixture
def accounting(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(ProcessScheduler, "facts", lambda _, chunks: asked.facts(chunks))
    return asked


@pytest.fixture
def made(unserved: None) -> Callable[..., ByHand]:
    """Runs that the queue has taken, and that have ended."""

    def make(count: int = 1, *, restarts: Sequence[int] = (0,), job: str = "7") -> ByHand:
        batch = ByHand([{"n": n} for n in range(count)])
        batch.queue()
        for index in range(count):
            told = b""
            for attempt, life in enumerate(restarts, 1):
                allocation = {"job": job, "restarts": life}
                assert batch.attempts.start(index, attempt, allocation=allocation)
                told += events(log(loss=1.0), attempt=attempt)
                batch.end(index, attempt=attempt, requeue=attempt < len(restarts))
            batch.file("events.jsonl", index).write_bytes(told)
        batch.leave_the_queue()
        return batch

    return make


def the_one() -> Record:
    (found,) = records.find()
    return found


# --- on record --------------------------------------------------------------------------------


def test_what_the_accounting_says_is_on_record_and_the_time_in_the_queue_is_its_own(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made()
    accounting.answer = {0: [life(devices=4)]}
    assert hpcml.sync() == 1

    found = the_one()
    assert found.final and found.awaited is None
    assert found.allocations == (life(devices=4),)
    assert found.attempts[0].life == 1
    (queue,) = [it for it in found.figures if it.name == "queue"]
    assert queue == Figure("queue", 1, 4.0, "s", "slurm")
    assert hpcml.sync() == 0 and accounting.times == 1


def test_a_requeued_run_has_each_life_of_its_allocation_and_attempts_name_theirs(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made(restarts=(0, 2, 2))
    first = life(state="PREEMPTED", meaning="PREEMPTED")
    accounting.answer = {0: [first, replace(first, started=None, joules=None), life()]}
    hpcml.sync()

    found = the_one()
    assert [one.life for one in found.attempts] == [1, 3, 3]
    assert found.energy is not None and found.energy.joules == 2 * 2739.0


def test_an_attempt_in_an_allocation_that_the_accounting_does_not_know_is_in_none(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made(job="8")
    accounting.answer = {0: [life()]}
    hpcml.sync()
    assert the_one().attempts[0].life is None
    assert the_one().disagreements == ()


def test_one_query_asks_of_all_runs_of_all_batches_of_a_look(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made(3), made(2)
    accounting.answer = {index: [life()] for index in range(3)}
    assert hpcml.sync() == 5
    assert accounting.times == 1


# --- late, or silent --------------------------------------------------------------------------


def test_an_accounting_that_does_not_answer_is_a_warning_and_loses_nothing(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made()
    accounting.answer = QueueError("box: sacct says: Connection refused", "Try again.")
    with pytest.warns(UserWarning, match="Connection refused; what it has of 1 runs is asked for"):
        assert hpcml.sync() == 1
    found = the_one()
    assert (found.state, found.final, found.awaited) == ("COMPLETED", False, accounts.SILENT)
    assert found.allocations == ()
    with pytest.warns(UserWarning, match="Connection refused"):
        marks = hpcml.compare(found.id).marks
    assert f"1 of 1 run {accounts.SILENT}" in marks

    accounting.answer = {0: [life()]}
    assert hpcml.sync() == 1
    assert the_one().final and the_one().allocations == (life(),)


@pytest.mark.parametrize(
    "early",
    [
        {},
        {0: [life(state="RUNNING", meaning="", ended=None, joules=None)]},
        {0: [life(state="PREEMPTED", meaning="PREEMPTED"), life(meaning="", ended=None)]},
    ],
)
def test_what_the_accounting_does_not_have_yet_is_asked_for_again_and_nothing_is_read_meanwhile(
    accounting: Asked,
    made: Callable[..., ByHand],
    monkeypatch: pytest.MonkeyPatch,
    early: Answer,
) -> None:
    made()
    accounting.answer = early
    assert hpcml.sync() == 1
    assert (the_one().final, the_one().awaited) == (False, accounts.LATE)
    with monkeypatch.context() as patch:
        patch.setattr(ingesting, "_events", pytest.fail)
        assert hpcml.sync() == 0

    accounting.answer = {0: [life()]}
    assert hpcml.sync() == 1
    assert the_one().final


def test_an_accounting_that_falls_silent_takes_nothing_away_that_it_has_told(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made()
    early = life(joules=None, ended=time.time())
    accounting.answer = {0: [early]}
    hpcml.sync()
    accounting.answer = QueueError("box: sacct says: Connection refused", "Try again.")
    with pytest.warns(UserWarning, match="Connection refused"):
        assert hpcml.sync() == 0
    assert (the_one().allocations, the_one().final) == ((early,), False)


def test_energy_that_is_not_there_just_after_the_end_may_still_come(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made()
    accounting.answer = {0: [life(joules=None, ended=time.time())]}
    hpcml.sync()
    assert not the_one().final
    accounting.answer = {0: [life(joules=None)]}  # it ended long ago
    hpcml.sync()
    assert the_one().final


def test_after_a_week_nobody_waits_for_the_accounting_any_more(
    accounting: Asked, made: Callable[..., ByHand], monkeypatch: pytest.MonkeyPatch
) -> None:
    made()
    hpcml.sync()
    monkeypatch.setattr(accounts, "LATEST", 0.0)  # as if it had ended long ago
    hpcml.sync()
    assert the_one().final


def test_a_queue_without_accounting_is_not_waited_for(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    made()
    accounting.answer = None
    hpcml.sync()
    found = the_one()
    assert (found.final, found.allocations, found.awaited) == (True, (), None)


# --- energy -----------------------------------------------------------------------------------


def test_where_no_meter_of_ours_has_a_figure_the_accounting_s_is_the_run_s(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    (run,) = made().runs
    accounting.answer = {0: [life(covered=5.0)]}
    told = run.energy
    assert str(told) == "2.74 kJ (allocation, slurm), measured for 5.0 s of 10.0 s"
    assert (told.uncertainty, told.exclusive, told.coverage) == (None, True, 0.5)
    hpcml.sync()
    found = the_one().energy
    assert found is not None
    assert (found.joules, found.scope, found.source) == (2739.0, "allocation", "slurm")
    figures = hpcml.compare([run]).rows[0].figures
    assert {it.key: one.median for it, one in figures.items() if "energy" in it.key} == {
        "energy:allocation": 2739.0
    }
    assert accounting.times == 1, "of what has ended it is asked once"


def test_energy_and_memory_of_a_shared_allocation_are_no_run_s_own(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    batch = made(2)
    shared = life(runs=2, max_rss=1 << 40, exit_code=1, ended=time.time() + 1)
    accounting.answer = {0: [shared], 1: [shared]}
    hpcml.sync()

    for found in records.find():
        assert found.energy is not None and found.energy.joules is None
        assert found.energy.why.endswith(
            "slurm: 2.74 kJ are of an allocation of 2 runs, and no run's own"
        )
        assert found.disagreements == ()
        assert found.allocations[0].runs == 2
        assert [it.source for it in found.figures if it.name == "queue"] == ["queue and events"]
    table = hpcml.compare(batch.runs)
    assert not [it for it in table.columns if it.unit == "J"]


def test_an_accounting_that_does_not_answer_is_why_there_is_no_energy(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    (run,) = made().runs
    accounting.answer = QueueError("box: sacct says: no", "Try again.")
    assert run.energy.why.endswith("; box: sacct says: no")


# --- disagreement -----------------------------------------------------------------------------


def attempt(**fields: Any) -> AttemptRecord:
    usual: dict[str, Any] = {
        **{"number": 1, "started": NOW, "ended": NOW + 8, "exit_code": 0, "signal": None},
        **{"cause": None, "reason": None, "requeued": False, "host": {}, "life": 1},
    }
    return AttemptRecord(**usual | fields)


def judged(of: dict[str, Any], attempt_: AttemptRecord | None = None, **fields: Any) -> list[str]:
    found = record(attempts=(attempt_ or attempt(),), allocations=(life(**of),), **fields)
    return list(found.disagreements)


FAILED = {"state": "FAILED", "meaning": "FAILED", "exit_code": 1}


def test_where_both_say_the_same_there_is_nothing_to_say() -> None:
    assert judged({}) == []
    ended = attempt(exit_code=3)
    assert judged({**FAILED, "exit_code": 3}, ended, state="FAILED") == []
    killed = attempt(exit_code=None, signal=9)
    assert judged({**FAILED, "exit_code": 137}, killed, state="FAILED") == []
    assert judged({**FAILED, "exit_code": 0, "signal": 9}, killed, state="FAILED") == []


def test_another_state_or_exit_code_is_told() -> None:
    assert judged(FAILED) == [
        "Slurm says FAILED, exit code 1; the agent says COMPLETED, exit code 0"
    ]
    assert judged({"state": "NODE_FAIL", "meaning": "NODE_FAIL", "signal": 9}) == [
        "Slurm says NODE_FAIL, signal 9; the agent says COMPLETED, exit code 0"
    ]
    assert judged(FAILED, attempt(exit_code=3), state="FAILED") == [
        "Slurm says FAILED, exit code 1; the agent says FAILED, exit code 3"
    ]


def test_a_cause_that_only_the_agent_could_see_is_no_disagreement() -> None:
    ended = attempt(exit_code=None, signal=9, cause="memory")
    assert judged(FAILED, ended, state="OUT_OF_MEMORY") == []


def test_an_attempt_that_is_not_within_its_allocation_is_told() -> None:
    assert judged({"started": NOW + 10, "ended": NOW + 2}) == [
        "by its agent attempt 1 began 10 s before its allocation by Slurm",
        "by its agent attempt 1 ended 6 s after its allocation by Slurm",
    ]
    assert judged({"started": NOW + 2, "ended": NOW + 6}) == [], "whole seconds, and two clocks"


def test_more_memory_than_the_agent_saw_is_told_and_less_is_not() -> None:
    peak = float(1 << 30)
    assert judged({"max_rss": 2 << 30}, peak_memory=peak) == [
        "Slurm saw 2.0 GiB of memory in use; the agent 1.0 GiB at most"
    ]
    for seen in (1 << 20, (1 << 30) + (100 << 20)):
        assert judged({"max_rss": seen}, peak_memory=peak) == []


def test_whole_nodes_that_used_less_than_a_part_of_one_are_told() -> None:
    ours = energy(9000.0, seconds=100.0, covered=100.0)
    assert judged({"joules": 2739.0}, energy=ours) == [
        "Slurm says 2.74 kJ of the whole nodes; hpcml's own meter 9 kJ (cpu)"
    ]
    assert judged({"joules": 9e4}, energy=ours) == []


def test_show_prints_both_accounts_of_a_run_and_where_they_disagree(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    (run,) = made().runs
    now = time.time()
    accounting.answer = {0: [life(**FAILED, started=now - 9, submitted=now - 12, ended=now + 1)]}
    shown = CliRunner().invoke(cli, ["show", run.id]).output.splitlines()

    assert shown[0].startswith(f"{run.id}  true n=0  COMPLETED")
    told = [line.split(maxsplit=1)[0] for line in shown[1:]]
    assert told == ["attempt", "allocation", "energy", "disagreement"]
    assert "in allocation 1" in shown[1]
    assert "slurm: FAILED, exit code 1; in the queue 3 s; lasted 10 s; 1 node, 8 CPUs;" in shown[2]
    assert shown[3].endswith("2.74 kJ (allocation, slurm)")
    assert shown[4].endswith(
        "Slurm says FAILED, exit code 1; the agent says COMPLETED, exit code 0"
    )

    (data,) = check("show", CliRunner().invoke(cli, ["show", "--json", run.id]).output)
    assert len(data["disagreements"]) == 1
    assert data["allocations"][0]["joules"] == data["energy"]["joules"] == 2739.0
    assert run.state == "COMPLETED", "nothing follows from it"


def test_a_life_shorter_than_a_second_is_not_shown_as_none(
    accounting: Asked, made: Callable[..., ByHand]
) -> None:
    (run,) = made().runs
    now = time.time()
    short = {"started": now, "submitted": now, "ended": now, "elapsed": 0.0, "joules": 60.0}
    accounting.answer = {0: [life(**{**FAILED, **short, "covered": 0.0})]}
    shown = CliRunner().invoke(cli, ["show", run.id]).output

    assert "in the queue less than 1 s; lasted less than 1 s;" in shown
    assert "60 J in less than 1 s" in shown


def test_a_comparison_says_of_how_many_runs_there_are_two_accounts() -> None:
    odd = record(attempts=(attempt(),), allocations=(life(**FAILED),))
    said = "the site's accounting disagrees with 1 of 2 runs: `hpcml show` says in what"
    assert said in table(odd, record(1)).marks


def test_a_run_of_a_site_without_accounting_is_recorded_without_a_word() -> None:
    ByHand().end()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hpcml.sync()
    assert the_one().disagreements == ()
