"""Fixtures of the embedded site's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embedded.scene import Scene


@pytest.fixture
def scene(tmp_path: Path, workspace: Path) -> Scene:
    """Where jobs write down that they ran, and what the workspace shows."""
    folder = tmp_path / "scene"
    folder.mkdir()
    return Scene(folder, workspace)
