"""Databases that are gone, broken, full or newer; several writers; where a database may lie."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import sqlite3
import stat
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import hpcml
from hpcml import records
from hpcml.batch_view import look
from hpcml.errors import ProfileError, RecordsError
from hpcml.poller import poller
from hpcml.records import asking, ingesting, place, schema
from hpcml.records.database import Database
from hpcml.records.place import find_place
from hpcml.transports.local import LocalTransport
from tests.byhand import ByHand
from tests.conftest import eventually
from tests.records.telling import ended, events, log

Another = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def index(home: Path) -> Path:
    """The database's file."""
    return home / "state" / "hpcml" / "index.db"


def ten_runs() -> ByHand:
    batch = ByHand([{"n": n} for n in range(10)])
    for n in range(10):
        ended(batch, n, log(0, loss=float(n)), log(1, loss=float(n)))
    return batch


# --- gone, broken, newer -----------------------------------------------------------------------


def test_a_database_is_for_its_owner_alone(index: Path) -> None:
    ten_runs()
    hpcml.sync()
    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    assert stat.S_IMODE(index.parent.stat().st_mode) == 0o700
    with Database(find_place()).mirroring():
        pass
    index.write_bytes(b"no database")
    with pytest.warns(UserWarning, match="moved to"):
        records.find()
    assert not [path for path in index.parent.iterdir() if path.stat().st_mode & 0o077]


def test_a_removed_database_is_made_anew_by_the_next_question(index: Path) -> None:
    ten_runs()
    hpcml.sync()
    before = records.find()
    index.unlink()
    assert records.find() == before
    index.unlink()
    assert records.ingest("local", []) == 0
    assert records.find() == before


def test_asking_what_is_on_record_makes_no_database_that_would_be_taken_for_whole(
    index: Path,
) -> None:
    first, _ = ten_runs(), ten_runs()
    assert records.recorded([first.batch.id]) == set() and not index.exists()
    records.ingest("local", [first.batch.id])
    assert len(records.find()) == 20


def test_a_file_that_is_no_database_is_moved_aside_and_made_anew(index: Path) -> None:
    ten_runs()
    hpcml.sync()
    before = records.find()
    index.write_bytes(b"no database at all" * 1000)
    with pytest.warns(UserWarning, match="was moved to .*corrupt.* made anew"):
        assert records.find() == before
    (aside,) = index.parent.glob("index.db.corrupt-*[0-9]")
    assert aside.read_bytes().startswith(b"no database")
    assert records.find() == before


def test_a_database_with_torn_pages_is_moved_aside_and_made_anew(index: Path) -> None:
    ten_runs()
    hpcml.sync()
    before = records.find()
    content = index.read_bytes()
    index.write_bytes(content[:8192] + os.urandom(len(content) - 8192))
    with pytest.warns(UserWarning, match="made anew"):
        assert hpcml.sync() == 10
    assert records.find() == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runs SET name = CAST(x'ff' AS TEXT)",
        "UPDATE hosts SET facts = '{'",
        "PRAGMA writable_schema=ON; UPDATE sqlite_master SET sql = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_database_with_garbled_cells_is_moved_aside_and_made_anew(
    index: Path, change: str
) -> None:
    """Pages are whole, and hold what nobody has written."""
    ten_runs()
    hpcml.sync()
    before = records.find()
    with sqlite3.connect(index) as connection:
        connection.executescript(change)
    with pytest.warns(UserWarning, match="was moved to .*corrupt.* made anew"):
        assert records.find() == before


def test_a_database_with_bytes_changed_anywhere_never_stops_with_a_strange_error(
    index: Path,
) -> None:
    ten_runs()
    hpcml.sync()
    whole, chance = index.read_bytes(), random.Random(7)
    for _ in range(40):
        broken = bytearray(whole)
        for _ in range(chance.choice([1, 20, 1000])):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        for left in index.parent.glob("index.db*"):
            left.unlink()
        index.write_bytes(broken)
        with warnings.catch_warnings(), contextlib.suppress(RecordsError):
            warnings.simplefilter("ignore", UserWarning)
            records.find()
            hpcml.sync()


def test_a_newer_schema_is_refused_with_what_to_do(index: Path) -> None:
    ten_runs()
    hpcml.sync()
    with sqlite3.connect(index) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'r9999'")
    for ask in (hpcml.sync, records.find):
        with pytest.raises(RecordsError, match=r"r9999, of a newer hpcml\n.*Remove"):
            ask()
    assert index.exists()


def test_a_newer_schema_of_a_team_is_not_to_be_removed(team: str) -> None:
    hpcml.sync()
    with Database(place.find_place()).writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'r9999'"))
    with pytest.raises(RecordsError, match="name another database"):
        records.find()


def test_a_folder_in_its_place_is_said_to_be_one(index: Path) -> None:
    index.mkdir(parents=True)
    with pytest.raises(RecordsError, match="cannot be used: unable to open"):
        hpcml.sync()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_migrations_make_the_schema_that_the_code_has(
    kind: str, request: pytest.FixtureRequest
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if kind == "postgresql":
        request.getfixturevalue("team")
    with Database(place.find_place()).reading() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    folder = Path(schema.__file__).with_name("migrations")
    revisions = [one.revision for one in ScriptDirectory(str(folder)).walk_revisions()]
    assert tuple(reversed(revisions)) == schema.REVISIONS


def migrated(to: str, database: Database) -> None:
    """Make the tables of an earlier schema, with a row."""
    from alembic import command
    from alembic.config import Config

    database._make_file()
    with create_engine(database.place.url, poolclass=NullPool).begin() as connection:
        config = Config()
        config.set_main_option(
            "script_location", str(Path(schema.__file__).with_name("migrations"))
        )
        config.attributes["connection"] = connection
        command.upgrade(config, to)
        connection.execute(text("INSERT INTO people (id, key, name) VALUES (1, 'ada', 'ada')"))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("revision", schema.REVISIONS)
def test_every_earlier_schema_is_brought_up_to_date_and_used(
    revision: str, kind: str, request: pytest.FixtureRequest
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    if kind == "postgresql":
        request.getfixturevalue("team")
    database = Database(place.find_place())
    migrated(revision, database)
    ten_runs()
    assert hpcml.sync() == 10
    assert len(records.find()) == 10
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        kept = connection.scalars(text("SELECT name FROM people ORDER BY id")).first()
    assert kept == "ada"


def test_a_process_that_is_killed_while_it_migrates_leaves_the_earlier_schema(
    another_python: Another,
) -> None:
    database = Database(place.find_place())
    migrated("r0001", database)
    done = another_python(
        """
        import os, hpcml
        from alembic import op
        op.add_column = lambda *_: os.kill(os.getpid(), 9)
        hpcml.sync()
        """
    )
    assert done.returncode == -9, done.stderr
    with create_engine(database.place.url).connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "r0001"
    ten_runs()
    assert hpcml.sync() == 10


# --- read-only, full ---------------------------------------------------------------------------


def without_privileges(code: str) -> subprocess.CompletedProcess[str]:
    """Run code to which file modes apply, even if this is root."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_read_only_database_is_said_to_be_one(index: Path) -> None:
    ten_runs()
    hpcml.sync()
    ByHand().end()
    index.chmod(0o400)
    index.parent.chmod(0o500)
    done = without_privileges("import hpcml; hpcml.sync()")
    index.parent.chmod(0o700)
    assert "RecordsError" in done.stderr and "writable" in done.stderr, done.stderr
    index.chmod(0o600)
    assert hpcml.sync() == 1


def test_on_a_full_disk_nothing_half_written_is_believed(
    index: Path, another_python: Another
) -> None:
    ten_runs()
    hpcml.sync()
    before = records.find()
    size = index.stat().st_size
    late = ByHand([{"n": n} for n in range(100)])
    for n in range(100):
        ended(late, n, *(log(step, loss=1.0) for step in range(100)))
    done = another_python(
        f"""
        import resource, hpcml
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size} + 65536, {size} + 65536))
        hpcml.sync()
        """
    )
    assert "RecordsError" in done.stderr and "Free some space" in done.stderr, done.stderr
    assert records.find(id=[record.id for record in before]) == before
    whole = records.find(batch=late.batch.id)
    for record in whole:
        assert record.metrics["loss"].points == 100
    assert hpcml.sync() == 100 - len(whole)
    assert len(records.find(batch=late.batch.id)) == 100


def test_a_small_disk_that_fills_up_keeps_whole_runs_and_goes_on_with_more_space(
    index: Path, another_python: Another
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    index.parent.mkdir(parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "hpcml-test", str(index.parent)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        ten_runs()
        assert hpcml.sync() == 10
        batch = ByHand([{"n": n} for n in range(1000)])
        for n in range(1000):
            ended(batch, n, *(log(step, loss=1.0) for step in range(20)))
        done = another_python("import hpcml; hpcml.sync()")
        assert "RecordsError" in done.stderr and "Free some space" in done.stderr, done.stderr
        found = records.find()
        assert 10 <= len(found) < 1010
        assert {record.metrics["loss"].points for record in found} <= {2, 20}
        subprocess.run(["mount", "-o", "remount,size=50m", index.parent], check=True)
        assert hpcml.sync() == 1010 - len(found)
        assert len(records.find()) == 1010
    finally:
        subprocess.run(["umount", "--lazy", index.parent], check=True)


# --- several at once, killed -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_ingest_at_once_record_everything_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """They make the database together, too."""
    if kind == "postgresql":
        request.getfixturevalue("team")
    batches = [ByHand([{"n": n} for n in range(250)], name=f"b{b}") for b in range(3)]
    for batch in batches:
        for n in range(250):
            ended(batch, n, log(0, loss=1.0), log(1, loss=0.5))
    gate = tmp_path / "gate"
    code = f"""
        import os, time, hpcml, hpcml.records.database
        open("{gate}-" + str(os.getpid()), "w")
        while not os.path.exists("{gate}"): time.sleep(0.001)
        hpcml.sync()
    """
    several = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    eventually(lambda: len(list(tmp_path.glob("gate-*"))) == 3)
    gate.touch()
    for process in several:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()

    found = records.find()
    assert len(found) == len({record.id for record in found}) == 750
    for record in found:
        assert (record.metrics["loss"].points, len(record.params)) == (2, 1)
    assert hpcml.sync() == 0
    with Database(place.find_place()).reading() as connection:
        counts = {
            table.name: connection.scalar(text(f"SELECT count(*) FROM {table.name}"))
            for table in (schema.points, schema.params, schema.attempts, schema.batches)
        }
    assert counts == {"points": 1500, "params": 750, "attempts": 750, "batches": 3}


def test_a_process_that_is_killed_while_it_ingests_leaves_whole_runs(
    another_python: Another,
) -> None:
    batch = ByHand([{"n": n} for n in range(450)])
    for n in range(450):
        ended(batch, n, log(0, loss=1.0))
    done = another_python(
        """
        import os, hpcml
        from hpcml.records import ingesting
        write, calls = ingesting.write_runs, []
        def killed(*arguments):
            calls.append(write(*arguments))
            if len(calls) == 2:
                os.kill(os.getpid(), 9)
            return calls[-1]
        ingesting.write_runs = killed
        hpcml.sync()
        """
    )
    assert done.returncode == -9, done.stderr
    with Database(find_place()).reading() as connection:
        whole = asking.find(connection, {})
    assert [len(record.metrics) for record in whole] == [1] * ingesting.FIRST
    # The first ones were being made. A question that answered from these alone would not be true.
    assert len(records.find()) == 450
    assert hpcml.sync() == 0


# --- where it lies -----------------------------------------------------------------------------


def test_a_run_that_ends_while_it_is_read_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody else in this process looks at it meanwhile, and sees that it has ended."""
    batch = ByHand()
    batch.start()
    told = [log(0, loss=0.5), log(1, loss=0.25)]
    batch.file("events.jsonl").write_bytes(events(*told[:1], end=False))
    view, get = poller("local").view(batch.batch.id), LocalTransport.get

    def end_after_reading(self: LocalTransport, paths: Mapping[str, int]) -> dict[str, bytes]:
        found = get(self, paths)
        if any(path.endswith("events.jsonl") for path in paths) and not view.final:
            batch.file("events.jsonl").write_bytes(events(*told))
            batch.end()
            look([view])
        return found

    monkeypatch.setattr(LocalTransport, "get", end_after_reading)
    hpcml.sync()
    hpcml.sync()
    (found,) = records.find()
    assert (found.state, found.metrics["loss"].last) == ("COMPLETED", 0.25)


def test_runs_whose_files_go_while_they_are_read_are_not_recorded_as_having_told_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, get = ByHand(), LocalTransport.get
    ended(batch, 0, log(0, loss=0.5))

    def removed_before_reading(self: LocalTransport, paths: Mapping[str, int]) -> dict[str, bytes]:
        if any(path.endswith("events.jsonl") for path in paths):
            batch.folder.rename(batch.folder.with_name(".trash-1"))
        return get(self, paths)

    monkeypatch.setattr(LocalTransport, "get", removed_before_reading)
    assert hpcml.sync() == 0
    assert records.find() == []


def test_runs_that_have_told_much_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ByHand([{"n": n} for n in range(40)])
    for n in range(40):
        ended(batch, n, *[log(step, loss=0.5) for step in range(20)])
    together: list[int] = []
    read = ingesting._events

    def noted(*args: Any) -> dict[int, bytes]:
        found = read(*args)
        together.append(len(found))
        return found

    monkeypatch.setattr(ingesting, "_events", noted)
    monkeypatch.setattr(ingesting, "BYTES", 1)
    assert hpcml.sync() == 40
    assert together == [8, 4, 2, *[1] * 26]
    assert len(records.find(state="COMPLETED")) == 40


def test_a_home_on_a_network_has_its_database_on_the_node(
    home: Path, index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def on_nfs(path: Path) -> int:
        asked.append(path)
        return 0x6969 if path.is_relative_to(home) else 0xEF53

    monkeypatch.setattr(place, "file_system_type", on_nfs)
    found = place.find_place()
    assert found.network == "NFS" and asked
    assert found.path is not None
    folder = found.path.parent
    assert folder == Path(f"/tmp/hpcml-{os.geteuid()}")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    ten_runs()
    try:
        assert hpcml.sync() == 10
        assert not index.exists() and found.path.exists()
    finally:
        for left in folder.glob(f"{found.path.name}*"):
            left.unlink()


def test_a_folder_that_somebody_else_could_have_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted"
    planted.mkdir(mode=0o777)
    planted.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for folder in (planted, link):
        assert place._taken(folder) == "somebody else's"
    own = tmp_path / "own"
    assert place._taken(own) == "" and stat.S_IMODE(own.stat().st_mode) == 0o700


def test_the_kind_of_a_file_system_is_the_one_that_stat_tells(tmp_path: Path) -> None:
    told = subprocess.run(
        ["stat", "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True
    )
    assert place.file_system_type(tmp_path) == int(told.stdout, 16)
    assert place.file_system_type(Path("/proc")) == 0x9FA0
    assert place.network_of(Path("/proc/nowhere/at/all")) == ""


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://me:hunter2@host/db", "there is a password in it"),
        ("postgresql://host/db?password=hunter2", "there is a password in it"),
        ("mysql://hunter2@host/db", "no URL of PostgreSQL"),
        ("hunter2", "no URL of PostgreSQL"),
        ("postgresql://[hunter2", "no URL"),
    ],
)
def test_a_url_that_will_not_do_is_refused_and_not_repeated(
    home: Path, url: str, problem: str
) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"records: '{url}'\n")
    with pytest.raises(ProfileError, match=problem) as error:
        hpcml.sync()
    assert "hunter2" not in str(error.value)


def test_a_password_comes_from_where_postgresql_looks_for_it(
    team: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_runs()
    service = home / "pg_service.conf"
    folder = team.rpartition("=")[2]
    service.write_text(f"[team]\nhost={folder}\nuser=scientist\ndbname=records\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGSERVICE", "team")
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.write_text("records: 'postgresql://'\n")
    assert hpcml.sync() == 10


def test_a_server_that_does_not_answer_is_named(home: Path, tmp_path: Path) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"records: postgresql://me@/db?host={tmp_path}\n")
    with pytest.raises(RecordsError, match="cannot be used: connection"):
        hpcml.sync()


def test_people_who_share_a_database_see_each_others_runs(
    team: str, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("USER", "ada")
    one = ByHand()
    one.end()
    hpcml.sync()
    for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("USER", "grace")
    other = ByHand()
    other.end()
    hpcml.sync()
    assert [record.person for record in records.find()] == ["ada", "grace"]
    assert len({record.workspace for record in records.find()}) == 2
    assert dataclasses.asdict(records.find()[0])["state"] == "COMPLETED"


def test_a_job_keeps_no_records(script: Callable[..., str]) -> None:
    run = hpcml.submit(hpcml.Job(script("import hpcml; hpcml.sync()"))).wait(60)
    assert run.state == "FAILED" and "a job keeps no records" in run.logs()


def test_the_command_says_how_many_runs_there_was_news_of(home: Path) -> None:
    ten_runs()
    code = "from hpcml.cli import main; main()"
    none = '{ "runs": 0, "mirrored": null, "passed_over": [] }'
    for rest, printed in (([], "10 runs with news"), (["local", "--json"], none)):
        done = subprocess.run(
            [sys.executable, "-c", code, "sync", *rest], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == printed.split()
