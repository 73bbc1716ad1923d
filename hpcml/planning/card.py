"""What a notebook shows of a plan."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcml import html
from hpcml.units import clock, memory_text

if TYPE_CHECKING:
    from hpcml.planning.model import Plan


def plan_card(plan: Plan) -> html.Html:
    """What would run, where, and within which limits; how that was decided is folded away."""
    what = plan.what
    where = str(plan.where.get("site"))
    title = html.joined(" ", [html.element("b", plan.name), f"on {where}"])
    rows = [
        ("digest", plan.digest or "none yet: something is unresolved"),
        ("unresolved", html.few(plan.unresolved, "; ")),
        ("runs", html.known(lambda: _entry(what["entry"], what["args"])) or ""),
        ("parameters", html.few([f"{key}={_value(it)}" for key, it in _items(what, "params")])),
        ("inputs", html.few([f"{key} {_digest(it)}" for key, it in _items(what, "inputs")])),
        ("outputs", html.few([str(output["path"]) for output in what.get("outputs", ())])),
        ("code", what["code"][:12] if what.get("code") else "none goes along"),
        ("limits", html.known(lambda: _limits(what)) or ""),
    ]
    decisions = html.fold("decisions", "\n".join(plan.decisions)) if plan.decisions else ""
    script = html.known(lambda: html.fold("script", plan.script)) or ""
    return html.card(title, html.facts(rows), decisions, script)


def _entry(entry: Mapping[str, Any], args: list[str] | None) -> str:
    target = entry["target"]
    if entry["kind"] == "command":
        return shlex.join(target)
    started = {"module": f"-m {target}", "function": f"function {target}"}
    return " ".join([started.get(entry["kind"], target), shlex.join(args or ())]).rstrip()


def _items(what: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    return list(what.get(name, {}).items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _digest(value: Any) -> str:
    """An input's digest in short; one that another run is to make is named by its run."""
    return value[:12] if isinstance(value, str) else _value(value)


def _limits(what: Mapping[str, Any]) -> str:
    limits, placed = what["limits"], what["placement"]
    parts = [f"walltime {clock(limits['time'])}"]
    if placed["nodes"] > 1:
        parts.append(f"{placed['nodes']} nodes with each")
    cpus = placed["tasks"] * placed["cpus"]
    parts.append("1 CPU" if cpus == 1 else f"{cpus} CPUs")
    if placed["devices"]:
        parts.append(f"{placed['devices']} devices")
    if limits["memory"]:
        parts.append(f"memory {memory_text(limits['memory'])}")
    return ", ".join(parts)
