"""A Slurm that only says it is one: each call costs 2 ms, is counted, and nothing ever runs.

It is for counting and measuring what its callers do. What Slurm means only a real one can show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun")

PROGRAM = """\
#!/bin/sh
state=${0%/*}/../state
command=${0##*/}
sleep 0.002
echo "$command $*" >>"$state/calls"
case $command in
sbatch)
    read -r id <"$state/id"
    id=$((id + 1))
    echo "$id" >"$state/id"
    case " $* " in
    *" --parsable "*) echo "$id" ;;
    *) echo "Submitted batch job $id" ;;
    esac ;;
squeue)
    cat "$state/queue" ;;
esac
"""

PROFILE = """\
name: fake
scheduler: slurm
transport: local
workspace: {workspace}
max_array: {max_array}
partitions:
  cpu: {{nodes: 1000, time: 1d, node: {{cpus: 8, memory: 16 GiB}}}}
"""


class FakeSlurm:
    """Commands to have on PATH, and what they know.

    Parameters
    ----------
    folder : Path
        Where it is made; or, if it is there already, found.

    Attributes
    ----------
    bin : Path
        Folder with the commands.
    log : Path
        The command lines of all calls.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.log = folder / "bin", folder / "state" / "calls"
        if not folder.exists():
            self._make()

    def _make(self) -> None:
        for folder in (self.bin, self.log.parent):
            folder.mkdir(parents=True)
        program = self.bin.parent / "program"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        for command in COMMANDS:
            (self.bin / command).symlink_to(program)
        (self.log.parent / "id").write_text("0\n")
        self.log.touch()
        self.shows([])

    def shows(self, rows: Iterable[str]) -> None:
        """What squeue answers from now on, as hpcml asks it: ``5_[2-9]|PENDING|Priority``.

        The job's name is added: the one that sbatch was told.
        """
        names = re.findall("^sbatch .*--job-name=([^ ]+)", self.log.read_text(), re.MULTILINE)
        new = self.log.with_name("queue.new")
        with new.open("w") as file:
            for row in rows:
                job = int(row.split("|")[0].split("_")[0])
                file.write(f"{row}|{names[job - 1]}\n")
        new.rename(new.with_name("queue"))

    def called(self) -> list[str]:
        """The names of the commands that were called, in this order."""
        return [line.split(" ", 1)[0] for line in self.log.read_text().splitlines()]


def fake_site(config: Path, workspace: Path, *, max_array: int = 1001) -> str:
    """Write the profile of a site with such a Slurm into a configuration folder. Gives its name."""
    sites = config / "hpcml" / "sites"
    sites.mkdir(parents=True)
    (sites / "fake.yaml").write_text(PROFILE.format(workspace=workspace, max_array=max_array))
    return "fake"
