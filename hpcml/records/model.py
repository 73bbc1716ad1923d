"""What the records say of a run, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcml.records.gathering import LOST, Figure, Use
from hpcml.schedulers import Accounted
from hpcml.timeline import Event


@dataclass(frozen=True)
class Metric:
    """A metric of a run, without its history.

    Attributes
    ----------
    points : int
        How many values were logged.
    last : object
        The last one, as it was logged: NaN, infinities and text included.
    step : float or None
        The last one's step; ``None`` if it had none, or none that is a finite number.
    time : float
        When the last one was logged, in s since the epoch, by the clock of the machine it ran on.
    lowest, highest : float or None
        Of the values that are finite numbers; ``None`` if there was none.
    """

    points: int
    last: Any
    step: float | None
    time: float
    lowest: float | None
    highest: float | None


@dataclass(frozen=True)
class Phase:
    """The time that a run spent in a phase, over all its attempts.

    Attributes
    ----------
    seconds : float
    spans : int
        How often it was entered.
    unfinished : int
        How often the attempt ended, or was killed, within it.
    samples : float or None
        Samples that were logged within it; ``None`` if that was never told.
    own : float or None
        Seconds in which no other phase was open within it; those of all phases sum up.
    began : float or None
        Seconds after the run's start at which it was entered first.
    joules, uncertainty : float or None
        J, as of :class:`hpcml.energy.PhaseEnergy`; ``None``: not known.
    covered : float or None
        Seconds of it of which the energy is known.
    """

    seconds: float
    spans: int
    unfinished: int
    samples: float | None
    own: float | None = None
    began: float | None = None
    joules: float | None = None
    uncertainty: float | None = None
    covered: float | None = None


@dataclass(frozen=True)
class EnergyRecord:
    """The energy of a run that has ended; as of :class:`hpcml.energy.Energy`.

    Attributes
    ----------
    joules, uncertainty : float or None
        J.
    scope : str or None
        Which parts of the machine were measured.
    seconds : float or None
        That its command ran.
    covered : float
        Seconds of it of which the energy is known.
    exclusive : bool or None
        Whether nobody else used the machine.
    why : str
        Why there are no joules; empty if there are.
    root : str
        The folder below which the counters were; not ``/``: somebody has said so.
    source : str or None
        Who measured: ``"powercap"``; ``"slurm"``, its accounting. ``None``: nobody, or it was
        recorded by an hpcml that had only its own meter.
    """

    joules: float | None
    uncertainty: float | None
    scope: str | None
    seconds: float | None
    covered: float
    exclusive: bool | None
    why: str
    root: str
    source: str | None = None

    @property
    def coverage(self) -> float | None:
        """The part of its time that was measured, 0 to 1; ``None`` if its time is not known."""
        return self.covered / self.seconds if self.seconds else None


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt of a run.

    Attributes
    ----------
    started, ended : float or None
        In s since the epoch, by the site's clock; ``None`` where nobody could say.
    exit_code, signal : int or None
    cause, reason : str or None
        What its agent itself enforced or saw, and in words.
    requeued : bool
        Whether it asked to be started again.
    host : dict
        The machine it was on; its name at least, if it began.
    life : int or None
        In which of the record's ``allocations`` it was, from 1; ``None``: not known.
    """

    number: int
    started: float | None
    ended: float | None
    exit_code: int | None
    signal: int | None
    cause: str | None
    reason: str | None
    requeued: bool
    host: Mapping[str, Any]
    life: int | None = None


@dataclass(frozen=True)
class Artifact:
    """What a run has left under one of its outputs' names."""

    digest: str
    bytes: int | None


@dataclass(frozen=True)
class Record:
    """What is remembered of a run.

    Attributes
    ----------
    id : str
    batch, site, workspace : str
        Where its files are, or were.
    person : str or None
        Who submitted it; ``None``: the site was not told.
    digest, plan_digest, job_digest : str
        As of :class:`hpcml.Run` and :class:`hpcml.Plan`.
    what : dict
        The digested half of its plan.
    place : dict
        Where and how its site ran it: the rest of its plan, without the environment.
    state, reason : str
        When it was last looked at.
    final : bool
        Whether it has ended, and all that there will ever be of it is on record.
    awaited : str or None
        Why there may be more of one that has ended.
    created : float
        When it was submitted, in s since the epoch, by the client's clock.
    started, ended : float or None
        Begin of its first attempt and end of its last one, by the site's clock. The difference is
        no duration if that clock was set meanwhile; figures are by the monotonic clock.
    parent, resubmits : str or None
        Ids of the run that submitted it, and of the one that it repeats.
    metrics, phases, described : dict
        What its job told, by name.
    unread : str or None
        How much of what is in its events cannot be read, if anything.
    figures : tuple of Figure
        What was counted or timed, with unit and source. What was not has no entry.
    energy : EnergyRecord or None
        ``None``: it has not started, or not ended, or was recorded by an hpcml that knew none.
    allocations : tuple of Accounted
        The allocation that it was in, as the queue's accounting has it: one a life. Empty: it keeps
        none, or has not told yet.
    events : tuple of Event
        What happened to its attempts: the agent's start and end, its command's start, signals, and
        the like, each with time and facts. Empty if it was recorded by an hpcml that kept none.
    used : dict
        Its inputs by name. Each has the artifact's digest, whether the agent has looked at it
        (else it is what was planned), and the run that left it where that is known.
    generated : dict
        The outputs that it left, by path.
    """

    id: str
    batch: str
    site: str
    workspace: str
    person: str | None
    name: str
    tags: Mapping[str, str]
    digest: str
    plan_digest: str
    job_digest: str
    what: Mapping[str, Any] = field(repr=False)
    place: Mapping[str, Any] = field(repr=False)
    state: str
    reason: str
    final: bool
    created: float
    started: float | None
    ended: float | None
    parent: str | None
    resubmits: str | None
    unread: str | None
    params: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    phases: Mapping[str, Phase]
    described: Mapping[str, Any]
    figures: tuple[Figure, ...]
    energy: EnergyRecord | None
    attempts: tuple[AttemptRecord, ...]
    events: tuple[Event, ...]
    used: Mapping[str, Use]
    generated: Mapping[str, Artifact]
    allocations: tuple[Accounted, ...] = ()
    awaited: str | None = None

    @property
    def disagreements(self) -> tuple[str, ...]:
        """What its agent and the queue's accounting say differently, in sentences."""
        from hpcml.records.disagreeing import disagreements

        return tuple(disagreements(self))

    @property
    def events_lost(self) -> int:
        """Events, at least, that could not be written: metrics and phases may be missing some."""
        return int(sum(figure.value for figure in self.figures if figure.name == LOST))

    @property
    def imported(self) -> bool:
        """Whether another tool ran it: no site of hpcml's knows it."""
        return "imported" in self.place


@dataclass(frozen=True)
class Link:
    """A step of a lineage: one run used what another one left.

    Attributes
    ----------
    hop : int
        How many steps it is away; 1 is next to the run that was asked about.
    made_by, output : str or None
        The run that left it, and as what; ``None``: nobody on record did, it came from outside.
    used_by, input : str
        The run that used it, and as what.
    digest : str
        Of the artifact.
    said : bool
        Whether the job named that run as the origin. Else it is known by the artifact's digest
        alone: that run has left just these bytes, and maybe others have, too.
    """

    hop: int
    made_by: str | None
    output: str | None
    used_by: str
    input: str
    digest: str
    said: bool
