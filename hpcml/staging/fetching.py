"""What a run has left, copied to this machine: what has changed since the last time, in one stream.

Names come from the site. None of them leads out of the folder that they are copied to, and nothing
is ever written through a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hpcml.agent import wire
from hpcml.agent.files import make_link
from hpcml.errors import HpcmlError, TransportError
from hpcml.transports import FileStatus, Transport


class Left(NamedTuple):
    """Something that a run has left: where it lies on the site, and what a listing says of it."""

    path: str
    status: FileStatus


def fetch(files: Transport, left: Mapping[str, Left], folder: Path) -> None:
    """Make a folder hold what a run has left, by names within that folder.

    What is there with the size and time that it has on the site is not sent again. A link that
    stays in the folder is made there as one; of others comes what they lead to.

    Raises
    ------
    HpcmlError
        The folder cannot be made, or a name in it is in the way.
    TransportError
        The site cannot be read, or a file cannot be written here. What came before is there.
    """
    links = {name: one for name, one in left.items() if one.status.kind == "link"}
    inner = {name: one for name, one in links.items() if stays(name, one.status.target)}
    outer = {name: one for name, one in links.items() if name not in inner}
    wanted = {name: one for name, one in left.items() if one.status.kind == "file"}
    wanted.update(_behind(files, outer))
    place = _Folder(folder)
    missing = {}
    for name, one in wanted.items():
        target = place.target(name)
        if not _is_same(target, one.status):
            missing[one.path] = target
    if missing:
        files.fetch(missing)
    for name, one in inner.items():
        _link(place.target(name), one.status.target)


def stays(name: str, target: str) -> bool:
    """Whether a link stays within the folder that its name is relative to.

    After its first step down it may not go up again: it might go down by a link.
    """
    parts = target.split("/")
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and ".." not in parts[up:] and up <= name.count("/")


def _behind(files: Transport, links: Mapping[str, Left]) -> dict[str, Left]:
    """The files that links lead to: one, or all in a folder, whose own links are not followed."""
    found = files.walk([one.path for one in links.values()]) if links else {}
    return {
        name + below: Left(one.path + below, status)
        for name, one in links.items()
        for relative, status in found.get(one.path, {}).items()
        for below in [f"/{relative}" if relative else ""]
        if status.kind == "file"
    }


class _Folder:
    """Where names from a site are to be, and nowhere else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _make(folder)
        self._made = {""}

    def target(self, name: str) -> Path:
        """The path of a name; the folders above it are made."""
        parts = name.split("/")
        if {"", ".", ".."} & {*parts} or "\0" in name:
            problem = f"the site has sent {name!r}, which leads elsewhere"
            raise TransportError(problem, "Look at what the run has left there.")
        self._make_above(parts[:-1])
        return self._folder / name

    def _make_above(self, parts: Iterable[str]) -> None:
        path = ""
        for part in parts:
            path = f"{path}/{part}" if path else part
            if path in self._made:
                continue
            if (self._folder / path).is_symlink():
                raise HpcmlError(
                    f"{self._folder / path} is a link, and a folder on the site",
                    "Remove it, or name another folder: nothing is written through links.",
                )
            _make(self._folder / path)
            self._made.add(path)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the folder {folder} cannot be made: {error.strerror}"
        raise HpcmlError(problem, "Name another one.") from error


def _is_same(target: Path, status: FileStatus) -> bool:
    """Whether a file was copied from the site as it is there now."""
    try:
        here = target.lstat()
    except FileNotFoundError:
        return False
    same = (here.st_size, here.st_mtime) == (status.size, status.mtime)
    return same and stat.S_ISREG(here.st_mode)


def _link(target: Path, text: str) -> None:
    """Make a link appear, if it is not there."""
    if target.is_symlink() and os.readlink(target) == text:
        return
    temporary = target.parent / f".tmp-{wire.unique()}"
    try:
        make_link(str(target), text, str(temporary))
    except OSError as error:
        problem = f"the link {target} cannot be made: {error.strerror}"
        raise HpcmlError(problem, "Name another folder.") from error
