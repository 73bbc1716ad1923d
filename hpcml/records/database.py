"""One database of records: opened, brought up to its schema, and what can go wrong there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, text
from sqlalchemy.pool import NullPool

from hpcml.errors import RecordsError
from hpcml.records.place import Place
from hpcml.records.schema import REVISIONS
from hpcml.settings import private_folder, state_folder

PATIENCE = 60.0  # seconds for which a process waits while another one writes
WRITERS = 0x6870636D6C  # PostgreSQL's advisory lock of who writes
MIRRORS = WRITERS + 1  # ... of who copies runs to another store
PRAGMAS = (
    "journal_mode=WAL",
    f"busy_timeout={PATIENCE * 1000:.0f}",
    "foreign_keys=ON",
    "synchronous=NORMAL",  # a power loss may take the last transactions: they are made again
    "cache_size=-65536",  # KiB
    "wal_autocheckpoint=16384",  # pages: an index page is written back once, not at each commit
)
CORRUPT = (11, 26)  # SQLITE_CORRUPT, SQLITE_NOTADB
# What SQLite and its driver say under other numbers where a page holds something else.
GARBLED = ("malformed", "unsupported file format", "Could not decode to UTF-8")
FULL, READ_ONLY, IO_ERROR, NO_OPEN = 13, 8, 10, 14
LOG = ("-wal", "-shm")


class CorruptError(RecordsError):
    """The file is no database, or not a whole one."""


@dataclass(frozen=True)
class DatabaseState:
    """What a database is.

    Attributes
    ----------
    revision : str or None
        Of its schema; ``None``: it has none yet.
    current : bool
        Whether that is this version's.
    size : int
        Bytes, its log left out.
    """

    revision: str | None
    current: bool
    size: int


class Database:
    """The records, wherever they are. Each use opens it anew, so that it may come and go.

    Attributes
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._used: int | None = None
        self._held: Connection | None = None

    @property
    def missing(self) -> bool:
        """Whether there is none yet, so that only the sites know."""
        return self.place.path is not None and not self.place.path.exists()

    @property
    def unmade(self) -> bool:
        """Whether there is none yet, or one that nobody has finished making from the sites."""
        return self.missing or (self.place.path is not None and self._mark.exists())

    @contextmanager
    def making(self) -> Iterator[None]:
        """Within the block all that the sites know is recorded; if that is broken off, it shows."""
        unmade = self.unmade
        if unmade:
            with self._opened():
                self._mark.touch(0o600)
        yield
        if unmade:
            self._mark.unlink(missing_ok=True)

    @property
    def _mark(self) -> Path:
        return Path(f"{self.place.path}.unfinished")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the records.

        Raises
        ------
        RecordsError
            They cannot be read; CorruptError where they must be made anew.
        """
        with self._opened() as connection, self._legible():
            self._bring_up(connection)
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """All of what the block writes, or nothing; nobody else writes meanwhile.

        Raises
        ------
        RecordsError
            They cannot be written.
        """
        with self._opened() as connection:
            with self._legible():
                self._bring_up(connection)
            with _alone(connection):
                yield connection

    @contextmanager
    def mirroring(self) -> Iterator[None]:
        """Nobody who shares these records, or this home, copies them elsewhere meanwhile.

        Raises
        ------
        RecordsError
            The home's file system knows no locks.
        """
        with ExitStack() as held:
            self._keep_mirrors_out(held)
            yield

    def _keep_mirrors_out(self, held: ExitStack) -> None:
        place = state_folder() / "mirror"
        try:
            private_folder(place.parent)
            held.enter_context(_lock(place))
        except OSError as error:
            raise RecordsError(
                f"{place}.lock cannot be locked: {error.strerror}",
                "Let XDG_STATE_HOME name a folder on a file system with locks.",
            ) from error
        if self.place.path is None:  # the lock is the connection's, and ends with it
            try:
                connection = held.enter_context(_engine(os.getpid(), self.place.url).connect())
                with connection.begin():
                    connection.execute(text(f"SELECT pg_advisory_lock({MIRRORS})"))
            except exc.DBAPIError as error:
                raise self._told(error) from error

    def state(self) -> DatabaseState:
        """What there is, as it is: nothing is brought up.

        Raises
        ------
        RecordsError
            It cannot be read, or is of a newer version.
        """
        with self._opened() as connection, connection.begin():
            revision = _revision(connection)
            if self.place.path is not None:
                size = self.place.path.stat().st_size
            else:
                asked = connection.scalar(text("SELECT pg_database_size(current_database())"))
                size = int(asked or 0)
            return DatabaseState(revision, not self._behind(revision), size)

    def move_aside(self) -> Path | None:
        """Put the file that was used last, with its log, where it harms nobody.

        Returns its new path; ``None``: another process was quicker.
        """
        path = self.place.path
        if path is None:
            return None
        aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
        with _lock(path):
            if _file_number(path) != self._used:
                return None
            for end in ("", *LOG):
                with suppress(FileNotFoundError):
                    os.rename(f"{path}{end}", f"{aside}{end}")
        return aside

    def make_durable(self) -> None:
        """Have on the disk what is committed: so far a power loss may still take it.

        A server sees to that by itself.
        """
        path = self.place.path
        for end in ("", "-wal") if path is not None else ():
            try:
                with open(f"{path}{end}", "rb") as file:
                    os.fsync(file.fileno())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RecordsError(
                    f"the records {self.place} cannot be brought to the disk: {error.strerror}",
                    "Mend that; the runs themselves are on their sites.",
                ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block one connection serves all uses, and keeps in memory what it has read."""
        with self._opened() as connection:
            self._held = connection
            try:
                yield
            finally:
                self._held = None

    @contextmanager
    def _opened(self) -> Iterator[Connection]:
        try:
            if self._held is not None:
                yield self._held
                return
            self._make_file()
            self._used = _file_number(self.place.path) if self.place.path else None
            with self._legible():
                opened = _engine(os.getpid(), self.place.url).connect()
            with opened as connection:
                yield connection
        except exc.DBAPIError as error:
            raise self._told(error) from error
        except OSError as error:
            raise RecordsError(
                f"the records {self.place} cannot be opened: {error.strerror}",
                "Mend that; the runs themselves are on their sites.",
            ) from error
        except ModuleNotFoundError as error:
            raise RecordsError(
                f"the records {self.place} need the package {error.name!r}",
                'pip install "hpcml[postgresql]"',
            ) from error

    @contextmanager
    def _legible(self) -> Iterator[None]:
        """What cannot be decoded, though we have written it, was not left as it was."""
        try:
            yield
        except (UnicodeDecodeError, JSONDecodeError) as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: object) -> CorruptError:
        problem = f"the records {self.place} cannot be used: {error}"
        return CorruptError(problem, "`hpcml sync` makes them anew from the sites.")

    def _make_file(self) -> None:
        """The file, and with it SQLite's logs, are for its owner's eyes only from the start."""
        if self.missing and self.place.path is not None:
            private_folder(self.place.path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            os.close(os.open(self.place.path, flags, 0o600))

    def _bring_up(self, connection: Connection) -> None:
        """Have the schema of this version."""
        with connection.begin():
            behind = self._behind(_revision(connection))
        if behind:
            with _alone(connection):
                if self._behind(_revision(connection)):  # else another process was quicker
                    _migrate(connection)

    def _behind(self, revision: str | None) -> bool:
        if revision is not None and revision not in REVISIONS:
            where = f"Remove {self.place.path}: it is made anew from the sites."
            other = "Leave it to that version, or name another database in the settings."
            raise RecordsError(
                f"the records {self.place} have schema {revision}, of a newer hpcml",
                f"Use that version. {where if self.place.path else other}",
            )
        return revision != REVISIONS[-1]

    def _told(self, error: exc.DBAPIError) -> RecordsError:
        """What a database's own error means here."""
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        said = str(error.orig)
        here = self.place.path is not None
        if code in CORRUPT or (here and any(words in said for words in GARBLED)):
            return self._corrupt(said)
        other = "The runs themselves are on their sites: `hpcml runs`."
        if here:
            other += f" If this stays so, remove {self.place.path}: it is made anew from them."
        advice = {
            FULL: "Free some space; nothing half-written is believed.",
            IO_ERROR: "Free some space, or mend the disk; nothing half-written is believed.",
            READ_ONLY: f"Make {self.place.path} and its folder writable for you.",
            NO_OPEN: f"Make {self.place.path} and its folder writable for you.",
        }.get(code, other)
        return RecordsError(f"the records {self.place} cannot be used: {said}", advice)


@cache
def _engine(pid: int, url: str) -> Engine:
    """Statements stay compiled; connections do not stay open, as files come and go."""
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin when we say so, see _begin
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    alone = connection.get_execution_options().get("alone", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if alone else "BEGIN")


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """A transaction beside which nobody else writes."""
    connection.execution_options(alone=True)
    try:
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITERS})"))
            yield
    finally:
        connection.execution_options(alone=False)


def _revision(connection: Connection) -> str | None:
    """Which schema the database has; ``None``: none at all."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def _migrate(connection: Connection) -> None:
    from alembic import command  # slow to load, and needed once
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _file_number(path: Path) -> int | None:
    """What tells one file of a name from the next."""
    return path.stat().st_ino if path.exists() else None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Closing would not do: a child forked meanwhile may hold a copy.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
