"""One attempt: the command's exit code, signals, environment, folder, outputs, usage."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import processes, wire
from hpcml.job import Job
from tests.agent.direct import (
    Agent,
    as_ordinary_user,
    command,
    dropped,
    gone,
    publish,
    python,
    python_of_everybody,
    run,
)
from tests.conftest import eventually

# Prints "ready" once it listens to a signal, says which came, and exits with 7.
LISTENER = """
import signal, sys, time
def say(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(7)
for name in ("TERM", "INT", "HUP", "USR1", "USR2"):
    signal.signal(getattr(signal, "SIG" + name), say)
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("code", [0, 3, 126, 255])
def test_the_agent_returns_the_commands_exit_code(code: int) -> None:
    ended = run(command("/bin/sh", "-c", f"exit {code}"))

    assert ended.code == code
    assert (ended.end["exit_code"], ended.end["signal"]) == (code, None)
    assert ended.end["received"] == [] and ended.end["cause"] is None
    assert ended.state == ("COMPLETED" if code == 0 else "FAILED")
    assert ended.said == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_a_command_killed_by_a_signal_gives_128_and_its_number(number: signal.Signals) -> None:
    ended = run(command("/bin/sh", "-c", f"kill -{number.value} $$"))

    assert ended.code == 128 + number
    assert (ended.end["exit_code"], ended.end["signal"]) == (None, number)
    assert ended.end["received"] == [], "it was not sent to the agent"
    assert ended.state == "FAILED"


def test_it_ends_the_same_way_through_the_queue() -> None:
    """The whole way round: submission, dispatcher, job script, agent."""
    job = command("/bin/sh", "-c", "exit 3")

    ended = hpcml.submit(job).wait(30)

    assert (str(ended.state), ended.exit_code, ended.reason) == ("FAILED", 3, "exit code 3")


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_signals_reach_the_command(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    agent = Agent(publish(python(LISTENER)))
    agent.await_line("ready")

    agent.send(number)
    ended = agent.wait()

    assert ended.code == 7
    assert ended.stdout == f"ready\ngot SIG{name}\n"
    assert ended.end["received"] == ([number] if name in ("TERM", "INT", "HUP") else [])
    assert ended.event("signal")["signal"] == number


@pytest.mark.parametrize("name", ["USR1", "USR2"])
def test_a_user_signal_does_not_change_how_it_ended(name: str) -> None:
    agent = Agent(publish(python(LISTENER.replace("sys.exit(7)", "sys.exit(0)"))))
    agent.await_line("ready")

    agent.send(signal.Signals[f"SIG{name}"])

    assert agent.wait().state == "COMPLETED"


def test_the_scheduler_explains_a_signal_that_the_command_survived() -> None:
    """It exits 0 on TERM: only who sent the signal knows why."""
    job = python(LISTENER.replace("sys.exit(7)", "sys.exit(0)"))
    agent = Agent(publish(job, scheduler="slurm"))
    agent.await_line("ready")
    agent.send(signal.SIGTERM)
    end = agent.wait().end

    assert wire.how_it_ended(end, None, 0.0) is None, "the scheduler's word is awaited"
    word = {"state": "CANCELLED", "reason": "by hand"}
    assert wire.how_it_ended(end, word, 0.0) == ("CANCELLED", "by hand")
    assert wire.how_it_ended(end, None, 61.0)[0] == "FAILED"  # type: ignore[index]


def test_on_the_embedded_site_the_agent_itself_says_what_a_signal_meant() -> None:
    """There is no other scheduler to ask."""
    folder = publish(python(LISTENER))
    agent = Agent(folder)
    agent.await_line("ready")
    agent.send(signal.SIGTERM)
    by_hand = agent.wait()
    assert (by_hand.end["cause"], by_hand.end["received"]) == ("FAILED", [signal.SIGTERM])
    assert "SIGTERM" in by_hand.end["reason"]

    folder = publish(python(LISTENER))
    agent = Agent(folder)
    agent.await_line("ready")
    wire.append_line(wire.words_file(str(folder)), {"index": 0, "request": "cancel"})
    agent.send(signal.SIGTERM)
    assert agent.wait().end["cause"] == "CANCELLED"


def test_who_ignores_term_is_killed_after_kill_wait() -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\n"
    agent = Agent(publish(python(stubborn + "import time; time.sleep(60)"), kill_wait=0.3))
    agent.await_line("ready")

    agent.send(signal.SIGTERM)
    ended = agent.wait()

    assert ended.end["signal"] == signal.SIGKILL and ended.end["received"] == [signal.SIGTERM]
    waited = ended.event("kill")["m"] - ended.event("signal")["m"]
    assert waited >= 0.29e9


def test_a_signal_that_comes_before_the_command_is_not_lost() -> None:
    """Stopped while it starts, the agent gets TERM and goes on: the command gets it."""
    agent = Agent(publish(command("/bin/sleep", "60")))
    started = agent.batch / "attempts" / "0.1.start"
    eventually(started.exists)
    agent.send(signal.SIGTERM)

    ended = agent.wait()

    assert ended.end["received"] == [signal.SIGTERM] and ended.end["signal"] == signal.SIGTERM


# --- what the command finds -----------------------------------------------------------------------


def test_environment_and_folder(
    script: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = script("import json, os; print(json.dumps([os.getcwd(), dict(os.environ)]))")
    monkeypatch.setenv("SECRET_TOKEN", "xyz")
    monkeypatch.setenv("LANG", "C.UTF-8")

    ended = run(Job(entry, env={"MINE": "a b\n$(c)", "LANG": "C"}))
    folder, environment = json.loads(ended.stdout)

    assert folder == str(ended.work)
    assert environment["MINE"] == "a b\n$(c)"
    assert environment["LANG"] == "C", "the job's own goes before the site's"
    assert environment["PATH"] == os.environ["PATH"] and environment["HOME"] == os.environ["HOME"]
    assert environment["HPCML_BATCH"] == str(ended.batch) and environment["HPCML_INDEX"] == "0"
    assert environment["HPCML_RUN_ID"] == f"{ended.batch.name}.00000"
    assert environment["PYTHONPATH"].endswith(".pyz")
    assert "SECRET_TOKEN" not in environment


def test_files_of_the_code_are_there_and_new_ones_are_the_runs(script: Callable[..., str]) -> None:
    script("width: 8", "configs/x.yaml")
    entry = script(
        """
        print(open("configs/x.yaml").read())
        open("model.pt", "w").write("weights")
        """
    )
    ended = run(Job(entry, outputs=["model.pt"]))

    assert ended.stdout == "width: 8\n"
    assert (ended.work / "model.pt").read_text() == "weights"


WRITER = """
import os, sys
from pathlib import Path
mine = sys.argv[1]
refused = 0
here, snapshot = Path.cwd(), Path(__file__).resolve().parent
places = ["train.py", "configs/x.yaml", "configs/new.yaml", "out.txt", "results/r.txt"]
for place in [here / p for p in places] + [snapshot / p for p in places]:
    try:
        with open(place, "a") as file:
            file.write(f"# {mine}\\n")
    except OSError:
        refused += 1
print(refused)
"""


def two_runs_that_write_everywhere(script: Callable[..., str]) -> Path:
    script("width: 8\n", "configs/x.yaml")
    script("", "results/.gitkeep")
    script(WRITER)
    return publish(Job([python_of_everybody(), "train.py", "mark"], code="."), runs=2)


def test_two_runs_of_root_never_write_the_same_file(script: Callable[..., str]) -> None:
    """Root ignores read-only modes, so it works on copies (where the tests are root's)."""
    batch = two_runs_that_write_everywhere(script)

    ended = [Agent(batch, index).wait() for index in (0, 1)]

    assert [e.code for e in ended] == [0, 0], ended[0].stderr
    for one in ended:
        assert (one.work / "out.txt").read_text() == "# mark\n" * (1 + (os.geteuid() == 0))
        assert (one.work / "results/r.txt").exists()
    assert_snapshot_untouched(batch)


def test_two_runs_of_a_user_never_write_the_same_file(script: Callable[..., str]) -> None:
    with as_ordinary_user(two_runs_that_write_everywhere(script)) as batch:
        ended = [
            Agent(batch, index, python=python_of_everybody(), **dropped()).wait()
            for index in (0, 1)
        ]

        assert [e.code for e in ended] == [0, 0], ended[0].said + ended[0].stderr
        for one in ended:
            assert (one.work / "train.py").is_symlink() and (one.work / "configs").is_symlink()
            assert (one.work / "out.txt").read_text() == "# mark\n"
            assert (one.work / "results/r.txt").read_text() == "# mark\n"
            # Three tracked places by way of the links, and all five in the snapshot itself.
            assert one.stdout == "8\n"
        assert_snapshot_untouched(batch)


def assert_snapshot_untouched(batch: Path) -> None:
    code = batch.parents[1] / "code"
    (folder,) = (path for path in code.iterdir() if path.is_dir())
    assert wire.digest_path(str(folder))[0] == folder.name
    assert {path.name for path in folder.iterdir()} == {"train.py", "configs", "results"}


# --- entries --------------------------------------------------------------------------------------


def test_a_module(script: Callable[..., str]) -> None:
    script("", "pkg/__init__.py")
    script("import sys; print(__name__, __package__, *sys.argv[1:])", "pkg/mod.py")

    ended = run(Job("-m pkg.mod", params={"lr": 0.5, "name": "a b", "off": None}))

    assert ended.stdout == "__main__ pkg --lr=0.5 --name=a b\n"


def test_a_command_list_gets_its_templates_filled(tmp_path: Path) -> None:
    data = tmp_path / "a b"
    data.write_text("x")
    argv = ["/bin/echo", "{params.n}", "x{inputs.t2m}y", "{no.template}", "$HOME", "{params.l}"]

    ended = run(command(*argv, params={"n": 3, "l": [1, "ü"]}, inputs={"t2m": str(data)}))

    assert ended.stdout == f'3 x{data}y {{no.template}} $HOME [1, "ü"]\n'


@pytest.mark.parametrize(
    "text, printed",
    [
        ('#!/bin/bash\nset -o pipefail && echo $0 $# "$1"', "./-run.sh 1 --a=b c\n"),
        ('echo $# "$1"', "1 --a=b c\n"),
        ("#!/usr/bin/env bash\necho ${BASH_VERSION:+bash}", "bash\n"),
    ],
    ids=["bash", "no first line", "env"],
)
def test_a_shell_script(project: Path, text: str, printed: str) -> None:
    (project / "-run.sh").write_text(text + "\n")  # not executable, and named like an option

    assert run(Job("-run.sh", params={"a": "b c"})).stdout == printed


def test_a_command_that_is_not_there() -> None:
    ended = run(command("no-such-command", "x"))

    assert ended.code == 127 and ended.state == "FAILED"
    assert "'no-such-command' cannot be run: No such file" in ended.end["reason"]


def test_a_command_that_is_not_executable(project: Path) -> None:
    (project / "program").write_text("#!/bin/sh\n")

    ended = run(Job(["./program"], code=str(project)))

    assert ended.code == 126 and ended.state == "FAILED"
    assert "'./program' cannot be run: Permission denied" in ended.end["reason"]


# --- outputs, usage, events -----------------------------------------------------------------------


def test_outputs_are_digested() -> None:
    code = "import os; os.makedirs('out/d'); open('out/d/a', 'w').write('A'); open('m', 'w')"

    ended = run(python(code, outputs=["m", "out"]))

    empty = wire.sha256(b"")
    tree = wire.tree_digest([("d/a", "file", wire.sha256(b"A"))])
    m, out = ended.end["outputs"]["m"], ended.end["outputs"]["out"]
    assert (m["sha256"], m["bytes"]) == (empty, 0)
    assert (out["sha256"], out["bytes"]) == (tree, 1)
    assert out["stamp"] == wire.stamp_path(str(ended.work / "out"))


def test_a_missing_output_fails_the_run() -> None:
    ended = run(command("/bin/true", outputs=["model.pt", "x/y"]))

    assert ended.state == "FAILED" and ended.code == 0
    assert ended.end["reason"] == (
        "it ended well but without its output 'model.pt' (model.pt: No such file or directory), "
        "'x/y' (x/y: No such file or directory)"
    )


def test_a_missing_output_does_not_hide_the_commands_own_failure() -> None:
    ended = run(command("/bin/sh", "-c", "exit 3", outputs=["model.pt"]))

    assert ended.end["cause"] is None and ended.end["exit_code"] == 3


@pytest.mark.parametrize("memory", [None, "1 GiB"], ids=["unlimited", "limited"])
def test_usage_is_counted(memory: str | None) -> None:
    code = """
import time
block = bytearray(100 << 20)
with open("data", "wb") as file:
    file.write(block[:8 << 20])
open("data", "rb").read()
while time.process_time() < 0.3:
    pass
"""
    job = python(code, resources=hpcml.Resources(memory=memory))

    usage = run(job).end["usage"]

    assert 90e6 < usage["peak_memory"] < 250e6
    assert 90e6 < usage["max_rss"] < 250e6
    assert 0.25 < usage["cpu_user"] + usage["cpu_system"] < 3
    assert 8 << 20 <= usage["wchar"] < 9 << 20
    assert 8 << 20 <= usage["rchar"] < 20 << 20


def test_usage_counts_orphans() -> None:
    """Work that a shell's background process does is the run's, too."""
    burn = 'import time\nwhile time.process_time() < 0.3: pass\nopen("done", "w")'
    script = (
        f"({shlex.quote(sys.executable)} -c '{burn}' &); while [ ! -e done ]; do sleep 0.02; done"
    )

    usage = run(command("/bin/sh", "-c", script)).end["usage"]

    assert usage["cpu_user"] + usage["cpu_system"] > 0.29


def test_events_tell_the_host_and_carry_both_clocks() -> None:
    ended = run(command("/bin/true"))

    start = ended.event("start")
    assert start["run"] == f"{ended.batch.name}.00000"
    assert start["host"] == os.uname()[1] and start["kernel"] == os.uname()[2]
    assert start["boot"] == wire.boot_id()
    assert start["cores"] == len(os.sched_getaffinity(0))
    assert start["memory"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert start["cpu"] and start["os"] and start["architecture"]
    assert isinstance(start["accelerators"], list)
    assert [event["e"] for event in ended.events] == ["start", "command", "end"]
    for event in ended.events:
        # Both clocks of one event were read at the same time.
        offset = event["t"] - event["m"] / 1e9
        assert abs(offset - (start["t"] - start["m"] / 1e9)) < 0.1
    assert ended.event("end")["exit_code"] == 0


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [('{"what":', "is torn"), (None, "there is no"), ('{"schema": 99}', "schema 99")],
)
def test_a_bad_plan_is_not_run(text: str | None, message: str) -> None:
    batch = publish(command("/bin/true"))
    (batch / "plan.json").unlink()
    if text is not None:
        (batch / "plan.json").write_text(text)

    ended = Agent(batch).wait()

    assert ended.code == 70 and message in ended.said
    assert list((batch / "attempts").iterdir()) == []


def test_a_changed_plan_is_not_run() -> None:
    batch = publish(command("/bin/true"))
    text = (batch / "plan.json").read_text()
    (batch / "plan.json").write_text(text.replace("/bin/true", "/bin/evil"))

    assert "is not what its digest says" in Agent(batch).wait().said


def test_a_damaged_code_archive_fails_the_run(script: Callable[..., str]) -> None:
    batch = publish(Job(script("print('original')")))
    (archive,) = (batch.parents[1] / "code").glob("*.tar")
    archive.write_bytes(archive.read_bytes().replace(b"original", b"tampered"))

    ended = Agent(batch).wait()

    assert ended.state == "FAILED" and "is not what its name says" in ended.end["reason"]
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_an_agent_that_is_killed_leaves_processes_that_can_be_found() -> None:
    from hpcml.agent import processes

    agent = Agent(
        publish(command("/bin/sh", "-c", "sleep 60 & setsid sleep 60 & echo ready; wait"))
    )
    agent.await_line("ready")
    agent.process.kill()
    agent.process.communicate(timeout=60)
    identity = wire.run_id(str(agent.batch), 0)

    found = processes.of_run(identity)
    assert len(found) == 3
    assert processes.kill_all(identity) == set()
    eventually(lambda: gone(list(found)))


def test_a_fault_of_the_agents_own_is_named_and_leaves_nothing_running() -> None:
    """It cannot read what was said of the run, when a signal comes."""
    job = python("import os, time; print(os.getpid()); print('on', flush=True); time.sleep(600)")
    agent = Agent(publish(job))
    agent.await_line("on")
    os.mkdir(wire.words_file(str(agent.batch)))
    agent.send(signal.SIGTERM)
    attempt = agent.wait()
    assert attempt.state == "FAILED" and attempt.end["exit_code"] == 70
    assert "hpcml's agent failed" in attempt.end["reason"]
    assert "IsADirectoryError" in attempt.end["reason"]
    assert gone([int(attempt.stdout.split()[0])])


def test_orphans_of_a_fork_are_the_runs_though_its_agent_could_not_adopt_them() -> None:
    """The warm interpreter, which carries the same variable, is not."""
    environment = {processes.SLOT_VARIABLE: "7-7"}
    orphan, warm = (subprocess.Popen(["sleep", "600"], env=environment) for _ in range(2))
    agent = subprocess.Popen(["sleep", "600"])
    try:
        assert processes.of_run("no-run", agent.pid, {warm.pid}, "7-7") == {orphan.pid}
    finally:
        for process in (orphan, warm, agent):
            process.kill()
            process.wait()
