"""The energy of a run by its queue's accounting, where hpcml's own meter has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpcml.energy.model import MEASURED, Energy, amount
from hpcml.schedulers import Accounted

SCOPE = "allocation"


def or_accounted(measured: Energy, lives: Sequence[Accounted]) -> Energy:
    """What was measured; where that is nothing, what the accounting has of the allocation.

    That is of its whole nodes and of its whole life: setup, and what came after the command, are
    in it. An allocation that several runs shared is none's own.

    Parameters
    ----------
    measured : Energy
        By hpcml's own meter.
    lives : sequence of Accounted
        Of the allocation that the run was in.
    """
    begun = [life for life in lives if life.started is not None]
    if measured.joules is not None or not begun:
        return measured
    source = begun[-1].source
    why = _why_not(begun)
    if why:
        said = "; ".join(filter(None, [measured.why, f"{source}: {why}"]))
        return replace(measured, why=said, sources={**measured.sources, source: why})
    return replace(
        measured,
        joules=sum(life.joules or 0.0 for life in begun),
        scope=SCOPE,
        seconds=sum(life.elapsed or 0.0 for life in begun),
        covered=sum(life.covered for life in begun),
        gaps=(),
        exclusive=all(life.alone for life in begun),
        sources={**measured.sources, source: MEASURED},
        why="",
        root="/",
    )


def _why_not(begun: Sequence[Accounted]) -> str:
    """Why its accounting is no figure of the run; empty if it is one."""
    unknown = [number for number, life in enumerate(begun, 1) if life.joules is None]
    if unknown:
        of = "" if len(begun) == 1 else f", allocation {', '.join(map(str, unknown))}"
        return f"nothing was measured{of}"
    runs = max(life.runs for life in begun)
    if runs > 1:
        joules = sum(life.joules or 0.0 for life in begun)
        return f"{amount(joules)} are of an allocation of {runs} runs, and no run's own"
    return ""
