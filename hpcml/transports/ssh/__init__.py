"""A site that is reached by the system's OpenSSH.

One conversation a process (:mod:`hpcml.transports.ssh.link`): a helper on the site does what the
contract says with what it finds there (:mod:`hpcml.agent.serving`). A call is one round trip.
"""

from __future__ import annotations

import io
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hpcml.agent.trees import Usage
from hpcml.errors import ProfileError, TransportError, UnreachableError
from hpcml.library import library
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.transports import Completed, Digest, FileStatus
from hpcml.transports.base import by_name, told, until_free
from hpcml.transports.ssh.link import Answer, Clock, Frame, Link, Lost
from hpcml.transports.ssh.openssh import Way
from hpcml.transports.ssh.streams import Outgoing, receive

# Done twice they leave what they leave when done once, and answer the same.
REPEATABLE = {
    *("put", "put_verified", "link", "get", "list", "names_in", "walk", "digest"),
    *("open_private", "fetch", "remove", "touch", "usage", "lock", "seal"),
}

WANTED = {"slurm": "sbatch"}  # what must be found on a site, by its scheduler

NOTHING = Outgoing({})

T = TypeVar("T")


class SshTransport:
    """See :class:`hpcml.transports.Transport`.

    hpcml's archive is brought along.

    Attributes
    ----------
    workspace : str
        As it was given; once the site has answered, its literal path.
    round_trips : int
        How often somebody has waited for the site, the way to it apart.
    """

    def __init__(self, site: Site, binding: Binding) -> None:
        self.workspace, self.round_trips = binding.workspace, 0
        self._way = way_to(site, binding)
        self._python = site.agent_python.login or "python3"
        self._wanted = WANTED.get(site.scheduler, "")
        self._modules = site.ssh.login_modules if site.ssh else []
        self._clock, self._chains = Clock(), itertools.count(1)
        self._open: list[Link] = []  # the conversation, once there is one
        self._begin()
        weakref.finalize(self, _close, self._open)
        _transports.add(self)

    def _begin(self) -> None:
        self._open.clear()
        self._connecting = threading.Lock()
        self._mine = _OfThread()

    # --- the contract ---------------------------------------------------------------------

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        (code, out, _), printed = self._call("run", list(argv), body=Outgoing({"": stdin}))
        return Completed(tuple(argv), code, printed[:out], printed[out:])

    def put(self, files: Mapping[str, bytes | Path]) -> None:
        body = Outgoing(files)
        self._tell("put", body.sizes, body=body)

    def publish(
        self,
        folder: str,
        files: Mapping[str, bytes],
        empty: Iterable[str] = (),
        synced: Iterable[str] = (),
    ) -> bool:
        body = Outgoing(files)
        names = list(empty), list(synced)
        return bool(self._call("publish", folder, body.sizes, *names, body=body)[0])

    def get(self, paths: Mapping[str, int]) -> dict[str, bytes]:
        sizes, content = self._call("get", dict(paths))
        stream = io.BytesIO(content)
        return {name: stream.read(size) for name, size in sizes}

    def list(self, folder: str) -> list[FileStatus] | None:
        entries = self._call("list", folder)[0]
        return None if entries is None else [FileStatus(*entry) for entry in entries]

    def names(self, folder: str) -> set[str] | None:
        return self.names_in([folder]).get(folder)

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        found = self._call("names_in", list(folders))[0]
        return {folder: set(names) for folder, names in found.items()}

    def walk(self, paths: Iterable[str]) -> dict[str, dict[str, FileStatus]]:
        found = self._call("walk", list(paths))[0]
        return {path: by_name(entries) for path, entries in found.items()}

    def digest(self, paths: Iterable[str]) -> dict[str, Digest]:
        found = self._call("digest", list(paths))[0]
        return {path: Digest(*said) for path, said in found.items()}

    def put_once(self, files: Mapping[str, bytes]) -> set[str]:
        body = Outgoing(files)
        return set(self._call("put_once", body.sizes, body=body)[0])

    def put_verified(
        self, files: Mapping[str, Path], digests: Mapping[str, str], executable: Collection[str]
    ) -> set[str]:
        body = Outgoing(files, filled_up=True)
        rows = [[name, size, digests[name], name in executable] for name, size in body.sizes]
        return set(self._call("put_verified", rows, body=body)[0])

    def link(self, links: Mapping[str, str]) -> None:
        self._tell("link", dict(links))

    def seal(self, folder: str) -> None:
        self._call("seal", folder)

    def append(self, path: str, record: Mapping[str, Any]) -> None:
        self._tell("append", path, dict(record))

    def open_private(self, path: str) -> BinaryIO:
        return io.BytesIO(self._call("open_private", path)[1])

    def fetch(self, files: Mapping[str, Path]) -> None:
        left = dict(files)

        def once() -> None:
            with told():
                receive(self._ask("fetch", [[*left]], NOTHING).frames(), left)

        self._mended("fetch", once)

    def remove(self, paths: Iterable[str]) -> None:
        self._tell("remove", list(paths))

    def move(self, source: str, target: str) -> bool:
        return bool(self._call("move", source, target)[0])

    def touch(self, paths: Iterable[str], markers: Iterable[str] = ()) -> dict[str, FileStatus]:
        found = self._call("touch", list(paths), list(markers))[0]
        return {path: FileStatus(*entry) for path, entry in found.items()}

    def usage(self, paths: Iterable[str]) -> Usage | None:
        found = self._call("usage", list(paths))[0]
        return None if found is None else Usage(*found)

    @contextmanager
    def holding(self, *, alone: bool = False) -> Iterator[None]:
        link, held = until_free(self.workspace, alone, lambda: self._lock(alone))
        self._mine.held.append(link)
        try:
            yield
        finally:
            if link in self._mine.held:  # not in a child that was forked within the block
                self._mine.held.remove(link)
            with suppress(Lost):  # then the site has let go of it, or the parent will
                link.ask("unlock", [held]).gone = True

    @contextmanager
    def together(self) -> Iterator[None]:
        mine = self._mine
        if mine.chain is not None:
            yield
            return
        mine.chain = next(self._chains)
        try:
            yield
            if mine.under_way:
                self._mended("what was to be written", self._settle)
        finally:
            for answer in mine.under_way:
                answer.gone = True
            mine.chain, mine.under_way = None, []

    def now(self) -> float:
        if not self._clock.is_known:
            self._call("names_in", [])
        return self._clock.now()

    def close(self) -> None:
        """End the conversation; the next call begins another one."""
        _close(self._open)

    def _lock(self, alone: bool) -> tuple[Link, int] | None:
        try:
            held = self._call("lock", alone)[0]
            return None if held is None else (self._connected(), held)
        except KeyboardInterrupt:  # it may be held, and nobody would let go of it
            self.close()
            raise

    # --- requests -------------------------------------------------------------------------

    def _tell(self, call: str, *args: Any, body: Outgoing = NOTHING) -> None:
        """A request that answers nothing: together with others, it is not waited for."""
        if self._mine.chain is None:
            self._call(call, *args, body=body)
            return
        try:
            self._mine.under_way.append(self._ask(call, args, body))
        except Lost as lost:
            raise self._in_doubt(call) from lost

    def _call(self, call: str, *args: Any, body: Outgoing = NOTHING) -> tuple[Any, bytes]:
        """A request, and its answer."""

        def once() -> Frame:
            answer = self._ask(call, args, body)
            self._settle()
            return answer.wait()

        head, content = self._mended(call, once)
        return head["result"], content

    def _mended(self, call: str, once: Callable[[], T]) -> T:
        """Do it once more over another connection if one was lost, where that is safe.

        Raises
        ------
        TransportError
            It cannot be done; or nobody can say whether it was.
        """
        self.round_trips += 1
        alone = not (self._mine.under_way or self._mine.held)
        try:
            return once()
        except Lost as lost:
            if call not in REPEATABLE or not alone:
                raise self._in_doubt(call) from lost
        try:
            return once()
        except Lost as lost:
            raise UnreachableError(
                f"the connection to {self._way.site} was lost, and lost again",
                f"See whether `{self._way.by_hand}` works by hand.",
            ) from lost

    def _settle(self) -> None:
        """Wait for what was not waited for, in its order."""
        while self._mine.under_way:
            self._mine.under_way.pop(0).wait()

    def _ask(self, call: str, args: Sequence[Any], body: Outgoing) -> Answer:
        with told():
            link = self._connected()
            return link.ask(call, list(args), body.pieces(), body.size, self._mine.chain)

    def _connected(self) -> Link:
        """The conversation there is, or a new one."""
        with self._connecting:
            link = self._open[0] if self._open else None
            if any(held is not link or held.dead for held in self._mine.held):
                raise TransportError(
                    f"the connection to {self._way.site} was lost, and with it the hold on what "
                    "is there",
                    "Do it again; `hpcml resume` goes on with a submission.",
                )
            if link is None or link.dead:
                link = Link(
                    self._way,
                    self._python,
                    self.workspace,
                    library(),
                    self._wanted,
                    self._modules,
                    self._clock,
                )
                self._open[:] = [link]
                self.workspace = link.workspace
            return link

    def _in_doubt(self, call: str) -> TransportError:
        return UnreachableError(
            f"the connection to {self._way.site} was lost: {call} may have been done, or not",
            "Look before you do it again; `hpcml resume` does, for a submission.",
        )


def _close(links: list[Link]) -> None:
    for link in links:
        link.close()


class _OfThread(threading.local):
    """What a thread is in the middle of.

    Attributes
    ----------
    chain : int or None
        Of the block in which it does not wait.
    under_way : list of Answer
        What it has not waited for there.
    held : list of Link
        Conversations in which it holds the workspace.
    """

    def __init__(self) -> None:
        self.chain: int | None = None
        self.under_way: list[Answer] = []
        self.held: list[Link] = []


def way_to(site: Site, binding: Binding) -> Way:
    """How a site is reached: by the profile, or by the settings' host as OpenSSH knows it.

    The profile's port, jump host and IP version belong to its own host.

    Raises
    ------
    ProfileError
        Nobody says so.
    """
    ours = binding.user, binding.ssh_config
    if binding.ssh_host is not None:
        return Way(site.name, binding.ssh_host, *ours)
    if site.ssh is None:
        raise ProfileError(
            f"{site.name} is reached by ssh, and nothing says which host that is",
            f"Write ssh: {{host: ...}} into the profile, or sites.{site.name}.ssh_host into the "
            "settings.",
        )
    facts = site.ssh
    return Way(site.name, facts.host, *ours, port=facts.port, jump=facts.jump, ipv4=facts.ipv4)


_transports: weakref.WeakSet[SshTransport] = weakref.WeakSet()


def _begin_all_anew() -> None:
    for transport in list(_transports):
        transport._begin()


os.register_at_fork(after_in_child=_begin_all_anew)
