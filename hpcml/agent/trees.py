"""Folders: what they take on the disk, and how to remove them whatever is in them.

Jobs leave what they like: read-only folders, thousands of levels, links to everywhere, mounts. No
link is followed here, and no other file system entered.
"""

import os
import re
import stat
from contextlib import suppress
from typing import NamedTuple

from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable

BLOCK = 512  # bytes in st_blocks, whatever the file system's own blocks are


class Usage(NamedTuple):
    """What files and folders take on the disk.

    Attributes
    ----------
    bytes : int
        Of blocks that would be free without them.
    shared : int
        Bytes of files in them that have further hard links elsewhere, each file counted once.
    entries : int
        Files, folders and links.
    foreign : str
        Path of something in them that is another user's, or of another file system; else empty.
    whole : bool
        Whether every folder could be read: else all figures are lower bounds.
    """

    bytes: int = 0
    shared: int = 0
    entries: int = 0
    foreign: str = ""
    whole: bool = True


def usage(paths: "Iterable[str]") -> "Usage | None":
    """What files and whole folders take together; ``None`` if none of them is there."""
    count = _Count()
    for path in paths:
        count.add(path)
    return count.result() if count.entries else None


def move(source: str, target: str) -> bool:
    """Rename; ``False`` if there is no such thing (any more)."""
    try:
        try:
            os.rename(source, target)
        except PermissionError:  # moving a folder writes to it: its ".." changes
            open_up(source)
            os.rename(source, target)
    except FileNotFoundError:  # somebody may have moved it, and have made it anew by now
        if os.path.lexists(source) and not os.path.isdir(os.path.dirname(target)):
            raise
        return False
    return True


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it is there; others may be at it, too.

    No level is too deep, and no path too long: what lies deep is moved up first. As a place where
    something is mounted cannot be moved, nothing behind it is ever touched.

    Raises
    ------
    OSError
        Something in it cannot be removed.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return _unlink(path)
        open_up(path)
        folders = _unlink_files(path)
        while folders:
            for folder in folders:
                _flatten(folder, path)
            folders = _unlink_files(path)
        os.rmdir(path)
    return None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except PermissionError:
        open_up(os.path.dirname(path))
        os.unlink(path)


def seal(folder: str) -> None:
    """Let not even its owner change a folder and what is in it."""
    if os.path.islink(folder):
        return  # it leads elsewhere
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = os.path.join(path, name)
            mode = os.lstat(file).st_mode
            if stat.S_ISREG(mode) and mode & 0o222:
                os.chmod(file, stat.S_IMODE(mode) & ~0o222)
        os.chmod(path, stat.S_IRUSR | stat.S_IXUSR)


def open_up(folder: str) -> None:
    """Let its owner read and change a folder."""
    mode = os.lstat(folder).st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(folder, stat.S_IRWXU)


class _Count:
    """Adds up blocks."""

    def __init__(self) -> None:
        self.bytes = self.entries = 0
        self.foreign, self.whole = "", True
        self._user = os.geteuid()
        self._mounts = _mount_points()
        self._links: "dict[tuple[int, int], list[int]]" = {}  # bytes, links, links seen

    def add(self, path: str) -> None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        above, name = os.path.split(path)
        path, device = os.path.join(os.path.realpath(above), name), status.st_dev
        folders = [path] if self._count(path, status, device) else []
        while folders:
            folders += self._list(folders.pop(), device)

    def result(self) -> Usage:
        shared = 0
        for size, links, seen in self._links.values():
            if seen < links:
                shared += size
            else:
                self.bytes += size
        return Usage(self.bytes, shared, self.entries, self.foreign, self.whole)

    def _list(self, folder: str, device: int) -> "list[str]":
        """Count what is in a folder. Returns the folders in it."""
        found = []
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if self._count(entry.path, status, device):
                            found.append(entry.path)
        except FileNotFoundError:
            pass  # somebody has just removed it
        except OSError:
            self.whole = False  # not readable, or its path is too long
        return found

    def _count(self, path: str, status: "os.stat_result", device: int) -> bool:
        """Count an entry. Returns whether it is a folder to go into."""
        self.entries += 1
        is_folder = stat.S_ISDIR(status.st_mode)
        # Of files an overlay may show the device that they lie on.
        elsewhere = path in self._mounts or (is_folder and status.st_dev != device)
        if elsewhere or status.st_uid != self._user:
            self.foreign = self.foreign or path
        if elsewhere:
            return False
        size = status.st_blocks * BLOCK
        if is_folder:
            self.bytes += size
            return True
        if status.st_nlink > 1:
            key = status.st_dev, status.st_ino
            self._links.setdefault(key, [size, status.st_nlink, 0])[2] += 1
        else:
            self.bytes += size
        return False


def _mount_points() -> "frozenset[str]":
    """Where something is mounted; a folder of the same file system may be, too."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            paths = [line.split()[4] for line in file]
    except OSError:  # not Linux: then st_dev has to do
        return frozenset()
    return frozenset(
        re.sub(r"\\(\d{3})", lambda code: chr(int(code.group(1), 8)), p) for p in paths
    )


def _unlink_files(folder: str) -> "list[str]":
    """Remove what is no folder from a folder. Returns the folders in it."""
    with os.scandir(folder) as listing:
        entries = list(listing)
    folders = []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            with suppress(FileNotFoundError):
                os.unlink(entry.path)
    return folders


def _flatten(folder: str, root: str) -> None:
    """Remove a folder right below ``root``, once the folders in it have moved beside it."""
    with suppress(FileNotFoundError):
        place = os.path.join(root, wire.unique())
        os.rename(folder, place)  # before anything in it is touched
        open_up(place)
        for inner in _unlink_files(place):
            move(inner, os.path.join(root, wire.unique()))
        os.rmdir(place)
