"""What the scheduler is asked for besides nodes, tasks and devices, as a partition wants it."""

from __future__ import annotations

from hpcml import units
from hpcml.planning.fitting import Fitting
from hpcml.planning.sources import said


def options_to_give(found: Fitting, decisions: list[str]) -> dict[str, str | bool]:
    """Long options of sbatch: the partition's, and over them what the job says."""
    site, partition = found.site, found.partition
    if site.scheduler == "process":
        return {"partition": found.name}
    options: dict[str, str | bool] = {}
    if partition.partition_option:
        options["partition"] = found.name
    if partition.constraint is not None:
        options["constraint"] = partition.constraint
        decisions.append(f"constraint {partition.constraint}: its nodes{found.said('constraint')}")
    if found.qos is not None:
        options["qos"] = found.qos
    for name, value in partition.options.items():
        options[name] = value
        decisions.append(f"--{name}: partition {found.name}{found.said(f'options.{name}')}")
    options.update(_options_of_meters(found, decisions))
    asked = {
        name: value
        for name, value in found.resolved.resources.options.items()
        if name != "partition"
    }
    decisions += [f"--{name}: asked for" for name in asked]
    return {**options, **asked}


def _options_of_meters(found: Fitting, decisions: list[str]) -> dict[str, str | bool]:
    """What sbatch is told so that the energy of a job's nodes, or of its devices, can be read."""
    options: dict[str, str | bool] = {}
    for number, meter in enumerate(found.site.energy):
        if meter.readable == "no" or not (found.devices or meter.scope in ("node", "cpu")):
            continue
        for name, value in meter.options.items():
            options[name] = value
            told = said(found.site, f"energy.{number}.options.{name}")
            decisions.append(f"--{name}: so that {meter.name} can be read{told}")
    return options


def memory_to_ask_for(found: Fitting, decisions: list[str]) -> tuple[int | None, bool]:
    """Bytes that the scheduler is asked for, and whether they are those of a whole node."""
    asked, policy = found.asked.memory, found.partition.memory_option
    why = found.said("memory_option")
    if policy in ("never", "implicit"):
        if asked is not None:
            none = "is refused" if policy == "never" else "is not said, a node's comes with it"
            decisions.append(f"memory: --mem {none}{why}; the agent watches the limit")
        return None, False
    if asked is not None or policy == "optional":
        return asked, False
    there = found.partition.node.memory_bytes or 0
    whole = found.partition.node_sharing == "exclusive"
    share = there if whole else int(there * _part_of_node(found))
    of = f"{'a' if whole else 'its share of a'} node's{found.said('node.memory')}"
    decisions.append(f"memory {units.memory_text(share)}: {of}, since it must be said{why}")
    return share, whole


def _part_of_node(found: Fitting) -> float:
    node = found.partition.node
    cpus = node.cpus if isinstance(node.cpus, int) else found.cpus * found.tasks
    of_devices = found.devices / node.devices if node.devices else 0
    return min(1.0, max(found.cpus * found.tasks / cpus, of_devices))
