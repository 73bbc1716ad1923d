"""Each test has a server and a way of its own, which may die."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import sshd
from tests.contract.conftest import Loop, a_way


@pytest.fixture
def server() -> Iterator[sshd.Server]:
    """A server that may be away."""
    with tempfile.TemporaryDirectory(prefix="hpcml-sshd-") as folder:
        made = sshd.Server(Path(folder), sshd.programs()[0])
        yield made
        made.stop()


@pytest.fixture
def way(server: sshd.Server) -> Iterator[Loop]:
    """A way to it."""
    with a_way(server) as made:
        yield made
