"""Where profiles are looked for, one folder after the other."""

from __future__ import annotations

import os
import re
import sys
import warnings
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from hpcml.documents import remembered
from hpcml.errors import ArgumentError, ProfileError
from hpcml.folders import config_folder

SITE_PATH = "HPCML_SITE_PATH"
PROJECT = "site-configs"
PLUGINS = "hpcml.sites"
SUFFIX = ".yaml"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # no path, whatever stands in `extends`
BASE = "_"  # begins the names of what is only there to be extended


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a site.

    Raises
    ------
    ArgumentError
    """
    if not NAME.fullmatch(name):
        problem = f"{name!r} is no name"
        raise ArgumentError(problem, "A name is letters, digits and . _ + -, and no path.")


class Layer(NamedTuple):
    """A folder of profiles. Those of a project may be somebody else's, and are not just obeyed."""

    folder: Traversable
    of_project: bool = False


def layers() -> list[Layer]:
    """Where profiles are looked for; the first that has a name counts.

    ``$HPCML_SITE_PATH``, the project's ``site-configs/``, yours, those of plugins, hpcml's own.
    """
    named = os.environ.get(SITE_PATH, "").split(":")
    path = tuple(os.path.abspath(folder) for folder in named if folder)
    return _layers(path, _project(), config_folder())


@lru_cache(maxsize=16)  # it is asked for all the time
def _layers(path: tuple[str, ...], project: str | None, config: Path) -> list[Layer]:
    return [
        *(Layer(Path(folder), of_project=folder == project) for folder in path),
        *([Layer(Path(project), of_project=True)] if project and project not in path else []),
        Layer(config / "sites"),
        *_plugins(),
        Layer(packaged()),
    ]


@lru_cache(maxsize=256)  # likewise
def file_in(layer: Layer, name: str) -> Traversable:
    """Where the file of a profile is, if the layer has it."""
    return layer.folder / f"{name}{SUFFIX}"


@cache
def packaged() -> Traversable:
    """In the package, which may be an archive that travels; in a checkout it is beside it."""
    inside = resources.files("hpcml") / PROJECT
    checkout = Path(__file__).resolve().parents[2] / PROJECT
    return inside if inside.is_dir() else checkout


def names_in(folder: Traversable) -> list[str]:
    """Names of the profiles in a folder, with those that are only there to be extended.

    Raises
    ------
    ProfileError
        It cannot be read.
    """
    try:
        found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        problem = f"{folder} cannot be read: {error.strerror}"
        raise ProfileError(problem, "Mend its permissions.") from error
    names = (name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))
    return sorted(name for name in names if NAME.fullmatch(name))


def _project() -> str | None:
    """Of the git repository that one stands in; without a repository, of the folder itself."""
    try:
        here = root = os.getcwd()
    except OSError:  # it was removed
        return None
    while not os.access(f"{root}/.git", os.F_OK):
        if not root.strip("/"):
            root = here
            break
        root = root.rpartition("/")[0]
    folder = f"{root.rstrip('/')}/{PROJECT}"
    own = os.path.isdir(folder) and os.path.realpath(folder) != str(packaged())
    return folder if own else None


@cache
def _plugins() -> tuple[Layer, ...]:
    """Packages that have profiles in them, by their entry points' names."""
    found = []
    for name, module in _entry_points():
        try:
            found.append(Layer(resources.files(module)))
        except Exception as error:  # whatever its import may raise: other sites go on
            warnings.warn(f"profiles of the plugin {name}: {error}", stacklevel=2)
    return tuple(found)


def _entry_points() -> list[list[str]]:
    """Name and module of each plugin; as remembered, while what is installed is the same.

    Looking through all that is installed takes longer than the rest of a plan. What installs or
    removes a package changes a folder of ``sys.path``, as importlib itself takes it.
    """
    folders = [os.path.abspath(folder) for folder in sys.path]
    changes = [_changed(folder) for folder in folders]
    known = remembered.recall_data(PLUGINS, folders)
    if isinstance(known, dict) and known["changes"] == changes:
        found: list[list[str]] = known["found"]
        return found
    from importlib.metadata import entry_points  # it loads much

    found = sorted([point.name, point.module] for point in entry_points(group=PLUGINS))
    remembered.keep_data(PLUGINS, folders, {"changes": changes, "found": found})
    return found


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0  # not there
