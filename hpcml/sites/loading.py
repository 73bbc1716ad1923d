"""From a site's name to its profile."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from hpcml.documents import (
    Mark,
    Marks,
    Place,
    changed,
    check_model,
    parse,
    raise_first,
    read_text,
    wrong_at,
    wrong_in,
)
from hpcml.errors import ArgumentError, ProfileError, nearest
from hpcml.folders import config_folder, data_folder
from hpcml.sites.layers import BASE, NAME, SUFFIX, file_in, layers, names_in, packaged
from hpcml.sites.profile import Partition, Site
from hpcml.sites.sourced import Origins, facts_of, joined_origins
from hpcml.sites.trust import demand_trust


class _Text(NamedTuple):
    path: str
    text: str
    of_project: bool


class _Found(NamedTuple):
    """The file of a profile, and the number of the layer below its own."""

    file: Traversable
    below: int
    of_project: bool


_Texts = tuple[_Text, ...]  # of a profile, then of what it extends, and so on


class _Joined(NamedTuple):
    """What a profile says with what it extends."""

    content: dict[str, Any]
    marks: Marks
    origins: Origins
    wrong: list[ProfileError]


def packaged_profiles() -> list[Traversable]:
    """The profiles that come with hpcml, by name."""
    return [packaged() / f"{name}{SUFFIX}" for name in names_in(packaged())]


def site_names(*, bases: bool = False) -> list[str]:
    """Names of all sites that can be found.

    Parameters
    ----------
    bases : bool
        With the profiles that are only there to be extended, whose names begin with ``_``.
    """
    found = {name for layer in layers() for name in names_in(layer.folder)}
    return sorted(name for name in found if bases or not name.startswith(BASE))


def load_site(name: str) -> Site:
    """Read a profile, with what it extends, and measure what it calls ``auto``.

    Raises
    ------
    ProfileError
        There is none of that name, or it is wrong: file, line and key are named.
    UntrustedError
        A project's file acts as the user, who has not agreed to that.
    """
    texts = _texts(_name(name))
    of_project = [(it.path, it.text, _facts(it)[0]) for it in texts if it.of_project]
    demand_trust(name, of_project)
    return _measured_site(_load(name, texts))


def read_site(name: str) -> Site:
    """As :func:`load_site`, to be looked at only: nobody has to agree to it.

    Raises
    ------
    ProfileError
        As :func:`load_site`.
    """
    return _measured_site(_load(name, _texts(_name(name))))


def wrong_with(name: str, file: Traversable | None = None) -> list[ProfileError]:
    """All that is wrong with a profile, of a file that may lie anywhere."""
    try:
        texts = _texts(name) if file is None else _texts_from(_Found(file, 0, False), name, ())
        joined = _joined(name, texts)
    except ProfileError as error:
        return [error, *error.others]
    whole = not name.startswith(BASE)
    wrong = wrong_in(Site, joined.content, joined.marks, texts[0].path, whole=whole)
    return [*joined.wrong, *wrong]


def profile_of(name: str) -> Traversable:
    """The file of a profile.

    Raises
    ------
    ProfileError
        There is none of that name.
    """
    return _find(name).file


def places_of(name: str) -> dict[tuple[str, ...], str]:
    """Where each fact of a profile, and of what it extends, is said: file and line, by its keys.

    A fact that is nowhere said has no entry: it is hpcml's default.

    Raises
    ------
    ProfileError
        As :func:`load_site`.
    """
    texts = _texts(name)
    joined = _joined(name, texts)
    path = texts[0].path
    found = {}
    for place, mark in joined.marks.items():
        if place not in joined.origins:
            continue
        measured = "measured, as asked in " if _said(joined.content, place) == "auto" else ""
        found[tuple(map(str, place))] = f"{measured}{mark.file}, line {mark.line}"
    if joined.marks.get(("name",), Mark(path, 1, 1)).file != path:
        found["name",] = path  # it is called as its file is, not as what it extends
    return found


def _name(name: object) -> str:
    if not isinstance(name, str):
        problem = f"site: {name!r} is no name"
        raise ArgumentError(problem, f'Write it like site="local"; {nearest("", site_names())}.')
    if name.startswith(BASE) and NAME.fullmatch(name):
        problem = f"there is no site {name!r}: such a profile is only there to be extended"
        raise ProfileError(problem, f"{nearest(name, site_names())}.")
    return name


def _find(name: str, asked: str = "", below: int = 0) -> _Found:
    if not NAME.fullmatch(name):
        problem = f"{asked}there is no site {name!r}: that is no name"
        raise ProfileError(problem, "A name is letters, digits and . _ + -, and no path.")
    for number, layer in enumerate(layers()[below:], below):
        file = file_in(layer, name)
        if os.path.lexists(file) if isinstance(file, Path) else file.is_file():
            return _Found(file, number + 1, layer.of_project)
    where = " below it" if below else ""
    others = nearest(name, set(site_names()) - {name})
    raise ProfileError(
        f"{asked}there is no site {name!r}{where}",
        f"{others}; profiles of your own go to {config_folder() / 'sites'}.",
    )


def _texts(name: str) -> _Texts:
    return _texts_from(_find(name), name, ())


def _texts_from(found: _Found, name: str, inner: tuple[str, ...]) -> _Texts:
    """The texts of a profile, and of what it extends: in NAME.yaml, NAME is the next one below."""
    file, below, of_project = found
    path = str(file)
    if path in inner:
        circle = inner[inner.index(path) :]
        chain = " → ".join(os.path.basename(one).removesuffix(SUFFIX) for one in circle)
        raise ProfileError(f"{path}: it extends itself by way of {chain}", "Break the circle.")
    said = read_text(file)
    text = _Text(path, said, of_project and said != _packaged_text(name))
    content, marks = parse(text.text, path)
    base = content.get("extends")
    if base is None:
        return (text,)
    asked = f"{marks['extends',]}, key extends: "
    found = _find(str(base), asked, below if base == name else 0)
    return (text, *_texts_from(found, str(base), (*inner, path)))


def _packaged_text(name: str) -> str | None:
    """Of the profile that comes with hpcml: in a checkout of hpcml, the project has the same."""
    file = packaged() / f"{name}{SUFFIX}"
    return read_text(file) if file.is_file() else None


def _facts(text: _Text) -> tuple[dict[str, Any], Origins, list[ProfileError]]:
    """What a file says of its site, as :func:`hpcml.sites.sourced.facts_of` gives it."""
    content, marks = parse(text.text, text.path)
    own = {key: value for key, value in content.items() if key != "extends"}
    return facts_of(own, marks, text.path)


@lru_cache(maxsize=64)  # each submission looks at its site's profile
def _load(name: str, texts: _Texts) -> Site:
    joined = _joined(name, texts)
    if joined.wrong:
        raise_first(joined.wrong)
    site = check_model(Site, joined.content, joined.marks, texts[0].path)
    told = {".".join(map(str, place)): origin for place, origin in joined.origins.items()}
    return changed(site, origins=told)


def _joined(name: str, texts: _Texts) -> _Joined:
    """What a profile says with what it extends; it is called as its own file is."""
    content: dict[str, Any] = {}
    marks: Marks = {}
    origins: Origins = {}
    wrong: list[ProfileError] = []
    for text in reversed(texts):
        facts, theirs, mistakes = _facts(text)
        content = _merged(content, facts)
        marks = {**marks, **parse(text.text, text.path)[1]}
        origins = joined_origins(origins, theirs)
        wrong += mistakes
    path = texts[0].path
    own_name = parse(texts[0].text, path)[0].get("name")
    if own_name is not None and own_name != name:  # runs remember the name, and are looked for so
        problem = f"it says {own_name!r}, the file is {name}{SUFFIX}"
        wrong.append(wrong_at(marks, ("name",), path, problem, f"Write name: {name}"))
    if len(texts) > 1:
        content["name"] = name
    return _Joined(content, marks, origins, wrong)


def _said(content: Any, place: Place) -> Any:
    for key in place:
        content = content[key]
    return content


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _measured_site(site: Site) -> Site:
    partitions = {key: _measured(part) for key, part in site.partitions.items()}
    workspace = site.workspace and site.workspace.replace("{data}", str(data_folder()))
    if workspace == site.workspace and all(
        measured is site.partitions[key] for key, measured in partitions.items()
    ):
        return site
    return changed(site, partitions=partitions, workspace=workspace)


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
    return changed(partition, node=changed(node, **found))
