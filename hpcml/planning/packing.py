"""How the runs of a batch share allocations.

Sites limit how many jobs one may have in the queue, and many give whole nodes only. So small runs
share an allocation where nodes are given whole, and many runs share fewer allocations where one may
not submit as many jobs. An allocation works through its runs, as many at a time as it has slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcml.errors import PlanError
from hpcml.layout import Layout
from hpcml.planning.model import Plan
from hpcml.sites import Partition, Site

PACK = ("auto", "never")


def lay_out(
    plan: Plan,
    site: Site,
    count: int,
    *,
    pack: str = "auto",
    max_running: int | None = None,
) -> Layout:
    """Share out so many runs of a plan to allocations.

    On the embedded site the machine is the one allocation, and its dispatcher opens as many slots
    as there is room for.

    Parameters
    ----------
    plan : Plan
    site : Site
    count : int
    pack : {"auto", "never"}
        Whether runs may share allocations.
    max_running : int, optional
        How many runs may run at once.

    Raises
    ------
    PlanError
        The site does not take as many jobs, however the runs are shared out.
    """
    if site.scheduler == "process":
        return Layout(size=count)
    placed = plan.what["placement"]
    partition = site.partitions[placed["partition"]]
    fitting = _rounds(plan.what, partition, site)
    most = site.max_submitted or count
    slots = _slots(plan.what, partition, site) if pack == "auto" and count > 1 else 1
    slots = min(slots, count, max_running or count)
    wanted = -(-count // slots)  # allocations, if each has one round
    if slots == 1 and wanted <= most:
        return Layout(1, 1, site.max_array or count)
    if pack == "never":
        raise _too_many(site, count, f'{site.name} takes {most} jobs; pack="auto" shares them out.')
    there = partition.total_nodes or partition.nodes or most
    allocations = min(wanted, most, there if slots > 1 else most)
    rounds = min(-(-count // (allocations * slots)), fitting)
    size = rounds * slots
    if -(-count // size) > most:
        fits = most * fitting * slots
        raise _too_many(site, count, f"At most {fits} runs of this walltime fit; submit in parts.")
    return Layout(size, slots, site.max_array or count)


def _rounds(what: Mapping[str, Any], partition: Partition, site: Site) -> int:
    """How often an allocation may run one after the other: once, where nobody vouches for more."""
    placed = what["placement"]
    qos = placed["options"].get("qos")
    longest, key = partition.longest(placed["nodes"], qos), partition.key_of("time", qos)
    if longest is None or site.is_hint(f"partitions.{placed['partition']}.{key}"):
        return 1
    return max(1, longest // int(what["limits"]["time"]))


def _slots(what: Mapping[str, Any], partition: Partition, site: Site) -> int:
    """How many runs a whole node has room for; 1 where nodes are shared with others anyway."""
    placed, node = what["placement"], partition.node
    sure = isinstance(node.cpus, int) and not site.is_hint(
        f"partitions.{placed['partition']}.node.cpus"
    )
    if partition.node_sharing != "exclusive" or placed["nodes"] > 1 or not sure:
        return 1
    if placed["devices"] and placed["devices_by"] == "none":
        return 1  # nobody tells runs apart which devices are whose
    cpus = int(node.cpus or 1)
    each = placed["tasks"] * placed["cpus"]
    if placed["tasks"] > 1:  # srun gives whole cores; what it has none left for would wait
        of_core = -(-cpus // (node.cores or cpus))
        each = -(-each // of_core) * of_core
    room: list[int] = [cpus // each]
    if placed["devices"]:
        room.append(node.devices // placed["devices"])
    if what["limits"]["memory"] is not None:
        room.append((node.memory_bytes or 0) // what["limits"]["memory"])
    return max(1, min(room))


def _too_many(site: Site, count: int, advice: str) -> PlanError:
    return PlanError("job", f"{site.name} does not take {count} jobs at a time", advice)
