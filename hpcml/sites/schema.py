"""The model of a profile as JSON Schema, with which editors complete and check files."""

from __future__ import annotations

from typing import Any

from hpcml.documents import json_schema
from hpcml.sites.profile import Site
from hpcml.sites.sourced import CONFIDENCE, UNKNOWN

Schema = dict[str, Any]
SOURCED: Schema = {
    "source": {"description": "Who says so; for all facts beside it.", "type": "string"},
    "confidence": {
        "description": "; ".join(f"{letter}: {meaning}" for letter, meaning in CONFIDENCE.items()),
        "enum": list(CONFIDENCE),
    },
}
REFERENCES: Schema = {name: {"$ref": f"#/$defs/{name}"} for name in SOURCED}
EXTENDS: Schema = {
    "description": "The profile that this one adds to; its own name: the next one below it.",
    "type": "string",
}


def model_schema() -> Schema:
    """What pydantic tells of the model."""
    schema = json_schema(Site)
    del schema["properties"]["origins"]  # is not said, but found
    return schema


def site_schema() -> Schema:
    """What a profile may say.

    Nothing is required: what is missing may be in what a profile extends.
    """
    told = model_schema()
    schema = _transformed(told)
    schema["properties"] = {"extends": EXTENDS, **schema["properties"]}
    parts = {name: _transformed(one) for name, one in told["$defs"].items()}
    schema["$defs"] = {**SOURCED, **parts}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hpcml site profile",
        **schema,
    }


def _transformed(schema: Schema) -> Schema:
    """Without what is required and pydantic's titles, and with sources wherever they may stand."""
    kept = {key: it for key, it in schema.items() if key not in ("required", "title", "$defs")}
    if "items" in kept:
        kept["items"] = _sourced(kept["items"])
    for key in ("anyOf", "allOf"):
        if key in kept:
            kept[key] = [_transformed(one) for one in kept[key]]
    if kept.get("type") == "object":
        named = {name: _sourced(one) for name, one in kept.get("properties", {}).items()}
        kept["properties"] = {**named, **REFERENCES}
        for pattern, one in kept.pop("patternProperties", {}).items():
            kept["patternProperties"] = {_but_sources(pattern): _sourced(one)}
            kept["additionalProperties"] = False
        if isinstance(kept.get("additionalProperties"), dict):
            kept["additionalProperties"] = _sourced(kept["additionalProperties"])
    return kept


def _but_sources(pattern: str) -> str:
    return pattern.replace("^", "^(?!(source|confidence)$)", 1)


def _sourced(schema: Schema) -> Schema:
    """A fact, or the fact with its source; or that it is unknown, where it may be."""
    about: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    bare = _transformed({key: it for key, it in schema.items() if key not in about})
    alternatives = bare.pop("anyOf") if set(bare) == {"anyOf"} else [bare]
    if {"type": "null"} in alternatives:
        alternatives = [*alternatives, {"const": UNKNOWN}]
    value = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    with_source = {
        "type": "object",
        "properties": {"value": value, **REFERENCES},
        "required": ["value"],
        "additionalProperties": False,
    }
    return {**about, "anyOf": [*alternatives, with_source]}
