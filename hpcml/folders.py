"""Where hpcml keeps its files, by the XDG base-directory specification."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hpcml.errors import HpcmlError

TORN = re.compile(r"\.tmp-.+-\d+-[a-z2-7]{8}")  # as hpcml.agent.wire.publish calls them
TORN_AFTER = 3600.0  # seconds; writing takes less than one, and clocks of file systems may be off


def config_folder() -> Path:
    """``$XDG_CONFIG_HOME/hpcml``."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """``$XDG_STATE_HOME/hpcml``: what the client must not lose."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/hpcml``: what can be made again."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path:
    """``$XDG_DATA_HOME/hpcml``: the embedded site's default workspace."""
    return _xdg("XDG_DATA_HOME", ".local/share")


def remove_torn(folder: Path) -> None:
    """Remove what processes have left that were killed at writing, and nobody else's files."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            torn = TORN.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > TORN_AFTER
            if torn and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The base-directory specification says to ignore relative paths.
    return _ours(value) if value.startswith("/") else _ours(str(_home() / default))


@lru_cache(maxsize=16)  # they are asked for all the time
def _ours(folder: str) -> Path:
    return Path(folder, "hpcml")


def _home() -> Path:
    home = Path.home()
    if not home.is_absolute():
        problem = f"HOME is {str(home)!r}, which is not a path from the root"
        raise HpcmlError(problem, "Set it to your home folder.")
    return home
