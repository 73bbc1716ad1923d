"""Where facts of a profile are from, and how sure they are.

Any mapping of a profile may say ``source:`` and ``confidence:``; they hold for all facts in it that
do not say their own. A single fact says them as ``{value: 24h, source: …, confidence: B}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpcml.documents import Marks, Place, wrong_at
from hpcml.errors import ProfileError, nearest

KEYS = ("source", "confidence")
CONFIDENCE = {
    "A": "the site's own documentation, a file that it publishes, or its scheduler itself",
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


def facts_of(content: Any, marks: Marks, path: str) -> tuple[Any, Origins, list[ProfileError]]:
    """A document without what is said of its facts' sources, and that.

    A fact that is said to be ``unknown`` is ``None``.

    Returns
    -------
    content : dict
    origins : dict
        Of each fact that is no mapping, by its place.
    wrong : list of ProfileError
        A source is no text, or a confidence none of A, B and C.
    """
    reader = _Reader(marks, path)
    return reader.facts(content, (), Origin()), reader.origins, reader.wrong


class _Reader:
    def __init__(self, marks: Marks, path: str) -> None:
        self.marks, self.path = marks, path
        self.origins: Origins = {}
        self.wrong: list[ProfileError] = []

    def facts(self, value: Any, place: Place, outer: Origin) -> Any:
        if isinstance(value, dict):
            here = self._origin(value, place, outer)
            if "value" in value and place:  # a profile as a whole is no fact
                self._only_a_value(value, place)
                return self.facts(value["value"], place, here)
            return {
                key: self.facts(it, (*place, key), here)
                for key, it in value.items()
                if key not in KEYS
            }
        self.origins[place] = outer
        if isinstance(value, list):
            return [self.facts(it, (*place, number), outer) for number, it in enumerate(value)]
        return None if value == UNKNOWN else value

    def _origin(self, value: dict[str, Any], place: Place, outer: Origin) -> Origin:
        if not any(key in value for key in KEYS):
            return outer
        source, confidence = value.get("source", outer.source), value.get("confidence")
        if not isinstance(source, str | None):
            problem = f"{source!r} is no text"
            self._note((*place, "source"), problem, "Say who says so.")
            source = None
        if confidence is not None and confidence not in tuple(CONFIDENCE):
            advice = "; ".join(f"{letter}: {meaning}" for letter, meaning in CONFIDENCE.items())
            problem = f"{confidence!r} is none of A, B and C"
            self._note((*place, "confidence"), problem, f"{advice}.")
            confidence = None
        if confidence is None and "source" not in value:
            confidence = outer.confidence
        return Origin(source, confidence)

    def _only_a_value(self, value: dict[str, Any], place: Place) -> None:
        for key in value:
            if key not in ("value", *KEYS):
                self._note((*place, key), "unknown key beside value", nearest(key, KEYS))

    def _note(self, place: Place, problem: str, advice: str) -> None:
        self.wrong.append(wrong_at(self.marks, place, self.path, problem, advice))
