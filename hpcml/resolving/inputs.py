"""Digests of a job's inputs; an unchanged file costs a stat, not a read.

A manifest in the cache remembers size, times and inode of each file with its digest. It is only a
memory: lost, everything is read again.
"""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

from hpcml import units
from hpcml.agent import wire
from hpcml.errors import JobError, nearest
from hpcml.settings import cache_folder, private_folder

LONG_READ = 64 << 20  # bytes that are read at once also when nothing may take long
RACY = 2 * 10**9  # ns within which a file may change without its mtime telling

Known = dict[str, list[int | str]]
Row = tuple[str, str, str]


def digest_input(field: str, path: Path, *, long_reads: bool) -> tuple[str | None, str, str]:
    """Digest of a file's content, or of all files of a folder.

    Parameters
    ----------
    field : str
        Of the job, which errors name.
    path : Path
    long_reads : bool
        Whether it may take long.

    Returns
    -------
    digest : str or None
        ``None`` if it would take a long read and ``long_reads`` is False.
    stamp : str
        What :func:`hpcml.agent.wire.stamp_of` says while nobody has touched the files since; empty
        if they are too young for their times to tell.
    why : str
        Why there is none.

    Raises
    ------
    JobError
        Nothing is there, or it cannot be read.
    """
    rows, stamp, why = _look(field, path, long_reads)
    return None if why else _digest_of(rows), stamp, why


def content_of(field: str, path: Path) -> tuple[list[Row], str]:
    """What a file or folder consists of (:func:`hpcml.agent.wire.tree_digest`), and its digest.

    Raises
    ------
    JobError
        As :func:`digest_input`.
    """
    rows, _, _ = _look(field, path, True)
    return rows, _digest_of(rows)


def _digest_of(rows: list[Row]) -> str:
    return rows[0][2] if len(rows) == 1 and not rows[0][0] else wire.tree_digest(rows)


def _look(field: str, path: Path, long_reads: bool) -> tuple[list[Row], str, str]:
    """The rows of a file or folder, its stamp, and why some of them are missing."""
    try:
        if not path.exists():
            there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise JobError(field, f"there is no {path}", nearest(path.name, there))
        files = list(wire.walk(str(path))) if path.is_dir() else [("", str(path))]
        _refuse_special(field, files)
        return _read(path, files, long_reads)
    except (OSError, UnicodeEncodeError) as error:
        raise JobError(field, f"{path} cannot be read: {error}", "Mend or leave it out.") from error


def _refuse_special(field: str, files: list[tuple[str, str]]) -> None:
    """A pipe would be waited for, for ever."""
    for relative, full in files:
        mode = (os.lstat if relative else os.stat)(full).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise JobError(field, f"{full} is neither a file nor a folder", "Give files.")


def _read(path: Path, files: list[tuple[str, str]], long_reads: bool) -> tuple[list[Row], str, str]:
    manifest = cache_folder() / "digests" / f"{wire.sha256(os.fsencode(path))}.json"
    known = _load(manifest)
    rows: list[Row] = []
    entries: Known = {}
    stamps: list[list[int | str]] = []
    fresh, unread, young = False, 0, False
    for relative, full in files:
        if os.path.islink(full) and relative:
            rows.append((relative, "link", os.readlink(full)))
            stamps.append([relative, os.readlink(full)])
            continue
        status = os.stat(full)
        seen = known.get(relative)
        # The change time betrays who writes and then sets the mtime back (rsync -t --inplace).
        times = status.st_mtime_ns, status.st_ctime_ns
        stamp = wire.stamp_of_file(status)
        stamps.append([relative, *stamp])
        kind = "exec" if status.st_mode & 0o100 else "file"
        if seen is not None and seen[:-1] == stamp:
            digest = str(seen[-1])
        elif not long_reads and unread + status.st_size > LONG_READ:
            unread += status.st_size
            continue
        else:
            unread += 0 if long_reads else status.st_size
            now = time.time_ns()
            digest, fresh = wire.sha256_file(full), True
            if now - max(times) < RACY:  # too young to be told apart by its mtime
                stamp[1], young = -1, True
        entries[relative] = [*stamp, digest]
        rows.append((relative, kind, digest))
    if unread > LONG_READ:
        return rows, "", f"{units.memory_text(unread)} of {path} have not been read yet"
    if fresh and long_reads:  # offline, nothing is written
        _save(manifest, entries)
    return rows, "" if young else wire.stamp_of(stamps), ""


def _load(manifest: Path) -> Known:
    try:
        known = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _save(manifest: Path, entries: Known) -> None:
    try:
        private_folder(manifest.parent)
        wire.publish(str(manifest), json.dumps(entries).encode())
    except OSError:
        pass  # a memory only: next time everything is read again
