"""Train two sizes of the emulator, and forecast another scenario with each: the tour of hpcml."""

import shlex
import sys
from pathlib import Path

from prepare import prepare
from rich.console import Console
from rich.table import Table

import hpcml

HERE = Path(__file__).resolve().parent
WIDTHS = (8, 32)
RESOURCES = hpcml.Resources(cpus=1, memory="2 GiB", time="10m")
PHASES = ("load", "setup", "train", "validate", "infer", "save")
METRICS = {
    "test RMSE (K)": "test_loss",
    "persistence RMSE (K)": "persistence_loss",
    "skill": "skill",
}
LOG_LINES = 15


def main() -> int:
    """Run the demo; return 1 if a run did not complete."""
    stores = prepare(HERE / "data")
    train = hpcml.Job(
        "train.py",
        name="train",
        inputs={"t2m": hpcml.Dataset(str(stores["a1b"]))},
        outputs=["model.pt"],
        resources=RESOURCES,
        code=str(HERE),
    )
    infer = hpcml.Job(
        "infer.py",
        inputs={"t2m": hpcml.Dataset(str(stores["e1"]))},
        outputs=["forecast.zarr"],
        resources=RESOURCES,
        code=str(HERE),
    )
    trained = hpcml.submit(train.sweep(width=WIDTHS), site="local")
    # Each forecast takes its model from a run that may not even have begun.
    inferred = hpcml.Runs(
        [
            hpcml.submit(
                infer,
                name=f"infer width={run.params['width']}",
                inputs={"model": run.output("model.pt")},
            )
            for run in trained
        ]
    )
    runs = hpcml.Runs([*trained, *inferred])
    runs.wait(progress=True)

    console = Console()
    console.print(table("Trained on A1B, tested on its years 2070 to 2099", trained))
    console.print(table("Forecasts of E1, 2070 to 2099", inferred))
    for run in runs:
        # Paths and logs are printed as they are: no markup, no wrapping.
        console.print(f"\n{run.name} ({run.id})", style="bold", markup=False, soft_wrap=True)
        for line in outcome(run):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return 0 if all(run.state == "COMPLETED" for run in runs) else 1


def table(title: str, runs: hpcml.Runs) -> Table:
    """Make a table, one column a run; what is not known is a dash."""
    figures = {
        "state": [str(run.state) for run in runs],
        "waited (s)": [number(run.timeline.queue) for run in runs],
    }
    for phase in PHASES:
        seconds = [run.timeline.phases.get(phase) for run in runs]
        if any(value is not None for value in seconds):
            figures[f"{phase} (s)"] = [number(value) for value in seconds]
    rates = [run.timeline.samples_per_second for run in runs]
    figures["samples/s"] = [number(rate.get("epoch", rate.get("infer")), 0) for rate in rates]
    for label, metric in METRICS.items():
        figures[label] = [number(run.metrics.get(metric), digits=3) for run in runs]

    result = Table(title=title, caption="skill = 1 - (test / persistence)²")
    result.add_column()
    for run in runs:
        result.add_column(run.name, justify="right")
    for label, row in figures.items():
        result.add_row(label, *row)
    return result


def number(value: float | None, digits: int = 2) -> str:
    """Format a figure that may be unknown."""
    return "–" if value is None else f"{value:.{digits}f}"


def outcome(run: hpcml.Run) -> list[str]:
    """Tell where to find what a run left behind or, if it failed, why."""
    hpcml_command = Path(sys.executable).with_name("hpcml")  # make demo has it in .venv
    where = [f"logs   {shlex.join([str(hpcml_command), 'logs', run.id])}"]
    if run.state == "COMPLETED":
        outputs = [output["path"] for output in run.plan.what["outputs"]]
        return [*(f"left   {shlex.quote(str(run.output(name)))}" for name in outputs), *where]
    return [f"{run.state}: {run.reason}", *run.logs().splitlines()[-LOG_LINES:], *where]


if __name__ == "__main__":
    sys.exit(main())
