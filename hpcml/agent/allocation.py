"""The allocation of a batch system that an agent works in, as its environment tells."""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

OURS = (
    *("SLURM_EXPORT_ENV", "SLURM_BITSTR_LEN", "SLURM_TIME_FORMAT", "LC_ALL", "TZ"),
    *("PWD", "OLDPWD", "SHLVL", "_"),
)
"""What says how this agent was queued and started; a job is to find what the site says."""


class Allocation:
    """What Slurm gave; nothing at all where no Slurm is.

    Attributes
    ----------
    restarts : int
        How often it was given before: Slurm starts it again after it was cut off.
    facts : dict
        What a ``.start`` says of it.
    """

    def __init__(self, plan: "Mapping[str, Any]") -> None:
        there = os.environ if plan["what"]["scheduler"] == "slurm" else {}
        self._given = {name: value for name, value in there.items() if name not in OURS}
        self.job = there.get("SLURM_JOB_ID", "")
        self.task = int(there["SLURM_ARRAY_TASK_ID"]) if "SLURM_ARRAY_TASK_ID" in there else None
        array = there.get("SLURM_ARRAY_JOB_ID", self.job)
        self.restarts = int(there.get("SLURM_RESTART_COUNT") or 0)
        end = there.get("SLURM_JOB_END_TIME")  # Slurm 22.05 and newer
        self._end = float(end) if end else None
        self.facts: "dict[str, Any]" = {}
        if self.job:
            given = {"job": self.job, "array": array, "restarts": self.restarts}
            self.facts = {"allocation": given}

    def environment(self, sites: "Mapping[str, str]") -> "dict[str, str]":
        """The environment of jobs: the site's, and what Slurm says of devices, hosts and ranks."""
        environment = dict(self._given, **sites)
        if "TMPDIR" in self._given:  # the node's, made for this job
            environment["TMPDIR"] = self._given["TMPDIR"]
        return environment

    def is_later(self, other: "Mapping[str, Any] | None") -> bool:
        """Whether it is another attempt's, given again after it was cut off."""
        if not self.job or other is None or other["job"] != self.job:
            return False
        return bool(other["restarts"] < self.restarts)

    def time_left(self) -> "float | None":
        """Seconds until it ends; ``None``: nobody has said."""
        return None if self._end is None else self._end - time.time()

    def has_time_for_more(self, walltime: "float | None") -> bool:
        """Whether a run may well start once more in it: half of its walltime is left."""
        left = self.time_left()
        return left is None or walltime is None or left >= walltime / 2
