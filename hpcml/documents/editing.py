"""Changing a YAML mapping in its text, so that all else in it stays as it stands.

A value is replaced where it stands, a key is added behind its neighbours. What the text says
afterwards is read again: where that is not what was to be said, as with values that aliases share,
nothing is changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpcml.documents.parsing import CONSTANTS, NUMBER, parse
from hpcml.errors import ProfileError

PLAIN = re.compile(r"[A-Za-z0-9/~_][\w./@+~-]*", re.ASCII)
OTHERS = ("y", "n", "yes", "no", "on", "off")  # what YAML 1.1 takes for something else

CANNOT = "{} is written in a way that hpcml cannot add to"

Tree = dict[str, Any]


def with_values(text: str, path: str, changes: Mapping[str, Any]) -> str:
    """The text of a mapping that says something more, or something else.

    Parameters
    ----------
    text : str
        As it stands in the file.
    path : str
        For messages.
    changes : dict
        Texts by their keys, in mappings of any depth.

    Raises
    ------
    ProfileError
        The text is wrong, or says things in a way in which they cannot be changed.
    """
    changed = _tried(text, path, changes)
    if changed is None:
        lines = "\n".join(f"  {line}" for line in _block(changes, "  "))
        raise ProfileError(CANNOT.format(path), f"Write into it yourself:\n{lines}")
    return changed


def check_takes(text: str, path: str, within: Sequence[str], keys: Sequence[str]) -> None:
    """Look whether :func:`with_values` could say more, before it is known what.

    Parameters
    ----------
    text, path : str
    within : sequence of str
        The keys that lead to a mapping.
    keys : sequence of str
        Those of texts that it is to say.

    Raises
    ------
    ProfileError
        The text is wrong, or says things in a way in which they cannot be changed.
    """
    changes: dict[str, Any] = dict.fromkeys(keys, "x")
    for key in reversed(within):
        changes = {key: changes}
    if _tried(text, path, changes) is None:
        advice = f"Write {'.'.join(within)} without what others share (&, *, <<)."
        raise ProfileError(CANNOT.format(path), advice)


def _tried(text: str, path: str, changes: Mapping[str, Any]) -> str | None:
    """The text that says more; ``None``: it would not say what it is to say, and no more."""
    said = parse(_read(text), path)[0]
    changed = _with(text, changes)
    try:
        fine = parse(_read(changed), path)[0] == _joined(said, changes)
    except ProfileError:
        fine = False
    return changed if fine else None


def _read(text: str) -> str:
    """As :func:`hpcml.documents.read_text` reads it."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _joined(said: Tree, changes: Mapping[str, Any]) -> Tree:
    joined = dict(said)
    for key, value in changes.items():
        within = said.get(key)
        joined[key] = _joined(within or {}, value) if isinstance(value, Mapping) else value
    return joined


def _with(text: str, changes: Mapping[str, Any]) -> str:
    import yaml

    newline = "\r\n" if "\r\n" in text else "\n"
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(top, yaml.MappingNode):  # empty, but for comments
        start = text if not text or text.endswith("\n") else text + newline
        return start + newline.join([*_block(changes, ""), ""])
    for begin, end, new in sorted(_edits(text, top, changes, newline), reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def _edits(
    text: str, mapping: Any, changes: Mapping[str, Any], newline: str
) -> list[tuple[int, int, str]]:
    """What is to stand in place of pieces of the text, by where they begin and end."""
    import yaml

    edits = []
    known = {key.value: value for key, value in mapping.value}
    new = {key: value for key, value in changes.items() if key not in known}
    for key in changes.keys() - new.keys():
        value, node = changes[key], known[key]
        start, end = node.start_mark.index, _end(node, text)
        if isinstance(value, Mapping) and isinstance(node, yaml.MappingNode):
            edits += _edits(text, node, value, newline)
        elif isinstance(value, Mapping) and start == end and not mapping.flow_style:
            indent = " " * (mapping.start_mark.column + 2)
            at = _line_end(text, end)
            edits.append((at, at, "".join(newline + line for line in _block(value, indent))))
        else:
            gap = " " if start == end else ""
            edits.append((start, end, gap + _flow(value)))
    if not new:
        return edits
    if mapping.flow_style:
        at = mapping.end_mark.index - 1
        lines = [f"{key}: {_flow(value)}" for key, value in new.items()]
        edits.append((at, at, (", " if mapping.value else "") + ", ".join(lines)))
    else:
        at = _line_end(text, _end(mapping, text))
        indent = " " * mapping.start_mark.column
        edits.append((at, at, "".join(newline + line for line in _block(new, indent))))
    return edits


def _end(node: Any, text: str) -> int:
    """Where what is said ends; a block's own end mark is that of the comments behind it."""
    import yaml

    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    end: int = node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        end = len(text[:end].rstrip())
    return end


def _line_end(text: str, at: int) -> int:
    """The end of a line, with the comment that stands there."""
    found = text.find("\n", at)
    end = len(text) if found < 0 else found
    return end - 1 if text[:end].endswith("\r") else end


def _block(changes: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in changes.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{_flow(key)}:", *_block(value, indent + "  ")]
        else:
            lines.append(f"{indent}{_flow(key)}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(it)}" for key, it in value.items()) + "}"
    text = str(value)
    plain = PLAIN.fullmatch(text) and NUMBER.fullmatch(text) is None
    word = text.lower() in CONSTANTS or text.lower() in OTHERS
    return text if plain and not word else json.dumps(text, ensure_ascii=False)
