"""The batch script: directives and one line.

It runs in the batch's folder, so everything it names is relative to that or absolute.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hpcml.layout import Layout
from hpcml.planning.directives import directives

DIRECTIVE = {"process": "#HPCML", "slurm": "#SBATCH"}


def render_script(what: Mapping[str, Any], where: Mapping[str, Any], layout: Layout) -> str:
    """``job.sh`` of a batch."""
    prefix = DIRECTIVE[what["scheduler"]]
    agent = [where["agent_python"], "-I", "-S", f"../../lib/{where['library']}", "run"]
    return "\n".join(
        [
            "#!/bin/sh",
            *(f"{prefix} {directive}" for directive in directives(what, layout)),
            f'exec {shlex.join(agent)} "$@"',
            "",
        ]
    )
