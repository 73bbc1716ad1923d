"""Free space on a site: of runs that have ended, of what no run names any more, and leftovers.

>>> hpcml.prune(older_than="30d")                          # doctest: +SKIP
>>> hpcml.prune(older_than="30d").apply()                  # doctest: +SKIP

The first shows what would be freed, and changes nothing.
"""

from __future__ import annotations

from datetime import timedelta

from hpcml.connection import connect
from hpcml.enclosing import enclosing_run
from hpcml.errors import ArgumentError, HpcmlError, JobError
from hpcml.pruning.candidates import Candidates, Wish
from hpcml.pruning.freeing import Freeing
from hpcml.pruning.model import DAY, Item, Kept, Pruning
from hpcml.pruning.use import Use
from hpcml.units import memory, seconds

__all__ = ["Item", "Kept", "Pruning", "prune"]

USUAL = 30 * DAY
REST = "What was just being removed goes with the next `hpcml prune`."


def prune(
    site: str = "local",
    *,
    older_than: str | timedelta | None = None,
    down_to: str | None = None,
    work_only: bool = False,
    without_records: bool = False,
) -> Pruning:
    """Find what can be freed on a site. Nothing is changed until ``.apply()`` is called.

    Nothing that is in use is freed: no submission with a run that has not ended, none that such a
    one names, waits for, reads from or was submitted by, and no code, no library and no
    input of any submission that stays.

    Parameters
    ----------
    site : str
        Name of a site profile.
    older_than : str or timedelta, optional
        Of submissions: for how long all runs have ended, like ``"30d"``; ``"0s"``: any. Of the
        rest: for how long nobody has relied on it, a day at least. Default: 30 days, or any age
        with ``down_to``.
    down_to : str, optional
        Bytes to which the workspace is to shrink, like ``"20 GiB"``: the oldest submissions go,
        and no more of them than that takes.
    work_only : bool
        Free only the ``work/`` folders of runs: their states, logs and events stay.
    without_records : bool
        Free runs also if what they were and told could not be recorded.

    Returns
    -------
    Pruning
        What would be freed: ``.items``, ``.bytes``, and ``.kept`` with reasons.

    Raises
    ------
    ArgumentError
        There is no such age or size.
    HpcmlError
        This is a job.
    TransportError, QueueError
        The site cannot be read.
    """
    if enclosing_run() is not None:
        raise HpcmlError("a job frees nothing on its own site", "Prune from outside.")
    wish = _wish(older_than, down_to, work_only, without_records)
    connection = connect(site)
    use = Use(connection)
    candidates = Candidates(connection, wish, use)
    items = candidates.find()
    workspace = connection.binding.workspace

    def apply(pruning: Pruning) -> Pruning:
        freeing = Freeing(connection, wish, use)
        try:
            freeing.free(pruning.items)
        except KeyboardInterrupt as error:
            error.add_note(f"{done(freeing).summary} {REST}")
            raise
        return done(freeing)

    def done(freeing: Freeing) -> Pruning:
        return Pruning(site, workspace, tuple(freeing.freed), tuple(freeing.kept), True)

    kept = tuple(dict.fromkeys(candidates.kept))
    return Pruning(site, workspace, tuple(items), kept, _apply=apply)


def _wish(
    older_than: str | timedelta | None, down_to: str | None, work_only: bool, without_records: bool
) -> Wish:
    try:
        age = None if older_than is None else float(seconds(older_than, "older_than", zero=True))
        size = None if down_to is None else memory(down_to, "down_to")
    except JobError as error:
        raise ArgumentError(error.problem, error.advice) from None
    usual = USUAL if down_to is None else 0.0
    return Wish(
        usual if age is None else age,
        size,
        work_only,
        without_records,
        rarely=max(DAY, usual if age is None else age),
        forgotten=max(DAY, USUAL if age is None else age),
    )
