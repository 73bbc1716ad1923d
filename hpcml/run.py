"""Handles: what became of a run, from any Python, on any machine that reaches the site."""

from __future__ import annotations

import re
import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, overload

from hpcml.agent import wire
from hpcml.batch import (
    Batch,
    batch_folder,
    claim,
    load_outbox,
    outbox_ids,
    outbox_owner_alive,
    refuse_if_submitting,
)
from hpcml.connection import Connection, connect
from hpcml.enclosing import enclosing_run
from hpcml.errors import (
    ArgumentError,
    HpcmlError,
    RunNotFoundError,
    RunStateError,
    UnknownNameError,
    nearest,
)
from hpcml.planning import Plan, run_digest
from hpcml.poller import Attempt, BatchView, Seen, look, poller
from hpcml.progress import show
from hpcml.settings import load_settings
from hpcml.sites import site_names
from hpcml.states import State
from hpcml.timeline import Point, Story, Timeline, tell
from hpcml.transports import FileStatus

_ID = re.compile(r"(\d{8}-\d{6}-[a-z0-9]{6})\.(\d{1,9})")


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
        self._batch, self.index = _parts(id)
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
        return self._seen().attempts

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
        """The job's name."""
        return self.plan.name

    @property
    def digest(self) -> str | None:
        """Digest of the plan and of this run's point: equal for the same run, wherever."""
        return run_digest(self.plan, {})

    @property
    def params(self) -> dict[str, Any]:
        """The job's parameters."""
        return dict(self.plan.what["params"])

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
        """The last value of each metric that the job logged."""
        return {name: points[-1].value for name, points in self._tell().history.items()}

    def history(self, name: str) -> tuple[Point, ...]:
        """All values of a metric.

        Raises
        ------
        UnknownNameError
            The job has logged no such metric (yet). It is a KeyError, too.
        """
        known = self._tell().history
        if name not in known:
            raise UnknownNameError(f"{self.id} has logged no {name!r}", nearest(name, known))
        return known[name]

    @property
    def described(self) -> dict[str, Any]:
        """What the job told with ``hpcml.describe``."""
        return dict(self._tell().described)

    @property
    def host(self) -> dict[str, Any]:
        """The machine it ran on: CPU, cores, memory (bytes), system, accelerators."""
        return dict(self._tell().host)

    # --- waiting and files ----------------------------------------------------------------

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Run:
        """Wait until it has ended, however it ended.

        Parameters
        ----------
        timeout : float, optional
            Give up after that many seconds; ``run.state.final`` tells.
        progress : bool
            Show a live line on stderr.

        Raises
        ------
        RunStateError
            Its submission was broken off, so that it would wait for ever.
        """
        Runs([self]).wait(timeout, progress=progress)
        return self

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
        found = self._connection().files.get({self._path(name): 0 for name in names})
        return "".join(content.decode("utf-8", "replace") for content in found.values())

    def files(self) -> list[str]:
        """Files in its ``work/`` folder, those of the code left out."""
        found: list[str] = []
        self._list("", found)
        return sorted(found)

    def fetch(self, dest: str | Path | None = None) -> Path:
        """Copy what it left in ``work/``, and its output streams, to this machine.

        Parameters
        ----------
        dest : path, optional
            A folder; default: one named like the run, in the current folder.

        Returns
        -------
        Path
            The folder. Each file appears in it whole.
        """
        folder = Path(dest) if dest is not None else Path(self.id)
        folder.mkdir(parents=True, exist_ok=True)
        files = self._connection().files
        for name in self.files():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            files.fetch(self._path(f"work/{name}"), target)
        there = {entry.name for entry in files.list(self._path("")) or ()}
        for name in sorted({"stdout", "stderr", "events.jsonl"} & there):
            files.fetch(self._path(name), folder / f"{self.id}.{name}")
        return folder

    def output(self, name: str) -> Path:
        """Path of a declared output on a site whose files are this machine's.

        Raises
        ------
        UnknownNameError
            The job declares no such output. It is a KeyError, too.
        RunStateError
            The run did not leave it (yet).
        """
        declared = [output["path"] for output in self.plan.what["outputs"]]
        if name not in declared:
            problem = f"{self.name} declares no output {name!r}"
            raise UnknownNameError(problem, nearest(name, declared))
        end = self._end()
        if not end or name not in end.get("outputs", {}):
            raise RunStateError(f"{self.id} has left no {name!r}: it is {self.state}", self.reason)
        return Path(self.plan.where["workspace"]) / self._path(f"work/{name}")

    # --- steering -------------------------------------------------------------------------

    def cancel(self) -> Run:
        """Cancel it. Returns when the site knows; its end follows."""
        view = self._view()
        look([view])
        batch = load_outbox(self._batch)
        on_site = self._connection().files.list(view.folder) is not None
        if view.seen[self.index].state.final:
            return self
        if batch is not None:
            refuse_if_submitting(batch)
        if on_site:
            self._connection().queue.cancel(view.chunk, [self.index])
            if batch is not None:
                batch.forget()
        else:
            claim(self._batch, "cancelled")
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
        if self.index not in view.seen:
            raise RunNotFoundError(f"{self._batch} has no run {self.index}", "Its runs start at 0.")
        return view.seen[self.index]

    def _end(self) -> dict[str, Any] | None:
        attempts = self.attempts
        return attempts[-1].end if attempts else None

    def _tell(self) -> Story:
        view = self._view()
        seen = self.last_seen or self._seen()
        final = seen.state.final
        if final and self._told is not None:
            return self._told
        found = self._connection().files.get({self._path("events.jsonl"): 0})
        events = wire.parse_lines(next(iter(found.values()), b""))
        story = tell(events, view.asked)
        self._told = story if final else None
        return story

    def _list(self, folder: str, found: list[str]) -> None:
        """Files below a folder of ``work/`` that are not the code's, links or copies."""
        files, what = self._connection().files, self.plan.what
        code = "/".join(filter(None, ("code", what["code"], what["folder"], folder)))
        copies = set(files.list(code) or ()) if what["code"] else set()
        path = "/".join(filter(None, (self._path("work"), folder)))
        for entry in files.list(path) or ():
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.kind == "folder":
                self._list(name, found)
            elif (entry.kind == "file" and entry not in copies) or self._own_link(entry):
                found.append(name)

    def _own_link(self, entry: FileStatus) -> bool:
        """Whether it is a link that the run has made, not one into the snapshot."""
        code = self.plan.what["code"]
        return entry.kind == "link" and (code is None or f"/code/{code}/" not in entry.target)

    def _follow(self, names: Sequence[str]) -> str:
        offsets = dict.fromkeys(names, 0)
        texts = dict.fromkeys(names, "")
        decoders = {name: getincrementaldecoder("utf-8")("replace") for name in names}
        interval, longest = self._connection().queue.poll_interval
        while True:
            ended = self._seen().state.final or self._view().stuck
            paths = {self._path(name): offsets[name] for name in names}
            found = self._connection().files.get(paths)
            for name in names:
                new = found.get(self._path(name), b"")
                offsets[name] += len(new)
                text = decoders[name].decode(new, final=ended)
                texts[name] += text
                stream: TextIO = sys.stderr if name == "stderr" else sys.stdout
                if text:
                    stream.write(text)
                    stream.flush()
            if ended:
                return "".join(texts.values())
            time.sleep(interval)
            interval = min(longest, interval * 1.3)


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
        rows = [f"{run.id}  {run.name}  {run.state}  {run.reason}".rstrip() for run in self._runs]
        return "\n".join([f"{len(rows)} runs", *rows])

    @property
    def states(self) -> dict[str, State]:
        """State by run id."""
        return {run.id: run.state for run in self._runs}

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Runs:
        """Wait until all have ended, however they ended; see :meth:`Run.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with show(self._runs, enabled=progress) as shown:
            for site in dict.fromkeys(run.site for run in self._runs):
                runs = [run for run in self._runs if run.site == site]
                views = list({run._batch: run._view() for run in runs}.values())
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                for view in views:
                    view.stuck = False  # somebody may have resumed it since the last look

                def done(runs: Sequence[Run] = runs) -> bool:
                    shown.update()
                    return all(_is_final(run) for run in runs)

                poller(site).wait(views, done, left)
        return self


def _is_final(run: Run) -> bool:
    view = run._view()
    seen = view.seen.get(run.index)
    if seen is None or seen.state.final:
        return seen is not None
    if view.stuck:
        raise RunStateError(
            f"{run.id} would wait for ever: {seen.reason}", f"`hpcml resume {run.id}` goes on."
        )
    return False


def _parts(id: str) -> tuple[str, int]:
    """A run's batch and index."""
    match = _ID.fullmatch(id) if isinstance(id, str) else None
    if not match:
        raise RunNotFoundError(f"{str(id)[:80]!r} is no run's id", "`hpcml runs` lists them.")
    return match.group(1), int(match.group(2))


def attach(id: str, site: str | None = None) -> Run:
    """The handle of a run that was submitted earlier, by anybody with the same workspace.

    Parameters
    ----------
    id : str
        A run's id; a batch's id stands for its first run.
    site : str, optional
        Its site; default: it is looked for here and on all sites of the settings.

    Raises
    ------
    RunNotFoundError
        It is nowhere.
    """
    batch, index = _parts(id if "." in str(id) else f"{id}.0")
    waiting = load_outbox(batch)
    if waiting is not None and site in (None, waiting.site):
        return _checked(poller(waiting.site).view(batch), index, waiting.site)
    sites = [site] if site is not None else known_sites()
    for name in sites:
        if connect(name).files.list(f"{batch_folder(batch)}/attempts") is not None:
            return _checked(poller(name).view(batch), index, name)
    known = [run.id for name in sites for run in runs(site=name)]
    raise RunNotFoundError(f"there is no run {id} on {', '.join(sites)}", nearest(id, known))


def _checked(view: BatchView, index: int, place: str) -> Run:
    if index not in view.chunk.indices:
        run = wire.run_id(view.id, index)
        raise RunNotFoundError(f"there is no run {run}", f"{view.id} has fewer runs.")
    return Run(wire.run_id(view.id, index), _site_of(view, place))


def _site_of(view: BatchView, place: str) -> str:
    """The site that it was planned for; several may share a workspace."""
    planned = str(view.plan.where["site"])
    return planned if planned in site_names() else place


def runs(
    site: str | None = None,
    *,
    state: str | None = None,
    name: str | None = None,
    tags: dict[str, str] | None = None,
) -> Runs:
    """Runs that can be found, oldest first.

    Parameters
    ----------
    site : str, optional
        Default: all sites of the settings, and the embedded one.
    state, name : str, optional
        Only runs in that state, or of jobs of that name.
    tags : dict, optional
        Only runs whose jobs have these tags.
    """
    if state is not None and state not in State.__members__:
        raise HpcmlError(f"there is no state {state!r}", nearest(state, State.__members__))
    found = []
    waiting = {batch: load_outbox(batch) for batch in outbox_ids()}
    places = {connect(p).binding.workspace: p for p in reversed([site] if site else known_sites())}
    for place in places.values():
        there = {e.name for e in connect(place).files.list("runs") or () if e.name[0] != "."}
        there |= {key for key, batch in waiting.items() if batch and _lies_at(batch, place)}
        views = [view for view in map(poller(place).readable, sorted(there)) if view is not None]
        look(views)
        for view in views:
            batch = waiting.get(view.id)
            if batch and view.chunk.id is not None and not outbox_owner_alive(batch):
                batch.forget()  # its client was killed just after the queue had taken it
            if name not in (None, view.plan.name) or site not in (None, _site_of(view, place)):
                continue
            if not (tags or {}).items() <= dict(view.plan.where["tags"]).items():
                continue
            for index, seen in view.seen.items():
                if state in (None, seen.state):
                    run = Run(wire.run_id(view.id, index), _site_of(view, place))
                    found.append((view.created, run.id, run))
    return Runs([run for _, _, run in sorted(found, key=lambda row: row[:2])])


def _lies_at(batch: Batch, place: str) -> bool:
    """Whether a batch of the outbox is on its way to the workspace of a site."""
    return bool(batch.plan.where["workspace"] == connect(place).binding.workspace)


def known_sites() -> list[str]:
    """The embedded site, and those of the settings; within a job, the job's own alone."""
    run = enclosing_run()
    if run is not None:
        return [run.site]
    return list(dict.fromkeys(["local", *load_settings().sites]))


def as_data(run: Run) -> dict[str, Any]:
    """What the command line's ``--json`` says of a run."""
    seen = run._seen()
    end = seen.attempts[-1].end if seen.attempts else None
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
