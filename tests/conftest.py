"""Every test has a home of its own, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from hpcml.agent import wire
from hpcml.schedulers.process import ProcessScheduler
from tests.testbed.debian import CannotInstall, needed

T = TypeVar("T")

# Who starts the tests in the background of a shell has them ignore Ctrl-C, and all they start, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite tries the same examples each time; HYPOTHESIS_PROFILE=search looks for others.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

HERE = Path(__file__).parent
LONGEST = (
    "slurm/test_causes.py",
    "test_demo.py",
    "slurm/test_accounting.py",
    "docs/test_pages.py",
    "slurm/test_many.py",
    "contract/test_ssh.py",
    "testbed/test_box.py",
    "embedded/test_prune.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that last minutes begin first, so that no worker is alone with one at the end."""
    order = {HERE / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home: settings, caches, outbox and the embedded site's workspace lie below it."""
    before, here = set(os.listdir("/proc")), os.getcwd()
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    for variable, name in (
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
    ):
        monkeypatch.setenv(variable, str(folder / name))
    monkeypatch.setenv("HOME", str(folder))
    for variable in [name for name in os.environ if name.startswith(("HPCML_", "GIT_"))]:
        monkeypatch.delenv(variable)
    yield folder
    os.chdir(here)  # the folder that a test went to may be removed after it
    end_everything_below(tmp_path, before)


@pytest.fixture
def workspace(home: Path) -> Path:
    """The embedded site's workspace (made by the first submission)."""
    return home / "data" / "hpcml" / "local"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder without git, which is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def script(project: Path) -> Callable[..., str]:
    """Writes a script into the project: ``script("print(1)")`` gives ``"train.py"``."""

    def write(text: str, name: str = "train.py") -> str:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dispatcher is started, or woken."""
    for name in ("wake", "wake_if_dead"):
        monkeypatch.setattr(ProcessScheduler, name, lambda self: None)


@pytest.fixture
def another_python(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in another Python process with the same home; a killed one is no error."""

    def run(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def installed(find: Callable[[], T | None], *packages: str) -> T:
    """What a test needs of Debian's packages, which are installed if it is not found."""
    try:
        return needed(find, *packages)
    except CannotInstall as problem:
        pytest.fail(str(problem), pytrace=False)


def eventually(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Wait until something is true; fail if it never becomes so."""
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if condition():
            return
        asked = time.monotonic()
        assert asked < deadline, "it never became true"
        # What takes long to ask is asked less often: others want to get on.
        time.sleep(min(1.0, max(0.01, asked - began)))


def end_everything_below(folder: Path, but: Container[str] = ()) -> None:
    """Kill dispatchers, agents and jobs that work below a folder, until none is left."""
    deadline = time.monotonic() + 60
    while left := processes_below(folder, but):
        assert time.monotonic() < deadline, f"processes would not die: {left}"
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def processes_below(folder: Path, but: Container[str] = ()) -> list[int]:
    """Live processes whose command line or folder names a path below a folder.

    Those whose numbers are in `but` are not looked at, which takes the time: there are hundreds
    in the boxes.
    """
    needle = os.fsencode(folder)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or name in but or int(name) == os.getpid():
            continue
        try:
            text = Path("/proc", name, "cmdline").read_bytes()
            where = os.fsencode(os.readlink(f"/proc/{name}/cwd"))
        except OSError:
            continue
        if (needle in text or needle in where) and wire.started_at(int(name)) is not None:
            found.append(int(name))
    return found
