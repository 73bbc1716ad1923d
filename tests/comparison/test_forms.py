"""The forms of a comparison: what people and programs get, whatever names hold."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.comparison import showing
from hpcml.errors import HpcmlError
from tests.byhand import ByHand
from tests.cli.calling import on_a_terminal
from tests.comparison.known import energy, phase, record, table, widths
from tests.notebook.pages import Page
from tests.records.telling import ended, log
from tests.records.test_records import HOSTILE

GOLDEN = """\
|  | runs | model | command (s) | phase train (s) | samples/s train | loss | energy cpu (J) |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| width=8 | 1 (1 FAILED left out) | conv | 10 | 8 | 2 | 0.25 | 100 |
| width=32 | 1 | ? | 20 | – | – | NaN | – |

figures are the median of the completed runs

* 1 of 3 runs left out of all figures: 1 FAILED
* model is not known of 1 of 2 runs
* loss is no finite double in 1 of 2 runs: NaN (1)
* no row has repeats: how much its figures vary is not known
* energy is not known of 1 of 2 runs: denied
* of which part of its time the energy is, is not known of 1 of 2 runs
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
OTHERS = {"queue": None, "setup": None, "cpu_user": None, "peak_memory": None}


def small() -> hpcml.comparison.Table:
    known = energy(100.0, uncertainty=None, seconds=None)
    nothing: dict[str, Any] = {"described": {"model": None}, "energy": energy(None)}
    return table(
        record(
            0,
            params={"width": 8},
            command=10.0,
            phases={"train": phase(8.0, 8.0, 0.0, 16)},
            metrics={"loss": 0.25},
            energy=known,
            **OTHERS,
        ),
        record(1, params={"width": 8}, state="FAILED", reason="exit code 3", **OTHERS),
        record(
            2,
            params={"width": 32},
            command=20.0,
            metrics={"loss": float("nan")},
            **nothing,
            **OTHERS,
        ),
    )


def test_markdown_is_as_it_was() -> None:
    assert small().to_markdown() == GOLDEN


def test_whoever_measured_energy_is_named_under_the_table() -> None:
    one = table(record(0, energy=energy(100.0, source="slurm", scope="allocation")))
    assert showing.caption(one) == "figures are the median of the completed runs; energy by slurm"


def test_json_has_its_documented_shape_and_no_nan() -> None:
    text = small().to_json()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(data) == {"schema", "by", "columns", "rows", "points", "marks"}
    assert (data["schema"], data["by"]) == (1, None)
    key, named = {"key": "command", "kind": "command"}, {"name": "", "scope": ""}
    assert data["columns"][0] == {**key, **named, "unit": "s"}
    first, second = data["rows"]
    assert first["states"] == {"COMPLETED": 1, "FAILED": 1}
    assert (first["label"], first["group"], first["n"], first["left_out"]) == (
        "width=8",
        {"width": 8},
        1,
        1,
    )
    none = {"low": None, "high": None, "level": None}
    assert first["figures"]["command"] == {"n": 1, "median": 10.0, "others": {}, **none}
    assert second["figures"]["metric:loss"] == {
        "n": 1,
        "median": None,
        "others": {"NaN": 1},
        **none,
    }
    assert "energy:cpu" not in second["figures"] and second["aspects"]["model"] == [None]
    assert [point["counted"] for point in data["points"]] == [True, False, True]
    assert data["points"][1]["reason"] == "exit code 3"
    assert data["points"][2]["figures"] == {"command": 20.0, "metric:loss": "NaN"}
    assert data["points"][2]["no_energy"] == "denied"
    assert data["points"][0]["hosts"] == ["node1"]
    assert data["marks"] == list(small().marks)


def test_csv_and_data_frames_have_empty_cells_for_what_is_missing(tmp_path: Path) -> None:
    found = small()
    path = tmp_path / "table.csv"
    text = found.to_csv(path)
    assert path.read_bytes().decode() == text
    with pytest.raises(HpcmlError, match="cannot be written"):
        found.to_csv(tmp_path / "nowhere" / "table.csv")
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["param:width"], first["command"], first["command:low"]) == ("8", "10.0", "")
    assert (second["energy:cpu"], second["energy:cpu:n"]) == ("", "0")
    assert (second["metric:loss"], second["metric:loss:others"]) == ("", "1 × NaN")
    assert first["marks"] == "; ".join(found.marks)
    frame = found.to_pandas()
    assert list(frame.columns) == list(first)
    assert frame["command"].tolist() == [10.0, 20.0]
    assert frame["energy:cpu"].isna().tolist() == [False, True]
    assert frame.attrs["marks"] == list(found.marks)


def test_long_values_of_metrics_are_shortened_for_people_and_whole_for_programs() -> None:
    long, digits = "a long text " * 100, 10**399
    found = table(record(0, metrics={"note": long, "huge": digits}))
    for form in (str(found), found.to_markdown(), found._repr_html_()):
        assert long[:40] in form and long[:120] not in form
        assert "0" * 40 in form and "0" * 100 not in form
    assert long in found.to_csv() and str(digits) in found.to_csv()
    assert long in found.to_json() and str(digits) in found.to_json()


def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers() -> None:
    """Spreadsheets run what begins so; an apostrophe before it says that it is text."""
    evil = ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"]
    runs = [
        record(
            n,
            params={"x": text},
            place={"name": text},
            described={"model": text},
            metrics={text: text, "loss": -1.5},
        )
        for n, text in enumerate(evil)
    ]
    found = table(*runs, *widths("-1.5e3", -7, name="x"), by=["x"])
    cells = [cell for line in csv.reader(io.StringIO(found.to_csv())) for cell in line]
    starts = tuple("=+-@\t\r\uff1d")
    active = {cell for cell in cells if cell.startswith(starts)}
    assert active == {"-1.5", "-1.5e3", "-7"}, "numbers"
    assert "'=cmd|'/C calc'!A0" in cells and "'+1+1" in cells


def test_marks_stand_under_every_form() -> None:
    found = small()
    forms = (found.to_markdown(), found.to_json(), found.to_csv(), str(found), found._repr_html_())
    for form in forms:
        for mark in found.marks:
            assert mark in re.sub(r"\s+", " ", form)


def test_few_rows_stand_side_by_side_and_many_below_each_other() -> None:
    assert str(table(*widths(1, 2))).splitlines()[0].split() == ["width=1", "width=2"]
    lines = str(table(*widths(*range(9)))).splitlines()
    starts = [line.split()[0] for line in lines if line.startswith("width=")]
    assert starts == [f"width={n}" for n in range(9)]


def repeated(rows: int) -> hpcml.comparison.Table:
    """Rows of six runs each, so that all figures have intervals; the marks are long."""
    runs = [
        record(
            6 * n + seed,
            params={"lr": 0.0001 * n, "width": 8, "seed": seed},
            command=0.058213 * (1 + n + seed / 97),
            metrics={"loss": 0.00058242 * (1 + seed / 7), "validation/accuracy": 0.1 + seed / 13},
            described={"model": f"a model with a name of some length {n}"},
        )
        for n in range(rows)
        for seed in range(6)
    ]
    return table(*runs, by=["lr", "width"])


@pytest.mark.parametrize("rows", [2, 6, 12, 36])
@pytest.mark.parametrize("width", [40, 80, 120, 200, None])
def test_figures_and_marks_are_whole_on_a_terminal_of_any_width(
    rows: int, width: int | None
) -> None:
    found = repeated(rows)
    lines = [line for line, _ in showing.lines(found, width)]
    assert width is None or max(map(len, lines)) <= width
    together = " ".join(" ".join(lines).split())
    assert all(mark in together for mark in found.marks)
    assert showing.caption(found) in together
    for row in found.rows:
        for column, figure in row.figures.items():
            factor, _ = column.shown
            values = (figure.median, figure.low, figure.high)
            middle, low, high = (showing.number((one or 0.0) / factor) for one in values)
            assert f"[{low}, {high}]" in together
            assert re.search(rf"(?<![\d.]){re.escape(middle)}(?![\d.])", together)


def test_in_a_pipe_a_row_is_a_line_and_so_is_a_mark() -> None:
    found = repeated(36)
    lines = str(found).splitlines()
    assert len(lines) == 1 + 36 + 1 + len(found.marks)
    assert lines[-len(found.marks) :] == [f"! {mark}" for mark in found.marks]


def test_what_does_not_fit_beside_each_other_stands_below_it_with_the_rows_named_again() -> None:
    lines = [line for line, _ in showing.lines(repeated(6), 80)]
    parts = "\n".join(lines).split("\n\n")[:-1]
    assert len(parts) > 1
    assert all(part.count("lr=") == 6 for part in parts)


def test_the_command_shows_whole_marks_on_a_narrow_terminal() -> None:
    runs = hpcml.submit(hpcml.Job(["true"], code=None).sweep(n=[1, 2])).wait(60)
    found = hpcml.compare(runs)
    for columns in (40, 80):
        shown = on_a_terminal("compare", *(run.id for run in runs), columns=columns)
        assert max(map(len, COLOUR.sub("", shown).splitlines())) <= columns
        told = " ".join(COLOUR.sub("", shown).split())
        assert all(mark in told for mark in found.marks)


def test_a_row_of_which_no_run_has_completed_is_shown_without_figures() -> None:
    found = table(*widths(1, 2), *widths(3, state="FAILED"))
    assert found.to_markdown().count("| 0 (1 FAILED left out) |") == 1
    assert "0 (1 FAILED left out)" in str(found) and "width=3" in found._repr_html_()


def test_in_a_notebook_a_large_table_is_cut_and_says_so() -> None:
    many = {f"m{n}": float(n) for n in range(500)}
    found = table(*widths(*range(1000), metrics=many))
    page = Page(found._repr_html_())
    assert page.tags.count("tr") == 201 and page.tags.count("td") == 200 * 60
    assert "… and 800 more rows: to_csv() has all" in page.text
    assert "more figures: to_csv() has all" in page.text
    assert all(mark in page.text for mark in found.marks)


# --- hostile ----------------------------------------------------------------------------------


def hostile() -> hpcml.comparison.Table:
    names = [
        name[:50] for name in (*HOSTILE, "$\\frac{", "_hidden", "| a | b |", "\x9b31m", "a\nb")
    ]
    return table(
        *(
            record(
                n,
                place={"name": name},
                params={name: name},
                metrics={name: name if n % 2 else 1.0 for name in names},
                phases={name: phase(1.0, 1.0, 0.0) for name in names},
                described={"model": name},
            )
            for n, name in enumerate(names)
        )
    )


def test_no_name_gets_control_over_a_terminal() -> None:
    found = hostile()
    forms = (str(found), found.to_markdown(), found.to_csv(), found.to_json(), found._repr_html_())
    for form in forms:
        assert all(one.isprintable() or one in "\n\r" for one in form)
    assert "\\x1b[31mred\\x07" in found.to_csv()


def test_no_name_gets_into_the_html_or_breaks_a_table() -> None:
    found = hostile()
    page = Page(found._repr_html_())
    assert "<script>alert(1)</script>&amp;" in page.text
    lines = found.to_markdown().splitlines()[: len(found.rows) + 2]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(found.columns) + 4}
    assert "<script>" not in found.to_markdown()


def test_ten_thousand_runs_with_hostile_names_stay_text_in_html_and_on_a_terminal() -> None:
    """Each has a name of its own, in its label, parameters, metrics, and what it described."""
    runs = [
        record(
            n,
            place={"name": f"{HOSTILE[n % 8]}{n}"},
            params={HOSTILE[n % 8]: f"{HOSTILE[n % 8]}{n}"},
            metrics={HOSTILE[n % 8]: f"{HOSTILE[n % 8]}{n}"},
            described={"model": f"{HOSTILE[n % 8]}{n}"},
            reason=HOSTILE[n % 8],
            state="FAILED" if n % 9 == 0 else "COMPLETED",
        )
        for n in range(10_000)
    ]
    found = table(*runs)
    page = Page(found._repr_html_())
    assert "<script>alert(1)</script>&amp;" in page.text
    for form in (page.text, str(found), found.to_csv(), found.to_markdown(), found.to_json()):
        assert all(one.isprintable() or one in "\n\r" for one in form)


def test_hostile_names_go_all_the_way_from_a_job() -> None:
    batch = ByHand()
    told = [log(0, **dict.fromkeys(HOSTILE, 1.0)), {"e": "describe", "v": {"model": HOSTILE[1]}}]
    told += [{"e": kind, "phase": name} for name in HOSTILE for kind in ("begin", "finish")]
    ended(batch, 0, *told)
    found = hpcml.compare(batch.runs)
    assert {c.name for c in found.columns if c.kind == "metric"} == set(HOSTILE)
    assert "\x1b" not in str(found) + found.to_csv() + found._repr_html_()


# --- packages that may be missing -------------------------------------------------------------


@pytest.mark.parametrize("package", ["pandas", "matplotlib"])
def test_a_missing_package_is_named_with_what_brings_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "hpcml.comparison.plotting", raising=False)
    found = small()
    with pytest.raises(HpcmlError, match=rf"{package}'\n.*hpcml\[plot\]"):
        found.to_pandas() if package == "pandas" else found.plot("phases")


def test_comparing_loads_neither_pandas_nor_matplotlib() -> None:
    code = (
        "import sys, hpcml; hpcml.compare; "
        "assert not {'pandas', 'matplotlib', 'numpy', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
