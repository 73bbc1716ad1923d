"""``hpcml demo``: the example of the repository, which travels in the package."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from hpcml.cli import shapes
from hpcml.cli.options import json_option
from hpcml.cli.showing import print_json
from hpcml.cli.stages import reached
from hpcml.errors import HpcmlError

# What the extra "demo" of pyproject.toml installs, as it is imported.
NEEDED = ("iris_sample_data", "matplotlib", "netCDF4", "numpy", "torch", "xarray", "zarr")
FILES = ("README.md", "demo.py", "infer.py", "prepare.py", "train.py", ".gitignore")


@click.command("demo")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="hpcml-demo",
    show_default=True,
    help="Folder that it is copied into.",
)
@json_option
def demo_command(folder: Path, as_json: bool) -> None:
    """Copy the demo into a folder, and run it with this Python.

    Emulators of surface air temperature are trained on real climate data, forecast another
    scenario, and are compared. Files that are in the folder already stay as they are.
    """
    _refuse_without_packages()
    _copy(folder)
    print(f"hpcml: the demo is in {folder}: start reading with README.md", file=sys.stderr)
    reached("Runs that it has submitted go on: `hpcml runs` lists them.")
    # What it prints is for people: with --json it goes where messages do.
    out = sys.stderr if as_json else None
    done = subprocess.run([sys.executable, "demo.py"], cwd=folder, stdout=out, check=False)
    if as_json:
        ended: shapes.Demo = {"folder": str(folder.absolute()), "exit_code": done.returncode}
        print_json(ended)
    sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


def _refuse_without_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise HpcmlError(
            f"the demo needs {', '.join(missing)}, which {sys.executable} does not have",
            f'Run: {sys.executable} -m pip install "hpcml[demo]"',
        )


def _copy(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "demo.py").exists():
        raise HpcmlError(f"{folder} has other files in it", "Name another one: --to FOLDER.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not (folder / name).exists():
                with resources.as_file(_packaged() / name) as path:
                    shutil.copyfile(path, folder / name)
    except OSError as error:
        problem = f"{folder} cannot be written: {error.strerror}"
        raise HpcmlError(problem, "Name another one: --to FOLDER.") from error


def _packaged() -> Traversable:
    """In the package; in a checkout it is beside it."""
    packaged = resources.files("hpcml") / "demo"
    checkout = Path(__file__).resolve().parents[2] / "examples" / "temperature"
    return packaged if packaged.is_dir() else checkout
