"""How far a command has come: what is said should it be broken off, or its output go nowhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hpcml.errors import few

if TYPE_CHECKING:
    import hpcml

NOTHING = "Nothing was submitted."

advice = "Call it again: nothing is done twice."


def reached(so_far: str) -> None:
    """Say what has been done until now, and what to do then."""
    global advice
    advice = so_far


def going_on(runs: hpcml.Runs) -> None:
    """These runs are the queue's, whatever becomes of this command."""
    batches: dict[str, list[str]] = {}
    for run in runs:
        batches.setdefault(run.id.partition(".")[0], []).append(run.id)
    ids = [batch if len(those) > 1 else those[0] for batch, those in batches.items()]
    reached(f"Runs go on: {few(ids)}")


def told() -> str:
    """What is said now: a submission may have come further than it could say."""
    batch = sys.modules.get("hpcml.batch")
    if advice == NOTHING and batch is not None and batch.last_known:
        return f"`hpcml status {batch.last_known}` says how far its submission came."
    return advice
