"""The sampler and its reader, on fake trees of powercap."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpcml.agent import energy, processes, starting, wire
from hpcml.agent.energy import domains
from hpcml.agent.energy.sampler import Sampler
from hpcml.energy.readings import Series, read
from hpcml.library import library
from tests.agent.direct import Agent, as_ordinary_user, command, dropped, publish
from tests.agent.direct import python_of_everybody as everybodys_python
from tests.agent.pythons import pythons
from tests.conftest import eventually, processes_below
from tests.counters import RANGE, Tree, advancing, two_sockets
from tests.embedded.scene import command_line

INTERVAL = 0.05
SHORT_LIVED = """
import os, subprocess, sys
library, path, root = sys.argv[1:]
sys.path.insert(0, library)
from hpcml.agent import energy
descriptor = energy.elect(path)
if descriptor is not None:
    sampler = [sys.executable, "-I", "-S", library, "sample", path, str(descriptor), root, "0.02"]
    subprocess.call(["/bin/sh", "-c", energy.DETACHED, "sh", *sampler], pass_fds=[descriptor],
                    stdout=subprocess.DEVNULL)
    os.close(descriptor)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return two_sockets(tmp_path / "machine")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "here.0.jsonl"


@contextmanager
def agent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for an agent."""
    with subprocess.Popen(["/bin/sleep", "100"]) as process:
        yield process
        process.kill()


def tell_of(agent: subprocess.Popen[bytes], file: Path) -> None:
    """Have an agent be measured for."""
    wire.append_line(str(file), {"agent": wire.identity(agent.pid)})


def start(tree: Tree, file: Path, python: str = sys.executable) -> subprocess.Popen[bytes]:
    """A sampler."""
    with open(file, "ab+", buffering=0) as opened:
        number = opened.fileno()
        argv = [python, "-I", "-S", str(library()), "sample", str(file), str(number)]
        return subprocess.Popen([*argv, str(tree.root), str(INTERVAL)], pass_fds=[number])


def series(file: Path) -> list[Series]:
    return read(file.read_bytes())


def count(file: Path) -> int:
    """Readings so far."""
    return sum(len(one.readings) for one in series(file))


# --- the reader --------------------------------------------------------------------------------


def found_in(tree: Tree) -> dict[str, domains.Domain]:
    return {domain.name: domain for domain in domains.find(str(tree.root)).domains}


def test_zones_become_domains_that_know_what_they_contain(tree: Tree) -> None:
    found = found_in(tree)

    assert {name: domain.kind for name, domain in found.items()} == {
        "package-0": "cpu",
        "package-0/core": "core",
        "package-0/dram": "dram",
        "package-1": "cpu",
        "package-1/core": "core",
        "package-1/dram": "dram",
        "mmio/package-0": "cpu",
        "mmio/package-1": "cpu",
        "psys": "psys",
    }
    assert found["package-0"].contains == ["package-0/core"], "memory has a counter of its own"
    assert set(found["psys"].contains) == {
        f"package-{socket}{part}" for socket in (0, 1) for part in ("", "/dram")
    }
    mirrors = {name: domain.mirrors for name, domain in found.items() if domain.mirrors}
    assert mirrors == {"mmio/package-0": "package-0", "mmio/package-1": "package-1"}
    assert (found["package-1"].read(), found["package-1"].range) == (2000, RANGE)


def test_parts_are_found_where_they_lie_within_their_package(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0/intel-rapl:0:0", "dram", 5)

    assert [*found_in(tree)] == ["package-0", "package-0/dram"]
    assert found_in(tree)["package-0/dram"].read() == 5


def test_a_package_that_is_shown_by_mmio_alone_is_no_mirror(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("intel-rapl-mmio:0", "package-0")

    assert [domain.mirrors for domain in found_in(tree).values()] == [None]


def test_a_counter_that_gives_an_input_output_error_is_told_to_be_one(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    counter = tree.add("intel-rapl:0", "package-0")
    counter.unlink()
    counter.symlink_to("/proc/self/mem")

    assert domains.find(str(tmp_path)).tried == {
        "powercap": {"status": "error", "reason": "input/output error"}
    }


@pytest.mark.parametrize("content", ["", "none\n"])
def test_a_counter_that_is_no_number_is_an_error_and_no_0(tmp_path: Path, content: str) -> None:
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0").write_text(content)

    found = domains.find(str(tmp_path))

    assert found.tried == {"powercap": {"status": "error", "reason": "what it shows is no number"}}
    assert not found.readable()


def test_what_a_domain_cannot_use_is_said_by_the_range_of_its_counter(tmp_path: Path) -> None:
    """A counter takes a minute at least to wrap."""
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0", size=60_000_000_000)
    (tree.add("intel-rapl:1", "package-1").parent / "max_energy_range_uj").unlink()

    found = found_in(tree)

    assert (found["package-0"].range, found["package-0"].most) == (60_000_000_000, 1000.0)
    assert (found["package-1"].range, found["package-1"].most) == (None, None)


def test_a_folder_without_counters_is_absence(tmp_path: Path) -> None:
    Tree(tmp_path)

    found = domains.find(str(tmp_path))

    assert found.tried == {"powercap": {"status": "absent", "reason": "it shows no counters"}}


# --- the sampler -------------------------------------------------------------------------------


def test_the_sampler_ends_soon_after_the_last_agent(tree: Tree, file: Path) -> None:
    """Killed agents included; and its last reading lies behind their end."""
    with agent() as one, agent() as other:
        tell_of(one, file)
        sampler = start(tree, file)
        eventually(lambda: count(file) >= 2)
        tell_of(other, file)
        one.kill()
        one.wait()
        before = count(file)
        eventually(lambda: count(file) >= before + 3)
        assert sampler.poll() is None, "an agent that came later is measured for"
        other.kill()
        other.wait()
        ended = wire.monotonic_ns()
        assert sampler.wait(60) == 0
    assert series(file)[0].readings[-1][0] > ended


@pytest.mark.parametrize("version", pythons())
def test_it_samples_in_every_python(version: str, tree: Tree, file: Path) -> None:
    with agent() as one, advancing(tree):
        tell_of(one, file)
        sampler = start(tree, file, pythons()[version])
        eventually(lambda: count(file) >= 4)
        eventually(lambda: series(file)[0].readings[-1][1] != series(file)[0].readings[0][1])
        one.kill()
        one.wait()
        assert sampler.wait(60) == 0
    (found,) = series(file)
    assert found.scope == "cpu+dram"
    joules = [piece.joules for piece in found.pieces(found.cut)]
    assert None not in joules and sum(filter(None, joules)) > 0


def test_no_agent_is_missed_however_close_it_comes_to_the_end_of_a_sampler(
    tree: Tree, file: Path
) -> None:
    """It is seen by a sampler that was about to leave, or elected to start another one."""
    argv = [sys.executable, "-c", SHORT_LIVED, str(library()), str(file), str(tree.root)]
    for number in range(12):
        before = count(file) if file.exists() else 0
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
            assert one.stdin is not None and one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
            eventually(lambda before=before: count(file) > before + 1)
            one.stdin.close()
        time.sleep(0.005 * number)
    eventually(lambda: not samplers(file))
    assert len(series(file)) > 1, "samplers have left meanwhile"


def test_what_ends_a_job_does_not_end_the_sampler(tree: Tree, file: Path) -> None:
    with agent() as one:
        tell_of(one, file)
        sampler = start(tree, file)
        eventually(lambda: count(file))
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            sampler.send_signal(number)
        before = count(file)
        eventually(lambda: count(file) >= before + 3)
        one.kill()
        one.wait()
        assert sampler.wait(60) == 0


def test_a_killed_sampler_loses_at_most_its_last_line_and_is_followed_by_another(
    tree: Tree, file: Path
) -> None:
    with agent() as one:
        tell_of(one, file)
        sampler = start(tree, file)
        eventually(lambda: count(file) >= 3)
        sampler.kill()
        sampler.wait()
        before = count(file)
        with file.open("ab") as opened:
            opened.write(b'{"m":12345,"v":[1')  # as if it had been killed within a line
        sampler = start(tree, file)
        eventually(lambda: count(file) >= before + 3)
        one.kill()
        one.wait()
        assert sampler.wait(60) == 0
    assert len(series(file)) == 2
    assert file.read_bytes().count(b'"v"') == count(file) + 1, "only the torn one is lost"


def test_of_two_samplers_one_leaves_at_once(tree: Tree, file: Path) -> None:
    with agent() as one:
        tell_of(one, file)
        first = start(tree, file)
        eventually(lambda: count(file))
        assert start(tree, file).wait(60) == 0
        assert first.poll() is None
        one.kill()
        one.wait()
        assert first.wait(60) == 0
    assert len(series(file)) == 1


def test_a_failed_reading_is_null_and_the_counter_is_tried_again(tree: Tree, file: Path) -> None:
    counter = tree.folder / "intel-rapl:0" / "energy_uj"
    with agent() as one:
        tell_of(one, file)
        sampler = start(tree, file)
        eventually(lambda: count(file))
        os.truncate(counter, 0)
        eventually(lambda: series(file)[0].readings[-1][1][0] is None)
        before = count(file)
        counter.unlink()
        counter.symlink_to("/proc/self/mem")  # whose first byte is an input/output error
        eventually(lambda: count(file) >= before + 3)
        assert series(file)[0].readings[-1][1][0] is None
        counter.unlink()
        tree.set("intel-rapl:0", 4321)
        eventually(lambda: series(file)[0].readings[-1][1][0] == 4321)
        one.kill()
        one.wait()
        assert sampler.wait(60) == 0
    (found,) = series(file)
    package = [values[0] for _, values in found.readings]
    assert set(package) == {1000, None, 4321}
    others = {tuple(values[1:]) for _, values in found.readings}
    assert len(others) == 1, "the other counters were read all the time"


class Machine:
    """Clocks that a test sets, and a sampler of one counter that reads them."""

    def __init__(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.asleep = 1.0, 0.0
        self.late: list[float] = []
        monkeypatch.setattr(wire, "monotonic_ns", lambda: int(self.now * 1e9))
        monkeypatch.setattr(time, "clock_gettime", lambda _: self.now + self.asleep)
        monkeypatch.setattr(domains.Domain, "read", lambda _: self._read())
        self.sampler = Sampler(-1, str(tree.root), INTERVAL)

    def _read(self) -> int:
        self.now += self.late.pop() if self.late else 0.0
        return 7

    def reading(self, *late: float) -> dict[str, Any]:
        """One reading; reading the counters takes as long as is said, try by try."""
        self.late, self.now = [*late[::-1]], self.now + 1.0
        return self.sampler._reading()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0")
    return Machine(tree, monkeypatch)


def test_counters_that_were_read_late_are_read_again(machine: Machine) -> None:
    """The sampler may be stopped between its look at the clock and the counter."""
    at = machine.now + 1.0
    found = machine.reading(5.0, 0.001)

    assert (found["m"], found["v"]) == (int((at + 5.0) * 1e9), [7])
    assert machine.reading(*[0.5] * 5)["v"] == [None], "of which time it is, is not known"


def test_a_machine_that_was_suspended_says_so(machine: Machine) -> None:
    assert "slept" not in machine.reading()
    machine.asleep = 3600.0
    assert machine.reading()["slept"] == pytest.approx(3600.0)
    assert "slept" not in machine.reading()


# --- how an agent has it started ---------------------------------------------------------------


def test_an_agent_on_a_full_disk_keeps_no_file_open(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            energy.elect(str(file))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_where_nothing_is_shown_it_is_written_down_once_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("no process is needed")

    monkeypatch.setattr(starting, "start", refuse)

    for _ in range(2):
        energy.ensure_sampler(str(tmp_path), {"system_root": str(tmp_path / "nothing")})

    (file,) = (tmp_path / "energy").iterdir()
    (found,) = series(file)
    reason = "there is no /sys/class/powercap"
    assert found.tried == {"powercap": {"status": "absent", "reason": reason}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_machines_that_share_a_name_or_have_booted_anew_have_files_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = energy.sample_file("batch")
    assert energy.sample_file("batch") == one
    monkeypatch.setattr(wire, "boot_id", lambda: "another")
    assert energy.sample_file("batch") != one


def test_what_cannot_be_written_costs_the_energy_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "energy").write_text("in the way")

    energy.ensure_sampler(str(tmp_path), {"system_root": str(tmp_path)})


def test_counters_for_root_alone_are_told_to_be_denied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with as_ordinary_user(publish(command("/bin/true"))) as folder:
        tree = two_sockets(folder.parents[2] / "machine")
        for path in tree.root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o444)
        for counter in tree.folder.glob("*/energy_uj"):
            counter.chmod(0)
        monkeypatch.setenv(energy.ROOT_VARIABLE, str(tree.root))

        ended = Agent(folder, python=everybodys_python(), **dropped()).wait()

        (file,) = (folder / "energy").iterdir()
        (found,) = series(file)
        assert ended.state == "COMPLETED"
    assert found.tried == {
        "powercap": {
            "status": "denied",
            "reason": "permission denied (root only since Linux 5.10)",
        }
    }
    assert (found.readings, found.cut) == ([], ())


def test_the_sampler_is_no_process_of_the_run(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ended as a leftover, not waited for, and not counted."""
    monkeypatch.setenv(energy.ROOT_VARIABLE, str(tree.root))
    batch = publish(command("/bin/sleep", "1"))

    at_work = Agent(batch)
    eventually(lambda: samplers(batch))
    assert not set(samplers(batch)) & set(processes.descendants(at_work.process.pid))
    ended = at_work.wait()

    assert "leftovers" not in {event["e"] for event in ended.events}
    eventually(lambda: not samplers(batch))
    (file,) = (batch / "energy").iterdir()
    assert series(file)[0].readings[-1][0] > ended.event("end")["m"]


def samplers(batch: Path) -> list[int]:
    return [pid for pid in processes_below(batch) if b"\0sample\0" in command_line(pid)]
