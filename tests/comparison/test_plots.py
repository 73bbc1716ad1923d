"""Plots: what they show, read back from the SVG, and what they refuse to show."""

from __future__ import annotations

import dataclasses
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import records
from hpcml.comparison import Table
from hpcml.comparison.plotting import COLOURS
from hpcml.errors import ArgumentError, HpcmlError
from tests.byhand import ByHand
from tests.comparison.known import energy, phase, placed, record, table, widths
from tests.records.telling import ended, log
from tests.records.test_records import HOSTILE


def texts(path: Path) -> str:
    """All text of an SVG."""
    return " ".join(" ".join(ET.parse(path).getroot().itertext()).split())


def drawn(found: Table, kind: str, folder: Path, **options: Any) -> str:
    """The text of a plot, which is written as a PDF, too."""
    figure = found.plot(kind, folder / "plot.svg", **options)
    found.plot(kind, folder / "plot.pdf", **options)
    assert (folder / "plot.pdf").read_bytes().startswith(b"%PDF-")
    assert figure._repr_svg_().lstrip().startswith("<?xml")
    return texts(folder / "plot.svg")


def repeated(count: int = 6, **fields: Any) -> list[Any]:
    """Two widths, the larger of which takes three times as long."""
    return [
        record(
            n + 10 * width,
            params={"width": width, "seed": n},
            command=float((n + 1) * (1 if width == 8 else 3)),
            energy=energy(1000.0 * (n + 1) * (2 if width == 8 else 1)),
            **fields,
        )
        for width in (8, 32)
        for n in range(count)
    ]


def test_energy_is_drawn_over_time_with_the_pareto_front(tmp_path: Path) -> None:
    found = table(*repeated(), by=["width"])
    shown = drawn(found, "energy", tmp_path)
    for text in ("time of the command (s)", "energy, cpu (kJ)", "width=8 (n=6)", "Pareto front"):
        assert text in shown
    assert "confidence 96.9% or more" in shown
    axes = found.plot("energy").axes[0]
    (front,) = (line for line in axes.lines if line.get_label() == "Pareto front")
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == [(3.5, 7.0), (10.5, 3.5)]


def test_a_row_that_another_one_beats_in_both_is_not_on_the_front() -> None:
    runs = [
        record(n, params={"w": n}, command=time, energy=energy(joules))
        for n, (time, joules) in enumerate([(1.0, 30.0), (2.0, 40.0), (3.0, 20.0)])
    ]
    (front,) = (
        line
        for line in table(*runs).plot("energy").axes[0].lines
        if line.get_label() == "Pareto front"
    )
    assert list(front.get_xdata()) == [1.0, 3.0]


def test_only_energies_of_one_scope_are_drawn_and_the_others_are_told(tmp_path: Path) -> None:
    several = [energy(1.0), energy(2.0), energy(3.0, scope="cpu+dram"), energy(None)]
    runs = [record(n, params={"w": n}, energy=one) for n, one in enumerate(several)]
    shown = drawn(table(*runs), "energy", tmp_path)
    assert "2 runs without energy of this scope are left out" in shown and "w=2" not in shown


def test_without_any_energy_the_error_says_why() -> None:
    with pytest.raises(ArgumentError, match="no run has an energy: denied"):
        table(record(0, energy=energy(None))).plot("energy")


def test_phases_are_stacked_without_counting_any_time_twice(tmp_path: Path) -> None:
    phases = {"train": phase(6.0, 2.0, 0.0), "epoch": phase(4.0, 4.0, 1.0)}
    found = table(*widths(8, 32, command=7.0, phases=phases))
    shown = drawn(found, "phases", tmp_path)
    for text in ("(setup)", "train", "epoch", "(no phase)", "time (s)", "width=8 (n=1)"):
        assert text in shown
    bars = found.plot("phases").axes[0].patches
    assert [bar.get_width() for bar in bars if bar.get_y() < 0] == [1.0, 2.0, 4.0, 1.0]
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in bars}
    assert len(looks) == len({hatch for _, hatch in looks}) == 4, "told apart without colours, too"


def test_many_phases_have_a_legend_and_all_of_their_time() -> None:
    phases = {f"phase {n}": phase(n + 1.0, n + 1.0, float(n)) for n in range(30)}
    figure = table(record(phases=phases, command=500.0)).plot("phases")
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[-1] == "(17 others)" and "phase 29" in names and len(names) == 16
    assert sum(sum(bars) for bars in _widths(figure)) == pytest.approx(501.0)


def test_long_names_that_differ_at_their_end_are_told_apart() -> None:
    values = [f"a very long name of a data set, in version {n}" for n in range(3)]
    (legend,) = table(*widths(*values, name="data")).plot("energy").figure.legends
    assert len({text.get_text() for text in legend.get_texts()}) == 4


def test_a_bar_is_the_run_of_the_median_time() -> None:
    figure = table(*repeated(5), by=["width"]).plot("phases")
    widths = [sum(pair) for pair in zip(*_widths(figure), strict=True)]
    assert widths == [3.0 + 1.0, 9.0 + 1.0]  # and the setup


def _widths(figure: Any) -> list[list[float]]:
    return [[bar.get_width() for bar in group] for group in figure.axes[0].containers]


def scaled(*times: tuple[int, float], **fields: Any) -> list[Any]:
    return [
        record(n, what=placed(cpus=cpus), command=time, **fields)
        for n, (cpus, time) in enumerate(times)
    ]


def test_scaling_shows_the_ideal_line_and_states_its_base(tmp_path: Path) -> None:
    found = table(*scaled((1, 8.0), (2, 4.0), (4, 4.0)))
    shown = drawn(found, "scaling", tmp_path)
    for text in ("ideal", "cpus", "base 1 cpus, 8 s (n=1)", "runs (n=1)"):
        assert text in shown
    lines = found.plot("scaling").axes[0].lines
    assert [list(line.get_ydata()) for line in lines[:2]] == [[1, 2, 4], [1.0, 2.0, 2.0]]


def test_scaling_over_many_doublings_has_room_for_all_of_them() -> None:
    axes = table(*scaled(*((2**n, 1000.0 / 2**n) for n in range(8)))).plot("scaling").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(2**n) for n in range(8)]
    assert axes.get_xlim()[0] > 0


def test_a_plot_fits_into_a_column_of_a_paper_and_nothing_sticks_out() -> None:
    phases = {f"a phase with quite a long name {n}": phase(1.0, 1.0, float(n)) for n in range(9)}
    runs = [record(n, params={"width": n}, phases=phases, command=9.0 + n) for n in range(20)]
    found = table(*runs[:12]), table(*runs)
    figures = [one.plot(kind) for one in found for kind in ("energy", "phases")]
    figures.append(table(*scaled((1, 8.0), (2, 4.0), (4, 4.0))).plot("scaling"))
    for figure in figures:
        figure.draw_without_rendering()
        assert figure.get_size_inches()[0] == pytest.approx(8.5 / 2.54)
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.02 and box.y0 >= -0.02
        assert box.x1 <= width + 0.02 and box.y1 <= height + 0.02


def test_rows_are_told_apart_by_their_markers_as_well_as_by_colours() -> None:
    figure = table(*widths(*range(16), metrics={"loss": 1.0})).plot("energy")
    looks = {
        (line.get_color(), line.get_marker())
        for line in figure.axes[0].lines
        if str(line.get_label()).startswith("width=")
    }
    assert len(looks) == 16 and len({marker for _, marker in list(looks)}) == 8


def test_more_rows_than_can_be_named_are_drawn_alike_and_in_linear_time() -> None:
    """Each row and each run is there; ten times as many take ten times as long at most."""

    def cost(count: int) -> float:
        found = table(*(record(n, params={"a": n}, command=float(n + 1)) for n in range(count)))
        taken = []
        for _ in range(3):
            began = time.process_time()
            figure = found.plot("energy")
            taken.append(time.process_time() - began)
        (rows,) = (one for one in figure.axes[0].lines if one.get_label() == "rows")
        assert len(rows.get_xdata()) == count
        return min(taken)

    cost(100)  # loads what a plot needs
    assert cost(5000) < 3 * 10 * cost(500)


def test_scaling_is_over_what_differs_or_what_is_asked_for() -> None:
    with pytest.raises(ArgumentError, match="all runs have the same"):
        table(record(0), record(1)).plot("scaling")
    both = [record(0), record(1, what=placed(cpus=2, nodes=2))]
    with pytest.raises(ArgumentError, match=r"differ in cpus and nodes\n.*over='cpus'"):
        table(*both).plot("scaling")
    assert table(*both).plot("scaling", over="nodes").axes[0].get_xlabel() == "nodes"
    with pytest.raises(ArgumentError, match="did you mean 'nodes'"):
        table(*both).plot("scaling", over="node")


def test_histories_are_drawn_by_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ByHand([{"width": 8}, {"width": 32}])
    for n in (0, 1):
        steps = [log(step, loss=1.0 / (step + 1), accuracy=0.5) for step in range(3)]
        ended(batch, n, *steps, log(3, loss=float("nan")), log(4, loss=0.1), log(final=1.0))
    found = hpcml.compare(batch.runs)
    shown = drawn(found, "history", tmp_path)
    for text in ("loss", "accuracy", "step", "width=8 (n=1)", "a line a run"):
        assert text in shown
    assert "final" not in shown
    asked: list[str] = []
    original = records.histories
    monkeypatch.setattr(
        records, "histories", lambda runs, name: asked.append(name) or original(runs, name)
    )
    (axes,) = found.plot("history", metric="loss").axes
    assert asked == ["loss"], "one question for all runs"
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    assert len(lines) == 2 and list(lines[0].get_xdata()) == [0, 1, 2, 3, 4]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "x"] == [[2]] * 2
    with pytest.raises(ArgumentError, match="did you mean 'loss'"):
        found.plot("history", metric="lost")


def test_what_a_plot_of_histories_does_not_show_it_says(tmp_path: Path) -> None:
    batch = ByHand([{"n": n} for n in range(4)])
    steps = [log(step, loss=1.0, wild=float("inf")) for step in range(3)]
    ended(batch, 0, *steps, log(3, loss=float("nan")), log(4, loss=10**400))
    ended(batch, 1, *steps, log(3, once=1.0))
    ended(batch, 2, log(0, loss=2.0))
    ended(batch, 3, *steps, exit_code=1)
    found = hpcml.compare(batch.runs)
    plot = found.plot("history")
    (axes,) = plot.axes
    assert axes.get_ylabel() == "loss"
    (stop,) = (line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata()))
    assert list(stop.get_xdata()) == [2.0]
    (dot,) = (line for line in axes.lines if line.get_marker() == "." and len(line.get_xdata()))
    assert list(dot.get_ydata()) == [2.0]
    told = " ".join(plot.get_supxlabel().split())
    assert "1 run has values that are no finite doubles, next after a ×" in told
    assert "1 run left out: not COMPLETED" in told
    assert "1 metric without finite values" in told and "1 metric logged once" in told
    with pytest.raises(ArgumentError, match="'wild' more than once, with a finite value"):
        found.plot("history", metric="wild")


def test_all_values_of_all_runs_of_a_row_are_drawn() -> None:
    batch = ByHand([{"width": 8, "seed": seed} for seed in range(3)])
    for n in range(3):
        ended(batch, n, *(log(step, loss=float(n)) for step in range(50)))
    (axes,) = hpcml.compare(batch.runs, by="width").plot("history").axes
    line = axes.lines[0]
    values = [y for y in line.get_ydata() if y == y]
    assert values == [0.0] * 50 + [1.0] * 50 + [2.0] * 50
    assert sum(y != y for y in line.get_ydata()) == 2, "the pen is lifted between runs"


def test_hostile_names_are_drawn_as_text(tmp_path: Path) -> None:
    names = [*HOSTILE, "$\\frac{", "_hidden", "<b>"]
    phases = {name: phase(1.0, 1.0, float(n)) for n, name in enumerate(names)}
    runs = [record(n, params={"x": name}, phases=phases) for n, name in enumerate(names)]
    shown = drawn(table(*runs), "phases", tmp_path)
    assert "$\\frac{" in shown and "_hidden" in shown and "\\x1b[31mred" in shown


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    found = table(record(0))
    with pytest.raises(ArgumentError, match="did you mean 'phases'"):
        found.plot("phase")
    with pytest.raises(ArgumentError, match=r"\.pdf, \.png, \.svg"):
        found.plot("phases", tmp_path / "plot.doc")
    with pytest.raises(HpcmlError, match="cannot be written: No such"):
        found.plot("phases", tmp_path / "no" / "plot.pdf")
    with pytest.raises(ArgumentError, match="more than once"):
        found.plot("history")
    with pytest.raises(ArgumentError, match="no run is COMPLETED"):
        table(dataclasses.replace(record(0), state="FAILED")).plot("phases")


def test_the_colours_are_those_of_okabe_and_ito() -> None:
    assert len(set(COLOURS)) == 8 and "#0072B2" in COLOURS and "#D55E00" in COLOURS
