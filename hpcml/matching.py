"""Which sites and partitions can run a job, and why the others cannot. Offline: profiles alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpcml.connection import bind
from hpcml.errors import PlanError, ProfileError
from hpcml.job import Job, Sweep
from hpcml.offline import job_of
from hpcml.planning import Fitting, fittings, make_plan
from hpcml.resolving import Resolved, resolve
from hpcml.settings import Binding
from hpcml.sites import Site, load_site, site_names
from hpcml.texts import plain

SOMEBODY = "somebody"  # pays, where the settings do not say who
NOBODY = Binding("/", "python3", "python3", "")  # where the settings say nothing


@dataclass(frozen=True)
class Match:
    """A partition, and whether it can run a job.

    Attributes
    ----------
    site, partition : str
        ``partition`` is empty where the profile itself cannot be read.
    fits : bool
        Nothing that is known speaks against it.
    reason : str
        Why not; empty if it fits.
    doubts : tuple of str
        What nobody knows for sure, or is only a hint, and what your settings do not say.
    nodes, devices : int or None
        What the job would have of it, devices in all.
    """

    site: str
    partition: str
    fits: bool
    reason: str = ""
    doubts: tuple[str, ...] = ()
    nodes: int | None = None
    devices: int | None = None

    def __str__(self) -> str:
        name = f"{self.site} {self.partition}".rstrip()
        lines = [f"{name}: {self.reason or 'fits'}", *(f"  {doubt}" for doubt in self.doubts)]
        return "\n".join(map(plain, lines))


class Matches(Sequence[Match]):
    """All partitions of all sites: those that can run a job come first."""

    def __init__(self, matches: Sequence[Match]) -> None:
        self._matches = sorted(matches, key=lambda match: not match.fits)

    def __getitem__(self, index: Any) -> Any:
        return self._matches[index]

    def __len__(self) -> int:
        return len(self._matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self._matches)

    @property
    def fitting(self) -> list[Match]:
        """Those that can run the job."""
        return [match for match in self if match.fits]

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return f"<Matches: {len(self.fitting)} of {len(self)} partitions fit>"


def match(job: Job | Sweep | str | Callable[..., Any], **fields: Any) -> Matches:
    """Which sites and partitions can run a job: offline, by their profiles and your settings.

    Parameters
    ----------
    job : Job, Sweep, or an entry
        A job, or what :class:`~hpcml.Job` takes as one.
    **fields
        Fields of the job, as of :func:`hpcml.plan`.

    Returns
    -------
    Matches
        One :class:`Match` a partition, those that fit first.

    Raises
    ------
    JobError, CodeError
        The job says what cannot be meant, on any site.
    """
    resolved = resolve(job_of(job, fields), online=False)
    return Matches([found for name in site_names() for found in _of_site(name, resolved)])


def _of_site(name: str, resolved: Resolved) -> Iterator[Match]:
    try:
        site = load_site(name)
        binding, open_questions = _binding(site)
        found = fittings(resolved, site)
    except ProfileError as error:
        yield Match(name, "", False, error.problem)
        return
    for partition, fitting in found.items():
        if isinstance(fitting, PlanError):
            yield Match(name, partition, False, fitting.problem)
        else:
            yield _of_partition(fitting, resolved, binding, open_questions)


def _of_partition(
    fitting: Fitting, resolved: Resolved, binding: Binding, open_questions: tuple[str, ...]
) -> Match:
    """What else than its limits may speak against a partition: what starts images, who pays."""
    site, name = fitting.site, fitting.name
    doubts = (*fitting.doubts, *open_questions)
    options = {**resolved.resources.options, "partition": name}
    there = replace(resolved, resources=replace(resolved.resources, options=options))
    try:
        try:
            make_plan(there, site, binding)
        except PlanError as error:
            if error.field != "account":
                raise
            doubts += (error.problem,)  # it is for the settings to say
            paid = replace(binding, account=SOMEBODY, accounts={name: SOMEBODY})
            make_plan(there, site, paid)
    except PlanError as error:
        return Match(site.name, name, False, error.problem)
    devices = fitting.nodes * fitting.devices
    return Match(site.name, name, True, "", doubts, fitting.nodes, devices)


def _binding(site: Site) -> tuple[Binding, tuple[str, ...]]:
    """What is yours on a site, and what of it the settings do not say."""
    try:
        return bind(site), ()
    except ProfileError as error:
        return NOBODY, (error.problem,)


def as_data(found: Match) -> Mapping[str, Any]:
    """A match as JSON has it."""
    return {**found.__dict__, "doubts": list(found.doubts)}
