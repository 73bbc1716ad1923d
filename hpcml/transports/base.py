"""What transports have in common."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hpcml.agent import files, trees, wire
from hpcml.errors import TransportError

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


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """Where to make a file or folder that appears whole at the end of the block."""
    temporary = destination.parent / f".{destination.name}.tmp-{wire.unique()}"
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if temporary.is_dir() and destination.is_dir() and not destination.is_symlink():
            shutil.rmtree(destination)
        temporary.rename(destination)
    except BaseException:
        trees.remove(str(temporary))
        raise


@contextmanager
def told() -> Iterator[None]:
    """What is wrong with a site's files, as TransportError."""
    try:
        yield
    except files.Trouble as trouble:
        raise TransportError(trouble.problem, trouble.advice) from trouble.__cause__
