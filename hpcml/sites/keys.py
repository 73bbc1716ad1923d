"""The keys of a profile, each with what it means: for `hpcml sites explain`, and the reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from hpcml.documents import parse, read_text
from hpcml.errors import ArgumentError, nearest
from hpcml.sites.layers import SUFFIX
from hpcml.sites.loading import packaged_profiles
from hpcml.sites.schema import EXTENDS, Schema, model_schema
from hpcml.sites.sourced import facts_of

NAME, NUMBER = "NAME", "N"  # stand for names of one's own, and for places in lists
KINDS = {"string": "text", "integer": "number", "boolean": "true or false", "object": "mapping"}
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """A key of a profile.

    Attributes
    ----------
    name : str
        With dots; NAME stands for a name of one's own, N for a place in a list.
    description : str
    kind : str
        What is written there.
    default : str or None
        As JSON; ``None``: there is none.
    required : bool
        Whether a profile, with what it extends, must say it.
    allowed : tuple of str
        The words that can stand there; empty: others, too.
    pattern : str or None
        What a text must look like, as a regular expression; of amounts and times `kind` says it.
    example : str or None
        As JSON.
    """

    name: str
    description: str
    kind: str
    default: str | None
    required: bool
    allowed: tuple[str, ...]
    pattern: str | None
    example: str | None


@cache
def all_keys() -> tuple[Key, ...]:
    """All keys of a profile, in their order."""
    return tuple(_walk(_examples()))


def key_names() -> list[str]:
    """Their names alone, which takes less time."""
    return [key.name for key in _walk({})]


def keys_of(asked: str) -> list[Key]:
    """The keys that somebody may mean: by their names, or how these end.

    Raises
    ------
    ArgumentError
        There is none; the nearest is named.
    """
    parts = tuple(asked.split("."))
    exact = [key for key in all_keys() if _matches(_parts(key), parts)]
    found = exact or [key for key in all_keys() if _parts(key)[-len(parts) :] == parts]
    if not found:
        last = {_parts(key)[-1] for key in all_keys()} - {NAME, NUMBER}
        raise ArgumentError(f"there is no key {asked!r}", f"{nearest(parts[-1], last)}.")
    return found


def _parts(key: Key) -> Parts:
    return tuple(key.name.split("."))


def _matches(pattern: Parts, parts: Parts) -> bool:
    return len(pattern) == len(parts) and all(
        one in (NAME, part) or (one == NUMBER and part.isdigit())
        for one, part in zip(pattern, parts, strict=True)
    )


def _walk(examples: dict[Parts, Any]) -> Iterator[Key]:
    schema = model_schema()
    top: Schema = {"properties": {"extends": EXTENDS, **schema["properties"]}}
    top["required"] = schema["required"]
    return _keys(top, (), schema["$defs"], examples)


def _keys(
    schema: Schema, above: Parts, defs: dict[str, Schema], examples: dict[Parts, Any]
) -> Iterator[Key]:
    for name, said in schema.get("properties", {}).items():
        place = (*above, name)
        alternatives = [
            _resolved(one, defs) for one in said.get("anyOf", [said]) if one != {"type": "null"}
        ]
        words = [word for one in alternatives for word in _words(one)]
        default = said.get("default")
        shown = next((it for seen, it in examples.items() if _matches(place, seen)), None)
        if isinstance(shown, list) and any(isinstance(it, dict) for it in shown):
            shown = None  # its own keys have examples
        for one in alternatives if shown is None else ():
            shown = next(iter(one.get("examples", ())), shown)
        yield Key(
            ".".join(place),
            said.get("description") or alternatives[0].get("description", ""),
            " or ".join(dict.fromkeys(_kind(one, defs) for one in alternatives)),
            None if default is None else json.dumps(default),
            name in schema.get("required", ()),
            tuple(words),
            next(
                (it["pattern"] for it in alternatives if "pattern" in it and "format" not in it),
                None,
            ),
            None if shown is None else json.dumps(shown, ensure_ascii=False),
        )
        for one in alternatives:
            inner, deeper = _within(one, place, defs)
            yield from _keys(inner, deeper, defs, examples)


def _within(schema: Schema, place: Parts, defs: dict[str, Schema]) -> tuple[Schema, Parts]:
    """What has keys of its own within a mapping of names, or a list; and where it is."""
    named = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    if named and isinstance(named[0], dict):
        return _resolved(named[0], defs), (*place, NAME)
    if "items" in schema:
        return _resolved(schema["items"], defs), (*place, NUMBER)
    return schema, place


def _resolved(schema: Schema, defs: dict[str, Schema]) -> Schema:
    for one in (schema, *schema.get("allOf", ())):
        if "$ref" in one:
            return defs[one["$ref"].rpartition("/")[2]]
    return schema


def _words(schema: Schema) -> list[str]:
    words = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    return [word if isinstance(word, str) else json.dumps(word) for word in words]


def _kind(schema: Schema, defs: dict[str, Schema]) -> str:
    if schema.get("type") == "array":
        return f"list of {_kind(_resolved(schema['items'], defs), defs)}"
    if schema.get("enum") or "const" in schema:
        return "one of the words"
    return str(schema.get("format") or KINDS[schema["type"]])


def _examples() -> dict[Parts, Any]:
    """What the profiles that come with hpcml say, by place: the first that says it counts."""
    found: dict[Parts, Any] = {}
    for file in packaged_profiles():
        content, marks = parse(read_text(file), str(file))
        facts, _, _ = facts_of(content, marks, file.name.removesuffix(SUFFIX))
        for place, value in _leaves(facts, ()):
            found.setdefault(place, value)
    return found


def _leaves(value: Any, place: Parts) -> Iterator[tuple[Parts, Any]]:
    if isinstance(value, dict):
        for key, it in value.items():
            yield from _leaves(it, (*place, key))
    elif value is not None:
        yield place, value
        for number, it in enumerate(value if isinstance(value, list) else ()):
            yield from _leaves(it, (*place, str(number)))
