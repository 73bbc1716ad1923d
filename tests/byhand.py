"""Batches whose attempts a test writes itself: no process runs, and nothing is waited for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hpcml
from hpcml.agent import wire
from hpcml.batch import new_batch
from hpcml.connection import connect
from hpcml.layout import Layout


class ByHand:
    """A batch on the embedded site, and what an agent would write."""

    def __init__(
        self,
        points: Sequence[Mapping[str, Any]] = ({},),
        *,
        entry: Mapping[str, Any] | None = None,
        python: str | None = None,
        layout: Layout | None = None,
        **fields: Any,
    ) -> None:
        plan = hpcml.plan(hpcml.Job(["true"], code=None, **fields))
        what = {**plan.what, "entry": entry or plan.what["entry"]}
        where = {**plan.where, "python": python or plan.where["python"]}
        plan = dataclasses.replace(plan, what=what, where=where)
        self.batch = new_batch(plan, [{"params": dict(point)} for point in points], layout=layout)
        self.connection = connect("local")
        files = self.batch.files()
        self.connection.files.publish(self.batch.folder, files, empty=["attempts"])
        self.folder = Path(self.connection.binding.workspace) / self.batch.folder
        self.attempts = wire.Attempts(str(self.folder))
        ids = [wire.run_id(self.batch.id, index) for index in range(len(points))]
        self.runs = hpcml.Runs([hpcml.Run(id, "local") for id in ids])

    def queue(self) -> None:
        """Put it into the queue, which nobody serves."""
        (identifier,) = self.connection.queue.submit(self.batch.chunks)
        (self.folder / "attempts" / wire.queued_name("0", identifier, 0.0)).touch()

    def leave_the_queue(self) -> None:
        """As a dispatcher does when all have ended."""
        for path in (self.folder.parents[1] / "queue").glob(f"*{self.batch.id}*.job"):
            path.unlink()

    def start(self, index: int = 0, attempt: int = 1) -> None:
        """This process takes an attempt."""
        assert self.attempts.start(index, attempt)

    def end(self, index: int = 0, exit_code: int = 0, attempt: int = 1, **more: Any) -> None:
        """An attempt ends; it is started first if nobody has done so."""
        self.attempts.start(index, attempt)
        facts = {"signal": None, "received": [], "cause": None, "reason": None, "outputs": {}}
        assert self.attempts.end(index, attempt, exit_code=exit_code, **{**facts, **more})

    def file(self, name: str, index: int = 0) -> Path:
        """A file in a run's folder."""
        folder = self.folder / str(index)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / name
