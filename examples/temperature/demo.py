"""Train two sizes of the emulator on this machine and compare them: the tour of hpcml."""

import sys
from pathlib import Path

from prepare import prepare
from rich.console import Console
from rich.table import Table

import hpcml

HERE = Path(__file__).resolve().parent
WIDTHS = (8, 32)
PHASES = ("load", "setup", "train", "validate", "save")
METRICS = {
    "test RMSE (K)": "test_loss",
    "persistence RMSE (K)": "persistence_loss",
    "skill": "skill",
}
LOG_LINES = 15


def main() -> int:
    """Run the demo; return 1 if a run did not complete."""
    stores = prepare(HERE / "data")
    jobs = [
        hpcml.Job(
            "train.py",
            name=f"emulator-{width}",
            params={"width": width},
            inputs={"t2m": hpcml.Dataset(str(stores["a1b"]))},
            outputs=["model.pt"],
            resources=hpcml.Resources(cpus=1, memory="2 GiB", time="10m"),
            code=str(HERE),
        )
        for width in WIDTHS
    ]
    runs = hpcml.submit(jobs, site="local")
    runs.wait(progress=True)

    console = Console()
    console.print(table(runs))
    for run in runs:
        # Paths and logs are printed as they are: no markup, no wrapping.
        console.print(f"\n{run.name} ({run.id})", style="bold", markup=False, soft_wrap=True)
        for line in outcome(run):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return 0 if all(run.state == "COMPLETED" for run in runs) else 1


def table(runs: hpcml.Runs) -> Table:
    """Make the table, one column a run; what is not known is a dash."""
    figures = {
        "state": [str(run.state) for run in runs],
        "queue (s)": [number(run.timeline.queue) for run in runs],
    }
    for phase in PHASES:
        figures[f"{phase} (s)"] = [number(run.timeline.phases.get(phase)) for run in runs]
    rates = [run.timeline.samples_per_second.get("epoch") for run in runs]
    figures["samples/s"] = [number(rate, digits=0) for rate in rates]
    for label, metric in METRICS.items():
        figures[label] = [number(run.metrics.get(metric), digits=3) for run in runs]

    result = Table(title="Tested on 2070 to 2099", caption="skill = 1 - (test / persistence)²")
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
    where = [f"logs   {hpcml_command} logs {run.id}"]
    if run.state == "COMPLETED":
        return [f"model  {run.output('model.pt')}", *where]
    return [f"{run.state}: {run.reason}", *run.logs().splitlines()[-LOG_LINES:], *where]


if __name__ == "__main__":
    sys.exit(main())
