"""From what a document says to its facts, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from importlib.resources.abc import Traversable
from typing import Any, get_type_hints

from hpcml.documents import remembered
from hpcml.documents.facts import Model
from hpcml.documents.packages import load
from hpcml.documents.parsing import Marks, Place, parse, raise_first, wrong_at
from hpcml.documents.reading import read_text
from hpcml.errors import ProfileError, nearest

SHOWN = 200  # characters of what a document says
UNKNOWN_KEY, MISSING, OURS = "unexpected_keyword_argument", "missing", "value_error"
EXPECTED = {
    "bool": "true or false",
    "dataclass": "a mapping",
    "dict": "a mapping",
    "float": "a number",
    "greater_than_equal": "a number from {ge} up",
    "int": "a whole number",
    "less_than_equal": "a number up to {le}",
    "list": "a list",
    "literal": "{words}",
    "string": "text",
    "too_short": "one at least",
}
"""What is expected, by the names of pydantic's errors or what these begin with."""


def read_model(model: type[Model], path: Traversable) -> Model:
    """Read one YAML file as a model, which is not to be changed.

    Raises
    ------
    ProfileError
        The file cannot be read, is no YAML, or says what the model does not allow.
    """
    kind: Any = model
    found: Model = _model(kind, read_text(path), str(path))
    return found


@lru_cache(maxsize=64)  # as of `parse`
def _model(model: Any, text: str, path: str) -> Any:
    return check_model(model, *parse(text, path), path)


def check_model(model: type[Model], content: Any, marks: Marks, path: str) -> Model:
    """The facts that a content says.

    Raises
    ------
    ProfileError
        The first thing that is wrong; its ``others`` are the rest.
    """
    known = remembered.recall_facts(model, content)
    if known is not None:
        return known
    checked, errors = _checked(model, content)
    if errors:
        raise_first(_wrong(model, errors, marks, path))
    found: Model = checked
    remembered.keep_facts(content, found)
    return found


def wrong_in(
    model: type[Any], content: Any, marks: Marks, path: str, *, whole: bool = True
) -> list[ProfileError]:
    """All that is wrong with content; where it need not be whole, nothing is missing."""
    return _wrong(model, _checked(model, content)[1], marks, path, whole=whole)


def json_schema(model: Any) -> dict[str, Any]:
    """A model as JSON schema."""
    schema: dict[str, Any] = _adapter(model).json_schema()
    return schema


@cache
def _adapter(model: Any) -> Any:
    return load("pydantic").TypeAdapter(model)


def _checked(model: Any, content: Any) -> tuple[Any, list[Mapping[str, Any]]]:
    adapter = _adapter(model)
    from pydantic import ValidationError

    try:
        return adapter.validate_python(content), []
    except ValidationError as error:
        return None, [dict(one) for one in error.errors()]


def _wrong(
    model: type[Any],
    errors: Sequence[Mapping[str, Any]],
    marks: Marks,
    path: str,
    *,
    whole: bool = True,
) -> list[ProfileError]:
    found: dict[Place, ProfileError] = {}
    others: dict[Place, list[Mapping[str, Any]]] = {}
    for one in errors:
        place = _place(one, marks)
        if one["type"] == UNKNOWN_KEY:
            advice = nearest(str(place[-1]), _fields_at(model, place[:-1]))
            found[place] = wrong_at(marks, place, path, "unknown key", advice)
        else:
            others.setdefault(place, []).append(one)
    # A misspelt key is unknown, and the right one missing: the former is what to mend.
    for place, here in sorted(others.items(), key=lambda it: it[1][0]["type"] == MISSING):
        if here[0]["type"] == MISSING:
            if whole:
                found[place] = wrong_at(marks, place, path, "it is missing", "Add it.")
        elif _ours(here) or not any(_is_in(other, place) for other in (*found, *others)):
            advice = f"It says {_shortened(repr(here[0]['input']))}."
            found[place] = wrong_at(marks, place, path, _problem(here), advice)
    return list(found.values())


def _place(error: Mapping[str, Any], marks: Marks) -> Place:
    """Where an error is; pydantic names the branches of a union, too, which stand in no file."""
    loc = error["loc"]
    last = loc[-1:] if error["type"] in (UNKNOWN_KEY, MISSING) else ()
    place: Place = ()
    for part in loc[: len(loc) - len(last)]:
        place = (*place, part) if (*place, part) in marks else place
    return (*place, *last)


def _is_in(inner: Place, outer: Place) -> bool:
    """Whether a place is below another one: one branch of a union was meant, and it is wrong."""
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _ours(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of errors is in our own words."""
    return [str(one["msg"]) for one in errors if one["type"] == OURS]


def _problem(errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong at a place, in all branches of a union: what we say of it ourselves counts."""
    ours = _ours(errors)
    if ours:
        return ours[0].removeprefix("Value error, ")  # which pydantic puts before it
    expected = [_expected(one) for one in errors]
    if None in expected:
        return str(errors[expected.index(None)]["msg"])
    return f"{' or '.join(dict.fromkeys(map(str, expected)))} is expected"


def _expected(error: Mapping[str, Any]) -> str | None:
    kind = error["type"]
    told = EXPECTED.get(kind, EXPECTED.get(kind.partition("_")[0]))
    context = error.get("ctx", {})
    words = str(context.get("expected", "")).replace("'", "")
    return None if told is None else told.format(**{**context, "words": words})


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _fields_at(model: type[Any], place: Place) -> list[str]:
    """Names of the fields that a model has at some depth."""
    current: Any = model
    for part in place:
        hints = get_type_hints(current) if is_dataclass(current) else {}
        current = _model_in(hints.get(str(part), current))
    return [one.name for one in fields(current)] if is_dataclass(current) else []


def _model_in(annotation: Any) -> Any:
    """The model within ``dict[str, Model]`` and the like."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
