"""``-v`` and Python's logging tell what is done on a site; nobody pays who does not listen."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

import hpcml
from hpcml.connection import connect
from hpcml.errors import TransportError
from hpcml.schedulers import Scheduler
from hpcml.schedulers.process import ProcessScheduler
from hpcml.site_log import FILES, QUEUE, telling_files
from hpcml.transports import Transport
from hpcml.transports.local import LocalTransport
from tests.cli.calling import call

LINE = re.compile(r"local: [a-z_]+( .*)? \(\d+\.\d ms\)(: .*)?")


def test_what_is_done_is_shown_line_by_line_on_stderr(script: Callable[..., str]) -> None:
    script("print('hello')")
    done = call("submit", "--wait", "-e", "WORD=s3cret", "train.py", "-v")
    run_id, printed = done.stdout.splitlines()
    assert (done.returncode, printed) == (0, "hello")
    lines = done.stderr.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), done.stderr
    batch = run_id.partition(".")[0]
    for told in (f"publish runs/{batch}: plan.json", f"submit {batch}.0", f"poll {batch}.0"):
        assert any(line.startswith(f"local: {told}") for line in lines), told
    assert "s3cret" not in done.stderr and "hello" not in done.stderr


def test_it_may_stand_before_the_command_or_behind_or_both() -> None:
    hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    plain = call("runs")
    assert plain.stderr == ""
    counts = set()
    for args in (["-v", "runs"], ["runs", "-v"], ["-v", "runs", "--verbose"]):
        done = call(*args)
        assert done.stdout == plain.stdout and "local: names runs (" in done.stderr
        counts.add(done.stderr.count("\n"))
    assert len(counts) == 1, "said once"


def test_a_call_that_fails_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    connection = connect("local")
    with caplog.at_level(logging.DEBUG, logger="hpcml"), pytest.raises(TransportError):
        connection.files.open_private("no/such/file")
    (record,) = caplog.records
    assert LINE.fullmatch(record.message)
    assert record.message.endswith("cannot be looked at: No such file or directory")


def test_what_changes_something_is_info_and_what_looks_is_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="hpcml"):
        run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    told = {(record.name, record.levelname, record.message.split()[1]) for record in caplog.records}
    assert ("hpcml.schedulers", "INFO", "submit") in told
    assert ("hpcml.transports", "INFO", "publish") in told
    assert {level for _, level, _ in told} == {"INFO"}

    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="hpcml"):
        assert run.logs() == ""
        connect("local").queue.poll([])
    told = {(record.name, record.levelname, record.message.split()[1]) for record in caplog.records}
    assert told == {
        ("hpcml.transports", "DEBUG", "get"),
        ("hpcml.schedulers", "DEBUG", "poll"),
    }


def test_while_nobody_listens_there_is_nothing_between_a_caller_and_the_site() -> None:
    """So that all it costs is to ask whether somebody does."""
    connection = connect("local")
    assert type(connection.files) is LocalTransport
    assert type(connection.queue) is ProcessScheduler
    kept = connection.queue.files
    assert kept.get.__self__ is connection.files


def test_every_call_of_the_contracts_is_told() -> None:
    for contract, told in ((Transport, FILES), (Scheduler, QUEUE)):
        methods = {
            name
            for name, value in vars(contract).items()
            if callable(value) and not name.startswith("_")
        }
        assert methods == set(told)


def test_what_is_told_does_not_use_up_an_iterator(caplog: pytest.LogCaptureFixture) -> None:
    class Files:
        def remove(self, paths: object) -> list[str]:
            return list(paths)  # type: ignore[call-overload, no-any-return]

    with caplog.at_level(logging.DEBUG, logger="hpcml"):
        assert telling_files("x", Files()).remove(iter(["a", "b"])) == ["a", "b"]  # type: ignore[arg-type, func-returns-value]
        assert telling_files("x", Files()).remove(["a", "b", "c", "d"])  # type: ignore[arg-type, func-returns-value]
    first, second = (record.message for record in caplog.records)
    assert first.startswith("x: remove several (")
    assert second.startswith("x: remove a, b, c and 1 more (")
