"""Few files, for their owner's eyes only, and one of them on disk for good."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import files, wire
from hpcml.job import Job
from hpcml.schedulers.process import ProcessScheduler
from tests.agent.direct import Agent, publish


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_run_leaves_six_inodes_and_its_work(script: Callable[..., str]) -> None:
    entry = script("import hpcml; hpcml.log(step=1, loss=0.5); print(1)")
    batch = publish(Job(entry), runs=2)
    before = len(below(batch))

    for count in (1, 2):
        Agent(batch, count - 1).wait()
        work = [path for path in below(batch) if "work" in path.relative_to(batch).parts]
        readings = below(batch / "energy")  # a folder and a file for each machine, not for a run
        assert len(readings) == 1
        assert len(below(batch)) - len(work) - before - (1 + len(readings)) == 6 * count


def test_a_folder_or_file_that_somebody_else_has_is_told_with_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No chmod of yours would help. Here it is who asks that is somebody else."""
    workspace = tmp_path / "ws"
    there = files.Files(str(workspace))
    (workspace / "file").touch(0o600)
    me = pwd.getpwuid(os.geteuid()).pw_name
    there.open_private("file").close()
    monkeypatch.setattr(os, "geteuid", lambda: -2)
    with pytest.raises(files.Trouble) as caught:
        files.Files(str(workspace))
    assert f"{workspace} belongs to {me}," in caught.value.problem
    assert caught.value.advice == "Use a folder of your own."
    with pytest.raises(files.Trouble) as caught:
        there.open_private("file")
    assert f"it belongs to {me}, and" in caught.value.problem
    assert "chmod" not in caught.value.advice


def test_a_submission_through_the_queue_leaves_no_more(script: Callable[..., str]) -> None:
    ended = hpcml.submit(script("print(1)")).wait(30)
    batch = Path(ended.plan.where["workspace"], "runs", ended.id.rpartition(".")[0])

    run = [path for path in below(batch / "0") if "work" not in path.relative_to(batch).parts]
    attempts = [it for it in below(batch / "attempts") if it.suffix in (".start", ".end")]
    assert 1 + len(run) + len(attempts) == 6


def test_a_batch_has_at_most_six_files_before_its_start(
    script: Callable[..., str], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started, so that nothing runs while they are counted."""
    monkeypatch.setattr(ProcessScheduler, "wake", lambda self: None)
    waiting = hpcml.submit(script("print(1)"))
    identifier = waiting.id.rpartition(".")[0]

    batch = [path for path in below(workspace / "runs" / identifier) if path.is_file()]
    queued = [path for path in below(workspace / "queue") if identifier in path.name]

    assert len(batch) + len(queued) <= 6, [*batch, *queued]
    assert len(queued) == 1


def test_everything_is_its_owners_alone(
    script: Callable[..., str], home: Path, workspace: Path
) -> None:
    """Whatever the umask of whoever submits."""
    script("#!/bin/sh\necho 1", "tool.sh")
    (home.parent / "project" / "tool.sh").chmod(0o755)
    script("x", "configs/x.yaml")
    entry = script("import os; os.makedirs('a/b'); open('a/b/c', 'w'); open('m', 'w'); print(1)")
    umask = os.umask(0)
    try:
        ended = hpcml.submit(Job(entry, outputs=["m"])).wait(30)
        batch = publish(Job(entry))
        Agent(batch).wait()
    finally:
        os.umask(umask)
    assert str(ended.state) == "COMPLETED"

    everything = [workspace, *below(workspace), *below(home / "state" / "hpcml" / "outbox")]
    modes = {path: path.lstat().st_mode for path in everything if not path.is_symlink()}
    open_to_others = {str(p): oct(mode) for p, mode in modes.items() if mode & 0o077}
    assert open_to_others == {}
    shared = workspace / "code"
    for path, mode in modes.items():
        allowed = {0o700} if stat.S_ISDIR(mode) else {0o600, 0o700}
        if path.is_relative_to(shared):
            allowed = {0o400, 0o500, *allowed}  # the snapshot is read-only besides
        assert stat.S_IMODE(mode) in allowed, (path, oct(mode))


SUBMIT = """
import os, sys
import hpcml
from hpcml.schedulers.process import ProcessScheduler

synced = []
fsync = os.fsync
os.fsync = lambda descriptor: (synced.append(os.readlink(f"/proc/self/fd/{descriptor}")),
                               fsync(descriptor))
submit = ProcessScheduler.submit
def called(self, chunks):
    folders = [os.path.basename(os.path.dirname(path)) for path in synced]
    print("the queue is called after an fsync in", *folders)
    return submit(self, chunks)
ProcessScheduler.submit = called
hpcml.submit("train.py")
print("in all", len(synced))
"""


def test_one_fsync_before_the_queue_is_called(script: Callable[..., str]) -> None:
    script("print(1)")

    done = subprocess.run([sys.executable, "-c", SUBMIT], capture_output=True, text=True)

    assert done.stdout == "the queue is called after an fsync in outbox\nin all 1\n", done.stderr


def test_the_kernel_counts_one_fsync_too(script: Callable[..., str], tmp_path: Path) -> None:
    """With strace, where it can be used; the test above needs none.

    (The first run of some code syncs what it has unpacked, once for all runs after it.)
    """
    script("print(1)")
    hpcml.submit("train.py").wait(30)
    trace = tmp_path / "trace"
    strace = shutil.which("strace")
    submit = [sys.executable, "-c", "import hpcml; print(hpcml.submit('train.py').id)"]
    calls = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync"
    watch = [strace, "-f", "-o", str(trace), "-e", calls] if strace else []
    usable = strace and subprocess.run([*watch, "true"], capture_output=True).returncode == 0

    done = subprocess.run([*(watch if usable else []), *submit], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    if usable:  # the dispatcher and the run, which strace follows, add none
        hpcml.attach(done.stdout.strip()).wait(30)
        assert len(re.findall(r"\b(?:\w*sync\w*)\(", trace.read_text())) == 1


def test_code_is_unpacked_once_whoever_comes_first(script: Callable[..., str]) -> None:
    """Eight agents at once."""
    for number in range(50):
        script(f"x = {number}", f"pkg/m{number}.py")
    batch = publish(Job(script("from pkg import m7; print(m7.x)")), runs=8)

    agents = [Agent(batch, index) for index in range(8)]
    ended = [one.wait() for one in agents]

    assert [one.stdout for one in ended] == ["7\n"] * 8
    code = batch.parents[1] / "code"
    (folder,) = (path for path in code.iterdir() if path.is_dir())
    assert wire.digest_path(str(folder))[0] == folder.name
    assert {path.name for path in code.iterdir()} == {folder.name}, "the archive has served"


def test_a_work_folder_left_half_made_is_made_anew(script: Callable[..., str]) -> None:
    """The agent of an earlier attempt was killed while it copied the code."""
    batch = publish(Job(script("print(sorted(__import__('os').listdir('.')))")))
    half = batch / "0" / "work.tmp"
    half.mkdir(parents=True)
    (half / "junk").write_text("x")

    ended = Agent(batch).wait()

    assert ended.stdout == "['train.py']\n" and not half.exists()


@pytest.mark.parametrize(
    "age, stays", [(30.0, True), (90.0, False), (-90.0, False)], ids=["now", "before", "to come"]
)
def test_a_time_of_this_minute_stays(tmp_path: Path, age: float, stays: bool) -> None:
    """It costs a write each; clocks may differ."""
    then = time.time() - age
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", (then, then))

    touched = files.Files(str(tmp_path)).touch("file")

    assert touched is not None
    mtime = (tmp_path / "file").stat().st_mtime
    assert touched[2] == mtime
    assert (abs(mtime - then) < 0.01) is stays
    assert stays or abs(mtime - time.time()) < 10
