"""What Slurm's accounting measured of an allocation."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hpcml.schedulers.slurm import commands

COLUMNS = (
    *("JobID", "State", "ExitCode", "Submit", "Eligible", "Start", "End", "ElapsedRaw"),
    *("AllocTRES", "NodeList", "MaxRSS", "ConsumedEnergyRaw"),
)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Accounted:
    """One life of an allocation, as the accounting has it; ``None``: it does not say.

    Attributes
    ----------
    state : str
        In Slurm's words.
    exit_code, signal : int
    submitted, eligible, started, ended : float or None
        By the site's clock, in s since the epoch.
    elapsed : int or None
        In s.
    resources : dict
        ``AllocTRES``: ``{"cpu": "8", "mem": "16000M", "node": "2"}``.
    nodes : str
        As Slurm writes them: ``cpu[1-2]``.
    max_rss : int or None
        Of the largest task, in bytes.
    energy : int or None
        ``ConsumedEnergyRaw`` in J. Slurm writes 0 where nothing was measured: that is ``None``.
    """

    state: str
    exit_code: int
    signal: int
    submitted: float | None
    eligible: float | None
    started: float | None
    ended: float | None
    elapsed: int | None
    resources: dict[str, str]
    nodes: str
    max_rss: int | None
    energy: int | None


def sacct(job: str) -> list[str]:
    """Ask for an array, with its steps and with what was before it was requeued."""
    columns = f"--format={','.join(COLUMNS)}"
    return ["sacct", "--duplicates", "--parsable2", "--noheader", columns, f"--jobs={job}"]


def parse(answer: str) -> dict[int, list[Accounted]]:
    """The lives of allocations by their numbers in the array; steps follow what they are of."""
    found: dict[int, list[Accounted]] = {}
    for line in answer.splitlines():
        fields = dict(zip(COLUMNS, line.split("|"), strict=False))
        identifier, _, step = fields["JobID"].partition(".")
        if len(fields) < len(COLUMNS) or not identifier[:1].isdigit():
            continue
        _, tasks, _ = commands.parse_id(identifier)
        for task in (task for span in tasks for task in span):
            lives = found.setdefault(task, [])
            if not step:
                lives.append(_life(fields))
            elif lives:
                rss = [it for it in (lives[-1].max_rss, _bytes(fields["MaxRSS"])) if it is not None]
                lives[-1] = replace(lives[-1], max_rss=max(rss, default=None))
            if step == "batch" and lives and not re.search(r"[\[,]", lives[-1].nodes):
                # On one node its counters are the whole; without srun nobody sums them up.
                energy = lives[-1].energy or _number(fields["ConsumedEnergyRaw"]) or None
                lives[-1] = replace(lives[-1], energy=energy)
    return found


def _life(fields: dict[str, str]) -> Accounted:
    code, signal = commands.exit_of(fields["ExitCode"])
    resources = (it.partition("=") for it in fields["AllocTRES"].split(",") if it)
    return Accounted(
        fields["State"].partition(" ")[0],
        code,
        signal,
        submitted=commands.moment(fields["Submit"]),
        eligible=commands.moment(fields["Eligible"]),
        started=commands.moment(fields["Start"]),
        ended=commands.moment(fields["End"]),
        elapsed=_number(fields["ElapsedRaw"]),
        resources={name: value for name, _, value in resources},
        nodes=fields["NodeList"] if fields["NodeList"] != "None assigned" else "",
        max_rss=_bytes(fields["MaxRSS"]),
        energy=_number(fields["ConsumedEnergyRaw"]) or None,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _bytes(text: str) -> int | None:
    """``1540K`` in bytes."""
    found = re.fullmatch(r"([0-9.]+)([KMGT]?)", text)
    return int(float(found[1]) * UNITS[found[2]]) if found else None
