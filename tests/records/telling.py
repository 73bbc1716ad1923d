"""What agents and jobs of batches by hand write into their events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.byhand import ByHand

NOW = 1_795_284_347.0
SECOND = 1_000_000_000


def events(*told: Mapping[str, Any], attempt: int = 1, end: bool = True) -> bytes:
    """An attempt's events: each of the job's comes a second after the one before."""
    first = {"e": "start", "t": NOW, "m": 0, "attempt": attempt, "host": "node", "cores": 2}
    last = {"e": "end", "t": NOW, "m": (len(told) + 1) * SECOND, "exit_code": 0, "signal": None}
    lines = [first, *({"m": (n + 1) * SECOND, **one} for n, one in enumerate(told))]
    return lines_of([*lines, *([last] if end else [])])


def lines_of(records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def log(step: Any = None, **values: Any) -> dict[str, Any]:
    return {"e": "log", "step": step, "v": values}


def ended(batch: ByHand, index: int = 0, *told: Mapping[str, Any], **more: Any) -> None:
    """A run that has told something, and has ended."""
    batch.file("events.jsonl", index).write_bytes(events(*told))
    batch.end(index, **more)
