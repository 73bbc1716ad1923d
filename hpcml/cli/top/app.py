"""The live screen itself: its keys, its status line, and what they do."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from hpcml.cli.top.board import Cells, Choice, Entry, Filter, Row, brief, cells, rows
from hpcml.cli.top.looker import Looker, problem_of
from hpcml.cli.top.screens import Details, Help, Logs, Question, in_background
from hpcml.cli.top.table import HEADER, RunTable, line
from hpcml.connection import known_sites
from hpcml.run import Runs

LEAST_INTERVAL = 0.2  # seconds between two times that news is shown
TICK = 1.0  # seconds between two times that running clocks are shown
ASKED = "words of id, name, site or state; Enter keeps them, Esc drops them"
MOST_TROUBLES = 3  # lines of them


class Main(Screen[None]):
    """The table of runs."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Unfold/details"),
        Binding("l", "logs", "Logs"),
        Binding("c", "cancel", "Cancel"),
        Binding("r", "resume", "Resume"),
        Binding("a", "toggle_going", "All/live"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "app.leave", "Quit"),
        Binding("escape", "clear_filter", "No filter", show=False),
    ]

    class News(Message):
        """Something may have changed."""

    class Said(Message):
        """What came of something that was asked for."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, filter: Filter) -> None:
        super().__init__()
        self.choice = Choice(state=filter.state)
        self.unfolded: set[str] = set()
        self.said = ""
        self._told_of_news = False
        self._shown_at = 0.0
        claimed: dict[str, str] = {}
        sites = [filter.site] if filter.site else known_sites()
        self.lookers = {site: Looker(site, filter, self._news, claimed) for site in sites}
        self._entries: list[tuple[Entry, ...]] = []
        self._looker_of: dict[Entry, Looker] = {}  # the newest first

    def compose(self) -> ComposeResult:
        yield Static(id="summary")
        yield Static(id="header")
        yield RunTable(self._cells)
        yield Static(id="status")
        yield Input(id="filter", placeholder=ASKED)
        yield Footer()

    def on_mount(self) -> None:
        self.table.focus()
        for looker in self.lookers.values():
            looker.start()
        self.set_interval(TICK, self._tick)
        self._refresh()

    def on_unmount(self) -> None:
        for looker in self.lookers.values():
            looker.stop()

    @property
    def table(self) -> RunTable:
        """Its table."""
        return self.query_one(RunTable)

    # --- what is shown --------------------------------------------------------------------

    def _news(self) -> None:
        """Called from any thread; news that is not shown yet is told once."""
        if not self._told_of_news:
            self._told_of_news = True
            with suppress(RuntimeError):  # the screen is gone
                self.post_message(self.News())

    def on_main_news(self) -> None:
        wait = self._shown_at + LEAST_INTERVAL - time.monotonic()
        if wait > 0:
            self.set_timer(wait, self._refresh)
        else:
            self._refresh()

    def _refresh(self) -> None:
        self._told_of_news, self._shown_at = False, time.monotonic()
        entries = [looker.entries for looker in self.lookers.values()]
        if entries != self._entries:
            self._entries = entries
            here = [(it, looker) for looker in self.lookers.values() for it in looker.entries]
            here.sort(key=lambda pair: pair[0].newness, reverse=True)
            self._looker_of = dict(here)
        self.table.show(rows(self._looker_of, self.choice, self.unfolded))
        self._show_summary()
        self._show_status()

    def _cells(self, row: Row) -> Cells:
        looker = self._looker_of[row.entry]
        told = "" if row.index is None else looker.told.get((row.entry, row.index), "")
        try:
            return cells(row, looker.now(), told)
        except Exception as error:  # of this line alone: its files cannot be believed
            return Cells("", row.id, "", "", row.entry.title, "", brief(problem_of(error)))

    def _tick(self) -> None:
        """Clocks go on."""
        if any(not row.entry.view.final for row in self.table.visible_rows):
            self.table.refresh()

    def on_run_table_moved(self) -> None:
        """Have read what the runs on the screen tell."""
        header = "".join(text for text, _ in line(HEADER, self.table.columns))
        self.query_one("#header", Static).update(Text(header, no_wrap=True))
        visible = [(row.entry, row.index) for row in self.table.visible_rows]
        for looker in self.lookers.values():
            here = ((entry, index) for entry, index in visible if index is not None)
            looker.show(tuple(one for one in here if self._looker_of.get(one[0]) is looker))

    def _show_summary(self) -> None:
        batches = len(self._looker_of)
        runs = sum(entry.count for entry in self._looker_of)
        live = runs - sum(len(entry.view.ended) for entry in self._looker_of)
        parts = [f"{_count(runs, 'run')} of {_count(batches, 'submission')}"]
        parts.append(f"{live} not ended")
        if self.choice.going:
            parts.append("only these are shown")
        if self.choice.state is not None:
            parts.append(f"only {self.choice.state}")
        if self.choice.words:
            parts.append(f"only with: {brief(' '.join(self.choice.words))}")
        if any(looker.busy for looker in self.lookers.values()):
            parts.append("still reading …")
        self.query_one("#summary", Static).update(Text(" · ".join(parts), no_wrap=True))

    def _show_status(self) -> None:
        troubles = [one for looker in self.lookers.values() for one in looker.troubles()]
        lines = troubles[:MOST_TROUBLES]
        if len(troubles) > MOST_TROUBLES:
            lines.append(f"… and {len(troubles) - MOST_TROUBLES} more of these")
        lines += [self.said] if self.said else []
        status = self.query_one("#status", Static)
        status.display = bool(lines)
        status.update(Text("\n".join(lines)))

    def say(self, text: str) -> None:
        """Show a line below the table."""
        self.said = text
        self._show_status()

    def on_main_said(self, message: Main.Said) -> None:
        self.say(brief(message.text))
        for looker in self.lookers.values():
            looker.list_soon()

    # --- keys -----------------------------------------------------------------------------

    def action_open(self) -> None:
        """Unfold a batch, or show what is known of a run."""
        row = self.table.row
        if row is None:
            return
        if row.index is not None:
            self.app.push_screen(Details(row.entry.run(row.index)))
        else:
            self.unfolded ^= {row.entry.id}
            self._refresh()

    def action_logs(self) -> None:
        row = self.table.row
        if row is None:
            return
        if row.index is None:
            self.say("These are several runs: Enter unfolds them, then choose one.")
        else:
            self.app.push_screen(Logs(row.entry, row.index))

    def action_cancel(self) -> None:
        row = self.table.row
        if row is None:
            return
        entry, going = row.entry, row.entry.going()
        if row.index is not None:
            going = [row.index] if row.index in going else []
        if not going:
            self.say(f"{row.id} has ended: there is nothing to cancel.")
            return
        self._cancel(row, Runs([entry.run(index) for index in going]))

    def _cancel(self, row: Row, runs: Runs) -> None:
        if row.index is not None:
            question = f"Cancel {row.id}?\n{row.entry.name(row.index)}"
        else:
            question = f"Cancel all {len(runs)} runs of {row.id} that have not ended?"
            question += f"\n{row.entry.title}"
            if len(row.chosen) < row.entry.count:
                question += f"\nThe screen shows only {len(row.chosen)} of {row.entry.count}."

        def work() -> str:
            runs.cancel()
            return f"{row.id}: the site was told to cancel {len(runs)} of its runs."

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(f"Cancelling {row.id} …", work)
            else:
                self.say("Nothing was cancelled.")

        self.app.push_screen(Question(question), answered)

    def action_resume(self) -> None:
        row = self.table.row
        if row is None:
            return
        run = row.entry.run(row.index or 0)

        def work() -> str:
            run.resume()
            return f"{row.entry.id} goes on."

        self._do(f"Resuming {row.entry.id} …", work)

    def _do(self, doing: str, work: Callable[[], str]) -> None:
        """Do what may take its time, and say what came of it."""
        self.say(doing)

        def run() -> None:
            try:
                said = work()
            except Exception as error:  # it is said; the screen goes on
                said = problem_of(error)
            with suppress(RuntimeError):  # the screen is gone
                self.post_message(self.Said(said))

        in_background(doing, run)

    def action_toggle_going(self) -> None:
        self._choose(Choice(self.choice.words, not self.choice.going, self.choice.state))

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self.table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        words = tuple(event.value.lower().split())
        self._choose(Choice(words, self.choice.going, self.choice.state))

    def on_input_submitted(self) -> None:
        self.query_one("#filter", Input).display = False
        self.table.focus()

    def action_help(self) -> None:
        self.app.push_screen(Help())

    def _choose(self, choice: Choice) -> None:
        self.choice = choice
        self._refresh()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class Top(App[None]):
    """The live screen."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "hpcml top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "leave", "Quit", show=False, priority=True),
    ]
    CSS = """
    #summary { color: $text-muted; height: 1; }
    #header, .title { text-style: bold; height: 1; }
    #status { height: auto; max-height: 8; color: $text-warning; }
    #filter { display: none; border: none; height: 1; }
    RunTable { height: 1fr; scrollbar-gutter: stable; scrollbar-size-vertical: 1; }
    RunTable > .table--cursor { background: $primary; color: $text; }
    Log { height: 1fr; border: solid $primary; }
    Question { align: center middle; }
    #question { width: auto; max-width: 90%; height: auto; padding: 1 2; border: solid $warning; }
    """

    def __init__(self, filter: Filter) -> None:
        super().__init__()
        self.filter = filter

    def get_default_screen(self) -> Screen[None]:
        return Main(self.filter)

    def action_leave(self) -> None:
        self.exit()


def show(filter: Filter) -> int:
    """Show the screen until somebody leaves it; the exit code."""
    app = Top(filter)
    asyncio.run(_show(app))
    return app.return_code or 0


async def _show(app: Top) -> None:
    """The screen, which gives the terminal back whatever ends it."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, app.exit)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.exit, None, 128 + number)
    await app.run_async(mouse=False)  # so that the terminal's own mouse can select and copy
