"""The table of runs. It draws the lines that are on the screen, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from hpcml.cli.top.board import Cells, Row

MARK, ID, STATE, TIME = 2, 30, 15, 11  # columns, with the space between them
LEAST_FOR_SITE = 110  # columns of a terminal that also has one for the site
SITE = 12
COLOURS = {
    "RUNNING": "green",
    "PENDING": "cyan",
    "FAILED": "red",
    "OUT_OF_MEMORY": "red",
    "NODE_FAIL": "red",
    "TIMEOUT": "yellow",
    "CANCELLED": "yellow",
    "PREEMPTED": "yellow",
    "UNKNOWN": "magenta",
}
HEADER = Cells("", "run", "state", "time", "name", "site", "reason, phase, metrics")


def line(cells: Cells, width: int) -> list[tuple[str, str]]:
    """The texts of a line and their colours, as wide as the terminal is."""
    with_site = width >= LEAST_FOR_SITE
    rest = max(0, width - MARK - ID - STATE - TIME - (SITE if with_site else 0))
    name = rest * 2 // 5
    parts = [
        (cells.mark, MARK, ""),
        (cells.id, ID, ""),
        (cells.state, STATE, COLOURS.get(cells.state, "")),
        (f"{cells.time:>{TIME - 2}}", TIME, ""),
        (cells.name, name, ""),
        *([(cells.site, SITE, "")] if with_site else []),
        (cells.note, rest - name, ""),
    ]
    return [(fit(text, columns), colour) for text, columns, colour in parts if columns > 0]


def fit(text: str, columns: int) -> str:
    """A text and a space, in just so many columns."""
    if cell_len(text) >= columns:
        text = set_cell_size(text, max(0, columns - 2)) + "…"
    return set_cell_size(text, columns)


class RunTable(ScrollView, can_focus=True):
    """Lines for runs and batches, and a cursor.

    Parameters
    ----------
    cells : callable
        What a line says now.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("home,g", "move(-1000000000)", "First", show=False),
        Binding("end,G", "move(1000000000)", "Last", show=False),
        Binding("left,right", "nothing", "", show=False),
    ]

    class Moved(Message):
        """Other lines are on the screen, or the cursor is on another one."""

    def __init__(self, cells: Callable[[Row], Cells]) -> None:
        super().__init__()
        self.cells = cells
        self.rows: Sequence[Row] = ()
        self.cursor = 0

    @property
    def row(self) -> Row | None:
        """The line that the cursor is on."""
        return self.rows[self.cursor] if self.rows else None

    @property
    def columns(self) -> int:
        """How wide a line is."""
        return self.scrollable_content_region.width

    @property
    def visible_rows(self) -> Sequence[Row]:
        """The lines that are on the screen."""
        top = self.scroll_offset.y
        return self.rows[top : top + self.scrollable_content_region.height]

    def show(self, rows: Sequence[Row]) -> None:
        """Show other lines; the cursor stays with its own, and that where it is on the screen."""
        before, here = self.row, self.cursor
        self.rows = rows
        self.virtual_size = Size(0, len(rows))
        if before is not None:
            self.cursor = self._find(before, here)
        shift = self.cursor - here
        if shift and self.scroll_offset.y:  # at the top what is new is seen
            self.scroll_to(y=self.scroll_offset.y + shift, animate=False, force=True)
        self._reveal()
        self.refresh()
        self.post_message(self.Moved())

    def _find(self, row: Row, here: int) -> int:
        """Where a line is now; else that of its batch, or one near by."""
        for key in (row.key, (row.entry.id, None)):
            if here < len(self.rows) and self.rows[here].key == key:
                return here
            for place, other in enumerate(self.rows):
                if other.key == key:
                    return place
        return max(0, min(here, len(self.rows) - 1))

    def _reveal(self) -> None:
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if not height:
            return
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def action_move(self, lines: int) -> None:
        self.cursor = max(0, min(self.cursor + lines, len(self.rows) - 1))
        self._reveal()
        self.refresh()
        self.post_message(self.Moved())

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self.scrollable_content_region.height - 1))

    def action_nothing(self) -> None:
        """There is nothing to the left or right."""

    def on_resize(self, event: Resize) -> None:
        self._reveal()
        self.post_message(self.Moved())

    def render_line(self, y: int) -> Strip:
        width, place = self.columns, y + self.scroll_offset.y
        style = self.rich_style
        if place >= len(self.rows):
            return Strip.blank(width, style)
        cursor = place == self.cursor
        if cursor:
            style = self.get_component_rich_style("table--cursor")
        texts = line(self.cells(self.rows[place]), width)
        # The cursor's own colours are seen on any terminal; a state's might not be.
        colours = [Style() if cursor else Style.parse(colour) for _, colour in texts]
        segments = [
            Segment(text, style + colour) for (text, _), colour in zip(texts, colours, strict=True)
        ]
        return Strip(segments).adjust_cell_length(width, style)
