"""The contract of transports, over a real OpenSSH, by several Pythons on the site."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcml.agent import wire
from hpcml.testing.transports import TransportSuite
from hpcml.transports import Transport
from tests.agent.pythons import pythons
from tests.contract.conftest import Loop


class TestChattyCsh(TransportSuite):
    """An ordinary user, with a csh that prints, and the machine's own Python."""

    @pytest.fixture
    def make(self, loop: Loop, csh_user: pwd.struct_passwd) -> Callable[[], Transport]:
        workspace = f"{csh_user.pw_dir}/{wire.random_letters(8)}/work space"
        return lambda: loop.transport(csh_user.pw_name, workspace)


FOUND = [*pythons().values()]
OLDEST, NEWEST = FOUND[0], FOUND[-1]


@pytest.mark.parametrize("python", sorted({OLDEST, NEWEST}), indirect=True)
class TestPythons(TransportSuite):
    """The oldest and the newest Python that this machine has, on the site."""

    @pytest.fixture
    def python(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def make(self, loop: Loop, home: Path, python: str) -> Callable[[], Transport]:
        user = pwd.getpwuid(os.geteuid()).pw_name
        return lambda: loop.transport(user, str(home / "workspace"), python)
