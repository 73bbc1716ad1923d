"""What the screen knows of a site: which batches there are, and what visible runs have told.

The states come from the site's one poller, as for everybody who waits. What is added here is one
thread a site that lists batches now and then, and reads the last lines of what is on the screen.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any

from hpcml.agent import wire
from hpcml.batch import batch_folder
from hpcml.batch_view import BatchView, look
from hpcml.cli.top.board import Entry, Filter, brief, time_of
from hpcml.errors import HpcmlError, QueueError, TransportError
from hpcml.finding import batches_at, site_of, waiting_batches
from hpcml.poller import LOOKING_SHARE, Poller, Watch, poller
from hpcml.texts import short
from hpcml.transports import Transport

TURN = 1.0  # seconds between two readings of what visible runs have told
LISTING = 2.0  # seconds between two listings of a site's batches
FIRST_ROWS = 0.5  # seconds after which those that have been read are shown, if there are many
LAST_TURN = 1.0  # seconds for which leaving the screen waits for a turn
TAIL = 1 << 19  # bytes of the events of a run that are looked at: two windows of a process
LAST_LINES = 1 << 13  # bytes of each window that are parsed

Visible = tuple[Entry, int]


class Looker(Watch[Any]):
    """What the screen knows of one site.

    Parameters
    ----------
    place : str
        Name of the site.
    filter : Filter
        Batches that are wanted.
    news : callable
        Called, from any thread, when something may have changed.
    claimed : dict
        Who looks at which workspace: several sites may share one.

    Attributes
    ----------
    entries : tuple of Entry
        The batches that are wanted.
    visible : tuple
        Runs on the screen, set by whoever draws it.
    told : dict
        What the jobs of visible runs logged last.
    """

    def __init__(
        self, place: str, filter: Filter, news: Callable[[], None], claimed: dict[str, str]
    ) -> None:
        super().__init__()
        self.place, self.filter, self.news, self.claimed = place, filter, news, claimed
        self.entries: tuple[Entry, ...] = ()
        self.visible: tuple[Visible, ...] = ()
        self.told: dict[Visible, str] = {}
        self._live: list[BatchView] = []
        self._ahead = 0.0  # seconds by which the site's clock is ahead of ours
        self._away: tuple[str, float] | None = None  # why it cannot be seen, and since when
        self._broken: dict[str, str] = {}  # batches that cannot be read, and why
        self._aside: dict[str, str] = {}  # batches that cannot be judged, and why
        self._stumbled: Exception | None = None
        self._seen: object = None  # at the last look: how many have ended, and those that go on
        self._poller: Poller | None = None
        self._listed = False
        self._due = 0.0
        self._events: dict[Visible, bytes] = {}
        self._wake = threading.Event()
        self._stopping = False
        name = f"hpcml top of {place}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait a little."""
        self._stopping = True
        self._wake.set()
        self._thread.join(LAST_TURN)

    def show(self, visible: tuple[Visible, ...]) -> None:
        """These runs are on the screen now."""
        if visible != self.visible:
            self.visible = visible
            self._wake.set()

    def list_soon(self) -> None:
        """Somebody has changed something."""
        self._due = 0.0
        self._wake.set()

    def now(self) -> float:
        """The site's clock, in s since the epoch, as far as it is known."""
        return time.time() + self._ahead

    @property
    def busy(self) -> bool:
        """Whether it has not listed the site's batches yet."""
        return not self._listed and self._away is None

    def troubles(self) -> list[str]:
        """What stands in the way of seeing everything; a line each."""
        found = []
        if self._away is not None:
            problem, since = self._away
            at = time.strftime("%H:%M:%S", time.localtime(since))
            found.append(f"{self.place} cannot be seen; what is shown is of {at}: {problem}")
        blind = self._poller.blind if self._poller is not None and self.views else None
        if blind is not None and self._away is None:
            found.append(f"{self.place}: states may be old: {blind.problem}")
        broken = {**self._broken, **self._aside}
        found += [f"submission {name} is passed over: {why}" for name, why in broken.items()]
        return [brief(line) for line in found]

    # --- as one who waits ------------------------------------------------------------------

    @property
    def views(self) -> list[BatchView]:
        """Batches of which runs have not ended, for the poller."""
        with self._lock:
            self._live = [v for v in self._live if not (v.final or v.id in self._aside)]
            return list(self._live)

    def hear(self, error: Exception | None) -> None:
        """The poller has looked."""
        going = {view: view.seen.copy() for view in self.views}
        seen = sum(len(entry.view.ended) for entry in self.entries), going
        self._stumbled = error
        if seen != self._seen:
            self._seen = seen
            self.news()

    # --- its thread -------------------------------------------------------------------------

    def _run(self) -> None:
        known: object = None
        with ExitStack() as stack:
            while not self._stopping:
                began = time.thread_time()
                try:
                    if not self._turn(stack):
                        return self.news()
                    self._away = None
                except Exception as error:  # whatever it is, the screen goes on
                    since = self._away[1] if self._away else time.time()
                    self._away = problem_of(error), since
                before, known = known, self._state()
                if known != before:
                    self.news()
                rest = LOOKING_SHARE * (time.thread_time() - began)
                self._wake.wait(max(TURN, rest))
                self._wake.clear()

    def _state(self) -> object:
        return self.entries, dict(self.told), self.troubles(), self.busy

    def _turn(self, stack: ExitStack) -> bool:
        """One turn. ``False``: another site's looker sees all that is here."""
        if self._poller is None:
            found = poller(self.place)
            workspace = found.connection.binding.workspace
            if self.claimed.setdefault(workspace, self.place) != self.place:
                self._listed = True
                return False
            stack.enter_context(found.telling(self))
            self._poller = found
        files = self._poller.connection.files
        if time.monotonic() >= self._due:
            self._ahead = files.now() - time.time()
            self._list(self._poller)
            self._due = time.monotonic() + LISTING
        if self._stumbled is not None:
            self._set_aside()
        if self.views:
            self._poller.start()
        self._read_visible(files)
        return True

    def _list(self, poller: Poller) -> None:
        """Find new batches, the newest first, and forget those that are gone."""
        names = batches_at(self.place, waiting_batches())
        known = {entry.id: entry for entry in self.entries if entry.id in names}
        broken: dict[str, str] = {}
        show_at = time.monotonic() + FIRST_ROWS
        for name in sorted(names - known.keys(), reverse=True):
            try:
                view = poller.view(name)
                site = site_of(view, self.place)
                if self.filter.wants(view, site):
                    known[name] = Entry(view, site)
            except Exception as error:  # of this batch alone: its files cannot be believed
                broken[name] = problem_of(error)
            if self._stopping:
                return
            if time.monotonic() >= show_at:
                self._set(known.values())
                self.news()
                poller.start()
                show_at = time.monotonic() + FIRST_ROWS
        self._broken, self._listed = broken, True
        self._aside = {name: why for name, why in self._aside.items() if name in names}
        self._set(known.values())

    def _set(self, entries: Iterable[Entry]) -> None:
        found = tuple(entries)
        if found != self.entries:
            with self._lock:
                self.entries, self._live = found, [entry.view for entry in found]

    def _set_aside(self) -> None:
        """Leave to themselves the batches that the poller stumbles over: others are to be seen."""
        self._stumbled = None
        for view in self.views:
            try:
                look([view])
            except (TransportError, QueueError):
                raise
            except Exception as error:
                self._aside[view.id] = problem_of(error)

    # --- what visible runs have told --------------------------------------------------------

    def _read_visible(self, files: Transport) -> None:
        here = set(self.entries)
        visible = [one for one in self.visible if one[0] in here]
        told = {one: self.told[one] for one in visible if one in self.told}
        events = {one: self._events[one] for one in visible if one in self._events}
        for entry, index in visible:
            seen = entry.view.seen.get(index)
            if seen is None or not (seen.attempts or seen.state.final):
                continue
            final = seen.state.final
            if final and index not in entry.starts:
                attempts = entry.view.attempts(index)
                entry.starts[index] = time_of(attempts[-1].start) if attempts else None
            elif final and (entry, index) in told:
                continue  # it was read after its end: starts is set then, too
            data = last_events(files, f"{batch_folder(entry.id)}/{index}")
            if data != events.get((entry, index)) or (entry, index) not in told:
                events[entry, index] = data
                told[entry, index] = last_told(data)
        self.told, self._events = told, events


def problem_of(error: Exception) -> str:
    """What is wrong, in a line."""
    if isinstance(error, HpcmlError):
        return " ".join(filter(None, (f"{error.problem}.", error.advice)))
    return f"{type(error).__name__}: {error}"


def last_events(files: Transport, folder: str) -> bytes:
    """The end of what a run told; bounded, however much that is."""
    sizes = {entry.name: entry.size for entry in files.list(folder) or ()}
    path, size = f"{folder}/events.jsonl", sizes.get("events.jsonl", 0)
    found = files.get({path: max(0, size - TAIL)}) if size else {}
    return found.get(path, b"")[-TAIL:]


def last_told(data: bytes) -> str:
    """The phase that is open, and the last value of each metric, as far as the end of events tells.

    Each process writes into a window of its own, which zeros fill up: the last lines of each count.
    """
    events: list[dict[str, Any]] = []
    for window in re.split(rb"\0+", data):
        for event in wire.parse_lines(window[-LAST_LINES:]):
            if event.get("e") == "start":  # of another attempt
                events.clear()
            events.append(event)
    phases: list[str] = []
    metrics: dict[str, Any] = {}
    for event in sorted(events, key=_moment):
        # The job's own code may write there, too, whatever it likes.
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            _take(event, phases, metrics)
    said = [f"{brief(name)} {brief(short(value))}" for name, value in metrics.items()]
    return "  ".join([f"[{brief(phases[-1])}]" if phases else "", *said]).strip()


def _moment(event: dict[str, Any]) -> float:
    moment = event.get("m")
    return moment if isinstance(moment, int | float) else 0.0


def _take(event: dict[str, Any], phases: list[str], metrics: dict[str, Any]) -> None:
    kind = event["e"]
    if kind == "begin":
        phases.append(event["phase"])
    elif kind == "finish":
        phases.remove(event["phase"])
    elif kind == "log":
        metrics.update(event["v"].items())
    elif kind == "end":
        phases.clear()
