"""Bringing the archives that travel (:mod:`hpcml.library`) to a site that does not have them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcml.errors import HpcmlError
from hpcml.library import archive_in_cache, function_library, library, whole_size
from hpcml.transports import FileStatus, Transport, bring


def put_library(
    files: Transport, name: str | None = None, there: Mapping[str, FileStatus] | None = None
) -> None:
    """Bring the archive, or an earlier one of that name, to a site that does not have it yet.

    Parameters
    ----------
    there : dict, optional
        As for :func:`hpcml.transports.bring`.

    Raises
    ------
    HpcmlError
        The earlier one is nowhere any more.
    """
    if not _is_whole_there(name, there):
        _put(files, library(), name, there)


def put_function_library(
    files: Transport, name: str | None = None, there: Mapping[str, FileStatus] | None = None
) -> None:
    """As :func:`put_library`, for the archive that executes functions."""
    if not _is_whole_there(name, there):
        _put(files, function_library(), name, there)


def _is_whole_there(name: str | None, there: Mapping[str, FileStatus] | None) -> bool:
    """Whether a site has an archive as this process has made it, or found it whole."""
    found = there.get(f"lib/{name}") if there and name else None
    return found is not None and found.size == whole_size(str(name))


def _put(
    files: Transport, path: Path, name: str | None, there: Mapping[str, FileStatus] | None
) -> None:
    if name in (None, path.name):
        return bring(files, f"lib/{path.name}", path, there)
    path = archive_in_cache(str(name))
    target = f"lib/{path.name}"
    if path.exists():
        bring(files, target, path, there)
    elif target not in (files.touch([target]) if there is None else there):
        raise HpcmlError(
            f"{path}, which was to run this when it was planned, is not there any more",
            "Cancel the run, and submit the job again.",
        )
