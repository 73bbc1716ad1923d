"""Fake trees of powercap, with counters that a helper process advances along a known curve."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RANGE = 262_143_328_850  # µJ, as packages have it


class Tree:
    """What a machine shows below ``/sys/class/powercap``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "sys" / "class" / "powercap"
        (self.folder / "intel-rapl").mkdir(parents=True)  # the control type: no zone

    def add(self, zone: str, name: str, count: int = 0, size: int = RANGE) -> Path:
        """Add a zone; its parts lie beside it, as in /sys/class. Gives its counter's file."""
        folder = self.folder / zone
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{size}\n")
        self.set(zone, count)
        return folder / "energy_uj"

    def set(self, zone: str, count: int) -> None:
        """Have a counter show a count; readers find the old one or the new one."""
        path = self.folder / zone / "energy_uj"
        path.touch()
        with path.open("r+b", buffering=0) as file:
            file.write(b"%020d\n" % count)


def two_sockets(root: Path) -> Tree:
    """Two packages with parts and memory, their mirrors, and the platform above them."""
    tree = Tree(root)
    for socket in (0, 1):
        tree.add(f"intel-rapl:{socket}", f"package-{socket}", 1000 * (socket + 1))
        tree.add(f"intel-rapl:{socket}:0", "core")
        tree.add(f"intel-rapl:{socket}:1", "dram")
        tree.add(f"intel-rapl-mmio:{socket}", f"package-{socket}", 1000 * (socket + 1))
    tree.add("intel-rapl:2", "psys", 77)
    return tree


# Watts of each counter, as a function of the seconds of the monotonic clock: a wave of ten seconds.
WATTS = {"package-0": 100.0, "package-1": 60.0, "core": 30.0, "dram": 10.0, "psys": 300.0}
WAVE, OMEGA = 0.5, 2 * math.pi / 10

ADVANCE = """
import glob, math, os, sys, time
watts, wave, omega = eval(sys.argv[2])
files = []
for folder in glob.glob(sys.argv[1] + "/sys/class/powercap/*:*"):
    name = open(folder + "/name").read().strip()
    size = int(open(folder + "/max_energy_range_uj").read())
    counter = os.open(folder + "/energy_uj", os.O_WRONLY)
    files.append((counter, watts[name], size, int(open(folder + "/energy_uj").read())))
begin = time.monotonic()
print(begin, flush=True)
while os.getppid() == int(sys.argv[3]):
    now = time.monotonic()
    integral = now - begin + wave / omega * (math.cos(omega * begin) - math.cos(omega * now))
    for counter, power, size, first in files:
        os.pwrite(counter, b"%020d\\n" % ((first + round(power * integral * 1e6)) % size), 0)
    time.sleep(0.002)
"""


def used(watts: float, begin: float, end: float) -> float:
    """J of a power of ``watts`` and its wave, between two times of the monotonic clock."""
    wave = WAVE / OMEGA * (math.cos(OMEGA * begin) - math.cos(OMEGA * end))
    return watts * (end - begin + wave)


@contextmanager
def advancing(tree: Tree) -> Iterator[None]:
    """A process that advances all counters of a tree, as if the machine used ``WATTS``."""
    told = repr((WATTS, WAVE, OMEGA))
    argv = [sys.executable, "-c", ADVANCE, str(tree.root), told, str(os.getpid())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
        finally:
            process.kill()
