"""What ``--json`` prints. docs/commands.md describes each key; tests hold both to it."""

from __future__ import annotations

from typing import Any, TypedDict


class Run(TypedDict):
    """A run, as it was last seen."""

    id: str
    site: str
    name: str
    state: str
    reason: str
    attempts: int
    exit_code: int | None
    signal: int | None
    digest: str


class Plan(TypedDict):
    """A plan; ``what`` and ``where`` are open."""

    schema: int
    what: dict[str, Any]
    where: dict[str, Any]
    decisions: list[str]
    unresolved: list[str]
    digest: str | None
    job_digest: str | None


class Logs(TypedDict):
    """What a run printed."""

    stdout: str
    stderr: str


class Fetched(TypedDict):
    """A run that was copied."""

    id: str
    folder: str


class Synced(TypedDict):
    """What was recorded."""

    runs: int
    mirrored: int | None
    passed_over: list[str]


class Imported(TypedDict):
    """What was taken from another tool."""

    new: int
    known: int
    unfinished: int
    refused: list[str]


class Item(TypedDict):
    """Something that can be freed."""

    kind: str
    name: str
    about: str
    bytes: int
    whole: bool
    age: int
    paths: list[str]


class Kept(TypedDict):
    """Something that is old enough, and stays."""

    kind: str
    name: str
    why: str


class Pruning(TypedDict):
    """What would be freed, or was."""

    site: str
    workspace: str
    freed: bool
    bytes: int
    items: list[Item]
    kept: list[Kept]


class Column(TypedDict):
    """A figure of a comparison."""

    key: str
    kind: str
    name: str
    unit: str
    scope: str


class Summary(TypedDict):
    """What the values of a figure come to."""

    n: int
    median: float | None
    low: float | None
    high: float | None
    level: float | None
    others: dict[str, int]


class Row(TypedDict):
    """Runs that are equal in what a comparison goes by."""

    label: str
    group: dict[str, Any]
    job_digests: list[str]
    states: dict[str, int]
    n: int
    left_out: int
    aspects: dict[str, list[str | None]]
    figures: dict[str, Summary]


class Point(TypedDict):
    """A run of a comparison."""

    id: str
    row: int
    state: str
    reason: str
    counted: bool
    params: dict[str, Any]
    hosts: list[str]
    aspects: dict[str, str | None]
    figures: dict[str, Any]
    no_energy: str | None


class Comparison(TypedDict):
    """Runs side by side."""

    schema: int
    by: list[str] | None
    columns: list[Column]
    rows: list[Row]
    points: list[Point]
    marks: list[str]


class Attempt(TypedDict):
    """An attempt, by its agent."""

    number: int
    started: float | None
    ended: float | None
    exit_code: int | None
    signal: int | None
    life: int | None


class Allocation(TypedDict):
    """One life of an allocation, by the site's accounting."""

    source: str
    job: str
    runs: int
    state: str
    meaning: str
    exit_code: int
    signal: int
    submitted: float | None
    eligible: float | None
    started: float | None
    ended: float | None
    elapsed: float | None
    cpus: int | None
    nodes: int | None
    devices: int | None
    hosts: str
    max_rss: int | None
    joules: float | None
    covered: float
    alone: bool | None


class Energy(TypedDict):
    """The energy of a run."""

    joules: float | None
    uncertainty: float | None
    source: str | None
    scope: str | None
    seconds: float | None
    covered: float
    exclusive: bool | None
    why: str


class Record(TypedDict):
    """A run, as it is on record."""

    id: str
    site: str
    name: str
    state: str
    reason: str
    awaited: str | None
    attempts: list[Attempt]
    allocations: list[Allocation]
    energy: Energy | None
    disagreements: list[str]


class Site(TypedDict):
    """A site in the list of them."""

    name: str
    description: str
    scheduler: str | None
    transport: str | None
    workspace: str | None
    profile: str
    problem: str | None


class Fact(TypedDict):
    """A fact of a site."""

    key: str
    value: Any
    where: str
    source: str | None
    confidence: str | None


class SiteFacts(TypedDict):
    """All that is known of a site."""

    name: str
    facts: list[Fact]


class Match(TypedDict):
    """A partition, and whether it can run a job."""

    site: str
    partition: str
    fits: bool
    reason: str
    doubts: list[str]
    nodes: int | None
    devices: int | None


class Key(TypedDict):
    """A key of a profile."""

    name: str
    description: str
    kind: str
    default: str | None
    required: bool
    allowed: list[str]
    pattern: str | None
    example: str | None


class Mistake(TypedDict):
    """Something that is wrong with a profile."""

    problem: str
    advice: str


class Validation(TypedDict):
    """All that is wrong with a profile."""

    name: str
    profile: str
    problems: list[Mistake]


class Difference(TypedDict):
    """A fact in which two sites differ; ``null`` where one does not say it."""

    key: str
    one: Fact | None
    other: Fact | None


class Finding(TypedDict):
    """What one check of the doctor has found."""

    check: str
    verdict: str
    what: str
    advice: str


class Diagnosis(TypedDict):
    """What all checks have found."""

    ok: bool
    findings: list[Finding]


class Demo(TypedDict):
    """How the demo ended."""

    folder: str
    exit_code: int


class Error(TypedDict):
    """Why a command could not do what it was asked."""

    kind: str
    problem: str
    advice: str


class Failed(TypedDict):
    """What is printed instead, or after it, where a command fails."""

    error: Error


# By command; docs/commands.md has the same table.
SHAPES: dict[str, Any] = {
    "plan": Plan,
    "submit": Run,
    "sweep": list[Run],
    "runs": list[Run],
    "status": list[Run],
    "logs": Logs,
    "wait": list[Run],
    "cancel": list[Run],
    "resume": list[Run],
    "resubmit": list[Run],
    "fetch": list[Fetched],
    "compare": Comparison,
    "show": list[Record],
    "sync": Synced,
    "import submitit": Imported,
    "prune": Pruning,
    "doctor": Diagnosis,
    "sites": list[Site],
    "sites list": list[Site],
    "sites show": SiteFacts,
    "sites match": list[Match],
    "sites explain": list[Key],
    "sites validate": list[Validation],
    "sites diff": list[Difference],
    "sites doctor": Diagnosis,
    "demo": Demo,
}
