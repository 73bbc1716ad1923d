"""From YAML's text to what it says, and where.

It is read event by event, so that no document costs more than a profile can: not by its depth, not
by aliases that multiply. Words mean what they mean in YAML 1.2: ``no`` is a word, and ``10:30`` no
number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from hpcml.documents import remembered
from hpcml.documents.packages import load
from hpcml.documents.reading import HIDDEN, name_of
from hpcml.errors import ProfileError

Place = tuple[str | int, ...]
MOST = 10_000  # values in a document, those that aliases repeat counted
DEEPEST = 32
LONGEST = 10_000  # characters in a value
SHOWN = 60  # of them in a message
CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
MERGE = "<<"


class Mark(NamedTuple):
    """Where something stands; line and column are counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, column {self.column}"


Marks = dict[Place, Mark]  # of keys, and of the items of lists


def wrong_at(marks: Marks, place: Place, path: str, problem: str, advice: str) -> ProfileError:
    """An error that names the key at a place, where it or what it is in stands in the file."""
    known = place
    while known and known not in marks:
        known = known[:-1]
    key = ".".join(map(str, place))
    mark = marks.get(known, Mark(path, 1, 1))
    return ProfileError(f"{mark}, key {key}: {problem}", advice)


def raise_first(errors: Sequence[ProfileError]) -> NoReturn:
    """Raise the first of several errors, which knows the others."""
    errors[0].others = tuple(errors[1:])
    raise errors[0] from None


@lru_cache(maxsize=64)  # it takes milliseconds, and each submission looks at its site's profile
def parse(text: str, path: str) -> tuple[dict[str, Any], Marks]:
    """A YAML mapping, and where each of its keys stands: neither is to be changed.

    Raises
    ------
    ProfileError
        It is no YAML, no mapping, has a key twice, or is larger or deeper than any profile.
    """
    known = remembered.recall(text)
    if known is None:
        content, places = _Document(text, path).read()
        remembered.keep(text, content, places)
    else:
        content, places = known
    return content, {place: Mark(path, *position) for place, position in places.items()}


class _Scalar(NamedTuple):
    value: str
    plain: bool
    position: tuple[int, int]


class _List(NamedTuple):
    items: list[_Node]
    position: tuple[int, int]


class _Mapping(NamedTuple):
    pairs: list[tuple[_Node, _Node]]
    position: tuple[int, int]


_Node = _Scalar | _List | _Mapping


class _Document:
    def __init__(self, text: str, path: str) -> None:
        self.text, self.path = text, path
        self.anchors: dict[str, _Node] = {}
        self.places: dict[Place, tuple[int, int]] = {}
        self.twice: dict[tuple[int, int], ProfileError] = {}
        self.count = 0

    def read(self) -> tuple[dict[str, Any], dict[Place, tuple[int, int]]]:
        top = self._composed()
        self.count = 0
        if top is None or (isinstance(top, _Scalar) and top.plain and not top.value):
            return {}, {}
        if not isinstance(top, _Mapping):
            raise self._wrong(top.position, "a mapping is expected", 'Write "key: value" lines.')
        content = self._value(top, ())
        if self.twice:
            raise_first(list(self.twice.values()))
        return content, self.places

    # --- events to nodes ------------------------------------------------------------------

    def _composed(self) -> _Node | None:
        yaml = load("yaml")

        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        events = yaml.parse(self.text, Loader=loader)
        try:
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    node = self._node(next(events), events, 0)
                    next(events)
                    self._ends(next(events))
                    return node
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
            tab = mark is not None and self._letter(*position) == "\t"
            problem = "a tab indents" if tab else f"it is not valid YAML: {error.problem}"
            raise self._wrong(position, problem, "Use spaces." if tab else "Mend it.") from None
        except (yaml.YAMLError, ValueError) as error:  # a version of a million digits, say
            raise ProfileError(f"{self.path} is not valid YAML: {error}", "Mend it.") from None
        return None

    def _ends(self, event: Any) -> None:
        import yaml

        if not isinstance(event, yaml.StreamEndEvent):
            raise self._wrong(_position(event), "a second document begins", "Keep one a file.")

    def _letter(self, line: int, column: int) -> str:
        return "".join(self.text.split("\n")[line - 1 : line])[column - 1 : column]

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> _Node:
        import yaml

        position = _position(event)
        self._counted(position, depth)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                word = str(event.anchor)[:SHOWN]
                problem = f"*{word} stands for nothing that is complete before it"
                raise self._wrong(position, problem, f"Write &{word} before a value.")
            return self.anchors[event.anchor]
        if event.tag is not None:
            problem = f"the tag {event.tag[:SHOWN]} is not read"
            raise self._wrong(position, problem, "Leave it off.")
        node: _Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, position)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _List([], position)
            for item in events:
                if isinstance(item, yaml.SequenceEndEvent):
                    break
                node.items.append(self._node(item, events, depth + 1))
        else:
            node = _Mapping([], position)
            for key in events:
                if isinstance(key, yaml.MappingEndEvent):
                    break
                said = self._node(key, events, depth + 1)
                node.pairs.append((said, self._node(next(events), events, depth + 1)))
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any, position: tuple[int, int]) -> _Scalar:
        if len(event.value) > LONGEST:
            problem = f"the value has more than {LONGEST:,} characters"
            raise self._wrong(position, problem, "No fact is that long.")
        hidden = HIDDEN.search(event.value)
        if hidden is not None:
            problem = f"there is {name_of(hidden[0])} in it"
            raise self._wrong(position, problem, "Remove it: it is not seen as what it is.")
        return _Scalar(event.value, event.implicit[0], position)

    # --- nodes to values ------------------------------------------------------------------

    def _value(self, node: _Node, place: Place) -> Any:
        self._counted(node.position, len(place))
        if isinstance(node, _Scalar):
            return _resolved(node)
        if isinstance(node, _List):
            for number, item in enumerate(node.items):
                self.places[(*place, number)] = item.position
            return [self._value(item, (*place, number)) for number, item in enumerate(node.items)]
        said = {}
        for key, (position, value) in self._pairs(node).items():
            self.places[(*place, key)] = position
            said[key] = self._value(value, (*place, key))
        return said

    def _pairs(self, node: _Mapping) -> dict[str, tuple[tuple[int, int], _Node]]:
        """What a mapping says, then what it merges (``<<: *other``) and does not say itself."""
        found: dict[str, tuple[tuple[int, int], _Node]] = {}
        merged: list[_Mapping] = []
        for key, value in node.pairs:
            self._counted(key.position, 0)
            if isinstance(key, _Scalar) and key.plain and key.value == MERGE:
                merged += self._merged(value)
                continue
            word = self._key(key)
            if word in found:
                problem = f"the key {word[:SHOWN]!r} stands twice"
                advice = f"The first is in line {found[word][0][0]}; keep one."
                self.twice[key.position] = self._wrong(key.position, problem, advice)
                continue
            found[word] = key.position, value
        for other in merged:
            found = {**self._pairs(other), **found}
        return found

    def _merged(self, value: _Node) -> list[_Mapping]:
        found = value.items if isinstance(value, _List) else [value]
        mappings = [one for one in found if isinstance(one, _Mapping)]
        if len(mappings) < len(found):
            raise self._wrong(value.position, f"{MERGE} takes mappings", "Write <<: *name.")
        return mappings

    def _key(self, key: _Node) -> str:
        word = _resolved(key) if isinstance(key, _Scalar) else None
        if not isinstance(word, str):
            said = key.value[:SHOWN] if isinstance(key, _Scalar) else "a list or mapping"
            raise self._wrong(key.position, f"the key {said} is no text", "Put it in quotes.")
        return word

    def _counted(self, position: tuple[int, int], depth: int) -> None:
        self.count += 1
        if self.count > MOST:
            problem = f"there are more than {MOST:,} values, with those that aliases repeat"
            raise self._wrong(position, problem, "No profile is that large.")
        if depth > DEEPEST:
            problem = f"it is nested deeper than {DEEPEST} levels"
            raise self._wrong(position, problem, "No profile is that deep.")

    def _wrong(self, position: tuple[int, int], problem: str, advice: str) -> ProfileError:
        return ProfileError(f"{Mark(self.path, *position)}: {problem}", advice)


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _resolved(node: _Scalar) -> Any:
    if not node.plain:
        return node.value
    if node.value.lower() in CONSTANTS:
        return CONSTANTS[node.value.lower()]
    number = NUMBER.fullmatch(node.value)
    if number is None:
        return node.value
    return float(node.value) if number[2] else int(node.value)
