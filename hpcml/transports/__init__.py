"""How a site is reached: the contract. Each transport is a module and an entry point.

Paths are relative to the workspace. What is written appears whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from hpcml.agent.trees import Usage
from hpcml.settings import Binding
from hpcml.sites import Site


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class FileStatus:
    """What a listing says of an entry.

    Attributes
    ----------
    mtime : float
        In s since the epoch, by the site's clock.
    kind : {"file", "folder", "link", "special"}
        Special: pipes, sockets, devices.
    target : str
        Where a link points to; else empty.
    """

    name: str
    size: int
    mtime: float
    kind: str
    target: str = ""


@dataclass(frozen=True)
class Digest:
    """What a site says of the content of a file or folder.

    Attributes
    ----------
    sha256 : str
        As :func:`hpcml.agent.wire.digest_path` says it.
    bytes : int
    stamp : str
        What :func:`hpcml.agent.wire.stamp_path` says there while nobody has touched it since.
    """

    sha256: str
    bytes: int
    stamp: str


def bring(
    files: Transport, path: str, source: Path, there: Mapping[str, FileStatus] | None = None
) -> None:
    """Put a file that is named by its digest, unless the site has it in full.

    After a power loss a name may be there without all of its content. Its time says when somebody
    relied on it last.

    Parameters
    ----------
    there : dict, optional
        What :meth:`Transport.touch` has just said of this path, among others.
    """
    found = files.touch([path]) if there is None else there
    if path not in found or found[path].size != os.stat(source).st_size:
        files.put({path: source})


@runtime_checkable
class Transport(Protocol):
    """Files and commands of a site. Every method raises TransportError if it cannot be done.

    Attributes
    ----------
    workspace : str
        Where its files are, as the settings say; its absolute path once the site has answered.
    """

    workspace: str

    def __init__(self, site: Site, binding: Binding) -> None: ...

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        """Run a command, in no folder to rely on; a non-zero exit code is no error here.

        127: there is no such command; -9: it was killed by that signal. Of the environment here it
        finds ``PATH``, ``HOME``, ``USER``, ``LD_LIBRARY_PATH`` and ``SLURM_CONF``; its answers are
        in English, by UTC.
        """
        ...

    def put(self, files: Mapping[str, bytes | Path]) -> None:
        """Write files of mode 0600, each whole, making their folders (0700)."""
        ...

    def publish(
        self,
        folder: str,
        files: Mapping[str, bytes],
        empty: Iterable[str] = (),
        synced: Iterable[str] = (),
    ) -> bool:
        """Make a folder appear with all its files, and ``empty`` folders, at once.

        ``False``: it is there already and stays as it is. The files that are ``synced``, and the
        folder under its name, are there after a power loss, too.
        """
        ...

    def get(self, paths: Mapping[str, int]) -> dict[str, bytes]:
        """Read files from the given offsets on; missing ones are left out."""
        ...

    def list(self, folder: str) -> list[FileStatus] | None:
        """Entries of a folder; ``None`` if there is no such folder."""
        ...

    def names(self, folder: str) -> set[str] | None:
        """Names in a folder, without the cost of a status each; ``None`` if there is none."""
        ...

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        """As :meth:`names`, of many folders at once; those that are not there are left out."""
        ...

    def walk(self, paths: Iterable[str]) -> dict[str, dict[str, FileStatus]]:
        """All that is below folders, by paths relative to each; those not there are left out.

        Of a file it is itself, as ``""``. A link is followed only if it is one of ``paths``.
        """
        ...

    def digest(self, paths: Iterable[str]) -> dict[str, Digest]:
        """Read files and whole folders there, and say what they hold; missing ones are left out.

        What was digested is on disk for good. Other calls need not wait for this one.
        """
        ...

    def put_once(self, files: Mapping[str, bytes]) -> set[str]:
        """Make one-time facts appear, each whole, in folders that are there.

        Returns the paths that were made; the others stand already, and stay as they are.
        """
        ...

    def put_verified(
        self, files: Mapping[str, Path], digests: Mapping[str, str], executable: Collection[str]
    ) -> set[str]:
        """Write files, each read-only and only if it has the SHA-256 that it must have.

        One that is there already, of the same length, stays. Returns the paths of those that had
        another SHA-256 when they came: nothing was written there.
        """
        ...

    def link(self, links: Mapping[str, str]) -> None:
        """Make symbolic links, each with its target, and their folders."""
        ...

    def seal(self, folder: str) -> None:
        """Make a folder and all that is in it read-only; it can be moved and removed as ever."""
        ...

    def append(self, path: str, record: Mapping[str, Any]) -> None:
        """Append one line of JSON; lines of several writers do not mix."""
        ...

    def open_private(self, path: str) -> BinaryIO:
        """A file that nobody else can have written, opened for reading.

        The file and every folder from the workspace down belong to this user, and no folder can be
        written to by others; neither is a link. TransportError says what is not so.
        """
        ...

    def fetch(self, files: Mapping[str, Path]) -> None:
        """Copy files to this machine, in one stream; those that are gone there are left out.

        Each appears whole, in a folder that is there, with the mode and the time that it has on the
        site. Where that fails, those before it are there.
        """
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files and whole folders; those that are gone are no error.

        A folder goes bit by bit, whatever is in it: links are not followed, mounts not entered.
        """
        ...

    def move(self, source: str, target: str) -> bool:
        """Rename a file or folder within the workspace, at once and on a full disk, too.

        ``False``: it is not there.
        """
        ...

    def touch(self, paths: Iterable[str], markers: Iterable[str] = ()) -> dict[str, FileStatus]:
        """Make the times of files and folders now; those that are not there are left out.

        A time of the last minute may stay.

        ``markers`` say of inputs that they are whole (:func:`hpcml.agent.wire.data_marker`): of
        these, those are left out as well whose input somebody has changed since.
        """
        ...

    def usage(self, paths: Iterable[str]) -> Usage | None:
        """What files and whole folders take on the disk; ``None`` if none of them is there."""
        ...

    def holding(self, *, alone: bool = False) -> AbstractContextManager[None]:
        """Keep the workspace from being pruned within the block; ``alone``: to prune it.

        Any number of processes may hold it, or one alone. Who wants it alone does not wait long:
        TransportError. Killed processes hold nothing.
        """
        ...

    def together(self) -> AbstractContextManager[None]:
        """Go on within the block without waiting for calls that answer nothing.

        What is done, and in which order, is the same as without it: where a call fails, none of
        those after it is done. Only its error may come as that of a later call, or at the end of
        the block.
        """
        ...

    def now(self) -> float:
        """The site's wall clock, in s since the epoch."""
        ...
