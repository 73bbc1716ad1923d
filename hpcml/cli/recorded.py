"""The command show: all that is on record of runs, by their agents and by the site's accounting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import click

import hpcml
from hpcml.cli import shapes
from hpcml.cli.options import ids, json_option
from hpcml.cli.showing import print_json
from hpcml.texts import plain

if TYPE_CHECKING:
    from hpcml.records.model import AttemptRecord, EnergyRecord, Record
    from hpcml.schedulers import Accounted

ASIDE = 16  # columns before what is told


@click.command("show")
@ids
@json_option
def show_command(ids: tuple[str, ...], as_json: bool) -> None:
    """Show how runs went by their agents, by the site's accounting, and where these disagree.

    What is new of them is recorded first. A submission's ID stands for all its runs.
    """
    records = [point.record for point in hpcml.compare(ids).points]
    if as_json:
        print_json([_data(record) for record in records])
        return
    for record in records:
        head = (record.id, record.name, record.state, record.reason)
        click.echo(plain("  ".join(filter(None, head))))
        for name, text in _told(record):
            click.echo(f"  {name:<{ASIDE}}{plain(text)}".rstrip())


def _data(record: Record) -> shapes.Record:
    energy = record.energy and {key: getattr(record.energy, key) for key in _keys(shapes.Energy)}
    return {
        "id": record.id,
        "site": record.site,
        "name": record.name,
        "state": record.state,
        "reason": record.reason,
        "awaited": record.awaited,
        "attempts": [cast("shapes.Attempt", _of(it, shapes.Attempt)) for it in record.attempts],
        "allocations": [
            cast("shapes.Allocation", _of(it, shapes.Allocation)) for it in record.allocations
        ],
        "energy": cast("shapes.Energy | None", energy),
        "disagreements": list(record.disagreements),
    }


def _keys(shape: type) -> list[str]:
    return list(shape.__annotations__)


def _of(one: object, shape: type) -> dict[str, Any]:
    return {key: getattr(one, key) for key in _keys(shape)}


def _told(record: Record) -> Iterator[tuple[str, str]]:
    """What is told of a run, by a word for it."""
    for attempt in record.attempts:
        yield f"attempt {attempt.number}", _attempt(attempt)
    for number, life in enumerate(record.allocations, 1):
        yield f"allocation {number}", _allocation(life)
    if record.energy is not None:
        yield "energy", _energy(record.energy)
    if record.awaited is not None:
        yield "awaited", record.awaited
    for sentence in record.disagreements:
        yield "disagreement", sentence


def _attempt(one: AttemptRecord) -> str:
    from hpcml.units import lasting

    ran = None if None in (one.started, one.ended) else (one.ended or 0.0) - (one.started or 0.0)
    parts = [
        "agent:",
        "no end was written" if one.ended is None else _exit(one.exit_code, one.signal),
        "" if ran is None else f"after {lasting(ran)}",
        f"on {one.host['host']}" if one.host.get("host") else "",
        f"in allocation {one.life}" if one.life is not None else "",
    ]
    return " ".join(filter(None, parts))


def _exit(code: int | None, signal: int | None) -> str:
    return f"signal {signal}" if signal else f"exit code {code}"


def _allocation(life: Accounted) -> str:
    from hpcml.units import lasting, memory_text

    waited = None
    if life.started is not None and life.submitted is not None:
        waited = life.started - life.submitted
    counts = {"node": life.nodes, "CPU": life.cpus, "device": life.devices}
    parts = [
        f"{life.source}: {life.state}, {_exit(life.exit_code, life.signal)}",
        f"of {life.runs} runs together" if life.runs > 1 else "",
        f"in the queue {lasting(waited)}" if waited is not None else "",
        f"lasted {lasting(life.elapsed)}" if life.elapsed is not None else "",
        ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n),
        f"on {life.hosts}{' alone' if life.alone else ''}" if life.hosts else "",
        f"{memory_text(life.max_rss)} in its largest task" if life.max_rss is not None else "",
        _joules(life),
        f"job {life.job}",
    ]
    return "; ".join(filter(None, parts))


def _joules(life: Accounted) -> str:
    from hpcml.energy.model import amount
    from hpcml.units import lasting

    if life.joules is None:
        return ""
    return f"{amount(life.joules)} in {lasting(life.covered)}"


def _energy(energy: EnergyRecord) -> str:
    from hpcml.energy.model import amount

    if energy.joules is None:
        return f"not known: {energy.why}"
    bound = "" if energy.uncertainty is None else f" ± {amount(energy.uncertainty)}"
    by = ", ".join(filter(None, [energy.scope, energy.source]))
    return f"{amount(energy.joules)}{bound} ({by})"
