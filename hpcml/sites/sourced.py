"""Where facts of a profile are from, and how sure they are.

Any mapping of a profile may say ``source:`` and ``confidence:``; they hold for all facts in it that
do not say their own. A single fact says them as ``{value: 24h, source: …, confidence: B}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpcml.documents import Lines, Place
from hpcml.errors import ProfileError, nearest

KEYS = ("source", "confidence")
CONFIDENCE = {
    "A": "the site's own documentation, or a file that it publishes",
    "B": "job files that ran there, or several independent sources that agree",
    "C": "one source of somebody else's, or inferred: a hint",
}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Origin:
    """Where a fact is from.

    Attributes
    ----------
    source : str or None
        Who says so.
    confidence : {"A", "B", "C"} or None
        As in :data:`CONFIDENCE`.
    """

    source: str | None = None
    confidence: str | None = None


Origins = dict[Place, Origin]


def joined_origins(below: Origins, above: Origins) -> Origins:
    """Where the facts of a profile are from that extends another: what it says itself counts."""
    kept = {
        place: origin
        for place, origin in below.items()
        if not any(place[:depth] in above for depth in range(1, len(place) + 1))
    }
    return {**kept, **above}


def facts_of(content: Any, lines: Lines, path: str) -> tuple[Any, Origins]:
    """A document without what is said of its facts' sources, and that.

    A fact that is said to be ``unknown`` is ``None``.

    Returns
    -------
    content : dict
    origins : dict
        Of each fact that is no mapping, by its place.

    Raises
    ------
    ProfileError
        A source is no text, or a confidence none of A, B and C.
    """
    origins: Origins = {}
    return _facts(content, (), Origin(), origins, lines, path), origins


def _facts(
    value: Any, place: Place, outer: Origin, origins: Origins, lines: Lines, path: str
) -> Any:
    if isinstance(value, dict):
        here = _origin(value, place, outer, lines, path)
        if "value" in value:
            _only_a_value(value, place, lines, path)
            return _facts(value["value"], place, here, origins, lines, path)
        return {
            key: _facts(it, (*place, key), here, origins, lines, path)
            for key, it in value.items()
            if key not in KEYS
        }
    origins[place] = outer
    if isinstance(value, list):
        return [
            _facts(it, (*place, number), outer, origins, lines, path)
            for number, it in enumerate(value)
        ]
    return None if value == UNKNOWN else value


def _origin(value: dict[Any, Any], place: Place, outer: Origin, lines: Lines, path: str) -> Origin:
    if not any(key in value for key in KEYS):
        return outer
    source, confidence = value.get("source", outer.source), value.get("confidence")
    if not isinstance(source, str | None):
        raise _wrong((*place, "source"), lines, path, f"{source!r} is no text", "Say who says so.")
    if confidence is not None and confidence not in CONFIDENCE:
        advice = "; ".join(f"{letter}: {meaning}" for letter, meaning in CONFIDENCE.items())
        problem = f"{confidence!r} is none of A, B and C"
        raise _wrong((*place, "confidence"), lines, path, problem, f"{advice}.")
    if confidence is None and "source" not in value:
        confidence = outer.confidence
    return Origin(source, confidence)


def _only_a_value(value: dict[Any, Any], place: Place, lines: Lines, path: str) -> None:
    for key in value:
        if key not in ("value", *KEYS):
            advice = nearest(str(key), KEYS)
            raise _wrong((*place, key), lines, path, "unknown key beside value", advice)


def _wrong(place: Place, lines: Lines, path: str, problem: str, advice: str) -> ProfileError:
    file, line = lines.get(place, (path, 1))
    key = ".".join(map(str, place))
    return ProfileError(f"{file}, line {line}, key {key}: {problem}", advice)
