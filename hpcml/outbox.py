"""The files of the outbox: one a batch, on disk for good once it is there.

To make and to remove such a file costs several times what it takes to write over one. So a process
that submits again and again has one file for all its batches, under the name of each in turn.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from pathlib import Path

from hpcml.agent import wire
from hpcml.folders import remove_torn
from hpcml.settings import private_folder

LARGEST = 1 << 16  # bytes of a file that are kept for the next batch

# By process, since its children must not write to it, and folder.
_left: dict[tuple[int, str], str] = {}  # the file that nobody needs at the moment
_used: set[tuple[int, str]] = set()  # who has saved a batch before, and may do so again


def save(path: str, line: bytes) -> None:
    """Make a file of one line appear whole, and be there after a power loss, too.

    Parameters
    ----------
    path : str
        Its folder is made if it is not there.
    line : bytes
        Where a longer one was it gets blanks before its end.

    Raises
    ------
    OSError
        It cannot be written, and is not there.
    HpcmlError
        Others may write to its folder.
    """
    temporary, descriptor = _open(os.path.dirname(path))
    try:
        try:
            size = os.fstat(descriptor).st_size
            if size > LARGEST:
                os.ftruncate(descriptor, 0)
            elif size > len(line):
                line = line[:-1].ljust(size - 1) + b"\n"
            wire.write_whole(descriptor, line)
            os.rename(temporary, path)
            temporary = path
            os.fsync(descriptor)  # after it has its name, or that would not be on disk
        finally:
            os.close(descriptor)
    except BaseException:
        _remove(temporary)
        raise


def forget(path: str) -> None:
    """Take a file out of the outbox; it may be gone."""
    key = os.getpid(), os.path.dirname(path)
    if key not in _used:
        _used.add(key)
        remove_torn(Path(key[1]))  # of processes that could not tidy up
        return _remove(path)
    if key in _left:
        return _remove(path)
    kept = _temporary(key[1])
    with suppress(FileNotFoundError):
        os.rename(path, kept)
        if _left.setdefault(key, kept) != kept:  # another thread was quicker
            _remove(kept)
    return None


def _open(folder: str) -> tuple[str, int]:
    """A file to write to, which nobody else knows: what is left of the last one, or a new one."""
    left = _left.pop((os.getpid(), folder), None)
    if left is not None:
        with suppress(FileNotFoundError):  # somebody has tidied up
            return left, os.open(left, os.O_WRONLY | os.O_CLOEXEC)
    private_folder(Path(folder))
    path = _temporary(folder)
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _temporary(folder: str) -> str:
    return f"{folder}/.tmp-{wire.unique()}"


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


@atexit.register
def _tidy_up() -> None:
    for process, folder in [*_left]:
        if process == os.getpid():
            _remove(_left.pop((process, folder)))
