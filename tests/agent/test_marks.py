"""What a job's own code calls: harmless outside a run, and in it nothing said is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.agent import wire
from hpcml.agent.events import Events
from hpcml.job import Job
from hpcml.timeline import tell
from tests.agent.direct import Agent, Attempt, command, publish, run


@pytest.fixture
def outside(project: Path) -> Path:
    """The current folder, in which nothing may appear."""
    return project


def job(script: Callable[..., str], code: str, **fields: Any) -> Attempt:
    """Execute a script that has imported hpcml."""
    return run(Job(script("import os, sys, hpcml\n" + textwrap.dedent(code)), **fields))


def logged(ended: Attempt, name: str) -> list[Any]:
    history = tell(ended.events, None).history
    return [point.value for point in history.get(name, ())]


# --- outside a run --------------------------------------------------------------------------------


def test_outside_a_run_there_are_defaults(outside: Path) -> None:
    p = hpcml.params(width=8, name="x")
    assert (p.width, p["name"], dict(p)) == (8, "x", {"width": 8, "name": "x"})
    assert hpcml.params() == {}
    with pytest.raises(AttributeError, match="there is no parameter 'depth'"):
        p.depth  # noqa: B018
    assert hpcml.input_path("t2m", "here.zarr") == "here.zarr"
    with pytest.raises(KeyError, match="no input 't2m'; the job has: none"):
        hpcml.input_path("t2m")
    assert hpcml.output_path("model.pt") == "model.pt"
    assert list(outside.iterdir()) == []
    assert hpcml.output_path("out/a/model.pt") == "out/a/model.pt"
    assert (outside / "out/a").is_dir()


def test_outside_a_run_nothing_is_recorded(outside: Path) -> None:
    with hpcml.phase("train"), hpcml.phase("epoch"):
        hpcml.log(step=1, samples=2, loss=float("nan"), other=object())
    hpcml.describe(model="toy")

    assert list(outside.iterdir()) == []


def test_a_script_by_hand_works_without_anything_of_hpcml_but_itself(
    script: Callable[..., str], outside: Path
) -> None:
    entry = script(
        """
        import sys
        import hpcml
        with hpcml.phase("train"):
            hpcml.log(step=1, loss=0.5)
        print(hpcml.params(width=8).width)
        print(sorted({name.split(".")[0] for name in sys.modules} & {"pydantic", "click", "yaml"}))
        """
    )
    done = subprocess.run([sys.executable, entry], capture_output=True, text=True, check=True)

    assert done.stdout == "8\n[]\n" and done.stderr == ""
    assert [path.name for path in outside.iterdir()] == [entry]


def test_an_exception_passes_through_a_phase(outside: Path) -> None:
    with pytest.raises(ZeroDivisionError), hpcml.phase("train"):
        _ = 1 / 0


# --- parameters -----------------------------------------------------------------------------------


def test_parameters_of_the_job_go_before_defaults(script: Callable[..., str]) -> None:
    code = "print(dict(hpcml.params(width=8, depth=2)), dict(hpcml.params()))"

    ended = job(script, code, params={"width": 64})

    assert ended.stdout == "{'width': 64, 'depth': 2} {'width': 64}\n"


def test_an_unknown_parameter_raises_and_names_the_known_ones(script: Callable[..., str]) -> None:
    """Submitting refuses it where it can see the call; here it cannot."""
    code = "known = dict(width=8, depth=2)\nhpcml.params(**known)"

    ended = job(script, code, params={"widht": 64})

    assert ended.code == 1
    message = "the job sets the parameter 'widht', but hpcml.params() here knows depth, width"
    assert message in ended.stderr


def test_paths_in_a_run(script: Callable[..., str], tmp_path: Path) -> None:
    data = tmp_path / "t 2 m"
    data.write_text("x")
    code = """
    os.chdir("/")
    print(hpcml.input_path("t2m"), hpcml.input_path("other", "default"))
    open(hpcml.output_path("out/model.pt"), "w").write("weights")
    try:
        hpcml.input_path("t2n")
    except KeyError as error:
        print(error)
    """
    ended = job(script, code, inputs={"t2m": str(data)}, outputs=["out/model.pt"])

    assert ended.stdout == f"{data} default\n\"no input 't2n'; the job has: t2m\"\n"
    assert (ended.work / "out/model.pt").read_text() == "weights"


def test_a_run_whose_folder_is_removed_does_not_make_it_again(
    script: Callable[..., str],
) -> None:
    entry = script(
        """
        import os, time, hpcml
        hpcml.params()
        hpcml.log(step=1, loss=0.5)
        print("ready", flush=True)
        while os.path.exists(os.path.join(os.environ["HPCML_BATCH"], "attempts")):
            time.sleep(0.01)
        hpcml.log(step=2, loss=0.5)
        hpcml.describe(text="y" * 20000)
        hpcml.output_path("out/model.pt")
        """
    )
    agent = Agent(publish(Job(entry, outputs=["out/model.pt"])))
    agent.await_line("ready")
    shutil.rmtree(agent.batch.rename(agent.batch.with_name("removed")))  # at once
    agent.process.communicate(timeout=30)

    assert not agent.batch.exists()


# --- log ------------------------------------------------------------------------------------------

HOSTILE = r"""
class Tensor:  # as torch's and numpy's scalars
    def __float__(self): return 0.25
class Vector:
    def __float__(self): raise ValueError("only one element")
    def __str__(self): return "[1 2]"
class Nothing:
    def __float__(self): raise RuntimeError
    def __str__(self): raise RuntimeError
class Number(float):
    def __repr__(self): return "0.5 apples"
import decimal
hpcml.log(step=0, a=float("nan"), b=float("inf"), c=-float("inf"))
hpcml.log(step=1, a=Tensor(), b=Vector(), c=Nothing())
hpcml.log(step=Tensor(), samples=Vector(), a=Number(0.5), b=decimal.Decimal("0.5"))
hpcml.log(a=10 ** 30, b=True, c=None, d="best\n\"yet\" ü \udcff")
hpcml.log(step=-1, **{"a % b": 1.0, "ü\n\"": 2.0, "%s%d": 3.0})
hpcml.log(step=2 ** 70, samples=3, a=1e-320)
hpcml.log()
hpcml.log(step=3)
hpcml.log(step=4, long="x" * 1000000)
hpcml.describe(a=Vector(), b=None, c=1.5, d=[1])
hpcml.describe(b=2)
with hpcml.phase("100 % ü\n\"q\""):
    hpcml.log(samples=5)
print("alive")
"""


def test_log_takes_whatever_it_is_given(script: Callable[..., str]) -> None:
    ended = job(script, HOSTILE)

    assert ended.stdout == "alive\n" and ended.stderr == ""
    story = tell(ended.events, None)
    a = [point.value for point in story.history["a"]]
    assert a[0] != a[0] and a[1:] == [0.25, 0.5, 10**30, 1e-320]
    assert [p.value for p in story.history["b"]] == [float("inf"), "[1 2]", 0.5, True]
    assert story.history["c"][1].value == "<Nothing that has no text>"
    assert story.history["d"][0].value == 'best\n"yet" ü \udcff'
    assert story.history["a"][2].step == 0.25
    assert story.history["a % b"][0].value == 1.0 and story.history["%s%d"][0].value == 3.0
    assert story.history['ü\n"'][0].step == -1
    assert story.history["a"][-1].step == 2**70
    assert len(story.history["long"][0].value) == 1000000
    assert story.described == {"a": "[1 2]", "b": 2, "c": 1.5, "d": "[1]"}
    assert story.timeline.samples == {'100 % ü\n"q"': 5}


def test_text_is_no_count_of_samples(script: Callable[..., str]) -> None:
    code = """
    with hpcml.phase("train"):
        hpcml.log(samples="12")
        hpcml.log(samples=-100)
        hpcml.log(step=1, samples=5)
    """
    story = tell(job(script, code).events, None)

    assert story.timeline.samples == {"train": 5} and story.no_counts == 2


def test_threads_lose_nothing(script: Callable[..., str]) -> None:
    code = """
    import threading
    def work(name):
        for step in range(2000):
            with hpcml.phase(name):
                hpcml.log(step=step, **{name: 0.5})
    threads = [threading.Thread(target=work, args=("t%d" % n,)) for n in range(10)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    """
    story = tell(job(script, code).events, None)

    for n in range(10):
        assert [point.step for point in story.history[f"t{n}"]] == list(range(2000))
    assert len(story.timeline.spans) == 20000


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_lose_nothing(script: Callable[..., str], method: str) -> None:
    code = f"""
    import multiprocessing
    def work(name):
        for step in range(500):
            hpcml.log(step=step, **{{name: 0.5}})
    if __name__ == "__main__":
        hpcml.log(step=0, parent=1.0)
        context = multiprocessing.get_context({method!r})
        children = [context.Process(target=work, args=("c%d" % n,)) for n in range(4)]
        [child.start() for child in children]
        work("parent")
        [child.join() for child in children]
    """
    story = tell(job(script, code).events, None)

    assert [point.step for point in story.history["parent"]] == [0, *range(500)]
    for n in range(4):
        assert [point.step for point in story.history[f"c{n}"]] == list(range(500))


def test_a_hundred_thousand_points(script: Callable[..., str]) -> None:
    code = "for step in range(100000): hpcml.log(step=step, loss=step / 7)"

    ended = job(script, code)

    assert logged(ended, "loss") == [step / 7 for step in range(100000)]
    data = (ended.folder / "events.jsonl").read_bytes()
    assert b"\0" not in data and data.endswith(b"}\n")
    assert all(json.loads(line) for line in data.splitlines())


def test_what_was_logged_survives_sigkill(script: Callable[..., str]) -> None:
    code = "for step in range(5000): hpcml.log(step=step, loss=0.5)\nos.kill(os.getpid(), 9)"

    ended = job(script, code)

    assert ended.end["signal"] == 9
    assert len(logged(ended, "loss")) == 5000


def test_what_was_logged_survives_the_agents_end(script: Callable[..., str]) -> None:
    """Nobody tidies up: readers pass over what was reserved and not used."""
    agent = Agent(
        publish(
            Job(
                script(
                    "import hpcml, time\nhpcml.log(step=1, loss=0.5)\n"
                    "print('ready', flush=True)\ntime.sleep(60)"
                )
            )
        )
    )
    agent.await_line("ready")
    agent.process.kill()
    agent.process.communicate(timeout=60)

    data = (agent.batch / "0" / "events.jsonl").read_bytes()
    assert b"\0" in data
    assert logged(Attempt(agent.batch, 0), "loss") == [0.5]


# --- files that cannot be written -----------------------------------------------------------------


def test_a_full_disk_costs_events_never_the_run(script: Callable[..., str]) -> None:
    """A limit on the size of files stands for it: writing fails in the same places."""
    code = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    for step in range(5000):
        hpcml.log(step=step, loss=0.5)
        with hpcml.phase("p"):
            pass
    hpcml.describe(model="toy")
    print("went on")
    """
    ended = job(script, code)

    assert (ended.code, ended.stdout) == (0, "went on\n")
    said = "hpcml: events are lost, as they cannot be written: [Errno 27] File too large\n"
    assert ended.stderr == said
    kept = logged(ended, "loss")
    assert 50 < len(kept) < 500, "what fitted is there"
    assert ended.event("end")["exit_code"] == 0


LIMITED = """
import resource, time
import hpcml.injob
hpcml.injob.PAUSE = 10**7
def room(there_is):
    # whether the file of events may grow
    size = os.path.getsize(hpcml.injob._sink.path)
    limit = resource.RLIM_INFINITY if there_is else size
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
big = "y" * 3000
step = 0
def log(count):
    global step
    for step in range(step + 1, step + count + 1):
        hpcml.log(step=step, loss=0.5, text=big)
log(10)
"""


def counted(ended: Attempt) -> tuple[int, int]:
    """How many points are there, and how many it says were lost."""
    return len(logged(ended, "loss")), tell(ended.events, None).timeline.lost


def test_once_there_is_room_again_events_are_written_and_it_is_told_how_many_were_lost(
    script: Callable[..., str],
) -> None:
    code = """
    for turn in range(3):
        room(False)
        log(200)
        room(True)
        time.sleep(hpcml.injob.PAUSE / 1e9)  # it would try again no sooner
        log(100)
        print(step)
    """
    ended = job(script, LIMITED + textwrap.dedent(code))

    assert ended.stdout == "310\n610\n910\n", ended.stderr
    kept, lost = counted(ended)
    assert kept + lost == 910 and lost >= 3 * 100
    steps = [point.step for point in tell(ended.events, None).history["loss"]]
    assert steps[-1] == 910 and set(range(811, 911)) <= set(steps)
    assert ended.stderr.count("events are lost") == 1


def test_events_that_there_was_no_room_for_to_the_end_are_counted_at_the_end(
    script: Callable[..., str],
) -> None:
    ended = job(script, LIMITED + "room(False)\nlog(1000)\n")

    kept, lost = counted(ended)
    assert kept + lost == 1010 and lost > 900


def test_a_run_that_is_killed_on_a_full_disk_has_said_that_events_were_lost(
    script: Callable[..., str],
) -> None:
    """Room for that was reserved when there was some."""
    ended = job(script, LIMITED + "room(False)\nlog(1000)\nos.kill(os.getpid(), 9)")

    kept, lost = counted(ended)
    assert kept < 100 and lost > 0


def test_where_lines_are_written_one_by_one_losses_are_counted_as_well(
    script: Callable[..., str],
) -> None:
    code = """
    room(False)
    log(100)
    room(True)
    time.sleep(hpcml.injob.PAUSE / 1e9)
    log(10)
    room(False)
    log(5)
    """
    ended = job(script, "del os.posix_fallocate\n" + LIMITED + textwrap.dedent(code))

    kept, lost = counted(ended)
    assert kept >= 20 and lost >= 90, "those of the end alone cannot be told"


def test_a_full_disk_that_holds_stderr_too(script: Callable[..., str]) -> None:
    code = """
    import resource
    os.write(2, b"x" * 5000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    for step in range(1000):
        hpcml.log(step=step, loss=0.5)
    print("went on")
    """
    ended = job(script, code)

    assert (ended.code, ended.stdout, ended.stderr) == (0, "went on\n", "x" * 5000)


@pytest.mark.parametrize(
    "obstacle",
    [
        "os.posix_fallocate = refuse",
        "del os.posix_fallocate",
        "import mmap; mmap.mmap = refuse",
        "import fcntl; fcntl.lockf = refuse",
        "sys.modules['mmap'] = None",
    ],
)
def test_where_no_window_can_be_had_lines_are_written(
    script: Callable[..., str], obstacle: str
) -> None:
    """File systems without mmap, allocation or locks; Pythons built without the modules."""
    code = f"""
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")
    {obstacle}
    for step in range(300):
        hpcml.log(step=step, loss=0.5)
    pid = os.fork()
    if pid == 0:
        hpcml.log(step=300, loss=0.5)
        os._exit(0)
    os.waitpid(pid, 0)
    """
    ended = job(script, code)

    assert ended.stderr == ""
    assert len(logged(ended, "loss")) == 301


def test_windows_and_plain_lines_mix(script: Callable[..., str]) -> None:
    """Some processes have windows, others write lines, and the agent writes its own."""
    code = """
    import signal
    signal.signal(signal.SIGUSR1, lambda *_: None)  # the agent notes it, and passes it on
    agent, children = os.getppid(), []
    for n in range(6):
        pid = os.fork()
        if pid == 0:
            if n % 2:
                hpcml.injob._sink.plain = True
            for step in range(1000):
                hpcml.log(step=step, **{"c%d" % n: 0.5})
                if n == 0 and step % 50 == 0:
                    os.kill(agent, signal.SIGUSR1)
            os._exit(0)
        children.append(pid)
    [os.waitpid(pid, 0) for pid in children]
    """
    ended = job(script, code)

    assert ended.code == 0, ended.stderr
    history = tell(ended.events, None).history
    for n in range(6):
        assert [point.step for point in history[f"c{n}"]] == list(range(1000)), n
    assert ended.event("signal")["signal"] == 10


def test_a_signals_handler_may_log(script: Callable[..., str]) -> None:
    """As one that saves a checkpoint on USR2 does, whatever it has interrupted."""
    code = """
    import itertools, signal
    numbers, count = itertools.count(), 0
    def handler(*_):  # which may itself be interrupted
        global count
        count = next(numbers)
        hpcml.log(step=count, handled=0.5)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    step = 0
    while count < 200:
        hpcml.log(step=step, loss=0.5)
        step += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(next(numbers), step)
    """
    ended = job(script, code)

    handled, steps = map(int, ended.stdout.split())
    history = tell(ended.events, None).history
    assert sorted(p.step or 0 for p in history["handled"]) == list(range(handled))
    assert [point.step for point in history["loss"]] == list(range(steps))


@pytest.mark.parametrize("leave, code", [("sys.exit(5)", 5), ("pass", 0)])
def test_a_handler_at_the_worst_moment_loses_nothing(
    script: Callable[..., str], leave: str, code: int
) -> None:
    """It logs, and perhaps ends the process, while space for the next lines is being reserved."""
    text = f"""
    import signal
    sink = hpcml.injob._sink
    reserve = sink._reserve
    def interrupted():
        sink._reserve = reserve
        signal.raise_signal(signal.SIGUSR2)
        return reserve()
    def handler(*_):
        hpcml.log(step=2, saved=1.0)
        {leave}
    signal.signal(signal.SIGUSR2, handler)
    sink._reserve = interrupted
    hpcml.log(step=1, loss=0.5)
    hpcml.log(step=3, loss=0.25)
    """
    ended = job(script, text)

    assert ended.code == code, ended.stderr
    assert logged(ended, "saved") == [1.0]
    assert logged(ended, "loss") == ([0.5, 0.25] if code == 0 else [])


def test_tidying_keeps_every_whole_line(tmp_path: Path) -> None:
    """A torn line, left by a killed process, takes no other with it."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'{"e":"start","m":1}\n'
        + b"\0" * 50
        + b'{"e":"a","m":2}\n{"e":"to'
        + b"\0" * 4000
        + b'{"e":"b","m":3}\n{"e":"c","m":4}\n'
        + b"\0" * 10
        + b'3\n"x"\n'
    )
    events = Events(str(path))

    events.tidy()

    kept = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [event["e"] for event in kept] == ["start", "a", "b", "c"]
    assert events.lost == 0 and path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name[0] == "."] == []


def test_a_line_after_a_torn_one_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"e":"to')

    wire.append_line(str(path), {"e": "next"})

    assert list(wire.parse_lines(path.read_bytes())) == [{"e": "next"}]


def test_tidying_leaves_alone_what_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"e":"start","m":1}\n')
    before = wire.stamp_of_file(path.stat())

    Events(str(path)).tidy()

    assert wire.stamp_of_file(path.stat()) == before


def test_tidying_reads_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block ends: within a line, within zero bytes, between two lines."""
    path = tmp_path / "events.jsonl"
    data = b'{"m":1}\n\0\0\0{"m":2,"v":"a long line"}\n{"m":3}\n{"to\0\0{"m":4}\n\0'
    for size in range(1, len(data) + 2):
        monkeypatch.setattr("hpcml.agent.events.BLOCK", size)
        path.write_bytes(data)
        Events(str(path)).tidy()
        assert path.read_bytes() == (b'{"m":1}\n{"m":2,"v":"a long line"}\n{"m":3}\n{"m":4}\n'), (
            size
        )


def test_tidying_takes_little_memory(tmp_path: Path) -> None:
    """Whatever the size of the file."""
    path = tmp_path / "events.jsonl"
    line = b'{"m":12345678901234,"e":"log","step":3,"v":{"loss":0.5123}}\n'
    with path.open("wb") as file:
        for _ in range(100):
            file.write(line * 10000 + bytes(1000))
    code = """
    import resource, sys
    from hpcml.agent.events import Events
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Events(sys.argv[1]).tidy()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code), path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert path.stat().st_size == len(line) * 1000000
    assert int(done.stdout) < 20 << 10, "KiB, for a file of 60 MB"


def test_tidying_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"m":1}\n\0\0')
    events = Events(str(path))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", refuse)
    events.tidy()

    assert events.lost == 0 and path.read_bytes() == b'{"m":1}\n\0\0'
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["events.jsonl", "home"]


def test_a_command_that_knows_nothing_of_hpcml_has_a_timeline_too() -> None:
    line = tell(run(command("/bin/true")).events, None).timeline

    assert line.setup is not None and 0 < line.setup < 60
    assert line.command is not None and 0 < line.command < 60
    assert os.sep not in str(line)


# --- the interpreter --------------------------------------------------------------------------


def test_a_job_tells_its_python_once_and_what_it_had_imported_in_the_end(
    script: Callable[..., str],
) -> None:
    script("__version__ = '2.1+cpu'", "torch.py")
    script("raise SystemExit('nobody has asked for it')", "jax.py")
    code = """
    import subprocess, torch
    subprocess.run([sys.executable, "-c", "import hpcml, torch"], check=True)
    """
    ended = job(script, code)

    (python,) = [event for event in ended.events if event["e"] == "python"]
    assert python["version"] == sys.version.split()[0]
    assert python["prefix"] == os.path.realpath(sys.prefix)
    (software,) = [event for event in ended.events if event["e"] == "software"]
    assert software["v"] == {"torch": "2.1+cpu"} and ended.stderr == ""


def test_each_run_of_a_function_tells_its_python(project: Path) -> None:
    def nothing(x: int) -> None:
        """Its runs are forks of one interpreter."""

    runs = hpcml.submit(hpcml.Job(nothing).sweep(x=[1, 2])).wait(60)

    for record in hpcml.records.find(batch=runs[0].id.partition(".")[0]):
        (told,) = [event.facts for event in record.events if event.kind == "python"]
        assert told["version"] == sys.version.split()[0]
