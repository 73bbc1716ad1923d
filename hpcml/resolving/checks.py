"""What the fields of a job may say. Hostile text either arrives unchanged or is refused here."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpcml import units
from hpcml.errors import JobError
from hpcml.job import Checkpoint, Dataset, Output, Resources
from hpcml.output import Origin, OutputPath

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# "TOKENIZERS_PARALLELISM" and "MAX_TOKENS" are no secrets.
_SENSITIVE = r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY"
_SECRET_PARAMETER = re.compile(_SENSITIVE, re.I)
# A parameter may well be called pad_token; a variable is not.
_SECRET_VARIABLE = re.compile(rf"{_SENSITIVE}|TOKEN(?![A-Z])|_PWD$", re.I)


DEEPEST = 50  # lists and dicts within each other
LONGEST_INTEGER = 4096  # bits; Python itself refuses to write more than 4300 digits


def text(field: str, value: object) -> str:
    """Text that a command line and a UTF-8 file can carry."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise JobError(field, f"{value!r} is not text", "Write it as a string.")
    if "\0" in value:
        problem = "it holds a NUL character, which no command line can carry"
        raise JobError(field, problem, "Leave it out, or put such data into a file.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise JobError(
            field, f"{value!r} is not valid Unicode (it holds a lone surrogate)", "Mend the text."
        ) from None
    return value


def image(value: object) -> str | None:
    """The absolute path of a container image."""
    return None if value is None else os.path.abspath(text("image", value))


def texts(field: str, values: Iterable[object]) -> list[str]:
    """A list of texts; a single text is a mistake."""
    if isinstance(values, str | bytes):
        words = values.split() if values[:1] else [values]
        raise JobError(field, f"{values!r} is one text, not a list", f"Write {words!r}.")
    if not isinstance(values, Sequence):  # a set has no order, a dict's keys are not meant
        raise JobError(field, f"{values!r} is no list", 'Write it like ["a", "b"].')
    return [text(f"{field}[{number}]", value) for number, value in enumerate(values)]


def name(field: str, value: object) -> str:
    """A name for people: one line of at most 200 characters."""
    checked = text(field, value)
    if not checked or len(checked) > 200 or CONTROL.search(checked):
        advice = "One line, 1 to 200 characters, no control characters."
        raise JobError(field, f"{checked[:50]!r} is no name", advice)
    return checked


def mapping(field: str, values: object) -> Mapping[Any, Any]:
    """Something by name."""
    if not isinstance(values, Mapping):
        raise JobError(field, f"{values!r} is no dict", 'Write it like {"name": ...}.')
    return values


def resources(value: object) -> Resources:
    """Resources whose words are words; numbers, times and amounts are for the planner."""
    if not isinstance(value, Resources):
        raise JobError(
            "resources", f"{value!r} is no Resources", "Write hpcml.Resources(cpus=1, ...)."
        )
    text("resources.device", value.device)
    for key, option in mapping("resources.options", value.options).items():
        text("resources.options", key)
        if option is not True:
            text(f"resources.options.{key}", option)
    return value


def params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters: JSON values by names that an option can have."""
    checked = {}
    for key, value in mapping("params", values).items():
        if not isinstance(key, str) or not _PARAMETER.fullmatch(key):
            raise JobError(
                "params", f"{key!r} cannot be the name of a parameter", "Letters, digits, _ . -"
            )
        if _SECRET_PARAMETER.search(key):
            raise _looks_like_a_secret(f"params.{key}")
        checked[key] = json_value(f"params.{key}", value)
    return checked


def points(values: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The points of a sweep, as the lines of ``points.jsonl``."""
    known: set[str] = set()
    checked = []
    for number, point in enumerate(values):
        new = [key for key in point if key not in known]
        if new:  # names are alike from point to point: each is looked at once
            try:
                known.update(params({key: point[key] for key in new}))
            except JobError as error:
                raise _at_point(number, error) from None
        row = {}
        for key, value in point.items():
            usual = (value.__class__ is int and -(1 << 62) < value < 1 << 62) or (
                value.__class__ is float and value - value == 0.0  # finite
            )
            try:
                row[key] = value if usual else json_value(f"params.{key}", value)
            except JobError as error:
                raise _at_point(number, error) from None
        checked.append({"params": row})
    return tuple(checked)


def _at_point(number: int, error: JobError) -> JobError:
    field = f"points[{number}].{error.field}"
    return JobError(field, error.problem[len(error.field) + 2 :], error.advice)


def _looks_like_a_secret(field: str) -> JobError:
    return JobError(
        field,
        "this looks like a secret, and plans are written to disk and shared",
        "Have the job read it from a file of its own, with mode 0600.",
    )


def json_value(field: str, value: Any, depth: int = 0) -> Any:
    """A value that JSON can say; NumPy's scalars become Python's."""
    if depth > DEEPEST:
        raise JobError(
            field.partition("[")[0][:50], "it is nested too deeply, or holds itself", "Flatten it."
        )
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        raise JobError(field, "a number of that many digits", "Write it as text.")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str | os.PathLike):
        return text(field, value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise JobError(field, f"{value!r} is no JSON number", "Write it as text.")
        return float(value)
    if isinstance(value, list | tuple):
        return [json_value(f"{field}[{n}]", item, depth + 1) for n, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            text(field, key): json_value(f"{field}.{key}", value[key], depth + 1) for key in value
        }
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return json_value(field, value.item(), depth + 1)
    raise JobError(
        field,
        f"{type(value).__name__} is no JSON value",
        "Parameters are numbers, text, booleans, None, and lists and dicts of those; data that a "
        "job reads belongs into inputs.",
    )


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """Environment variables; names that look like secrets are refused."""
    checked = {}
    for key, value in mapping("env", values).items():
        field = f"env.{key}"
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise JobError("env", f"{key!r} cannot be the name of a variable", "Letters, digits, _")
        if key.startswith("HPCML_"):
            raise JobError(field, "names with HPCML_ are hpcml's own", "Choose another name.")
        if _SECRET_VARIABLE.search(key):
            raise _looks_like_a_secret(field)
        checked[key] = text(field, value)
    return checked


def input_name(value: object) -> str:
    """Inputs are named like variables."""
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise JobError("inputs", f"{value!r} cannot be the name of an input", "Letters, digits, _")
    return value


def distinct_variables(names: Iterable[str]) -> None:
    """A run finds an input's path in ``HPCML_INPUT_<NAME>``, too: no two may share it."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.upper(), name)
        if other != name:
            raise JobError(
                "inputs", f"{other!r} and {name!r} differ in case only", "Rename one of them."
            )


def input_origin(source: object) -> Origin | None:
    """Where an input comes from that is a run's output."""
    source = source.source if isinstance(source, Dataset) else source
    return source.origin if isinstance(source, OutputPath) else None


def input_source(name: str, source: object) -> str:
    """Absolute path of an input on this machine."""
    field = f"inputs.{name}"
    if isinstance(source, OutputPath):
        return str(source)  # it need not be there yet
    if callable(getattr(source, "output", None)):  # a run
        advice = 'Give one of its outputs: run.output("model.pt").'
        raise JobError(field, f"{source!r} is no file", advice)
    path = text(field, source.source if isinstance(source, Dataset) else source)
    if "://" in path:
        raise JobError(
            field, f"{path!r} is a URL, and hpcml cannot stage those yet", "Give a path."
        )
    return text(field, os.path.abspath(os.path.expanduser(path)))


def outputs(values: Iterable[object]) -> tuple[dict[str, Any], ...]:
    """Declared outputs: ``path``, and ``optional`` where one is."""
    if isinstance(values, str | bytes | Output) or not isinstance(values, Sequence):
        raise JobError("outputs", f"{values!r} is no list", f"Write [{values!r}].")
    found: list[dict[str, Any]] = []
    for number, value in enumerate(values):
        field = f"outputs[{number}]"
        path = value.path if isinstance(value, Output) else value
        row: dict[str, Any] = {"path": below_work("outputs", text(field, path))}
        if isinstance(value, Output) and value.optional:
            row["optional"] = True
        found.append(row)
    return tuple(found)


def below_work(field: str, path: str) -> str:
    """A path within the working folder, normalised."""
    normal = posixpath.normpath(path)
    if not path or posixpath.isabs(path) or normal == "." or normal.split("/")[0] == "..":
        raise JobError(
            field, f"{path!r} is not below the job's folder", 'Write it like "model.pt".'
        )
    return normal


def checkpoint(value: object) -> dict[str, Any] | None:
    """How a job goes on after an interruption: ``path``, ``notice`` in s, ``requeues``."""
    if value is None:
        return None
    if not isinstance(value, Checkpoint):
        problem = f"{value!r} is no Checkpoint"
        raise JobError("checkpoint", problem, "Write hpcml.Checkpoint(...).")
    if type(value.requeues) is not int or value.requeues < 0:
        problem = f"{value.requeues!r} is no number from 0 up"
        raise JobError("checkpoint.requeues", problem, "Write it like requeues=3.")
    return {
        "path": below_work("checkpoint.path", text("checkpoint.path", value.path)),
        "notice": units.seconds(value.notice, "checkpoint.notice"),
        "requeues": value.requeues,
    }
