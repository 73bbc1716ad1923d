"""Batches as a submission leaves them on the site, executed by the agent alone."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcml.agent import wire
from hpcml.batch import new_batch
from hpcml.connection import connect
from hpcml.job import Job
from hpcml.planning import make_plan
from hpcml.resolving import resolve_with_code
from hpcml.transports.library import put_library
from tests.conftest import eventually

NOBODY = 65534


def publish(
    job: Job,
    *,
    runs: int = 1,
    python: str | None = None,
    scheduler: str = "process",
    **limits: Any,
) -> Path:
    """Put a batch of equal runs into the workspace. Returns its folder.

    ``limits`` are those of the plan, in s and bytes, finer than a job can ask for them.
    """
    connection = connect("local")
    resolved, snapshot = resolve_with_code(job)
    plan = make_plan(resolved, connection.site, connection.binding)
    what = {**plan.what, "limits": {**plan.what["limits"], **limits}, "scheduler": scheduler}
    where = {**plan.where, **({"python": python, "agent_python": python} if python else {})}
    batch = new_batch(dataclasses.replace(plan, what=what, where=where), [{}] * runs)
    put_library(connection.files)
    if snapshot is not None:
        connection.files.put({f"code/{snapshot.digest}.tar": snapshot.archive()})
    connection.files.publish(batch.folder, batch.files(), empty=["attempts"])
    return Path(connection.binding.workspace, batch.folder)


def agent(folder: Path, index: int = 0, python: str = sys.executable) -> list[str]:
    """The command of ``job.sh``."""
    (library,) = (folder.parents[1] / "lib").glob("hpcml-*.pyz")
    return [python, "-I", "-S", f"../../lib/{library.name}", "run", str(index)]


@dataclasses.dataclass
class Attempt:
    """What a run left behind."""

    batch: Path
    code: int
    said: str = ""
    index: int = 0

    @property
    def folder(self) -> Path:
        return self.batch / str(self.index)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @functools.cached_property
    def end(self) -> dict[str, Any]:
        end = wire.Attempts(str(self.batch)).read(self.index, 1, "end")
        assert isinstance(end, dict), f"there is no end; the agent said: {self.said}"
        return end

    @property
    def state(self) -> str:
        """As judged once the scheduler has nothing to add."""
        judged = wire.how_it_ended(self.end, None, 1e9)
        assert judged is not None
        return judged[0]

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(wire.parse_lines((self.folder / "events.jsonl").read_bytes()))

    def event(self, kind: str) -> dict[str, Any]:
        return next(event for event in self.events if event["e"] == kind)


class Agent:
    """An agent at work on a run."""

    def __init__(self, folder: Path, index: int = 0, **options: Any) -> None:
        python = options.pop("python", sys.executable)
        self.batch, self.index = folder, index
        self.process = subprocess.Popen(
            agent(folder, index, python),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    @property
    def printed(self) -> str:
        path = self.batch / str(self.index) / "stdout"
        return path.read_text() if path.exists() else ""

    def await_line(self, line: str) -> None:
        """Wait until the command has printed a line."""
        eventually(lambda: f"{line}\n" in self.printed or self.process.poll() is not None)
        assert f"{line}\n" in self.printed

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> Attempt:
        said, _ = self.process.communicate(timeout=60)
        return Attempt(self.batch, self.process.returncode, said, self.index)


def run(job: Job, **limits: Any) -> Attempt:
    """Publish a job and execute it here and now."""
    return Agent(publish(job, **limits)).wait()


def command(*argv: str, **fields: Any) -> Job:
    """A job that runs a command and takes no code along."""
    return Job(list(argv), code=None, **fields)


def python(code: str, **fields: Any) -> Job:
    """A job that runs a line of Python."""
    return command(sys.executable, "-c", code, **fields)


def gone(pids: Sequence[int]) -> bool:
    return all(wire.started_at(pid) is None for pid in pids)


# --- ordinary users ----------------------------------------------------------------------------


@functools.cache
def python_of_everybody() -> str:
    """A Python that an ordinary user may execute (root's own may lie in root's home)."""
    candidates = [sys.executable]
    for folder in os.get_exec_path():
        candidates += [str(path) for path in sorted(Path(folder).glob("python3*"))]
    for candidate in candidates:
        try:
            done = subprocess.run(
                [candidate, "-I", "-S", "-c", "import json"],
                cwd="/",
                capture_output=True,
                check=False,
                **dropped(),
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    raise AssertionError("no Python here can be executed by an ordinary user")


def dropped() -> dict[str, Any]:
    """Options of Popen that make root an ordinary user."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def as_ordinary_user(folder: Path) -> Iterator[Path]:
    """A copy of a batch's whole workspace that belongs to an ordinary user. Gives its folder."""
    workspace = folder.parents[1]
    home = Path(tempfile.mkdtemp(prefix="hpcml-home-"))
    try:
        copy = home / "workspace"
        shutil.copytree(workspace, copy)
        if os.geteuid() == 0:
            for path in [home, *home.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        yield copy / folder.relative_to(workspace)
    finally:
        for path in home.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # snapshots are read-only
        shutil.rmtree(home)
