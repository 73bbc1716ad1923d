"""Linux's powercap: RAPL, the counters of Intel's and AMD's processors, in files below /sys.

``intel-rapl:<n>`` is a package or the platform ("psys"), ``intel-rapl:<n>:<m>`` a part of it.
``intel-rapl-mmio:*`` shows the packages' counters once more, by another way of reading them.
Since Linux 5.10 only root may read the counters, as they betray what programs compute.
Source: Documentation/power/powercap/powercap.rst of Linux.
"""

import os

from hpcml.agent.energy import READERS
from hpcml.agent.energy.domains import DENIED, Domain

UNIT = 1e-6  # energy_uj counts µJ
PERIOD = 0.001  # s between two updates, about (Intel's manual, vol. 3, on RAPL)
# s in which a counter does not wrap, whatever its domain does: by the same manual that takes about
# a minute "when power consumption is high", and longer otherwise. So its own range says which power
# cannot be. (The limits beside it do not: peaks may exceed them, and AMD shows none.)
WRAP = 60.0
KINDS = {"core": "core", "uncore": "uncore", "dram": "dram", "psys": "psys"}
WITHIN = ("core", "uncore")  # of a package's parts those that its own counter includes
PREFIXES = ("intel-rapl:", "intel-rapl-mmio:")


def find(root: str) -> "list[Domain]":
    """The domains of this machine. OSError: the folder cannot be listed."""
    folder = os.path.join(root, READERS["powercap"])
    zones = sorted(name for name in os.listdir(folder) if name.startswith(PREFIXES))
    paths = {zone: os.path.join(folder, zone) for zone in zones}
    for zone in zones:  # parts are found beside their package, or only within it
        for name in _listed(paths[zone]):
            if name.startswith(zone + ":"):
                paths.setdefault(name, os.path.join(paths[zone], name))
    found: "dict[str, Domain]" = {}
    for zone in sorted(paths, key=_order):
        domain = _domain(zone, paths[zone], found)
        if domain is not None:
            found[zone] = domain
    _relate(found)
    return list(found.values())


def _order(zone: str) -> "tuple[int, bool, str]":
    """Packages before their parts, originals before their mirrors."""
    return zone.count(":"), "-mmio" in zone, zone


def _domain(zone: str, path: str, found: "dict[str, Domain]") -> "Domain | None":
    label = _text(os.path.join(path, "name"))
    if label is None:
        return None  # no zone, or one that is just being removed
    kind = KINDS.get(label, "cpu" if label.startswith("package") else "device")
    above = found.get(zone.rpartition(":")[0])
    name = "%s/%s" % (above.name, label) if above is not None else label
    if "-mmio" in zone and above is None:
        name = "mmio/" + name
    if any(domain.name == name for domain in found.values()):
        name = "%s (%s)" % (name, zone)
    size = _number(os.path.join(path, "max_energy_range_uj"))
    domain = Domain(
        name,
        kind,
        os.path.join(path, "energy_uj"),
        UNIT,
        PERIOD,
        size,
        None if size is None else size * UNIT / WRAP,
    )
    domain.probe()
    if domain.status == DENIED:
        domain.why += " (root only since Linux 5.10)"
    return domain


def _relate(found: "dict[str, Domain]") -> None:
    """Say which domain contains which, and which shows the counter of another one."""
    originals = {domain.name: domain for domain in found.values()}
    for zone, domain in found.items():
        if "-mmio" in zone:
            original = domain.name[len("mmio/") :]
            domain.mirrors = original if original in originals else None
        above = found.get(zone.rpartition(":")[0])
        if above is not None and domain.kind in WITHIN:
            above.contains.append(domain.name)
    for platform in found.values():
        if platform.kind == "psys":
            others = (it for it in found.values() if it.kind in ("cpu", "dram"))
            platform.contains += [it.name for it in others if it.mirrors is None]


def _listed(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _number(path: str) -> "int | None":
    """A number above 0; ``None`` where there is none."""
    text = _text(path)
    return int(text) or None if text is not None and text.isdigit() else None


def _text(path: str) -> "str | None":
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None
