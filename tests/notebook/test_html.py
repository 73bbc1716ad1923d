"""What a notebook shows of runs, plans, times and energies: bounded, escaped, and always there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest

import hpcml
from hpcml import batch_view, cards, html
from hpcml.energy import Energy, PhaseEnergy
from hpcml.errors import TransportError
from hpcml.poller import poller
from hpcml.timeline import Span, Timeline
from hpcml.transports.local import LocalTransport
from tests.byhand import ByHand
from tests.notebook.pages import Page
from tests.records.telling import ended, events, log

HOSTILE = [
    "<script>alert(1)</script>&amp;",
    "\x1b[2Jcleared",
    "\u202egnp.exe",
    "\" onmouseover='alert(1)",
    "</td></table><!-- ",
    "a\nb",
    "x" * 1_000_000,
]


def text(thing: Any) -> str:
    """What it says in a notebook."""
    return Page(thing._repr_html_()).text


# --- a run ------------------------------------------------------------------------------------


def test_a_run_shows_what_it_is_how_it_ended_and_where_its_time_went() -> None:
    batch = ByHand([{"width": 32}], name="train")
    begin, finish = ({"e": kind, "phase": "epoch"} for kind in ("begin", "finish"))
    ended(batch, 0, {"e": "command"}, begin, log(1, loss=0.25), finish)
    (run,) = batch.runs
    shown = text(run)
    for words in (
        *("train width=32 ● COMPLETED", run.id, "local", "epoch 2.000 s", "loss 0.25"),
        "setup 1.000 s, command 4.000 s",
    ):
        assert words in shown
    assert "energy" not in shown, "none was measured"
    assert "attempts" not in shown, "there was one"
    assert "as of" not in shown, "a final state never changes"


@pytest.mark.usefixtures("unserved")
def test_a_run_that_goes_on_says_when_it_was_seen() -> None:
    batch = ByHand()
    batch.queue()
    shown = text(batch.runs[0])
    assert "● PENDING" in shown and " as of 20" in shown and " UTC" in shown


def test_a_run_with_several_attempts_shows_each() -> None:
    batch = ByHand()
    batch.file("events.jsonl").write_bytes(events() + events({"e": "command"}, attempt=2))
    batch.end(exit_code=144, requeue=True)
    batch.end(attempt=2)
    shown = text(batch.runs[0])
    assert "2: setup 1.000 s, command 1.000 s, exit code 0" in shown and "1: setup –" in shown


def test_an_energy_that_was_measured_is_shown_with_its_scope(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = ByHand()
    batch.end()
    known = Energy(120.0, 3.0, "cpu", 10.0, 10.0, exclusive=True, sources={"powercap": "measured"})
    monkeypatch.setattr(hpcml.Run, "energy", property(lambda run: known))
    assert "120 J ± 3 J (cpu, powercap)" in text(batch.runs[0])


def test_events_that_take_long_to_read_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ByHand()
    ended(batch, 0, *(log(n, loss=1.0) for n in range(100)))
    monkeypatch.setattr(cards, "AT_ONCE", 1000)
    shown = text(batch.runs[0])
    assert "run.timeline and run.metrics read them" in shown and "loss" not in shown
    assert batch.runs[0].metrics == {"loss": 1.0}
    assert "loss 1" in text(batch.runs[0]), "somebody has read them meanwhile"


# --- what has gone ----------------------------------------------------------------------------


def test_a_run_whose_files_vanished_shows_what_was_seen_of_it() -> None:
    batch = ByHand(name="train")
    ended(batch, 0, log(0, loss=0.5))
    (run,) = batch.runs
    assert run.state == "COMPLETED"
    shutil.rmtree(batch.folder)
    shown = text(run)
    assert "train ● COMPLETED" in shown and run.id in shown
    assert "1 run ● 1 COMPLETED" in text(batch.runs) and "COMPLETED" in repr(batch.runs)


def test_a_run_that_nobody_knows_is_unknown_and_says_why() -> None:
    run = hpcml.Run("20200101-000000-aaaaaa.00000", "local")
    shown = text(run)
    assert "● UNKNOWN" in shown and run.id in shown and run.site in shown
    assert "cannot be seen now: no batch 20200101-000000-aaaaaa" in shown
    many = hpcml.Runs([run, *ByHand().runs])
    assert "2 runs" in text(many) and "cannot be seen now: no batch" in text(many)
    assert "cannot be seen now: no batch" in repr(many)


def test_where_a_site_is_away_runs_show_what_was_seen_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = ByHand([{"n": 0}, {"n": 1}], name="train")
    batch.end(0)
    assert batch.runs[0].state == "COMPLETED"

    def away(*args: Any) -> Any:
        raise TransportError("local cannot be reached", "Try again.")

    for name in ("names", "list", "get"):
        monkeypatch.setattr(LocalTransport, name, away)
    assert "train n=0 ● COMPLETED" in text(batch.runs[0])
    for shown in (text(batch.runs), repr(batch.runs)):
        assert "train n=0" in shown and "COMPLETED" in shown
        assert "cannot be seen now: local cannot be reached" in shown


def test_a_card_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ByHand([{"n": n} for n in range(5)])
    looks: list[int] = []

    def counted(views: Any) -> None:
        looks.append(len(views))
        batch_view.look(views)

    monkeypatch.setattr(cards, "look", counted)
    text(batch.runs)
    text(batch.runs[0])
    assert looks == [1, 1]


# --- many runs --------------------------------------------------------------------------------


def test_many_runs_are_counted_by_state_and_the_first_are_listed() -> None:
    batch = ByHand([{"n": n} for n in range(30)], name="train")
    for n in range(30):
        batch.end(n, exit_code=7 if n == 3 else 0)
    page = Page(batch.runs._repr_html_())
    assert page.text.startswith("30 runs ● 29 COMPLETED ● 1 FAILED")
    assert "train n=3 ● FAILED exit code 7" in page.text
    assert page.tags.count("tr") == 1 + 20 and "… and 10 more" in page.text
    assert "0 runs" in text(hpcml.Runs([]))


def test_ten_thousand_runs_with_hostile_names_are_a_short_and_harmless_page() -> None:
    points = [{f"{HOSTILE[n % 6]}{n}": HOSTILE[(n + 1) % 6]} for n in range(10_000)]
    batch = ByHand(points, name=HOSTILE[0])
    for n, reason in enumerate(HOSTILE):
        batch.end(n, exit_code=1, cause="FAILED", reason=reason)
    page = batch.runs._repr_html_()
    assert len(page) < 20_000
    assert "<script>alert(1)" in Page(page).text and "\\x1b[2Jcleared" in Page(page).text
    assert "\\u202egnp.exe" in Page(page).text
    assert "10000 runs" in Page(page).text


def test_nothing_of_a_job_gets_control_of_a_page_however_long_it_is() -> None:
    for name in HOSTILE:
        batch = ByHand([{name[:9]: name}])
        ended(batch, 0, log(0, **{name: name}), {"e": "begin", "phase": name})
        (run,) = batch.runs
        view = poller("local").view(batch.batch.id)  # submit would refuse most of these names
        view.plan = replace(view.plan, where={**view.plan.where, "name": name})
        things = (run, batch.runs, run.plan, run.timeline, run.energy)
        pages = [thing._repr_html_() for thing in things]
        assert all(Page(page).text for page in pages)
        assert max(map(len, pages)) < 30_000


# --- a plan -----------------------------------------------------------------------------------


def test_a_plan_shows_what_would_run_with_decisions_and_script_folded_away() -> None:
    plan = hpcml.plan(
        hpcml.Job(
            ["/bin/sh", "-c", "echo '<b>'"],
            name="<i>",
            params={"width": 3},
            outputs=["model.pt"],
            resources=hpcml.Resources(time="10m", memory="1 GiB"),
            code=None,
        )
    )
    page = Page(plan._repr_html_())
    for words in (
        *("<i> on local", str(plan.digest), "/bin/sh -c 'echo", "width=3", "model.pt"),
        *("walltime 00:10:00, 1 CPU, memory 1.0 GiB", "#HPCML --time=00:10:00"),
        *plan.decisions,
    ):
        assert words in page.text
    assert page.tags.count("details") == 2


def test_a_plan_that_is_not_resolved_says_what_is_open() -> None:
    plan = replace(hpcml.plan(hpcml.Job(["true"], code=None)), unresolved=("the image",))
    assert "none yet" in text(plan) and "the image" in text(plan)


def test_a_plan_of_another_version_is_shown_as_far_as_it_is_understood() -> None:
    plan = hpcml.plan(hpcml.Job(["true"], code=None))
    odd = replace(plan, what={}, where={"name": "odd"})
    assert "odd" in text(odd)


# --- times and energy -------------------------------------------------------------------------


def test_a_timeline_shows_its_phases_and_no_more_than_fifty() -> None:
    spans = tuple(Span(f"p{n}", 0.0, 1.5) for n in range(60))
    shown = text(Timeline(queue=0.5, spans=spans))
    assert "queue 0.500 s" in shown and "setup –" in shown and "p0 1.500 s" in shown
    assert "p49" in shown and "p50" not in shown and "… and 10 more phases" in shown


def test_an_energy_shows_phases_if_there_are_joules_and_else_says_why() -> None:
    known = Energy(
        *(1200.0, 3.0, "cpu", 10.0, 9.0),
        sources={"powercap": "measured"},
        phases={"train": PhaseEnergy(1000.0, 2.0, 8.0, 8.0), "load": PhaseEnergy(None, None, 1, 0)},
    )
    shown = text(known)
    assert str(known) in shown and "train 1 kJ ± 2 J 8.0 s of 8.0 s" in shown
    assert "load – 0.0 s of 1.0 s" in shown
    assert "no energy: permission denied" in text(Energy(why="permission denied"))


# --- its parts --------------------------------------------------------------------------------


def test_text_is_escaped_once_and_html_is_not() -> None:
    part = html.element("b", "<&>")
    assert part == "<b>&lt;&amp;&gt;</b>"
    assert html.joined(", ", [part, "<"]) == "<b>&lt;&amp;&gt;</b>, &lt;"


def test_styles_are_within_the_elements_and_set_no_colour_of_text_or_ground() -> None:
    batch = ByHand([{"n": n} for n in range(3)])
    page = batch.runs._repr_html_()
    assert "<style" not in page and "class=" not in page and "background" not in page
    assert page.count("color:") == page.count("●"), "only dots are coloured"
