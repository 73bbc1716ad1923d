"""What Slurm's accounting measured of allocations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hpcml.schedulers import Accounted
from hpcml.schedulers.slurm import commands
from hpcml.schedulers.slurm.words import ENDED
from hpcml.sites import Partition

COLUMNS = (
    *("JobID", "JobIDRaw", "JobName", "Partition", "State", "ExitCode"),
    *("Submit", "Eligible", "Start", "End", "ElapsedRaw"),
    *("AllocTRES", "NodeList", "MaxRSS", "ConsumedEnergyRaw"),
)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
Fields = Mapping[str, str]


def sacct(jobs: Sequence[str]) -> list[str]:
    """Ask for arrays, with their steps and with what was before they were requeued."""
    columns = f"--format={','.join(COLUMNS)}"
    listed = f"--jobs={','.join(jobs)}"
    return ["sacct", "--duplicates", "--parsable2", "--noheader", columns, listed]


def parse(
    answer: str, partitions: Mapping[str, Partition]
) -> dict[tuple[str, int], list[Accounted]]:
    """The lives of allocations, by the names of jobs and the numbers in the array."""
    found: dict[tuple[str, int], list[_Life]] = {}
    last = _Life({})
    for line in answer.splitlines():
        fields = dict(zip(COLUMNS, line.split("|"), strict=False))
        identifier, _, step = fields["JobID"].partition(".")
        if len(fields) < len(COLUMNS) or not identifier[:1].isdigit():
            continue
        if step:  # steps follow what they are of
            last.steps[step] = fields
            continue
        last = _Life(fields)
        _, tasks, _ = commands.parse_id(identifier)
        for task in (task for span in tasks for task in span):
            found.setdefault((fields["JobName"], task), []).append(last)
    return {key: [life.accounted(partitions) for life in lives] for key, lives in found.items()}


@dataclass
class _Life:
    """The rows of an allocation and of its steps."""

    job: Fields
    steps: dict[str, Fields] = field(default_factory=dict)

    def accounted(self, partitions: Mapping[str, Partition]) -> Accounted:
        job = self.job
        code, signal = commands.exit_of(job["ExitCode"])
        state = job["State"].partition(" ")[0]
        resources = _resources(job["AllocTRES"])
        found = Accounted(
            "slurm",
            job["JobIDRaw"],
            1,
            state,
            str(ENDED.get(state, "")),
            code,
            signal,
            submitted=commands.moment(job["Submit"]),
            eligible=commands.moment(job["Eligible"]),
            started=commands.moment(job["Start"]),
            ended=commands.moment(job["End"]),
            elapsed=_number(job["ElapsedRaw"]),
            cpus=resources.get("cpu"),
            nodes=resources.get("node"),
            devices=_devices(resources),
            hosts=job["NodeList"] if job["NodeList"] != "None assigned" else "",
            max_rss=self._max_rss(),
            alone=_alone(resources, partitions.get(job["Partition"])),
        )
        joules, covered = self._energy()
        return replace(found, joules=joules, covered=covered)

    def _max_rss(self) -> int | None:
        known = (_bytes(step["MaxRSS"]) for step in self.steps.values())
        return max((it for it in known if it is not None), default=None)

    def _energy(self) -> tuple[float | None, float]:
        """J, and of which seconds.

        On one node the batch step's counter is of the whole life. What Slurm says of the job is the
        sum over all other steps, of their time alone; steps at the same time would count twice.
        0 is what Slurm writes where nothing was measured.
        """
        hosts, batch = self.job["NodeList"], self.steps.get("batch")
        if batch is not None and batch["NodeList"] == hosts:
            whole = _number(batch["ConsumedEnergyRaw"])
            if whole:
                return whole, _number(batch["ElapsedRaw"]) or 0.0
        steps = [step for name, step in self.steps.items() if name.isdigit()]
        joules = [_number(step["ConsumedEnergyRaw"]) for step in steps]
        everywhere = all(step["NodeList"] == hosts for step in steps)
        if not (joules and all(joules) and everywhere) or _overlap(steps):
            return None, 0.0
        seconds = (_number(step["ElapsedRaw"]) for step in steps)
        return sum(filter(None, joules)), sum(filter(None, seconds))


def _overlap(steps: Iterable[Fields]) -> bool:
    """Whether one began before another one had ended, or may have."""
    times = [(commands.moment(it["Start"]), commands.moment(it["End"])) for it in steps]
    spans = sorted((begin, end) for begin, end in times if begin is not None and end is not None)
    return len(spans) < len(times) or any(one[1] > other[0] for one, other in pairwise(spans))


def _resources(text: str) -> dict[str, int]:
    """``AllocTRES``, what has no plain number left out: ``cpu=8,mem=16000M,node=2,gres/gpu=4``."""
    found = (it.partition("=") for it in text.split(",") if it)
    return {name: int(value) for name, _, value in found if value.isdigit()}


def _devices(resources: Mapping[str, int]) -> int | None:
    """How many of all kinds; those of one model (``gres/gpu:a100``) are among those of a kind."""
    kinds = [n for name, n in resources.items() if name.startswith("gres/") and ":" not in name]
    return sum(kinds) if kinds else None


def _alone(resources: Mapping[str, int], partition: Partition | None) -> bool | None:
    """Whether nodes are given whole, or all of their CPUs were its own, by the site's profile."""
    if partition is None or not {"cpu", "node"} <= resources.keys():
        return None
    most = partition.node.cpus
    whole = isinstance(most, int) and resources["cpu"] >= resources["node"] * most
    return whole or partition.node_sharing == "exclusive"


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def _bytes(text: str) -> int | None:
    """``1540K`` in bytes."""
    found = re.fullmatch(r"([0-9.]+)([KMGT]?)", text)
    return int(float(found[1]) * UNITS[found[2]]) if found else None
