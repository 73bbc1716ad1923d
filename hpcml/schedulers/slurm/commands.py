"""Slurm's commands: what is asked, and what the answers say. Nothing is run here.

They are run in an environment that has nothing of the caller's (:mod:`hpcml.agent.files`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from hpcml.schedulers import Chunk

ROW = "%i|%T|%r|%j"
NO_TASK = "4294967294"  # NO_VAL: of an array that was cancelled before any task was told apart
REMOVED = "REMOVED"
"""Not in Slurm's words: a task that waited, and of which nothing is on record any more."""

HISTORY = ("JobID", "State", "ExitCode", "Reason", "End", "JobName")

# All that a job can be on record as. Where none is asked for, the accounting leaves out what was
# cancelled before it was eligible: held, waiting for another one, or gone too soon.
ON_RECORD = (
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT"),
    *("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "REVOKED"),
)


# --- names and numbers ------------------------------------------------------------------


def job_name(chunk: str) -> str:
    """By which the queue knows a chunk: ``hpcml-<batch>-<k>``."""
    return "hpcml-{}-{}".format(*chunk.rsplit(".", 1))


def allocations(chunk: Chunk) -> int:
    """How many allocations a chunk asks for."""
    return -(-chunk.count // chunk.layout.size)


def task_of(chunk: Chunk, index: int) -> int:
    """The allocation of a run, by its number in the array."""
    return (index - chunk.first) // chunk.layout.size


def runs_of(chunk: Chunk, task: int) -> range:
    """The runs of an allocation."""
    first = chunk.first + task * chunk.layout.size
    return range(first, min(first + chunk.layout.size, chunk.first + chunk.count))


def several(job: str, tasks: Iterable[int]) -> str:
    """Tasks of an array as Slurm writes them: ``5_[0,3-7]``."""
    spans: list[list[int]] = []
    for task in sorted(tasks):
        if spans and task == spans[-1][1] + 1:
            spans[-1][1] = task
        else:
            spans.append([task, task])
    listed = (f"{first}-{last}" if last > first else str(first) for first, last in spans)
    return f"{job}_[{','.join(listed)}]"


# --- what is asked ----------------------------------------------------------------------


def sbatch(chunk: Chunk, folder: str, dependencies: Sequence[str]) -> list[str]:
    """Queue a chunk; what it occupies, and who pays, is in its script.

    Parameters
    ----------
    chunk : Chunk
    folder : str
        The batch's, as an absolute path.
    dependencies : sequence of str
        As ``--dependency`` takes them, all of which must be met.
    """
    array = f"0-{allocations(chunk) - 1}"
    if chunk.max_running is not None:
        array += f"%{max(1, chunk.max_running // (chunk.layout.slots or 1))}"
    argv = [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(chunk.name)}",
        f"--array={array}",
        f"--chdir={folder}",
        # One file for all: an inode an allocation would be too much.
        f"--output=attempts/{chunk.number}.out",
        "--open-mode=append",
        # Of an environment that is clean: a job needs a PATH and a home. With NIL it has none, and
        # with a list of names the node runs the login shell, whatever that does.
        "--export=ALL",
    ]
    if dependencies:
        argv += [f"--dependency={','.join(dependencies)}", "--kill-on-invalid-dep=yes"]
    return [*argv, f"{folder}/job.sh", str(chunk.first), str(chunk.count)]


def squeue(*, ended: bool = False, names: Sequence[str] = ()) -> list[str]:
    """Ask for all jobs of the user that run or wait; ``ended``: and those that it still knows."""
    argv = ["squeue", "--me", "--noheader", f"--format={ROW}"]
    if ended:
        argv.append("--states=all")
    if names:
        argv.append(f"--name={','.join(map(job_name, names))}")
    return argv


def sacct(job: str) -> list[str]:
    """Ask the accounting how an array is, or has ended.

    As a whole: tasks that have never begun are on record together, and are not found one by one.
    """
    columns = f"--format={','.join(HISTORY)}"
    return ["sacct", "-X", "--parsable2", "--noheader", columns, f"--jobs={job}"]


def sacct_by_name(names: Sequence[str], since: float, until: float) -> list[str]:
    """Ask the accounting for the ids of jobs by their names; times in s since the epoch."""
    return [
        *("sacct", "-X", "--parsable2", "--noheader", "--format=JobID,JobName"),
        *(f"--starttime={_utc(since)}", f"--endtime={_utc(until)}"),
        *(f"--state={','.join(ON_RECORD)}", f"--name={','.join(map(job_name, names))}"),
    ]


def _utc(seconds: float) -> str:
    """A time, as commands read it in the environment that they have."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def scontrol(job: str) -> list[str]:
    """Ask the controller how a job is, or has ended; soon it forgets."""
    return ["scontrol", "--oneliner", "show", "job", job]


# --- what is answered -------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What Slurm says of tasks of an array.

    Attributes
    ----------
    job : str
        Id of the array.
    tasks : tuple of range
        Empty: all that never started, and nobody has said which.
    waiting : bool
        Whether these are the tasks that have never started, in one row.
    state, reason : str
        In Slurm's words.
    by : str or None
        Who cancelled it: a user id; empty: Slurm itself. ``None``: that is not told.
    exit_code, signal : int
    ended : float or None
        When, by the site's clock in s since the epoch.
    """

    job: str
    tasks: tuple[range, ...]
    state: str
    reason: str = ""
    name: str = ""
    waiting: bool = False
    by: str | None = ""
    exit_code: int = 0
    signal: int = 0
    ended: float | None = None

    def __iter__(self) -> Iterator[int]:
        for span in self.tasks:
            yield from span


def parse_id(text: str) -> tuple[str, tuple[range, ...], bool]:
    """``5_[2,4-9%2]``: the array's id, the tasks, and whether they are those that wait.

    A job that is no array counts as its own task 0.
    """
    job, _, task = text.partition("_")
    if task.startswith("["):
        listed = task.strip("[]").partition("%")[0]
        return job, tuple(map(_span, listed.split(","))), True
    return job, (_span(task or "0"),), False


def _span(text: str) -> range:
    text, _, step = text.partition(":")
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))


def parse_squeue(answer: str) -> Iterator[Row]:
    """The rows of :func:`squeue`; what is none is passed over."""
    for line in answer.splitlines():
        fields = line.split("|", 3)
        if len(fields) == 4 and fields[0][:1].isdigit():
            job, tasks, waiting = parse_id(fields[0])
            yield Row(job, tasks, fields[1], fields[2], fields[3], waiting)


def parse_sacct(answer: str) -> Iterator[Row]:
    """The rows of :func:`sacct`."""
    for line in answer.splitlines():
        fields = line.split("|", len(HISTORY) - 1)
        if len(fields) == len(HISTORY) and fields[0][:1].isdigit():
            job, tasks, waiting = parse_id(fields[0])
            state, _, by = fields[1].partition(" by ")
            code, signal = exit_of(fields[2])
            yield Row(
                job,
                tasks,
                state,
                fields[3],
                fields[5],
                waiting,
                by,
                code,
                signal,
                moment(fields[4]),
            )


def parse_scontrol(answer: str) -> Iterator[Row]:
    """The rows of :func:`scontrol`."""
    for line in answer.splitlines():
        found: dict[str, str] = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        if "JobState" in found:
            task = found.get("ArrayTaskId", "0").partition("%")[0]
            waiting = not task.isdigit() or task == NO_TASK
            code, signal = exit_of(found.get("ExitCode", "0:0"))
            yield Row(
                found.get("ArrayJobId") or found["JobId"],
                () if task == NO_TASK else tuple(map(_span, task.split(","))),
                found["JobState"],
                found.get("Reason", ""),
                found.get("JobName", ""),
                waiting,
                by=None,
                exit_code=code,
                signal=signal,
                ended=moment(found.get("EndTime", "")),
            )


def exit_of(text: str) -> tuple[int, int]:
    """Exit code and signal: ``0:9``."""
    code, _, signal = text.partition(":")
    return int(code or 0), int(signal or 0)


def moment(text: str) -> float | None:
    """A time in s since the epoch; ``None`` for ``Unknown``."""
    return float(text) if text.isdigit() else None


def parse_names(answer: str) -> dict[str, str]:
    """Ids of arrays by the names of jobs, of :func:`sacct_by_name`."""
    rows = (line.split("|", 1) for line in answer.splitlines() if "|" in line)
    return {name: identifier.partition("_")[0] for identifier, name in rows}


def parse_sbatch(answer: str) -> str | None:
    """The id of a job that was taken; ``None`` if there is none in the answer."""
    lines = answer.split()
    identifier = lines[-1].partition(";")[0] if lines else ""
    return identifier if identifier.isdigit() else None


# --- what goes wrong --------------------------------------------------------------------


class Trouble(Enum):
    """What an error of Slurm means."""

    LOST = "it may have been done: the answer did not come"
    BUSY = "it was not done; at once it may be"
    LATER = "it was not done; when the queue has changed it may be"
    DISABLED = "the site keeps no accounting"
    DEPENDENCY = "a job that it is to come after is not known any more"
    GONE = "the queue does not know the job"
    REFUSED = "it will not be done"


# In Slurm's words, in its own order of harm: what may have been done comes first.
SAID = (
    (
        Trouble.LOST,
        (
            "Socket timed out",
            "Zero Bytes were transmitted",
            "Connection reset by peer",
            "Unexpected message received",
            "Insane message length",
            "eceive failure",
            "hutdown failure",
            "Connection timed out",
            "Broken pipe",
            "Transport endpoint is not connected",
            "auth_g_verify",  # of an answer, that is: of a call the controller itself complains
        ),
    ),
    (
        Trouble.BUSY,
        (
            "Slurm temporarily unable",
            "temporarily unable to accept job",
            "Resource temporarily unavailable",
            "Unable to contact slurm controller",
            "Unable to contact slurmctld",
            "controller not responding",
            "Connection refused",
            "Slurm backup controller in standby mode",
            "Protocol authentication error",
            "Invalid authentication credential",
            "I/O error writing script/environment to file",
        ),
    ),
    (
        Trouble.LATER,
        (
            "SubmitJob",  # AssocMaxSubmitJobLimit, QOSGrpSubmitJobsLimit and the like
            "Required partition not available",  # it is down, or drained
        ),
    ),
    (Trouble.DISABLED, ("accounting storage is disabled",)),
    (Trouble.DEPENDENCY, ("Job dependency problem",)),
    (Trouble.GONE, ("Invalid job id specified", "Job/step already completing or completed")),
)

# How sbatch speaks of a job that is not taken as it is. Else it may be in trouble itself.
ABOUT_THE_JOB = ("Batch job submission failed", "nvalid", "not valid")

ACCOUNT = (
    "{said} `sacctmgr show associations user=$USER format=account,partition,qos` lists yours there."
)
NO_ACCOUNT = "No account was named: write sites.{site}.account into the settings."
ITS_ACCOUNT = "The account was {account!r}, by sites.{site}.account in the settings."

ADVICE = (
    (
        "SubmitJob",
        "Wait until others have ended, if you may submit any. By max_submitted in the profile runs "
        "share jobs.",
    ),
    ("partition not available", "`sinfo` lists the site's partitions that take jobs."),
    ("Invalid job array", "Write max_array into the profile: MaxArraySize of the site."),
    ("Invalid qos", "Ask the site which QOS your account may use."),
    ("invalid partition", "See the profile's partitions: `sinfo` lists the site's."),
    ("time limit", "Ask for less time; the profile may say too much for this partition."),
)


def trouble(said: str) -> Trouble:
    """What an error message of Slurm means for what was to be done."""
    for meaning, messages in SAID:
        if any(message in said for message in messages):
            return meaning
    return Trouble.REFUSED


def refuses(said: str) -> bool:
    """Whether sbatch does not take a job as it is, now or later."""
    return trouble(said) is Trouble.REFUSED and any(words in said for words in ABOUT_THE_JOB)


def advice(said: str, site: str, account: str | None) -> str:
    """What to do about a refusal."""
    if "Invalid account" in said:
        named = NO_ACCOUNT if account is None else ITS_ACCOUNT
        return ACCOUNT.format(said=named.format(site=site, account=account))
    for part, text in ADVICE:
        if part.lower() in said.lower():
            return text.format(site=site)
    return "Change the job or the profile, and submit again."
