"""make_plan: limits, placement, directives."""

from __future__ import annotations

import difflib
import json
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpcml import units
from hpcml.errors import PlanError, nearest
from hpcml.planning.model import Plan
from hpcml.planning.render import DIRECTIVE
from hpcml.resolving import Resolved
from hpcml.settings import Binding
from hpcml.sites import Partition, Site

TEMPLATE = re.compile(r"\{(params|inputs)\.([^{}]+)\}")
LONGEST_ARGUMENT = (1 << 17) - 1  # bytes; Linux's MAX_ARG_STRLEN, its NUL included
ALL_ARGUMENTS = 1 << 20  # bytes; half of what Linux allows by default
LONGEST_NOTICE = 300  # seconds
OPTIONS = ("partition",)


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
    _check_arguments(resolved)
    partition_name, partition = _place(resolved, site, decisions)
    limits = _limits(resolved, site, partition_name, partition, decisions)
    cpus = _cpus(resolved, partition_name, partition)
    what: dict[str, Any] = {
        "entry": resolved.entry,
        "args": None if resolved.args is None else list(resolved.args),
        "params": resolved.params,
        "env": resolved.env,
        "code": resolved.code,
        "folder": resolved.folder,
        "inputs": resolved.inputs,
        "outputs": [dict(output) for output in resolved.outputs],
        "image": None,
        "launcher": None,
        "scheduler": site.scheduler,
        "limits": limits,
        "cpus": cpus,
        "directives": _directives(partition_name, cpus, limits),
    }
    if resolved.checkpoint is not None:
        what["checkpoint"] = {key: resolved.checkpoint[key] for key in ("path", "requeues")}
    where = {
        "site": site.name,
        "name": resolved.name,
        "tags": resolved.tags,
        "account": binding.account,
        "user": binding.user,
        "workspace": binding.workspace,
        "system_root": site.system_root,
        "python": binding.python,
        "agent_python": binding.agent_python,
        "library": binding.library,
        "inputs": resolved.input_paths,
        "stamps": resolved.stamps,
        "origins": {
            name: {"run": origin.run, "output": origin.output}
            for name, origin in resolved.origins.items()
        },
        "environment": _environment(resolved, binding, cpus, decisions),
        "git": resolved.git,
    }
    if resolved.entry["kind"] == "function":
        where["functions"] = binding.functions
    if resolved.code:
        decisions.append(f"code: snapshot {resolved.code[:12]}")
    else:
        decisions.append("code: none is taken along")
    return Plan(what, where, tuple(decisions), resolved.unresolved)


def _check_binding(binding: Binding) -> None:
    """A folder or variable with bytes that are no text cannot be written into a plan."""
    paths = {"workspace": binding.workspace, "python": binding.python}
    variables = {f"environment.{name}": value for name, value in binding.environment.items()}
    for field, value in {**paths, **variables}.items():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise PlanError(field, f"{value!r} is not UTF-8", "Choose or name it so.") from None


def _check_arguments(resolved: Resolved) -> None:
    """Names in templates and parameters must be known; what is too long is refused."""
    swept = resolved.swept
    known = {"params": {**resolved.params, **swept}, "inputs": resolved.inputs}
    entry = resolved.entry
    field, templates = "args", list(resolved.args or [])
    if entry["kind"] == "command":
        if resolved.args is not None:
            raise PlanError("args", "a command list holds its own arguments", "Add them to entry.")
        field, templates = "entry", entry["target"]
    if entry["kind"] == "function":
        if resolved.args is not None:
            raise PlanError("args", "a function takes keywords", "Give params instead.")
        _check_required(resolved)
    for template in templates:
        for kind, name in TEMPLATE.findall(template):
            if name not in known[kind]:
                raise PlanError(
                    field, f"the job has no {{{kind}.{name}}}", nearest(name, known[kind])
                )
    if resolved.known_params is not None:
        for name in known["params"]:
            if name not in resolved.known_params:
                raise PlanError(
                    f"params.{name}",
                    f"{entry['target']} does not know it",
                    nearest(name, resolved.known_params),
                )
    _check_inputs(resolved)
    longest = {**resolved.params, **_longest(resolved.points)}
    if resolved.args is None and entry["kind"] != "command":
        field = "params"
        lengths = [len(f"--{name}={_argument(value)}".encode()) for name, value in longest.items()]
    else:
        values = {"params": longest, "inputs": resolved.input_paths}
        lengths = [_filled_length(template, values) for template in templates]
    lengths += [len(f"{name}={value}".encode()) for name, value in resolved.env.items()]
    if max(lengths, default=0) >= LONGEST_ARGUMENT or sum(lengths) > ALL_ARGUMENTS:
        raise PlanError(
            field,
            "an argument or variable may have 128 KiB, all together 1 MiB",
            "Write long values into a file, and give that as an input.",
        )


def _check_inputs(resolved: Resolved) -> None:
    """An input that nobody asks for by that name, while one of a like name is missing."""
    given = {*resolved.inputs, *resolved.params, *resolved.swept}
    missing = [name for name in resolved.known_inputs if name not in given]
    for name in resolved.inputs:
        if name not in resolved.known_inputs and difflib.get_close_matches(name, missing):
            problem = f"{resolved.entry['target']} does not know it"
            raise PlanError(f"inputs.{name}", problem, nearest(name, missing))


def _check_required(resolved: Resolved) -> None:
    """A function gets its parameters, and its inputs' paths, as keywords."""
    common = {*resolved.params, *resolved.inputs}
    seen: set[frozenset[str]] = set()
    for number, point in enumerate(resolved.points):
        names = frozenset(point.get("params", ()))
        if names in seen:
            continue
        seen.add(names)
        for name in resolved.required:
            if name not in common and name not in names:
                field = f"points[{number}].params" if resolved.swept else "params"
                raise PlanError(
                    field,
                    f"{resolved.entry['target']} needs {name!r}",
                    f'Write params={{"{name}": ...}}, or give the parameter a default.',
                )


def _longest(points: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each swept parameter the value that takes the most bytes."""
    longest: dict[str, Any] = {}
    for point in points:
        for name, value in point.get("params", {}).items():
            if name not in longest:
                longest[name] = value
            elif isinstance(value, str | list | dict):  # numbers are short, whichever they are
                longest[name] = max(longest[name], value, key=lambda it: len(_argument(it)))
    return longest


def _filled_length(template: str, values: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of an argument once the agent has put values in the place of their names."""
    filled = TEMPLATE.sub(lambda match: _argument(values[match[1]][match[2]]), template)
    return len(filled.encode())


def _argument(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _place(resolved: Resolved, site: Site, decisions: list[str]) -> tuple[str, Partition]:
    """The partition: asked for, else the first with the right kind of device."""
    resources = resolved.resources
    for option in resources.options:
        if option not in OPTIONS:
            raise PlanError("resources.options", f"unknown {option!r}", nearest(option, OPTIONS))
    wanted = resources.options.get("partition")
    if wanted is not None and wanted not in site.partitions:
        raise PlanError(
            "resources.options.partition",
            f"{site.name} has no partition {wanted!r}",
            nearest(wanted, site.partitions),
        )
    kinds = {part.node.device for part in site.partitions.values()}
    for name, partition in site.partitions.items():
        if wanted in (None, name) and partition.node.device == resources.device:
            why = "asked for" if wanted else f"the first with device {resources.device!r}"
            decisions.append(f"partition {name}: {why}")
            return name, partition
    if wanted is not None and resources.device in kinds:
        has = site.partitions[wanted].node.device
        raise PlanError(
            "resources.device",
            f"partition {wanted!r} has no device {resources.device!r}",
            nearest(resources.device, [has]),
        )
    raise PlanError(
        "resources.device",
        f"{site.name} has no device {resources.device!r}",
        nearest(resources.device, kinds),
    )


def _limits(
    resolved: Resolved, site: Site, name: str, partition: Partition, decisions: list[str]
) -> dict[str, Any]:
    resources, node = resolved.resources, partition.node
    nodes = _count("nodes", resources.nodes)
    if nodes is None or nodes > partition.nodes:
        raise PlanError(
            "resources.nodes",
            f"{name} gives at most {partition.nodes}, the job asks for {nodes}",
            f"The nearest that fits: nodes={partition.nodes}.",
        )
    time = units.seconds(resources.time, "resources.time")
    longest = units.seconds(partition.time)
    if time > longest:
        raise PlanError(
            "resources.time",
            f"{name} allows {units.clock(longest)}, the job asks for {units.clock(time)}",
            f'The nearest that fits: time="{longest}s".',
        )
    memory = None
    if resources.memory is not None:
        memory = units.memory(resources.memory, "resources.memory")
        if memory > node.memory_bytes or memory <= 0:
            raise PlanError(
                "resources.memory",
                f"a node of {name} has {units.memory_text(node.memory_bytes)}, the job asks for "
                f"{resources.memory}",
                f'The nearest that fits: memory="{node.memory_bytes >> 20} MiB".',
            )
    else:
        decisions.append("memory: not asked for; a share by CPUs is set aside, nothing is enforced")
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
        "memory": memory,
        "notice": notice,
        "kill_wait": units.seconds(site.kill_wait),
    }


def _cpus(resolved: Resolved, name: str, partition: Partition) -> int:
    """CPUs that the job occupies: tasks × CPUs of each."""
    resources, node = resolved.resources, partition.node
    if (_count("devices", resources.devices, least=0) or 0) > node.devices:
        raise PlanError(
            "resources.devices",
            f"a node of {name} has {node.devices}, the job asks for {resources.devices}",
            f"The nearest that fits: devices={node.devices or None}.",
        )
    tasks = _count("tasks", resources.tasks) or 1
    if tasks > 1:
        raise PlanError(
            "resources.tasks",
            f"{name} starts one process a run, the job asks for {tasks}",
            "Ask for more cpus, and start processes in the job.",
        )
    cpus = _count("cpus", resources.cpus) or 1
    if cpus > int(node.cpus):
        raise PlanError(
            "resources.cpus",
            f"a node of {name} has {node.cpus}, the job asks for {cpus}",
            f"The nearest that fits: cpus={node.cpus}.",
        )
    return cpus


def _count(field: str, value: object, least: int = 1) -> int | None:
    if value is None:
        return None
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        value = operator.index(value)  # NumPy's integers
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PlanError(
            f"resources.{field}",
            f"{value!r} is no number from {least} up",
            f"Write it like {field}={least or 1}.",
        )
    return value


def _directives(partition: str, cpus: int, limits: dict[str, Any]) -> list[str]:
    """Slurm's options; the embedded site reads them as comments of the script."""
    directives = [f"--partition={partition}", "--nodes=1", f"--cpus-per-task={cpus}"]
    if limits["memory"] is not None:
        directives.append(f"--mem={-(-limits['memory'] // 1024)}K")
    return [*directives, f"--time={units.clock(limits['time'])}"]


def _environment(
    resolved: Resolved, binding: Binding, cpus: int, decisions: list[str]
) -> dict[str, str]:
    """The site's environment, and as many OpenMP threads as the run has CPUs."""
    environment = {"PYTHONUNBUFFERED": "1", **binding.environment}  # what it prints is seen at once
    if "OMP_NUM_THREADS" not in resolved.env:
        environment["OMP_NUM_THREADS"] = str(cpus)
        decisions.append(f"OMP_NUM_THREADS={cpus}: the run has {cpus} CPUs")
    return environment
