"""A record as MLflow has runs: parameters, metrics, tags."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcml.comparison.figures import figures_of, scope_of
from hpcml.integrations.mlflow_names import (
    LONGEST_NAME,
    LONGEST_PARAM,
    LONGEST_TAG,
    fit,
    spell_names,
    text_of,
)
from hpcml.records.model import Record
from hpcml.states import State
from hpcml.timeline import Point

OURS = "hpcml."
RUN, BATCH = "hpcml.run", "hpcml.batch"
STATUS: Mapping[str, str] = {
    State.COMPLETED: "FINISHED",
    State.CANCELLED: "KILLED",
    State.PREEMPTED: "KILLED",
}
LARGEST_STEP = 1 << 63
Value = tuple[str, float, int, int]  # name, value, ms since the epoch, step


@dataclass(frozen=True)
class Copy:
    """What is logged of a run, under names and with values that MLflow takes.

    Attributes
    ----------
    start, end : int
        ms since the epoch.
    """

    name: str
    status: str
    start: int
    end: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    values: Sequence[Value]


def copy_of(record: Record, histories: Mapping[str, Sequence[Point]]) -> Copy:
    """What MLflow is told of a run.

    Parameters
    ----------
    record : Record
    histories : dict
        All points of its metrics.
    """
    end = _ms(record.ended or record.started or record.created)
    figures = {
        name: float(value)
        for column, value in figures_of(record).items()
        if column.kind != "metric"
        and (name := OURS + column.key.replace(":", ".", 1)) not in histories
    }
    spelt = spell_names([*histories, *figures, *record.params])
    values: list[Value] = [(spelt[name], value, end, 0) for name, value in figures.items()]
    tags = dict(_tags(record))
    for name, points in histories.items():
        own, note = _values(spelt[name], points)
        values += own
        if note:
            tags[f"{OURS}metric.{name}"] = note
    spelt_tags = spell_names(tags)
    named = {spelt_tags[name]: text for name, text in tags.items()}
    named.update((f"{OURS}name.{other}", name) for name, other in spelt.items() if name != other)
    return Copy(
        fit(record.name, LONGEST_NAME) or record.id,
        STATUS.get(record.state, "FAILED"),
        _ms(record.started or record.created),
        end,
        {spelt[name]: fit(text_of(it), LONGEST_PARAM) for name, it in record.params.items()},
        {name: fit(text, LONGEST_TAG) for name, text in named.items()},
        values,
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _tags(record: Record) -> Iterator[tuple[str, str]]:
    """The job's own tags, and what is known of the run; what is not known has no tag."""
    yield from record.tags.items()
    told = {
        RUN: record.id,
        BATCH: record.batch,
        "mlflow.user": record.person,
        "mlflow.source.type": "JOB",
        "mlflow.source.name": text_of(record.what["entry"].get("target")),
        f"{OURS}events_lost": str(record.events_lost or ""),
        **{
            OURS + name: getattr(record, name)
            for name in (
                *("site", "workspace", "person", "state", "reason", "digest", "plan_digest"),
                *("job_digest", "parent", "resubmits", "unread"),
            )
        },
    }
    for name, text in told.items():
        if text:
            yield name, text
    for name, value in record.described.items():
        yield f"{OURS}described.{name}", text_of(value)
    for name, use in record.used.items():
        origin = f", output {use.output} of {use.origin}" if use.origin else ""
        yield f"{OURS}input.{name}", f"sha256:{use.digest}{origin}"
    for path, output in record.generated.items():
        size = "" if output.bytes is None else f", {output.bytes} bytes"
        yield f"{OURS}output.{path}", f"sha256:{output.digest}{size}"
    hosts = dict.fromkeys(str(one.host["host"]) for one in record.attempts if "host" in one.host)
    if hosts:
        yield f"{OURS}host", ", ".join(hosts)
    yield from _energy(record)


def _energy(record: Record) -> Iterator[tuple[str, str]]:
    energy = record.energy
    if energy is None:
        return
    if energy.joules is None:
        yield f"{OURS}no_energy", energy.why
        return
    yield f"{OURS}energy_scope", scope_of(energy)
    if energy.coverage is not None:
        yield f"{OURS}energy_coverage", text_of(energy.coverage)


# --- metrics ----------------------------------------------------------------------------------


def _values(name: str, points: Sequence[Point]) -> tuple[list[Value], str]:
    """Points as MLflow has them, and in words what is not as it was logged."""
    notes = []
    numbered = not all(_is_step(point.step) for point in points)
    if numbered:
        notes.append("steps were not told, or are no whole numbers: its points are numbered")
    values: list[Value] = []
    infinite = rounded = 0
    for place, point in enumerate(points):
        number = _number(point.value)
        if number is not None:
            step = place if numbered else int(point.step or 0)
            values.append((name, number, _ms(point.time), step))
            infinite += math.isinf(number)
            rounded += math.isfinite(number) and number != point.value
    if infinite:
        notes.append(
            f"{infinite} infinite, which MLflow's databases keep as ±1.7976931348623157e308"
        )
    if rounded:
        notes.append(f"{rounded} rounded to what a double holds")
    if len(values) < len(points):
        notes.append(f"{len(points) - len(values)} of {len(points)} are no numbers")
        if _number(points[-1].value) is None:
            notes.append(f"the last one: {text_of(points[-1].value)}")
    if len(set(values)) < len(values):
        notes.append("points of equal step, value and ms are kept once by MLflow's databases")
    return values, "; ".join(notes)


def _is_step(step: float | None) -> bool:
    return step is not None and step == int(step) and -LARGEST_STEP <= step < LARGEST_STEP


def _number(value: Any) -> float | None:
    """A number that is a double; ``None`` for what is none, or is too large."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None
