"""Fixtures of the notebook's tests: a real kernel, and where jobs write down that they ran."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.conftest import scene
from tests.notebook.kernels import Kernel

__all__ = ["kernel", "scene"]


@pytest.fixture
def kernel(project: Path) -> Iterator[Kernel]:
    """A kernel in the project's folder."""
    started = Kernel(project)
    yield started
    started.stop()
