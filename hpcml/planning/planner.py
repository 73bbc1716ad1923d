"""make_plan: placement, limits, account, launch."""

from __future__ import annotations

import posixpath
from typing import Any

from hpcml import units
from hpcml.agent import wire
from hpcml.errors import PlanError, nearest
from hpcml.planning.arguments import check_arguments
from hpcml.planning.launching import binds, container, environment, launch, launcher, prelude
from hpcml.planning.model import Plan
from hpcml.planning.paying import account
from hpcml.planning.placement import Placement, place
from hpcml.planning.places import check_places, open_names, tell_hinted_workspace
from hpcml.planning.render import DIRECTIVE
from hpcml.resolving import Resolved
from hpcml.settings import Binding
from hpcml.sites import Site

LONGEST_NOTICE = 300  # seconds


def make_plan(resolved: Resolved, site: Site, binding: Binding) -> Plan:
    """Decide everything that is left to decide about a job on a site.

    Pure: its result depends on its arguments alone.

    Raises
    ------
    PlanError
        The site cannot run it so; the message names the field and the nearest valid choice.
    """
    decisions: list[str] = []
    if site.scheduler not in DIRECTIVE:
        raise PlanError(
            "site.scheduler",
            f"{site.name} has {site.scheduler!r}, and nobody knows its directives",
            nearest(site.scheduler, DIRECTIVE),
        )
    _check_binding(binding)
    check_arguments(resolved)
    placed = place(resolved, site, binding, decisions)
    limits = _limits(resolved, site, placed, decisions)
    what: dict[str, Any] = {
        "entry": resolved.entry,
        "args": None if resolved.args is None else list(resolved.args),
        "params": resolved.params,
        "env": resolved.env,
        "code": resolved.code,
        "folder": resolved.folder,
        "inputs": resolved.inputs,
        "outputs": [dict(output) for output in resolved.outputs],
        "image": resolved.image,
        "container": container(resolved, placed, site, decisions),
        "launcher": launcher(placed),
        "launch": launch(placed, site, decisions),
        "prelude": prelude(resolved, placed, site, decisions),
        "scheduler": site.scheduler,
        "limits": limits,
        "placement": placed.as_data(),
    }
    if resolved.checkpoint is not None:
        what["checkpoint"] = {key: resolved.checkpoint[key] for key in ("path", "requeues")}
    where = {
        "site": site.name,
        "name": resolved.name,
        "tags": resolved.tags,
        "account": account(placed.name, placed.partition, site, binding, decisions),
        "user": binding.user,
        "workspace": binding.workspace,
        "system_root": site.system_root,
        "python": binding.python if resolved.image_path is None else "python3",
        "image": _image_path(resolved, site, binding),
        "image_stamp": resolved.image_stamp if site.transport == "local" else None,
        "binds": binds(placed, site, binding) if resolved.image_path is not None else [],
        "agent_python": binding.agent_python,
        "library": binding.library,
        "inputs": _input_paths(resolved, site, binding),
        # Of what is brought to a site the stamp is known there, once it is whole.
        "stamps": resolved.stamps if site.transport == "local" else {},
        "origins": {
            name: {"run": origin.run, "output": origin.output}
            for name, origin in resolved.origins.items()
        },
        "environment": environment(resolved, placed, site, binding.environment, decisions),
        "git": resolved.git,
    }
    if resolved.entry["kind"] == "function":
        where["functions"] = binding.functions
    tell_hinted_workspace(site, binding, decisions)
    check_places(_places(where), site, binding, decisions)
    if resolved.code:
        decisions.append(f"code: snapshot {resolved.code[:12]}")
    else:
        decisions.append("code: none is taken along")
    unresolved = resolved.unresolved
    if binding.workspace.startswith("~"):
        unresolved += (f"what {binding.workspace} is on {site.name} is asked at first contact",)
    unresolved += tuple(open_names(binding.workspace, site))
    return Plan(what, where, tuple(decisions), unresolved)


def _input_paths(resolved: Resolved, site: Site, binding: Binding) -> dict[str, str]:
    """Where a run finds its inputs: where they are, or where they are brought to by digest."""
    paths = dict(resolved.input_paths)
    if site.transport != "local":
        for name in paths.keys() - resolved.origins.keys():
            paths[name] = _brought(resolved.inputs[name], paths[name], binding)
    return paths


def _image_path(resolved: Resolved, site: Site, binding: Binding) -> str | None:
    """Where a run finds its image, likewise."""
    if resolved.image_path is None or site.transport == "local":
        return resolved.image_path
    return _brought(resolved.image, resolved.image_path, binding)


def _brought(digest: object, source: str, binding: Binding) -> str:
    """Where data lies that is brought to a site; a plan without its digest is unresolved."""
    file = posixpath.basename(source) or "data"
    return f"{binding.workspace}/{wire.data_folder(str(digest or '<digest>'))}/{file}"


def _places(where: dict[str, Any]) -> dict[str, str]:
    """The paths of a plan that its runs use, by the field that they come from."""
    paths = {"workspace": where["workspace"]}
    paths.update({f"inputs.{name}": path for name, path in where["inputs"].items()})
    return paths if where["image"] is None else {**paths, "image": where["image"]}


def _check_binding(binding: Binding) -> None:
    """A folder or variable with bytes that are no text cannot be written into a plan."""
    paths = {"workspace": binding.workspace, "python": binding.python}
    variables = {f"environment.{name}": value for name, value in binding.environment.items()}
    for field, value in {**paths, **variables}.items():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise PlanError(field, f"{value!r} is not UTF-8", "Choose or name it so.") from None


def _limits(
    resolved: Resolved, site: Site, placed: Placement, decisions: list[str]
) -> dict[str, Any]:
    time = placed.time
    if placed.memory is None and placed.told["memory"] is None:
        share = "a share by CPUs is set aside, nothing is enforced"
        if site.scheduler != "process":
            share = "the site decides how much it gets, and what becomes of who holds more"
        if placed.partition.memory_option == "implicit":
            share = "a node's comes with it"
        decisions.append(f"memory: not asked for; {share}")
    notice: float | None = min(time / 10, LONGEST_NOTICE)
    if resolved.checkpoint is not None:
        notice = min(resolved.checkpoint["notice"], time / 2)
    elif resolved.entry["kind"] == "function":
        notice = None  # submitit would end a function that it cannot requeue
    told = "no notice" if notice is None else f"USR2 to who listens {notice:g} s before"
    decisions.append(f"walltime {units.clock(time)}: {told}")
    if resolved.checkpoint is not None:
        most = resolved.checkpoint["requeues"]
        decisions.append(f"checkpoint: exit code 144 starts it again, {most} times at most")
    return {
        "time": time,
        "memory": placed.memory,
        "notice": notice,
        "kill_wait": units.seconds(site.kill_wait),
    }
