"""The walltime is enforced on every process of a run, and nothing is left behind."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import hpcml
from hpcml.agent import wire
from hpcml.job import Resources
from tests.agent.direct import Agent, Attempt, command, gone, publish, python, run
from tests.conftest import eventually

# Starts, in every way there is to slip away, processes that ignore TERM and HUP; each writes its
# process id into a file of its own. Then runs what is given to it as its last line.
FAMILY = """
import os, signal, sys, time

def stay(name):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with open(name + ".tmp", "w") as file:
        file.write(str(os.getpid()))
    os.rename(name + ".tmp", name + ".pid")
    while True:
        time.sleep(60)

def child():
    stay("child")

def grandchild():
    if os.fork() == 0:
        stay("grandchild")
    stay("parent")

def daemon():
    os.setsid()
    if os.fork() == 0:
        stay("daemon")
    os._exit(0)

def nameless():
    os.setsid()
    if os.fork() == 0:
        stop = "import signal; signal.signal(15, signal.SIG_IGN); "
        tell = "import os; open('t', 'w').write(str(os.getpid())); os.rename('t', 'nameless.pid'); "
        code = stop + tell + "import time; time.sleep(60)"
        os.execve(sys.executable, ["quiet", "-I", "-S", "-c", code], {})
    os._exit(0)

for start in (child, grandchild, daemon, nameless):
    if os.fork() == 0:
        start()
NAMES = ["child", "parent", "grandchild", "daemon", "nameless"]
while not all(os.path.exists(name + ".pid") for name in NAMES):
    time.sleep(0.01)
print("ready", flush=True)
"""


def family(attempt: Attempt) -> list[int]:
    pids = [int(path.read_text()) for path in attempt.work.glob("*.pid")]
    assert len(pids) == 5
    return pids


def test_who_does_not_stop_is_stopped() -> None:
    ended = run(command("/bin/sleep", "60"), time=0.3, notice=0, kill_wait=5)

    assert ended.end["cause"] == "TIMEOUT" and ended.state == "TIMEOUT"
    assert ended.end["reason"] == "walltime of 0.3 s is over"
    assert ended.end["signal"] == signal.SIGTERM and ended.code == 143
    ran = ended.event("end")["m"] - ended.event("command")["m"]
    assert 0.29e9 < ran < 30e9


def test_term_then_kill_of_the_whole_tree() -> None:
    stubborn = FAMILY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"

    ended = run(python(stubborn), time=8, notice=0, kill_wait=0.3)

    assert ended.stdout == "ready\n"
    assert ended.state == "TIMEOUT" and ended.end["signal"] == signal.SIGKILL
    assert gone(family(ended)), "the agent returns when all are gone"
    waited = ended.event("kill")["m"] - ended.event("terminate")["m"]
    assert waited >= 0.29e9


def test_who_exits_with_0_on_term_was_still_timed_out() -> None:
    obedient = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); time.sleep(60)"

    ended = run(python(obedient), time=5, notice=0, kill_wait=20)

    assert ended.end["exit_code"] == 0 and ended.code == 0
    assert ended.state == "TIMEOUT"


def test_the_notice_reaches_who_listens_and_spares_who_does_not() -> None:
    """The command does not listen and lives; its child does, and tells it."""
    code = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGUSR2, lambda *_: (open("noticed", "w"), os._exit(0)))
    while True:
        time.sleep(0.01)
while not os.path.exists("noticed"):
    time.sleep(0.01)
print("told")
"""
    ended = run(python(code), time=20, notice=15, kill_wait=5)

    assert ended.stdout == "told\n"
    assert ended.state == "COMPLETED" and ended.end["received"] == []
    assert 0 < ended.event("notice")["seconds"] <= 15


def test_the_notice_spares_who_would_pass_it_on_to_others() -> None:
    """As srun, mpirun and Apptainer do, to all that they have started."""
    pass_on = "trap 'echo passed on' USR2; while [ ! -e noticed ]; do sleep 0.01; done"
    listen = "trap 'touch noticed; exit' USR2; while :; do sleep 0.01; done"
    started = (
        f"ln -s /bin/sh mpirun; sh -c {shlex.quote(listen)} & ./mpirun -c {shlex.quote(pass_on)}"
    )

    ended = run(command("/bin/sh", "-c", started), time=20, notice=15)

    assert (ended.state, ended.stdout) == ("COMPLETED", "")


def test_a_job_that_uses_the_notice_ends_well() -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(print("saved")))
while True:
    time.sleep(0.01)
"""
    ended = run(python(code), time=20, notice=15)

    assert (ended.state, ended.stdout) == ("COMPLETED", "saved\n")


def test_what_is_left_running_after_a_normal_end_is_ended() -> None:
    ended = run(python(FAMILY + "sys.exit(5)"))

    assert (ended.code, ended.state) == (5, "FAILED")
    assert gone(family(ended))


def test_who_has_just_slipped_away_is_found(project: Path) -> None:
    """Orphaned before the agent has so much as looked: the first thing the command does."""
    slip = "(setsid sh -c 'echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 60' &)"
    wait = "while [ ! -e pid ]; do sleep 0.01; done"

    ended = run(command("/usr/bin/env", "-i", "/bin/sh", "-c", f"{slip}; {wait}"))

    assert ended.code == 0
    assert gone([int((ended.work / "pid").read_text())])


def test_orphans_that_end_with_the_command_hide_no_other() -> None:
    """Some orphans are dead and not yet collected when the command ends; one lives."""
    code = """
import os, time
for wait in (60, 0, 0, 0):
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            time.sleep(wait)
            os._exit(0)
        if wait:
            open("pid", "w").write(str(pid))
        os._exit(0)
for _ in range(4):
    os.wait()
"""
    ended = run(python(code))

    assert ended.code == 0
    assert gone([int((ended.work / "pid").read_text())])


def test_the_agents_own_end_is_awaited_by_nobody_else() -> None:
    """Two runs at once: the end of one leaves the other's processes alone."""
    batch = publish(command("/bin/sh", "-c", "echo $$ > pid; sleep 0.2; echo done"), runs=2)
    agents = [Agent(batch, index) for index in (0, 1)]

    ended = [agent.wait() for agent in agents]

    assert [one.stdout for one in ended] == ["done\n", "done\n"]


def test_walltime_through_the_queue(home: Path) -> None:
    """As a user asks for it, at a site of the user's own."""
    profiles = home / "config" / "hpcml" / "sites"
    profiles.mkdir(parents=True)
    (profiles / "short.yaml").write_text("extends: local\nkill_wait: 1s\n")
    stubborn = FAMILY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    job = python(stubborn, resources=Resources(time="8s"))

    ended = hpcml.submit(job, site="short").wait(30)

    assert str(ended.state) == "TIMEOUT" and ended.reason == "walltime of 8 s is over"
    work = home / "data/hpcml/local/runs" / ended.id.rpartition(".")[0] / "0" / "work"
    assert gone(family(Attempt(work.parents[1], 0)))


def test_a_limit_shorter_than_the_start_is_a_limit(project: Path) -> None:
    ended = run(command("/bin/sleep", "60"), time=0.0, notice=0, kill_wait=1)

    assert ended.state == "TIMEOUT"


def test_a_stopped_command_is_ended_too() -> None:
    """A stopped process does not see TERM, but KILL."""
    agent = Agent(publish(command("/bin/sh", "-c", "kill -STOP $$"), time=0.3, kill_wait=0.2))

    ended = agent.wait()

    assert ended.state == "TIMEOUT" and ended.end["signal"] == signal.SIGKILL
    eventually(lambda: wire.started_at(ended.event("command")["pid"]) is None)
