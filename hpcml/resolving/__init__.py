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
from hpcml.job import Checkpoint, Job, Resources, Sweep
from hpcml.output import Origin
from hpcml.resolving import checks
from hpcml.resolving.code import Snapshot, take_snapshot
from hpcml.resolving.entry import Entry, find_entry
from hpcml.resolving.images import architecture
from hpcml.resolving.inputs import content_of, digest_input


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
        By name the digest, ``None`` where it is not known yet, or ``{"of": "<digest>#model.pt"}``
        with a run's digest; ``input_paths`` says where they lie, ``origins`` which run makes them,
        ``stamps`` what tells that nobody has touched them (:func:`hpcml.agent.wire.stamp_of`).
    points : tuple of dict
        One a run: what it has of its own. ``swept`` are the names of the parameters among it.
    checkpoint : dict or None
        ``path``, ``notice`` in s, ``requeues``.
    known_inputs : tuple of str
        Inputs that the entry is known to ask for; it may ask for others.
    required : tuple of str
        Parameters that a function must get. ``pickled`` is the function, if it goes by value.
    known_params : tuple of str or None
        Parameters that the entry's only ``hpcml.params(...)`` call names, if that can be told.
    image : str or None
        Digest of the container image; ``image_path`` says where it lies, ``image_stamp`` what
        tells that nobody has touched it, ``image_architecture`` for which CPUs it is built, as
        ``uname -m`` says it, if that can be told.
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
    inputs: dict[str, str | dict[str, str] | None]
    input_paths: dict[str, str]
    outputs: tuple[dict[str, Any], ...]
    resources: Resources
    points: tuple[dict[str, Any], ...] = ({},)
    origins: dict[str, Origin] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None
    known_inputs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    pickled: bytes | None = None
    tags: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    known_params: tuple[str, ...] | None = None
    image: str | None = None
    image_path: str | None = None
    image_stamp: str | None = None
    image_architecture: str | None = None
    unresolved: tuple[str, ...] = ()

    @property
    def swept(self) -> dict[str, None]:
        """Names of the parameters that points set, in their order."""
        return {name: None for point in self.points for name in point.get("params", ())}


def resolve(job: Job | Sweep, *, online: bool = True) -> Resolved:
    """Look at a job's files.

    Parameters
    ----------
    job : Job or Sweep
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


def resolve_with_code(job: Job | Sweep, *, online: bool = True) -> tuple[Resolved, Snapshot | None]:
    """As :func:`resolve`, and the snapshot of the code that the digest stands for."""
    points: tuple[dict[str, Any], ...] = ({},)
    if isinstance(job, Sweep):
        points, job = checks.points(job.points), job.job
    inputs = {
        checks.input_name(name): checks.input_source(name, source)
        for name, source in checks.mapping("inputs", job.inputs).items()
    }
    checks.distinct_variables(inputs)
    outputs = checks.outputs(job.outputs)
    entry = find_entry(job)
    left_out = [*inputs.values(), *(os.path.join(entry.base, out["path"]) for out in outputs)]
    snapshot = take_snapshot(entry.root, left_out) if entry.root else None
    _check_it_goes_along(entry, snapshot)
    digests: dict[str, str | dict[str, str] | None] = {}
    origins, stamps = {}, {}
    unresolved = []
    for name, path in inputs.items():
        origin = checks.input_origin(job.inputs[name])
        if origin is not None:
            origins[name] = origin
            digests[name] = {"of": f"{origin.digest}#{origin.output}"}
            continue
        digests[name], stamps[name], why = digest_input(
            f"inputs.{name}", Path(path), long_reads=online
        )
        if why:
            unresolved.append(f"inputs.{name}: {why}")
    image = checks.image(job.image)
    image_digest = image_stamp = None
    if image is not None:
        image_digest, image_stamp, why = digest_input("image", Path(image), long_reads=online)
        if why:
            unresolved.append(f"image: {why}")
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
        points=points,
        origins=origins,
        stamps=stamps,
        checkpoint=checks.checkpoint(_checkpoint(job, entry)),
        known_inputs=entry.known_inputs,
        required=entry.function.required if entry.function else (),
        pickled=entry.function.pickled if entry.function else None,
        resources=checks.resources(job.resources),
        image=image_digest,
        image_path=image,
        image_stamp=image_stamp,
        image_architecture=None if image is None else architecture(image),
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


def _checkpoint(job: Job, entry: Entry) -> Checkpoint | None:
    """What the job says; a function that submitit can requeue has the default."""
    implied = entry.function is not None and entry.function.checkpointable
    return Checkpoint() if job.checkpoint is None and implied else job.checkpoint


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        checks.name("tags", key): checks.text(f"tags.{key}", value)
        for key, value in checks.mapping("tags", tags).items()
    }


__all__ = ["Entry", "Resolved", "Snapshot", "content_of", "resolve", "resolve_with_code"]
