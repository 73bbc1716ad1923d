"""What is known of the boxes on this machine, in ``/run/hpcml-box/NAME/state.json``.

The kernel removes a box with its first process. What is left then, a folder, is removed by the
next box that is made.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path("/run/hpcml-box")
NUMBERS = range(1, 255)
MEMORY = Path("/sys/fs/cgroup/memory")  # where the kernel has memory cgroups of version 1
NAME = re.compile(r"[a-z][a-z0-9]{0,8}")  # a network device's name has 15 characters


@dataclass(frozen=True)
class Process:
    """A process that is not mistaken for a later one with the same number."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, _started(pid) or "")

    @property
    def alive(self) -> bool:
        return bool(self.started) and _started(self.pid) == self.started


@dataclass
class State:
    """One box."""

    name: str
    number: int
    owner: Process | None  # ends the box when it ends; None: the box stays until `down`
    first: Process | None = None
    hosts: dict[str, Process] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def alive(self) -> bool:
        return self.first is not None and self.first.alive

    @property
    def abandoned(self) -> bool:
        """Whether nobody makes it, uses it, or wanted it to stay."""
        return not self.owner.alive if self.owner else not self.alive

    def save(self) -> None:
        written = self.folder / "state.json.new"
        written.write_text(json.dumps(asdict(self)))
        written.rename(self.folder / "state.json")

    @classmethod
    def load(cls, folder: Path) -> State:
        found = json.loads((folder / "state.json").read_text())
        for key in ("owner", "first"):
            found[key] = Process(**found[key]) if found[key] else None
        found["hosts"] = {name: Process(**host) for name, host in found["hosts"].items()}
        return cls(**found)

    def remove(self, timeout: float = 120.0) -> None:
        """End every process of the box, and with them all that the kernel holds for it."""
        if self.first is not None and self.alive:
            os.kill(self.first.pid, signal.SIGKILL)
        link = Path("/sys/class/net") / link_name(self.name)
        everyone = [*self.hosts.values(), *([self.first] if self.first else [])]
        deadline = time.monotonic() + timeout
        while link.exists() or any(process.alive for process in everyone):
            if time.monotonic() > deadline:
                raise TimeoutError(f"box {self.name} does not go away: {everyone}, {link}")
            time.sleep(0.01)
        for folder, _, _ in os.walk(memory_cgroup(self.name), topdown=False):
            os.rmdir(folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def link_name(name: str) -> str:
    """The network device by which the machine reaches a box."""
    return f"hpcml-{name}"


def memory_cgroup(name: str) -> Path:
    """Below which the kernel limits the memory of a box's jobs, if it is to."""
    return MEMORY / f"hpcml-{name}"


def all_boxes() -> list[State]:
    """Every box of which there is something left."""
    found = []
    for folder in sorted(FOLDER.iterdir()) if FOLDER.exists() else []:
        try:
            found.append(State.load(folder))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            continue
    return found


def claim(name: str | None, owner: Process, switches: dict[str, Any]) -> State:
    """A new box's state, with a number that no other one has; clears what dead owners left.

    Raises
    ------
    ValueError
        The name is no good, or there is such a box.
    """
    with _lock():
        for state in all_boxes():
            if state.abandoned:
                state.remove()
        for folder in FOLDER.glob("*/"):  # made by somebody killed before the next line
            if not (folder / "state.json").exists():
                shutil.rmtree(folder)
        taken = {state.number: state.name for state in all_boxes()}
        number = next(number for number in NUMBERS if number not in taken)
        name = name or f"box{number}"
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a box: up to 9 of a-z and 0-9")
        if name in taken.values():
            raise ValueError(f"there is a box {name!r} already: python -m tests.testbed down")
        state = State(name, number, owner, switches=switches)
        shutil.rmtree(state.folder, ignore_errors=True)
        (state.folder / "inside").mkdir(parents=True)
        state.save()
        return state


@contextmanager
def _lock() -> Iterator[None]:
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _started(pid: int) -> str | None:
    """When a process started (field 22 of proc(5)'s stat); None if there is none but a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
