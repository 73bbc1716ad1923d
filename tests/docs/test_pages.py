"""All code in the documentation runs, as it stands there."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcml.errors
from examples.box.__main__ import make_python
from tests.docs.pages import ROOT, Reader, blocks
from tests.testbed.box import Box, this_python
from tests.testbed.conftest import brought_up
from tests.testbed.rootfs import root_file_system

SLURM = ROOT / "docs" / "slurm.md"
ELSEWHERE = (SLURM, ROOT / "docs" / "tutorial.md")  # tests/notebook runs the tutorial
PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if any(True for _ in blocks(page)) and page not in ELSEWHERE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_who_follows_a_page_gets_what_it_says(page: Path, project: Path) -> None:
    Reader(page, project).follow()


@pytest.fixture
def beside_a_box(home: Path) -> Iterator[Path]:
    """The folder of somebody whose ssh knows a supercomputer in a box, which sees it, too."""
    image = root_file_system().finished / "root" / Box.image.lstrip("/")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # hosts have a /tmp of their own
        Path(name).chmod(0o755)
        Path(name, "python.sif").symlink_to(image)
        for box in brought_up(binds={**this_python(), name: name}):
            make_python(box)
            (home / ".ssh").mkdir()
            shutil.copy(box.ssh_config(), home / ".ssh" / "config")
            yield Path(name)


@pytest.mark.testbed
def test_who_follows_the_page_on_slurm_gets_what_it_says(beside_a_box: Path) -> None:
    Reader(SLURM, beside_a_box).follow()


def test_the_reference_has_every_public_name() -> None:
    """An error of the tree counts as told by its module."""
    reference = (ROOT / "docs" / "reference.md").read_text()
    told = set(re.findall(r"^::: hpcml\.(\w+)", reference, re.MULTILINE))
    errors = {name for name in hpcml.__all__ if hasattr(hpcml.errors, name)}
    assert set(hpcml.__all__) - errors <= told
