"""Paths of a profile: what stands in braces is filled in, what lies below them is found."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpcml.errors import PlanError
from hpcml.planning.sources import said
from hpcml.settings import Binding
from hpcml.sites import Site

NAME = re.compile(r"\{(\w+)\}")


def filled(path: str, site: Site, binding: Binding, field: str) -> str:
    """A path with your names in it.

    Raises
    ------
    PlanError
        One is not known.
    """

    def name(match: re.Match[str]) -> str:
        value = _yours(binding).get(match[1])
        if value is None:
            advice = f"Write sites.{site.name}.{match[1]} into the settings."
            raise PlanError(field, f"what {match[0]} is in {path} is not known", advice)
        return value

    return NAME.sub(name, path)


def open_names(path: str, site: Site) -> list[str]:
    """What of a path only you can say, and where."""
    return [
        f"what {{{name}}} is in {path} is for your settings to say: sites.{site.name}.{name}"
        for name in NAME.findall(path)
    ]


def tell_hinted_workspace(site: Site, binding: Binding, decisions: list[str]) -> None:
    """Say that runs lie where nobody is sure of, unless your settings have another place."""
    if site.workspace is None or not site.is_hint("workspace"):
        return
    if re.fullmatch(_pattern(site.workspace, binding), binding.workspace):
        decisions.append(f"workspace {binding.workspace}{said(site, 'workspace')}")


def check_places(
    paths: Mapping[str, str], site: Site, binding: Binding, decisions: list[str]
) -> None:
    """Refuse what lies where compute nodes do not see it.

    Parameters
    ----------
    paths : dict
        Of a plan, by the field that they come from.

    Raises
    ------
    PlanError
        With the file system, and those that compute nodes see.
    """
    for field, path in paths.items():
        name = file_system_of(path, site, binding)
        if name is None or site.file_systems[name].compute:
            continue
        key = f"file_systems.{name}"
        hints = [it for it in (f"{key}.compute", f"{key}.path") if site.is_hint(it)]
        if hints:
            told = said(site, hints[0])
            decisions.append(f"{field}: compute nodes may not see {path}, on {name}{told}")
            continue
        seen = [it.path for it in site.file_systems.values() if it.compute]
        raise PlanError(
            field,
            f"{path} is on {name}, which compute nodes of {site.name} do not "
            f"see{said(site, f'{key}.compute')}",
            f"Use a file system that they see: {', '.join(seen) or 'the profile names none'}.",
        )


def file_system_of(path: str, site: Site, binding: Binding) -> str | None:
    """Where a path lies: the deepest file system that it is below."""
    found = [
        (match.end(), name)
        for name, system in site.file_systems.items()
        if (match := re.match(_pattern(system.path, binding), path))
    ]
    return max(found)[1] if found else None


def _pattern(path: str, binding: Binding) -> str:
    """What paths below a template begin with; a name that is not known may be any."""
    parts = NAME.split(path.rstrip("/"))
    for place in range(1, len(parts), 2):
        value = _yours(binding).get(parts[place])
        parts[place] = "[^/]+" if value is None else re.escape(value)
    parts[::2] = map(re.escape, parts[::2])
    return "".join(parts) + "(?=/|$)"


def _yours(binding: Binding) -> dict[str, str | None]:
    return {"user": binding.user, "project": binding.project}
