"""What every scheduler must do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.batch import batch_of
from hpcml.connection import connect
from hpcml.poller import poller
from hpcml.run import Run
from hpcml.schedulers import Chunk, Scheduler, Word
from hpcml.states import State

PATIENCE = 90.0  # seconds; a queue may take its time


class SchedulerSuite:
    """The contract of :class:`hpcml.schedulers.Scheduler`.

    Subclasses override the fixture :meth:`site`; jobs of it see the folder :meth:`shared`, which
    they may call :meth:`there`. What is submitted takes a CPU, and two of them must have room at
    once.
    """

    @pytest.fixture
    def site(self) -> str:
        """Name of a site profile with this scheduler, and a workspace of its own."""
        raise NotImplementedError

    @pytest.fixture
    def shared(self, tmp_path: Path) -> Path:
        """A folder that jobs see as well."""
        return tmp_path

    @pytest.fixture
    def there(self, shared: Path) -> str:
        """What jobs call that folder."""
        return str(shared)

    @pytest.fixture
    def queue(self, site: str) -> Scheduler:
        """The site's."""
        return connect(site).queue

    @pytest.fixture
    def ledger(self, shared: Path) -> Path:
        """A file in which jobs write down that they ran."""
        return shared / "ledger"

    @pytest.fixture
    def gate(self, shared: Path) -> Path:
        """A file that jobs wait for."""
        return shared / "gate"

    @pytest.fixture
    def job(self, there: str, ledger: Path, gate: Path) -> hpcml.Job:
        """It writes a line into the ledger, and ends when its gate is open."""
        command = 'echo began >> "$LEDGER"; while [ ! -e "$GATE" ]; do sleep 0.1; done'
        env = {"LEDGER": f"{there}/{ledger.name}", "GATE": f"{there}/{gate.name}"}
        resources = hpcml.Resources(time="5m")
        return hpcml.Job(["/bin/sh", "-c", command], code=None, env=env, resources=resources)

    # --- queueing -------------------------------------------------------------------------

    def test_what_was_queued_is_found_by_its_name_and_nothing_else(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path
    ) -> None:
        run = hpcml.submit(job, site)
        chunk = chunk_of(run)

        assert queue.find([chunk.name, "20000101-000000-aaaaaa.0"]) == {chunk.name: chunk.id}
        finish(gate, run)

    def test_a_chunk_that_the_queue_has_twice_runs_once(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path, ledger: Path
    ) -> None:
        run = hpcml.submit(job, site)
        (again,) = queue.submit([chunk_of(run)])
        assert again != chunk_of(run).id
        eventually(ledger.exists)
        finish(gate, run)

        assert run.state is State.COMPLETED
        assert ledger.read_text() == "began\n"

    def test_runs_after_a_failure_are_cancelled(self, site: str, job: hpcml.Job) -> None:
        first = hpcml.submit(hpcml.Job(["/bin/sh", "-c", "exit 1"], code=None), site)
        second = hpcml.submit(job, site, after=first)

        assert second.wait(PATIENCE).state is State.CANCELLED
        assert second.reason.startswith(f"it was to run after {first.id}")

    # --- looking --------------------------------------------------------------------------

    def test_a_run_that_goes_on_is_live_and_one_that_ended_is_not(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path
    ) -> None:
        run = hpcml.submit(job, site)
        chunk = chunk_of(run)
        eventually(lambda: chunk.first in queue.poll([chunk])[chunk.name].live)
        assert queue.poll([chunk])[chunk.name].live[chunk.first].state is State.RUNNING
        finish(gate, run)

        def has_left() -> bool:
            status = queue.poll([chunk])[chunk.name]
            return not status.live and status.rest is None

        eventually(has_left)

    def test_one_poll_tells_of_several_chunks(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path
    ) -> None:
        runs = [hpcml.submit(job, site) for _ in range(2)]
        chunks = [chunk_of(run) for run in runs]

        assert queue.poll(chunks).keys() == {chunk.name for chunk in chunks}
        finish(gate, *runs)

    def test_what_the_queue_has_never_heard_of_has_no_status(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path
    ) -> None:
        run = hpcml.submit(job, site)
        chunk = chunk_of(run)
        status = queue.poll([Chunk(chunk.name, chunk.folder, 0, 1, chunk.layout)])[chunk.name]
        assert (status.live, status.rest) == ({}, None)
        finish(gate, run)

    # --- words ----------------------------------------------------------------------------

    def test_of_final_words_the_first_one_stands(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path
    ) -> None:
        run = hpcml.submit(job, site)
        chunk = chunk_of(run)
        first, second = Word(State.NODE_FAIL, "first"), Word(State.TIMEOUT, "second")

        assert queue.record(chunk, 0, 9, first) == first
        assert queue.record(chunk, 0, 9, second) == first
        assert queue.poll([chunk])[chunk.name].final[0, 9] == first
        finish(gate, run)

    def test_of_a_run_that_goes_on_no_final_word_is_said(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path, ledger: Path
    ) -> None:
        run = hpcml.submit(job, site)
        eventually(ledger.exists)

        assert queue.account(chunk_of(run), [(0, 1)]) == {}
        finish(gate, run)

    # --- accounting -----------------------------------------------------------------------

    def test_an_accounting_has_a_run_that_ended_and_all_of_a_chunk_by_one_query(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path
    ) -> None:
        """Where the queue keeps one; what it does not know (yet) it leaves out."""
        runs = hpcml.submit(job.sweep(points=[{}, {}]), site)
        finish(gate, *runs)
        chunk = chunk_of(runs[0])
        unknown = Chunk("20000101-000000-aaaaaa.0", chunk.folder, 0, 1, chunk.layout)
        if queue.facts([chunk]) is None:
            assert queue.facts([chunk, unknown]) is None
            return

        def ended() -> bool:
            lives = (queue.facts([chunk, unknown]) or {}).get(chunk.name, {})
            return len(lives) == 2 and all(it[-1].ended for it in lives.values())

        eventually(ended)
        facts = queue.facts([chunk, unknown])
        assert facts is not None and facts.keys() == {chunk.name}
        for (life,) in facts[chunk.name].values():
            assert (life.meaning, life.exit_code, life.signal) == (str(State.COMPLETED), 0, 0)
            assert (life.submitted or 0) <= (life.started or 0) <= (life.ended or 0)
            assert life.runs >= 1 and life.joules != 0

    # --- cancelling -----------------------------------------------------------------------

    def test_a_run_is_cancelled_while_it_runs(
        self, site: str, queue: Scheduler, job: hpcml.Job, ledger: Path
    ) -> None:
        run = hpcml.submit(job, site)
        eventually(ledger.exists)
        queue.cancel([chunk_of(run)], [0])

        assert run.wait(PATIENCE).state is State.CANCELLED
        queue.cancel([chunk_of(run)], [0])  # it has ended: nothing is left to do

    def test_a_run_that_waits_is_cancelled_and_never_runs(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path, ledger: Path
    ) -> None:
        first = hpcml.submit(job, site)
        second = hpcml.submit(job, site, after=first)
        queue.cancel([chunk_of(second)], [0])

        assert second.wait(PATIENCE).state is State.CANCELLED
        finish(gate, first)
        assert ledger.read_text() == "began\n"

    def test_one_run_of_several_is_cancelled_alone(
        self, site: str, queue: Scheduler, job: hpcml.Job, gate: Path, ledger: Path
    ) -> None:
        runs = hpcml.submit(job.sweep(points=[{}, {}]), site)
        eventually(lambda: ledger.exists() and ledger.read_text() == "began\n" * 2)
        queue.cancel([chunk_of(runs[0])], [0])

        assert runs[0].wait(PATIENCE).state is State.CANCELLED
        finish(gate, runs[1])
        assert runs[1].state is State.COMPLETED


def chunk_of(run: Run) -> Chunk:
    """The chunk of a run, as the queue knows it."""
    view = poller(run.site).view(batch_of(run.id))
    view.read_files()
    return view.part_of(wire.run_parts(run.id)[1]).chunk


def finish(gate: Path, *runs: Run) -> None:
    """Let runs end, and wait for that."""
    gate.touch()
    for run in runs:
        run.wait(PATIENCE)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)
