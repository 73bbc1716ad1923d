"""What a job may have on a live cluster: by its partition, and the QOS that this has."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hpcml.sites import Partition
from hpcml.surveying.model import Cluster, Kind, LivePartition


def live_of(cluster: Cluster, name: str, partition: Partition) -> LivePartition | None:
    """What a cluster has of a partition; where jobs name none, they are in the default."""
    there = cluster.partitions
    if name not in there and not partition.partition_option:
        return next((it for it in there.values() if it.default), None)
    return there.get(name)


def longest_of(live: LivePartition, cluster: Cluster) -> tuple[float | None, str]:
    """The longest walltime in a partition in s, and what says so: it, or the QOS it has."""
    qos = (cluster.qos or {}).get(live.qos or "")
    if qos is not None and qos.max_time is not None and qos.max_time < (live.max_time or math.inf):
        return qos.max_time, f"MaxWall of its QOS {qos.name}"
    return live.max_time, "MaxTime"


def most_nodes_of(live: LivePartition, cluster: Cluster) -> float:
    """The most nodes that a job may have in a partition, by it or the QOS that it has."""
    qos = (cluster.qos or {}).get(live.qos or "")
    limits = (live.max_nodes, None if qos is None else qos.max_nodes)
    return min((it for it in limits if it is not None), default=math.inf)


def cpus_of(kind: Kind, live: LivePartition) -> int | None:
    """CPUs that a job may have of a node."""
    if kind.cpus is None or live.max_cpus_per_node is None:
        return kind.cpus
    return int(min(kind.cpus, live.max_cpus_per_node))


def submit_limits(
    cluster: Cluster, partitions: Iterable[LivePartition], account: str | None = None
) -> dict[str, int]:
    """The most jobs that the user may have in the queue, by what says so.

    Parameters
    ----------
    account : str, optional
        Which one pays. Default: any of the user's.
    """
    limits = {
        f"MaxSubmitJobs of your account {it.account}": it.max_submit
        for it in cluster.associations or ()
        if it.max_submit is not None and account in (None, it.account)
    }
    for live in partitions:
        qos = (cluster.qos or {}).get(live.qos or "")
        if qos is not None and qos.max_submit is not None:
            limits[f"MaxSubmitJobsPerUser of QOS {qos.name}"] = qos.max_submit
    return limits
