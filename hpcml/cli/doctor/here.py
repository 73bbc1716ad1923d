"""Checks of this Python and what is installed beside it, settings and profiles."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hpcml import __version__
from hpcml.errors import HpcmlError
from hpcml.settings import load_settings, settings_file
from hpcml.sites import load_site, profile_of, site_names
from hpcml.surveying.finding import Check, Finding, bad, ok, warn

# By the extra that installs them (the last is none of ours): modules, and what they are for.
OPTIONAL = {
    "hpcml[plot]": (("matplotlib", "pandas"), "plots and data frames of a comparison"),
    "hpcml[mlflow]": (("mlflow",), "copies of runs in an MLflow store"),
    "hpcml[postgresql]": (("psycopg",), "records that a team shares"),
    "ipykernel": (("ipykernel",), "this Python as the kernel of notebooks"),
}
TRY = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        found[name] = [True, str(getattr(module, "__version__", ""))]
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        found[name] = [False, "" if missing else repr(error)]
print("\\n" + json.dumps(found))
"""


def python() -> Iterator[Finding]:
    """The interpreter."""
    yield ok(f"{platform.python_version()}, {sys.executable}")


def hpcml() -> Iterator[Finding]:
    """This very package."""
    yield ok(f"{__version__}, {Path(__file__).parents[2]}")


def git() -> Iterator[Finding]:
    """What tells which files are code."""
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"git cannot be run: {error}"
        yield warn(why, "Install git: without it the script's whole folder goes along as code.")
    else:
        yield ok(done.stdout.strip().removeprefix("git version "))


def settings() -> Iterator[Finding]:
    """The user's settings."""
    path = settings_file()
    load_settings()  # says file, line and key of what is wrong
    yield ok(str(path) if path.exists() else f"none, and none are needed ({path})")


def profiles() -> Iterator[Finding]:
    """All site profiles that can be found."""
    for name in site_names():
        try:
            load_site(name)
        except HpcmlError as error:
            yield bad(error.problem, error.advice)
        else:
            yield ok(f"{name}, {profile_of(name)}")


def packages() -> Iterator[Finding]:
    """Packages that some of hpcml needs: each is imported, by a Python of its own."""
    names = [name for modules, _ in OPTIONAL.values() for name in modules]
    done = subprocess.run(
        [sys.executable, "-c", TRY, *names], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    for extra, (modules, purpose) in OPTIONAL.items():
        install = f'{sys.executable} -m pip install "{extra}"'
        for name in modules:
            works, said = found[name]
            if works:
                yield ok(f"{name} {said}".rstrip())
            elif said:
                yield warn(f"{name}, for {purpose}, cannot be imported: {said}", install)
            else:
                yield warn(f"{name}, for {purpose}, is not installed", install)


CHECKS: list[tuple[str, Check]] = [
    ("python", python),
    ("hpcml", hpcml),
    ("git", git),
    ("settings", settings),
    ("profiles", profiles),
    ("packages", packages),
]
