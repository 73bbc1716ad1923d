"""What queues' accounting has of runs that have ended, beside what the runs' own files tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hpcml.batch_view import Attempt, BatchView, ChunkView
from hpcml.schedulers import Accounted

SETTLE = 10.0  # s after the end of an allocation in which its figures may still be written
LATEST = 7 * 86400.0  # s after the end of a run: what is not on record by then will never be
SILENT = "ended, and the site's accounting did not answer"
LATE = "ended, and the site's accounting has not told all of it yet"


@dataclass(frozen=True)
class Account:
    """What is on record of a run that has ended.

    Attributes
    ----------
    lives : sequence of Accounted
        Those of its allocation, in their order.
    awaited : str
        Why there may be more soon; empty: this is all.
    """

    lives: Sequence[Accounted] = ()
    awaited: str = ""


Accounts = Mapping[BatchView, Mapping[int, Account]]
Facts = Mapping[str, Mapping[int, Sequence[Accounted]]]
Wanted = Mapping[BatchView, Collection[int]]


def accounts(wanted: Wanted) -> Accounts:
    """The accounts of runs of one site that have ended, all by one query; each is asked for once.

    Raises
    ------
    QueueError
        The accounting does not answer.
    """
    parts = [part for view, indices in wanted.items() for part in _to_ask(view, indices)]
    found: Facts | None = None
    if parts:
        found = parts[0][0].connection.queue.facts([part.chunk for _, part in parts])
    told: dict[BatchView, dict[int, Account]] = {view: {} for view in wanted}
    for view, indices in wanted.items():
        for index in indices:
            account = _account(view, index, found)
            told[view][index] = account
            if not account.awaited:
                view.accounts[index] = account.lives
    return told


def silent(wanted: Wanted) -> Accounts:
    """The accounts of runs, as long as nobody answers."""
    return {
        view: {
            index: Account((), SILENT if _is_young(view, index) else "") for index in wanted[view]
        }
        for view in wanted
    }


def life_of(attempt: Attempt, lives: Sequence[Accounted]) -> int | None:
    """The number of the life that an attempt was in, from 1; ``None``: nobody knows."""
    given = (attempt.start or {}).get("allocation") or {}
    ours = [number for number, life in enumerate(lives, 1) if life.job == given.get("job")]
    place = given.get("restarts")
    return ours[place] if isinstance(place, int) and 0 <= place < len(ours) else None


def _to_ask(view: BatchView, indices: Collection[int]) -> list[tuple[BatchView, ChunkView]]:
    unknown = {view.part_of(index) for index in indices if index not in view.accounts}
    return [(view, it) for it in view.chunks if it in unknown and it.chunk.id is not None]


def _account(view: BatchView, index: int, found: Facts | None) -> Account:
    """What is known of a run; ``found`` is ``None`` where the queue keeps no accounting."""
    if index in view.accounts:
        return Account(view.accounts[index])
    chunk = view.part_of(index).chunk
    if found is None or chunk.id is None:
        return Account()
    lives = found.get(chunk.name, {}).get(index, ())
    whole = bool(lives) and _is_whole(lives[-1], view.connection.files.now())
    last = next(reversed(view.seen[index].attempts), None)
    if last is not None and (last.start or {}).get("allocation"):
        whole = whole and life_of(last, lives) is not None
    return Account(lives, LATE if not whole and _is_young(view, index) else "")


def _is_whole(life: Accounted, now: float) -> bool:
    if life.ended is None or not life.meaning:
        return False
    return life.joules is not None or now - life.ended >= SETTLE


def _is_young(view: BatchView, index: int) -> bool:
    """Whether its end is not long ago; of one without an end, its submission."""
    attempts = view.seen[index].attempts
    end = attempts[-1].end if attempts else None
    since = end["time"] if end else view.part_of(index).asked
    return since is None or view.connection.files.now() - float(since) < LATEST
