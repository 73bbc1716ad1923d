"""What could be freed, or was, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hpcml import html
from hpcml.texts import plain
from hpcml.units import memory_text

DAY = 86400.0  # seconds
MOST = 50  # items, and reasons, that a notebook shows
HEADER = ("kind", "size", "age", "name", "what it is")

RUNS = "runs"
WORK = "work"
CODE = "code"
LIBRARY = "library"
DATA = "data"
LEFTOVER = "leftover"
CACHE = "cache"


@dataclass(frozen=True)
class Item:
    """Something to free.

    Attributes
    ----------
    kind : {"runs", "work", "code", "library", "data", "leftover", "cache"}
        A submission's runs, or their work folders alone; a snapshot; a travelling archive; an input
        or an image that was brought there; what a killed process left; what this machine remembers
        and can find out again.
    name : str
        Of runs: the submission's id; else the file.
    bytes : int
        Of blocks on the disk that would be free without it.
    whole : bool
        Whether all of it could be measured; else it has more bytes.
    age : float
        In s, by the site's clock: since its last run ended, or somebody relied on it.
    about : str
        What it is, for people.
    paths : tuple of str
        Relative to the workspace; absolute on this machine.
    """

    kind: str
    name: str
    bytes: int
    age: float
    about: str = ""
    paths: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True)
class Kept:
    """Something that is old enough, and why it stays."""

    kind: str
    name: str
    why: str


@dataclass(frozen=True)
class Pruning:
    """What :func:`hpcml.prune` would free, or what :meth:`apply` has freed.

    Attributes
    ----------
    site, workspace : str
    items : tuple of Item
        Oldest first within a kind.
    kept : tuple of Kept
        What is old enough, and stays: it is in use, or cannot be removed.
    freed : bool
        Whether this is what was freed.
    """

    site: str
    workspace: str
    items: tuple[Item, ...]
    kept: tuple[Kept, ...] = ()
    freed: bool = False
    _apply: Callable[[Pruning], Pruning] | None = field(default=None, repr=False, compare=False)

    @property
    def bytes(self) -> int:
        """Bytes on the disk of all items."""
        return sum(item.bytes for item in self.items)

    def apply(self) -> Pruning:
        """Free the items, as far as nothing uses them now.

        Killed at any moment, what has gone is gone as a whole, and what is left of it is removed
        by the next one.

        Returns
        -------
        Pruning
            What was freed, and what of it had to stay.

        Raises
        ------
        TransportError
            The site cannot be reached; or somebody is submitting to it.
        """
        return self if self._apply is None else self._apply(self)

    def to_data(self) -> dict[str, Any]:
        """Plain data, as ``hpcml prune --json`` prints it."""
        return {
            "site": self.site,
            "workspace": self.workspace,
            "freed": self.freed,
            "bytes": self.bytes,
            "items": [
                {
                    "kind": item.kind,
                    "name": item.name,
                    "about": item.about,
                    "bytes": item.bytes,
                    "whole": item.whole,
                    "age": round(item.age),
                    "paths": list(item.paths),
                }
                for item in self.items
            ],
            "kept": [{"kind": kept.kind, "name": kept.name, "why": kept.why} for kept in self.kept],
        }

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Kind, size, age, name and what it is, as people read them."""
        return [
            (
                item.kind,
                ("" if item.whole else "≥ ") + memory_text(item.bytes),
                age_text(item.age),
                plain(item.name),
                plain(item.about),
            )
            for item in self.items
        ]

    @property
    def summary(self) -> str:
        """All in a line."""
        done = "were freed" if self.freed else "can be freed"
        if not self.items:
            return "Nothing was freed." if self.freed else "There is nothing to free."
        return f"{memory_text(self.bytes)} {done} on {self.site}: {self._counts()}."

    def _counts(self) -> str:
        counts: dict[str, int] = {}
        for item in self.items:
            counts[item.kind] = counts.get(item.kind, 0) + 1
        return ", ".join(f"{count} × {kind}" for kind, count in counts.items())

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, self.summary, *self.notes()])

    __repr__ = __str__

    def notes(self) -> list[str]:
        """Why things stay."""
        return [plain(f"{kept.kind} {kept.name} stays: {kept.why}") for kept in self.kept]

    def _repr_html_(self) -> str:
        rows, notes = self.rows(), self.notes()
        parts = [html.table(HEADER, rows[:MOST])] if rows else []
        if len(rows) > MOST:
            parts.append(html.note(f"… and {len(rows) - MOST} more items"))
        parts += map(html.note, notes[:MOST])
        if len(notes) > MOST:
            parts.append(html.note(f"… and {len(notes) - MOST} more that stay"))
        return html.card(self.summary, *parts)


def age_text(seconds: float) -> str:
    """``41 d``, ``3 h``, ``5 min``."""
    for unit, size in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"
