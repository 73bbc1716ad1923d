"""What documents are checked against: plain data, whose fields say what may stand there.

They are dataclasses, and nothing here loads pydantic: only a document that has not been seen before
has to be checked (:mod:`hpcml.documents.checking`), and pydantic takes longer to load than a plan.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar, dataclass_transform

Model = TypeVar("Model")

MODELS: dict[str, type[Any]] = {}  # by their names


def fact(
    *, default: Any = MISSING, default_factory: Any = MISSING, description: str, **rules: Any
) -> Any:
    """A field of :func:`facts`.

    Parameters
    ----------
    default, default_factory
        As of a dataclass.
    description : str
        For `hpcml sites explain`, the JSON schema and the reference.
    **rules
        As of pydantic's ``Field``: ``ge``, ``le``, ``min_length``.
    """
    told = {"description": description, **rules}
    return field(default=default, default_factory=default_factory, metadata=told)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(fact, field))
def facts(model: type[Model]) -> type[Model]:
    """Make a class a part of a document: an unknown key is an error, nothing is changed later.

    What its ``__post_init__`` raises as ``ValueError`` is an error of the document.
    """
    made = dataclass(frozen=True, kw_only=True)(model)
    made.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    MODELS[made.__name__] = made
    return made


def changed(said: Model, **values: Any) -> Model:
    """The same facts with other values, which are not checked."""
    made = copy.copy(said)
    vars(made).update(values)
    return made


class Checked:
    """Marks a type whose values are looked at by a function, which raises ``ValueError``.

    Parameters
    ----------
    check : callable
        Gets the value, whatever it is.
    **schema
        What a JSON schema says of it besides its type.
    """

    def __init__(self, check: Callable[[Any], object], **schema: Any) -> None:
        self.check, self.schema = check, schema

    def _checked(self, value: Any) -> Any:
        self.check(value)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], Any]) -> Any:
        return {**handler(schema), **self.schema}


def matching(pattern: str, expected: str) -> Checked:
    """Marks text that matches a pattern; ``expected`` says in words what that is."""

    def check(value: Any) -> None:
        if not isinstance(value, str) or re.fullmatch(pattern, value, re.DOTALL) is None:
            raise ValueError(f"{expected} is expected")

    return Checked(check, pattern=pattern)


class OneWord:
    """Marks a mapping that may be said by one word, which stands for these of its keys."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def _mapping(self, value: Any) -> Any:
        return dict.fromkeys(self.keys, value) if isinstance(value, str) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._mapping, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], Any]) -> Any:
        return {"anyOf": [handler(schema), {"type": "string"}]}
