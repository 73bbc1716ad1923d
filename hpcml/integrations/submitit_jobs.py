"""What submitit has left of a job in its folder, read without running any code of it.

Layout of submitit 1.x (``submitit.core.utils.JobPaths``): ``<job>_submitted.pkl`` with function and
arguments, and for each task ``<job>_<task>_result.pkl``, ``_log.out``, ``_log.err``. The job's id
is a number, of a job array ``<array>_<index>``. The folder's name may depend on the id.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from hpcml.integrations import pickles

SITE = "submitit"  # that the records name
DEEPEST = 2  # folders below the one that is asked for: submitit's may be "%A/%a"
MOST_BYTES = 64 << 20  # of a pickle that is read
LONGEST_LINE = 1 << 16
SUBMITTED = re.compile(r"(\d{1,20}(?:_\d{1,9})?)_submitted\.pkl")
TASK = re.compile(r"(\d{1,20}(?:_\d{1,9})?)_(\d{1,7})_(result\.pkl|log\.out|log\.err)")
SCRIPT = re.compile(r"(\d{1,20})_submission\.sh")

LINE = re.compile(rb"submitit [A-Z]+ \((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3})\) - (.*)")
START = re.compile(
    r"Starting with JobEnvironment\(job_id=[^,]*, hostname=([^,]*), "
    r"local_rank=\d+\(\d+\), node=\d+\((\d+)\), global_rank=\d+\((\d+)\)\)"
)
WORD = re.compile(
    rb"slurmstepd: error: \*\*\* (?:JOB|STEP) \S+ ON \S+ "
    rb"CANCELLED AT (\S+)( DUE TO TIME LIMIT)? \*\*\*"
)
ENDINGS = ("Exiting ", "Requeued job ", "Submitted job triggered an exception")


class RefusedError(Exception):
    """A file or folder is not to be believed; its text says why."""


@dataclass(frozen=True)
class Content:
    """A file as it was read."""

    digest: str
    size: int
    mtime: float


@dataclass
class Attempt:
    """From one start of the first task to the next; times in s since the epoch."""

    start: float
    host: str
    nodes: int
    tasks: int
    end: float | None = None


@dataclass
class Log:
    """What a task's stdout and stderr tell."""

    attempts: list[Attempt] = field(default_factory=list)
    word: tuple[float, bool] | None = None  # Slurm's: cancelled when, and for its time limit
    asked_to_end: str = ""  # "timed-out", "preempted"


@dataclass(frozen=True)
class Result:
    """What a task has left: ``success`` is ``None`` where that cannot be read."""

    success: bool | None
    value: Any


@dataclass(frozen=True)
class Submission:
    """Function and arguments, as submitted or at the last checkpoint."""

    function: str
    params: Mapping[str, Any]
    seconds: float | None
    mtime: float


@dataclass
class Job:
    """A job's files. They are read when they are asked for."""

    id: str
    folder: Path
    script: Path | None = None
    tasks: dict[int, dict[str, Path]] = field(default_factory=dict)
    contents: dict[str, Content] = field(default_factory=dict)  # of what was read, by file name

    @cached_property
    def submission(self) -> Submission:
        """Function and arguments; an unreadable pickle tells its time alone."""
        path = self.folder / f"{self.id}_submitted.pkl"
        data, content = _read(path)
        try:
            state = pickles.read(data).state if data else {}
            function = state["function"]
            params = dict(_params(function, state["args"], state["kwargs"]))
            minutes = state.get("_timeout_min")
        except (pickles.UnreadableError, AttributeError, LookupError, TypeError):
            return Submission("", {}, None, content.mtime)
        seconds = None
        if isinstance(minutes, int | float) and 0 < minutes < math.inf:
            seconds = float(minutes) * 60
        return Submission(pickles.name_of(function), params, seconds, content.mtime)

    @cached_property
    def host(self) -> str:
        """The machine that it first started on; empty if its log does not begin with that."""
        path = self.tasks.get(0, {}).get("log.out")
        if path is None:
            return ""
        with open_private(path) as file:
            found = START.search(file.read(LONGEST_LINE).decode("utf-8", "replace"))
        return found[1] if found else ""

    @cached_property
    def log(self) -> Log:
        """What the first task's output tells."""
        log = Log()
        for kind in ("log.out", "log.err"):
            path = self.tasks.get(0, {}).get(kind)
            if path is not None:
                self.contents[path.name] = _read_log(path, log)
        return log

    @cached_property
    def results(self) -> dict[int, Result]:
        """What its tasks have left, by rank."""
        found = {}
        for rank, files in sorted(self.tasks.items()):
            path = files.get("result.pkl")
            if path is not None:
                data, self.contents[path.name] = _read(path)
                found[rank] = _result(data, path)
        return found

    @property
    def count(self) -> int:
        """How many tasks it has, as far as is known."""
        told = [attempt.tasks for attempt in self.log.attempts]
        return max([1, *told, *(rank + 1 for rank in self.tasks)])

    @property
    def good(self) -> bool:
        """Whether all its tasks have succeeded; then it has written all that matters."""
        results = self.results.values()
        return len(results) == self.count and all(result.success for result in results)

    def anew(self) -> Job:
        """The same job, of which nothing has been read, with results that it has left since."""
        tasks = {rank: dict(files) for rank, files in self.tasks.items()}
        for rank in range(self.count):
            path = self.folder / f"{self.id}_{rank}_result.pkl"
            if path.exists():
                tasks.setdefault(rank, {})["result.pkl"] = path
        return Job(self.id, self.folder, self.script, tasks)

    @cached_property
    def directives(self) -> list[str]:
        """What the batch system was asked for."""
        if self.script is None:
            nodes = [attempt.nodes for attempt in self.log.attempts[:1]]
            return [f"--nodes={count}" for count in nodes]
        with open_private(self.script) as file:
            lines = file.read(LONGEST_LINE).decode("utf-8", "replace").splitlines()
        return [line[8:].strip() for line in lines if line.startswith("#SBATCH ")]


def find_jobs(folder: Path) -> Iterator[Job | RefusedError]:
    """Jobs below a folder; in place of a folder that others may write to, why it is refused."""
    yield from _find(folder, 0)


def open_private(path: Path) -> BinaryIO:
    """Open a file that nobody else could have written.

    Raises
    ------
    RefusedError
        Somebody else could have, or it is no file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}") from error
    file = os.fdopen(descriptor, "rb")
    try:
        check_private(path, os.fstat(descriptor), stat.S_ISREG)
    except BaseException:
        file.close()
        raise
    return file


def check_private(path: Path, status: os.stat_result, kind: Any = stat.S_ISDIR) -> None:
    """See that nobody else can write there.

    Raises
    ------
    RefusedError
    """
    if not kind(status.st_mode):
        raise RefusedError(f"{path}: it is no {'folder' if kind is stat.S_ISDIR else 'file'}")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RefusedError(f"{path}: others may write to it")


def _find(folder: Path, depth: int) -> Iterator[Job | RefusedError]:
    jobs: dict[str, Job] = {}
    scripts: dict[str, Path] = {}
    below = []
    try:
        check_private(folder, folder.lstat())
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
                else:
                    _sort_in(entry.name, folder, jobs, scripts)
    except RefusedError as refused:
        yield refused
        return
    except OSError as error:
        yield RefusedError(f"{folder}: {error.strerror}")
        return
    for job in jobs.values():
        if (folder / f"{job.id}_submitted.pkl").exists():
            job.script = scripts.get(job.id.partition("_")[0])
            yield job
    if depth < DEEPEST:
        for inner in sorted(below):
            yield from _find(inner, depth + 1)


def _sort_in(name: str, folder: Path, jobs: dict[str, Job], scripts: dict[str, Path]) -> None:
    """Find out which job a file belongs to."""
    if found := SUBMITTED.fullmatch(name):
        jobs.setdefault(found[1], Job(found[1], folder))
    elif found := TASK.fullmatch(name):
        job = jobs.setdefault(found[1], Job(found[1], folder))
        job.tasks.setdefault(int(found[2]), {})[found[3]] = folder / name
    elif found := SCRIPT.fullmatch(name):
        scripts[found[1]] = folder / name


def _read(path: Path) -> tuple[bytes, Content]:
    """A pickle; no bytes, if they are too many."""
    with open_private(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MOST_BYTES:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
            return b"", Content(digest.hexdigest(), status.st_size, status.st_mtime)
        data = file.read()
    return data, Content(hashlib.sha256(data).hexdigest(), len(data), status.st_mtime)


def _result(data: bytes, path: Path) -> Result:
    try:
        if not data:
            raise pickles.TooLargeError
        outcome, value = pickles.read(data)
    except pickles.TooLargeError:
        with open_private(path) as file:
            outcome, value = pickles.first_text(file.read(4096)), pickles.Large()
    except (pickles.UnreadableError, TypeError, ValueError):
        return Result(None, None)
    known = {"success": True, "error": False}
    return Result(known.get(outcome) if isinstance(outcome, str) else None, value)


def _params(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Arguments by name; by place, where the function's pickle does not tell its names."""
    names = pickles.parameter_names(function)
    for place, value in enumerate(args):
        yield names[place] if place < len(names) else f"arg{place}", _shown(value)
    for name, value in kwargs.items():
        if not isinstance(name, str):
            raise TypeError
        yield name, _shown(value)


def _shown(value: Any) -> Any:
    """A plain value; of another one its type, and what tells it from others."""
    try:
        return pickles.plain(value)
    except pickles.NotPlainError as error:
        try:
            return {"type": str(error), "sha256": pickles.digest_of(value)}
        except pickles.UnreadableError:
            return {"type": str(error)}


def _read_log(path: Path, log: Log) -> Content:
    """Read a stream of the first task, which may be long, line by line."""
    digest = hashlib.sha256()
    with open_private(path) as file:
        status = os.fstat(file.fileno())
        while line := file.readline(LONGEST_LINE):
            digest.update(line)
            if b"submitit " in line and (found := LINE.search(line)):
                moment = _moment(found[1], "%Y-%m-%d %H:%M:%S")
                if moment is not None and path.name.endswith(".out"):
                    _note(log, moment + int(found[2]) / 1000, found[3].decode("utf-8", "replace"))
            elif b"slurmstepd: " in line and (found := WORD.search(line)):
                moment = _moment(found[1], "%Y-%m-%dT%H:%M:%S")
                if moment is not None:
                    log.word = moment, found[2] is not None
        size = file.tell()
    return Content(digest.hexdigest(), size, status.st_mtime)


def _note(log: Log, moment: float, message: str) -> None:
    """A line of submitit's own."""
    if found := START.fullmatch(message):
        log.attempts.append(Attempt(moment, found[1], int(found[2]), int(found[3])))
    elif log.attempts and message.startswith(ENDINGS):
        log.attempts[-1].end = moment
    elif found := re.fullmatch(r"Caught signal .*: this job is (timed-out|preempted)\.", message):
        log.asked_to_end = found[1]


def _moment(text: bytes, form: str) -> float | None:
    """Seconds since the epoch; submitit and Slurm write local time."""
    try:
        return time.mktime(time.strptime(text.decode("ascii"), form))
    except (ValueError, OverflowError):
        return None
