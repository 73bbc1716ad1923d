"""Options of sbatch that a job gives by name: which it may, and which are hpcml's own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpcml.errors import PlanError, nearest
from hpcml.resolving import Resolved
from hpcml.sites import Site
from hpcml.sites.facts import OPTION

PLACING = ("partition", "qos", "constraint", "gres", "reservation")
FREE = (
    *("acctg-freq", "begin", "comment", "contiguous", "core-spec", "cores-per-socket", "cpu-freq"),
    *("deadline", "delay-boot", "distribution", "exclude", "exclusive", "gres-flags", "hint"),
    *("hold", "licenses", "mail-type", "mail-user", "mincpus", "network", "nice", "nodelist"),
    *("prefer", "priority", "profile", "propagate", "reboot", "sockets-per-node", "spread-job"),
    *("switches", "thread-spec", "threads-per-core", "tmp", "use-min-nodes", "wckey"),
)
"""What hpcml does not rely on."""

_DEVICES = "Say it by resources.devices; the profile knows how devices are asked for."
_MEMORY = "Say it by resources.memory."
_TASKS = "Say it by resources.tasks."
_FILES = "A run's output and folder are where hpcml looks for them."
_STARTS = "hpcml says by it which runs start, once, and when."
_CALLS = "hpcml reads sbatch's answer, and finds its jobs by their names and clusters."
_ENVIRONMENT = "Say variables by the job's env."
OURS: Mapping[str, str] = {
    "time": "Say it by resources.time.",
    "time-min": "Say it by resources.time.",
    "nodes": "Say it by resources.nodes.",
    "cpus-per-task": "Say it by resources.cpus.",
    "account": "Write sites.NAME.account into the settings.",
    "wrap": "Give the command as the job's entry.",
    "signal": "A Checkpoint says when notice is given.",
    **dict.fromkeys(("ntasks", "ntasks-per-node", "ntasks-per-gpu", "ntasks-per-socket"), _TASKS),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), _MEMORY),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"), _DEVICES),
    **dict.fromkeys(("chdir", "output", "error", "input", "open-mode"), _FILES),
    **dict.fromkeys(("array", "dependency", "kill-on-invalid-dep"), _STARTS),
    **dict.fromkeys(("requeue", "no-requeue", "no-kill"), _STARTS),
    **dict.fromkeys(("parsable", "job-name", "clusters", "cluster", "test-only", "wait"), _CALLS),
    **dict.fromkeys(("export", "export-file", "get-user-env"), _ENVIRONMENT),
}
"""What hpcml says itself, and how a job says what it wants by it."""


def check_options(resolved: Resolved, site: Site) -> None:
    """Refuse what hpcml relies on, and what nobody knows.

    Raises
    ------
    PlanError
        With what to say in its place.
    """
    known = ["partition"]
    if site.scheduler != "process":
        of_site = [name for part in site.partitions.values() for name in part.options]
        of_site += [name for meter in site.energy for name in meter.options]
        known = [*PLACING, *FREE, *of_site]
    for option, value in resolved.resources.options.items():
        field = f"resources.options.{option}"
        if option not in known:
            if option in OURS and site.scheduler != "process":
                problem = f"hpcml relies on what it says by --{option} itself"
                raise PlanError(field, problem, OURS[option])
            raise PlanError("resources.options", f"unknown {option!r}", nearest(option, known))
        if value is True and option in PLACING:
            raise PlanError(field, "it takes a value", f'Write {{"{option}": "..."}}.')
        if value is not True and not re.fullmatch(OPTION, str(value)):
            problem = f"{value!r} cannot stand in a batch script"
            raise PlanError(field, problem, "Give one word, without spaces and quotes.")
