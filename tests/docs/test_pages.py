"""All code in the documentation runs, as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Reader, blocks

PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if any(True for _ in blocks(page))
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_who_follows_a_page_gets_what_it_says(page: Path, project: Path) -> None:
    assert Reader(page, project).follow() > 0
