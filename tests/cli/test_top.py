"""``hpcml top``, through the driver of its toolkit against real runs, and in a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

import hpcml
import hpcml.poller as pollers
from hpcml.cli.top import top_command
from hpcml.cli.top.app import Main, Top
from hpcml.cli.top.board import Cells, Filter, Row
from hpcml.cli.top.logs import LONGEST_LINE, PIECE, Printable, Stream
from hpcml.cli.top.looker import last_told
from hpcml.errors import HpcmlError, QueueError
from hpcml.schedulers.process import ProcessScheduler
from hpcml.states import State
from tests.cli.test_commands import call
from tests.conftest import eventually, installed
from tests.embedded.scene import Scene, small_machine


@pytest.fixture
def scene(tmp_path: Path, workspace: Path) -> Scene:
    """Where jobs write down that they ran, and gates that they wait for."""
    folder = tmp_path / "scene"
    folder.mkdir()
    return Scene(folder, workspace)


class Viewer:
    """Somebody before the screen."""

    def __init__(self, app: Top, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def main(self) -> Main:
        """The screen with the table, whatever lies above it."""
        found = self.app.screen_stack[0]
        assert isinstance(found, Main)
        return found

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line(self, word: str) -> str:
        """The line with a word; empty if there is none."""
        return next((line for line in self.lines if word in line), "")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def sees(self, *words: str) -> None:
        """Wait until there is a line with all these words."""
        await self.until(lambda: any(all(word in line for word in words) for line in self.lines))

    async def sees_no(self, word: str) -> None:
        await self.until(lambda: word not in self.text)

    async def until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"it never became true:\n{self.text}"
            await asyncio.sleep(0.02)


def view(
    watching: Callable[[Viewer], Awaitable[None]],
    filter: Filter | None = None,
    size: tuple[int, int] = (140, 30),
) -> None:
    """Have somebody look at the screen."""

    async def run() -> None:
        app = Top(filter or Filter())
        async with app.run_test(size=size) as pilot:
            await watching(Viewer(app, pilot))

    asyncio.run(run())


def shell(command: str, *arguments: str, **options: Any) -> hpcml.Job:
    """A job of a shell command; its arguments begin with $0."""
    return hpcml.Job(["/bin/sh", "-c", command, *arguments], code=None, **options)


# --- what is shown ------------------------------------------------------------------------


def test_a_run_is_shown_as_it_goes_and_its_end_shows_by_itself(project: Path, scene: Scene) -> None:
    run = hpcml.submit(scene.gated("slow"))

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "RUNNING", "00:0", "slow")
        scene.open("slow")
        await viewer.sees(run.id, "COMPLETED")
        assert "1 run of 1 submission · 0 not ended" in viewer.text

    view(watch)


def test_what_is_submitted_elsewhere_appears_on_top(
    project: Path, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first = hpcml.submit(shell("exit 3", name="first")).wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(first.id, "FAILED", "exit code 3")
        code = 'import hpcml; hpcml.submit(hpcml.Job(["true"], name="later", code=None))'
        await asyncio.to_thread(another_python, code)
        await viewer.sees("later", "COMPLETED")
        names = [line for line in viewer.lines if "first" in line or "later" in line]
        assert "later" in names[0] and "first" in names[1]
        row = viewer.main.table.row
        assert row is not None and row.id == first.id, "the cursor stays with its run"

    view(watch)


def test_a_run_shows_the_phase_that_is_open_and_its_last_metrics(
    script: Callable[..., str], scene: Scene
) -> None:
    script(
        f"""
        import hpcml, os, time
        with hpcml.phase("train"):
            for step in range(3):
                hpcml.log(step=step, loss=1 / (1 + step))
            while not os.path.exists({str(scene.gate("told"))!r}):
                time.sleep(0.02)
        """
    )
    hpcml.submit(hpcml.Job("train.py", name="told"))

    async def watch(viewer: Viewer) -> None:
        await viewer.sees("told", "RUNNING", "[train]  loss 0.3333")
        scene.open("told")
        await viewer.sees("told", "COMPLETED", "loss 0.3333")
        await viewer.sees_no("[train]")

    view(watch)


def test_the_last_lines_of_every_process_and_of_the_last_attempt_alone_are_told() -> None:
    def events(*told: dict[str, Any]) -> bytes:
        return b"".join(json.dumps(one).encode() + b"\n" for one in told)

    start, zeros = {"e": "start", "m": 1}, b"\0" * 4096
    old = {"e": "log", "m": 2, "v": {"loss": 9.0, "gone": 1}}
    begin = {"e": "begin", "m": 3, "phase": "train"}
    new = {"e": "log", "m": 5, "v": {"loss": 0.25}}
    late = {"e": "log", "m": 4, "v": {"loss": 0.5, "acc": 1.0}}
    odd = {"e": "log", "m": "soon", "v": ["no", "metrics"]}
    data = events(start, old, start, begin, new) + zeros + events(late, odd) + zeros
    assert last_told(data) == "[train]  loss 0.25  acc 1"
    assert last_told(b"torn" + data + events({"e": "end", "m": 6})) == "loss 0.25  acc 1"
    assert last_told(b"") == ""


def test_a_submission_of_several_runs_is_one_line_until_it_is_unfolded(project: Path) -> None:
    runs = hpcml.submit(shell("exit $0", "{params.n}", name="many").sweep(n=[0, 1, 3])).wait(30)
    batch = runs[0].id.partition(".")[0]

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(f"▸ {batch}", "3/3 ended", "3 runs: 2 FAILED, 1 COMPLETED")
        assert runs[0].id not in viewer.text
        await viewer.press("enter")
        await viewer.sees(runs[2].id, "FAILED", "many n=3", "exit code 3")
        assert viewer.line(batch).startswith("▾")
        await viewer.press("enter")
        await viewer.sees_no(runs[2].id)

    view(watch)


def test_what_nobody_has_looked_at_yet_has_no_state_until_the_site_answers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hpcml.submit(shell("exit $0", "{params.n}", name="many").sweep(n=[0, 1])).wait(30)
    monkeypatch.setattr(pollers, "_pollers", {})  # as in a process that has not seen them yet
    look, answers = pollers.look, threading.Event()
    monkeypatch.setattr(pollers, "look", lambda views: answers.wait(30) and look(views))

    async def watch(viewer: Viewer) -> None:
        await viewer.sees("▸", "…", "2 runs")
        assert "2 not ended" in viewer.text and "FAILED" not in viewer.text
        answers.set()
        await viewer.sees("2/2 ended", "1 FAILED, 1 COMPLETED")

    view(watch)


def test_words_choose_runs_by_state_name_and_id(project: Path) -> None:
    good = hpcml.submit(shell("exit 0", name="good")).wait(30)
    runs = hpcml.submit(shell("exit $0", "{params.n}", name="bad").sweep(n=[0, 3])).wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(good.id)
        await viewer.press("slash", *"FAIL", "space", *"bad", "enter")
        await viewer.sees("bad", "1 of 2 runs: 1 FAILED")
        assert good.id not in viewer.text and "only with: fail bad" in viewer.text
        await viewer.press("enter")
        await viewer.sees(runs[1].id, "exit code 3")
        assert runs[0].id not in viewer.text
        await viewer.press("escape")
        await viewer.sees(good.id)
        await viewer.press("slash", *good.id)
        await viewer.sees_no(runs[1].id)
        assert viewer.line("good").startswith(f"  {good.id}")

    view(watch)


def test_only_those_that_have_not_ended_are_shown_when_asked(project: Path, scene: Scene) -> None:
    over = hpcml.submit(shell("exit 0")).wait(30)
    going = hpcml.submit(scene.gated("slow"))

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(going.id, "RUNNING")
        await viewer.sees(over.id)
        await viewer.press("a")
        await viewer.sees_no(over.id)
        assert going.id in viewer.text
        scene.open("slow")
        await viewer.sees_no(going.id)
        await viewer.press("a")
        await viewer.sees(over.id)

    view(watch)


def test_the_options_of_hpcml_runs_choose_what_is_on_the_screen(project: Path, home: Path) -> None:
    small_machine(home, cpus=2)
    bad = hpcml.submit(shell("exit 3", name="bad", tags={"who": "me"})).wait(30)
    good = hpcml.submit(shell("exit 0", name="good"), site="small").wait(30)
    for filter in (
        Filter(site="local"),
        Filter(batch=bad.id.partition(".")[0]),
        Filter(state=State.FAILED),
        Filter(name="bad"),
        Filter(tags={"who": "me"}),
    ):

        async def watch(viewer: Viewer) -> None:
            await viewer.sees(bad.id, "FAILED")
            await viewer.sees_no("still reading")
            assert good.id not in viewer.text

        view(watch, filter)


def test_of_thousands_of_runs_only_visible_ones_are_drawn(project: Path, scene: Scene) -> None:
    first = hpcml.submit(scene.gated("slow"))
    many = shell("exit $0", "{params.n}", name="many").sweep(n=range(2000))
    runs = hpcml.submit(many, after=first)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees("PENDING", "2000 runs: 2000 PENDING")
        drawn: set[str] = set()
        table = viewer.main.table
        cells = table.cells

        def counted(row: Row) -> Cells:
            drawn.add(row.id)
            return cells(row)

        table.cells = counted
        await viewer.press("enter")
        await viewer.sees(runs[0].id, "PENDING", f"after {first.id}")
        await viewer.press("end", "k")
        await viewer.sees(runs[1999].id, "many n=1999")
        await viewer.press("c", "y")
        await viewer.sees(runs[1999].id, "CANCELLED")
        assert len(table.rows) == 2002 and len(drawn) < 100
        await viewer.press("home")
        await viewer.sees("1/2000 ended", "1 CANCELLED, 1999 PENDING")
        await viewer.press("c", "y")
        await viewer.sees("2000 runs: 2000 CANCELLED")

    view(watch)
    assert {str(state) for state in runs.states.values()} == {"CANCELLED"}
    scene.open("slow")


@pytest.mark.parametrize("size", [(20, 5), (60, 8), (300, 60)])
def test_it_is_drawn_on_a_terminal_of_any_size(project: Path, size: tuple[int, int]) -> None:
    run = hpcml.submit(shell("exit 0", name="é漢字" * 40)).wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id[:15])
        for key in ("enter", "escape", "l", "escape", "c", "question_mark", "escape"):
            await viewer.press(key)
        assert max(cell_len(line) for line in viewer.lines) <= size[0]

    view(watch, size=size)


HOSTILE = "\x1b[31mred\x1b]0;t\x07 [bold]b[/] \u202eevil \u200b\u2066\nnext\r" + "x" * 5000


def test_hostile_names_and_reasons_are_text(script: Callable[..., str]) -> None:
    script(
        f"""
        import hpcml, sys
        hpcml.log(**{{"[red]m\\x1b[2J": 1.0}})
        print({HOSTILE!r}, "[red]out[/red]")
        sys.exit(3)
        """
    )
    run = hpcml.submit(hpcml.Job("train.py", params={"p": HOSTILE[:20]}, name="a[red]b")).wait(30)
    (only,) = hpcml.submit(hpcml.Job("train.py", name="n").sweep(p=[HOSTILE])).wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "a[red]b")
        await viewer.sees("[red]m\\x1b[2J 1")
        await viewer.sees(only.id, "n p=", "\\u001b[31mred")
        await viewer.press("enter")
        await viewer.sees("exit code 3")
        await viewer.press("escape", "l")
        await viewer.sees("\\x1b[31mred\\x1b]0;t\\x07 [bold]b[/] \\u202eevil \\u200b\\u2066")
        await viewer.sees("FAILED")
        for control in HOSTILE[:1] + "\u202e\u200b\u2066\x07\r":
            assert control not in viewer.text

    view(watch, size=(200, 30))


# --- keys ---------------------------------------------------------------------------------


def test_logs_are_shown_and_go_on_until_the_end(project: Path, scene: Scene) -> None:
    run = hpcml.submit(
        scene.job(
            "echo one",
            'while [ ! -e "$GATE" ]; do sleep 0.02; done',
            "printf 'two \\303'; printf '\\244\\r\\nlast\\n'; echo oops >&2",
            name="talks",
        )
    )

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "RUNNING")
        await viewer.press("l")
        await viewer.sees("one")
        assert "stderr" not in viewer.text, "it has printed nothing there"
        scene.open("talks")
        await viewer.sees("two ä")
        await viewer.sees("oops")
        await viewer.sees("COMPLETED")
        assert "stderr" in viewer.text
        await viewer.press("escape")
        await viewer.sees("1 run of 1 submission")

    view(watch)


def test_of_a_long_log_the_end_is_shown_and_it_says_how_much_is_not(project: Path) -> None:
    run = hpcml.submit(shell(f"head -c {2 * PIECE} /dev/zero | tr '\\0' x; echo; echo end"))
    run.wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "COMPLETED")
        await viewer.press("l")
        await viewer.sees("end")
        await viewer.press("home")
        await viewer.sees(f"{PIECE + 5:,} bytes are left out here")

    view(watch)


def test_what_is_printed_in_pieces_is_shown_whole_and_long_lines_are_folded() -> None:
    whole = "é\x1b[2J\tü\r\n\r50 %\r100 %\n".encode()
    pieces = Printable()
    shown = "".join(pieces.feed(whole[at : at + 1], ended=False) for at in range(len(whole)))
    assert shown == "é\\x1b[2J\tü\n\n50 %\n100 %\n"
    assert shown == Printable().feed(whole, ended=True)

    folded = Printable()
    text = "".join(folded.feed(b"y" * 700, ended=False) for _ in range(10))
    assert text.replace("\n", "") == "y" * 7000
    assert max(map(len, text.split("\n"))) <= LONGEST_LINE
    assert Stream().skip(PIECE) == ""


def test_cancel_asks_first_and_does_nothing_without_a_yes(project: Path, scene: Scene) -> None:
    run = hpcml.submit(scene.gated("slow"))

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "RUNNING")
        for no in ("n", "escape"):
            await viewer.press("c")
            await viewer.sees(f"Cancel {run.id}?")
            await viewer.press("enter", no)
            await viewer.sees("Nothing was cancelled.")
        assert run.state == "RUNNING"
        words = scene.batch(run) / "attempts" / "0.words"
        assert not words.exists() or "cancel" not in words.read_text()
        await viewer.press("c", "y")
        await viewer.sees(run.id, "CANCELLED")
        await viewer.press("c")
        await viewer.sees("has ended: there is nothing to cancel")

    view(watch)
    assert run.state == "CANCELLED"


def test_cancel_on_a_submission_cancels_all_its_runs(project: Path, scene: Scene) -> None:
    wait = shell('while [ ! -e "$0" ]; do sleep 0.02; done', str(scene.gate()), "{params.n}")
    runs = hpcml.submit(wait.sweep(n=range(3)))
    other = hpcml.submit(scene.gated("other"))

    async def watch(viewer: Viewer) -> None:
        await viewer.sees("3 runs:")
        await viewer.sees(other.id)
        await viewer.press("home", "j", "c")
        await viewer.sees("Cancel all 3 runs of")
        await viewer.press("y")
        await viewer.sees("3 runs: 3 CANCELLED")

    view(watch)
    assert {str(state) for state in runs.states.values()} == {"CANCELLED"}
    assert not other.state.final
    scene.open("other")


def test_a_submission_that_was_broken_off_is_resumed_and_another_one_says_why_not(
    project: Path, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    another_python(
        """
        import os, hpcml, hpcml.submission as submission
        submission.publish = lambda *_, **__: os._exit(9)
        hpcml.submit(hpcml.Job(["/bin/sh", "-c", "exit 0"], name="torn", code=None))
        """
    )

    async def watch(viewer: Viewer) -> None:
        await viewer.sees("torn", "PREPARING", "was broken off")
        await viewer.press("r")
        await viewer.sees("torn", "COMPLETED")
        await viewer.sees("goes on.")
        await viewer.press("r")
        await viewer.sees("waits for nothing. local has it, or had it.")

    view(watch)


def test_enter_on_a_run_shows_all_that_is_known_of_it(project: Path) -> None:
    hpcml.submit(shell("exit 3", name="known", params={"width": 64})).wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees("known", "FAILED")
        await viewer.press("enter")
        await viewer.sees("reason", "exit code 3")
        await viewer.sees("width", "64")
        await viewer.press("q")
        await viewer.sees("1 run of 1 submission")
        await viewer.press("question_mark")
        await viewer.sees("cancel the run")

    view(watch)


# --- what goes wrong ----------------------------------------------------------------------


def test_what_is_removed_vanishes_and_the_screen_goes_on(project: Path, workspace: Path) -> None:
    gone = hpcml.submit(shell("exit 0", name="gone")).wait(30)
    kept = hpcml.submit(shell("exit 0", name="kept")).wait(30)

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(gone.id)
        await viewer.sees(kept.id)
        shutil.rmtree(workspace / "runs" / gone.id.partition(".")[0])
        await viewer.sees_no(gone.id)
        assert kept.id in viewer.text
        shutil.rmtree(workspace)
        await viewer.sees("0 runs of 0 submissions")

    view(watch)


def test_a_broken_submission_is_named_and_hides_no_other(project: Path, workspace: Path) -> None:
    good = hpcml.submit(shell("exit 0", name="good")).wait(30)
    broken = workspace / "runs" / "20200101-000000-broken"
    broken.mkdir()
    (broken / "plan.json").write_text('{"what"')
    (broken / "points.jsonl").write_text("{}\n")

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(good.id, "COMPLETED")
        await viewer.sees("submission 20200101-000000-broken is passed over")
        shutil.rmtree(broken)
        await viewer.sees_no("broken is passed over")

    view(watch)


def test_files_that_make_no_sense_do_not_end_the_screen(
    project: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = hpcml.submit(shell("exit 3", name="wrong")).wait(30)
    odd = hpcml.submit(shell("exit 3", name="odd")).wait(30)
    good = hpcml.submit(shell("exit 0", name="good")).wait(30)
    end, plan = scene.attempt(wrong, "end"), scene.batch(wrong) / "plan.json"
    record = json.loads(end.read_text())
    end.chmod(0o600)
    end.write_text(json.dumps({**record, "time": float("inf"), "reason": ["no", "reason"]}))
    plan.write_text(plan.read_text().replace('"created":', '"created":"soon","was":'))
    scene.attempt(odd, "end").chmod(0o600)
    scene.attempt(odd, "end").write_text('{"time": 1.0}\n')
    monkeypatch.setattr(pollers, "_pollers", {})  # as in a process that has not seen them yet

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(wrong.id, "FAILED", "wrong")
        await viewer.sees(good.id, "COMPLETED")
        await viewer.sees(f"submission {odd.id.partition('.')[0]} is passed over: KeyError")
        await viewer.press("end", "enter", "escape", "l", "escape", "c")
        await viewer.sees("nothing to cancel")

    view(watch)


def test_a_site_that_is_away_is_named_and_comes_back(
    project: Path, home: Path, tmp_path: Path
) -> None:
    run = hpcml.submit(shell("exit 0", name="here")).wait(30)
    place = tmp_path / "away"
    place.write_text("no folder")
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"sites: {{far: {{workspace: {place}}}}}\n")
    small_machine(home, cpus=1, name="far")

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "COMPLETED")
        await viewer.sees("far cannot be seen")
        place.unlink()
        await viewer.sees_no("far cannot be seen")
        there = hpcml.submit(shell("exit 0", name="there"), site="far")
        await viewer.sees(there.id, "COMPLETED", "far")

    view(watch)


def test_states_that_may_be_old_because_the_queue_does_not_answer_are_said_to_be_so(
    project: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hpcml.submit(scene.gated("slow"))

    def silent(*_: object) -> None:
        raise QueueError("the queue does not answer", "Wait.")

    async def watch(viewer: Viewer) -> None:
        await viewer.sees(run.id, "RUNNING")
        with monkeypatch.context() as patch:
            patch.setattr(ProcessScheduler, "poll", silent)
            await viewer.sees("local: states may be old: the queue does not answer")
            assert "RUNNING" in viewer.line(run.id)
            scene.open("slow")
        await viewer.sees_no("may be old")
        await viewer.sees(run.id, "COMPLETED")

    view(watch)


def test_without_a_terminal_it_says_what_to_do(project: Path) -> None:
    done = call("top")
    assert done.returncode == 2 and "`hpcml runs`" in done.stderr
    assert call("top", "--wrong").returncode == 2
    assert "--state" in call("top", "--help").stdout


def test_the_toolkit_is_loaded_by_nobody_else() -> None:
    code = "import sys, hpcml.cli.looking, hpcml.cli.top; print('textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- in a real terminal -------------------------------------------------------------------


class Terminal:
    """A shell in a detached terminal multiplexer of its own."""

    def __init__(self, program: str) -> None:
        self.argv = [program, "-L", f"hpcml-{uuid.uuid4().hex}", "-f", "/dev/null"]
        self.tmux("new-session", "-d", "-x", "120", "-y", "30", "env PS1='$ ' sh")

    def tmux(self, *args: str) -> str:
        done = subprocess.run(
            [*self.argv, *args], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def type(self, text: str) -> None:
        """A command, and Enter."""
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    @property
    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def shows(self, pattern: str) -> None:
        """Wait until it does."""
        try:
            eventually(lambda: re.search(pattern, self.text), timeout=60)
        except AssertionError:
            raise AssertionError(f"{pattern!r} never appeared:\n{self.text}") from None

    def is_as_before(self) -> None:
        """The screen's own terminal settings are gone: what is typed is seen, lines are lines."""
        settings = "stty -a | tr ' ' '\\n' | grep -cx -e echo -e icanon -e isig"
        self.type(f"echo back-$((40 + 2)); {settings}")
        self.shows(r"back-42\n3")
        modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"
        eventually(lambda: self.tmux("display-message", "-p", modes).strip() == "0 1 0")


@pytest.fixture
def terminal(project: Path) -> Iterator[Terminal]:
    made = Terminal(installed(lambda: shutil.which("tmux"), "tmux"))
    try:
        yield made
    finally:
        made.tmux("kill-server")


PYTHON = shlex.quote(sys.executable)
TOP = f"{PYTHON} -c 'from hpcml.cli import main; main()' top"


def test_in_a_real_terminal_a_run_is_cancelled_and_the_terminal_is_given_back(
    terminal: Terminal, scene: Scene
) -> None:
    run = hpcml.submit(scene.gated("slow"))
    terminal.type(f"{TOP} --name slow; echo code-$?")
    terminal.shows(rf"{run.id} +RUNNING")
    terminal.press("c")
    terminal.shows(rf"Cancel {run.id}\?")
    terminal.press("y")
    terminal.shows(rf"{run.id} +CANCELLED")
    terminal.press("q")
    terminal.shows("code-0")
    terminal.is_as_before()
    assert run.state == "CANCELLED"


@pytest.mark.parametrize(("number", "code"), [(None, 0), (signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_whatever_ends_it_the_terminal_is_given_back(
    terminal: Terminal, tmp_path: Path, number: signal.Signals | None, code: int
) -> None:
    run = hpcml.submit(shell("exit 0")).wait(30)
    pid = tmp_path / "pid"
    terminal.type(f"sh -c 'echo $$ > {pid}; exec \"$@\"' sh {TOP}; echo code-$?")
    terminal.shows(rf"{run.id} +COMPLETED")
    if number is None:
        terminal.press("C-c")
    else:
        os.kill(int(pid.read_text()), number)
    terminal.shows(f"code-{code}")
    terminal.is_as_before()


def test_an_error_of_its_own_is_shown_in_a_terminal_that_is_given_back(terminal: Terminal) -> None:
    run = hpcml.submit(shell("exit 0")).wait(30)
    wrong = "from hpcml.cli.top.app import Main; Main.action_help = lambda self: 1 / 0"
    terminal.type(f"{PYTHON} -c '{wrong}; from hpcml.cli import main; main()' top")
    terminal.shows(rf"{run.id} +COMPLETED")
    terminal.press("?")
    terminal.shows("ZeroDivisionError")
    terminal.is_as_before()


def test_without_its_toolkit_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hpcml.cli.top.app", None)
    monkeypatch.setattr("hpcml.cli.top._on_a_terminal", lambda: True)
    with pytest.raises(HpcmlError, match=r'needs the package .*\n  pip install "hpcml\[top\]"'):
        top_command.callback(None, None, None, None, ())  # type: ignore[misc]
