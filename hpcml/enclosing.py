"""The run that this process is part of, when hpcml is used within a job."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpcml.agent import wire
from hpcml.errors import HpcmlError


@dataclass(frozen=True)
class EnclosingRun:
    """What the jobs that it submits take over from it.

    Attributes
    ----------
    workspace : str
        Absolute path of the folder that the run lies in.
    python, agent_python : str
        As in :class:`hpcml.settings.Binding`.
    depth : int
        How many runs have submitted each other until this one.
    """

    id: str
    site: str
    workspace: str
    python: str
    agent_python: str
    depth: int = 0


def enclosing_run() -> EnclosingRun | None:
    """The run whose process this is; ``None`` outside a job.

    Raises
    ------
    HpcmlError
        Its files cannot be read.
    """
    batch = os.environ.get("HPCML_BATCH")
    return _read(batch, int(os.environ["HPCML_INDEX"])) if batch else None


@cache
def _read(batch: str, index: int) -> EnclosingRun:
    try:
        plan = json.loads(Path(batch, "plan.json").read_bytes())
        where = plan["where"]
        return EnclosingRun(
            wire.run_id(batch, index),
            where["site"],
            _workspace(batch, where["workspace"]),
            where["python"],
            where["agent_python"],
            plan["batch"].get("depth", 0),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HpcmlError(
            f"the run in {batch}, which this process is part of, cannot be read: {error!r}",
            "Outside a job, unset HPCML_BATCH.",
        ) from error


def _workspace(batch: str, planned: str) -> str:
    """The folder above ``runs/``, under the name that the plan has for it (links and all)."""
    found = wire.workspace_of(batch)
    return planned if os.path.realpath(planned) == os.path.realpath(found) else found
