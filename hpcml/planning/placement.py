"""Where a job runs on a site, how much of it it takes, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpcml.errors import PlanError, nearest
from hpcml.planning.asked import asked_for
from hpcml.planning.asking import memory_to_ask_for, options_to_give
from hpcml.planning.fitting import Fitting, Misfit
from hpcml.planning.options import check_options
from hpcml.planning.paying import check_own_account
from hpcml.planning.sources import said
from hpcml.resolving import Resolved
from hpcml.settings import Binding
from hpcml.sites import Partition, Site


@dataclass(frozen=True)
class Placement:
    """What one run of a job occupies.

    Attributes
    ----------
    name, partition
        The partition.
    nodes : int
    tasks : int
        Processes on each node.
    cpus : int
        CPUs of each of them.
    devices : int
        On each node.
    memory : int or None
        Bytes on each node that the job asks for; ``None``: it does not say.
    time : int
        Its walltime in seconds.
    told : dict
        What else a plan says of it (see :func:`hpcml.planning.directives.directives`).
    """

    name: str
    partition: Partition
    nodes: int
    tasks: int
    cpus: int
    devices: int
    memory: int | None
    time: int
    told: dict[str, Any]

    def as_data(self) -> dict[str, Any]:
        """What of it is part of a plan."""
        return {
            "partition": self.name,
            "nodes": self.nodes,
            "tasks": self.tasks,
            "cpus": self.cpus,
            "devices": self.devices,
            **self.told,
        }

    @property
    def fills_nodes(self) -> bool:
        """Whether it has a task on each device of whole nodes."""
        return self.tasks == self.devices == self.partition.node.devices


def place(resolved: Resolved, site: Site, binding: Binding, decisions: list[str]) -> Placement:
    """Find the partition, and check that the job fits into it.

    Of the partitions with its kind of device it takes the first that it fits into, the one that
    your settings prefer before the others; none is asked for another quality of service than its
    default as long as one fits without, and none for more than a hint says as long as there is one
    that may have it. Where a limit that somebody vouches for is broken, the job goes to another
    partition only if it is known to fit there, and the code that ran in the first runs there, too.

    Raises
    ------
    PlanError
        It fits into none; the message names a limit of the nearest, who says so, and what fits.
    """
    asked, preferred = asked_for(resolved.resources), binding.partition
    _check_yours(site, binding)
    check_options(resolved, site)
    names = sorted(_partitions(resolved, site), key=lambda name: name != preferred)
    misfits: list[Misfit] = []
    passed: list[Partition] = []
    beyond: list[Fitting] = []
    by_name: list[str] = []
    for name, qos in _ways(names, resolved, site):
        try:
            found = Fitting(resolved, asked, site, name, qos)
            check_own_account(name, site, binding, found.doubts)
        except Misfit as misfit:
            misfits.append(misfit)
            passed.append(site.partitions[name])
            continue
        alike = _may_stand_in(found, misfits, passed)
        if alike and not found.beyond:
            break
        if alike:
            beyond.append(found)
        elif not found.beyond:
            by_name.append(name)
    else:
        if not beyond:
            raise _nearest(misfits, by_name)
        found = beyond.pop(0)  # a hint may be wrong, and the plan tells it
    passed_over = [misfit.error.problem for misfit in misfits]
    passed_over += [doubt for other in beyond for doubt in other.beyond]
    _tell_partition(found, preferred, passed_over, decisions)
    return _placement(found, decisions)


def _may_stand_in(found: Fitting, misfits: list[Misfit], passed: list[Partition]) -> bool:
    """Whether a job may go where nobody asked it to go, in place of partitions that it breaks.

    Their limits are kept for sure, and what is built for the first of them runs here, too.
    """
    limits = [misfit for misfit in misfits if misfit.error.field != "image"]
    if any(misfit.broken & found.unsure for misfit in limits):
        return False
    first = next((part for part, it in zip(passed, misfits, strict=True) if it in limits), None)
    return first is None or not any(
        None not in (one, other) and one != other
        for one, other in zip(_built_for(first), _built_for(found.partition), strict=True)
    )


def _built_for(partition: Partition) -> tuple[str | None, str | None]:
    """CPUs and devices that a program must be built for."""
    return partition.node.architecture, partition.node.device.vendor


def _nearest(misfits: list[Misfit], by_name: list[str]) -> PlanError:
    """The error of the partition that comes nearest, and of those that are only not paid for.

    ``by_name`` are partitions that may run the job, if it asks for them.
    """
    error = max(misfits, key=lambda misfit: misfit.nearness).error
    if by_name:
        names = ", ".join(dict.fromkeys(by_name))
        advice = f'{error.advice} By name only, options={{"partition": ...}}: {names}.'
        return PlanError(error.field, error.problem.removeprefix(f"{error.field}: "), advice)
    unpaid = [misfit.error for misfit in misfits if misfit.error.field == "account"]
    if not unpaid or error in unpaid:
        return error
    told = unpaid[0].problem.removeprefix("account: ")
    problem = error.problem.removeprefix(f"{error.field}: ")
    return PlanError(error.field, problem, f"{error.advice} It would fit elsewhere, but {told}.")


def fittings(resolved: Resolved, site: Site) -> dict[str, Fitting | PlanError]:
    """How a job fits into each partition of a site, or why it does not."""
    asked = asked_for(resolved.resources)
    found: dict[str, Fitting | PlanError] = {}
    for name, qos in _ways(list(site.partitions), resolved, site):
        if not isinstance(found.get(name), Fitting):
            try:
                check_options(resolved, site)
                _check_wanted(name, resolved, site)
                found[name] = Fitting(resolved, asked, site, name, qos)
            except PlanError as error:
                found[name] = error
            except Misfit as misfit:
                found.setdefault(name, misfit.error)
    return found


def _check_wanted(name: str, resolved: Resolved, site: Site) -> None:
    """Whether a job may go to a partition, as far as it says by name and kind of device."""
    resources, has = resolved.resources, site.partitions[name].node.device.kind
    wanted = resources.options.get("partition", name)
    if wanted != name:
        problem = f"the job asks for {str(wanted)!r}"
        raise PlanError("resources.options.partition", problem, f"Leave it out, or write {name!r}.")
    if has != resources.device:
        problem = f"partition {name!r} has no device {resources.device!r}"
        raise PlanError("resources.device", problem, nearest(resources.device, [has]))


def _partitions(resolved: Resolved, site: Site) -> list[str]:
    """The partitions with the right kind of device: the one that is asked for, or all."""
    resources = resolved.resources
    kinds = {name: part.node.device.kind for name, part in site.partitions.items()}
    wanted = resources.options.get("partition")
    if wanted is not None:
        _check_partition(str(wanted), site)
    if resources.device not in kinds.values():
        raise PlanError(
            "resources.device",
            f"{site.name} has no device {resources.device!r}",
            f"{nearest(resources.device, set(kinds.values()))}; `hpcml sites match` says where "
            "there are some.",
        )
    if wanted is not None:
        _check_wanted(str(wanted), resolved, site)
        return [str(wanted)]
    return [name for name, kind in kinds.items() if kind == resources.device]


def _check_yours(site: Site, binding: Binding) -> None:
    """A partition that your settings name and the site does not have would count for nothing."""
    preferred = [] if binding.partition is None else [binding.partition]
    for key, names in (("partition", preferred), ("accounts", binding.accounts)):
        for name in names:
            if name not in site.partitions:
                problem = f"{site.name} has no partition {name!r}"
                field = f"sites.{site.name}.{key} in the settings"
                raise PlanError(field, problem, nearest(name, site.partitions))


def _check_partition(wanted: str, site: Site) -> None:
    if wanted in site.partitions:
        return
    other = site.elsewhere.get(wanted)
    raise PlanError(
        "resources.options.partition",
        f"{site.name} has no partition {wanted!r}"
        + (f": {other} has it{said(site, f'elsewhere.{wanted}')}" if other else ""),
        f'Submit it there: site="{other}".' if other else nearest(wanted, site.partitions),
    )


def _ways(names: list[str], resolved: Resolved, site: Site) -> Iterator[tuple[str, str | None]]:
    """Partitions, with their default quality of service first.

    One that is asked for is that of the partitions that know it, if any does.
    """
    qos = resolved.resources.options.get("qos")
    names = [name for name in names if qos in site.partitions[name].qos] or names
    for name in names:
        yield name, str(qos) if qos is not None else site.partitions[name].default_qos
    for name in names if qos is None else ():
        partition = site.partitions[name]
        yield from ((name, other) for other in partition.qos if other != partition.default_qos)


def _placement(found: Fitting, decisions: list[str]) -> Placement:
    memory, of_node = memory_to_ask_for(found, decisions)
    options = options_to_give(found, decisions)
    devices_by = "none" if "gres" in options else found.partition.asks_devices_by
    _tell_amounts(found, devices_by, decisions)
    decisions += found.doubts
    return Placement(
        *(found.name, found.partition, found.nodes, found.tasks, found.cpus, found.devices),
        memory=found.asked.memory,
        time=found.asked.time,
        told={
            "devices_by": devices_by if found.devices else "none",
            "gres": found.partition.gres,
            "memory": memory,
            "memory_of_node": of_node,
            "options": options,
        },
    )


# --- why ----------------------------------------------------------------------------------------


def _tell_partition(
    found: Fitting, preferred: str | None, passed_over: list[str], decisions: list[str]
) -> None:
    resources = found.resolved.resources
    why = "asked for"
    if found.name == preferred and "partition" not in resources.options:
        why = "your settings prefer it"
    elif "partition" not in resources.options:
        why = f"the first with device {resources.device!r}"
        why += " that the job fits into" if passed_over else ""
    decisions.append(f"partition {found.name}: {why}")
    decisions += [f"not elsewhere: {why}" for why in passed_over]
    if found.qos is not None:
        default = found.qos == found.partition.default_qos
        why = "the partition's default" if default else "the first in which the job fits"
        why = "asked for" if "qos" in resources.options else why
        if found.partition.qos and found.qos not in found.partition.qos:
            why += f", and not in the profile: {nearest(found.qos, found.partition.qos)}"
        key = "default_qos" if default else f"qos.{found.qos}"
        decisions.append(f"qos {found.qos}: {why}{found.said(key)}")


def _tell_amounts(found: Fitting, devices_by: str, decisions: list[str]) -> None:
    """Nodes, devices, tasks and CPUs, as far as there is something to say of them."""
    asked = found.asked
    if found.nodes > 1:
        why = "asked for" if asked.nodes else "as few as hold what is asked for"
        decisions.append(f"nodes {found.nodes}: {why}")
    if found.devices:
        by = f"by --{devices_by}{found.said('gres' if devices_by == 'gres' else 'devices_by')}"
        if "gres" in found.resolved.resources.options:
            by = "as --gres asks for them"
        elif devices_by == "none":
            by = f"they come with the node{found.said('devices_by')}"
        decisions.append(f"devices {found.devices} a node: {by}")
    if found.tasks > 1:
        why = "asked for" if asked.tasks else "one a device"
        if devices_by == "gpus-per-task":
            why += ", and each sees its own devices alone, which it counts from 0"
        decisions.append(f"tasks {found.tasks} a node: {why}")
    elif found.devices > 1 and not asked.tasks and found.partition.tasks_per == "node":
        decisions.append(f"tasks: one a node, by its partition{found.said('tasks_per')}")
    if found.devices and not asked.cpus:
        why = f"its share of the node's{found.said('node.cpus')}"
        if found.partition.node.cpus is None:
            why = "how many a node has is not known"
        decisions.append(f"cpus {found.cpus} a task: {why}")
