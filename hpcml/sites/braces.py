"""What stands in braces in paths of a profile: names of yours, as the settings say them."""

from __future__ import annotations

import re
from collections.abc import Mapping

BRACES = re.compile(r"\{(\w+)\}")
SETTINGS = {"u": "user"}  # which of them says a name that is not one itself


def names_of(user: str | None, project: str | None) -> Mapping[str, str | None]:
    """Names by what stands in braces; ``u`` is the first letter of ``user``."""
    return {"user": user, "u": user and user[0], "project": project}


def filled(path: str, names: Mapping[str, str | None]) -> str:
    """A path with the names that are known."""
    return BRACES.sub(lambda match: names.get(match[1]) or match[0], path)


def missing(path: str) -> list[tuple[str, str]]:
    """What a path has in braces still, each with the setting that says it."""
    return [(name, SETTINGS.get(name, name)) for name in BRACES.findall(path)]
