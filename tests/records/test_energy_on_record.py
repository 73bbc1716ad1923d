"""The energy of runs on record, and the schema that it came with."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import records
from hpcml.records import gathering
from tests.byhand import ByHand
from tests.records.telling import ended, log
from tests.unit.test_energy import attempt, domain, header, lines, readings, seconds, steady


def metered(times: Sequence[float]) -> ByHand:
    """A run of 100 s at 50 W, which was read at these times, and has ended just now."""
    batch = ByHand()
    begin, *rest = attempt()
    phase = [{"e": kind, "m": int(m * 1e9), "phase": "train"} for kind, m in MARKS]
    batch.file("events.jsonl").write_bytes(lines([begin, *rest[:-1], *phase, rest[-1]]))
    (batch.folder / "energy").mkdir()
    read = readings(steady(50.0), times=times)
    path = batch.folder / "energy" / "here.0.jsonl"
    path.write_bytes(lines([header(domain("package-0")), *read]))
    batch.end()
    return batch


MARKS = (("begin", 1010.0), ("finish", 1060.0))


def the_one() -> Any:
    (found,) = records.find()
    return found


def test_the_energy_of_an_ended_run_is_on_record_with_scope_and_uncertainty() -> None:
    (run,) = metered(seconds()).runs
    hpcml.sync()
    record, told = the_one(), run.energy
    found = record.energy
    assert found.joules == told.joules == pytest.approx(5000.0)
    assert (found.uncertainty, found.scope, found.coverage) == (told.uncertainty, "cpu", 1.0)
    assert (found.exclusive, found.why, found.root) == (False, "", "/")
    phase = record.phases["train"]
    assert phase.joules == told.phases["train"].joules == pytest.approx(2500.0)
    assert (phase.covered, phase.own) == (50.0, 50.0)
    assert phase.began == 11.0  # after the agent's start
    figures = hpcml.compare([run]).rows[0].figures
    assert {c.key: f.median for c, f in figures.items() if c.unit == "J"} == {
        "energy:cpu": found.joules,
        "uncertainty:cpu": found.uncertainty,
        "phase_energy:cpu:train": phase.joules,
    }


def test_where_there_is_no_energy_the_record_says_why() -> None:
    batch = ByHand([{"n": 0}, {"n": 1}])
    ended(batch, 0, log(loss=1.0))
    hpcml.sync()
    first, second = records.find()
    assert first.energy.joules is None
    assert first.energy.why == "there is no record of what was tried on its machine"
    assert second.energy is None, "it has not started"


def test_a_run_is_not_final_on_record_while_its_last_reading_may_still_come() -> None:
    times = seconds()
    batch = metered(times[:-3])
    hpcml.sync()
    early = the_one()
    assert (early.state, early.final) == ("COMPLETED", False)
    assert early.energy.coverage < 1
    table = hpcml.compare(batch.runs)
    assert "1 of 1 run ended just now: readings of energy may still come" in table.marks

    last = readings(steady(50.0), times=times[-3:])
    with (batch.folder / "energy" / "here.0.jsonl").open("ab") as file:
        file.write(lines(last))
    hpcml.sync()
    late = the_one()
    assert late.final and late.energy.coverage == 1.0
    assert hpcml.sync() == 0


def test_a_sampler_that_was_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "SETTLE", 0.0)  # as if it had ended long ago
    metered(seconds()[:-3])
    hpcml.sync()
    assert the_one().final and the_one().energy.coverage < 1


def test_records_of_the_first_schema_are_kept_and_know_no_energy(home: Path) -> None:
    ended(ByHand([{"n": 0}, {"n": 1}]), 0, log(loss=1.0))
    hpcml.sync()
    before = records.find()
    with sqlite3.connect(home / "state" / "hpcml" / "index.db") as connection:
        for table in ("allocations", "mirrored", "energies", "events"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("ALTER TABLE runs DROP COLUMN awaited")
        connection.execute("ALTER TABLE attempts DROP COLUMN life")
        for column in ("own", "began", "joules", "uncertainty", "covered"):
            connection.execute(f"ALTER TABLE phases DROP COLUMN {column}")
        connection.execute("UPDATE alembic_version SET version_num = 'r0001'")
    after = records.find()
    assert [(one.id, one.metrics) for one in after] == [(one.id, one.metrics) for one in before]
    assert [(one.energy, one.events) for one in after] == [(None, ()), (None, ())]
    table = hpcml.compare(after[0])
    assert "energy is not known of 1 of 1 run: nothing is on record" in table.marks
