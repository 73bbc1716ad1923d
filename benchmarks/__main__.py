"""``python -m benchmarks [PART ...]``: prints one table.

It exits with 1 if a limit is not kept, or if something is left out because it is not there.

Parts are ``start``, ``marks``, ``submit``, ``sweeps``, ``records``, ``slurm`` and ``box``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import box, marks, records, sites, slurm, sweeps
from benchmarks.measure import LeftOut, adopt_orphans, alternate, cpu_seconds, fresh_home
from hpcml.library import library

PYTHON = sys.executable
MANY = 10


@dataclass(frozen=True)
class Row:
    """One comparison; ``ours`` and ``theirs`` in the unit, ``limit`` on their ratio."""

    what: str
    unit: str
    ours: float
    peer: str
    theirs: float
    limit: float | None = None

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs

    @property
    def kept(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.limit is None or self.ratio <= self.limit


def main(wanted: Sequence[str]) -> int:
    """Run some parts, or all. Returns the exit code."""
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        print(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    adopt_orphans()
    title = "Medians; CPU time where a row does not say wall"
    table = Table("what", "hpcml", "peer", "ratio", "limit", title=title)
    rows, left_out = [], []
    for row in chain.from_iterable(PARTS[name]() for name in wanted or PARTS):
        if isinstance(row, LeftOut):
            left_out.append(row)
            continue
        rows.append(row)
        table.add_row(
            row.what,
            f"{row.ours:.4g} {row.unit}",
            f"{row.peer}: {row.theirs:.4g} {row.unit}",
            f"{row.ratio:.2f}",
            ("" if row.limit is None else f"≤ {row.limit:g}") + ("" if row.kept else "  NOT KEPT"),
        )
    Console(width=140).print(table)
    for one in left_out:
        print(f"LEFT OUT: {one.what}: {one.why}", file=sys.stderr)
    return 0 if all(row.kept for row in rows) and not left_out else 1


def start() -> Iterator[Row]:
    """What it takes until something happens."""
    yield imports()
    yield help_text()
    yield agent_start()


def submit() -> Iterator[Row]:
    """Submissions to the embedded site."""
    yield submission(1)
    yield submission(MANY)
    yield from fsyncs()


def imports() -> Row:
    """``import hpcml`` beside ``import submitit``, the bare interpreter taken off both."""
    bare, ours, theirs = alternate(
        lambda: cpu_seconds([PYTHON, "-c", "pass"]),
        lambda: cpu_seconds([PYTHON, "-c", "import hpcml"]),
        lambda: cpu_seconds([PYTHON, "-c", "import submitit"]),
    )
    return Row("import", "s", ours - bare, "submitit", theirs - bare, limit=0.5)


def help_text() -> Row:
    """``hpcml --help`` beside a click program that does nothing."""
    bare = """
        import click

        @click.group()
        def cli(): "Nothing."

        @cli.command()
        def one(): "Nothing."

        cli(["--help"])
    """
    ours, theirs = alternate(
        lambda: cpu_seconds([PYTHON, "-c", "from hpcml.cli import main; main()", "--help"]),
        lambda: cpu_seconds([PYTHON, "-c", textwrap.dedent(bare)]),
    )
    return Row("hpcml --help", "s", ours, "bare click", theirs, limit=1.5)


def agent_start() -> Row:
    """The agent, up to the point where it finds its run taken, beside two common modules."""
    with tempfile.TemporaryDirectory() as folder:
        argv = _taken_batch(Path(folder))
        ours, theirs = alternate(
            lambda: cpu_seconds(argv),
            lambda: cpu_seconds([PYTHON, "-I", "-S", "-c", "import json, subprocess"]),
            rounds=21,
        )
    return Row("agent start", "s", ours, "json, subprocess", theirs, limit=1.5)


def submission(count: int) -> Row:
    """Client, dispatcher and agents from the first import to the last end, jobs excluded."""
    ours, theirs = alternate(
        lambda: _submission(HPCML, count), lambda: _submission(SUBMITIT, count), rounds=5
    )
    what = "submit, run, collect 1" if count == 1 else f"submit, run, collect {count}"
    return Row(what, "s", ours, "submitit local", theirs, limit=1.0)


def fsyncs() -> Iterator[Row]:
    """fsync calls of one submission, counted by strace where there is one."""
    if shutil.which("strace") is None:
        print("fsync calls are not counted: strace is not installed", file=sys.stderr)
        return
    ours, theirs = (float(_count_fsyncs(text)) for text in (HPCML, SUBMITIT))
    yield Row("fsync calls a submission", "calls", ours, "submitit local (+1)", theirs + 1)


HPCML = """
    import sys, hpcml
    jobs = [hpcml.Job(["/bin/true"], code=None) for _ in range(int(sys.argv[1]))]
    runs = hpcml.submit(jobs).wait(60)
    assert all(run.state == "COMPLETED" for run in runs), runs.states
    print(sum(run.usage["cpu_user"] + run.usage["cpu_system"] for run in runs))
"""
SUBMITIT = """
    import sys, tempfile, submitit
    executor = submitit.AutoExecutor(folder=tempfile.mkdtemp(), cluster="local")
    jobs = [executor.submit(abs, -1) for _ in range(int(sys.argv[1]))]
    assert [job.result() for job in jobs] == [1] * len(jobs)
"""


def _submission(text: str, count: int) -> float:
    return cpu_seconds([PYTHON, "-c", textwrap.dedent(text), str(count)], fresh_home())


def _count_fsyncs(text: str) -> int:
    argv = [PYTHON, "-c", textwrap.dedent(text), "1"]
    with tempfile.NamedTemporaryFile() as log:
        trace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs", "-o", log.name]
        subprocess.run([*trace, *argv], env=fresh_home(), check=True, capture_output=True)
        lines = log.read().decode().splitlines()
    return sum("sync(" in line or "syncfs(" in line for line in lines)


def _taken_batch(folder: Path) -> list[str]:
    """The command of an agent that finds its run taken: it starts, looks, and ends."""
    environment = fresh_home()
    code = """
        import os, hpcml
        run = hpcml.submit(hpcml.Job(["/bin/true"], code=None)).wait(60)
        print(run.plan.where["workspace"], run.id.rpartition(".")[0])
    """
    done = subprocess.run(
        [PYTHON, "-c", textwrap.dedent(code)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    workspace, batch = done.stdout.split()
    run = f"cd {workspace}/runs/{batch} && exec {PYTHON} -I -S ../../lib/{library().name} run 0"
    script = folder / "agent.sh"
    script.write_text(run)
    return ["/bin/sh", str(script)]


PARTS: dict[str, Callable[[], Iterator[Row | LeftOut]]] = {
    "start": start,
    "marks": lambda: marks.measure(Row),
    "submit": submit,
    "sweeps": lambda: sweeps.measure(Row),
    "records": lambda: records.measure(Row),
    "sites": lambda: sites.measure(Row),
    "slurm": lambda: slurm.measure(Row),
    "box": lambda: box.measure(Row),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
