"""The figures of a run that are compared, from its record. What is not known has no entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpcml.records.model import EnergyRecord, Phase, Record

UNITS = {
    "queue": "s",
    "setup": "s",
    "first_step": "s",
    "command": "s",
    "phase": "s",
    "rate": "1/s",
    "metric": "",
    "cpu": "s",
    "memory": "B",
    "energy": "J",
    "uncertainty": "J",
    "coverage": "",
    "phase_energy": "J",
    "per_joule": "1/J",
}
LABELS = {
    "first_step": "first step",
    "cpu": "CPU time",
    "memory": "peak memory",
    "rate": "samples/s",
    "energy": "energy",
    "uncertainty": "energy ±",
    "coverage": "energy coverage",
    "phase_energy": "energy",
    "per_joule": "samples/J",
}
SHOWN = {
    "memory": (1 << 20, "MiB"),
    "coverage": (0.01, "%"),
    "rate": (1.0, ""),
    "per_joule": (1.0, ""),
}
KINDS = list(UNITS)
COVERED = 0.99  # an energy that covers less of the time is marked


@dataclass(frozen=True)
class Column:
    """A figure that runs may have.

    Attributes
    ----------
    kind : str
        ``"queue"``, ``"setup"``, ``"first_step"``, ``"command"``, ``"phase"``, ``"rate"``
        (samples/s), ``"metric"`` (its last value), ``"cpu"``, ``"memory"``, ``"energy"``,
        ``"uncertainty"``, ``"coverage"``, ``"phase_energy"``, ``"per_joule"`` (samples/J).
    name : str
        Of the phase or the metric, or the scope of the energy; else empty.
    scope : str
        Of the energy of a phase; else empty.
    """

    kind: str
    name: str = ""
    scope: str = ""

    @property
    def key(self) -> str:
        """Its name in JSON, CSV and data frames: ``command``, ``phase_energy:cpu:train``."""
        scope = [self.scope] if self.scope else []
        return ":".join([self.kind, *scope, *([] if self.kind in ALONE else [self.name])])

    @property
    def unit(self) -> str:
        """``"s"``, ``"1/s"``, ``"B"``, ``"J"``, ``"1/J"``; empty: none, or not known."""
        return UNITS[self.kind]

    @property
    def label(self) -> str:
        """For people, with the unit in which figures are shown to them."""
        label = LABELS.get(self.kind, self.kind)
        if self.kind == "metric":
            label = self.name
        elif self.kind not in ALONE:
            label = " ".join(filter(None, [label, self.scope, self.name]))
        _, unit = self.shown
        return f"{label} ({unit})" if unit else label

    @property
    def shown(self) -> tuple[float, str]:
        """By what a figure is divided for people, and the unit that it then has."""
        return SHOWN.get(self.kind, (1.0, self.unit))


ALONE = ("queue", "setup", "first_step", "command", "cpu", "memory")


def figures_of(record: Record) -> dict[Column, Any]:
    """All figures of a run. Those of its phases in the order in which it entered them."""
    return dict(_figures(record))


def _figures(record: Record) -> Iterator[tuple[Column, Any]]:
    whole = not record.events_lost  # else any of what the job told may be missing
    for kind in ("queue", "setup", "first_step", "command"):
        once = kind in ("queue", "first_step")
        if whole or kind != "first_step":
            yield from _known(Column(kind), _sum(record, kind, once=once))
    phases = _ended(record) if whole else []
    for name, phase in phases:
        yield Column("phase", name), phase.seconds
    for name, phase in phases:
        if phase.samples is not None and phase.seconds > 0:
            yield Column("rate", name), phase.samples / phase.seconds
    for name, metric in sorted(record.metrics.items()) if whole else ():
        yield Column("metric", name), metric.last
    user, system = _sum(record, "cpu_user"), _sum(record, "cpu_system")
    if user is not None and system is not None:
        yield Column("cpu"), user + system
    peaks = _values(record, "peak_memory")
    if len(peaks) == len(record.attempts) > 0:
        yield Column("memory"), max(peaks)
    if record.energy is not None and record.energy.joules is not None:
        scope = scope_of(record.energy)
        yield Column("energy", scope), record.energy.joules
        yield from _known(Column("uncertainty", scope), record.energy.uncertainty)
        yield from _known(Column("coverage", scope), record.energy.coverage)
        for name, phase in phases:
            yield from _phase_energy(name, phase, scope)


def _ended(record: Record) -> list[tuple[str, Phase]]:
    """Phases in the order of their begin; how long one took that was not left is not known."""
    ended = [(name, phase) for name, phase in record.phases.items() if not phase.unfinished]
    return sorted(ended, key=lambda item: (item[1].began or 0.0, item[0]))


def _phase_energy(name: str, phase: Phase, scope: str) -> Iterator[tuple[Column, float]]:
    """Samples/J only where the energy is that of all of the time in which they were counted."""
    yield from _known(Column("phase_energy", name, scope), phase.joules)
    whole = (phase.covered or 0.0) >= COVERED * phase.seconds
    if phase.joules and phase.samples is not None and whole:
        yield Column("per_joule", name, scope), phase.samples / phase.joules


def scope_of(energy: EnergyRecord) -> str:
    """What was measured, and where the counters were if not at their usual place."""
    return f"{energy.scope}" if energy.root == "/" else f"{energy.scope} below {energy.root}"


def _known(column: Column, value: float | None) -> Iterator[tuple[Column, float]]:
    if value is not None:
        yield column, value


def _values(record: Record, name: str) -> list[float]:
    return [figure.value for figure in record.figures if figure.name == name]


def _sum(record: Record, name: str, *, once: bool = False) -> float | None:
    """Over all attempts; ``None`` if it is not known of one of them."""
    values = _values(record, name)
    return sum(values) if values and len(values) == (1 if once else len(record.attempts)) else None
