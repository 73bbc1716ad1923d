"""The demo does the main job on real data, as ``hpcml demo`` starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import zarr
from pydantic import TypeAdapter

import hpcml
from hpcml.cli import shapes
from hpcml.cli.demo import FILES, NEEDED
from hpcml.comparison.figures import Column
from hpcml.comparison.showing import number
from tests.cli.calling import call
from tests.cli.test_shapes import strict
from tests.testbed.state import all_boxes

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "temperature"
ON_A_BOX = [sys.executable, "-m", "examples.box"]
LIMIT = 180  # seconds on two cores, installation not counted


def test_emulators_are_trained_on_real_data_and_forecast_another_scenario(tmp_path: Path) -> None:
    folder = tmp_path / "temperature"

    done = call("demo", "--to", str(folder), timeout=3 * LIMIT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the demo is in {folder}" in done.stderr
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


def test_the_demo_is_copied_whole_and_nothing_is_written_over(project: Path) -> None:
    """A stand-in for its slow part shows what is run, and how it ends."""
    folder = project / "hpcml-demo"
    folder.mkdir()
    (folder / "demo.py").write_text("import sys; print(open('train.py').read()[:3]); sys.exit(3)")
    done = call("demo")
    assert (done.returncode, done.stdout) == (3, '"""\n')
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=EXAMPLE, capture_output=True, text=True, check=True
    ).stdout.split()
    assert sorted(FILES) == sorted(tracked) == sorted(path.name for path in folder.iterdir())

    done = call("demo", "--json")
    assert json.loads(done.stdout) == {"folder": str(folder), "exit_code": 3}
    TypeAdapter(strict(shapes.Demo)).validate_json(done.stdout)


def test_a_folder_with_other_files_in_it_is_left_alone(project: Path) -> None:
    (project / "thesis.tex").write_text("")
    done = call("demo", "--to", str(project))
    assert done.returncode == 70 and "has other files in it" in done.stderr
    assert [path.name for path in project.iterdir()] == ["thesis.tex"]


def test_the_demo_knows_what_its_extra_installs() -> None:
    """Names of imports, and of distributions."""
    with (EXAMPLE.parents[1] / "pyproject.toml").open("rb") as file:
        extra = tomllib.load(file)["project"]["optional-dependencies"]["demo"]
    names = {re.split("[<>=]", one)[0].replace("-", "_") for one in extra}
    assert names == set(NEEDED)


def test_the_training_script_runs_by_hand_as_well(tmp_path: Path) -> None:
    """Outside a run it takes its defaults, and says what is missing."""
    shutil.copy(EXAMPLE / "train.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "prepare.py" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy of what ``make demo-box`` needs; each host of a box has a ``/tmp`` of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        for part in ("examples", "tests/testbed"):
            unmade = shutil.ignore_patterns("data", "home", "__pycache__")
            shutil.copytree(ROOT / part, Path(name, part), ignore=unmade)
        yield Path(name)


@pytest.mark.testbed
def test_the_same_demo_runs_on_a_supercomputer_over_ssh(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        ON_A_BOX, cwd=checkout, capture_output=True, text=True, timeout=5 * LIMIT, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "A supercomputer in a box is up" in done.stdout
    home = checkout / "examples" / "box" / "home"
    for name in ("training.svg", "forecasts.svg"):
        assert f"xdg-open {home / 'demo' / name}" in done.stdout
        ElementTree.parse(home / "demo" / name)
    left = [Path(path) for path in re.findall(r"left +(.*)", done.stdout)]
    assert [path.name for path in left] == ["model.pt"] * 2 + ["forecast.zarr"] * 2
    for path in left[:2]:
        assert path.stat().st_size > 1000
    for path in left[2:]:
        forecast = zarr.open_group(str(path), mode="r")
        assert forecast["air_temperature"].shape == (30, 37, 49)
    logs = [Path(path).read_text() for path in re.findall(r"logs +(.*)", done.stdout)]
    assert [text.split()[0] for text in logs] == ["test_loss"] * 4

    # The records outlive the box.
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "STATE", "CACHE", "DATA"):
        monkeypatch.delenv(f"XDG_{name}_HOME")
    found = hpcml.records.find()
    assert [(it.site, it.state) for it in found] == [("box", "COMPLETED")] * 4
    assert {it.what["scheduler"] for it in found} == {"slurm"}
    trained = found[:2]
    names, joules = by_sacct(done.stdout)
    assert len({one.batch for one in trained}) == 1 and len({one.batch for one in found}) == 3
    assert [names[task] for task in ("1_0", "1_1")] == [f"hpcml-{trained[0].batch}-0"] * 2
    assert names.keys() == joules.keys() and len(names) == 4
    assert {task.partition("_")[2] for task in names.keys() - {"1_0", "1_1"}} == {"0"}
    for one in found:
        assert one.energy is not None
        assert (one.energy.source, one.energy.scope) == ("slurm", "allocation")
        assert one.energy.exclusive is True
    assert sorted(one.energy.joules for one in found) == sorted(joules.values())
    for command in re.findall(r"again +.*? compare (.*)", done.stdout):
        with pytest.warns(match="box cannot be reached"):
            table = hpcml.compare(command.split())
        assert len(table.rows) == 2
        for row in table.rows:
            assert number(row.figures[Column("energy", "allocation")].median) in done.stdout
    assert done.stdout.count("energy allocation (J)") == 2
    assert done.stdout.count("; energy by slurm\n") == 2


def by_sacct(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """The names of jobs, and the energy of their batch steps in J, as sacct has printed them."""
    rows = [line.split() for line in text.splitlines() if re.match(r"\d+_\d+", line)]
    names = {row[0]: row[1] for row in rows if "." not in row[0]}
    steps = [(row[0].partition("."), row[-1]) for row in rows]
    return names, {task: float(last) for (task, _, step), last in steps if step == "batch"}


@pytest.mark.testbed
def test_the_box_goes_when_the_demo_is_interrupted(checkout: Path) -> None:
    demo = subprocess.Popen(
        ON_A_BOX,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    with demo.stdout as said:
        assert "is up" in said.readline()
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        assert "The box is gone" in said.read()

    assert demo.wait() == 130
    owners = [state.owner.pid for state in all_boxes() if state.owner is not None]
    assert demo.pid not in owners
