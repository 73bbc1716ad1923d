"""What is in use: batches, code and libraries that something names which has not ended.

Everything that hpcml writes names batches by their ids, and code and libraries by digests. These
are looked for in the whole text of a plan and its points, not only where hpcml itself puts them:
a path in a parameter, an argument or the environment counts as well.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from hpcml.agent import wire
from hpcml.batch import batch_folder, batch_of, outbox_folder, outbox_ids
from hpcml.connection import Connection

BATCH = re.compile(r"\d{8}-\d{6}-[a-z0-9]{6}")
LIBRARY = re.compile(r"hpcml-[0-9a-f]{16}\.(?:pyz|\w+-\d+\.zip)|fn-[0-9a-f]{16}\.zip")
BYTECODE = re.compile(r"\.\w+-\d+\.zip$")  # of a library, which batches name by its own name
DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
JOB = re.compile(r"\d+-(.+)\.\d+\.job")  # of the queue: a batch may have several
SERVED = "the queue has jobs, and its dispatcher may be running from it"  # a library
AT_ONCE = 64  # batches whose files are read together


@dataclass(frozen=True)
class Named:
    """What a batch names."""

    batches: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    parent: str | None = None
    inputs: tuple[str, ...] = ()

    @cached_property
    def uses(self) -> frozenset[str]:
        """Batches that it names, and those that the links of its inputs lead to."""
        paths = [found for path in self.inputs for found in _behind_links(path)]
        return self.batches.union(BATCH.findall("\n".join(paths)))


@dataclass
class Use:
    """What the batches of a workspace name, those on their way to it included.

    Attributes
    ----------
    connection : Connection
    going : set of str
        Batches that have not ended.
    queued : set of str
        Batches that the queue has.
    """

    connection: Connection
    going: set[str] = field(default_factory=set)
    queued: set[str] = field(default_factory=set)
    _there: dict[str, Named] = field(default_factory=dict)
    _waiting: dict[str, Named] = field(default_factory=dict)
    _made_with: dict[str, list[str]] = field(default_factory=dict)  # batches, by code and libraries
    _users: dict[str, list[str]] | None = None  # batches that go on, by what they use

    def refresh(self) -> None:
        """See what is new. A batch of which nothing was known yet counts as going on."""
        # In this order: a batch is in the outbox until it is in both other places.
        self._waiting = dict(self._in_outbox())
        queue = map(JOB.fullmatch, self.connection.files.names("queue") or ())
        self.queued = {match[1] for match in queue if match is not None}
        there = {*filter(BATCH.fullmatch, self.connection.files.names("runs") or ())}
        self.going |= there - self._there.keys()
        known = {name: self._there[name] for name in there & self._there.keys()}
        self._there = {**known, **dict(self._read(there - known.keys()))}
        self._made_with, self._users = {}, None
        for batch, named in [*self._waiting.items(), *self._there.items()]:
            for name in named.files:
                self._made_with.setdefault(name, []).append(batch)

    def ended(self, batches: Iterable[str]) -> None:
        """These have ended."""
        self.going -= {*batches}

    def forget(self, batch: str) -> None:
        """This one has gone."""
        self._there.pop(batch, None)
        self.going.discard(batch)

    def is_awaited(self, batch: str) -> bool:
        """Whether the queue, or this machine's outbox, has a batch."""
        return batch in self.queued or batch in self._waiting

    def of_batch(self, batch: str) -> str:
        """Why a batch is in use; empty if it is not."""
        if batch in self._waiting:
            return "it is in this machine's outbox"
        if batch in self.going:
            return "it has not ended"
        if batch in self.queued:
            return "the queue still has it"
        for other, named in self._waiting.items():
            if batch in named.uses:
                return f"{other} uses it, which is being submitted"
        for other in self._used_by().get(batch, ()):
            if other in self.going:
                return f"{other} uses it, which has not ended"
        parent = self._there.get(batch, Named()).parent
        if parent is not None and batch_of(parent) in self.going:
            return f"{parent} submitted it, and may wait for it"
        return ""

    def _used_by(self) -> dict[str, list[str]]:
        """Which batches that go on use a batch; found out when that is asked first."""
        if self._users is None:
            self._users = {}
            for other in self.going:
                for batch in self._there.get(other, Named()).uses:
                    self._users.setdefault(batch, []).append(other)
        return self._users

    def has(self, batch: str) -> bool:
        """Whether a batch is there, or on its way."""
        return batch in self._there or batch in self._waiting

    def of_waiting(self, name: str) -> bool:
        """Whether a batch on its way needs code or a library."""
        return any(name in named.files for named in self._waiting.values())

    def of_file(self, name: str, without: Collection[str] = ()) -> str:
        """Why code or a library is in use, if some batches were gone."""
        for other in self._made_with.get(BYTECODE.sub(".pyz", name), ()):
            if self.has(other) and other not in without:
                return f"{other} was made with it"
        return ""

    def _in_outbox(self) -> Iterator[tuple[str, Named]]:
        for batch in outbox_ids():
            try:
                data = (outbox_folder() / f"{batch}.jsonl").read_bytes()
            except FileNotFoundError:
                continue  # the site has it by now
            if not any(line.get("step") == "cancelled" for line in wire.parse_lines(data)):
                text = data.decode("utf-8", "replace")
                yield batch, _named(text, text.partition("\n")[0])

    def _read(self, batches: Iterable[str]) -> Iterator[tuple[str, Named]]:
        rest = sorted(batches)
        for start in range(0, len(rest), AT_ONCE):
            some = rest[start : start + AT_ONCE]
            names = "plan.json", wire.POINTS
            paths = {f"{batch_folder(b)}/{name}": 0 for b in some for name in names}
            found = self.connection.files.get(paths)
            for batch in some:
                plan, points = (
                    found.get(f"{batch_folder(batch)}/{name}", b"").decode("utf-8", "replace")
                    for name in names
                )
                yield batch, _named(plan + points, plan)


def _named(text: str, plan: str) -> Named:
    batches = frozenset(BATCH.findall(text))
    files = frozenset([*LIBRARY.findall(text), *DIGEST.findall(text)])
    return Named(batches, files, *_submission(plan))


def _submission(plan: str) -> tuple[str | None, tuple[str, ...]]:
    """Parent and input paths of a plan, on the site or in the outbox; of a torn one nothing."""
    try:
        data = json.loads(plan)
        parent = data.get("batch", data).get("parent")
        where = data.get("plan", data)["where"]
        inputs = tuple(str(path) for path in where["inputs"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, ()
    return parent if isinstance(parent, str) else None, inputs


def _behind_links(path: str) -> Iterator[str]:
    """Where an input really lies, and what links within it lead to."""
    yield os.path.realpath(path)
    if os.path.isdir(path):
        try:
            for _, full in wire.walk(path):
                if os.path.islink(full):
                    yield os.path.realpath(full)
        except OSError:
            return  # then no run can read it, either
