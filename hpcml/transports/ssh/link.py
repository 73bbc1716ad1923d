"""A conversation with hpcml's helper on a site: frames over the pipes of one ssh."""

from __future__ import annotations

import io
import itertools
import json
import os
import queue
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpcml.agent import wire
from hpcml.agent.files import pieces_of
from hpcml.agent.files import told as of_system
from hpcml.errors import TransportError, UnreachableError
from hpcml.transports.base import told
from hpcml.transports.ssh import first_contact
from hpcml.transports.ssh.openssh import Way

START = 60.0  # seconds for which a site may be silent at first
CHATTER = 1 << 20  # bytes that a login shell may print before it is our turn
WAITING = 64  # parts of an answer that wait for whoever asked
DRIFT = 1e-4  # by which two clocks may go apart, in s a second
GATHERED = 1 << 16  # bytes that are written at once

Frame = tuple[dict[str, Any], bytes]


class Lost(UnreachableError):
    """The connection has ended before the answer came."""


class Clock:
    """The site's clock, as its answers tell it."""

    def __init__(self) -> None:
        self._way, self._said, self._then = float("inf"), 0.0, 0.0

    def hear(self, sent: float, said: float, took: float) -> None:
        """Learn from an answer: wrong by half its way at most, and by drift as it gets old."""
        now = time.monotonic()
        way = max(now - sent - took, 0.0)
        if way <= self._way + (now - self._then) * DRIFT:
            self._way, self._said, self._then = way, said + way / 2, now

    @property
    def is_known(self) -> bool:
        """Whether there was any answer."""
        return self._way < float("inf")

    def now(self) -> float:
        """In s since the epoch."""
        return self._said + time.monotonic() - self._then


class Answer:
    """What a request gets, frame by frame.

    Attributes
    ----------
    gone : bool
        Nobody waits for it any more.
    """

    def __init__(self) -> None:
        self.sent, self.gone = time.monotonic(), False
        self._frames: queue.Queue[Frame | None] = queue.Queue(WAITING)

    def put(self, frame: Frame | None) -> None:
        """For the thread that listens; ``None``: nothing more comes."""
        while not self.gone:
            with suppress(queue.Full):
                return self._frames.put(frame, timeout=0.5)
        return None

    def frames(self) -> Iterator[Frame]:
        """Its parts, and last the answer itself.

        Raises
        ------
        TransportError
            It could not be done.
        """
        try:
            while (frame := self._frames.get()) is not None:
                if "error" in frame[0]:
                    error = frame[0]["error"]
                    raise TransportError(error["problem"], error["advice"])
                yield frame
                if "part" not in frame[0]:
                    return
        finally:
            self.gone = True
        raise Lost("the connection was lost", "Try again.")

    def wait(self) -> Frame:
        """The answer itself."""
        *_, last = self.frames()
        return last


class Link:
    """One helper, and what was asked of it. Any thread may ask.

    Parameters
    ----------
    way : Way
    python, workspace : str
        Of the site; the workspace may begin with ``~/``.
    archive : Path
        Of all of hpcml, to bring if it is not there.
    wanted : str
        A command that must be found there, if need be as a login shell does; ``""``: none.
    modules : sequence of str
        Those that this shell is to load first.
    clock : Clock
        What is set by its answers.

    Attributes
    ----------
    workspace : str
        Its literal path.
    dead : bool
        Whether it has ended.

    Raises
    ------
    TransportError
        The site cannot be reached, or its Python is missing or too old.
    """

    def __init__(
        self,
        way: Way,
        python: str,
        workspace: str,
        archive: Path,
        wanted: str,
        modules: Sequence[str],
        clock: Clock,
    ) -> None:
        self.way, self.clock, self.dead = way, clock, False
        self._numbers = itertools.count(1)
        self._answers: dict[int, Answer] = {}
        self._lock, self._sending = threading.Lock(), threading.Lock()
        with told(), of_system(f"{archive} cannot be read"):
            size = archive.stat().st_size
        self._process, self._errors = way.start(first_contact.SHELL)
        stdin: Any = self._process.stdin
        stdout: Any = self._process.stdout
        self._to: int = stdin.fileno()
        self._from = io.BufferedReader(stdout, GATHERED)
        _links.add(self)
        word = f"hpcml-{wire.random_letters(16)}"
        try:
            asked = first_contact.script(
                word, python, workspace, archive.name, size, wanted, modules
            )
            self.workspace = self._introduce(word, asked, python, archive)
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            self.dead = True
            said = self._close_files().decode("utf-8", "replace")
            if isinstance(error, EOFError | OSError):
                raise way.refused(said) from None
            raise
        threading.Thread(target=self._listen, name=f"ssh {way.site}", daemon=True).start()

    # --- asking ---------------------------------------------------------------------------

    def ask(
        self,
        call: str,
        args: list[Any],
        content: Iterable[bytes] = (),
        size: int = 0,
        chain: int | None = None,
    ) -> Answer:
        """Send a request.

        Parameters
        ----------
        content : iterable of bytes
            Its body, of ``size`` bytes.
        chain : int, optional
            Requests of one chain depend on each other.

        Raises
        ------
        Lost
            The connection has ended.
        """
        answer = Answer()
        number = next(self._numbers)
        head = {"id": number, "call": call, "args": args, "chain": chain}
        with self._sending:
            with self._lock:
                if self.dead:
                    raise Lost("the connection was lost", "Try again.")
                self._answers[number] = answer
            answer.sent = time.monotonic()
            try:
                self._write([wire.frame_head(head, size)], content)
            except BaseException as error:  # half a frame is out: no other can follow
                self.close()
                if isinstance(error, OSError):
                    raise Lost("the connection was lost", "Try again.") from error
                raise
        return answer

    def close(self) -> None:
        """End it."""
        self.dead = True
        with suppress(ProcessLookupError):
            self._process.kill()

    def let_go(self) -> None:
        """In a forked child: the conversation is the parent's, and ends when that ends it."""
        self.dead = True
        self._process.returncode = 0  # it is not this process's to wait for
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in (self._to, self._from.fileno(), self._errors.fileno()):
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    def _write(self, start: Iterable[bytes], content: Iterable[bytes] = ()) -> None:
        gathered = bytearray()
        for piece in itertools.chain(start, content):
            gathered += piece
            if len(gathered) >= GATHERED:
                self._flush(gathered)
                gathered.clear()
        self._flush(gathered)

    def _flush(self, data: bytearray) -> None:
        view = memoryview(bytes(data))
        while view:
            view = view[os.write(self._to, view) :]

    # --- listening ------------------------------------------------------------------------

    def _listen(self) -> None:
        """Hand each frame to whoever waits for it; a thread of its own does that."""
        try:
            while True:
                head, size = wire.read_frame_head(self._read)
                body = self._read(size)
                with self._lock:
                    waiting = self._answers.get(head["id"])
                    if "part" not in head:
                        self._answers.pop(head["id"], None)
                if waiting is not None:
                    if "time" in head:
                        self.clock.hear(waiting.sent, head["time"], head["took"])
                    waiting.put((head, body))
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self.dead = True
            left, self._answers = list(self._answers.values()), {}
        for answer in left:
            answer.put(None)
        self.close()
        self._process.wait()
        self._close_files()

    def _close_files(self) -> bytes:
        """Once ssh has ended; their numbers may be other files' from now on.

        Returns what ssh has to say.
        """
        with self._sending:
            _links.discard(self)
            for file in (self._process.stdin, self._from):
                if file is not None:
                    file.close()
            return self._errors.close()

    def _read(self, size: int) -> bytes:
        data = self._from.read(size)
        if len(data) < size:
            raise EOFError
        return data

    # --- first contact --------------------------------------------------------------------

    def _introduce(self, word: str, asked: bytes, python: str, archive: Path) -> str:
        """Make the site's shell hpcml's helper. Returns the literal path of the workspace."""
        self._write([asked])
        said = self._hear(word)
        if "send" in said:
            self._write(pieces_of(str(archive)))
            said = self._hear(word)
        if "serve" not in said:
            raise _not_served(self.way.site, python, said)
        with self._patience():
            wire.read_frame_head(self._read)
        return str(said["workspace"])

    def _hear(self, word: str) -> dict[str, Any]:
        """What follows our word at the beginning of a line; all else is the login shell's."""
        start, heard = f"{word} ".encode(), 0
        with self._patience():
            while line := self._from.readline(CHATTER):
                if line.startswith(start):
                    said: dict[str, Any] = json.loads(line[len(start) :])
                    return said
                heard += len(line)
                if heard >= CHATTER:
                    raise TransportError(
                        f"the login shell of {self.way.site} prints without end",
                        f"See what `{self.way.by_hand} true` prints.",
                    )
            raise EOFError

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Give a site up that does not answer, and the connection that may be the cause."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(START, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except EOFError:
            if late.is_set():
                self.way.close()
                raise UnreachableError(
                    f"{self.way.site} has not answered for {START:.0f} s",
                    f"See whether `{self.way.by_hand}` works by hand.",
                ) from None
            raise
        finally:
            timer.cancel()


def _not_served(site: str, python: str, said: dict[str, Any]) -> TransportError:
    advice = "Name a Python from 3.6 up in the profile of the site: agent_python."
    if "missing" in said:
        return TransportError(f"there is no {python} on {site}", advice)
    if "old" in said:
        return TransportError(f"{python} on {site} is Python {said['old']}: too old", advice)
    return TransportError(f"{site}: {said['problem']}", said["advice"])


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _let_all_go() -> None:
    for link in list(_links):
        link.let_go()


os.register_at_fork(after_in_child=_let_all_go)
