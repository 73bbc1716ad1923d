"""What transports have in common."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hpcml.agent import files, wire
from hpcml.errors import TransportError
from hpcml.transports import FileStatus

PATIENCE, INTERVAL = 10.0, 0.05  # seconds to wait for the workspace alone, and between two tries

T = TypeVar("T")


def until_free(workspace: str, alone: bool, lock: Callable[[], T | None]) -> T:
    """Try to lock a workspace until it works: to have it alone, for 10 s at most.

    Raises
    ------
    TransportError
        Somebody else holds it.
    """
    deadline = time.monotonic() + PATIENCE
    while (held := lock()) is None:
        if alone and time.monotonic() >= deadline:
            raise TransportError(
                f"somebody is submitting to {workspace}, or pruning it",
                "Try again when that is over.",
            )
        time.sleep(INTERVAL)
    return held


class Arriving:
    """A file that appears whole, once all of it has come.

    Parameters
    ----------
    target : Path
    mode, mtime : int
        What it will have; the time in ns since the epoch.
    """

    def __init__(self, target: Path, mode: int, mtime: int) -> None:
        self._target, self._mode, self._mtime = target, mode, mtime
        self._temporary = target.parent / f".tmp-{wire.unique()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600)

    def write(self, data: bytes) -> None:
        """Write on."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def appear(self) -> None:
        """That was all of it."""
        os.utime(self._descriptor, ns=(self._mtime, self._mtime))
        os.fchmod(self._descriptor, self._mode)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        os.rename(self._temporary, self._target)

    def __enter__(self) -> Arriving:
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._temporary.unlink(missing_ok=True)  # it has not appeared


def by_name(entries: Iterable[Sequence[Any]]) -> dict[str, FileStatus]:
    """What :meth:`hpcml.agent.files.Files.walk` says."""
    return {entry[0]: FileStatus(*entry) for entry in entries}


class told:
    """What is wrong with a site's files, as TransportError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, files.Trouble):
            raise TransportError(error.problem, error.advice) from error.__cause__
