"""Finished submitit jobs become records.

>>> hpcml.integrations.submitit.import_folder("logs")      # doctest: +SKIP

Nothing is unpickled: what pickles hold is read without running any of it. Files that somebody else
could have written are passed over.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcml import records
from hpcml.agent import wire
from hpcml.batch_view import Attempt
from hpcml.errors import ArgumentError
from hpcml.integrations import pickles, submitit_jobs
from hpcml.integrations.submitit_jobs import SITE, Job, RefusedError
from hpcml.planning import Plan
from hpcml.records.database import Database
from hpcml.records.gathering import Figure, Head, Told
from hpcml.records.importing import final_runs, take_in
from hpcml.states import State
from hpcml.timeline import Point, Story, Timeline

__all__ = ["Imported", "import_folder"]

LOG, FILES = "submitit log", "submitit files"  # who says so
Verdict = tuple[State, str]


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes
    ----------
    new : int
        Runs that were recorded; those of which there was news are counted again.
    known : int
        Runs that had been recorded before, and are final.
    unfinished : int
        Jobs that are not known to have ended: they wait, run, or ended without a word.
    refused : tuple of str
        Files and folders that were passed over, and why.
    """

    new: int
    known: int
    unfinished: int
    refused: tuple[str, ...]


def import_folder(path: str | os.PathLike[str], site: str = SITE) -> Imported:
    """Take finished submitit jobs into the records; those that are there already stay as they are.

    Parameters
    ----------
    path : path
        The folder of an executor, or one above; two levels below it are looked at.
    site : str
        The site that the records name.

    Returns
    -------
    Imported

    Raises
    ------
    ArgumentError
        There is no such folder.
    RecordsError
        The records cannot be written.
    """
    folder = Path(os.path.realpath(Path(path).expanduser()))
    if not folder.is_dir():
        raise ArgumentError(f"{folder} is no folder", "Name the one that the executor was given.")
    return records.with_database(lambda database: _import(database, folder, site))


def _import(database: Database, folder: Path, site: str) -> Imported:
    refused: list[str] = []
    jobs: dict[str, tuple[str, Job]] = {}
    for found in submitit_jobs.find_jobs(folder):
        try:
            if isinstance(found, RefusedError):
                raise found
            batch, index = _place(found)
            jobs[wire.run_id(batch, index)] = batch, found
        except RefusedError as error:
            refused.append(str(error))
    known = final_runs(database, jobs)
    new = {run: placed for run, placed in jobs.items() if run not in known}
    reader = _Reader(site, refused)
    count = take_in(database, reader.read(new))
    return Imported(count, len(known), reader.unfinished, tuple(refused))


class _Reader:
    """Reads jobs; those that have not left a good result each are judged after the others.

    Then it is looked which ones have processes on this machine. One that has none has written all
    that it ever will, so that it is read once more.
    """

    def __init__(self, site: str, refused: list[str]) -> None:
        self.site, self.refused, self.unfinished = site, refused, 0

    def read(self, jobs: Mapping[str, tuple[str, Job]]) -> Iterator[tuple[Head, list[Told]]]:
        """What is known of those that have ended."""
        partial = {}
        for run, (batch, job) in jobs.items():
            with self._passing_over():
                if job.good:
                    yield from self._judged(run, batch, job)
                else:
                    partial[run] = batch, job
        alive = _alive() if partial else frozenset()
        for run, (batch, job) in partial.items():
            with self._passing_over():
                if job.id in alive:
                    self.unfinished += 1
                else:
                    yield from self._judged(run, batch, job.anew())

    def _judged(self, run: str, batch: str, job: Job) -> Iterator[tuple[Head, list[Told]]]:
        verdict = _verdict(job)
        if verdict is None:
            self.unfinished += 1
        else:
            yield _told(job, run, batch, self.site, verdict)

    @contextmanager
    def _passing_over(self) -> Iterator[None]:
        """A job with files that are not to be believed is passed over."""
        try:
            yield
        except RefusedError as error:
            self.refused.append(str(error))


def _place(job: Job) -> tuple[str, int]:
    """The batch that a job belongs to, and its number there: a job array is a batch.

    The name is that of the folder, and for a job of a local executor, whose id is a process's, that
    of its machine.
    """
    array, _, index = job.id.partition("_")
    host = job.host if job.script is None else ""
    digest = wire.sha256(os.fsencode(job.folder) + b"\0" + host.encode())
    return f"submitit-{digest[:12]}-{array}", int(index or 0)


def _told(job: Job, run: str, batch: str, site: str, verdict: Verdict) -> tuple[Head, list[Told]]:
    """All that is known of a job that has ended."""
    state, reason = verdict
    head = Head(batch, _plan(job, site), _created(job))
    point = json.dumps([head.plan.digest, job.id, job.submission.params], sort_keys=True)
    attempts, hosts = _attempts(job, reason)
    ends = [content.mtime for name, content in job.contents.items() if "_result" in name]
    ended = attempts[-1].end or {}
    told = Told(
        int(job.id.partition("_")[2] or 0),
        run,
        wire.sha256(point.encode("ascii")),
        head.plan.name,
        str(state),
        reason,
        state.final,
        job.submission.params,
        None,
        attempts,
        hosts,
        {},
        {n: {"sha256": one.digest, "bytes": one.size} for n, one in job.contents.items()},
        list(_figures(job)),
        story=_story(job, ended.get("time") or max(ends, default=head.created)),
        ended=ended.get("time") or max(ends, default=None),
    )
    return head, [told]


# --- how it ended -----------------------------------------------------------------------------


def _verdict(job: Job) -> Verdict | None:
    """How a job ended, and why, as far as its files tell; ``None``: it may not have ended.

    It has no processes on this machine, or has left all its results.
    """
    results, log = job.results, job.log
    for result in results.values():
        if result.success is False:
            return _failure(result.value, log.asked_to_end)
    if job.good:
        return State.COMPLETED, ""
    if log.word is not None and not (log.attempts and log.attempts[-1].start > log.word[0] + 1):
        if log.word[1]:
            return State.TIMEOUT, "its time limit was over, as its log says"
        return State.CANCELLED, "it was cancelled, as its log says"
    torn = [str(rank) for rank, result in results.items() if result.success is None]
    if torn:
        return State.UNKNOWN, f"the result of task {', '.join(torn)} cannot be read"
    if log.attempts and log.attempts[-1].host == socket.gethostname() and job.script is None:
        return State.UNKNOWN, "it left no result, and no process of it is left"
    return None


ASKED = {"timed-out": State.TIMEOUT, "preempted": State.PREEMPTED}
NOT_REQUEUED = "UncompletedJobError: Job not requeued because: "
LONGEST_REASON = 1000


def _failure(text: Any, asked: str) -> Verdict:
    """What the traceback of a task tells."""
    if not isinstance(text, str):
        return State.FAILED, "an error whose text cannot be read"
    reason = _last_line(text)[:LONGEST_REASON]
    if NOT_REQUEUED in reason:
        return ASKED.get(asked, State.FAILED), reason.partition(": ")[2]
    return State.FAILED, reason


def _last_line(traceback: str) -> str:
    """The exception: the first line after the calls that is not indented."""
    lines = traceback.rstrip().splitlines() or ["an error without a text"]
    calls = [n for n, line in enumerate(lines) if line.startswith('  File "')]
    after = [line for line in lines[calls[-1] + 1 if calls else 0 :] if line[:1].strip()]
    return after[0] if calls and after else lines[-1]


def _alive() -> frozenset[str]:
    """Ids of the local executor's jobs that have processes on this machine."""
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            command = Path(entry.path, "cmdline").read_bytes()
            if b"submitit.local._local" in command:
                found.add(entry.name)
            elif b"submitit.core._submit" in command:
                environment = Path(entry.path, "environ").read_bytes().split(b"\0")
                names = dict(line.split(b"=", 1) for line in environment if b"=" in line)
                found.add(names.get(b"SUBMITIT_LOCAL_JOB_ID", b"").decode())
        except OSError:
            continue  # it has ended, or is somebody else's
    return frozenset(found)


# --- what it was and left ---------------------------------------------------------------------


def _plan(job: Job, site: str) -> Plan:
    """What is known of how it was run. The digest is of this submission alone.

    The code is not known, so that no other one is known to be equal.
    """
    name = _storable(job.submission.function) or SITE
    array = job.id.partition("_")[0]
    what = {
        "entry": {"kind": "function", "target": name},
        "args": None,
        "params": {},
        "env": {},
        "code": None,
        "folder": "",
        "inputs": {},
        "outputs": [],
        "image": None,
        "launcher": None,
        "scheduler": SITE,
        "limits": {"time": job.submission.seconds},
        "placement": _placement(job.directives),
        "submission": [wire.sha256(os.fsencode(job.folder)), array],
    }
    where: dict[str, Any] = {
        "site": site,
        "workspace": str(job.folder),
        "name": name.rpartition(".")[2],
        "tags": {},
        "user": _user(),
        "imported": SITE,
        "job": array,
    }
    return Plan(what, where)


def _storable(text: str) -> str:
    """Text without halves of surrogate pairs, of which there is no digest."""
    return text.encode("utf-8", "backslashreplace").decode()


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None  # nobody has this number


def _placement(directives: Sequence[str]) -> dict[str, int | None]:
    """What Slurm was asked for; what it was not told is its default of one, and no devices."""
    told = dict(directive.partition("=")[::2] for directive in directives)

    def number(*options: str) -> int | None:
        last = next((told[name].rpartition(":")[2] for name in options if name in told), "")
        return int(last) if last.isdecimal() else None

    asked = {
        "nodes": number("--nodes"),
        "tasks": number("--ntasks-per-node"),
        "cpus": number("--cpus-per-task"),
    }
    known = {name: value or 1 if told else None for name, value in asked.items()}
    return {**known, "devices": number("--gres", "--gpus-per-node")}


def _created(job: Job) -> float:
    """When it was submitted. Checkpoints write that file anew: then, when it first started."""
    starts = [attempt.start for attempt in job.log.attempts[:1]]
    return min([job.submission.mtime, *starts])


def _attempts(job: Job, reason: str) -> tuple[list[Attempt], dict[int, dict[str, Any]]]:
    found = job.log.attempts
    attempts = [
        Attempt(
            number,
            {"time": one.start},
            {
                "time": one.end,
                "reason": reason if number == len(found) else None,
                "requeue": number < len(found),
            },
        )
        for number, one in enumerate(found, 1)
    ]
    hosts = {number: {"host": one.host} for number, one in enumerate(found, 1)}
    return attempts or [Attempt(1, {}, {"reason": reason})], hosts


def _figures(job: Job) -> Iterator[Figure]:
    attempts = job.log.attempts
    for number, one in enumerate(attempts, 1):
        if one.end is not None and one.end >= one.start:
            yield Figure("command", number, one.end - one.start, "s", LOG)
    if attempts and job.submission.mtime <= attempts[0].start:
        yield Figure("queue", 1, attempts[0].start - job.submission.mtime, "s", f"{FILES}, log")


def _story(job: Job, moment: float) -> Story:
    """What its function returned; of several tasks, by rank."""
    described: dict[str, Any] = {}
    history: dict[str, tuple[Point, ...]] = {}
    for rank, result in job.results.items():
        if not result.success:
            continue
        name = "result" if job.count == 1 else f"result.{rank}"
        try:
            value = pickles.plain(result.value)
        except pickles.NotPlainError as error:
            described[f"{name}.type"] = str(error)
            continue
        described[name] = value
        for key, number in pickles.numbers_in(value, name):
            history[key] = (Point(None, moment, number),)
    return Story(Timeline(), history, described, {})
