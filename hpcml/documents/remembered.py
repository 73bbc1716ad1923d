"""What was read of documents, by the digest of their text: reading and checking them takes long.

It can be removed at any time. What is damaged, or was read by another hpcml, is not believed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hpcml.agent import files, wire
from hpcml.documents.facts import MODELS, Model
from hpcml.errors import HpcmlError
from hpcml.folders import cache_folder

READERS = ("documents/*.py", "sites/*.py", "settings.py", "units.py")  # what reads and checks

Place = tuple[str | int, ...]
Positions = dict[Place, tuple[int, int]]


def recall(text: str) -> tuple[dict[str, Any], Positions] | None:
    """What was read of a text, and where it stands; ``None``: nothing that can be believed."""
    try:
        content, places = _recalled("text", text)
        if not isinstance(content, dict):
            return None
        return content, {tuple(place): (int(line), int(at)) for place, line, at in places}
    except (OSError, ValueError, TypeError, HpcmlError, files.Trouble):
        return None


def keep(text: str, content: dict[str, Any], places: Positions) -> None:
    """Remember what was read of a text, where it can be."""
    _keep("text", text, [content, [[place, *position] for place, position in places.items()]])


def recall_data(kind: str, asked: Any) -> Any:
    """What was kept as the answer to JSON of a kind; ``None``: nothing that can be believed."""
    try:
        return _recalled(kind, json.dumps(asked))
    except (OSError, ValueError, HpcmlError, files.Trouble):
        return None


def keep_data(kind: str, asked: Any, answer: Any) -> None:
    """Remember an answer, where it can be."""
    _keep(kind, json.dumps(asked), answer)


def recall_facts(model: type[Model], content: Any) -> Model | None:
    """The facts that a content was found to say; ``None``: nothing that can be believed."""
    try:
        found = _facts(recall_data(model.__name__, content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, model) else None


def keep_facts(content: Any, found: Any) -> None:
    """Remember which facts a content says, where they are the same when they are recalled."""
    told = _told(found)
    if _facts(told) == found:
        keep_data(type(found).__name__, content, told)


def _told(value: Any) -> Any:
    """As JSON. What has keys is told with its class, so that it cannot be taken for another."""
    if is_dataclass(value):
        said = {one.name: _told(getattr(value, one.name)) for one in fields(value)}
        return {"class": type(value).__name__, "facts": said}
    if isinstance(value, dict):
        return {"class": None, "facts": {key: _told(one) for key, one in value.items()}}
    return [_told(one) for one in value] if isinstance(value, list) else value


def _facts(told: Any) -> Any:
    if isinstance(told, dict):
        said = {key: _facts(one) for key, one in told["facts"].items()}
        return said if told["class"] is None else MODELS[told["class"]](**said)
    return [_facts(one) for one in told] if isinstance(told, list) else told


def _recalled(kind: str, text: str) -> Any:
    path = _file(kind, text)
    files.private_folder(str(path.parent))
    digest, _, body = path.read_bytes().partition(b"\n")
    if digest.decode() != hashlib.sha256(body).hexdigest():
        raise ValueError("it is damaged")
    return json.loads(body)


def _keep(kind: str, text: str, content: Any) -> None:
    body = json.dumps(content)
    data = f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}".encode()
    try:
        path = _file(kind, text)
        files.private_folder(str(path.parent))
        wire.publish(str(path), data)
    except (OSError, HpcmlError, files.Trouble):
        pass  # then it is read again


def _file(kind: str, text: str) -> Path:
    name = hashlib.sha256(f"{_reader()} {kind}\n{text}".encode()).hexdigest()
    return cache_folder() / "documents" / f"{name}.json"


@cache
def _reader() -> str:
    """Digest of what reads documents here: another hpcml may read the same text differently.

    An hpcml that travels is one file, whose name has its digest in it.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(str(package).encode("utf-8", "surrogateescape"))
    for pattern in READERS:
        for path in sorted(package.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()
