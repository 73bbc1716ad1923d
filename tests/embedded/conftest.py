"""Fixtures of the embedded site's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcml.schedulers.process import ProcessScheduler
from tests.embedded.scene import Scene


@pytest.fixture
def scene(tmp_path: Path, workspace: Path) -> Scene:
    """Where jobs write down that they ran, and what the workspace shows."""
    folder = tmp_path / "scene"
    folder.mkdir()
    return Scene(folder, workspace)


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dispatcher is started, or woken."""
    for name in ("wake", "wake_if_dead"):
        monkeypatch.setattr(ProcessScheduler, name, lambda self: None)
