"""The tables of the records. How they come to be, and change, stands in ``migrations/``.

Runs are named across batches and databases by their ids, which are text; within one database
rows are tied by small integers. Names that jobs choose may be of any length and hold anything, so
each is kept once, in ``names``, and found by a short key.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from hpcml.agent import wire

# Oldest first; the last one is the schema below.
REVISIONS = ("r0001", "r0002", "r0003", "r0004", "r0005")
LONGEST_KEY = 64
_ODD = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")


class Exact(TypeDecorator[str]):
    """Text of any kind, given back as it was.

    What no database keeps (U+0000 and halves of surrogate pairs) is written as U+001A and four
    hexadecimal digits, and so is U+001A itself.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or not _ODD.search(value):
            return value
        return _ODD.sub(lambda match: f"\x1a{ord(match.group()):04x}", value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or "\x1a" not in value:
            return value
        return _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), value)


class Json(TypeDecorator[Any]):
    """Any JSON value, NaN and the infinities as well, as ASCII text; ``None`` is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()
_sorted = json.JSONEncoder(sort_keys=True).encode  # json.dumps makes an encoder at each call


def key_of(text: str) -> str:
    """What stands for a text in an index: itself if it is short and plain, else its digest."""
    if len(text) < LONGEST_KEY and text.isascii() and text.isprintable():
        return text
    return wire.sha256(json.dumps(text).encode("ascii"))


def key_of_value(value: Any) -> str:
    """What stands for a parameter's value: equal for equal values, 1 and 1.0 alike."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return key_of(_sorted(value))


def split_value(value: Any) -> tuple[float | None, str | None]:
    """A metric's value as a finite number to compare by, and as JSON where that is not all of it.

    A finite float has no JSON. NaN and the infinities are no numbers to compare by, nor is text;
    an integer that no float holds, or a truth value, is both.
    """
    if isinstance(value, float):
        return (value, None) if math.isfinite(value) else (None, json.dumps(value))
    if isinstance(value, int):
        try:
            number = float(value)
        except OverflowError:
            return None, json.dumps(value)
        exact = not isinstance(value, bool) and number == value
        return number, None if exact else json.dumps(value)
    return None, json.dumps(value)


def join_value(number: float | None, other: str | None) -> Any:
    """The value that :func:`split_value` took apart."""
    return number if other is None else json.loads(other)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=False)


def _of(what: str, *, key: bool = False, null: bool = False) -> Column[int]:
    """A column that names a row of another table."""
    table = {"batch": "batches", "person": "people"}.get(what, f"{what}s")
    to = ForeignKey(f"{table}.id")
    return Column(f"{what}_id", Integer, to, primary_key=key, nullable=null, autoincrement=False)


def _key() -> Column[str]:
    return Column("key", String(LONGEST_KEY), nullable=False, unique=True)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, Integer, primary_key=key, nullable=False, autoincrement=False)


names = Table("names", metadata, _id(), _key(), Column("name", Exact, nullable=False))

people = Table("people", metadata, _id(), _key(), Column("name", Exact, nullable=False))

sites = Table(
    "sites",
    metadata,
    _id(),
    _key(),
    Column("name", Exact, nullable=False),
    Column("workspace", Exact, nullable=False),
)

# The machines that attempts were on: all that their agents could say of them.
hosts = Table("hosts", metadata, _id(), _key(), Column("facts", Json, nullable=False))

plans = Table(
    "plans",
    metadata,
    _id(),
    Column("digest", String(64), nullable=False, unique=True),
    Column("job_digest", String(64), nullable=False, index=True),
    Column("what", Json, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    _id(),
    Column("batch", String(64), nullable=False, unique=True),
    _of("site"),
    _of("person", null=True),
    _of("plan"),
    Column("name", Exact, nullable=False),
    Column("created", Float, nullable=False),
    Column("asked", Float),
    Column("parent", String(80), index=True),
    Column("place", Json, nullable=False),  # the plan's *where*, without the environment
    Column("complete", Boolean, nullable=False),  # all its runs are here, and final
)

tags = Table(
    "tags",
    metadata,
    _of("batch", key=True),
    _of("name", key=True),
    Column("value", Exact, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    Column("run", String(80), nullable=False, unique=True),
    _of("batch"),
    _number("number"),
    Column("digest", String(64), nullable=False, index=True),
    Column("name", Exact, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Exact, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("resubmits", String(80), index=True),
    Column("attempts", Integer, nullable=False),
    Column("told", BigInteger, nullable=False),  # bytes of its events that have been read
    Column("unread", Exact),  # why what it told cannot be read
    Column("awaited", Exact),  # why there may be more of a run that has ended
    Index("ix_runs_batch_id", "batch_id", "number", unique=True),
)

params = Table(
    "params",
    metadata,
    _of("run", key=True),
    _of("name", key=True),
    Column("key", String(LONGEST_KEY), nullable=False),
    Column("value", Text, nullable=False),  # JSON; null is a value, too
    Index("ix_params_value", "name_id", "key", "run_id"),
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    metadata,
    _of("run", key=True),
    _number("number", key=True),
    Column("started", Float),
    Column("ended", Float),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("cause", Exact),
    Column("reason", Exact),
    Column("requeued", Boolean, nullable=False),
    _of("host", null=True),
    Column("life", Integer),  # of its allocation, by number
    sqlite_with_rowid=False,
)

# The allocation that a run was in, as the queue's accounting has it: a row a life. What is not
# known is NULL; of several runs that shared it, each has the figures of all.
allocations = Table(
    "allocations",
    metadata,
    _of("run", key=True),
    _number("number", key=True),
    Column("source", String(64), nullable=False),
    Column("job", Exact, nullable=False),
    _number("runs"),
    Column("state", Exact, nullable=False),  # in the queue's words
    Column("meaning", String(16), nullable=False),
    _number("exit_code"),
    _number("signal"),
    Column("submitted", Float),
    Column("eligible", Float),
    Column("started", Float),
    Column("ended", Float),
    Column("elapsed", Float),  # s
    Column("cpus", Integer),
    Column("nodes", Integer),
    Column("devices", Integer),
    Column("hosts", Exact, nullable=False),
    Column("max_rss", BigInteger),  # bytes
    Column("joules", Float),
    Column("covered", Float, nullable=False),  # s
    Column("alone", Boolean),
    sqlite_with_rowid=False,
)

# What happened to attempts; metrics, phases and descriptions are elsewhere.
events = Table(
    "events",
    metadata,
    _of("run", key=True),
    _number("number", key=True),
    _number("attempt"),
    Column("time", Float, nullable=False),
    Column("kind", Exact, nullable=False),
    Column("facts", Json, nullable=False),
    sqlite_with_rowid=False,
)

artifacts = Table(
    "artifacts",
    metadata,
    _id(),
    Column("digest", String(64), nullable=False, unique=True),
    Column("bytes", BigInteger),
)

used = Table(
    "used",
    metadata,
    _of("run", key=True),
    _of("name", key=True),
    _of("artifact"),
    Column("checked", Boolean, nullable=False),  # looked at before the start, not just planned
    Column("origin", String(80), index=True),  # the run that left it, and as what
    Column("output", Exact),
    Index("ix_used_artifact_id", "artifact_id", "run_id"),
    sqlite_with_rowid=False,
)

generated = Table(
    "generated",
    metadata,
    _of("run", key=True),
    _of("name", key=True),  # the output's path
    _of("artifact"),
    Index("ix_generated_artifact_id", "artifact_id", "run_id"),
    sqlite_with_rowid=False,
)

# A metric of a run: how many points it has, the last one, and the extremes of the finite values.
metrics = Table(
    "metrics",
    metadata,
    _id(),
    _of("run"),
    _of("name"),
    _number("points"),
    Column("step", Float),
    Column("time", Float, nullable=False),
    Column("last", Float),
    Column("other", Text),
    Column("lowest", Float),
    Column("highest", Float),
    Index("ix_metrics_run_id", "run_id", "name_id", unique=True),
    Index("ix_metrics_last", "name_id", "last"),
    Index("ix_metrics_lowest", "name_id", "lowest"),
    Index("ix_metrics_highest", "name_id", "highest"),
)

# All points of metrics that have more than one.
points = Table(
    "points",
    metadata,
    _of("metric", key=True),
    _number("number", key=True),
    Column("step", Float),
    Column("time", Float, nullable=False),
    Column("value", Float),
    Column("other", Text),
    sqlite_with_rowid=False,
)

phases = Table(
    "phases",
    metadata,
    _of("run", key=True),
    _of("name", key=True),
    Column("seconds", Float, nullable=False),
    _number("spans"),
    _number("unfinished"),
    Column("samples", Float),
    Column("own", Float),  # s in which no other phase was open within it
    Column("began", Float),  # s after the run's start at which it was entered first
    Column("joules", Float),
    Column("uncertainty", Float),  # J
    Column("covered", Float),  # s of which the energy is known
    sqlite_with_rowid=False,
)

described = Table(
    "described",
    metadata,
    _of("run", key=True),
    _of("name", key=True),
    Column("value", Text, nullable=False),  # JSON; null is a value, too
    sqlite_with_rowid=False,
)

# What was counted or timed of an attempt, and who says so.
figures = Table(
    "figures",
    metadata,
    _of("run", key=True),
    _number("attempt", key=True),
    _of("name", key=True),
    Column("value", Float, nullable=False),
    Column("unit", String(16), nullable=False),
    Column("source", String(64), nullable=False),
    sqlite_with_rowid=False,
)

# The energy of a run that has ended, or why it is not known.
energies = Table(
    "energies",
    metadata,
    _of("run", key=True),
    Column("joules", Float),
    Column("uncertainty", Float),  # J
    Column("scope", String(64)),
    Column("seconds", Float),  # that its command ran
    Column("covered", Float, nullable=False),  # s of it of which the energy is known
    Column("exclusive", Boolean),  # whether nobody else used the machine
    Column("why", Exact, nullable=False),  # there are no joules
    Column("root", Exact, nullable=False),  # the folder below which the counters were
    Column("source", String(64)),  # who measured
)

# Runs that have a copy in another store, by the store's key, and what they are called there.
mirrored = Table(
    "mirrored",
    metadata,
    Column("store", String(LONGEST_KEY), primary_key=True),
    _of("run", key=True),
    Column("mirror", String(256), nullable=False),
    sqlite_with_rowid=False,
)

# What is written anew when there is news of a run; its parameters never change.
NEWS = (attempts, allocations, events, used, generated, phases, described, figures, energies)
