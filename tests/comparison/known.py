"""Records with known figures."""

from __future__ import annotations

from typing import Any

from hpcml.comparison import Table
from hpcml.comparison.grouping import tabulate
from hpcml.records.gathering import Figure, Use
from hpcml.records.model import AttemptRecord, EnergyRecord, Metric, Phase, Record
from hpcml.timeline import Event

NODE = {"host": "node1", "cpu": "A CPU", "accelerators": []}


def placed(**other: int) -> dict[str, Any]:
    """Of a plan's ``what``: one task with one CPU, but for what is said."""
    return {"placement": {"nodes": 1, "tasks": 1, "cpus": 1, "devices": 0, **other}}


def record(number: int = 0, **fields: Any) -> Record:
    """A run of which everything is known; ``command`` and the like are its figures."""
    names = ("queue", "setup", "command", "cpu_user", "cpu_system", "peak_memory")
    times = dict.fromkeys(names, 1.0) | {name: fields.pop(name) for name in names if name in fields}
    figures = [Figure(name, 1, value, "s", "agent") for name, value in times.items()]
    metrics = {
        name: Metric(1, value, None, 0.0, None, None)
        for name, value in fields.pop("metrics", {}).items()
    }
    described = {"model": "conv", "precision": "float32", "global_batch": 16}
    what = {
        "entry": {"kind": "script", "target": ["train.py"]},
        "code": "c0de" * 16,
        "inputs": {"t2m": "da7a" * 16},
        **placed(),
    }
    usual: dict[str, Any] = {
        "id": f"20260101-000000-abcdef.{number:05d}",
        "batch": "20260101-000000-abcdef",
        "site": "local",
        "workspace": "/w",
        "person": None,
        "name": "train",
        "tags": {},
        "digest": f"{number:064x}",
        "plan_digest": "b" * 64,
        "job_digest": "a" * 64,
        "what": what | fields.pop("what", {}),
        "place": {"name": "train", "python": "/usr/bin/python3"} | fields.pop("place", {}),
        "state": "COMPLETED",
        "reason": "",
        "final": True,
        "created": 0.0,
        "started": 0.0,
        "ended": 1.0,
        "parent": None,
        "resubmits": None,
        "unread": None,
        "params": {},
        "metrics": metrics,
        "phases": {},
        "described": described | fields.pop("described", {}),
        "figures": tuple(one for one in figures if one.value is not None),
        "energy": energy(100.0),
        "attempts": (AttemptRecord(1, 0.0, 1.0, 0, None, None, None, False, NODE),),
        "events": (python(),),
        "used": {"t2m": Use("da7a" * 16, True)},
        "generated": {},
    }
    return Record(**usual | fields)


def python(version: str = "3.11.7", prefix: str = "/usr") -> Event:
    """What a process tells that imports hpcml."""
    return Event(1, 0.0, "python", {"version": version, "prefix": prefix})


def software(**versions: str) -> Event:
    return Event(1, 0.0, "software", {"v": versions})


def energy(joules: float | None = None, **fields: Any) -> EnergyRecord:
    """An energy of the whole time, of a machine that was the run's alone."""
    usual: dict[str, Any] = {
        "joules": joules,
        "uncertainty": None if joules is None else 5.0,
        "scope": None if joules is None else "cpu",
        "seconds": 1.0,
        "covered": 1.0,
        "exclusive": True,
        "why": "denied" if joules is None else "",
        "root": "/",
    }
    return EnergyRecord(**usual | fields)


def phase(seconds: float, own: float, began: float, samples: float | None = None) -> Phase:
    return Phase(seconds, 1, 0, samples, own, began)


def table(*records: Record, by: list[str] | None = None) -> Table:
    return tabulate(records, by)


def widths(*values: Any, name: str = "width", **fields: Any) -> list[Record]:
    """Runs that differ in a parameter."""
    return [record(n, params={name: value}, **fields) for n, value in enumerate(values)]
