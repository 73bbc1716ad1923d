"""YAML documents checked by pydantic models, with errors that name file, line and key."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hpcml.errors import ProfileError, nearest

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]
Lines = dict[Place, tuple[str, int]]  # file and line (from 1) of each key
MOST_LINES = 10_000


def read_model(model: type[Model], path: Traversable) -> Model:
    """Read one YAML file as a model, which is not to be changed; one that is not there is empty.

    Raises
    ------
    ProfileError
        The file cannot be read, is no YAML, or says what the model does not allow.
    """
    found: Model = _model(model, read_text(path) or "", str(path))
    return found


@lru_cache(maxsize=64)  # as of `parse`
def _model(model: type[Model], text: str, path: str) -> Model:
    content, lines = parse(text, path)
    return check_model(model, content, path, lines)


def read_document(path: Traversable) -> tuple[dict[str, Any], Lines]:
    """As :func:`parse`, of a file."""
    return parse(read_text(path) or "", str(path))


def read_text(path: Traversable) -> str | None:
    """What stands in a file; ``None`` if it is not there."""
    try:
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} cannot be read: {error}", "Mend or move the file.") from error


@lru_cache(maxsize=64)  # it takes milliseconds, and each submission looks at its site's profile
def parse(text: str, path: str) -> tuple[dict[str, Any], Lines]:
    """A YAML mapping, and where each of its keys stands: neither is to be changed."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # "2026-02-31" is a ValueError
        raise ProfileError(f"{path} is not valid YAML: {error}", "Mend the file.") from error
    if content is None:
        return {}, {}
    if not isinstance(content, dict):
        raise ProfileError(f"{path}, line 1: a mapping is expected", 'Write "key: value" lines.')
    lines: Lines = {}
    _note_lines(node, (), lines, path, ())
    return content, lines


def check_model(model: type[Model], content: Any, path: str, lines: Lines) -> Model:
    """Validate content; the first thing that is wrong is reported with its line."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # A misspelt key is unknown, and the right one missing: the former is what to mend.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        place = tuple(first["loc"])
        known = place
        while known and known not in lines:
            known = known[:-1]
        file, line = lines.get(known, (path, 1))
        where = f"{file}, line {line}, key {'.'.join(map(str, place))}"
        if first["type"] == "extra_forbidden":
            advice = nearest(str(place[-1]), _fields_at(model, place[:-1]))
            raise ProfileError(f"{where}: unknown key", advice) from None
        if first["type"] == "missing":
            raise ProfileError(f"{where}: it is missing", "Add it.") from None
        # Beyond the last key that stands in the file, pydantic names the branch of a union.
        where = f"{file}, line {line}, key {'.'.join(map(str, known or place))}"
        raise ProfileError(f"{where}: {first['msg']}", f"It says {first['input']!r}.") from None


def _note_lines(
    node: yaml.Node | None,
    place: Place,
    lines: Lines,
    path: str,
    above: tuple[yaml.Node, ...],
) -> None:
    if node is None or node in above or len(lines) > MOST_LINES:
        return  # aliases may stand for their own parents, or for each other over and over
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, key.value)
            if here in lines:
                raise ProfileError(
                    f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} stands twice",
                    f"The first is in line {lines[here][1]}; keep one.",
                )
            lines[here] = path, key.start_mark.line + 1
            _note_lines(value, here, lines, path, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*place, number)] = path, value.start_mark.line + 1
            _note_lines(value, (*place, number), lines, path, (*above, node))


def _fields_at(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
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
