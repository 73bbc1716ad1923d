"""Handles in a real kernel: a live line, await, and a kernel that is restarted in the middle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hpcml
from tests.conftest import eventually
from tests.embedded.scene import Scene
from tests.notebook.kernels import Kernel, Shown
from tests.notebook.pages import Page

GATED = """
import hpcml

def work(ledger, gate):
    import os, time
    with open(ledger, "a") as file:
        file.write("ran\\n")
    hpcml.log(loss=0.25)
    while not os.path.exists(gate):
        time.sleep(0.02)
    return 42

run = hpcml.submit(work, params={params})
print(run.id)
"""


@pytest.fixture
def gated(scene: Scene) -> str:
    """A cell that submits a function which returns 42 when the gate opens."""
    return GATED.format(params={"ledger": str(scene.ledger), "gate": str(scene.gate())})


def running(shown: Shown) -> bool:
    """Whether a run is shown that has told its loss."""
    return "RUNNING  loss 0.25" in shown.text


# --- the live line ------------------------------------------------------------------------


def test_a_cell_that_waits_has_one_output_that_is_rewritten_and_stays(
    kernel: Kernel, gated: str, scene: Scene
) -> None:
    id = kernel.run(gated).printed.strip()
    shown = kernel.run("run.wait();", lambda shown: scene.open() if running(shown) else None)
    assert len(shown.outputs) == 1 and shown.updates >= 1 and shown.printed == ""
    assert shown.text == f"{id}  work  COMPLETED  loss 0.25"
    page = Page(shown.outputs[0]["text/html"])
    assert f"{id} work ● COMPLETED loss 0.25" in page.text and " UTC" in page.text


def test_many_runs_share_a_line_with_counts(kernel: Kernel) -> None:
    kernel.run("import hpcml")
    kernel.run("runs = hpcml.submit(hpcml.Job(['true'], code=None).sweep(x=range(9)))")
    shown = kernel.run("runs.wait();")
    assert len(shown.outputs) == 1 and shown.printed == ""
    assert shown.text.startswith("9 of 9 runs ended") and "9 COMPLETED" in shown.text


def test_nothing_is_shown_where_nobody_wants_it(kernel: Kernel) -> None:
    kernel.run("import hpcml\nrun = hpcml.submit(hpcml.Job(['true'], code=None))")
    assert kernel.run("run.wait(progress=False);") == Shown()
    kernel.run("run = hpcml.submit(hpcml.Job(['true'], code=None))")
    assert kernel.run("run.result()") == Shown()


def test_an_interrupted_wait_keeps_what_was_shown_and_can_be_repeated(
    kernel: Kernel, gated: str, scene: Scene
) -> None:
    kernel.run(gated)
    sent: list[Shown] = []

    def interrupt(shown: Shown) -> None:
        if running(shown) and not sent:
            sent.append(shown)
            kernel.manager.interrupt_kernel()

    shown = kernel.run("run.wait();", interrupt)
    assert [*shown.outputs[-1]] == ["error"] and "KeyboardInterrupt" in shown.text
    assert "RUNNING" in shown.outputs[0]["text/plain"]
    scene.open()
    assert "COMPLETED" in kernel.run("run.wait();").text
    assert scene.lines() == ["ran"]


def test_scripts_stay_quiet_even_with_ipython_loaded() -> None:
    code = "import IPython, hpcml; hpcml.submit(hpcml.Job(['true'], code=None)).wait()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


# --- handles at the end of a cell -------------------------------------------------------------


def test_handles_at_the_end_of_a_cell_are_shown_as_html(kernel: Kernel) -> None:
    kernel.run("import hpcml\nrun = hpcml.submit(hpcml.Job(['true'], code=None)).wait()")
    for name, words in (
        ("run", "true ● COMPLETED"),
        ("hpcml.Runs([run])", "1 run ● 1 COMPLETED"),
        ("run.plan", "true on local"),
        ("run.timeline", "command"),
        ("run.energy", "energy"),
        ("hpcml.compare([run])", "figures are the median"),
    ):
        shown = kernel.run(name)
        assert words in Page(shown.outputs[0]["text/html"]).text and len(shown.outputs) == 1
    for cell in ("print(hpcml.compare([run]))", "hpcml.compare([run]).show()"):
        shown = kernel.run(cell)
        assert "figures are the median" in shown.printed and shown.outputs == []


def test_a_handle_of_which_nothing_is_left_is_shown_without_a_traceback(kernel: Kernel) -> None:
    kernel.run("import hpcml\nrun = hpcml.Run('20200101-000000-aaaaaa.00000', 'local')")
    for name in ("run", "hpcml.Runs([run])"):
        shown = kernel.run(name)
        assert shown.printed == "" and len(shown.outputs) == 1
        assert "UNKNOWN" in Page(shown.outputs[0]["text/html"]).text


# --- await --------------------------------------------------------------------------------


def test_a_run_and_runs_are_awaited_in_a_cell(kernel: Kernel) -> None:
    kernel.run("import hpcml\ndef square(x): return x * x")
    assert kernel.run("await hpcml.submit(square, params={'x': 7})").text == "49"
    kernel.run("runs = hpcml.submit(hpcml.Job(square).sweep(x=[1, 2, 3]))")
    assert kernel.run("await runs").text == "[1, 4, 9]"
    kernel.run("def fail(x): raise KeyError(x)")
    assert "KeyError" in kernel.run("await hpcml.submit(fail, params={'x': 1})").text


# --- a kernel that is restarted ----------------------------------------------------------------


def test_after_a_restart_the_run_is_attached_to_and_has_run_once(
    kernel: Kernel, gated: str, scene: Scene
) -> None:
    id = kernel.run(gated).printed.strip()
    eventually(scene.lines)
    kernel.restart()
    check_that_it_goes_on(kernel, id, scene)


def test_after_a_kill_while_a_cell_waits_the_run_is_attached_to_and_has_run_once(
    kernel: Kernel, gated: str, scene: Scene
) -> None:
    id = kernel.run(gated).printed.strip()
    kernel.begin("run.wait()", until=running)
    kernel.kill()
    check_that_it_goes_on(kernel, id, scene)


def check_that_it_goes_on(kernel: Kernel, id: str, scene: Scene) -> None:
    """The job runs still, and its end and result are the new kernel's to see."""
    assert "NameError" in kernel.run("run.id").text, "it is a new kernel"
    kernel.run(f"import hpcml\nrun = hpcml.attach({id!r})")
    assert kernel.run("print(run.state)").printed == "RUNNING\n"
    shown = kernel.run("run.wait();", lambda shown: scene.open() if running(shown) else None)
    assert "COMPLETED" in shown.text
    assert kernel.run("run.result()").text == "42"
    assert scene.lines() == ["ran"]
    assert len(hpcml.attach(id).attempts) == 1


def test_what_was_submitted_before_is_found_without_its_id(kernel: Kernel, project: Path) -> None:
    kernel.run("import hpcml\nhpcml.submit(hpcml.Job(['true'], name='before', code=None))")
    kernel.kill()
    kernel.run("import hpcml\n(run,) = hpcml.runs(name='before')\nrun.wait()")
    assert kernel.run("print(run.state)").printed == "COMPLETED\n"
