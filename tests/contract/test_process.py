"""The embedded site's queue keeps the contract of schedulers."""

from __future__ import annotations

import pytest

from hpcml.testing.schedulers import SchedulerSuite


class TestEmbeddedSite(SchedulerSuite):
    @pytest.fixture
    def site(self) -> str:
        return "local"
