"""The embedded site is an honest small batch queue."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcml
from hpcml import submission
from hpcml.agent import processes, wire
from hpcml.errors import HpcmlError, JobError, QueueError
from hpcml.sites import load_site
from tests.conftest import end_everything_below, eventually, processes_below
from tests.embedded.scene import RECORD, WAIT_FOR_GATE, Scene, kill, small_machine, write_profile

ALONE = 'mkdir "$SCENE/busy" || echo overlap >> "$LEDGER"; sleep 0.1; rmdir "$SCENE/busy"'


def completed(*runs: hpcml.Run) -> None:
    """Wait until all have ended well."""
    for run in runs:
        assert run.wait(60).state == "COMPLETED", run.reason


def idle(scene: Scene) -> None:
    """Wait until nobody serves the queue and nothing is in it."""
    eventually(lambda: not scene.dispatchers() and not scene.queue() and not scene.agents())


# --- waiting for one's turn ---------------------------------------------------------------


def test_runs_that_need_all_cpus_never_overlap(scene: Scene) -> None:
    node = load_site("local").partitions["local"].node
    jobs = [scene.job(ALONE, RECORD, name=name, cpus=int(node.cpus)) for name in "abc"]

    completed(*hpcml.submit(jobs))

    assert scene.lines() == ["a", "b", "c"]


def test_runs_that_need_more_than_half_of_the_memory_never_overlap(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=8)
    node = load_site(site).partitions["local"].node
    memory = f"{node.memory_bytes * 6 // 10 >> 10} KiB"
    jobs = [scene.job(ALONE, RECORD, name=name, cpus=1, memory=memory) for name in "abc"]

    completed(*hpcml.submit(jobs, site))

    assert scene.lines() == ["a", "b", "c"]


def test_a_job_that_names_no_memory_has_the_share_of_its_cpus_set_aside(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=2)
    node = load_site(site).partitions["local"].node
    memory = f"{node.memory_bytes * 6 // 10 >> 10} KiB"
    large = scene.job(ALONE, RECORD, name="large", cpus=1, memory=memory)
    silent = scene.job(ALONE, RECORD, name="silent", cpus=1)

    completed(*hpcml.submit([large, silent], site))

    assert scene.lines() == ["large", "silent"]


def test_runs_that_fit_run_at_the_same_time(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=3)
    runs = hpcml.submit([scene.gated(name, cpus=1) for name in "abcd"], site)

    eventually(lambda: len(scene.lines()) == 3)
    assert [str(run.state) for run in runs] == ["RUNNING"] * 3 + ["PENDING"]
    assert "CPUs" in runs[3].reason
    scene.open("b")
    eventually(lambda: len(scene.lines()) == 4)
    for name in "acd":
        scene.open(name)

    completed(*runs)


def test_a_submission_keeps_to_its_max_running(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=8)
    start, end = 'echo "+" >> "$LEDGER"', 'echo "-" >> "$LEDGER"'
    jobs = [scene.job(start, WAIT_FOR_GATE, end, name=name) for name in "abcde"]
    runs = hpcml.submit(jobs, site, max_running=2)
    other = hpcml.submit(scene.job("true", name="other"), site)

    completed(other)  # whoever is not of that submission does not wait for it
    eventually(lambda: scene.lines() == ["+", "+"])
    for name in "abcde":
        scene.open(name)
    completed(*runs)

    running = peak = 0
    for line in scene.lines():
        running += 1 if line == "+" else -1
        peak = max(peak, running)
    assert (peak, running, len(scene.lines())) == (2, 0, 10)


def test_first_in_first_out(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=1)
    blocker = hpcml.submit(scene.gated("blocker"), site)
    names = [f"run-{number}" for number in range(6)]
    runs = [hpcml.submit(scene.job(name=name), site) for name in names]
    eventually(scene.lines)
    scene.open("blocker")

    completed(blocker, *runs)

    assert scene.lines() == ["blocker", *names]


def test_small_runs_do_not_starve_a_large_one_at_the_head(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=2)
    small = hpcml.submit(scene.gated("small", cpus=1), site)
    large = hpcml.submit(scene.job(name="large", cpus=2), site)
    later = [hpcml.submit(scene.job(name=f"later-{n}", cpus=1), site) for n in range(3)]
    eventually(scene.lines)
    kill(scene.dispatcher())  # the order is on disk, not in anybody's memory
    assert large.state == "PENDING"
    scene.open("small")

    completed(small, large, *later)

    assert scene.lines()[:2] == ["small", "large"]


# --- after --------------------------------------------------------------------------------


def test_a_run_starts_after_the_end_of_the_one_it_waits_for(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=4)
    first = hpcml.submit(scene.gated("first"), site)
    second = hpcml.submit(scene.job(name="second"), site, after=first)
    both = hpcml.submit(scene.job(name="both"), site, after=[first.id, second])
    free = hpcml.submit(scene.job(name="free"), site)

    completed(free)  # it overtakes those that are held
    assert second.state == "PENDING" and first.id in second.reason
    scene.open("first")

    completed(first, second, both)
    assert scene.lines() == ["first", "free", "second", "both"] or scene.lines() == [
        "free",
        "first",
        "second",
        "both",
    ]


def test_a_run_after_one_that_is_over_starts_at_once(scene: Scene) -> None:
    first = hpcml.submit(scene.job(name="first")).wait(30)
    idle(scene)

    completed(hpcml.submit(scene.job(name="second"), after=first))

    assert scene.lines() == ["first", "second"]


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED", "TIMEOUT"])
def test_if_one_does_not_end_well_those_after_it_are_cancelled(scene: Scene, end: str) -> None:
    commands = {
        "FAILED": [WAIT_FOR_GATE, "exit 3"],
        "CANCELLED": [WAIT_FOR_GATE],
        "TIMEOUT": ["sleep 60"],
    }[end]
    first = hpcml.submit(
        scene.job(*commands, name="first", time="1s" if end == "TIMEOUT" else "1m")
    )
    second = hpcml.submit(scene.job(name="second"), after=first)
    third = hpcml.submit(scene.job(name="third"), after=second)

    if end == "CANCELLED":
        first.cancel()
    scene.open("first")

    assert first.wait(30).state == end
    assert second.wait(30).state == "CANCELLED"
    assert second.reason == f"it was to run after {first.id}, which is {end}"
    assert third.wait(30).state == "CANCELLED"
    assert third.reason == f"it was to run after {second.id}, which is CANCELLED"
    idle(scene)
    assert scene.lines() == []


def test_a_run_after_one_that_failed_earlier_is_cancelled(scene: Scene) -> None:
    first = hpcml.submit(scene.job("exit 1", name="first")).wait(30)
    idle(scene)

    second = hpcml.submit(scene.job(name="second"), after=first)

    assert second.wait(30).state == "CANCELLED" and first.id in second.reason
    assert scene.lines() == []


def test_a_run_cannot_be_after_one_that_nobody_knows(scene: Scene) -> None:
    with pytest.raises(HpcmlError, match="20261121-141502-k3f9a2"):
        hpcml.submit(scene.job(), after="20261121-141502-k3f9a2.00000")

    assert list(hpcml.runs()) == []


@pytest.mark.parametrize("step", ["publish", "queue"])
def test_a_run_cannot_be_after_one_that_is_not_in_the_queue(
    scene: Scene, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is never queued would never end, and hold the other for ever."""

    def broken(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(submission, step, broken)
        with pytest.raises(KeyboardInterrupt):
            hpcml.submit(scene.job(name="first"))
    (first,) = hpcml.runs()

    with pytest.raises(JobError, match="not in the queue") as caught:
        hpcml.submit(scene.job(name="second"), after=first)

    assert f"hpcml resume {first.id}" in str(caught.value)
    assert list(hpcml.runs()) == [first]
    if step == "queue":
        scene.asked_long_ago(first)
    first.resume()
    completed(hpcml.submit(scene.job(name="second"), after=first))
    assert scene.lines() == ["first", "second"]


def test_a_run_that_was_cancelled_before_its_turn_holds_nobody_up(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=1)
    first = hpcml.submit(scene.gated("first"), site)
    second = hpcml.submit(scene.job(name="second"), site)
    third = hpcml.submit(scene.job(name="third"), site)
    eventually(scene.lines)

    assert second.cancel().state == "CANCELLED"
    assert first.state == "RUNNING" and third.state == "PENDING"
    scene.open("first")

    completed(first, third)
    idle(scene)
    assert scene.lines() == ["first", "third"]


# --- without anybody looking --------------------------------------------------------------


def client(scene: Scene, jobs: str, end: str = "") -> str:
    """Code that submits gated jobs by name, and prints their ids."""
    return f"""
import os, signal, sys
from pathlib import Path
import hpcml
from tests.embedded.scene import Scene
scene = Scene(Path({str(scene.folder)!r}), Path({str(scene.workspace)!r}))
for name in {jobs!r}:
    print(hpcml.submit(scene.gated(name, cpus=1), {"small"!r}).id, flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_queue_goes_on_with_no_client_alive(
    scene: Scene, home: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_machine(home, cpus=1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    code = client(scene, "ab", end)

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == (-signal.SIGKILL if end else 0), done.stderr
    first, second = (scene.workspace / "runs" / line[:-6] for line in done.stdout.split())
    eventually(lambda: scene.lines() == ["a"])
    assert not (first / "attempts" / "0.1.end").exists(), "its pipes were closed while it ran"
    scene.open("a")
    eventually(lambda: scene.lines() == ["a", "b"])
    scene.open("b")
    idle(scene)
    for batch in (first, second):
        assert wire.read_json(str(batch / "attempts" / "0.1.end"))["exit_code"] == 0


def test_a_dispatcher_leaves_the_clients_session_and_folder(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    dispatcher = scene.dispatcher()

    assert os.getsid(dispatcher) != os.getsid(0)
    assert os.readlink(f"/proc/{dispatcher}/cwd") == "/"
    kept = {os.readlink(f"/proc/{dispatcher}/fd/{fd}") for fd in range(3)}
    assert os.devnull in kept and all(str(scene.workspace) in name for name in kept - {os.devnull})
    scene.open()
    completed(run)


# --- costs --------------------------------------------------------------------------------


def cpu_ns(pid: int) -> int:
    """Nanoseconds on a CPU, as the kernel's scheduler counts them."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def wakeups(pid: int) -> int:
    """How often it has gone to sleep by itself."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("voluntary_ctxt_switches:")[2].split()[0])


def test_an_empty_queue_has_no_dispatcher(scene: Scene) -> None:
    completed(hpcml.submit(scene.job()))

    idle(scene)


def test_while_a_run_goes_on_the_dispatcher_sleeps(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    dispatcher = scene.dispatcher()
    eventually(lambda: Path(f"/proc/{dispatcher}/stat").read_text().split()[2] == "S")

    before = cpu_ns(dispatcher), wakeups(dispatcher)
    time.sleep(1.0)
    after = cpu_ns(dispatcher), wakeups(dispatcher)

    assert after == before, "nothing happened, and it was told so again and again"
    scene.open()
    completed(run)


def test_an_adopting_dispatcher_costs_a_few_milliseconds_a_second(scene: Scene) -> None:
    """It cannot be told of the end of agents that are not its children, so it looks each second."""
    run = hpcml.submit(scene.gated())
    eventually(scene.lines)
    kill(scene.dispatcher())
    assert run.state == "RUNNING"
    dispatcher = scene.dispatcher()
    eventually(lambda: wakeups(dispatcher) > 0)

    before = cpu_ns(dispatcher), wakeups(dispatcher)
    time.sleep(1.5)
    after = cpu_ns(dispatcher), wakeups(dispatcher)

    assert after[0] - before[0] < 20e6
    assert 1 <= after[1] - before[1] <= 10
    scene.open()
    completed(run)


def test_a_sleeping_dispatcher_wakes_for_a_new_submission(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=2)
    first = hpcml.submit(scene.gated("first", cpus=1), site)
    eventually(scene.lines)
    dispatcher = scene.dispatcher()

    for number in range(3):
        run = hpcml.submit(scene.job(name=f"later-{number}", cpus=1), site)
        eventually(lambda run=run: scene.started(run))  # type: ignore[misc]
        completed(run)

    assert first.state == "RUNNING"
    assert scene.dispatchers() == [dispatcher]
    scene.open("first")
    completed(first)


def test_many_submissions_at_once_have_one_dispatcher_and_none_is_forgotten(
    scene: Scene, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher goes idle again and again just as others submit."""
    small_machine(home, cpus=2)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for name in "abcdefghijkl":
        scene.open(name)
    clients = [
        subprocess.Popen([sys.executable, "-c", client(scene, names)], stdout=subprocess.DEVNULL)
        for names in ("abc", "def", "ghi", "jkl")
    ]

    assert [process.wait(60) for process in clients] == [0] * 4
    eventually(lambda: len(scene.lines()) == 12)  # and nobody looks

    idle(scene)
    assert sorted(scene.lines()) == list("abcdefghijkl")
    assert {str(run.state) for run in hpcml.runs()} == {"COMPLETED"}


# --- what cannot start --------------------------------------------------------------------


def test_a_script_that_cannot_start_fails_with_what_it_said(scene: Scene, home: Path) -> None:
    blocker = hpcml.submit(scene.gated("blocker", cpus=1))  # its dispatcher serves both
    eventually(scene.lines)
    site = write_profile(home, "broken", "agent_python: /nonexistent/python\n")

    run = hpcml.submit(scene.job(cpus=1), site)
    scene.open("blocker")

    assert run.wait(30).state == "FAILED"
    assert "exit code 127" in run.reason and "/nonexistent/python: not found" in run.reason
    completed(blocker)
    idle(scene)
    output = (scene.batch(run) / "attempts" / "0.out").read_text()
    assert output.count("not found") == 1, "it was tried once"
    assert scene.lines() == ["blocker"]


def test_a_dispatcher_that_cannot_start_is_an_error_and_loses_nothing(
    scene: Scene, home: Path
) -> None:
    site = write_profile(home, "broken", "agent_python: /nonexistent/python\n")

    with pytest.raises(HpcmlError, match="/nonexistent/python"):
        hpcml.submit(scene.job(), site)

    (run,) = hpcml.runs()  # the embedded site shares the workspace, and its queue can be started
    assert run.wait(30).state == "FAILED" and "/nonexistent/python" in run.reason
    assert scene.lines() == []


def test_a_travelling_file_that_is_no_python_fails_the_run_and_not_the_queue(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=1)
    blocker = hpcml.submit(scene.gated("blocker"), site)
    broken = hpcml.submit(scene.job(name="broken"), site)
    last = hpcml.submit(scene.job(name="last"), site)
    eventually(scene.lines)
    plan = scene.batch(broken) / "plan.json"
    plan.write_bytes(plan.read_bytes()[:100])  # as after a power loss
    scene.open("blocker")

    completed(blocker, last)
    idle(scene)
    end = wire.read_json(str(scene.attempt(broken, "end")))
    assert end["cause"] == "FAILED" and "torn" in end["reason"]
    assert scene.lines() == ["blocker", "last"]


def test_more_than_the_machine_has_is_refused_when_it_is_planned(scene: Scene, home: Path) -> None:
    site = small_machine(home, cpus=2)

    with pytest.raises(JobError, match=r"resources\.cpus"):
        hpcml.submit(scene.job(cpus=3), site)

    assert not scene.workspace.exists() or not scene.queue()


# --- a full disk --------------------------------------------------------------------------


class Disk:
    """A small file system of its own, or, without the right to mount one, a limit on files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "hpcml-test", str(folder)]
        self.mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
        self.limited = folder if self.mounted else folder.parent
        self.filler = folder / "filler"
        self.words = ("No space left on device", *(() if self.mounted else ("File too large",)))

    def fill(self, left: int) -> None:
        """Leave room for some pages."""
        if not self.mounted:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (left * 256, hard))
            return
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            file.truncate((file.tell() // 4096 - left) * 4096)

    def free(self) -> None:
        """Make room again."""
        if self.mounted:
            self.filler.unlink(missing_ok=True)
        else:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, 2 * resource.getrlimit(resource.RLIMIT_FSIZE)[1:]
            )
            kill(*processes_below(self.folder))  # they live under the limit

    def remove(self) -> None:
        """Unmount, once nobody works there."""
        try:
            self.free()
            end_everything_below(self.folder)
        finally:
            if self.mounted:
                subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(home: Path) -> Iterator[Disk]:
    """A disk that can be filled, and has the embedded site's workspace."""
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"sites: {{local: {{workspace: {home}/disk/workspace}}}}\n")
    made = Disk(home / "disk")
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def on_disk(tmp_path: Path, disk: Disk) -> Scene:
    """As ``scene``; what jobs write down is on another disk."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Scene(folder, disk.folder / "workspace")


def ends_honestly(run: hpcml.Run, name: str, scene: Scene, disk: Disk) -> None:
    """COMPLETED and executed once; or FAILED for want of space, executed once at most."""
    run.wait(30)
    times = scene.lines().count(name)
    if run.state == "COMPLETED":
        assert times == 1
        return
    assert run.state == "FAILED" and times <= 1
    # The last ones: the disk was too full even for words of the agent's, or the dispatcher's on it.
    reasons = (*disk.words, "could not record", "could not print", "ended without a word")
    assert any(reason in run.reason for reason in reasons), run.reason


@pytest.mark.parametrize("library", ["library-there", "no-library-yet"])
def test_a_full_disk_is_a_clear_error_and_nothing_half_written_is_believed(
    on_disk: Scene, disk: Disk, library: str
) -> None:
    scene = on_disk
    fresh = library == "no-library-yet"
    if not fresh:
        completed(hpcml.submit(scene.job(name="first")))
    errors = 0
    for left in (0, 1, 2, 8, 40) if fresh else range(24):
        name = f"left-{left}"
        known = set() if fresh and left == 0 else set(hpcml.runs())
        disk.fill(left)
        try:
            hpcml.submit(scene.job(name=name))
        except HpcmlError as error:
            errors += 1
            assert any(word in str(error) for word in disk.words), error
            assert str(disk.limited) in str(error)
            assert error.advice
        # While it is full, the run goes as far as it can, and looking works.
        new = set(hpcml.runs()) - known
        assert all(run.state != "COMPLETED" or name in scene.lines() for run in new)
        disk.free()

        for run in set(hpcml.runs()) - known:
            if run.state in ("CREATED", "PREPARING"):
                run.resume()
            ends_honestly(run, name, scene, disk)
        if fresh:
            idle(scene)
            shutil.rmtree(scene.workspace / "lib", ignore_errors=True)
    assert errors >= 3
    idle(scene)
    completed(hpcml.submit(scene.job(name="last")))


@pytest.mark.parametrize("left", [0, 1, 2, 4, 8, 30, 60])
def test_a_full_home_is_a_clear_error_and_leaves_no_run(
    on_disk: Scene, disk: Disk, left: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own files: the outbox, the archives of code and of hpcml itself."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(disk.folder / variable))
    submit = (
        "import hpcml, sys\n"
        "try: hpcml.submit('train.py')\n"
        "except hpcml.HpcmlError as error: sys.exit(str(error))\n"
    )
    (home / "code").mkdir()
    (home / "code" / "train.py").write_text("#" * 100_000)
    disk.fill(left)

    done = subprocess.run(
        [sys.executable, "-c", submit],
        cwd=home / "code",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert any(f"cannot be written: {word}" in done.stderr for word in disk.words), done.stderr
    assert str(disk.limited) in done.stderr and "Free some space" in done.stderr
    disk.free()
    assert {str(run.state) for run in hpcml.runs()} <= {"CREATED", "PREPARING"}
    assert not on_disk.workspace.exists() or not on_disk.queue()


def test_a_disk_that_fills_up_while_a_run_goes_on_costs_no_other_run(
    on_disk: Scene, disk: Disk
) -> None:
    scene = on_disk
    node = load_site("local").partitions["local"].node
    first = hpcml.submit(scene.gated("first", cpus=int(node.cpus)))
    second = hpcml.submit(scene.job(name="second"))
    eventually(scene.lines)
    disk.fill(0)

    assert (str(first.state), str(second.state)) == ("RUNNING", "PENDING")
    with pytest.raises(QueueError, match="|".join(disk.words)) as caught:
        first.cancel()
    assert str(disk.limited) in str(caught.value)
    scene.open("first")
    agent = scene.agent(first)
    eventually(lambda: not processes.descendants(agent))
    assert first.state == "RUNNING", "its agent waits for room to say how it ended"
    disk.free()

    completed(first)
    completed(second)
    assert sorted(scene.lines()) == ["first", "second"]
    idle(scene)


def test_a_disk_that_fills_up_during_a_sweep_costs_points_that_say_so(
    on_disk: Scene, disk: Disk
) -> None:
    """Each runs once at most; with room again, the queue goes on by itself."""
    scene = on_disk
    point = 'echo "point-$HPCML_INDEX" >> "$LEDGER"'
    runs = hpcml.submit(scene.job(point, "sleep 0.05", cpus=1).sweep(i=range(60)))
    eventually(lambda: len(scene.lines()) >= 4)

    disk.fill(0)
    time.sleep(1.0)  # whatever it is at meets the full disk
    disk.free()

    for run in runs.wait(60):
        ends_honestly(run, f"point-{run.index}", scene, disk)
    assert [str(run.state) for run in runs].count("COMPLETED") >= 4
    idle(scene)


def test_a_job_that_somebody_has_taken_out_of_the_queue_holds_back_nobody(
    scene: Scene, home: Path
) -> None:
    site = small_machine(home, cpus=1)
    hpcml.submit(scene.gated("first", cpus=1), site)
    eventually(lambda: scene.lines() == ["first"])
    for name in ("second", "third"):
        hpcml.submit(scene.job(name=name, cpus=1), site)
    queue = wire.QueueFolder(str(scene.workspace))
    os.unlink(queue.path(queue.jobs()[0]))
    scene.open("first")
    eventually(lambda: scene.lines() == ["first", "second", "third"])
