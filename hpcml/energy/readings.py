"""From the sampler's lines to joules between one reading and the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from operator import attrgetter
from typing import Any

from hpcml.agent import wire
from hpcml.energy.model import MEASURED
from hpcml.transports import Transport

SCHEMA = 1
SLACK = 0.01  # s by which a reading may lag behind its time: the sampler's LAG
# How the kinds of domains are called in a scope, in this order.
SCOPES = {
    "node": "node",
    "psys": "platform",
    "cpu": "cpu",
    "core": "core",
    "uncore": "uncore",
    "dram": "dram",
    "device": "device",
}
LARGEST = 1 << 64  # what is more is no count of a counter, and no time
FAILED = "a reading failed"
RESET = "a counter was reset"
SLOW = "the next reading came so late that a counter may have wrapped more than once"
ASLEEP = "the machine was suspended"


@dataclass(frozen=True)
class Domain:
    """A part of the machine with a counter (see :class:`hpcml.agent.energy.domains.Domain`)."""

    name: str
    kind: str
    unit: float
    period: float
    range: int | None
    most: float | None
    contains: tuple[str, ...]
    mirrors: str | None
    status: str

    def joules(self, before: int, after: int, seconds: float) -> float | str:
        """What was used between two counts, or why that is not known."""
        most = math.inf if self.most is None else self.most * (seconds + SLACK)
        if self.range is not None and most >= self.range * self.unit:
            return SLOW
        used = after - before
        if used < 0:
            if self.range is None:
                return RESET
            used += self.range
        joules = used * self.unit
        return joules if 0 <= joules <= most else RESET


@dataclass(frozen=True)
class Piece:
    """The time between two readings, in s of the machine's monotonic clock.

    ``joules`` is ``None`` where ``reason`` says why. They may have been used up to ``lag`` s before
    or after.
    """

    begin: float
    end: float
    joules: float | None
    reason: str = ""
    lag: float = 0.0


@dataclass
class Series:
    """What one sampler read."""

    host: str
    boot: str
    root: str
    interval: float
    exclusive: bool
    domains: tuple[Domain, ...]
    tried: Mapping[str, Mapping[str, str]]
    readings: list[tuple[int, Sequence[int | None]]] = field(default_factory=list)
    slept: set[int] = field(default_factory=set)  # readings before which the machine was suspended

    @property
    def cut(self) -> tuple[int, ...]:
        """Places of the domains that can be summed: none is part of another one.

        Of two that show the same counter one is left out; so are the domains of a kind of which one
        cannot be read (half of the processors are not "cpu"), and the platform where there are
        packages: what it includes is up to the maker of the board.
        """
        own = [domain for domain in self.domains if domain.mirrors is None]
        unreadable = {domain.kind for domain in own if domain.status != "measured"}
        own = [domain for domain in own if domain.kind not in unreadable]
        if any(domain.kind == "cpu" for domain in own):
            own = [domain for domain in own if domain.kind != "psys"]
        inner = {name for domain in own for name in domain.contains}
        chosen = {domain.name for domain in own if domain.name not in inner}
        return tuple(i for i, domain in enumerate(self.domains) if domain.name in chosen)

    @property
    def scope(self) -> str:
        """What the cut measures: ``"cpu+dram"``."""
        kinds = {self.domains[place].kind for place in self.cut}
        return "+".join(word for kind, word in SCOPES.items() if kind in kinds)

    def places(self, name: str | None) -> tuple[int, ...]:
        """Where a reading has the domain of a name, or those of the cut."""
        if name is None:
            return self.cut
        return tuple(i for i, domain in enumerate(self.domains) if domain.name == name)

    def pieces(self, places: Sequence[int]) -> Iterator[Piece]:
        """What some domains used together between one reading and the next."""
        lag = SLACK + max((self.domains[place].period for place in places), default=0.0)
        for (before, one), (after, other) in pairwise(self.readings if places else ()):
            begin, end = before / 1e9, after / 1e9
            if end <= begin:
                continue
            total, reason = 0.0, ASLEEP if after in self.slept else ""
            for place in () if reason else places:
                used = self._used(place, one[place], other[place], end - begin)
                if isinstance(used, str):
                    reason = used
                    break
                total += used
            yield Piece(begin, end, None if reason else total, reason, lag)

    def _used(
        self, place: int, before: int | None, after: int | None, seconds: float
    ) -> float | str:
        if before is None or after is None:
            return FAILED
        return self.domains[place].joules(before, after, seconds)


def read(content: bytes) -> list[Series]:
    """The series in a file of readings. What no sampler of ours has written is passed over."""
    found: list[Series] = []
    current: Series | None = None
    for line in wire.parse_lines(content):
        if "header" in line:
            current = _series(line)
            if current is not None:
                found.append(current)
        elif current is not None and _is_reading(line, len(current.domains)):
            current.readings.append((line["m"], line["v"]))
            if "slept" in line:
                current.slept.add(line["m"])
    return found


def _is_reading(line: Mapping[str, Any], count: int) -> bool:
    counts = line.get("v")
    return (
        _is_count(line.get("m"))
        and isinstance(counts, list)
        and len(counts) == count
        and all(one is None or _is_count(one) for one in counts)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < LARGEST


def joined(series: Iterable[Series], domain: str | None = None) -> list[Piece]:
    """The pieces of several series, one after the other; no time counts twice.

    Of their cuts, or of one domain alone.
    """
    found: list[Piece] = []
    pieces = [piece for one in series for piece in one.pieces(one.places(domain))]
    for piece in sorted(pieces, key=attrgetter("begin")):
        if not found or piece.begin >= found[-1].end:
            found.append(piece)
    return found


class Machine:
    """All that was read on one machine between two of its boots."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = series
        self.joined = cache(self._joined)

    def _joined(self, domain: str | None = None) -> tuple[list[Piece], list[float]]:
        """The pieces of a domain, or of the cuts, and when each begins."""
        pieces = joined(self.series, domain)
        return pieces, [piece.begin for piece in pieces]

    @property
    def is_read(self) -> bool:
        """Whether it has a counter that can be read."""
        return any(domain.status == MEASURED for one in self.series for domain in one.domains)

    @property
    def reach(self) -> float:
        """When it was read last, in s of its monotonic clock; 0: never."""
        return max((one.readings[-1][0] / 1e9 for one in self.series if one.readings), default=0.0)


UNREAD = Machine(())  # nothing was read on it


class Readings:
    """What samplers have read for the runs of a batch.

    Parameters
    ----------
    files : iterable of bytes
        Contents of their files.
    """

    def __init__(self, files: Iterable[bytes]) -> None:
        machines: dict[tuple[object, object], list[Series]] = {}
        for one in (one for content in files for one in read(content)):
            machines.setdefault((one.host, one.boot or None), []).append(one)
        self._machines = {key: Machine(series) for key, series in machines.items()}

    @classmethod
    def beside(cls, batch: str, files: Transport) -> Readings:
        """Those of a batch, by its folder on a site."""
        folder = f"{batch}/energy"
        paths = [f"{folder}/{name}" for name in sorted(files.names(folder) or ())]
        return cls(files.get(dict.fromkeys(paths, 0)).values() if paths else ())

    def of(self, host: object, boot: object) -> Machine:
        """Those of one machine, by name and boot: the monotonic clock of another says nothing."""
        return self._machines.get((host, boot), UNREAD)


def _series(header: Mapping[str, Any]) -> Series | None:
    """What a header begins; ``None`` if it is of a later schema, or not whole."""
    if header["header"] != SCHEMA:
        return None
    try:
        return Series(
            str(header["host"]),
            str(header["boot"]),
            str(header["root"]),
            float(header["interval"] or 0.0),
            bool(header["exclusive"]),
            tuple(map(_domain, header["domains"])),
            {
                str(name): {"status": str(one["status"]), "reason": str(one["reason"])}
                for name, one in header["tried"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _domain(told: Mapping[str, Any]) -> Domain:
    return Domain(
        name=str(told["name"]),
        kind=str(told["kind"]),
        unit=float(told["unit"]),
        period=float(told["period"]),
        range=None if told["range"] is None else int(told["range"]),
        most=None if told["most"] is None else float(told["most"]),
        contains=tuple(map(str, told["contains"])),
        mirrors=None if told["mirrors"] is None else str(told["mirrors"]),
        status=str(told["status"]),
    )
