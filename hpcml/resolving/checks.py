"""What the fields of a job may say. Hostile text either arrives unchanged or is refused here."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpcml.errors import JobError
from hpcml.job import Dataset

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRET = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|PRIVATE_?KEY|CREDENTIAL)", re.I)


def text(field: str, value: object) -> str:
    """Text that a command line and a UTF-8 file can carry."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise JobError(field, f"{value!r} is not text", "Write it as a string.")
    if "\0" in value:
        raise JobError(field, "it holds a NUL character, which no command line can carry")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise JobError(
            field, f"{value!r} is not valid Unicode (it holds a lone surrogate)", "Mend the text."
        ) from None
    return value


def texts(field: str, values: Iterable[object]) -> list[str]:
    """A list of texts; a single text is a mistake."""
    if isinstance(values, str | bytes):
        raise JobError(field, f"{values!r} is one text, not a list", f"Write [{values!r}].")
    return [text(f"{field}[{number}]", value) for number, value in enumerate(values)]


def name(field: str, value: object) -> str:
    """A name for people: one line of at most 200 characters."""
    checked = text(field, value)
    if not checked or len(checked) > 200 or _CONTROL.search(checked):
        raise JobError(field, f"{checked[:50]!r} is no name", "One line, 1 to 200 characters.")
    return checked


def params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters: JSON values by names that an option can have."""
    checked = {}
    for key, value in values.items():
        if not isinstance(key, str) or not _PARAMETER.fullmatch(key):
            raise JobError(
                "params", f"{key!r} cannot be the name of a parameter", "Letters, digits, _ . -"
            )
        checked[key] = json_value(f"params.{key}", value)
    return checked


def json_value(field: str, value: Any) -> Any:
    """A value that JSON can say; NumPy's scalars become Python's."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str | os.PathLike):
        return text(field, value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise JobError(field, f"{value!r} is no JSON number", "Write it as text.")
        return float(value)
    if isinstance(value, list | tuple):
        return [json_value(f"{field}[{number}]", item) for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {text(field, key): json_value(f"{field}.{key}", value[key]) for key in value}
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return json_value(field, value.item())
    raise JobError(
        field,
        f"{type(value).__name__} is no JSON value",
        "Parameters are numbers, text, booleans, None, and lists and dicts of those; data that a "
        "job reads belongs into inputs.",
    )


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """Environment variables; names that look like secrets are refused."""
    checked = {}
    for key, value in values.items():
        field = f"env.{key}"
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise JobError("env", f"{key!r} cannot be the name of a variable", "Letters, digits, _")
        if key.startswith("HPCML_"):
            raise JobError(field, "names with HPCML_ are hpcml's own", "Choose another name.")
        if _SECRET.search(key):
            raise JobError(
                field,
                "this looks like a secret, and plans are written to disk and shared",
                "Have the job read it from a file of its own, with mode 0600.",
            )
        checked[key] = text(field, value)
    return checked


def input_name(value: object) -> str:
    """Inputs are named like variables."""
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise JobError("inputs", f"{value!r} cannot be the name of an input", "Letters, digits, _")
    return value


def input_source(name: str, source: object) -> str:
    """Absolute path of an input on this machine."""
    field = f"inputs.{name}"
    path = text(field, source.source if isinstance(source, Dataset) else source)
    if "://" in path:
        raise JobError(
            field, f"{path!r} is a URL, and hpcml cannot stage those yet", "Give a path."
        )
    return os.path.abspath(os.path.expanduser(path))


def output(path: str) -> str:
    """An output's path within the working folder, normalised."""
    normal = posixpath.normpath(path)
    if not path or posixpath.isabs(path) or normal == "." or normal.split("/")[0] == "..":
        raise JobError(
            "outputs", f"{path!r} is not below the job's folder", 'Write it like "model.pt".'
        )
    return normal
