"""What was read of documents, by the digest of their text: reading YAML takes milliseconds.

It can be removed at any time. What is damaged, or another version's, is not believed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hpcml import __version__
from hpcml.agent import files, wire
from hpcml.errors import HpcmlError
from hpcml.folders import cache_folder

FORM = f"1 {__version__}"  # to be counted up when documents are read differently

Place = tuple[str | int, ...]
Positions = dict[Place, tuple[int, int]]


def recall(text: str) -> tuple[dict[str, Any], Positions] | None:
    """What was read of a text, and where it stands; ``None``: nothing that can be believed."""
    try:
        path = _file(text)
        files.private_folder(str(path.parent))
        digest, _, body = path.read_bytes().partition(b"\n")
        if digest.decode() != hashlib.sha256(body).hexdigest():
            return None
        content, places = json.loads(body)
        return content, {tuple(place): (line, column) for place, line, column in places}
    except (OSError, ValueError, HpcmlError, files.Trouble):
        return None


def keep(text: str, content: dict[str, Any], places: Positions) -> None:
    """Remember what was read of a text, where it can be."""
    body = json.dumps([content, [[place, *position] for place, position in places.items()]])
    data = f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}".encode()
    try:
        path = _file(text)
        files.private_folder(str(path.parent))
        wire.publish(str(path), data)
    except (OSError, HpcmlError, files.Trouble):
        pass  # then it is read again


def _file(text: str) -> Path:
    name = hashlib.sha256(f"{FORM}\n{text}".encode()).hexdigest()
    return cache_folder() / "documents" / f"{name}.json"
