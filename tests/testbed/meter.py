"""The energy counters of a compute node: runs on it, and advances them along a power curve.

    meter.py CURVE MODE

CURVE is a file with JSON: a list of [seconds, watts], gone through again and again; a changed
file counts from then on. MODE is that of powercap's counters, such as 400: for root alone. The
counters are those of HPE Cray nodes, which Slurm reads (acct_gather_energy/pm_counters), and
Linux's powercap for what jobs read themselves.
"""

import json
import os
import sys
import time

TICK = 0.1  # seconds: pm_counters are refreshed at 10 Hz

PM_COUNTERS = "/sys/cray/pm_counters"
POWERCAP = "/sys/class/powercap"
RANGE = 262_143_328_850  # µJ, after which a package's counter starts again

# Which share of the node's power each powercap zone has.
ZONES = {
    "intel-rapl:0": ("package-0", 0.2),
    "intel-rapl:0:0": ("dram", 0.05),
    "intel-rapl:1": ("package-1", 0.2),
    "intel-rapl:1:0": ("dram", 0.05),
}


class Counter:
    """A file that is overwritten in place, as its readers keep it open."""

    def __init__(self, folder: str, name: str, mode: int = 0o644) -> None:
        os.makedirs(folder, exist_ok=True)
        self.file = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT, mode)

    def show(self, text: str) -> None:
        line = (text + "\n").encode()
        os.pwrite(self.file, line, 0)
        os.ftruncate(self.file, len(line))


def watts(curve: list[list[float]], seconds: float) -> float:
    """The power at a time since the curve's beginning."""
    seconds %= sum(duration for duration, _ in curve)
    for duration, power in curve:
        if seconds < duration:
            return power
        seconds -= duration
    return curve[-1][1]


def make_zones(mode: int) -> dict[Counter, float]:
    """The counter of each powercap zone, and its share of the power."""
    for zone, (name, _) in ZONES.items():
        Counter(os.path.join(POWERCAP, zone), "name").show(name)
        Counter(os.path.join(POWERCAP, zone), "max_energy_range_uj").show(str(RANGE))
    return {
        Counter(os.path.join(POWERCAP, zone), "energy_uj", mode): share
        for zone, (_, share) in ZONES.items()
    }


def main() -> None:
    energy, power, freshness, generation = (
        Counter(PM_COUNTERS, name) for name in ("energy", "power", "freshness", "generation")
    )
    generation.show("1")
    zones = make_zones(int(sys.argv[2], 8))
    curve: list[list[float]] = []
    read, begin = -1, 0.0
    joules, before, ticks = 0.0, time.monotonic(), 0
    while True:
        changed = os.stat(sys.argv[1]).st_mtime_ns
        now = time.monotonic()
        if changed != read:
            with open(sys.argv[1]) as file:
                curve, read, begin = json.load(file), changed, now
        power_now = watts(curve, now - begin)
        joules += power_now * (now - before)
        before, ticks = now, ticks + 1
        stamp = time.time_ns() // 1000
        energy.show(f"{int(joules)} J {stamp} us")
        power.show(f"{int(power_now)} W {stamp} us")
        freshness.show(str(ticks))
        for zone, share in zones.items():
            zone.show(str(int(joules * share * 1e6) % RANGE))
        time.sleep(TICK)


main()
