"""All code in the documentation runs, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hpcml.errors
from tests.docs.pages import ROOT, Reader, blocks

PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if any(True for _ in blocks(page)) and page.name != "tutorial.md"  # tests/notebook runs that
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_who_follows_a_page_gets_what_it_says(page: Path, project: Path) -> None:
    Reader(page, project).follow()


def test_the_reference_has_every_public_name() -> None:
    """An error of the tree counts as told by its module."""
    reference = (ROOT / "docs" / "reference.md").read_text()
    told = set(re.findall(r"^::: hpcml\.(\w+)", reference, re.MULTILINE))
    errors = {name for name in hpcml.__all__ if hasattr(hpcml.errors, name)}
    assert set(hpcml.__all__) - errors <= told
