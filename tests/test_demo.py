"""The demo does the main job on real data, as ``make demo`` starts it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import zarr

import hpcml
from hpcml.comparison.showing import number

EXAMPLE = Path(__file__).parents[1] / "examples" / "temperature"
LIMIT = 180  # seconds on two cores, installation not counted


def test_emulators_are_trained_on_real_data_and_forecast_another_scenario(tmp_path: Path) -> None:
    folder = tmp_path / "temperature"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))

    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "demo.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    took = time.monotonic() - began

    assert done.returncode == 0, done.stdout + done.stderr
    assert took < LIMIT
    runs = hpcml.runs()
    trained, inferred = runs[:2], runs[2:]
    assert [run.params["width"] for run in trained] == [8, 32]
    assert [run.state for run in runs] == ["COMPLETED"] * 4
    for run in trained:
        assert run.output("model.pt").stat().st_size > 1000
        assert run.metrics["test_loss"] < run.metrics["persistence_loss"]
        assert run.timeline.phases.keys() >= {"load", "train", "epoch", "validate", "save"}
        assert len(run.history("loss")) > 1
        # What the table shows is what was measured.
        rate = run.timeline.samples_per_second["epoch"]
        assert rate is not None and number(rate) in done.stdout
        assert number(run.timeline.phases["train"]) in done.stdout
        assert number(run.metrics["test_loss"]) in done.stdout
    for run, model in zip(inferred, trained, strict=True):
        assert run.metrics["test_loss"] < run.metrics["persistence_loss"]
        assert run.plan.what["inputs"]["model"] == {"of": f"{model.digest}#model.pt"}
        forecast = zarr.open_group(str(run.output("forecast.zarr")), mode="r")
        assert forecast["air_temperature"].shape == (30, 37, 49)
        assert number(run.metrics["test_loss"]) in done.stdout
    assert "! model differs: conv-8 (width=8); conv-32 (width=32)" in done.stdout
    for name in ("training.svg", "forecasts.svg"):
        assert f"xdg-open {folder / 'data' / name}" in done.stdout
        ElementTree.parse(folder / "data" / name)
    assert re.search(r"train width=8.*RUNNING", done.stderr), "progress while it runs"


def test_the_training_script_runs_by_hand_as_well(tmp_path: Path) -> None:
    """Outside a run it takes its defaults, and says what is missing."""
    shutil.copy(EXAMPLE / "train.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "prepare.py" in done.stderr and "Traceback" not in done.stderr
