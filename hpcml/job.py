"""What to run: plain data that knows no site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from typing import Any

from hpcml.errors import JobError


@dataclass(frozen=True)
class Resources:
    """What a job asks of a site, portably.

    Parameters
    ----------
    nodes : int, optional
        Default: as few as hold the devices and the tasks' CPUs.
    device : str
        Kind of device that does the work: ``"cpu"``, ``"gpu"``, ``"ipu"``, or another of a site.
    devices : int, optional
        Devices in all, as the site's scheduler counts them; default: those of the nodes.
    min_device_memory : str, optional
        Memory that each device must have at least, with a unit: ``"40 GiB"``.
    tasks : int, optional
        Processes to start in all; default: one a device, or one a node without devices.
    cpus : int, optional
        CPUs of each task; default: 1, or with devices its share of the node's.
    memory : str, optional
        Memory of each node, with a unit: ``"2 GiB"``.
    time : str or timedelta
        Walltime limit: ``"10m"``, ``"1h30m"``, ``"1-12:00:00"``.
    options : dict
        Long options of the site's own scheduler, without ``--``, that override the placement:
        ``{"partition": "booster", "qos": "debug"}``; ``True`` for one that takes no value.
    """

    nodes: int | None = None
    device: str = "cpu"
    devices: int | None = None
    min_device_memory: str | None = None
    tasks: int | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | timedelta = "1h"
    options: Mapping[str, str | bool] = field(default_factory=dict)


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
class Output:
    """A file or folder that a job leaves behind.

    Parameters
    ----------
    path : str
        Relative to the job's working folder.
    optional : bool
        Whether a run may end well without it.
    """

    path: str
    optional: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """How a job that is interrupted goes on: the contract of :func:`hpcml.checkpoint`.

    Shortly before its walltime is over the job gets the signal USR2, saves its state, and ends with
    exit code 144. It is then started again in the same folder, as a further attempt of the same
    run. A submitit ``Checkpointable`` does all of that by itself.

    Parameters
    ----------
    path : str
        File or folder of the state, relative to the job's working folder; it is the job's to make.
    notice : str or timedelta
        How long before the end of the walltime the signal comes; half of the walltime at most.
    requeues : int
        How often it may be started again.
    """

    path: str = "checkpoint"
    notice: str | timedelta = "5m"
    requeues: int = 3


@dataclass(frozen=True)
class Job:
    """What to run.

    Parameters
    ----------
    entry : callable, str or sequence of str
        A function, ``"train.py"``, ``"run.sh"``, ``"-m package.module"``, or a command as a list.
        A function that can be imported goes by reference, with the code around it; another one
        (of a notebook, of the script that runs, a lambda) by value, and then the job's Python must
        have the client's version. An attribute ``fork = False`` of the function says that it must
        start in a fresh interpreter, not in the fork of one that has its imports done.
    name : str, optional
        For people; default: the entry's.
    params : dict
        Parameters: JSON values by name. Scripts and modules get each as ``--name=value``
        (``None``: left out) unless ``args`` is given, functions as keywords, and all of them from
        ``hpcml.params()``.
    args : sequence of str, optional
        Arguments in place of those: ``["--lr", "{params.lr}", "{inputs.t2m}"]``; ``[]``: none.
    inputs : dict
        Data by name: a :class:`Dataset`, a path, or the output of another run
        (``run.output("model.pt")``), which then comes first. A function gets the path of an input
        as the keyword of that name, if it has one.
    outputs : sequence of str or Output
        Files or folders that the job must leave behind, relative to its working folder.
    resources : Resources
    image : str, optional
        Path of an Apptainer image (SIF), in which the command runs; it is brought to a site that is
        reached by ssh. Its own Python runs scripts and functions then.
    env : dict
        Environment variables by name. No secrets: plans are written to disk and shared.
    code : {"auto", None} or path
        ``"auto"``: what git tracks or would track around the entry; without git the script's
        folder. A path: that folder in place of the current one. ``None``: take no code along.
    checkpoint : Checkpoint, optional
        How it goes on after its walltime; a function with a method ``checkpoint`` has the default.
    tags : dict
        Text by name, for finding runs again.
    """

    entry: str | Sequence[str] | Callable[..., Any]
    name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    args: Sequence[str] | None = None
    inputs: Mapping[str, Dataset | str] = field(default_factory=dict)
    outputs: Sequence[str | Output] = ()
    resources: Resources = field(default_factory=Resources)
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    code: str | None = "auto"
    checkpoint: Checkpoint | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def sweep(
        self, *, points: Iterable[Mapping[str, Any]] | None = None, **axes: Iterable[Any]
    ) -> Sweep:
        """This job at many points of its parameters.

        Parameters
        ----------
        points : iterable of dict, optional
            Parameters of each run.
        **axes : iterable
            Values by parameter: every combination is a run, the last axis varies fastest.
            Together with ``points``: every combination at each of these.

        Raises
        ------
        JobError
            An axis is no list of values, or there is no point at all.
        """
        given = [{}] if points is None else [_point(number, p) for number, p in enumerate(points)]
        values = [_values(name, axis) for name, axis in axes.items()]
        combined = tuple(
            {**point, **dict(zip(axes, chosen, strict=True))}
            for point in given
            for chosen in product(*values)
        )
        if not combined or (points is None and not axes):
            raise JobError("sweep", "it has no points", "Write sweep(width=[32, 64]).")
        return Sweep(self, combined)


@dataclass(frozen=True)
class Sweep:
    """A job at many points of its parameters: one submission, one run a point.

    Attributes
    ----------
    points : tuple of dict
        What each run has of its own, in the order of the runs.
    """

    job: Job
    points: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.points)


def _point(number: int, point: object) -> dict[str, Any]:
    if not isinstance(point, Mapping):
        advice = 'Write {"width": 32}; of a DataFrame, df.to_dict("records").'
        raise JobError(f"points[{number}]", f"{point!r} is no dict", advice)
    return dict(point)


def _values(name: str, axis: object) -> list[Any]:
    if isinstance(axis, str | bytes | Mapping) or not isinstance(axis, Iterable):
        raise JobError(f"sweep.{name}", f"{axis!r} is no list of values", f"Write [{axis!r}].")
    return list(axis)
