"""Runs that must be COMPLETED before another one starts, by their own files alone."""

import os
import time

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence

PATIENCE = wire.STALE
INTERVAL = 0.5


def state_of(batch: str, index: int, numbers: "dict[int, set[str]] | None") -> "str | None":
    """Final state of a run, ``None`` while it has none.

    Parameters
    ----------
    batch : str
        Its batch's folder.
    index : int
    numbers : dict or None
        Its attempts, of :meth:`hpcml.agent.wire.Attempts.listing`.
    """
    last = max(numbers or (1,))
    end = wire.Attempts(batch).read(index, last, "end") if numbers else None
    if end is not None and end.get("requeue"):
        return None
    judged = wire.how_it_ended(end, None, 0.0) if end else None
    if judged:
        return judged[0]
    word = wire.first_words(wire.spoken(batch)).get((index, last))
    if end is None and word is None:
        return None
    judged = wire.how_it_ended(end, word, time.time() - end["time"] if end else 0.0)
    return judged[0] if judged else None


def not_completed(runs_folder: str, runs: "Sequence[str]") -> "tuple[str, str] | None":
    """The first run that is not COMPLETED, and what it is; ``None``: all are.

    A batch system says that they have ended; what they wrote last may still be on its way.
    """
    deadline = time.monotonic() + PATIENCE
    for run in runs:
        state = _state(runs_folder, run)
        while state is None and time.monotonic() < deadline:
            time.sleep(INTERVAL)
            state = _state(runs_folder, run)
        if state != wire.COMPLETED:
            return run, state or wire.UNKNOWN
    return None


def _state(runs_folder: str, run: str) -> "str | None":
    batch, index = wire.run_parts(run)
    folder = os.path.join(runs_folder, batch)
    try:
        listing = wire.Attempts(folder).listing()
    except FileNotFoundError:
        return wire.UNKNOWN  # its files were removed
    return state_of(folder, index, listing.get(index))
