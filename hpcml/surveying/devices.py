"""Devices by the names that sites give them in Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("gpu", "ipu", "tpu", "fpga", "npu")  # resources that are devices; others are none


@dataclass(frozen=True)
class Model:
    """What is sold under a name.

    Attributes
    ----------
    memory : str or None
        Where all of that name have the same.
    """

    vendor: str
    name: str
    architecture: str
    memory: str | None = None


# Vendors' data sheets; compute capabilities by NVIDIA's list, gfx numbers by ROCm's.
MODELS = {
    "p100": Model("nvidia", "P100", "sm_60"),
    "v100": Model("nvidia", "V100", "sm_70"),
    "t4": Model("nvidia", "T4", "sm_75", "16 GiB"),
    "a100": Model("nvidia", "A100", "sm_80"),
    "a30": Model("nvidia", "A30", "sm_80", "24 GiB"),
    "a2": Model("nvidia", "A2", "sm_86", "16 GiB"),
    "a10": Model("nvidia", "A10", "sm_86", "24 GiB"),
    "a40": Model("nvidia", "A40", "sm_86", "48 GiB"),
    "l4": Model("nvidia", "L4", "sm_89", "24 GiB"),
    "l40": Model("nvidia", "L40", "sm_89", "48 GiB"),
    "l40s": Model("nvidia", "L40S", "sm_89", "48 GiB"),
    "h100": Model("nvidia", "H100", "sm_90"),
    "h200": Model("nvidia", "H200", "sm_90", "141 GB"),
    "gh200": Model("nvidia", "GH200", "sm_90"),
    "b200": Model("nvidia", "B200", "sm_100"),
    "gb200": Model("nvidia", "GB200", "sm_100"),
    "mi100": Model("amd", "MI100", "gfx908", "32 GiB"),
    "mi210": Model("amd", "MI210", "gfx90a", "64 GiB"),
    # Where Slurm counts their halves, each has 64 GiB, else twice as much.
    "mi250": Model("amd", "MI250", "gfx90a"),
    "mi250x": Model("amd", "MI250X", "gfx90a"),
    "mi300a": Model("amd", "MI300A", "gfx942", "128 GiB"),
    "mi300x": Model("amd", "MI300X", "gfx942", "192 GiB"),
}


def named(names: Iterable[str]) -> tuple[str, Model] | None:
    """The model that the first of these names means that means one: ``nvidia_a100-sxm4-40gb``."""
    for name in names:
        for word in re.split(r"[^a-z0-9]+", name.lower()):
            if word in MODELS:
                return name, MODELS[word]
    return None
