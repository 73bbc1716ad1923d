"""A PostgreSQL server of the tests' own, as Debian installs it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually, installed


def postgres_binaries() -> Path:
    """Where Debian has initdb and postgres."""

    def find() -> Path | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        return found[-1].parent if found else None

    return installed(find, "postgresql")


def ordinary_user() -> str | None:
    """Whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if _exists(name))


def _exists(name: str) -> bool:
    return name in {entry.pw_name for entry in pwd.getpwall()}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """A running server: the folder of its socket, in which an empty database is ``records``."""
    binaries, user = postgres_binaries(), ordinary_user()
    folder = Path(tempfile.mkdtemp(prefix="hpcml-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        made = {"check": True, "capture_output": True, "user": user, "cwd": "/"}
        initdb = [binaries / "initdb", "-D", data, "-U", "scientist", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync"], **made)
        subprocess.run(
            [binaries / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start"], **made
        )
        try:
            eventually(lambda: (folder / ".s.PGSQL.5432").exists())
            yield folder
        finally:
            subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def team(postgres: Path, home: Path) -> str:
    """Settings that name an empty database of that server. Returns its URL."""
    import psycopg

    where = f"host={postgres} user=scientist"
    with psycopg.connect(f"{where} dbname=postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS records")
        connection.execute("CREATE DATABASE records")
    url = f"postgresql://scientist@/records?host={postgres}"
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"records: {url}\n")
    return url
