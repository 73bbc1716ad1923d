"""Whether a job's entry knows its arguments, parameters and inputs, and how long they get."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpcml.errors import PlanError, nearest
from hpcml.resolving import Resolved

TEMPLATE = re.compile(r"\{(params|inputs)\.([^{}]+)\}")
LONGEST_ARGUMENT = (1 << 17) - 1  # bytes; Linux's MAX_ARG_STRLEN, its NUL included
ALL_ARGUMENTS = 1 << 20  # bytes; half of what Linux allows by default


def check_arguments(resolved: Resolved) -> None:
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
