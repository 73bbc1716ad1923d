"""Slurm's queue keeps the contract of schedulers; run by pytest on a login node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcml.testing.schedulers import SchedulerSuite


class TestSlurm(SchedulerSuite):
    @pytest.fixture
    def site(self) -> str:
        return "box"

    @pytest.fixture
    def shared(self, request: pytest.FixtureRequest) -> Path:
        folder = Path(os.environ["HOME"], request.node.name[:60])
        folder.mkdir()
        return folder
