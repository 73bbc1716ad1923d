"""What to run: plain data that knows no site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What a job asks of a site, portably.

    Parameters
    ----------
    nodes : int
    device : str
        Kind of device that does the work: ``"cpu"``, ``"gpu"``, ``"ipu"``.
    devices : int, optional
        Devices in all; default: one node's.
    tasks : int, optional
        Processes to start in all; default: one a device, or one a node without devices.
    cpus : int, optional
        CPUs of each task; default: 1.
    memory : str, optional
        Memory of each node, with a unit: ``"2 GiB"``.
    time : str or timedelta
        Walltime limit: ``"10m"``, ``"1h30m"``, ``"1-12:00:00"``.
    options : dict
        Words of the site's own scheduler that override the placement: ``{"partition": ...}``.
    """

    nodes: int = 1
    device: str = "cpu"
    devices: int | None = None
    tasks: int | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | timedelta = "1h"
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Data a job reads: a file or a folder (a Zarr store is one).

    Parameters
    ----------
    source : str
        Path on this machine.
    """

    source: str


@dataclass(frozen=True)
class Job:
    """What to run.

    Parameters
    ----------
    entry : str or sequence of str
        ``"train.py"``, ``"run.sh"``, ``"-m package.module"``, or a command as a list.
    name : str, optional
        For people; default: the entry's.
    params : dict
        Parameters: JSON values by name. Scripts and modules get each as ``--name=value``
        (``None``: left out) unless ``args`` is given, and all of them from ``hpcml.params()``.
    args : sequence of str, optional
        Arguments in place of those: ``["--lr", "{params.lr}", "{inputs.t2m}"]``; ``[]``: none.
    inputs : dict
        Data by name: a :class:`Dataset`, or a path.
    outputs : sequence of str
        Files or folders that the job must leave behind, relative to its working folder.
    resources : Resources
    env : dict
        Environment variables by name. No secrets: plans are written to disk and shared.
    code : {"auto", None} or path
        ``"auto"``: what git tracks or would track around the entry; without git the script's
        folder. A path: that folder in place of the current one. ``None``: take no code along.
    tags : dict
        Text by name, for finding runs again.
    """

    entry: str | Sequence[str]
    name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    args: Sequence[str] | None = None
    inputs: Mapping[str, Dataset | str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    resources: Resources = field(default_factory=Resources)
    env: Mapping[str, str] = field(default_factory=dict)
    code: str | None = "auto"
    tags: Mapping[str, str] = field(default_factory=dict)
