"""The contract of transports, on this machine's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpcml.settings import Binding
from hpcml.testing.transports import TransportSuite
from hpcml.transports import Transport
from hpcml.transports.local import LocalTransport
from tests.contract.conftest import a_site


class TestLocalTransport(TransportSuite):
    @pytest.fixture
    def make(self, home: Path) -> Callable[[], Transport]:
        binding = Binding(str(home / "work" / "space"), "python3", "python3", "")
        return lambda: LocalTransport(a_site(), binding)
