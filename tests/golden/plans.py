"""What hpcml submits on each site that it ships: an inference on one node, a training on two.

A plan is asked for by the kind of device alone, as a portable job does; where a partition has
devices that no such plan comes to, by the partition. What is yours is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcml.agent import launch
from hpcml.job import Job, Resources
from hpcml.planning import Plan, make_plan
from hpcml.planning.places import with_names
from hpcml.planning.render import render_prelude
from hpcml.resolving import resolve
from hpcml.settings import Binding
from hpcml.sites import Partition, Site, load_site, packaged_profiles, site_names

FOLDER = Path(__file__).parent
NODES = {"inference": 1, "training": 2}
ACCOUNT, OWN_ACCOUNT = "climate", "weather"  # the box knows both


@dataclass(frozen=True)
class Case:
    """A job on a site.

    Attributes
    ----------
    name : str
        ``gpu-training``, or of a partition ``dc-mi200-training``: what its file is called.
    """

    site: str
    name: str
    job: Job

    @property
    def file(self) -> Path:
        return FOLDER / self.site / f"{self.name}.txt"

    def plan(self) -> Plan:
        site = load_site(self.site)
        return make_plan(resolve(self.job), site, yours(site))


def sites() -> list[str]:
    """The sites that hpcml ships."""
    shipped = {profile.name.removesuffix(".yaml") for profile in packaged_profiles()}
    return [name for name in site_names() if name in shipped]


def cases(name: str) -> Iterator[Case]:
    """All of a site."""
    site = load_site(name)
    seen = []
    for kind in dict.fromkeys(part.node.device.kind for part in site.partitions.values()):
        alike = [part for part in site.partitions.values() if part.node.device.kind == kind]
        asked = Resources(device=kind, memory=_memory(alike[0]))
        seen.append(alike[0].node.device)
        yield from _cases(site, kind, asked, alike)
    for partition, facts in site.partitions.items():
        if facts.node.device not in seen:
            seen.append(facts.node.device)
            kind, options = facts.node.device.kind, {"partition": partition}
            asked = Resources(device=kind, memory=_memory(facts), options=options)
            yield from _cases(site, partition, asked, [facts])


def _cases(site: Site, name: str, asked: Resources, partitions: list[Partition]) -> Iterator[Case]:
    most = max(facts.nodes or facts.total_nodes or max(NODES.values()) for facts in partitions)
    for what, nodes in NODES.items():
        resources = dataclasses.replace(asked, nodes=min(nodes, most), time="2h")
        job = Job(["python3", f"{what}.py"], code=None, resources=resources)
        yield Case(site.name, f"{name}-{what}", job)


def _memory(partition: Partition) -> str | None:
    """Where it must be said, and what a node has is not known, a job says it."""
    unsaid = partition.memory_option == "required" and partition.node.memory is None
    return "64 GiB" if unsaid else None


def yours(site: Site) -> Binding:
    """A user's part of a site."""
    own = {name: OWN_ACCOUNT for name, part in site.partitions.items() if part.own_account}
    binding = Binding(
        workspace="",
        python="python3",
        agent_python=site.agent_python.compute or "python3",
        library="hpcml.pyz",
        account=ACCOUNT,
        accounts=own,
        project="climate",
        user="alice",
    )
    known = None if site.transport == "local" else site.workspace
    workspace = known or "/scratch/{user}/hpcml"
    return dataclasses.replace(binding, workspace=with_names(workspace, site, binding, "workspace"))


def text(plan: Plan) -> str:
    """A plan as its file shows it."""
    parts = {"decisions": "\n".join(plan.decisions), "job.sh": plan.script}
    prelude = render_prelude(plan.what)
    if prelude is not None:
        parts["env.sh"] = prelude
    environment = sorted(plan.where["environment"].items())
    parts["environment"] = "\n".join(f"{name}={value}" for name, value in environment)
    command = list(plan.what["entry"]["target"])
    if plan.what["launcher"] is not None:
        command = launch.ranked(plan.what, command, slots=1)
    shown = ("SHIM" if word == launch.SHIM else word for word in command)
    parts["started by"] = shlex.join(shown)
    return "\n".join(f"--- {name}\n{part.rstrip()}\n" for name, part in parts.items())
