"""From what a document says to a model, or to all that is wrong with it."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hpcml.documents.parsing import Marks, Place, parse, raise_first, wrong_at
from hpcml.documents.reading import read_text
from hpcml.errors import ProfileError, nearest

Model = TypeVar("Model", bound=BaseModel)
SHOWN = 200  # characters of what a document says


def read_model(model: type[Model], path: Traversable) -> Model:
    """Read one YAML file as a model, which is not to be changed.

    Raises
    ------
    ProfileError
        The file cannot be read, is no YAML, or says what the model does not allow.
    """
    found: Model = _model(model, read_text(path), str(path))
    return found


@lru_cache(maxsize=64)  # as of `parse`
def _model(model: type[Model], text: str, path: str) -> Model:
    return check_model(model, *parse(text, path), path)


def check_model(model: type[Model], content: Any, marks: Marks, path: str) -> Model:
    """Validate content.

    Raises
    ------
    ProfileError
        The first thing that is wrong; its ``others`` are the rest.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise_first(_wrong(model, error, marks, path))


def wrong_in(
    model: type[BaseModel], content: Any, marks: Marks, path: str, *, whole: bool = True
) -> list[ProfileError]:
    """All that is wrong with content; where it need not be whole, nothing is missing."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        return _wrong(model, error, marks, path, whole=whole)
    return []


def _wrong(
    model: type[BaseModel], error: ValidationError, marks: Marks, path: str, *, whole: bool = True
) -> list[ProfileError]:
    found: dict[Place, ProfileError] = {}
    # A misspelt key is unknown, and the right one missing: the former is what to mend.
    for one in sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden"):
        place = tuple(one["loc"])
        if one["type"] == "extra_forbidden":
            advice = nearest(str(place[-1]), _fields_at(model, place[:-1]))
            found[place] = wrong_at(marks, place, path, "unknown key", advice)
        elif one["type"] == "missing":
            if whole:
                found[place] = wrong_at(marks, place, path, "it is missing", "Add it.")
        else:
            # Beyond the last key that stands in the file, pydantic names the branch of a union.
            known = place
            while known and known not in marks:
                known = known[:-1]
            problem = one["msg"].removeprefix("Value error, ")  # which pydantic puts before ours
            advice = f"It says {_shortened(repr(one['input']))}."
            found.setdefault(known, wrong_at(marks, known or place, path, problem, advice))
    return list(found.values())


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    """Names of the fields that a model has at some depth."""
    current: Any = model
    for part in place:
        field = getattr(current, "model_fields", {}).get(part)
        annotation = field.annotation if field is not None else current
        current = _model_in(annotation)
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """The model within ``dict[str, Model]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
