"""A profile to begin with: what has to be said, and all else as comments."""

from __future__ import annotations

from hpcml.sites.keys import NAME, NUMBER, Key, all_keys

NAMES = {"partitions": "batch", "file_systems": "scratch", "qos": "normal"}
SAID = {
    "description": '""',
    "scheduler": "slurm",
    "transport": "ssh",
    "ssh.host": "login.example.org",
    "partitions.NAME.nodes": "unknown",
    "partitions.NAME.time": "unknown",
    "partitions.NAME.node.cpus": "unknown",
    "partitions.NAME.node.memory": "unknown",
}
HEAD = """\
# Facts of a site that everybody who uses it shares; what is yours stands in config.yaml.
# Any mapping may say `source:` and `confidence:`; a single fact: {value: 24h, source: …}.
# What is not known is `unknown`. `hpcml sites explain KEY` tells more of a key, and
# `hpcml sites validate FILE` what is wrong.
"""


def new_profile(name: str, base: str | None) -> str:
    """The text of a profile of that name, which adds to another if there is one."""
    if base is not None:
        told = f"# What differs from {base}; `hpcml sites show {base}` has its facts.\n"
        return f"{HEAD}{told}extends: {base}\nname: {name}\n"
    lines: list[str] = []
    seen: set[tuple[str, ...]] = set()
    said = {"name": name, **SAID}
    open_ones = {key.rpartition(".")[0] for key in said} | {"partitions", "partitions.NAME"}
    for key in all_keys():
        parts = tuple(key.name.split("."))
        if NUMBER in parts or key.name == "extends":
            continue
        for depth in range(1, len(parts)):  # a name of one's own has a line, too
            if parts[depth] == NAME and parts[: depth + 1] not in seen:
                seen.add(parts[: depth + 1])
                own = ".".join(parts[: depth + 1])
                lines.append(_line(NAMES[parts[depth - 1]], depth, "", own in open_ones))
        spoken = key.name in said or key.name in open_ones
        lines.append(_line(_said(key, said), len(parts) - 1, key.description, spoken))
    return HEAD + "".join(lines)


def _said(key: Key, said: dict[str, str]) -> str:
    word = key.name.rpartition(".")[2]
    if key.name in said:
        return f"{word}: {said[key.name]}"
    inner = any(other.name.startswith(f"{key.name}.") for other in all_keys())
    if inner and key.kind.startswith("mapping"):
        return f"{word}:"
    empty = "{}" if key.kind == "mapping" else "[]" if key.kind.startswith("list") else "unknown"
    return f"{word}: {key.example or key.default or empty}"


def _line(text: str, depth: int, about: str, spoken: bool) -> str:
    colon = "" if ":" in text else ":"
    told = f"  # {about}" if about else ""
    return f"{'' if spoken else '# '}{'  ' * depth}{text}{colon}{told}\n"
