"""Job → Resolved: every question about the user's files is answered here, and only here.

What comes out is plain data, digests above all, so that planning needs to open nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcml.errors import JobError
from hpcml.job import Job, Resources
from hpcml.resolving import checks
from hpcml.resolving.code import Snapshot, take_snapshot
from hpcml.resolving.entry import Entry, find_entry
from hpcml.resolving.inputs import digest_input


@dataclass(frozen=True)
class Resolved:
    """A job whose files have been looked at.

    Attributes
    ----------
    entry : dict
        ``kind`` (``script``, ``module``, ``shell``, ``command``), ``target``, and for shell
        scripts their ``interpreter``.
    code : str or None
        Digest of the snapshot; ``folder`` is the job's current folder within it.
    inputs : dict
        Digest by name, ``None`` where it is not known yet; ``input_paths`` says where they lie.
    known_params : tuple of str or None
        Parameters that the entry's only ``hpcml.params(...)`` call names, if that can be told.
    unresolved : tuple of str
        What is still open, in words.
    """

    name: str
    entry: dict[str, Any]
    args: tuple[str, ...] | None
    params: dict[str, Any]
    env: dict[str, str]
    code: str | None
    folder: str
    inputs: dict[str, str | None]
    input_paths: dict[str, str]
    outputs: tuple[str, ...]
    resources: Resources
    tags: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    known_params: tuple[str, ...] | None = None
    unresolved: tuple[str, ...] = ()


def resolve(job: Job, *, online: bool = True) -> Resolved:
    """Look at a job's files.

    Parameters
    ----------
    job : Job
    online : bool
        False: nothing takes long and nothing is written; what would stands in ``unresolved``.

    Raises
    ------
    JobError
        A field of the job says what cannot be meant.
    CodeError
        The code cannot be taken along.
    """
    return resolve_with_code(job, online=online)[0]


def resolve_with_code(job: Job, *, online: bool = True) -> tuple[Resolved, Snapshot | None]:
    """As :func:`resolve`, and the snapshot of the code that the digest stands for."""
    inputs = {
        checks.input_name(name): checks.input_source(name, source)
        for name, source in checks.mapping("inputs", job.inputs).items()
    }
    checks.distinct_variables(inputs)
    outputs = tuple(checks.output(path) for path in checks.texts("outputs", job.outputs))
    entry = find_entry(job)
    left_out = [*inputs.values(), *(os.path.join(entry.base, path) for path in outputs)]
    snapshot = take_snapshot(entry.root, left_out) if entry.root else None
    _check_it_goes_along(entry, snapshot)
    digests: dict[str, str | None] = {}
    unresolved = []
    for name, path in inputs.items():
        digests[name], why = digest_input(name, Path(path), long_reads=online)
        if why:
            unresolved.append(f"inputs.{name}: {why}")
    resolved = Resolved(
        name=checks.name("name", job.name or entry.name),
        entry=entry.as_data(),
        args=None if job.args is None else tuple(checks.texts("args", job.args)),
        params=checks.params(job.params),
        env=checks.environment(job.env),
        code=snapshot.digest if snapshot else None,
        folder=checks.text("code", entry.folder),
        inputs=digests,
        input_paths=inputs,
        outputs=outputs,
        resources=checks.resources(job.resources),
        tags=_tags(job.tags),
        git=snapshot.git if snapshot else None,
        known_params=entry.known_params,
        unresolved=tuple(unresolved),
    )
    return resolved, snapshot


def _check_it_goes_along(entry: Entry, snapshot: Snapshot | None) -> None:
    """A script that is not in the snapshot would be missed only on the site."""
    if entry.kind not in ("script", "shell"):
        return
    if snapshot is None:
        raise JobError(
            "code",
            f"None takes no code along, and {entry.target} is code",
            'Write code="auto", or give a command as a list.',
        )
    path = "/".join(filter(None, (entry.folder, str(entry.target))))
    if path not in {name for name, _, _ in snapshot.entries}:
        raise JobError(
            "entry",
            f"{path} is left out of the code that goes along",
            "Git or .hpcmlignore ignores it, or it is among the job's inputs and outputs.",
        )


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        checks.name("tags", key): checks.text(f"tags.{key}", value)
        for key, value in checks.mapping("tags", tags).items()
    }


__all__ = ["Entry", "Resolved", "Snapshot", "resolve", "resolve_with_code"]
