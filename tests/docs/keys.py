"""Writes what is made of the model of profiles; ``make golden`` calls it."""

from __future__ import annotations

import json

from hpcml.sites.keys import Key, all_keys
from hpcml.sites.schema import site_schema
from tests.docs.pages import ROOT

SCHEMA = ROOT / "site-configs" / "schema.json"
PAGE = ROOT / "docs" / "site-profiles.md"
BEGIN, END = "<!-- keys -->\n", "<!-- end of keys -->\n"


def schema_text() -> str:
    """What `hpcml sites schema` prints."""
    return json.dumps(site_schema(), indent=1, ensure_ascii=False) + "\n"


def page_text() -> str:
    """The reference page, with the keys as they are."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return before + BEGIN + "".join(_table()) + END + after


def _table() -> list[str]:
    rows = ["| key | is | default | description |\n", "|---|---|---|---|\n"]
    for key in all_keys():
        cells = (f"`{key.name}`", _kind(key), _default(key), key.description)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return rows


def _kind(key: Key) -> str:
    words = ", ".join(f"`{word}`" for word in key.allowed)
    return key.kind.replace("one of the words", words)


def _default(key: Key) -> str:
    if key.required:
        return "needed"
    return "" if key.default in (None, '""') else f"`{key.default}`"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(), encoding="utf-8")
