"""The plan: a job on a site with nothing left to decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hpcml.agent import wire
from hpcml.errors import HpcmlError
from hpcml.layout import Layout
from hpcml.planning.card import plan_card
from hpcml.planning.render import render_prelude, render_script
from hpcml.texts import plain


@dataclass(frozen=True)
class Plan:
    """What is run (digested), and where (not).

    Attributes
    ----------
    what : dict
        Everything that can make a difference to the result.
    where : dict
        Account, workspace, paths, names: what may differ from person to person.
    decisions : tuple of str
        What was decided, and why.
    unresolved : tuple of str
        What is still open; such a plan has no digest and is never queued.
    """

    what: Mapping[str, Any]
    where: Mapping[str, Any]
    decisions: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the canonical JSON of ``what``; ``None`` while something is unresolved."""
        return None if self.unresolved else wire.sha256(wire.canonical(dict(self.what)))

    @cached_property
    def job_digest(self) -> str | None:
        """SHA-256 of the portable part alone: equal for the same job on every site."""
        if self.unresolved:
            return None
        portable = {key: self.what[key] for key in PORTABLE}
        return wire.sha256(wire.canonical(portable))

    @cached_property
    def encoded(self) -> bytes:
        """Canonical JSON of :meth:`as_data`."""
        return wire.canonical(self.as_data())

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.where["name"])

    @property
    def script(self) -> str:
        """The batch script of one run, as it is handed to the site's scheduler."""
        return self.script_of(Layout(size=1))

    def script_of(self, layout: Layout) -> str:
        """The batch script of an allocation for several runs."""
        if layout not in self._scripts:
            self._scripts[layout] = render_script(self.what, self.where, layout)
        return self._scripts[layout]

    @cached_property
    def _scripts(self) -> dict[Layout, str]:
        return {}

    @property
    def prelude(self) -> str | None:
        """``env.sh``: what bash does before each run; ``None``: nothing."""
        return render_prelude(self.what)

    def to_json(self) -> str:
        """The plan as JSON; :meth:`from_json` gives an equal one."""
        return json.dumps(self.as_data(), indent=1, sort_keys=True, ensure_ascii=False)

    def as_data(self) -> dict[str, Any]:
        """The content of ``plan.json``."""
        return {
            "schema": wire.SCHEMA,
            "what": dict(self.what),
            "where": dict(self.where),
            "decisions": list(self.decisions),
            "unresolved": list(self.unresolved),
            "digest": self.digest,
            "job_digest": self.job_digest,
        }

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan back.

        Raises
        ------
        HpcmlError
            It is torn, of another schema, or not what its digest says.
        """
        try:
            data = json.loads(text)
            if data["schema"] != wire.SCHEMA:
                raise HpcmlError(
                    f"this plan has schema {data['schema']}, hpcml reads {wire.SCHEMA}",
                    "Use the hpcml version that wrote it.",
                )
            read = cls(
                data["what"],
                data["where"],
                tuple(data["decisions"]),
                tuple(data["unresolved"]),
            )
            intact = read.digest == data["digest"]
            for name, kind in WHERE.items():
                if not isinstance(read.where[name], kind):
                    raise TypeError(f"{name}: {read.where[name]!r}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HpcmlError(f"this is no plan: {error!r}", "Plan the job again.") from error
        if not intact:
            raise HpcmlError("the plan is not what its digest says", "Plan the job again.")
        return read

    def __str__(self) -> str:
        head = f"plan {self.digest or 'without a digest yet'}: {self.name} on {self.where['site']}"
        lines = [head, *(f"  {line}" for line in self.decisions)]
        lines += [f"  unresolved: {line}" for line in self.unresolved]
        return "\n".join(map(plain, lines))

    def __repr__(self) -> str:
        digest = "unresolved" if self.digest is None else self.digest[:12]
        return f"<Plan {self.name!r} on {self.where['site']}: {digest}>"

    def _repr_html_(self) -> str:
        return plan_card(self)


WHERE = {"site": str, "workspace": str, "name": str, "tags": dict}  # what every plan says there
PORTABLE = ("entry", "args", "params", "env", "code", "folder", "inputs", "outputs")


def run_digest(plan: Plan, point: Mapping[str, Any]) -> str | None:
    """Digest of one run: of its plan and its point."""
    if plan.digest is None:
        return None
    return wire.sha256(wire.canonical({"plan": plan.digest, "point": dict(point)}))
