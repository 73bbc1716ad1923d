"""The outbox's files: whole or not there, and used again by a process that submits again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import hpcml
from hpcml import outbox
from hpcml.agent import wire
from hpcml.batch import load_outbox, new_batch
from hpcml.finding import waiting_batches

LONG, SHORT = b'{"id": "long", "padding": "%s"}\n' % (b"x" * 500), b'{"id": "short"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "outbox").mkdir()
    yield tmp_path / "outbox"
    outbox._tidy_up()


def saved(folder: Path, name: str, line: bytes) -> Path:
    path = folder / f"{name}.jsonl"
    outbox.save(str(path), line)
    return path


def records(path: Path) -> list[object]:
    return list(wire.parse_lines(path.read_bytes()))


def test_what_is_forgotten_is_not_there(folder: Path) -> None:
    for _ in range(3):
        path = saved(folder, "one", SHORT)
        outbox.forget(str(path))

        assert not list(folder.glob("*.jsonl"))
        outbox.forget(str(path))  # by somebody else, too


def test_who_submits_once_leaves_no_file(folder: Path) -> None:
    outbox.forget(str(saved(folder, "one", SHORT)))

    assert os.listdir(folder) == []


def test_who_submits_again_writes_over_its_last_file(folder: Path) -> None:
    outbox.forget(str(saved(folder, "one", SHORT)))
    second = saved(folder, "two", SHORT)
    used = second.stat().st_ino
    outbox.forget(str(second))
    third = saved(folder, "three", SHORT)

    assert third.stat().st_ino == used
    assert os.listdir(folder) == ["three.jsonl"]


@pytest.mark.parametrize("lines", [[LONG, LONG, SHORT], [SHORT, SHORT, LONG]])
def test_nothing_is_left_of_the_batch_before(folder: Path, lines: list[bytes]) -> None:
    for line in lines[:2]:
        before = saved(folder, "before", line)
        wire.append_line(str(before), {"step": "preparing"})
        outbox.forget(str(before))

    last = saved(folder, "last", lines[2])

    assert records(last) == list(wire.parse_lines(lines[2]))
    assert last.read_bytes().endswith(b"\n")
    wire.append_line(str(last), {"step": "owner"})
    assert records(last)[1:] == [{"step": "owner"}]


def test_a_large_batch_does_not_make_each_later_one_large(folder: Path) -> None:
    large = b'{"points": "%s"}\n' % (b"x" * outbox.LARGEST)
    for _ in range(2):
        outbox.forget(str(saved(folder, "large", large)))

    assert saved(folder, "small", SHORT).read_bytes() == SHORT


def test_a_file_that_cannot_be_written_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    for _ in range(3):  # anew, and over another one
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "fsync", fails)
            saved(folder, "lost", SHORT)
        assert not list(folder.glob("*.jsonl"))
        outbox.forget(str(saved(folder, "other", SHORT)))


def test_what_a_power_loss_leaves_of_a_batch_that_was_being_saved_is_no_batch() -> None:
    """The name may be on disk before the content: then a file has that of the batch before."""
    job = hpcml.Job(["true"], code=None, params={"long": "x" * 5000})
    plan = hpcml.plan(job)
    before, there, other = (new_batch(plan, [{}]) for _ in range(3))
    new = replace(before, id=other.id)
    for batch in (before, new, there):
        batch.save()
    there.note("preparing")
    old, lost = before.outbox.read_bytes(), new.outbox.read_bytes()
    assert len(old) == len(lost) > 4096
    before.forget()

    for left in (b"", bytes(len(lost)), lost[:4096], old, lost[:4096] + old[4096:]):
        new.outbox.write_bytes(left)
        assert load_outbox(new.id) is None
        assert waiting_batches().keys() == {there.id}


def test_a_left_over_file_that_somebody_removes_is_not_missed(folder: Path) -> None:
    for _ in range(2):
        outbox.forget(str(saved(folder, "before", LONG)))
    for left in folder.iterdir():
        left.unlink()

    assert saved(folder, "after", SHORT).read_bytes() == SHORT


def test_threads_do_not_write_to_each_others_files(folder: Path) -> None:
    wrong: list[object] = []

    def submit(name: str) -> None:
        for number in range(200):
            line = wire.canonical({"id": f"{name}-{number}", "long": "x" * (number % 7)}) + b"\n"
            path = saved(folder, f"{name}-{number}", line)
            if records(path) != list(wire.parse_lines(line)):
                wrong.append(path)
            outbox.forget(str(path))

    threads = [threading.Thread(target=submit, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert len(os.listdir(folder)) <= 1


def test_a_forked_child_does_not_write_to_its_parents_file(folder: Path) -> None:
    for _ in range(2):
        outbox.forget(str(saved(folder, "before", SHORT)))
    child = os.fork()
    if child == 0:
        saved(folder, "of-the-child", SHORT)
        os._exit(0)
    os.waitpid(child, 0)

    saved(folder, "of-the-parent", LONG)

    assert records(folder / "of-the-child.jsonl") == [{"id": "short"}]


def test_a_process_that_ends_leaves_no_file_over(folder: Path) -> None:
    program = (
        "import sys; from hpcml import outbox\n"
        "for _ in range(3):\n"
        "    outbox.save(sys.argv[1], b'{}\\n'); outbox.forget(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder / "it.jsonl")], check=True)

    assert os.listdir(folder) == []


def test_what_a_process_left_that_was_killed_goes_an_hour_later(folder: Path) -> None:
    """No worker of multiprocessing comes to what others do at their end, either."""
    program = (
        "import os, sys; from hpcml import outbox\n"
        "for _ in range(3):\n"
        "    outbox.save(sys.argv[1], b'{}\\n'); outbox.forget(sys.argv[1])\n"
        "if sys.argv[2:]: os._exit(0)"
    )
    argv = [sys.executable, "-c", program, str(folder / "it.jsonl")]
    for _ in range(2):
        subprocess.run([*argv, "at once"], check=True)
    old, young = folder.iterdir()
    os.utime(old, (time.time() - 86400,) * 2)
    subprocess.run(argv, check=True)

    assert [*folder.iterdir()] == [young]
