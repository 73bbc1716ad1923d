"""A reader of the HTML that a notebook gets."""

from __future__ import annotations

from html.parser import HTMLParser

BLOCKS = {"b", "br", "details", "div", "pre", "span", "summary"}
TABLES = {"table", "tbody", "td", "th", "thead", "tr"}


class Page(HTMLParser):
    """The text of some HTML, which must hold nothing but our own elements and their styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"
        assert all(one.isprintable() or one == "\n" for one in html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in BLOCKS | TABLES
        assert [name for name, _ in attrs] in ([], ["style"])
        self.tags.append(tag)
        if tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("td", "th", "div", "summary"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\xa0", " ")

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    handle_decl = handle_pi = unknown_decl = handle_comment
