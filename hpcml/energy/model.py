"""What is known of a run's energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcml import html

MEASURED = "measured"
MOST = 50  # phases that a notebook shows


@dataclass(frozen=True)
class Gap:
    """A stretch of time that no energy is known of.

    Attributes
    ----------
    start : float
        In s since the epoch, by the clock of the machine.
    seconds : float
    reason : str
    """

    start: float
    seconds: float
    reason: str


@dataclass(frozen=True)
class PhaseEnergy:
    """The energy of all spans of a phase.

    Attributes
    ----------
    joules : float or None
        Of the seconds that are covered. ``None``: nothing was measured, or the spans are shorter
        than ten readings of the counters on average.
    uncertainty : float or None
        J; as :attr:`Energy.uncertainty`.
    seconds, covered : float
        How long the spans were, and how much of that was measured.
    """

    joules: float | None
    uncertainty: float | None
    seconds: float
    covered: float


@dataclass(frozen=True)
class Energy:
    """What the machine used while a run's command ran. What was not measured is ``None``.

    Attributes
    ----------
    joules : float or None
        Of the seconds that are covered, for the parts of the machine that ``scope`` names.
    uncertainty : float or None
        J that ``joules`` may be wrong by because readings lie before and after the begin and the
        end, not on them. The sensors' own error comes on top; it is not known. ``None`` of a figure
        of the accounting: it does not say when it read.
    scope : str or None
        ``"cpu"`` (processor packages), ``"cpu+dram"``, ``"platform"``; ``"allocation"``: the whole
        nodes of its allocation for all of its life, by the queue's accounting.
    seconds : float or None
        How long the command ran, all attempts together; ``None``: an end is not known. Of the scope
        ``"allocation"``: how long that lasted.
    covered : float
        Seconds of it in which every part of the scope was measured.
    gaps : tuple of Gap
        The rest of it.
    exclusive : bool or None
        Whether nobody else used the machine meanwhile. If not known to be so, ``False``: the
        figure is the machine's, and the run's part of it is not known.
    sources : dict
        What was tried: ``{"powercap": "measured"}``, or why it gave nothing; ``"slurm"`` is the
        queue's accounting.
    why : str
        Why there are no joules; empty if there are.
    phases : dict of PhaseEnergy
        By phase; phases within each other count in both.
    domains : dict
        J by domain, also of those that are part of another one and not summed.
    root : str
        The folder below which the counters were found; not ``/``: somebody has said so.
    """

    joules: float | None = None
    uncertainty: float | None = None
    scope: str | None = None
    seconds: float | None = None
    covered: float = 0.0
    gaps: tuple[Gap, ...] = ()
    exclusive: bool | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    phases: Mapping[str, PhaseEnergy] = field(default_factory=dict)
    domains: Mapping[str, float | None] = field(default_factory=dict)
    root: str = "/"

    @property
    def coverage(self) -> float | None:
        """The part of its time that was measured, 0 to 1; ``None`` if its time is not known."""
        return self.covered / self.seconds if self.seconds else None

    @property
    def source(self) -> str | None:
        """Who measured: ``"powercap"``, ``"slurm"``; ``None``: nobody."""
        if self.joules is None:
            return None
        return ", ".join(name for name, said in self.sources.items() if said == MEASURED)

    def __str__(self) -> str:
        if self.joules is None:
            return f"no energy: {self.why}"
        where = "" if self.root == "/" else f" below {self.root}"
        bound = "" if self.uncertainty is None else f" ± {amount(self.uncertainty)}"
        text = f"{amount(self.joules)}{bound} ({self.scope}, {self.source}{where})"
        if self.coverage is not None:
            text += f", measured for {self.covered:.1f} s of {self.seconds:.1f} s"
        if not self.exclusive:
            text += "; of the whole machine, which others may have used"
        return text

    def _repr_html_(self) -> str:
        said = html.element("div", html.escaped(str(self), html.LONGEST_PAGE))
        if self.joules is None or not self.phases:
            return html.card("energy", said)
        header = ("phase", "energy", "measured for")
        rows = [
            (name, _joules(it), f"{it.covered:.1f} s of {it.seconds:.1f} s")
            for name, it in list(self.phases.items())[:MOST]
        ]
        more = len(self.phases) - len(rows)
        hidden = [html.note(f"… and {more} more phases")] if more else []
        return html.card("energy", said, html.table(header, rows, numbers=True), *hidden)


def _joules(phase: PhaseEnergy) -> str:
    if phase.joules is None or phase.uncertainty is None:
        return "–"
    return f"{amount(phase.joules)} ± {amount(phase.uncertainty)}"


def amount(joules: float) -> str:
    """``1.23 kJ``: three digits, and the unit that leaves at least 1."""
    for factor, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ")):
        if abs(joules) >= factor:
            return f"{joules / factor:.3g} {unit}"
    return f"{joules:.3g} J"
