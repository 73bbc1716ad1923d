"""The tutorial runs from top to bottom, and shows what its text promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient

import hpcml
from tests.notebook.pages import Page

TEXT = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


@pytest.fixture
def cells(project: Path) -> dict[str, list[Any]]:
    """The outputs of the tutorial's cells in a fresh home, by the first line of each cell."""
    notebook = jupytext.read(TEXT)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}})
    client.execute()
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {cell.source.splitlines()[0]: cell.outputs for cell in codes}


def test_the_tutorial_shows_what_it_says(cells: dict[str, list[Any]], project: Path) -> None:
    assert "train on local" in last_page(cells["import hpcml"])
    waited = cells["run = hpcml.submit(job)"]
    assert len(waited) == 2, "the live line, and the run"
    assert "COMPLETED" in waited[0]["data"]["text/plain"]
    assert "train ● COMPLETED" in last_page(waited) and "test_loss 1." in last_page(waited)
    told = cells["print(run.logs())"]
    assert "test loss 1." in printed(told) and "train " in last_page(told)

    swept = cells["runs = hpcml.submit(job.sweep(width=[1, 4, 16], seed=range(6)))"]
    assert len(swept) == 2 and "18 of 18 runs ended" in swept[0]["data"]["text/plain"]
    assert last_page(swept).startswith("18 runs ● 18 COMPLETED")
    table = last_page(cells['table = hpcml.compare(runs, by="width")'])
    assert "width=1 width=4 width=16" in table and "test_loss" in table
    assert "(96.9% for n=6)" in table and "! energy" in table
    plotted = cells['table.plot("phases")'][0]["data"]["image/svg+xml"]
    assert "<svg" in plotted and "train" in plotted

    forecast = printed(cells["def forecast(model, last_week):"]).splitlines()
    assert "width=16" in forecast[0]
    assert 270 < float(forecast[1].removesuffix(" K")) < 300
    failed = printed(cells['broken = hpcml.submit(job, params={"epochs": 20, "lr": 500.0}).wait()'])
    assert failed.startswith("FAILED - exit code 1") and "FloatingPointError" in failed
    both = last_page(cells['mended = hpcml.submit(job, params={"epochs": 20, "lr": 0.1}).wait()'])
    assert both.startswith("2 runs ● 1 COMPLETED ● 1 FAILED")

    lies = printed(cells['print(run.output("model.npz"))'])
    assert str(project.parent / "home") in lies and "['model.npz']" in lies
    again = printed(cells["found = hpcml.attach(run.id)"])
    assert again == "COMPLETED True\n22 runs in all\n"

    (batch,) = {run.id.rpartition(".")[0] for run in hpcml.runs() if "width" in run.params}
    narrow, _, wide = (row.figures for row in hpcml.compare([batch], by="width").rows)
    losses = hpcml.comparison.Column("metric", "test_loss")
    assert wide[losses].high < narrow[losses].low, "their intervals do not overlap"


def printed(outputs: list[Any]) -> str:
    """What a cell printed."""
    return "".join(one["text"] for one in outputs if one["output_type"] == "stream")


def last_page(outputs: list[Any]) -> str:
    """The text of the last HTML below a cell."""
    return Page(outputs[-1]["data"]["text/html"]).text
