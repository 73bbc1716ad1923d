"""How the processes of a run are started: by srun, in a container, after modules and a prelude."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hpcml.errors import PlanError
from hpcml.planning.placement import Placement
from hpcml.planning.places import filled
from hpcml.planning.sources import said
from hpcml.resolving import Resolved
from hpcml.settings import Binding
from hpcml.sites import Site

RUNTIMES = {"apptainer": "apptainer", "singularity-ce": "singularity"}
"""Container runtimes that hpcml starts images by, and their commands."""
FLAGS = {"nvidia": "--nv", "amd": "--rocm"}


def launcher(placed: Placement) -> str | None:
    """What starts a run's ranks; ``None``: it is a single process."""
    return None if placed.nodes * placed.tasks == 1 else "srun"


def launch(placed: Placement, site: Site, decisions: list[str]) -> dict[str, Any] | None:
    """How srun starts ranks, and under which host name they meet."""
    if launcher(placed) is None:
        return None
    facts, partition = site.launch_of(placed.name), placed.partition
    cpu_bind, told = facts.cpu_bind, _said(placed, site, "launch.cpu_bind")
    why = "as the site says"
    if partition.cpu_bind is not None and placed.fills_nodes:
        cpu_bind, told = partition.cpu_bind, said(site, f"partitions.{placed.name}.cpu_bind")
        why = "a task on each device of whole nodes"
    if cpu_bind is not None:
        decisions.append(f"cpu-bind {cpu_bind}: {why}{told}")
    if facts.mpi is not None:
        decisions.append(f"mpi {facts.mpi}: as the site says{_said(placed, site, 'launch.mpi')}")
    suffix = facts.rendezvous_suffix
    if suffix is not None:
        told = _said(placed, site, "launch.rendezvous_suffix")
        decisions.append(f"ranks meet at the first host's name with {suffix} behind it{told}")
    return {"mpi": facts.mpi, "cpu_bind": cpu_bind, "rendezvous_suffix": suffix}


def _said(placed: Placement, site: Site, key: str) -> str:
    """Who says a fact of a site from which its partitions may differ."""
    return said(site, _key(placed, site, key))


def _key(placed: Placement, site: Site, key: str) -> str:
    own = f"partitions.{placed.name}.{key}"
    return own if own in site.origins else key


def container(
    resolved: Resolved, placed: Placement, site: Site, decisions: list[str]
) -> dict[str, Any] | None:
    """What starts a run's image, and the flag by which it sees devices.

    Raises
    ------
    PlanError
        hpcml cannot start images there.
    """
    if resolved.image_path is None:
        return None
    runtime = site.container_of(placed.name).runtime
    told = _said(placed, site, "container.runtime")
    hint = site.is_hint(_key(placed, site, "container.runtime"))
    if runtime is not None and runtime not in RUNTIMES and not hint:
        raise PlanError(
            "image",
            f"{site.name} has {'nothing' if runtime == 'none' else runtime} for images{told}",
            f"hpcml starts images by {' and '.join(RUNTIMES)}: leave it out, or take another site.",
        )
    if runtime in RUNTIMES:
        decisions.append(f"image: by {runtime}{told}")
    elif site.scheduler != "process":
        known = "is not known" if runtime is None else f"may be {runtime}{told}"
        decisions.append(f"image: what runs images on {site.name} {known}; apptainer is tried")
    device = placed.partition.node.device
    flag = FLAGS.get((device.vendor or "").lower()) if placed.devices else ""
    return {
        "command": RUNTIMES.get(runtime or "", "apptainer"),
        # Where the profile does not know, the agent looks for devices of NVIDIA's.
        "flag": None if device.vendor is None else flag or "",
    }


def binds(placed: Placement, site: Site, binding: Binding) -> list[str]:
    """Folders that an image is to see beside hpcml's, as literal paths.

    Raises
    ------
    PlanError
        A name of yours that one has is not known.
    """
    return [
        filled(path, site, binding, f"container.binds of {site.name}")
        for path in site.container_of(placed.name).binds
    ]


def prelude(resolved: Resolved, placed: Placement, site: Site, decisions: list[str]) -> list[str]:
    """Lines of bash before each run: modules, and what else the site wants."""
    modules = placed.partition.modules
    key = "modules" if modules is None else f"partitions.{placed.name}.modules"
    modules = [*(site.modules if modules is None else modules)]
    if modules:
        decisions.append(f"modules {' '.join(modules)}{said(site, key)}")
    module = site.container_of(placed.name).module
    if resolved.image_path is not None and module is not None:
        modules.append(module)
        decisions.append(f"module {module}: for the image{_said(placed, site, 'container.module')}")
    if site.prelude:
        count = f"{len(site.prelude)} lines" if len(site.prelude) > 1 else "a line"
        decisions.append(f"prelude: {count} of bash before it{said(site, 'prelude')}")
    # One by one: what a module says of itself is then known to be of it.
    return [*(f"module load {shlex.quote(module)}" for module in modules), *site.prelude]


def environment(
    resolved: Resolved,
    placed: Placement,
    site: Site,
    base: Mapping[str, str],
    decisions: list[str],
) -> dict[str, str]:
    """The site's environment, and as many OpenMP threads as each task has CPUs."""
    made = {"PYTHONUNBUFFERED": "1", **base}  # what it prints is seen at once
    made.update(_vouched(site.environment, "environment", site, decisions))
    own = f"partitions.{placed.name}.environment"
    made.update(_vouched(placed.partition.environment, own, site, decisions))
    if site.scheduler == "slurm":
        # Else srun, called by the job, gives each task one CPU (Slurm 22.05 and newer).
        made["SRUN_CPUS_PER_TASK"] = str(placed.cpus)
    interface = site.launch_of(placed.name).interface
    if interface is not None and launcher(placed) is not None:
        told = _said(placed, site, "launch.interface")
        if site.is_hint(_key(placed, site, "launch.interface")):
            decisions.append(f"NCCL and Gloo choose the interface: it may be {interface}{told}")
        else:
            made.update(NCCL_SOCKET_IFNAME=interface, GLOO_SOCKET_IFNAME=interface)
            decisions.append(f"NCCL and Gloo use the interface {interface}{told}")
    if "OMP_NUM_THREADS" not in {**resolved.env, **made}:
        made["OMP_NUM_THREADS"] = str(placed.cpus)
        whose = "each task" if placed.tasks > 1 else "the run"
        decisions.append(f"OMP_NUM_THREADS={placed.cpus}: {whose} has {placed.cpus} CPUs")
    return made


def _vouched(
    variables: Mapping[str, str], key: str, site: Site, decisions: list[str]
) -> dict[str, str]:
    """The variables that somebody vouches for; of the others a plan tells."""
    hints = [name for name in variables if site.is_hint(f"{key}.{name}")]
    for name in hints:
        told = said(site, f"{key}.{name}")
        decisions.append(f"{name}={variables[name]} is not set{told}: the job may set it")
    return {name: value for name, value in variables.items() if name not in hints}
