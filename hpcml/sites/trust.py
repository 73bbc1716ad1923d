"""Profiles of a project run commands as whoever uses them: that is asked for, once for each text.

What is remembered is the digest of the file's text, so that a profile that has changed is asked
for again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcml.errors import UntrustedError
from hpcml.folders import state_folder
from hpcml.settings import keep

# Facts that start nothing, load nothing and reach nobody. All others are asked for.
FACTS = frozenset(
    {
        *("name", "description", "scheduler", "transport", "login_shell", "max_array"),
        *("max_submitted", "account_required", "account_rule", "kill_wait", "file_systems"),
        *("cost_unit", "notes", "elsewhere", "partitions"),
    }
)
OF_PARTITIONS = frozenset(
    {
        *(
            "description",
            "nodes",
            "total_nodes",
            "node_sharing",
            "time",
            "qos",
            "default_qos",
            "memory_option",
        ),
        *("devices_by", "gres", "constraint", "partition_option", "internet", "account_suffix"),
        *("own_account", "tasks_per", "cpu_bind", "node"),
    }
)


def acting(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of a profile's facts may run something as the user, or lead elsewhere; by its keys."""
    found = {key: value for key, value in facts.items() if key not in FACTS}
    partitions = facts.get("partitions")
    for name, partition in partitions.items() if isinstance(partitions, dict) else ():
        for key, value in partition.items() if isinstance(partition, dict) else ():
            if key not in OF_PARTITIONS:
                found[f"partitions.{name}.{key}"] = value
    return found


def demand_trust(name: str, texts: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Refuse what nobody has agreed to.

    Parameters
    ----------
    name : str
        The site.
    texts : iterable of (path, text, facts)
        The project's files that its profile is made of.

    Raises
    ------
    UntrustedError
        It shows what would be done.
    """
    wanting = {path: (text, acting(facts)) for path, text, facts in texts}
    wanting = {path: (text, acts) for path, (text, acts) in wanting.items() if acts}
    known = _digests() if wanting else set()
    wanting = {path: it for path, it in wanting.items() if digest_of(it[0]) not in known}
    if wanting:
        shown = [
            f"{path} is the project's, and acts as you:\n"
            + "\n".join(f"    {key}: {json.dumps(value)}" for key, value in acts.items())
            for path, (_, acts) in wanting.items()
        ]
        digests = {path: digest_of(text) for path, (text, _) in wanting.items()}
        advice = f"Read it; if you agree, run `hpcml sites trust {name}`."
        raise UntrustedError("\n".join(shown), advice, digests)


def trust(digests: Mapping[str, str]) -> None:
    """Remember that somebody has agreed to texts, by their paths and digests."""
    known = _remembered()
    lines = [*known, *(f"{digest}  {path}" for path, digest in digests.items())]
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    keep(_file(), text, "Without it nothing can be remembered; mend its permissions.")


def digest_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digests() -> set[str]:
    return {line.partition(" ")[0] for line in _remembered()}


def _remembered() -> list[str]:
    try:
        return _file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # then it is asked once more


def _file() -> Path:
    return state_folder() / "trusted-profiles"
