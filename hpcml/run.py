"""Handles: what became of a run, from any Python, on any machine that reaches the site."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from numbers import Real
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, TextIO, TypeVar, overload

from hpcml.accounts import accounts
from hpcml.agent import wire
from hpcml.batch import (
    batch_folder,
    claim,
    load_outbox,
    refuse_if_submitting,
    refuse_of_another,
)
from hpcml.batch_view import Attempt, BatchView, Seen, files_gone, is_gone, look
from hpcml.connection import Connection, connect
from hpcml.energy import Energy, Readings, measure, or_accounted
from hpcml.errors import (
    ArgumentError,
    HpcmlError,
    QueueError,
    ResultError,
    RunNotFoundError,
    RunStateError,
    UnknownNameError,
    UnreachableError,
    nearest,
)
from hpcml.output import Origin, OutputPath
from hpcml.planning import Plan, run_digest
from hpcml.poller import Watch, follow, in_time, patiently, poller, poller_of
from hpcml.progress import show
from hpcml.results import (
    EXCEPTION,
    RESULT,
    Failure,
    RunFuture,
    check_python,
    load_exception,
    load_result,
    tail,
)
from hpcml.staging import Left, fetch
from hpcml.states import State
from hpcml.timeline import Point, Story, Timeline, tell
from hpcml.transports import FileStatus

T = TypeVar("T")

_ID = re.compile(r"(\d{8}-\d{6}-[a-z0-9]{6})(?:\.(\d{1,9}))?")
_COPY = re.compile(r"(\d{8}-\d{6}-[a-z0-9]{6}\.\d+)\.(stdout|stderr|events\.jsonl)")
STDERR_TAIL = 8192  # bytes of stderr that an error quotes lines of: it may have a gigabyte
STREAMS = ("stdout", "stderr", "events.jsonl")
FIRST_FEW = 5  # rows of many runs that are shown


class Run:
    """One run of a job. Asking it looks at the site; what is final is asked once.

    Parameters
    ----------
    id : str
        ``20261121-141502-k3f9a2.00042``.
    site : str
        Name of its site.
    """

    def __init__(self, id: str, site: str) -> None:
        self._batch, index = parts_of(id)
        if index is None:
            raise no_id(id)
        self.index = index
        self.id, self.site = id, site
        self._told: Story | None = None

    # --- what it is -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Its state now; UNKNOWN if that cannot be seen."""
        return self._seen().state

    @property
    def reason(self) -> str:
        """Why it is in that state; empty if there is nothing to say."""
        return self._seen().reason

    @property
    def last_seen(self) -> Seen | None:
        """What the last look showed, without looking again; ``None`` before the first."""
        return self._view().seen.get(self.index)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Its attempts, as their own files tell them."""
        self._seen()
        return self._view().attempts(self.index)

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; ``None`` before its end, and if a signal ended it."""
        end = self._end()
        return end["exit_code"] if end else None

    @property
    def plan(self) -> Plan:
        """The plan it was made from."""
        return self._view().plan

    @property
    def name(self) -> str:
        """The job's name, and the parameters of the run's own point: ``train seed=0 width=32``."""
        self._point()
        return self._view().name(self.index)

    @property
    def digest(self) -> str | None:
        """Digest of the plan and of this run's point: equal for the same run, wherever."""
        return run_digest(self.plan, self._point())

    @property
    def params(self) -> dict[str, Any]:
        """The job's parameters, and those of the run's own point."""
        return {**self.plan.what["params"], **self._point().get("params", {})}

    @property
    def parent(self) -> str | None:
        """Id of the run whose job submitted it, if one did."""
        return self._view().submission.parent

    @property
    def resubmits(self) -> str | None:
        """Id of the run that it repeats, if it was made by :func:`hpcml.resubmit`."""
        repeated = self._view().submission.resubmits
        return repeated[self.index] if repeated else None

    @property
    def usage(self) -> dict[str, Any]:
        """CPU time in s, memory and input/output in bytes, as counted at the end; else empty."""
        end = self._end()
        return dict(end.get("usage") or {}) if end else {}

    # --- what it told ---------------------------------------------------------------------

    @property
    def timeline(self) -> Timeline:
        """Time in the queue and by phase, so far."""
        return self._tell().timeline

    @property
    def metrics(self) -> dict[str, Any]:
        """The last value of each metric that the job logged.

        A warning says so if events could not be written: later values may be missing.
        """
        return {name: points[-1].value for name, points in self._history().items()}

    def history(self, name: str) -> tuple[Point, ...]:
        """All values of a metric.

        Raises
        ------
        UnknownNameError
            The job has logged no such metric (yet). It is a KeyError, too.
        """
        known = self._history()
        if name not in known:
            raise UnknownNameError(f"{self.id} has logged no {name!r}", nearest(name, known))
        return known[name]

    def _history(self) -> Mapping[str, tuple[Point, ...]]:
        story = self._tell()
        if story.timeline.note:
            note = f"{self.id}: {story.timeline.note}: its metrics are not whole"
            warnings.warn(note, stacklevel=3)
        return story.history

    @property
    def described(self) -> dict[str, Any]:
        """What the job told with ``hpcml.describe``."""
        return dict(self._tell().described)

    @property
    def host(self) -> dict[str, Any]:
        """The machine it ran on: CPU, cores, memory (bytes), system, accelerators."""
        return dict(self._tell().host)

    @property
    def energy(self) -> Energy:
        """What its machine used while it ran, so far: joules, scope, coverage, or why not.

        By hpcml's own meter; of a run that has ended, and of which that has no figure, by the
        queue's accounting of its allocation.
        """
        final = self._seen().state.final  # before its files are read: they say how it ended
        story, files = self._tell(), self._connection().files
        path = self._path("events.jsonl")
        lines = wire.parse_lines(files.get({path: 0}).get(path, b""))
        readings = Readings.beside(batch_folder(self._batch), files)
        measured = measure(lines, story.timeline, readings, final=final)
        if not final or measured.joules is not None:
            return measured
        try:
            account = accounts({self._view(): [self.index]})[self._view()][self.index]
        except QueueError as error:
            return replace(measured, why=f"{measured.why}; {error.problem}")
        return or_accounted(measured, account.lives)

    # --- waiting and files ----------------------------------------------------------------

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> Run:
        """Wait until it has ended, however it ended.

        Parameters
        ----------
        timeout : float, optional
            Give up after that many seconds; ``run.state.final`` tells. A site that does not answer
            is given 10 s at least.
        progress : bool, optional
            Show a live line: below the cell of a notebook, else on stderr. Default: only in a
            notebook.

        Raises
        ------
        ArgumentError
            The timeout is no number.
        RunStateError
            Its submission was broken off, so that it would wait for ever.
        UnreachableError
            Time is over, and nobody could look at it.
        """
        _check_timeout(timeout)
        if not self._is_over():
            Runs([self]).wait(timeout, progress=progress)
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended, and return what its function returned.

        Loading it runs code of the job's, as loading any pickle does; :meth:`wait` never does.

        Parameters
        ----------
        timeout : float, optional
            Give up after that many seconds.

        Returns
        -------
        object
            ``None`` if its entry is no function.

        Raises
        ------
        Exception
            What the function raised; its traceback in the job is the ``__cause__``.
        RunFailedError
            It did not end COMPLETED, and has left no exception.
        ResultError
            The result cannot be loaded here.
        TransportError
            Somebody else could have written the result.
        TimeoutError
            It has not ended in time.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        entry, where = self.plan.what["entry"], self.plan.where
        if entry["kind"] != "function":
            return None
        check_python(entry)
        name, files = f"{self.id}_{RESULT}", self._connection().files
        if name not in self._or_gone(files.names(self._path("")) or ()):
            raise ResultError(f"{self.id} has left no result", "Look at its logs.")
        same = "python" in entry or where["python"] == sys.executable
        with files.open_private(self._path(name)) as file:
            return load_result(file, same_python=same)

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait until it has ended; what :meth:`result` would raise because it ended so.

        Returns
        -------
        Exception or None
            ``None``: it is COMPLETED.
        """
        self.wait(timeout, progress=False)
        seen = self._seen() if timeout is None else in_time(self._seen, 0)
        if not seen.state.final:
            problem = f"{self.id} is {seen.state} after {timeout} s: {seen.reason}"
            raise TimeoutError(problem.rstrip(": "))
        if seen.state is State.COMPLETED:
            return None
        failure = Failure(self.id, seen.state, seen.reason)
        files = self._connection().files
        there = {e.name: e.size for e in self._or_gone(files.list(self._path("")) or ())}
        if EXCEPTION in there and self.plan.what["entry"]["kind"] == "function":
            with files.open_private(self._path(EXCEPTION)) as file:
                return load_exception(file.read(), failure)
        problem = f"{self.id} is {seen.state}: {seen.reason}".rstrip(": ")
        return failure.error(problem, self._last_words(there.get("stderr", 0)))

    def _last_words(self, size: int) -> str:
        path = self._path("stderr")
        found = self._connection().files.get({path: max(0, size - STDERR_TAIL)}) if size else {}
        printed = tail(found.get(path, b"")[-STDERR_TAIL:])
        return f"The last it printed to stderr:\n{printed}" if printed else "Its stderr is empty."

    def future(self) -> RunFuture:
        """It as a :class:`concurrent.futures.Future`, done when the run has ended.

        Its result is loaded when asked for, as by :meth:`result`. Cancelling the future is not
        possible: cancel the run.
        """
        future, seen = RunFuture(self), self.last_seen
        if seen is not None and seen.state.final:
            future.end(seen)
        else:
            poller(self.site).promise(self._batch, self.index, future)
        return future

    def __await__(self) -> Generator[Any, None, Any]:
        """``await run`` gives its result, or raises, like :meth:`result`."""
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        import asyncio  # slow to load

        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell(future: object) -> None:
            with suppress(RuntimeError):  # the loop may have been closed
                loop.call_soon_threadsafe(ended.set)

        future = await asyncio.to_thread(self.future)
        future.add_done_callback(tell)
        try:
            await ended.wait()
        finally:
            if not future.done():
                poller(self.site).forget(self._batch, self.index, future)
        return await asyncio.to_thread(future.result)

    def logs(self, *, follow: bool = False, stream: str = "both") -> str:
        """What it printed.

        Parameters
        ----------
        follow : bool
            Print it to this process's stdout and stderr, too, as it comes, until the run ends.
        stream : {"both", "stdout", "stderr"}
            Both: stdout, then stderr.
        """
        names = ("stdout", "stderr") if stream == "both" else (stream,)
        if stream not in ("both", "stdout", "stderr"):
            choices = ("both", "stdout", "stderr")
            raise ArgumentError(f"there is no stream {stream!r}", nearest(str(stream), choices))
        if follow:
            return self._follow(names)
        paths = {self._path(name): 0 for name in names}
        found = self._or_gone(self._connection().files.get(paths))
        return "".join(content.decode("utf-8", "replace") for content in found.values())

    def files(self) -> list[str]:
        """Files in its ``work/`` folder, those of the code left out."""
        left = self._or_gone(self._left())
        return sorted(name.removeprefix("work/") for name in left if name.startswith("work/"))

    def fetch(self, dest: str | Path | None = None) -> Path:
        """Copy what it left in ``work/``, and its output streams, to this machine.

        What is there already, with the size and time that it has on the site, is not sent again.

        Parameters
        ----------
        dest : path, optional
            A folder; default: one named like the run, in the current folder.

        Returns
        -------
        Path
            The folder. Each file appears in it whole, with its time on the site.

        Raises
        ------
        HpcmlError
            The folder cannot be made, or written to; or another run has been copied to it.
        TransportError
            The connection was lost, or a file cannot be copied. Those before it are there; doing it
            again goes on.
        """
        folder = Path(dest) if dest is not None else Path(self.id)
        self._refuse_others(folder)
        left = {
            name.removeprefix("work/") if name.startswith("work/") else f"{self.id}.{name}": Left(
                self._path(name), status
            )
            for name, status in self._or_gone(self._left()).items()
        }
        fetch(self._connection().files, left, folder)
        return folder

    def _refuse_others(self, folder: Path) -> None:
        """Files of two runs in one folder would be taken for each other's."""
        there = os.listdir(folder) if folder.is_dir() else []
        copies = {match[1] for name in there if (match := _COPY.fullmatch(name))} - {self.id}
        if copies:
            raise HpcmlError(
                f"{folder} holds what {min(copies)} has left",
                f"Name another folder: run.fetch({str(folder / self.id)!r}).",
            )

    def output(self, name: str) -> OutputPath:
        """Path of a declared output, on a site whose files are this machine's.

        It may be asked for before the run has ended, and given to another job as an input: that
        job then runs after this one. Opening it while the run has not left it raises
        RunStateError.

        Raises
        ------
        UnknownNameError
            The job declares no such output. It is a KeyError, too.
        """
        declared = [output["path"] for output in self.plan.what["outputs"]]
        if name not in declared:
            problem = f"{self.plan.name} declares no output {name!r}"
            advice = f"Declare it, outputs={json.dumps([name])}; run.fetch() copies what it left."
            known = f" Declared: {nearest(name, declared)}." if declared else ""
            raise UnknownNameError(problem, advice + known)
        path = Path(self.plan.where["workspace"]) / self._path(f"work/{name}")
        origin = Origin(self.id, self.site, str(self.digest), name)
        return OutputPath.of(str(path), origin, lambda: self._check_left(name))

    def _check_left(self, name: str) -> None:
        end = self._end()
        if not end or name not in end.get("outputs", {}):
            raise RunStateError(f"{self.id} has left no {name!r}: it is {self.state}", self.reason)

    # --- steering -------------------------------------------------------------------------

    def cancel(self) -> Run:
        """Cancel it. Returns when the site knows; its end follows.

        Raises
        ------
        RunStateError
            Another process is submitting it; or its submission was broken off, and it is one run
            of several.
        """
        Runs([self]).cancel()
        return self

    def resume(self) -> Run:
        """Go on with a submission that was broken off.

        Raises
        ------
        RunStateError
            There is nothing to go on with.
        """
        from hpcml.submission import resume

        resume(self._batch, self.site)
        return self

    def __repr__(self) -> str:
        return f"<Run {self.id} on {self.site}>"

    def _repr_html_(self) -> str:
        from hpcml.cards import run_card

        return run_card(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.id, self.site) == (other.id, other.site)

    def __hash__(self) -> int:
        return hash((self.id, self.site))

    # --- inside ---------------------------------------------------------------------------

    def _connection(self) -> Connection:
        return connect(self.site)

    def _view(self) -> BatchView:
        return poller(self.site).view(self._batch)

    def _path(self, name: str) -> str:
        return f"{batch_folder(self._batch)}/{self.index}/{name}".rstrip("/")

    def _seen(self) -> Seen:
        view = self._view()
        if self.index not in view.seen or not view.seen[self.index].state.final:
            look([view])
            if view.removed:
                raise files_gone(view.id, self.site)
        if self.index not in view.seen:
            raise _no_run(self)
        return view.seen[self.index]

    def _or_gone(self, found: T) -> T:
        """What was found of its files. Nothing may be the truth, or they were removed."""
        if not found and is_gone(self._batch, self._connection()):
            raise files_gone(self._batch, self.site)
        return found

    def _point(self) -> dict[str, Any]:
        """What the run has of its own."""
        points = self._view().points
        if self.index >= len(points):
            raise _no_run(self)
        return points[self.index]

    def _is_over(self) -> bool:
        view = poller(self.site).views.get(self._batch)
        seen = view.seen.get(self.index) if view is not None else None
        return seen is not None and seen.state.final

    def _end(self) -> dict[str, Any] | None:
        """How its last attempt ended; ``None`` while another one is to follow."""
        return _final_end(self._seen())

    def _tell(self) -> Story:
        view = self._view()
        seen = self.last_seen or self._seen()
        final = seen.state.final
        if final and self._told is not None:
            return self._told
        found = self._or_gone(self._connection().files.get({self._path("events.jsonl"): 0}))
        events = wire.parse_lines(next(iter(found.values()), b""))
        lost = sum(attempt.lost for attempt in view.attempts(self.index))
        story = tell(events, view.part_of(self.index).asked, lost)
        self._told = story if final else None
        return story

    def _sizes(self) -> tuple[int, int]:
        """Bytes of its events that are still to be read, and of its machines' readings."""
        files, told = self._connection().files, self._told is not None
        own = {entry.name: entry.size for entry in files.list(self._path("")) or ()}
        readings = files.list(f"{batch_folder(self._batch)}/energy") or ()
        events = 0 if told else own.get("events.jsonl", 0)
        return events, sum(entry.size for entry in readings)

    def _left(self) -> dict[str, FileStatus]:
        """What it has left, by paths in its folder, without links to the code and copies of it."""
        what, folder = self.plan.what, self._path("")
        code = "/".join(filter(None, ("code", what["code"], what["folder"])))
        found = self._connection().files.walk([folder, code] if what["code"] else [folder])
        copies = {f"work/{name}": entry for name, entry in found.get(code, {}).items()}
        return {
            name: entry
            for name, entry in found.get(folder, {}).items()
            if name in STREAMS or (name.startswith("work/") and self._own(entry, copies.get(name)))
        }

    def _own(self, entry: FileStatus, code: FileStatus | None) -> bool:
        """Whether it has made something itself, given what the code has there."""
        is_copy = code is not None and replace(code, name=entry.name) == entry
        return (entry.kind == "file" and not is_copy) or self._own_link(entry)

    def _own_link(self, entry: FileStatus) -> bool:
        """Whether it is a link that the run has made, not one into the snapshot."""
        code = self.plan.what["code"]
        return entry.kind == "link" and (code is None or f"/code/{code}/" not in entry.target)

    def _follow(self, names: Sequence[str]) -> str:
        printers = [_Printer(self._path(name), name) for name in names]
        files = self._connection().files

        def go_on(*, ended: bool = False) -> None:
            found = files.get({printer.path: printer.offset for printer in printers})
            for printer in printers:
                printer.print(found.get(printer.path, b""), ended=ended)

        with suppress(RunStateError):  # a submission that was broken off prints no more
            for _ in Runs([self])._follow(None):
                with suppress(UnreachableError):  # after another look
                    go_on()
        patiently(lambda: go_on(ended=True))
        return "".join(printer.text for printer in printers)


class _Printer:
    """Prints a stream of a run as it comes, to this process's own."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.offset, self.text = path, 0, ""
        self.to_stderr = name == "stderr"
        self.decoder = getincrementaldecoder("utf-8")("replace")

    def print(self, new: bytes, *, ended: bool) -> None:
        self.offset += len(new)
        text = self.decoder.decode(new, final=ended)
        self.text += text
        stream: TextIO = sys.stderr if self.to_stderr else sys.stdout
        if text:
            stream.write(text)
            stream.flush()


class Runs(Sequence[Run]):
    """Several runs, in the order of their submission."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and self._runs == other._runs

    def __hash__(self) -> int:
        return hash(self._runs)

    def __repr__(self) -> str:
        from hpcml.cards import glimpse

        seen, troubles = glimpse(self._runs)
        few = seen if len(seen) <= 2 * FIRST_FEW else seen[:FIRST_FEW]
        rows = [_row(run, it) for run, it in few]
        rows += [f"cannot be seen now: {trouble}" for trouble in troubles[:FIRST_FEW]]
        if few is seen:
            return "\n".join([f"{len(rows)} runs", *rows])
        counts = ", ".join(f"{count} {state}" for state, count in self._counts().items())
        return "\n".join([f"{len(self._runs)} runs: {counts}", *rows, "…"])

    def _repr_html_(self) -> str:
        from hpcml.cards import runs_card

        return runs_card(self._runs)

    # --- what became of them --------------------------------------------------------------

    def seen(self) -> list[tuple[Run, Seen]]:
        """All with what one look shows now."""
        batches, sites = self._batches(), dict[str, list[BatchView]]()
        for (site, _), (view, _) in batches.items():
            sites.setdefault(site, []).append(view)
        for views in sites.values():
            look(views)
        found = []
        for run in self._runs:
            seen = batches[run.site, run._batch][0].seen.get(run.index)
            if batches[run.site, run._batch][0].removed:
                raise files_gone(run._batch, run.site)
            if seen is None:
                raise _no_run(run)
            found.append((run, seen))
        return found

    @property
    def states(self) -> dict[str, State]:
        """State by run id."""
        return {run.id: seen.state for run, seen in self.seen()}

    @property
    def by_state(self) -> dict[State, Runs]:
        """The runs in each state in which there are any, in the order of the states."""
        found: dict[State, list[Run]] = {}
        for run, seen in self.seen():
            found.setdefault(seen.state, []).append(run)
        return {state: Runs(found[state]) for state in State if state in found}

    @property
    def failed(self) -> Runs:
        """Those that have ended otherwise than COMPLETED."""
        return Runs(
            [
                run
                for run, seen in self.seen()
                if seen.state.final and seen.state is not State.COMPLETED
            ]
        )

    def _counts(self) -> Mapping[State, int]:
        """How many were last seen in each state, in the order of the states."""
        counts: Counter[State] = Counter()
        for view, runs in self._batches().values():
            seen = view.seen
            counts.update(seen[run.index].state for run in runs if run.index in seen)
        return {state: counts[state] for state in State if state in counts}

    def _batches(self) -> dict[tuple[str, str], tuple[BatchView, list[Run]]]:
        """The view of each batch and its runs, by site and batch."""
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self._runs:
            found.setdefault((run.site, run._batch), []).append(run)
        return {key: (poller(key[0]).view(key[1]), runs) for key, runs in found.items()}

    # --- waiting --------------------------------------------------------------------------

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> Runs:
        """Wait until all have ended, however they ended; see :meth:`Run.wait`.

        Where progress is shown, more than eight runs share one line: how many are in which state,
        how many end a second, how long the rest takes at that rate, and what failed first.
        """
        with show(self._runs, self._counts, enabled=progress) as shown:
            for ended in self._follow(timeout):
                shown.update(ended)
        return self

    def results(self) -> list[Any]:
        """Wait for all, and return their results in the order of the runs.

        Raises
        ------
        Exception
            That of the first run which did not end COMPLETED; see :meth:`Run.result`.
        """
        self.wait(progress=False)
        return [run.result() for run in self._runs]

    def as_completed(self, timeout: float | None = None) -> Iterator[Run]:
        """The runs in the order in which they end.

        Raises
        ------
        TimeoutError
            So many seconds are over, and some have not ended.
        """
        left = len(set(self._runs))
        for ended in self._follow(timeout):
            for run, _ in ended:
                left -= 1
                yield run
        if left:
            raise TimeoutError(f"{left} of {len(self._runs)} runs have not ended")

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """``await runs`` waits for all, and gives their results like :meth:`results`."""
        return self._awaited().__await__()

    async def _awaited(self) -> list[Any]:
        import asyncio  # slow to load

        tasks = [asyncio.ensure_future(run._awaited()) for run in self._runs]
        await asyncio.gather(*tasks, return_exceptions=True)
        return [task.result() for task in tasks]  # a result may be an exception, too

    def _follow(self, timeout: float | None) -> Iterator[list[tuple[Run, Seen]]]:
        """What has ended, now and after each look."""
        _check_timeout(timeout)
        watch: Watch[Run] = Watch()
        began = time.monotonic()
        batches = patiently(self._batches, timeout)
        left = None if timeout is None else timeout - (time.monotonic() - began)
        for view, runs in batches.values():
            view.hope()
            for run in dict.fromkeys(runs):
                watch.add(view, run.index, run)
        return follow(watch, {poller_of(view.connection) for view, _ in batches.values()}, left)

    # --- steering -------------------------------------------------------------------------

    def cancel(self) -> Runs:
        """Cancel all that have not ended; see :meth:`Run.cancel`."""
        going = {run for run, seen in self.seen() if not seen.state.final}
        for view, runs in self._batches().values():
            # From the last to the first: what takes waiting runs begins with the first.
            _cancel(view, sorted({run.index for run in runs if run in going}, reverse=True))
        return self


def _cancel(view: BatchView, indices: Sequence[int]) -> None:
    """Cancel runs of a batch that have not ended."""
    if not indices:
        return
    batch, connection = load_outbox(view.id), view.connection
    if batch is not None:
        refuse_if_submitting(batch)
    elif not view.queued:
        with view.lock:
            view.read_files()
        if not view.queued and view.owner_alive:
            refuse_of_another(view.id, view.owner)
    unqueued = {
        index for part in view.chunks if part.chunk.id is None for index in part.chunk.indices
    }
    unqueued -= {*view.ended}
    if 0 < len(unqueued.intersection(indices)) < len(unqueued):
        raise RunStateError(
            f"the submission of {view.id} was broken off: those of its runs that are not in the "
            "queue can only be cancelled together",
            f"Cancel all of them, or `hpcml resume {view.id}` first.",
        )
    if connection.files.names(view.folder) is None:
        claim(view.id, "cancelled")
        return
    chunks = [part.chunk for part in reversed(view.chunks)]
    connection.queue.cancel([it for it in chunks if {*it.indices} & {*indices}], indices)
    if batch is not None and unqueued.issubset(indices):
        batch.forget()


def _row(run: Run, seen: Seen | None) -> str:
    """A run in a list of many."""
    if seen is None:
        return f"{run.id}  {State.UNKNOWN}"
    return f"{run.id}  {run.name}  {seen.state}  {seen.reason}".rstrip()


def _final_end(seen: Seen) -> dict[str, Any] | None:
    """How its last attempt ended; ``None`` while another one is to follow."""
    end = seen.attempts[-1].end if seen.attempts else None
    return None if end and end.get("requeue") and not seen.state.final else end


def _no_run(run: Run) -> RunNotFoundError:
    return RunNotFoundError(f"{run._batch} has no run {run.index}", "Its runs start at 0.")


def _check_timeout(timeout: object) -> None:
    # TIMEOUT_MAX, 292 years, is what waiting can take; NaN is not below it.
    if timeout is None or (isinstance(timeout, Real) and timeout <= TIMEOUT_MAX):
        return
    problem = f"timeout {timeout!r} is no number of seconds"
    raise ArgumentError(problem, "Give seconds, like 30 or 0.5; None waits without limit.")


def parts_of(id: str) -> tuple[str, int | None]:
    """A run's batch and index; a batch's id has no index."""
    match = _ID.fullmatch(id) if isinstance(id, str) else None
    if not match:
        raise no_id(id)
    batch, index = match.groups()
    return batch, None if index is None else int(index)


def no_id(id: object) -> RunNotFoundError:
    """What is not shaped like a run's id, as it was given."""
    return RunNotFoundError(f"{str(id)[:80]!r} is no run's id", "`hpcml runs` lists them.")


def as_data(run: Run, seen: Seen | None = None) -> dict[str, Any]:
    """What the command line's ``--json`` says of a run, as it was last seen."""
    seen = seen or run.last_seen or run._seen()
    end = _final_end(seen)
    return {
        "id": run.id,
        "site": run.site,
        "name": run.name,
        "state": str(seen.state),
        "reason": seen.reason,
        "attempts": len(seen.attempts),
        "exit_code": end["exit_code"] if end else None,
        "signal": end["signal"] if end else None,
        "digest": run.digest,
    }
