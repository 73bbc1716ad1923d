"""A fact of a profile beside what a cluster says of the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcml import units
from hpcml.errors import nearest
from hpcml.sites import Site
from hpcml.surveying.finding import Finding, bad, unknown, warn

Place = tuple[str, ...]
HINT = "The cluster confirms it: its confidence can be A."


def amount_text(size: float) -> str:
    """An amount of memory in bytes, to be written into a profile: no more and no less."""
    mebi = int(size) >> 20
    return f"{mebi >> 10} GiB" if mebi % 1024 == 0 else f"{mebi} MiB"


def time_text(seconds: float) -> str:
    """A time in s, to be written into a profile."""
    return units.time_text(int(seconds))


@dataclass
class Facts:
    """The facts of a profile, one after the other held against a cluster.

    Attributes
    ----------
    places : mapping
        Where each is said, by its keys.
    agreed : list
        Those that the cluster says, too.
    """

    site: Site
    places: Mapping[Place, str]
    agreed: list[Place] = field(default_factory=list)

    def named(self, place: Place) -> str:
        """A fact, as it is said and where."""
        value: Any = self.site
        for key in place:
            if isinstance(value, list):
                value = value[int(key)]
            else:
                value = value[key] if isinstance(value, dict) else getattr(value, key)
        if not isinstance(value, (str, int)):
            return f"{'.'.join(place)} ({self._beginning(place)})"
        said = str(value).lower() if isinstance(value, bool) else value
        return f"{'.'.join(place)} is {said} ({self.places.get(place, 'default of hpcml')})"

    def _beginning(self, place: Place) -> str:
        """Where the first fact is said of a mapping, or of what it is in."""
        for depth in range(len(place), -1, -1):
            for key, text in self.places.items():
                if key[:depth] == place[:depth]:
                    return text
        return "from no file"

    def agrees(self, place: Place) -> Iterator[Finding]:
        """The cluster says the same; of a hint, that is news."""
        self.agreed.append(place)
        if self.site.is_hint(".".join(place)):
            yield Finding("ok", f"{self.named(place)}: a hint", HINT)

    def same(self, place: Place, said: Any, live: Any, word: str) -> Iterator[Finding]:
        """A fact that is so or not."""
        if live is None:
            if said is not None:
                yield unknown(f"{self.named(place)}; the cluster does not say it ({word})")
        elif said is None:
            yield self._missing(place, live, word)
        elif said != live:
            yield bad(f"{self.named(place)}, the cluster says {live} ({word})", _write(place, live))
        else:
            yield from self.agrees(place)

    def most(
        self,
        place: Place,
        said: float | None,
        live: float | None,
        word: str,
        text: Callable[[float], object] = str,
        *,
        harmless: bool = False,
    ) -> Iterator[Finding]:
        """A most amount: of what is more Slurm refuses jobs, of what is less one has not all.

        Parameters
        ----------
        word : str
            How Slurm calls it.
        text : callable
            How a profile says it.
        harmless : bool
            Too much of it is never asked for.
        """
        if said is None:
            if live is not None and math.isfinite(live):
                yield self._missing(place, text(live), word)
            return
        told = self.named(place)
        if live is None:
            yield unknown(f"{told}; the cluster does not say it ({word})")
        elif math.isinf(live):
            yield unknown(f"{told}; the cluster itself has no such limit ({word})")
        elif said != live:
            judge = bad if said > live and not harmless else warn
            yield judge(
                f"{told}, the cluster says {text(live)} ({word})", _write(place, text(live))
            )
        else:
            yield from self.agrees(place)

    def absent(self, place: Place, name: str, there: Iterable[str], what: str) -> Finding:
        """A name that the cluster does not know."""
        return bad(
            f"{self.named(place)}: the cluster has no {what} {name!r}", f"{nearest(name, there)}."
        )

    def _missing(self, place: Place, live: Any, word: str) -> Finding:
        return warn(
            f"{'.'.join(place)} is not said; the cluster says {live} ({word})", _write(place, live)
        )


def _write(place: Place, value: Any) -> str:
    return f"Write {place[-1]}: {value}"
