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
    found = [f"--{name}" + _value(value) for name, value in placed["options"].items()]
    found.append(f"--nodes={placed['nodes']}")
    if placed["tasks"] > 1:
        found.append(f"--ntasks-per-node={placed['tasks']}")
    found.append(f"--cpus-per-task={placed['cpus'] * slots}")
    found += _devices(placed, slots)
    if placed["memory"] is not None:
        memory = placed["memory"] * (1 if placed["memory_of_node"] else slots)
        found.append(f"--mem={-(-memory // 1024)}K")
    if what["scheduler"] == "slurm":  # what is not prepared for it must not run twice
        found.append("--requeue" if "checkpoint" in what else "--no-requeue")
    rounds = layout.rounds if layout.slots else 1
    time = math.ceil(what["limits"]["time"] * rounds)  # a plan may have finer limits than Slurm
    return [*found, f"--time={units.clock(time)}"]


def _value(value: str | bool) -> str:
    return "" if value is True else f"={value}"


def _devices(placed: Mapping[str, Any], slots: int) -> list[str]:
    number = placed["devices"] * slots
    if placed["devices_by"] == "gres":
        return [f"--gres={placed['gres']}:{number}"]
    if placed["devices_by"] == "gpus-per-node":
        return [f"--gpus-per-node={number}"]
    if placed["devices_by"] == "gpus-per-task":
        return [f"--gpus-per-task={number // placed['tasks']}"]
    return []
