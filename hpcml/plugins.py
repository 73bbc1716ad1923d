"""Backends: those of hpcml, and others found through entry points."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hpcml.errors import HpcmlError, nearest

# As in pyproject.toml. In a job hpcml is one file, without the metadata of a distribution.
BUILT_IN = {
    "hpcml.transports": {
        "local": "hpcml.transports.local:LocalTransport",
        "ssh": "hpcml.transports.ssh:SshTransport",
    },
    "hpcml.schedulers": {
        "process": "hpcml.schedulers.process:ProcessScheduler",
        "slurm": "hpcml.schedulers.slurm:SlurmScheduler",
    },
}


def load_plugin(group: str, name: str) -> Any:
    """What hpcml or another installed distribution offers under a name.

    Parameters
    ----------
    group : str
        ``"hpcml.transports"``, ``"hpcml.schedulers"``.

    Raises
    ------
    HpcmlError
        There is none of that name; the message names those that are installed.
    """
    own = BUILT_IN.get(group, {})
    if name in own:
        module, _, attribute = own[name].partition(":")
        return getattr(import_module(module), attribute)
    from importlib.metadata import entry_points  # it loads much

    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        kind = group.removeprefix("hpcml.").removesuffix("s")
        raise HpcmlError(f"there is no {kind} {name!r} installed", nearest(name, {**own, **found}))
    return found[name].load()
