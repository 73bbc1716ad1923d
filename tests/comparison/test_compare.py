"""What a comparison says of runs with known figures, and what it marks."""

from __future__ import annotations

import dataclasses
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import records
from hpcml.comparison import Column
from hpcml.errors import ArgumentError, RunNotFoundError
from hpcml.records.model import AttemptRecord
from tests.byhand import ByHand
from tests.comparison.known import (
    NODE,
    energy,
    phase,
    placed,
    python,
    record,
    software,
    table,
    widths,
)
from tests.records.telling import ended, log

NO_REPEATS = "no row has repeats: how much its figures vary is not known"


def figure(found: hpcml.comparison.Table, kind: str, name: str = "", row: int = 0) -> Any:
    return found.rows[row].figures.get(Column(kind, name))


# --- from the sites, by way of the records ----------------------------------------------------


def test_runs_of_a_real_sweep_are_compared_by_what_they_told(
    script: Callable[..., str], project: Path
) -> None:
    train = script(
        """
        import hpcml
        p = hpcml.params(width=1, seed=0)
        hpcml.describe(model=f"conv-{p.width}", precision="float32", global_batch=8)
        with hpcml.phase("train"):
            with hpcml.phase("epoch"):
                for step in range(3):
                    hpcml.log(step=step, samples=10, loss=p.width / (step + 1))
        """
    )
    (project / "data.csv").write_text("1,2\n")
    job = hpcml.Job(train, inputs={"data": "data.csv"})
    runs = hpcml.submit(job.sweep(width=[3, 6], seed=[0, 1])).wait(60)

    found = hpcml.compare(runs, by="width")

    assert [row.group for row in found.rows] == [{"width": 3}, {"width": 6}]
    assert [(row.n, row.left_out) for row in found.rows] == [(2, 0), (2, 0)]
    assert [figure(found, "metric", "loss", row).median for row in (0, 1)] == [1.0, 2.0]
    commands = sorted(run.timeline.command or 0 for run in runs[:2])
    assert figure(found, "command").median == pytest.approx(sum(commands) / 2)
    assert [point.id for point in found.points] == [run.id for run in runs]
    (rate,) = (point.figures[Column("rate", "epoch")] for point in found.points[:1])
    assert rate == runs[0].timeline.samples_per_second["epoch"]
    phases = found.points[0].record.phases
    assert phases["train"].own == runs[0].timeline.own["train"]
    assert phases["epoch"].own == phases["epoch"].seconds
    assert "model differs: conv-3 (width=3); conv-6 (width=6)" in found.marks
    assert "within rows, runs differ in: seed" in found.marks
    assert not any(mark.startswith(("data", "precision", "code")) for mark in found.marks)
    assert str(found).count("conv-3") == 2 and "! model differs" in str(found)


def test_just_the_batches_that_are_asked_for_are_recorded() -> None:
    asked, other = ByHand([{"n": n} for n in range(2)]), ByHand()
    for batch in (asked, other):
        batch.end()
    asked.end(1)
    hpcml.sync()  # an empty database would be made from all there is
    late, unasked = ByHand(name="late"), ByHand(name="unasked")
    for batch in (late, unasked):
        batch.end()

    ids = [run.id for run in asked.runs]
    (of_late,) = late.runs
    given = [of_late, ids[1], asked.batch.id, records.find(id=ids[0])[0], ids[1]]

    assert [point.id for point in hpcml.compare(given).points] == [of_late.id, ids[1], ids[0]]
    assert records.find(batch=unasked.batch.id) == []
    assert [point.id for point in hpcml.compare(of_late.id).points] == [of_late.id]


def test_a_run_that_has_gone_on_since_it_was_recorded_is_looked_at_again(unserved: None) -> None:
    batch = ByHand()
    batch.queue()
    hpcml.sync()
    (before,) = records.find()
    ended(batch, 0, log(loss=1.0))
    for given in (before, before.id, batch.runs[0]):
        assert figure(hpcml.compare(given), "metric", "loss").median == 1.0


def test_what_rows_go_by_stands_in_their_labels_even_if_all_have_the_same() -> None:
    runs = [record(n, params={"width": 8, "seed": n}) for n in range(3)]
    assert [row.label for row in table(*runs, by=["width"]).rows] == ["width=8"]
    assert [row.label for row in table(runs[0]).rows] == ["train"]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no runs"):
        hpcml.compare([])
    with pytest.raises(RunNotFoundError, match=r"no run 20200101-000000-nobody\.00000 on record"):
        hpcml.compare("20200101-000000-nobody.0")
    with pytest.raises(ArgumentError, match="did you mean 'width'"):
        table(*widths(1), by=["wdth"])


def test_ten_thousand_runs_take_ten_times_as_long_to_compare_as_a_thousand() -> None:
    def cost(count: int, rounds: int = 1) -> float:
        runs = widths(*range(count), metrics={"loss": 1.0})
        taken = []
        for _ in range(rounds):
            began = time.process_time()
            found = table(*runs)
            texts = (str(found), found.to_csv(), found.to_json(), found.to_markdown())
            taken.append(time.process_time() - began)
            assert len(found.rows) == count
            assert all(texts) and f"{count - 60} more rows" in texts[0]
            assert found._repr_html_()
        return min(taken)

    small = cost(1000, 3)
    assert cost(10_000) < 3 * 10 * small


def test_runs_that_were_pruned_from_their_site_are_compared_from_the_records(
    workspace: Path,
) -> None:
    batch = ByHand([{"n": n} for n in range(2)])
    for n in range(2):
        ended(batch, n, log(n, loss=float(n)))
    before = hpcml.compare(batch.runs)
    shutil.rmtree(workspace / "runs")
    after = hpcml.compare([run.id for run in batch.runs])
    assert (after.rows, after.marks) == (before.rows, before.marks)


def test_runs_under_way_have_no_part_in_the_figures(unserved: None) -> None:
    batch = ByHand([{"n": n} for n in range(3)])
    batch.queue()
    ended(batch, 0, log(0, loss=1.0))
    batch.start(1)
    found = hpcml.compare(batch.runs)
    assert [point.counted for point in found.points] == [True, False, False]
    assert "2 of 3 runs left out of all figures: 1 PENDING, 1 RUNNING" in found.marks


def test_a_run_that_told_more_than_could_be_written_has_no_figures_of_what_it_told(
    script: Callable[..., str],
) -> None:
    train = script(
        """
        import os, resource, time
        import hpcml, hpcml.injob
        hpcml.injob.PAUSE = 10**7
        with hpcml.phase("train"):
            hpcml.log(step=0, samples=10, loss=1.0)
            limits = os.path.getsize(hpcml.injob._sink.path), resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # the disk is full
            for step in range(400):
                hpcml.log(step=step, samples=10, loss=0.5, text="y" * 8000)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits[1:] * 2)
        time.sleep(0.01)
        with hpcml.phase("validate"):
            hpcml.log(step=1, loss=0.25)
        """
    )
    run = hpcml.submit(train).wait(60)

    found = hpcml.compare(run)
    (point,) = found.points
    (lost,) = (one for one in point.record.figures if one.name == "events_lost")
    assert run.state == "COMPLETED" and lost.value == point.record.events_lost > 300
    told = {"phase", "rate", "metric", "first_step", "phase_energy", "per_joule"}
    assert not told & {column.kind for column in point.figures}
    assert Column("command") in point.figures
    said = f"{lost.value:.0f} events or more of 1 of 1 run could not be written: phases, "
    assert any(mark.startswith(said) for mark in found.marks), found.marks
    assert f"{lost.value:.0f} events or more could not be written" in str(run.timeline)
    assert set(run.timeline.samples_per_second.values()) == {None}
    with pytest.warns(UserWarning, match="events or more could not be written"):
        assert run.metrics["loss"] == 0.25
    assert found.plot("phases")


def test_a_phase_that_was_not_left_has_no_figure(script: Callable[..., str]) -> None:
    """It was open when the process ended: when the work in it was over is not known."""
    train = script(
        """
        import os, hpcml
        with hpcml.phase("load"):
            pass
        hpcml.phase("train").__enter__()
        hpcml.log(step=0, samples=500, loss=0.5)
        os._exit(0)
        """
    )
    run = hpcml.submit(train).wait(60)

    found = hpcml.compare(run)
    assert [c.key for c in found.columns if c.kind in ("phase", "rate")] == ["phase:load"]
    assert "phases that did not end are left out: train (1) in 1 run" in found.marks
    assert figure(found, "metric", "loss").median == 0.5
    (line,) = (line for line in str(run.timeline).splitlines() if "train" in line)
    assert line.endswith("s (not ended)")
    assert "(not ended)" in run.timeline._repr_html_()
    assert found.plot("phases")


# --- rows and figures -------------------------------------------------------------------------


def test_repeats_of_a_job_share_a_row_and_other_points_have_their_own() -> None:
    found = table(*widths(8, 32, 8.0, True))
    assert [(row.label, row.n) for row in found.rows] == [
        ("width=8", 2),
        ("width=32", 1),
        ("width=true", 1),
    ]
    other = dataclasses.replace(record(9, params={"width": 8}), job_digest="f" * 64)
    labels = [row.label for row in table(*widths(8), other).rows]
    assert labels == ["train aaaaaaaa", "train ffffffff"]


def test_a_job_has_a_row_on_each_site() -> None:
    """They have the same digest; a median over two sites would be that of neither."""
    found = table(record(0), record(1, site="far"), record(2, site="far"))
    assert [(row.label, row.n) for row in found.rows] == [("train local", 1), ("train far", 2)]
    assert {row.job_digests for row in found.rows} == {("a" * 64,)}
    assert "site differs: local (train local); far (train far)" in found.marks


def test_runs_that_lack_a_parameter_have_a_row_that_says_so() -> None:
    runs = [record(0, params={"width": ""}), record(1), record(2, params={"lr": 1})]
    found = table(*runs, by=["width"])
    assert [(row.label, row.n) for row in found.rows] == [("width=", 1), ("no width", 2)]
    assert "rows differ in more than width: lr" in found.marks


def test_the_time_to_the_first_step_is_that_of_the_first_attempt() -> None:
    batch = ByHand([{"n": n} for n in range(3)])
    command = {"e": "command"}
    ended(batch, 0, command, {"e": "other"}, log(loss=9.0), log(0, loss=1.0), log(1, loss=1.0))
    ended(batch, 1, command, log(loss=9.0))
    ended(batch, 2, log(0, loss=1.0))
    points = hpcml.compare(batch.runs).points
    assert [point.figures.get(Column("first_step")) for point in points] == [3.0, None, None]


def test_phases_have_energy_and_samples_by_joule_where_they_are_known() -> None:
    train = dataclasses.replace(phase(10.0, 10.0, 0.0, 500), joules=250.0, covered=10.0)
    part = dataclasses.replace(train, covered=5.0)
    short = phase(1.0, 1.0, 2.0, 10)
    runs = [
        record(0, phases={"train": train, "save": short}),
        record(1, phases={"train": part}, energy=energy(9.0, scope="cpu+dram")),
        record(2, phases={"train": train}, energy=energy(None)),
    ]
    found = table(*runs)
    keys = [c.key for c in found.columns if c.kind in ("phase_energy", "per_joule")]
    assert keys == [
        "phase_energy:cpu:train",
        "phase_energy:cpu+dram:train",
        "per_joule:cpu:train",
    ]
    row = found.rows[0].figures
    assert row[Column("phase_energy", "train", "cpu")].median == 250.0
    assert row[Column("per_joule", "train", "cpu")].median == 2.0
    assert "samples/J cpu train" in str(found) and "energy cpu train (J)" in str(found)
    assert "energy of phases is of part of their time, at worst: train (50%)" in found.marks


def test_a_row_has_the_median_of_its_runs_and_all_points_are_kept() -> None:
    runs = [record(n, command=float(time)) for n, time in enumerate((1, 2, 3, 4, 5, 1000))]
    found = table(*runs)
    command = figure(found, "command")
    assert (command.n, command.median) == (6, 3.5)
    assert (command.low, command.high, command.level) == (1.0, 1000.0, 1 - 2 / 64)
    assert [point.figures[Column("command")] for point in found.points] == [1, 2, 3, 4, 5, 1000]
    assert "3.5 [1, 1000]" in str(found) and "96.9% for n=6" in str(found)


def test_a_run_that_is_not_completed_is_counted_and_gives_no_figures() -> None:
    runs = [record(0), record(1, state="FAILED", command=99.0), record(2, state="RUNNING")]
    found = table(*runs)
    assert (found.rows[0].n, found.rows[0].left_out) == (1, 2)
    assert figure(found, "command").median == 1.0
    assert "2 of 3 runs left out of all figures: 1 FAILED, 1 RUNNING" in found.marks
    assert "1 (1 FAILED, 1 RUNNING left out)" in str(found)
    nothing = table(record(0, state="FAILED"))
    assert nothing.columns == () and nothing.rows[0].figures == {}


def test_a_row_of_which_no_run_is_completed_is_shown_beside_the_others() -> None:
    found = table(*widths(8), record(1, params={"width": 32}, state="FAILED"))
    assert [(row.n, row.left_out) for row in found.rows] == [(1, 0), (0, 1)]
    for form in (str(found), found.to_markdown(), found.to_csv(), found._repr_html_()):
        assert "width=32" in form
    assert found.plot("phases") and found.plot("energy")


def test_what_is_not_known_of_all_attempts_is_missing_and_never_zero() -> None:
    twice = record(0).attempts * 2
    found = table(record(0, attempts=twice), record(1, command=None, peak_memory=None))
    assert [set(point.figures) & {Column("command"), Column("cpu")} for point in found.points] == [
        set(),
        {Column("cpu")},
    ]
    assert figure(found, "command") is None and figure(found, "memory") is None
    assert figure(found, "cpu").n == 1
    assert "2 (n=1)" in str(found)


def test_phases_stand_in_the_order_in_which_they_began() -> None:
    phases = {"b": phase(3.0, 1.0, 0.0, 30), "a": phase(2.0, 2.0, 0.5)}
    found = table(record(phases=phases))
    assert [c.key for c in found.columns if c.kind in ("phase", "rate")] == [
        "phase:b",
        "phase:a",
        "rate:b",
    ]
    assert figure(found, "rate", "b").median == 10.0


@pytest.mark.parametrize("odd", [math.nan, math.inf, "diverged", 10**400])
def test_a_metric_that_is_no_number_leaves_no_median_and_is_marked(odd: Any) -> None:
    found = table(record(0, metrics={"loss": 1.0}), record(1, metrics={"loss": odd}))
    assert figure(found, "metric", "loss").median is None
    (mark,) = (mark for mark in found.marks if mark.startswith("loss"))
    assert mark.startswith("loss is no finite double in 1 of 2 runs: ")
    assert "no median" in str(found)


def test_a_truth_value_counts_as_one_or_zero() -> None:
    """As it does in the records, and in their copy in MLflow."""
    found = table(*(record(n, metrics={"solved": value}) for n, value in enumerate([True, 0, 1])))
    assert figure(found, "metric", "solved").median == 1.0
    assert not any(mark.startswith("solved") for mark in found.marks)


@pytest.mark.parametrize("count", [-100, "12", True, math.inf, math.nan, [12]])
def test_samples_that_are_no_count_become_no_rate(script: Callable[..., str], count: Any) -> None:
    batch = ByHand()
    begin, finish = ({"e": kind, "phase": "train"} for kind in ("begin", "finish"))
    ended(batch, 0, begin, {**log(0, loss=1.0), "samples": count}, finish)
    found = hpcml.compare(batch.runs)
    assert figure(found, "phase", "train").median == 2.0
    assert figure(found, "rate", "train") is None
    said = "1 of its sample counts are no numbers from 0 up"
    assert found.points[0].record.unread == said
    assert any("told something that cannot be read" in mark for mark in found.marks)


# --- marks ------------------------------------------------------------------------------------


def test_runs_that_have_everything_in_common_are_not_marked() -> None:
    assert table(*(record(n) for n in range(6))).marks == ()
    assert table(*widths(8, 32)).marks == (NO_REPEATS,)


DIFFERENT: list[tuple[dict[str, Any], str]] = [
    ({"described": {"model": "unet"}}, "model differs: conv (width=8); unet (width=32)"),
    ({"described": {"precision": "bf16"}}, "precision differs: float32 (width=8); bf16"),
    ({"described": {"global_batch": 32}}, "global batch differs: 16 (width=8); 32 (width=32)"),
    ({"described": {"devices": 4}}, "devices differs: 0 (width=8); 4 (width=32)"),
    ({"what": placed(cpus=2)}, "cpus differs: 1 (width=8); 2 (width=32)"),
    ({"what": {"code": "0ther" * 12}}, "code differs: c0dec0dec0de (width=8); 0ther0ther0t"),
    ({"used": {"t2m": records.gathering.Use("ffff" * 16, True)}}, "data differs: t2m da7ada7ada7a"),
    ({"site": "far"}, "site differs: local (width=8); far (width=32)"),
    ({"events": (python("3.12.1"),)}, "Python differs: 3.11.7 (width=8); 3.12.1 (width=32)"),
    ({"events": (python(prefix="/env"),)}, "Python prefix differs: /usr (width=8); /env"),
]


@pytest.mark.parametrize(("fields", "mark"), DIFFERENT)
def test_what_differs_is_shown_and_marked(fields: dict[str, Any], mark: str) -> None:
    found = table(record(0, params={"width": 8}), record(1, params={"width": 32}, **fields))
    assert any(one.startswith(mark) for one in found.marks), found.marks
    name = mark.partition(" differs")[0]
    assert found.differing == (name,)
    header, _ = hpcml.comparison.showing.grid(found)
    assert name in header


def test_two_nodes_have_twice_the_cpus() -> None:
    runs = record(0, params={"width": 8}), record(1, what=placed(nodes=2), params={"width": 32})
    found = table(*runs)
    assert found.differing == ("nodes", "cpus")
    assert "nodes differs: 1 (width=8); 2 (width=32)" in found.marks


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"described": {"model": None}}, "model"),
    ({"what": {"inputs": {}}}, "data"),
    ({"used": {}}, "data"),
    ({"what": {"code": None}}, "code"),
    ({"attempts": ()}, "CPU"),
    ({"events": ()}, "Python"),
]


@pytest.mark.parametrize(("fields", "name"), UNKNOWN)
def test_what_was_not_told_counts_as_unknown(fields: dict[str, Any], name: str) -> None:
    some = table(record(0), record(1, **fields))
    assert f"{name} is not known of 1 of 2 runs" in some.marks and name in some.differing
    (mark,) = (mark for mark in table(record(0, **fields)).marks if mark.startswith("not known"))
    assert name in mark.partition(": ")[2].split(", ")


def test_versions_of_what_was_imported_are_compared_where_any_were_told() -> None:
    one, other = (software(torch=version, numpy="1.26") for version in ("2.1", "2.2"))
    found = table(record(0, events=(python(), one)), record(1, events=(python(), other)))
    assert found.rows[0].aspects["software"] == ("numpy 1.26, torch 2.1", "numpy 1.26, torch 2.2")
    assert any(mark.startswith("software differs, within rows as well: ") for mark in found.marks)
    some = table(record(0, events=(python(), one)), *widths(8))
    assert "software is not known of 1 of 2 runs" in some.marks and "software" in some.differing
    assert "software" not in table(record(0)).rows[0].aspects


def test_the_python_of_a_run_is_what_it_says_of_itself_by_whatever_name_it_was_started(
    project: Path, script: Callable[..., str], home: Path
) -> None:
    """The name of an interpreter may be a link: to the same one, or to another one tomorrow."""
    script("import hpcml, sys\nprint(sys.version_info[:3])")
    profile = home / "config" / "hpcml" / "sites" / "linked.yaml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    links = [project / name for name in ("python", "python3")]
    runs = []
    for link in links:
        link.symlink_to(sys.executable)
        profile.write_text(f"extends: local\nagent_python: {link}\n")
        runs.append(hpcml.submit("train.py", site="linked").wait(60))
    versions = {hpcml.compare(run).points[0].aspects["Python"] for run in runs}
    assert versions == {platform.python_version()}


@pytest.mark.parametrize("cards", [[{}], ["a card"], 3])
def test_accelerators_that_no_agent_would_tell_of_are_not_known(cards: Any) -> None:
    """A job can write a start of its own into its events."""
    host = {**NODE, "accelerators": cards}
    attempt = AttemptRecord(1, 0.0, 1.0, 0, None, None, None, False, host)
    found = table(record(attempts=(attempt,)))
    assert found.rows[0].aspects["accelerators"] == (None,)


def test_parameters_that_rows_do_not_go_by_are_marked() -> None:
    grid = [(8, 0, 1), (8, 1, 1), (32, 0, 2), (32, 1, 2)]
    runs = [
        record(n, params={"width": width, "seed": seed, "lr": lr})
        for n, (width, seed, lr) in enumerate(grid)
    ]
    found = table(*runs, by=["width"])
    assert "rows differ in more than width: lr" in found.marks
    assert "within rows, runs differ in: seed" in found.marks
    assert "too few runs for a confidence interval (6) in: width=8, width=32" in found.marks
    assert len(table(*runs, by=["width", "seed"]).rows) == 4


def test_energies_of_unlike_scopes_are_never_in_one_column() -> None:
    faked = energy(4.0, root="/fake")
    several = [energy(1.0), energy(2.0, scope="cpu+dram"), energy(None), faked, None]
    found = table(*(record(n, energy=one) for n, one in enumerate(several)))
    columns = [column.name for column in found.columns if column.kind == "energy"]
    assert columns == ["cpu", "cpu below /fake", "cpu+dram"]
    assert [figure(found, "energy", name).median for name in columns] == [1.0, 4.0, 2.0]
    assert figure(found, "coverage", "cpu").median == 1.0
    assert figure(found, "uncertainty", "cpu").median == 5.0
    listed = "cpu (1), cpu+dram (1), cpu below /fake (1)"
    assert f"energies of different scopes cannot be compared: {listed}" in found.marks
    assert "energy is not known of 2 of 5 runs: denied; nothing is on record" in found.marks


def test_an_energy_of_a_shared_machine_or_of_part_of_the_time_is_marked() -> None:
    part = energy(1.0, covered=0.5, exclusive=False)
    marks = table(record(0, energy=part), record(1)).marks
    assert "energy of 1 of 2 runs is the whole machine's, which others may use" in marks
    assert "energy of 1 of 2 runs is of part of the time: 50% at worst" in marks
