"""Packages that are loaded only where a document has to be read or checked that is new."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from hpcml.errors import HpcmlError


def load(module: str) -> Any:
    """A package by its name.

    Raises
    ------
    HpcmlError
        It is not installed, as in a job's own Python.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"hpcml needs the package {error.name!r}, which {sys.executable} does not have"
        advice = "Install hpcml into a Python, and name that in the settings: sites.<site>.python."
        raise HpcmlError(problem, advice) from error
