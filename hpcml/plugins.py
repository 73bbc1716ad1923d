"""Backends found through entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from hpcml.errors import HpcmlError, nearest


def load_plugin(group: str, name: str) -> Any:
    """What an installed distribution offers under a name.

    Parameters
    ----------
    group : str
        ``"hpcml.transports"``, ``"hpcml.schedulers"``.

    Raises
    ------
    HpcmlError
        There is none of that name; the message names those that are installed.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        kind = group.removeprefix("hpcml.").removesuffix("s")
        raise HpcmlError(f"there is no {kind} {name!r} installed", nearest(name, found))
    return found[name].load()
