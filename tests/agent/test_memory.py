"""The memory limit, by the kernel or by watching, and OUT_OF_MEMORY only with evidence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcml.agent import memory, processes, wire
from tests.agent.direct import (
    Agent,
    Attempt,
    as_ordinary_user,
    command,
    dropped,
    publish,
    python,
    python_of_everybody,
    run,
)
from tests.conftest import eventually

MiB = 1 << 20
BY_KERNEL = "the kernel killed a process of the run for want of memory"
BY_WATCHING = "its processes held "

# Holds more and more, slowly enough to be seen, until somebody ends it.
GREEDY = """
import time
held = []
while len(held) < 2000:
    held.append(bytearray(b"x" * (2 << 20)))
    time.sleep(0.01)
"""


@contextmanager
def cgroup(limit: int) -> Iterator[Path | None]:
    """A memory cgroup with a limit below the one of this process; ``None`` if none can be made."""
    own = memory.own_cgroup()
    if own is None:
        yield None
        return
    folder = Path(own, f"test-{wire.random_letters(8)}")
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    name = "memory.max" if Path(own, "memory.events").exists() else "memory.limit_in_bytes"
    try:
        if not (folder / name).exists():
            yield None
            return
        (folder / name).write_text(str(limit))
        yield folder
    finally:
        folder.rmdir()


def cgroups_can_be_made() -> bool:
    with cgroup(100 * MiB) as folder:
        return folder is not None


def watched(code: str, limit: int) -> Attempt:
    """Execute a line of Python as an ordinary user, who may make no cgroup here."""
    batch = publish(command(python_of_everybody(), "-c", code), memory=limit)
    with as_ordinary_user(batch) as copy:
        ended = Agent(copy, python=python_of_everybody(), **dropped()).wait()
        ended.end, ended.events  # noqa: B018 (read while they are there)
        return ended


# --- evidence -------------------------------------------------------------------------------------


def test_sigkill_without_evidence_is_a_failure() -> None:
    for limit in (None, 500 * MiB):
        ended = run(command("/bin/sh", "-c", "kill -9 $$"), memory=limit)

        assert ended.end["cause"] == "FAILED" and ended.end["signal"] == signal.SIGKILL
        assert ended.state == "FAILED"


@pytest.mark.parametrize("name", ["memory.events", "memory.oom_control"])
def test_evidence_is_a_kill_that_the_kernel_counted(tmp_path: Path, name: str) -> None:
    """Both versions' files, as kernels write them."""
    text = {
        "memory.events": "low 0\nhigh 12\nmax 40\noom {}\noom_kill {}\noom_group_kill 0\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom {}\noom_kill {}\n",
    }[name]
    (tmp_path / name).write_text(text.format(3, 3))
    evidence = memory.Evidence(str(tmp_path))
    assert not evidence.killed(), "it was before our time"

    (tmp_path / name).write_text(text.format(4, 3))
    assert not evidence.killed(), "memory was short, and nobody was killed"

    (tmp_path / name).write_text(text.format(4, 4))
    assert evidence.killed()


@pytest.mark.parametrize("text", [None, "", "oom_kill\n", "a b c\n", "oom 3\n"])
def test_where_the_kernel_does_not_count_there_is_no_evidence(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "memory.events").write_text(text)
    evidence = memory.Evidence(str(tmp_path))
    (tmp_path / "memory.events").write_text("oom_kill 1\n")

    assert not evidence.killed()


def test_version_2_goes_before_version_1(tmp_path: Path) -> None:
    """A machine may mount both; the one with counts decides."""
    (tmp_path / "memory.events").write_text("oom 0\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill 0\n")
    evidence = memory.Evidence(str(tmp_path))
    (tmp_path / "memory.oom_control").write_text("oom_kill 1\n")

    assert evidence.killed()


def test_the_smallest_limit_of_a_cgroup_and_those_above_it_is_told(tmp_path: Path) -> None:
    step = tmp_path / "job" / "step"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    assert memory.Evidence(str(step)).limit is None
    (step.parent / "memory.max").write_text(f"{200 * MiB}\n")
    assert memory.Evidence(str(step)).limit == 200 * MiB


@pytest.mark.parametrize(("told", "limit"), [(100 * MiB, 100 * MiB), ((1 << 63) - 4096, None)])
def test_in_version_1_the_kernel_itself_tells_the_smallest_limit(
    tmp_path: Path, told: int, limit: int | None
) -> None:
    (tmp_path / "memory.stat").write_text(f"cache 0\nhierarchical_memory_limit {told}\n")
    assert memory.Evidence(str(tmp_path)).limit == limit


# --- the agent's own limit ------------------------------------------------------------------------


def test_the_limit_is_enforced_as_well_as_this_machine_allows() -> None:
    """By a cgroup where one can be made, by watching elsewhere."""
    ended = run(python(GREEDY), memory=100 * MiB)

    assert ended.state == "OUT_OF_MEMORY" and ended.end["signal"] == signal.SIGKILL
    if cgroups_can_be_made():
        assert ended.end["reason"] == f"{BY_KERNEL}; the limit is 100 MiB"
        assert 90 * MiB < ended.end["usage"]["peak_memory"] <= 101 * MiB
    else:
        assert ended.end["reason"].startswith(BY_WATCHING)


def test_a_killed_child_that_fails_the_command_is_evidence_too() -> None:
    code = f"""
import os, sys
pid = os.fork()
if pid == 0:
    exec({GREEDY!r})
_, status = os.waitpid(pid, 0)
sys.exit(3 if os.WIFSIGNALED(status) else 0)
"""
    ended = run(python(code), memory=100 * MiB)

    assert ended.state == "OUT_OF_MEMORY"
    assert ended.end["exit_code"] == 3 or not cgroups_can_be_made()


def test_no_cgroup_is_left_behind() -> None:
    own = memory.own_cgroup()
    before = set(os.listdir(own)) if own else set()

    ended = run(
        python("import os\nif os.fork(): os._exit(0)\nimport time; time.sleep(60)"),
        memory=MiB * 200,
    )

    assert ended.state == "COMPLETED"
    name = f"hpcml-{ended.batch.name}.00000"
    assert name not in before and (own is None or not Path(own, name).exists())


def test_watching_ends_who_holds_too_much() -> None:
    ended = watched(GREEDY, 100 * MiB)

    assert ended.state == "OUT_OF_MEMORY" and ended.end["signal"] == signal.SIGKILL
    assert ended.end["reason"].startswith(BY_WATCHING)
    assert ended.end["reason"].endswith("MiB, the limit is 100 MiB")
    assert ended.end["usage"]["peak_memory"] > 100 * MiB


def test_watching_adds_up_all_processes() -> None:
    """Each holds less than the limit, all together more."""
    code = f"""
import os, time
for _ in range(3):
    if os.fork() == 0:
        held = bytearray(b"x" * {60 * MiB})
        time.sleep(60)
os.setsid() if os.getpgrp() != os.getpid() else None
time.sleep(60)
"""
    ended = watched(code, 150 * MiB)

    assert ended.state == "OUT_OF_MEMORY"


SHARING = f"""
import os, time
held = bytearray(b"x" * {60 * MiB})
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    children.append(pid)
time.sleep(0.7)  # three looks
for pid in children:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("how", ["watched", "as this machine allows"])
def test_memory_that_processes_share_counts_once(how: str) -> None:
    """Five processes show 60 MiB each, and hold them together."""
    if how == "watched":
        ended = watched(SHARING, 150 * MiB)
    else:
        ended = run(python(SHARING), memory=150 * MiB)

    assert ended.state == "COMPLETED", ended.end["reason"]
    assert 60 * MiB < ended.end["usage"]["peak_memory"] < 150 * MiB


# --- somebody else's limit ------------------------------------------------------------------------


def test_a_kill_in_the_cgroup_of_the_agent_is_evidence() -> None:
    """As where Slurm makes the cgroup: the agent and the job live in it, the kernel decides."""
    batch = publish(python(GREEDY))  # it asks for no memory, so the agent limits nothing
    with cgroup(120 * MiB) as folder:
        if folder is None:
            # Nobody limits anything here: without a limit, there is no OUT_OF_MEMORY either.
            ended = run(python("import os; os.kill(os.getpid(), 9)"))
            assert ended.state == "FAILED" and ended.end["signal"] == signal.SIGKILL
            return
        procs = folder / "cgroup.procs"
        ended = Agent(batch, preexec_fn=lambda: procs.write_text(str(os.getpid()))).wait()

    assert ended.end["signal"] == signal.SIGKILL
    assert (
        ended.state == "OUT_OF_MEMORY"
        and ended.end["reason"] == f"{BY_KERNEL}; the limit is 120 MiB"
    )


def test_a_kill_by_hand_in_a_limited_cgroup_is_no_evidence() -> None:
    batch = publish(command("/bin/sh", "-c", "kill -9 $$"))
    with cgroup(120 * MiB) as folder:
        options = {}
        if folder is not None:
            procs = folder / "cgroup.procs"
            options["preexec_fn"] = lambda: procs.write_text(str(os.getpid()))
        ended = Agent(batch, **options).wait()

    assert ended.state == "FAILED" and ended.end["cause"] == "FAILED"


def test_memory_of_other_runs_below_a_revived_dispatcher_does_not_count() -> None:
    """The agent that revived it adopts it, and so all that it starts."""
    grand = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    argv = [sys.executable, "-c", grand]
    service = subprocess.Popen(argv, env=processes.SERVICE, stdin=subprocess.PIPE)
    own = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        pairs = {service.pid: 0, own.pid: 0}

        def both_have_a_child() -> bool:
            pairs.update(
                {above: pid for pid, above in processes.parents().items() if above in pairs}
            )
            return all(pairs.values())

        eventually(both_have_a_child)
        found = set(processes.descendants(os.getpid()))
        assert {own.pid, pairs[own.pid]} <= found
        assert not {service.pid, pairs[service.pid]} & found
    finally:
        for child in (service, own):
            child.communicate(b"\n")


def test_a_kill_of_long_ago_in_a_shared_cgroup_is_no_evidence(tmp_path: Path) -> None:
    """It was another run's: this one went on. A kill may be counted just before a look."""
    counts = tmp_path / "memory.events"
    counts.write_text("oom_kill 0\n")
    evidence = memory.Evidence(str(tmp_path))
    counts.write_text("oom_kill 1\n")
    evidence.look()
    assert evidence.killed()
    evidence.look()
    assert not evidence.killed()
    counts.write_text("oom_kill 2\n")
    assert evidence.killed()
