"""The energy of runs of the embedded site, with counters of a known curve."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import hpcml
from hpcml.agent import wire
from hpcml.energy.readings import read
from tests.conftest import eventually, processes_below
from tests.counters import WATTS, advancing, two_sockets, used
from tests.embedded.scene import Scene, command_line, kill, write_profile


def site_with(home: Path, root: Path) -> str:
    """The embedded site, whose machine shows its counters below a folder."""
    return write_profile(home, "metered", f"system_root: {root}\n")


def samplers(workspace: Path) -> list[int]:
    return [pid for pid in processes_below(workspace) if b"\0sample\0" in command_line(pid)]


def events(scene: Scene, run: hpcml.Run) -> dict[str, Any]:
    """The agent's events of a run, by kind."""
    content = (scene.batch(run) / str(run.index) / "events.jsonl").read_bytes()
    return {event["e"]: event for event in wire.parse_lines(content)}


def test_a_run_knows_what_its_machine_used(home: Path, tmp_path: Path, scene: Scene) -> None:
    tree = two_sockets(tmp_path / "machine")
    with advancing(tree):
        job = scene.job("sleep 4.3")
        run = hpcml.submit(job, site=site_with(home, tree.root)).wait(60)
        eventually(lambda: not samplers(scene.workspace))  # it has ended by itself

    assert run.state == "COMPLETED"
    told, energy = events(scene, run), run.energy
    watts = WATTS["package-0"] + WATTS["package-1"] + 2 * WATTS["dram"]
    gap = sum(gap.seconds for gap in energy.gaps)  # until its sampler had started
    begin, end = told["command"]["m"] / 1e9 + gap, told["end"]["m"] / 1e9
    assert energy.joules is not None and energy.uncertainty is not None, str(energy)
    assert abs(energy.joules - used(watts, begin, end)) <= energy.uncertainty
    assert energy.uncertainty < energy.joules
    assert (energy.scope, energy.exclusive) == ("cpu+dram", False)
    assert energy.coverage is not None and energy.coverage > 0.5
    assert energy.root == str(tree.root), "a figure from a fake tree says so"
    assert f"(cpu+dram, powercap below {tree.root})" in str(energy)


def test_where_nothing_is_readable_there_is_no_figure(
    home: Path, tmp_path: Path, scene: Scene
) -> None:
    (tmp_path / "bare").mkdir()

    run = hpcml.submit(scene.job("true"), site=site_with(home, tmp_path / "bare")).wait(60)

    energy = run.energy
    assert (energy.joules, energy.uncertainty, energy.scope, energy.exclusive) == (None,) * 4
    assert str(energy) == "no energy: powercap: there is no /sys/class/powercap"
    assert energy.seconds is not None and energy.covered == 0
    found = hpcml.compare([run])
    assert not [column for column in found.columns if "energy" in column.kind]
    told = "energy is not known of 1 of 1 run: powercap: there is no /sys/class/powercap"
    for form in (str(found), found.to_csv(), found.to_json(), found.to_markdown()):
        assert told.split(": ")[2] in " ".join(form.split()) and "energy:" not in form
    assert told in found.marks


def test_one_sampler_serves_all_slots_of_a_batch(home: Path, tmp_path: Path, scene: Scene) -> None:
    tree = two_sockets(tmp_path / "machine")

    runs = hpcml.submit(scene.gated().sweep(n=[1, 2]), site=site_with(home, tree.root))
    eventually(lambda: len(scene.lines()) == 2)
    eventually(lambda: len(samplers(scene.workspace)) == 1)
    (batch,) = {scene.batch(run) for run in runs}
    (file,) = (batch / "energy").iterdir()
    scene.open()
    runs.wait(60)

    assert {run.state for run in runs} == {"COMPLETED"}
    eventually(lambda: not samplers(scene.workspace))
    assert file.read_bytes().count(b'"header"') == 1
    assert file.read_bytes().count(b'"agent"') == 2


def test_a_sampler_ends_with_a_killed_agent_and_no_run_waits_for_it(
    home: Path, tmp_path: Path, scene: Scene
) -> None:
    tree = two_sockets(tmp_path / "machine")
    run = hpcml.submit(scene.gated(), site=site_with(home, tree.root))
    eventually(lambda: scene.lines() and samplers(scene.workspace))

    kill(scene.agent(run))
    run.wait(60)

    assert run.state == "FAILED"
    eventually(lambda: not samplers(scene.workspace))
    assert run.energy.joules is None, "nobody knows when it ended"
    assert run.energy.why == "the end of attempt 1 is not known"


def test_two_batches_on_a_machine_are_measured_each_by_its_own_sampler(
    home: Path, tmp_path: Path, scene: Scene
) -> None:
    tree = two_sockets(tmp_path / "machine")
    site = site_with(home, tree.root)
    with advancing(tree):
        runs = [hpcml.submit(scene.job("sleep 3.3", name=name), site=site) for name in "ab"]
        eventually(lambda: len(samplers(scene.workspace)) == 2)
        hpcml.Runs(runs).wait(60)
        eventually(lambda: not samplers(scene.workspace))

    for run in runs:
        (file,) = (scene.batch(run) / "energy").iterdir()
        assert file.read_bytes().count(b'"header"') == 1
        assert run.energy.joules is not None and run.energy.exclusive is False, str(run.energy)


def test_all_that_was_read_stays_when_everything_is_killed_at_once(
    home: Path, tmp_path: Path, scene: Scene
) -> None:
    tree = two_sockets(tmp_path / "machine")
    run = hpcml.submit(scene.gated(), site=site_with(home, tree.root))
    eventually(lambda: scene.lines() and samplers(scene.workspace))
    (file,) = (scene.batch(run) / "energy").iterdir()
    eventually(lambda: file.read_bytes().count(b'"v"') >= 3)

    before = file.read_bytes()
    kill(*scene.dispatchers(), *scene.agents())

    after = file.read_bytes()
    assert after.startswith(before)
    (found,) = read(after)
    written = after.count(b'"v"')
    assert len(found.readings) in (written, written - 1), "the last one may be torn"
    run.wait(60)
    assert run.energy.joules is None, "nobody knows when it ended"


def test_a_sampler_that_does_not_get_on_holds_up_no_run(
    home: Path, tmp_path: Path, scene: Scene
) -> None:
    tree = two_sockets(tmp_path / "machine")
    run = hpcml.submit(scene.gated(), site=site_with(home, tree.root))
    eventually(lambda: scene.lines() and samplers(scene.workspace))
    (sampler,) = samplers(scene.workspace)
    os.kill(sampler, signal.SIGSTOP)
    try:
        scene.open()
        assert run.wait(60).state == "COMPLETED"
        assert samplers(scene.workspace) == [sampler]
        assert run.energy.coverage is not None and run.energy.coverage < 1
    finally:
        os.kill(sampler, signal.SIGCONT)
    eventually(lambda: not samplers(scene.workspace))
