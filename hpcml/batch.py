"""A batch's files: on the site, and in the outbox until the site has it.

The outbox has one file a batch, ``$XDG_STATE_HOME/hpcml/outbox/<batch>.jsonl``. Its first line
is the whole batch, on disk for good before anything else happens; further lines say how far
the submission came. The file goes when the queue has taken the batch and the site knows. A batch
that appears on the site at once has none, unless somebody resumes it.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from hpcml import outbox
from hpcml.agent import wire
from hpcml.enclosing import enclosing_run
from hpcml.errors import HpcmlError, RunStateError
from hpcml.layout import Layout
from hpcml.library import library_name
from hpcml.planning import Plan
from hpcml.schedulers import Chunk
from hpcml.settings import state_folder

SEAL = b',"whole":"'  # so begins the end of a batch's line
last_known = ""  # the batch that this process was the last to put into the outbox or onto a site
FOREIGN_PATIENCE = 3600.0  # seconds for which a submission on a machine we cannot see is alive


@dataclass(frozen=True)
class Submission:
    """What was said with a plan when it was submitted: the same on the site and in the outbox.

    Attributes
    ----------
    created : float
        When, by the client's clock.
    layout : Layout
        How its runs are shared out to allocations, and these to calls of the queue.
    after, group, max_running, parent
        As in :class:`hpcml.schedulers.Chunk`.
    resubmits : tuple of str
        The run that each of its runs repeats; empty where they repeat none.
    depth : int
        How many runs have submitted each other until this submission.
    """

    created: float
    layout: Layout
    group: str
    after: tuple[str, ...] = ()
    max_running: int | None = None
    parent: str | None = None
    resubmits: tuple[str, ...] = ()
    depth: int = 0

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.__dict__, "layout": dict(self.layout.__dict__)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Submission:
        """Read it back, from among whatever else is there.

        Raises
        ------
        HpcmlError
            Another version of hpcml wrote it.
        """
        advice = "Use the version of hpcml that wrote it."
        try:
            missing = cls.__dataclass_fields__.keys() - data.keys()
            if missing:
                problem = f"a submission does not say {', '.join(sorted(missing))}"
                raise HpcmlError(problem, advice)
            known = {name: data[name] for name in cls.__dataclass_fields__}
            known["layout"] = Layout(**known["layout"])
            for name in ("after", "resubmits"):
                known[name] = tuple(known[name])
            return cls(**known)
        except (AttributeError, TypeError) as error:
            raise HpcmlError(f"this is no submission: {error}", advice) from error

    def chunks(self, batch: str, count: int) -> tuple[Chunk, ...]:
        """The calls of the queue, of a batch with so many runs."""
        return tuple(
            Chunk(
                f"{batch}.{k}",
                batch_folder(batch),
                indices.start,
                len(indices),
                self.layout,
                self.after,
                self.group,
                self.max_running,
                parent=self.parent,
            )
            for k, indices in enumerate(self.layout.chunks(count))
        )


@dataclass(frozen=True)
class Batch:
    """One submission: a plan and a table of points.

    Attributes
    ----------
    id : str
        ``20261121-141502-k3f9a2``: UTC, random.
    points : tuple of dict
        One a run: what it has of its own.
    owner : dict
        The process that submits it (see :func:`hpcml.agent.wire.identity`).
    steps : tuple of dict
        How far the submission came: ``step`` and ``time``.
    """

    id: str
    plan: Plan
    points: tuple[dict[str, Any], ...]
    submission: Submission
    owner: dict[str, Any]
    steps: tuple[dict[str, Any], ...] = ()

    @property
    def site(self) -> str:
        """Name of its site."""
        return str(self.plan.where["site"])

    @property
    def folder(self) -> str:
        """Its folder, relative to the workspace."""
        return batch_folder(self.id)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Its runs as the queue takes them."""
        return self.submission.chunks(self.id, len(self.points))

    @property
    def cancelled(self) -> bool:
        """Whether somebody decided that it never runs."""
        return any(step["step"] == "cancelled" for step in self.steps)

    @property
    def not_taken(self) -> str:
        """What the queue said when it did not take it; empty if somebody went on since."""
        said = ""
        for step in self.steps:
            went_on = step["step"] == "owner" and step["owner"]["started"] is not None
            said = str(step.get("said", "" if went_on else said))
        return said

    @cached_property
    def outbox(self) -> Path:
        """Its file in the outbox."""
        return outbox_folder() / f"{self.id}.jsonl"

    @property
    def lines(self) -> bytes:
        """Its points, as the agent reads them."""
        return b"".join(wire.canonical(point) + b"\n" for point in self.points)

    def files(self, *, owner: bool = False) -> dict[str, bytes]:
        """What the batch's folder holds when it appears on the site.

        With its ``owner``, whom otherwise the outbox names.
        """
        prelude, points = self.plan.prelude, self.lines
        # The agent of a plan is of the hpcml that made it: an older one always wants the file.
        own = points != wire.ONE_POINT or self.plan.where["library"] != library_name()
        more = {"points": own, **({"owner": self.owner} if owner else {})}
        batch = b'{"batch":{' + wire.canonical(more)[1:-1] + b"," + self._said + b"},"
        return {
            "plan.json": batch + self.plan.encoded[1:],
            "job.sh": self.plan.script_of(self.submission.layout).encode("utf-8"),
            **({wire.POINTS: points} if own else {}),
            **({} if prelude is None else {"env.sh": prelude.encode("utf-8")}),
        }

    @cached_property
    def _said(self) -> bytes:
        """What was said with the plan, as JSON between braces."""
        return wire.canonical(self.submission.as_data())[1:-1]

    def save(self) -> None:
        """Put it into the outbox, for good."""
        record = {
            "schema": wire.SCHEMA,
            "id": self.id,
            "points": list(self.points),
            "owner": self.owner,
        }
        said = wire.canonical(record)[:-1] + b"," + self._said + b',"plan":' + self.plan.encoded
        try:
            outbox.save(str(self.outbox), said + _seal(said) + b"\n")
        except OSError as error:
            raise HpcmlError(
                f"{self.outbox} cannot be written: {error.strerror}",
                "Nothing was submitted. Free some space and submit again.",
            ) from error
        self.is_known()

    def keep(self) -> None:
        """Put it into the outbox, unless it is there: the queue is not done with it."""
        if not self.outbox.exists():
            self.save()

    def is_known(self) -> None:
        """From now on it can be asked for by its id."""
        global last_known
        last_known = self.id

    def note(self, step: str, **facts: Any) -> None:
        """Say in the outbox how far the submission came."""
        line = {"step": step, "time": time.time(), **facts}
        try:
            wire.append_line(str(self.outbox), line, create=False)
        except FileNotFoundError:
            pass  # another process was quicker: the site has it
        except OSError as error:
            raise HpcmlError(
                f"{self.outbox} cannot be written: {error.strerror}",
                f"Free some space, then `hpcml resume {self.id}`.",
            ) from error

    def let_go(self) -> None:
        """Leave it to whoever resumes it, though this process lives on."""
        with suppress(HpcmlError):
            self.note("owner", owner={**self.owner, "started": None})

    def forget(self) -> None:
        """Take it out of the outbox: the site knows."""
        outbox.forget(str(self.outbox))


def new_batch(
    plan: Plan,
    points: Sequence[dict[str, Any]],
    *,
    after: Sequence[str] = (),
    group: str | None = None,
    max_running: int | None = None,
    resubmits: Sequence[str] = (),
    layout: Layout | None = None,
) -> Batch:
    """A batch with a fresh id; its parent is the run that this process is part of."""
    run = enclosing_run()
    identifier = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{wire.random_letters(6)}"
    return Batch(
        identifier,
        plan,
        tuple(points),
        Submission(
            time.time(),
            layout or Layout(size=len(points)),
            group or identifier,
            tuple(after),
            max_running,
            parent=run.id if run else None,
            resubmits=tuple(resubmits),
            depth=run.depth + 1 if run else 0,
        ),
        wire.identity(),
    )


def batch_folder(identifier: str) -> str:
    """A batch's folder, relative to the workspace."""
    return f"runs/{identifier}"


def batch_of(run: str) -> str:
    """The batch of a run, by the run's id."""
    return wire.run_parts(run)[0]


def outbox_folder() -> Path:
    """Where batches wait until the site has them."""
    return _outbox(state_folder())


@lru_cache(maxsize=16)  # each submission asks for it
def _outbox(state: Path) -> Path:
    return state / "outbox"


def outbox_ids() -> list[str]:
    """Ids of the batches in the outbox."""
    return sorted(path.stem for path in outbox_folder().glob("*.jsonl") if path.stem[0] != ".")


def outbox_names(digest: str) -> bool:
    """Whether a batch of the outbox names something by its digest."""
    for identifier in outbox_ids():
        with suppress(FileNotFoundError):  # the site has it by now
            if digest.encode() in (outbox_folder() / f"{identifier}.jsonl").read_bytes():
                return True
    return False


def load_outbox(identifier: str) -> Batch | None:
    """A batch from the outbox, ``None`` if it is not there."""
    path = outbox_folder() / f"{identifier}.jsonl"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if not path.exists():  # taken out meanwhile: the file may be another batch's by now
        return None
    line, _, rest = data.partition(b"\n")
    head, steps = next(wire.parse_lines(line), None), list(wire.parse_lines(rest))
    if head is None or head.get("id") != identifier or not _is_whole(line):
        return None  # power was lost before save() came to its end: it is torn, or another one's
    if head.get("schema") != wire.SCHEMA:
        raise HpcmlError(
            f"{path} was not written by this version of hpcml",
            "Use the version that wrote it, or remove the file to forget the run.",
        )
    owners = [step["owner"] for step in steps if step["step"] == "owner"]
    return Batch(
        head["id"],
        Plan.from_json(json.dumps(head["plan"])),
        tuple(head["points"]),
        Submission.from_data(head),
        owners[-1] if owners else head["owner"],
        tuple(steps),
    )


def _seal(said: bytes) -> bytes:
    """The end of a batch's line, which tells whether all of it is of one batch."""
    return SEAL + b'%s"}' % wire.sha256(said).encode()


def _is_whole(line: bytes) -> bool:
    """Whether a batch's line is as it was written; an older hpcml wrote no digest."""
    said, sealed, digest = line.rstrip().rpartition(SEAL)
    return not sealed or SEAL + digest == _seal(said)


def claim(identifier: str, step: str) -> Batch | None:
    """Take over a batch of the outbox whose submission was broken off, one process at a time.

    Parameters
    ----------
    identifier : str
    step : {"owner", "cancelled"}
        To go on with it, or to have it never run.

    Returns
    -------
    Batch or None
        ``None``: it is not there (any more).

    Raises
    ------
    RunStateError
        Somebody is submitting it, or it was cancelled.
    """
    with ExitStack() as stack:
        try:
            # To be locked it must be open for writing, on NFS.
            file = stack.enter_context(open(outbox_folder() / f"{identifier}.jsonl", "rb+"))
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_EX)
        batch = load_outbox(identifier)
        if batch is None:
            return None
        if batch.cancelled:
            raise RunStateError(f"{identifier} was cancelled", "Submit the job again.")
        refuse_if_submitting(batch)
        owner = wire.identity()
        batch.note(step, owner=owner)
        return replace(batch, owner=owner)


def refuse_if_submitting(batch: Batch) -> None:
    """Leave a batch of the outbox alone that another live process is submitting.

    Raises
    ------
    RunStateError
        There is one.
    """
    if outbox_owner_alive(batch):
        refuse_of_another(batch.id, batch.owner)


def refuse_of_another(batch: str, owner: Mapping[str, Any]) -> None:
    """Leave a batch alone that a live process submits.

    Raises
    ------
    RunStateError
        It is not this one.
    """
    if owner != wire.identity():
        raise RunStateError(
            f"process {owner['pid']} on {owner['host']} is submitting {batch}",
            "Wait for it, or end it first.",
        )


def outbox_owner_alive(batch: Batch) -> bool:
    """Whether the process that submits it still runs (on another machine: for an hour)."""
    if wire.is_here(batch.owner):
        return wire.alive(batch.owner)
    last: float = max([batch.submission.created, *(step["time"] for step in batch.steps)])
    return time.time() - last < FOREIGN_PATIENCE
