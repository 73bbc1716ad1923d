"""Train two sizes of the emulator, and forecast another scenario with each: the tour of hpcml."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from prepare import prepare
from rich.console import Console

import hpcml

HERE = Path(__file__).resolve().parent
WIDTHS = (8, 32)
RESOURCES = hpcml.Resources(cpus=1, memory="2 GiB", time="10m")
LOG_LINES = 15
SETTLE = 30  # s
HPCML = shlex.quote(str(Path(sys.executable).with_name("hpcml")))  # make demo has it in .venv


def main() -> int:
    """Run the demo; return 1 if a run did not complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", default="local", help="where to run: a site profile")
    parser.add_argument("--to", type=Path, default=HERE / "data", help="folder for what it leaves")
    parser.add_argument("--hpcml", default=HPCML, help="how hpcml is called in what is printed")
    given = parser.parse_args()
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
    # Where a scheduler measures energy, it does so by allocation: each run has one of its own.
    trained = hpcml.submit(train.sweep(width=WIDTHS), given.site, pack="never")
    # Each forecast takes its model from a run that may not even have begun.
    inferred = hpcml.Runs(
        [
            hpcml.submit(
                infer,
                given.site,
                name=f"infer width={run.params['width']}",
                inputs={"model": run.output("model.pt")},
            )
            for run in trained
        ]
    )
    runs = hpcml.Runs([*trained, *inferred])
    runs.wait(progress=True)

    console = Console()
    for run in runs:
        # Paths and logs are printed as they are: no markup, no wrapping.
        console.print(f"\n{run.name} ({run.id})", style="bold", markup=False, soft_wrap=True)
        for line in outcome(run, given.to, given.hpcml):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if any(run.state != "COMPLETED" for run in runs):
        return 1
    record(runs, given.site)
    for title, runs, plot in (
        ("Trained on A1B, tested on its years 2070 to 2099", trained, "training.svg"),
        ("Forecasts of E1, 2070 to 2099", inferred, "forecasts.svg"),
    ):
        compare(title, runs, given.to / plot, given.hpcml, console)
    return 0


def record(runs: hpcml.Runs, site: str) -> None:
    """Wait for what is told a moment after the end of runs only, such as their energy."""
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        hpcml.sync(site)
        if all(one.final for one in hpcml.records.find(id=[run.id for run in runs])):
            return
        time.sleep(1)


def compare(title: str, runs: hpcml.Runs, plot: Path, command: str, console: Console) -> None:
    """Show runs side by side, draw where their time went, and say how to see both again."""
    console.print(f"\n{title}", style="bold")
    table = hpcml.compare(runs)
    table.show()
    table.plot("phases", plot)
    ids = " ".join(run.id for run in runs)
    for line in (
        "losses are root mean squares in K, skill = 1 - (test_loss / persistence_loss)²",
        f"plot   {plot}: open it in a browser, or with `xdg-open {shlex.quote(str(plot))}`",
        f"again  {command} compare {ids}",
    ):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def outcome(run: hpcml.Run, folder: Path, command: str) -> list[str]:
    """Tell where to find what a run left behind or, if it failed, why."""
    logs = f"{command} logs {run.id}"
    if run.state != "COMPLETED":
        return [
            f"{run.state}: {run.reason}",
            *run.logs().splitlines()[-LOG_LINES:],
            f"logs   {logs}",
        ]
    outputs = [run.output(output["path"]) for output in run.plan.what["outputs"]]
    if not all(path.exists() for path in outputs):  # they are on another machine
        copy = run.fetch(folder / run.id)
        outputs = [copy / path.name for path in outputs]
        logs = shlex.quote(str(copy / f"{run.id}.stdout"))
    return [*(f"left   {shlex.quote(str(path))}" for path in outputs), f"logs   {logs}"]


if __name__ == "__main__":
    sys.exit(main())
