"""One thread a site that looks at batches while somebody waits for their runs."""

from __future__ import annotations

import atexit
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from hpcml.agent import wire
from hpcml.batch_view import BatchView, Seen, files_gone, look
from hpcml.connection import Connection, connect
from hpcml.errors import (
    HpcmlError,
    QueueError,
    RunNotFoundError,
    RunStateError,
    TransportError,
    UnreachableError,
)

LOOKING_SHARE = 25  # the pause after a look is as many times the CPU time that it took, at least
GROWTH = 1.15  # of the pause: it stays about a seventh of the time waited
# Of the last pause of a wait the next one begins with: who submits and waits, again and again, has
# pauses of about a fifth of what he waits for.
ANEW = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to reach a site
SILENCE = 10.0  # seconds for which a site may be silent though time is over
LAST_LOOK = 1.0  # seconds for which the interpreter's exit waits for a look

T = TypeVar("T")


class Watch(Generic[T]):
    """Runs that somebody waits for, on any number of sites; each stands for an item of his.

    Attributes
    ----------
    heard : threading.Event
        Somebody has looked since it was cleared.
    """

    def __init__(self) -> None:
        self.heard = threading.Event()
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._open: dict[BatchView, dict[int, list[T]]] = {}
        self._read: dict[BatchView, int] = {}  # how many of a batch's ends have been seen

    @property
    def views(self) -> list[BatchView]:
        """Batches of which runs are still waited for."""
        return list(self.awaited)

    @property
    def awaited(self) -> dict[BatchView, list[int]]:
        """Runs that are still waited for."""
        with self._lock:
            return {view: [*items] for view, items in self._open.items()}

    def add(self, view: BatchView, index: int, item: T) -> bool:
        """Wait for one more run. ``False``: its end has been passed over already."""
        with self._lock:
            seen = view.seen.get(index)
            if self._read.get(view) and seen is not None and seen.state.final:
                return False
            self._open.setdefault(view, {}).setdefault(index, []).append(item)
            self._read.setdefault(view, 0)
            return True

    def discard(self, view: BatchView, index: int, item: T) -> None:
        """Wait for it no longer, if it has not ended."""
        with self._lock:
            items = self._open.get(view, {}).get(index, [])
            if item in items:
                items.remove(item)
            if not items:
                self._open.get(view, {}).pop(index, None)
            if not self._open.get(view, True):
                del self._open[view]

    def ended(self) -> list[tuple[T, Seen]]:
        """Items of the runs that have ended since this was last called, in that order."""
        with self._lock:
            found: list[tuple[T, Seen]] = []
            for view, items in list(self._open.items()):
                new = view.ended[self._read[view] :]
                self._read[view] += len(new)
                for index in new:
                    found += [(item, view.seen[index]) for item in items.pop(index, ())]
                if not items:
                    del self._open[view]
            return found

    def hear(self, error: Exception | None) -> None:
        """A poller has looked, or has stumbled over something."""
        self._error = self._error or error
        self.heard.set()

    def check(self) -> None:
        """Raise what stands in the way of waiting on.

        Raises
        ------
        RunStateError
            A submission was broken off, so that one would wait for ever.
        RunNotFoundError
            Its files were removed.
        """
        if self._error is not None:
            raise self._error
        for view, indices in self.awaited.items():
            error, _ = _hopeless(view, indices)
            if error is not None:
                raise error


def _hopeless(view: BatchView, indices: Sequence[int]) -> tuple[HpcmlError | None, Sequence[int]]:
    """Runs whose submission was broken off, or that were removed, and what to say of them."""
    if view.removed:
        return files_gone(view.id, view.connection.site.name), indices
    with view.lock:  # nobody is judging just now
        seen = {index: view.seen[index] for index in indices if index in view.seen}
        stuck = [i for i, it in seen.items() if view.part_of(i).stuck and not it.state.final]
    if not stuck:
        return None, stuck
    first = min(stuck)
    run = wire.run_id(view.id, first)
    problem = f"{run} would wait for ever: {seen[first].reason}"
    return RunStateError(problem, f"`hpcml resume {run}` goes on."), stuck


class Ending(Protocol):
    """What wants to be told of the end of one run (a future)."""

    def end(self, seen: Seen) -> None:
        """The run has ended."""
        ...

    def fail(self, error: Exception) -> None:
        """Nobody will ever hear of its end."""
        ...


class Endings(Watch[Ending]):
    """Those who are told of an end by the poller's own thread."""

    def hear(self, error: Exception | None) -> None:
        for item, seen in self.ended():
            item.end(seen)
        for view, indices in self.awaited.items():
            trouble, lost = (error, indices) if error else _hopeless(view, indices)
            if trouble is not None:
                for item in self._given_up(view, lost):
                    item.fail(trouble)

    def _given_up(self, view: BatchView, indices: Iterable[int]) -> list[Ending]:
        with self._lock:
            items = self._open.get(view, {})
            found = [*chain.from_iterable(items.pop(index, ()) for index in indices)]
            if not items:
                self._open.pop(view, None)
        return found


class Poller:
    """The one thread a site that looks at batches while somebody waits for them.

    Attributes
    ----------
    blind : HpcmlError or None
        Why its last look showed nothing: the site, or its queue, could not be asked.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.views: dict[str, BatchView] = {}
        self.blind: HpcmlError | None = None
        self._changed = threading.Condition()
        self._endings = Endings()
        self._watches: list[Watch[Any]] = [self._endings]
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._interval = 0.0

    def view(self, batch: str) -> BatchView:
        """The one view of a batch in this process."""
        known = self.views.get(batch)
        if known is None:
            known = self.views.setdefault(batch, BatchView.load(batch, self.connection))
        return known

    def readable(self, batch: str) -> BatchView | None:
        """The view of a batch; with a warning ``None`` if its files cannot be believed."""
        try:
            return self.view(batch)
        except HpcmlError as error:
            there = self.connection.files.names("runs") or ()
            if isinstance(error, RunNotFoundError) and batch not in there:
                return None  # removed since somebody listed it
            said = str(error)
            if isinstance(error, RunNotFoundError):
                said = "its plan is not there. What is left goes with `hpcml prune`, after a day."
            warnings.warn(f"batch {batch} is passed over: {said}", stacklevel=3)
            return None

    @contextmanager
    def telling(self, watch: Watch[Any]) -> Iterator[None]:
        """Within the block the watch is told of each look."""
        with self._changed:
            self._watches.append(watch)
        try:
            yield
        finally:
            with self._changed:
                self._watches.remove(watch)
                self._changed.notify_all()

    def promise(self, batch: str, index: int, item: Ending) -> None:
        """Tell somebody of the end of a run, once."""
        view = self.view(batch)
        view.hope()
        if self._endings.add(view, index, item):
            self.start()
        else:
            item.end(view.seen[index])

    def forget(self, batch: str, index: int, item: Ending) -> None:
        """Somebody does not want to be told any more."""
        self._endings.discard(self.view(batch), index, item)
        with self._changed:
            self._changed.notify_all()

    def start(self) -> None:
        """Have a thread that looks."""
        with self._changed:
            self._stopping = False
            if self._thread is None or not self._thread.is_alive():
                name = f"hpcml poller of {self.connection.site.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread, whoever waits."""
        with self._changed:
            self._stopping, thread = True, self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(LAST_LOOK)

    def _run(self) -> None:
        first, longest = self.connection.queue.poll_interval
        self._interval = max(first, ANEW * self._interval)
        spent = 0.0
        while True:
            with self._changed:
                watches, views = list(self._watches), self._watched()
                if self._idle():
                    self._thread = None
                    return
            before, began = spent, time.thread_time()
            error = self._try_to_look(views)
            spent = time.thread_time() - began
            for watch in watches:
                watch.hear(error)
            rest = LOOKING_SHARE * min(spent, before)  # one look that finds much is no burden
            pause = max(self._interval * random.uniform(0.8, 1.2), rest)
            with self._changed:
                self._changed.wait_for(self._idle, pause)
            self._interval = min(longest, self._interval * GROWTH)

    def _try_to_look(self, views: Sequence[BatchView]) -> Exception | None:
        """Look; what everybody who waits must hear of."""
        blind = None
        try:
            look(views)
        except (TransportError, QueueError) as error:
            blind = error  # cannot see right now; that is no news
        except Exception as error:
            return error
        finally:
            self.blind = blind
        return None

    def _idle(self) -> bool:
        return self._stopping or not self._watched()

    def _watched(self) -> list[BatchView]:
        views = chain.from_iterable(watch.views for watch in self._watches)
        return [*dict.fromkeys(view for view in views if view.connection is self.connection)]


def follow(
    watch: Watch[T], pollers: Iterable[Poller], timeout: float | None
) -> Iterator[list[tuple[T, Seen]]]:
    """What of a watch has ended, now and after each look, until all has or time is over (in s)."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pollers = list(pollers)
    told: dict[Poller, bool] = {}  # that they are blind, and whether that passes
    with ExitStack() as stack:
        for poller in pollers:
            stack.enter_context(poller.telling(watch))
        while True:
            watch.heard.clear()
            yield watch.ended()
            if not watch.views:
                return
            watch.check()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            for poller in pollers:
                poller.start()
            watch.heard.wait(left)
            for poller in pollers:
                error = poller.blind
                if error is None:
                    told.pop(poller, None)
                elif told.get(poller) != (passes := isinstance(error, UnreachableError)):
                    told[poller] = passes
                    _warn(error)


def patiently(look: Callable[[], T], timeout: float | None = None) -> T:
    """Look at a site, again and again while it cannot be reached: for so many seconds at most.

    Raises
    ------
    UnreachableError
        Time is over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause, warned = FIRST_PAUSE, False
    while True:
        try:
            return in_time(look, None if deadline is None else deadline - time.monotonic())
        except UnreachableError as error:
            left = float("inf") if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise
            if not warned:
                warned = True
                _warn(error)
        time.sleep(min(pause * random.uniform(0.8, 1.2), left))
        pause = min(LONGEST_PAUSE, 2 * pause)


def in_time(look: Callable[[], T], seconds: float | None) -> T:
    """Look at a site for so many seconds at most, though for as long as any answer may take.

    To connect to a site that is silent may last half a minute. A thread goes on with that.

    Raises
    ------
    UnreachableError
        There was no answer.
    """
    if seconds is None:
        return look()
    found: Future[T] = Future()

    def ask() -> None:
        try:
            found.set_result(look())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=ask, name="hpcml look", daemon=True).start()
    seconds = max(seconds, SILENCE)
    if wait([found], seconds).not_done:
        problem = f"there was no answer within {seconds:.0f} s"
        raise UnreachableError(problem, "Wait longer, or see whether `ssh` works by hand.")
    return found.result()


def _warn(error: HpcmlError) -> None:
    """Say why nothing can be seen."""
    said = f"{error.problem}. Its runs are UNKNOWN meanwhile, and waiting goes on."
    warnings.warn(f"{said}\n  {error.advice}", stacklevel=4)


# No lock: a forked child would inherit it, locked.
_pollers: dict[tuple[int, str], Poller] = {}


def poller(site: str) -> Poller:
    """The poller of a site in this process (a forked child has its own)."""
    return poller_of(connect(site))


def poller_of(connection: Connection) -> Poller:
    """The poller of a connection, or of an earlier one that went the same way."""
    key = (os.getpid(), connection.way)
    return _pollers.get(key) or _pollers.setdefault(key, Poller(connection))


@atexit.register
def _stop_all() -> None:
    for each in list(_pollers.values()):
        each.stop()


os.register_at_fork(after_in_child=_pollers.clear)
