"""The screens above the table: a run's logs, what is known of it, questions, help."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Log, Static

from hpcml.agent import wire
from hpcml.cli.top.board import Entry, brief
from hpcml.cli.top.logs import LINES, STREAMS, Following
from hpcml.cli.top.looker import problem_of
from hpcml.run import Run
from hpcml.texts import plain

HELP = """\
A line is a run, or a submission of several runs: ▸ is folded, ▾ unfolded.
Newest submissions come first. States are those that `hpcml runs` shows; … is not known yet.
Time is how long a run has been waiting or running; of one that has ended, how long it ran.

  ↑ ↓  j k         move                     Home End  g G   first, last
  PgUp PgDn        a screen up, down
  Enter            unfold or fold a submission; all that is known of a run
  l                what the run prints, as it comes
  c                cancel the run, or all runs of the submission; you are asked first
  r                go on with a submission that was broken off
  a                all runs, or only those that have not ended
  /                only runs that have all these words in id, name, site or state
  Esc              without these words again; back from here
  q  Ctrl-C        leave. Runs go on."""


class Page(Screen[None]):
    """A screen that covers the table until Esc or q."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back", key_display="esc"),
        Binding("j", "scroll_by(1)", "Down", show=False),
        Binding("k", "scroll_by(-1)", "Up", show=False),
    ]

    def action_scroll_by(self, lines: int) -> None:
        if self.focused is not None:
            self.focused.scroll_relative(y=lines, animate=False)


class Help(Page):
    """What the keys do."""

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(Text(HELP))
        yield Footer()


class Logs(Page):
    """What a run prints, as it comes. End follows it again after moving up."""

    def __init__(self, entry: Entry, index: int) -> None:
        super().__init__()
        self.heading = f"{wire.run_id(entry.id, index)}  {entry.name(index)}"
        self.logs = {name: Log(max_lines=LINES, id=name) for name in STREAMS}
        self.following = Following(entry, index, self._from_thread)

    def compose(self) -> ComposeResult:
        yield Static(Text(self.heading, no_wrap=True), classes="title")
        for name, log in self.logs.items():
            log.border_title = name
            yield log
        yield Static(id="status")
        yield Footer()

    def on_mount(self) -> None:
        self.logs["stderr"].display = False  # until there is something in it
        self.logs["stdout"].focus()
        self.following.start()

    def on_unmount(self) -> None:
        self.following.stop()

    def _from_thread(self, stream: str, text: str) -> None:
        tell(self, lambda: self._show(stream, text))

    def _show(self, stream: str, text: str) -> None:
        if not stream:
            self.query_one("#status", Static).update(Text(text))
            return
        log = self.logs[stream]
        log.display = True
        log.write(text, scroll_end=log.is_vertical_scroll_end)


class Details(Page):
    """All that is known of a run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(Text(f"{self.run.id}\n\nlooking …"), id="details")
        yield Footer()

    def on_mount(self) -> None:
        in_background("details", self._look)

    def _look(self) -> None:
        try:
            said = details(self.run)
        except Exception as error:
            said = f"{self.run.id}\n\n{plain(problem_of(error))}"
        tell(self, lambda: self.query_one("#details", Static).update(Text(said)))


class Question(ModalScreen[bool]):
    """Asks before something is done; only y does it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self.text}\n\ny: yes   n: no"), id="question")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


def details(run: Run) -> str:
    """All that is known of a run, a line each; reads the site's files."""
    seen = run.last_seen
    attempts = run.attempts
    lines = [
        run.id,
        "",
        f"name       {brief(run.name)}",
        f"site       {brief(run.site)}",
        f"state      {seen.state if seen else run.state}",
        f"reason     {brief(run.reason)}",
        f"digest     {run.digest}",
        f"attempts   {len(attempts)}",
    ]
    groups = {
        "parameters": run.params,
        "last metrics": run.metrics,
        "described": run.described,
        "usage (s, bytes)": run.usage,
        "host": run.host,
    }
    for title, values in groups.items():
        if values:
            lines += ["", title]
            lines += [f"  {brief(name):<20} {brief(it)}" for name, it in values.items()]
    told = (plain(line) for line in str(run.timeline).splitlines())
    return "\n".join([*lines, "", "time", *(f"  {line}" for line in told)])


def in_background(name: str, work: Callable[[], None]) -> None:
    """Do what may take its time; leaving the screen does not wait for it."""
    threading.Thread(target=work, name=f"hpcml top: {name}", daemon=True).start()


def tell(screen: Screen[None], show: Callable[[], None]) -> None:
    """Have something shown, from another thread; in vain if the screen is gone."""
    if screen.is_running:
        screen.call_later(show)
