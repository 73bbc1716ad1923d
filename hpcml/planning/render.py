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

# A line is named before it runs: it may exit, be no bash, or become another program by `exec`.
ENVIRONMENT = """\
hpcml_told=$1 hpcml_library=$2 hpcml_folder=$PWD
shift 2
{lines}
: >| "$hpcml_told"
{own}
export PYTHONPATH="$hpcml_library${{PYTHONPATH:+:$PYTHONPATH}}"
cd "$hpcml_folder" || exit
exec "$@"
"""

# Old Environment Modules say on stderr that there is no such module, and return 0. What is around
# may have said `set -u`.
MODULE = "module load "
LOAD = """\
hpcml_load() {
    hpcml_before=${LOADEDMODULES:-}
    eval "$hpcml_line" 2>| "$hpcml_told.said" || hpcml_failed=$?
    hpcml_said=$(< "$hpcml_told.said")
    rm -f "$hpcml_told.said"
    [ -z "$hpcml_said" ] || printf '%s\\n' "$hpcml_said" >&2
    [ "${LOADEDMODULES:-}" != "$hpcml_before" ] || case $hpcml_said in
        *ERROR*|*"Unable to locate"*) : "${hpcml_failed:=1}" ;;
    esac
    return "${hpcml_failed:-0}"
}
"""


def render_script(what: Mapping[str, Any], where: Mapping[str, Any], layout: Layout) -> str:
    """``job.sh`` of a batch."""
    prefix = DIRECTIVE[what["scheduler"]]
    asked = directives(what, layout)
    if where.get("account") is not None and what["scheduler"] != "process":
        asked.insert(0, f"--account={where['account']}")
    agent = [where["agent_python"], "-I", "-S", f"../../lib/{where['library']}", "run"]
    return "\n".join(
        [
            "#!/bin/sh",
            *(f"{prefix} {directive}" for directive in asked),
            f'exec {shlex.join(agent)} "$@"',
            "",
        ]
    )


def render_prelude(what: Mapping[str, Any]) -> str | None:
    """``env.sh`` of a batch, around each of its commands; ``None``: there is nothing in it.

    Its arguments are a file that names the line that it is at, and is empty once all are done,
    hpcml's library, and the command that it becomes.
    """
    if not what["prelude"]:
        return None
    lines = [
        f"hpcml_line={shlex.quote(it)}; "
        'printf %s "$hpcml_line" >| "$hpcml_told"; '
        + ("hpcml_load" if it.startswith(MODULE) else 'eval "$hpcml_line"')
        + " || exit"
        for it in what["prelude"]
    ]
    if any(it.startswith(MODULE) for it in what["prelude"]):
        lines.insert(0, LOAD.rstrip())
    # What the job says itself comes last.
    own = [f"export {name}={shlex.quote(value)}" for name, value in what["env"].items()]
    return ENVIRONMENT.format(lines="\n".join(lines), own="\n".join(own))
