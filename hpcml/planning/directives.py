"""Slurm's options for an allocation; the embedded site reads them as comments of the script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpcml import units
from hpcml.layout import Layout


def directives(what: Mapping[str, Any], layout: Layout) -> list[str]:
    """Those of an allocation that works through runs of a plan.

    Parameters
    ----------
    what : dict
        Of the plan.
    layout : Layout
        With several slots the allocation has as many times what one run occupies, and with several
        rounds as many times its walltime.
    """
    placed, slots = what["placement"], layout.slots or 1
    found = [f"--partition={placed['partition']}", f"--nodes={placed['nodes']}"]
    if placed["tasks"] > 1:
        found.append(f"--ntasks-per-node={placed['tasks']}")
    found.append(f"--cpus-per-task={placed['cpus'] * slots}")
    if placed["devices"] and placed["gres"] is not None:
        found.append(f"--gres={placed['gres']}:{placed['devices'] * slots}")
    if placed["memory"] is not None:
        found.append(f"--mem={-(-placed['memory'] * slots // 1024)}K")
    if what["scheduler"] == "slurm":  # what is not prepared for it must not run twice
        found.append("--requeue" if "checkpoint" in what else "--no-requeue")
    rounds = layout.rounds if layout.slots else 1
    time = math.ceil(what["limits"]["time"] * rounds)  # a plan may have finer limits than Slurm
    return [*found, f"--time={units.clock(time)}"]
