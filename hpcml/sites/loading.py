"""From a site's name to its profile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hpcml.documents import Lines, Place, check_model, parse, read_text
from hpcml.errors import ArgumentError, ProfileError, nearest
from hpcml.settings import config_folder, data_folder
from hpcml.sites.profile import Partition, Site
from hpcml.sites.sourced import Origins, facts_of, joined_origins

Texts = tuple[tuple[str, str], ...]  # of a profile, then of what it extends, and so on


# Keys that say something of a file, not of a site: what it adds to, and that it is itself no site.
ABOUT_THE_FILE = ("extends", "abstract")


def profile_folders() -> list[Traversable]:
    """Where profiles are looked for: yours first, then those that come with hpcml."""
    return [config_folder() / "sites", _packaged()]


def packaged_profiles() -> list[Traversable]:
    """The profiles that come with hpcml, by name."""
    return sorted(_profiles(_packaged()), key=lambda profile: profile.name)


def site_names() -> list[str]:
    """Names of all sites that can be found."""
    found = {
        profile.name.removesuffix(".yaml")
        for folder in profile_folders()
        for profile in _profiles(folder)
    }
    return sorted(name for name in found if not _is_abstract(name))


def load_site(name: str) -> Site:
    """Read a profile, with what it extends, and measure what it calls ``auto``.

    Raises
    ------
    ProfileError
        There is none of that name, or it is wrong: file, line and key are named.
    """
    if not isinstance(name, str):
        problem = f"site: {name!r} is no name"
        raise ArgumentError(problem, f'Write it like site="local"; {nearest("", site_names())}.')
    site = _load(name, _texts(name))
    partitions = {key: _measured(part) for key, part in site.partitions.items()}
    workspace = site.workspace and site.workspace.replace("{data}", str(data_folder()))
    if workspace == site.workspace and all(
        measured is site.partitions[key] for key, measured in partitions.items()
    ):
        return site
    return site.model_copy(update={"partitions": partitions, "workspace": workspace})


@lru_cache(maxsize=16)  # each submission looks at its site's profile
def _load(name: str, texts: Texts) -> Site:
    content, lines, origins = _joined(name, texts)
    path = texts[0][0]
    if parse(texts[0][1], path)[0].get("abstract"):
        raise ProfileError(f"{path}: {name} is no site: it is abstract", "Choose what extends it.")
    site = check_model(Site, content, path, lines)
    if site.name != name:  # runs remember the name, and are looked for under it
        file, line = lines.get(("name",), (path, 1))
        raise ProfileError(
            f"{file}, line {line}, key name: it says {site.name!r}, the file is {name}.yaml",
            f"Write name: {name}",
        )
    told = {".".join(map(str, place)): origin for place, origin in origins.items()}
    return site.model_copy(update={"origins": told})


def profile_of(name: str) -> Traversable:
    """The file of a profile.

    Raises
    ------
    ProfileError
        There is none of that name.
    """
    return _find(name, "")


def places_of(name: str) -> dict[tuple[str, ...], str]:
    """Where each fact of a profile, and of what it extends, is said: file and line, by its keys.

    A fact that is nowhere said has no entry: it is hpcml's default.

    Raises
    ------
    ProfileError
        As :func:`load_site`.
    """
    texts = _texts(name)
    content, lines, origins = _joined(name, texts)
    path = texts[0][0]
    found = {}
    for place, (file, line) in lines.items():
        if place not in origins:
            continue
        measured = "measured, as asked in " if _said(content, place) == "auto" else ""
        found[tuple(map(str, place))] = f"{measured}{file}, line {line}"
    if "name" in content and lines.get(("name",), (path, 0))[0] != path:
        found["name",] = path  # it is called as its file is, not as what it extends
    return found


def _said(content: Any, place: Place) -> Any:
    for key in place:
        content = content[key]
    return content


@cache
def _packaged() -> Traversable:
    """In the package, which may be an archive that travels; in a checkout it is beside it."""
    packaged = resources.files("hpcml") / "site-configs"
    checkout = Path(__file__).resolve().parents[2] / "site-configs"
    return packaged if packaged.is_dir() else checkout


def _profiles(folder: Traversable) -> Iterator[Traversable]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.name.endswith(".yaml"))


def _texts(name: str, inner: tuple[str, ...] = (), asked: str = "") -> Texts:
    file = _find(name, asked)
    path = str(file)
    if name in inner:
        chain = " → ".join(inner)
        raise ProfileError(f"{path}: it extends itself by way of {chain}", "Break the circle.")
    text = read_text(file)
    content, lines = parse(text, path)
    base = content.get("extends")
    if base is None:
        return ((path, text),)
    asked = f"{path}, line {lines['extends',][1]}, key extends: "
    return ((path, text), *_texts(str(base), (*inner, name), asked))


def _joined(name: str, texts: Texts) -> tuple[dict[str, Any], Lines, Origins]:
    """What a profile says with what it extends; it is called as its own file is."""
    content: dict[str, Any] = {}
    lines: Lines = {}
    origins: Origins = {}
    for path, text in reversed(texts):
        said, places = parse(text, path)
        facts, theirs = facts_of(
            {key: it for key, it in said.items() if key not in ABOUT_THE_FILE}, places, path
        )
        content = _merged(content, facts)
        lines, origins = {**lines, **places}, joined_origins(origins, theirs)
    if len(texts) > 1:
        content["name"] = parse(texts[0][1], texts[0][0])[0].get("name", name)
    return content, lines, origins


def _find(name: str, asked: str) -> Traversable:
    for folder in profile_folders():
        path = folder / f"{name}.yaml"
        if os.sep not in name and path.is_file():
            return path
    raise ProfileError(
        f"{asked}there is no site {name!r}",
        f"{nearest(name, site_names())}; profiles of your own go to {profile_folders()[0]}.",
    )


def _is_abstract(name: str) -> bool:
    """Whether a profile is only there to be extended; one that cannot be read is not."""
    try:
        file = _find(name, "")
        return parse(read_text(file), str(file))[0].get("abstract") is True
    except ProfileError:
        return False


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _measured(partition: Partition) -> Partition:
    node = partition.node
    found: dict[str, int | str] = {}
    if node.cpus == "auto":
        found["cpus"] = len(os.sched_getaffinity(0))
    if node.memory == "auto":
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{pages >> 10} KiB"
    if not found:
        return partition
    return partition.model_copy(update={"node": node.model_copy(update=found)})
