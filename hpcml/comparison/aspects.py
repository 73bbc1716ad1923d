"""What runs should have in common to be compared: as jobs told, and as is on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

from hpcml.records.model import Record

SHORT = 12  # digits of a digest that are shown


def aspects_of(record: Record) -> dict[str, str | None]:
    """Each aspect of a run as text; ``None``: nobody told. Some are there only if it was told."""
    told = {name: ask(record) for name, ask in TOLD.items()}
    return {
        **{name: ask(record) for name, ask in ASPECTS.items()},
        **{name: text for name, text in told.items() if text is not None},
    }


def _described(name: str) -> Callable[[Record], str | None]:
    def ask(record: Record) -> str | None:
        return _text(record.described.get(name))

    return ask


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value, sort_keys=True)


def _data(record: Record) -> str | None:
    """Its inputs by digest; what it described as ``data`` where it declares none."""
    wanted = record.what["inputs"]
    if not wanted:
        return _text(record.described.get("data"))
    if not wanted.keys() <= record.used.keys():
        return None
    return ", ".join(f"{name} {record.used[name].digest[:SHORT]}" for name in sorted(wanted))


def _placed(record: Record, *names: str) -> str | None:
    """What the batch system was asked for; of several numbers the product."""
    found = [record.what["placement"].get(name) for name in names]
    return None if None in found else str(prod(found))


def _devices(record: Record) -> str | None:
    """As described, else as asked for; none where the machine has none."""
    asked = _placed(record, "nodes", "devices")
    told = record.described.get("devices", None if asked == "0" else asked)
    if told is None and all(_host(record, "accelerators", [])):
        return "0"
    return _text(told)


def _accelerators(record: Record) -> str | None:
    found = [one.host.get("accelerators") for one in record.attempts]
    if not found or None in found:
        return None
    try:
        models = [str(card["model"] or card["kind"]) for cards in found for card in cards or ()]
    except (KeyError, TypeError):
        return None  # a job can write into its events what no agent would
    return ", ".join(f"{models.count(model)} × {model}" for model in sorted(set(models))) or "none"


def _host(record: Record, fact: str, value: Any) -> list[bool]:
    """Whether each of its machines says that of itself; no machine says nothing."""
    return [one.host.get(fact) == value for one in record.attempts] or [False]


def _cpu(record: Record) -> str | None:
    models = [one.host.get("cpu") for one in record.attempts]
    if not models or None in models:
        return None
    return ", ".join(sorted(set(map(str, models))))


def _code(record: Record) -> str | None:
    digest = record.what["code"]
    return str(digest)[:SHORT] if digest else None


def _python(record: Record) -> str | None:
    """Its version: as described, else as its processes told that have imported hpcml."""
    told = record.described.get("python")
    return _joined(_facts(record, "python", "version")) if told is None else _text(told)


def _prefix(record: Record) -> str | None:
    return _joined(_facts(record, "python", "prefix"))


def _software(record: Record) -> str | None:
    """Versions of what had been imported in the end, as far as hpcml asks for them."""
    versions: dict[str, list[str]] = {}
    for told in _facts(record, "software", "v"):
        for name, version in told.items() if isinstance(told, Mapping) else ():
            versions.setdefault(str(name), []).append(str(version))
    return _joined(f"{name} {'/'.join(sorted({*versions[name]}))}" for name in versions)


def _facts(record: Record, kind: str, name: str) -> Iterator[Any]:
    return (one.facts[name] for one in record.events if one.kind == kind and name in one.facts)


def _joined(told: Iterable[Any]) -> str | None:
    return ", ".join(sorted({str(one) for one in told})) or None


ASPECTS: Mapping[str, Callable[[Record], str | None]] = {
    "model": _described("model"),
    "data": _data,
    "precision": _described("precision"),
    "global batch": _described("global_batch"),
    "nodes": lambda record: _placed(record, "nodes"),
    "cpus": lambda record: _placed(record, "nodes", "tasks", "cpus"),
    "devices": _devices,
    "site": lambda record: record.site,
    "CPU": _cpu,
    "accelerators": _accelerators,
    "code": _code,
    "Python": _python,
}
TOLD: Mapping[str, Callable[[Record], str | None]] = {
    "Python prefix": _prefix,
    "software": _software,
}
