"""Names and values as MLflow takes them."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable
from typing import Any

from hpcml.agent import wire

LONGEST_NAME = 230  # bytes: file systems take 255, and a tag is called hpcml.name.<name>
LONGEST_PARAM = 6000
LONGEST_TAG = 5000
_REFUSED = re.compile(r"[^/\w.\- :]")
_ESCAPED = re.compile(r"_x([0-9A-F]{4,6}|)_")
_LIKE_ESCAPED = re.compile(r"_(?=x([0-9A-F]{4,6}|)[\W_])")  # what follows may become an escape
_ODD = re.compile("[\x00\ud800-\udfff]")


def spell_names(names: Iterable[str]) -> dict[str, str]:
    """Names as MLflow takes them, each as another one.

    A character that MLflow refuses becomes ``_x001B_``, with its code point in hexadecimal digits.
    So do slashes and leading full stops where they would make a path that is not plain, or one
    below another name; the empty name is ``_x_``. What is longer than a name can be ends with a
    part of its digest instead.
    """
    spelt = {name: _spell(name) for name in names}
    taken = set(spelt.values())
    for name, other in spelt.items():
        above = [other[: place.start()] for place in re.finditer("/", other)]
        if taken.intersection(above):
            spelt[name] = other.replace("/", "_x002F_")
    return {name: _shorten(name, other) for name, other in spelt.items()}


def read_name(spelt: str) -> str:
    """The name that was spelt so, if it was not shortened."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", spelt)


def _spell(name: str) -> str:
    found = _LIKE_ESCAPED.sub(_escape("_"), name)
    found = _REFUSED.sub(lambda match: _escape(match.group()), found)
    if not found:
        return "_x_"
    if posixpath.normpath(found) != found or found.startswith(("/", "..")) or found == ".":
        found = re.sub(r"/|^\.", lambda match: _escape(match.group()), found)
    return found


def _escape(character: str) -> str:
    return f"_x{ord(character):04X}_"


def _shorten(name: str, spelt: str) -> str:
    if len(spelt.encode()) <= LONGEST_NAME:
        return spelt
    digest = wire.sha256(json.dumps(name).encode("ascii"))[:16]
    return spelt.encode()[: LONGEST_NAME - 17].decode("utf-8", "ignore") + "-" + digest


def text_of(value: Any) -> str:
    """A value as text: JSON, but texts as they are."""
    return value if isinstance(value, str) else json.dumps(value)


def fit(text: str, longest: int) -> str:
    """Text that every store can keep; of a longer one its length and digest are told."""
    text = _ODD.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    if len(text) <= longest:
        return text
    digest = wire.sha256(text.encode())
    return f"{len(text)} characters, more than MLflow keeps; sha256:{digest}"
