"""plan: what would be submitted. It loads no more than that takes, and reaches nobody."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hpcml.connection import bind
from hpcml.errors import ArgumentError, JobError, nearest
from hpcml.job import Job, Sweep
from hpcml.planning import Plan, make_plan
from hpcml.resolving import resolve
from hpcml.sites import load_site

Entry = str | Callable[..., Any]


def plan(job: Job | Sweep | Entry, site: str = "local", **fields: Any) -> Plan:
    """Plan a job on a site, offline: nothing is reached, nothing is written.

    Parameters
    ----------
    job : Job, Sweep, or an entry
        A job, or what :class:`~hpcml.Job` takes as one.
    site : str
        Name of a site profile.
    **fields
        Fields of the job; what it has of params, inputs, env and tags is added to.

    Returns
    -------
    Plan
        ``plan.unresolved`` says what only ``submit`` will find out.

    Raises
    ------
    JobError, PlanError, CodeError, ProfileError
        What is wrong, where, and what would be valid.
    """
    profile = load_site(site)
    return make_plan(resolve(job_of(job, fields), online=False), profile, bind(profile))


def job_of(job: object, fields: Mapping[str, Any]) -> Job | Sweep:
    """What is given as a job, with more of its fields."""
    if isinstance(job, Sweep):
        return Sweep(_with(job.job, fields), job.points)
    if isinstance(job, str | os.PathLike) or callable(job):
        _check_fields(fields)
        return Job(os.fspath(job) if isinstance(job, os.PathLike) else job, **fields)
    if not isinstance(job, Job):
        advice = 'Give a Job, a function, or a script: "train.py".'
        raise JobError("job", f"{job!r} cannot be submitted", advice)
    return _with(job, fields)


def _with(job: Job, fields: Mapping[str, Any]) -> Job:
    if not fields:
        return job
    _check_fields(fields)
    added: dict[str, Any] = {
        name: {**getattr(job, name), **value} if _are_mappings(getattr(job, name), value) else value
        for name, value in fields.items()
    }
    return replace(job, **added)


def _check_fields(fields: Mapping[str, Any]) -> None:
    known = Job.__dataclass_fields__
    for name in fields:
        if name not in known or name == "entry":
            problem = f"a job has no field {name!r}"
            raise ArgumentError(problem, nearest(name, known.keys() - {"entry"}))


def _are_mappings(*values: object) -> bool:
    return all(isinstance(value, Mapping) for value in values)
