"""Finished submitit jobs become records, once, and nothing of theirs is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import submitit

import hpcml
from hpcml import records
from hpcml.errors import ArgumentError, RunNotFoundError
from hpcml.integrations import submitit_jobs
from hpcml.integrations.submitit import Imported, import_folder
from hpcml.records.model import Record
from tests.conftest import eventually
from tests.integrations.test_pickles import Hostile

TASKS = """
    import os, pathlib, time
    import submitit

    def train(width, lr=0.1):
        print("training")
        return {"loss": lr / width, "name": "conv"}

    def fail(why):
        raise ValueError(why + "\\nand more")

    def wait(gate):
        pathlib.Path(gate + ".waits").touch()
        while not os.path.exists(gate):
            time.sleep(0.01)
        return "done"

    def rank():
        return submitit.JobEnvironment().global_rank

    class Counter:
        def __init__(self, gate, n=0):
            self.gate, self.n = gate, n

        def __call__(self):
            while self.n == 0:
                pathlib.Path(self.gate).touch()
                time.sleep(0.01)
            return self.n

        def checkpoint(self):
            return submitit.helpers.DelayedSubmission(Counter(self.gate, self.n + 1))
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Functions in a module that jobs can import as well."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "tasks_of_tests.py").write_text(textwrap.dedent(TASKS))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    import tasks_of_tests

    yield tasks_of_tests
    del sys.modules["tasks_of_tests"]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def executor(logs: Path) -> Iterator[Callable[..., submitit.AutoExecutor]]:
    """Makes executors for jobs that last a minute at most; their umask is an ordinary one."""
    before = os.umask(0o022)

    def make(folder: str = "", **parameters: Any) -> submitit.AutoExecutor:
        made = submitit.AutoExecutor(folder=logs / folder, cluster="local")
        made.update_parameters(timeout_min=1, **parameters)
        return made

    yield make
    os.umask(before)


def on_record(name: str) -> Record:
    (found,) = records.find(name=name)
    return found


def left(logs: Path, job: str, result: Any = None, **files: str | bytes) -> None:
    """A job's files by hand; its function is ``os.getpid``."""
    delayed = submitit.core.utils.DelayedSubmission(os.getpid)
    delayed.dump(logs / f"{job}_submitted.pkl")
    if result is not None:
        (logs / f"{job}_0_result.pkl").write_bytes(pickle.dumps(result))
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (logs / f"{job}_0_{name.replace('__', '.')}").write_bytes(data)
    for path in logs.glob(f"{job}_*"):
        path.chmod(0o600)


def started(when: str = "2026-01-02 03:04:05,678", host: str = "node7") -> str:
    environment = f"job_id=7, hostname={host}, local_rank=0(1), node=0(1), global_rank=0(1)"
    return f"submitit INFO ({when}) - Starting with JobEnvironment({environment})\n"


def tasks_of(job: submitit.Job[Any]) -> list[int]:
    """The processes of a local job's tasks."""
    children = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text()
    return [int(child) for child in children.split()]


def interrupt(job: submitit.Job[Any]) -> None:
    """What comes before the end of the time: of a minute submitit thinks that it is always over."""
    for task in tasks_of(job):
        os.kill(task, signal.SIGUSR2)


# --- real jobs --------------------------------------------------------------------------------


def test_jobs_that_ended_well_or_badly_are_on_record_with_result_log_and_times(
    executor: Callable[..., Any], tasks: Any, logs: Path
) -> None:
    before = time.time()
    good = executor().submit(tasks.train, 4, lr=0.5)
    bad = executor().submit(tasks.fail, "no such data")
    assert good.result()["loss"] == 0.125
    assert bad.exception() is not None
    bad._process.wait()

    assert import_folder(logs) == Imported(2, 0, 0, ())
    record = on_record("train")
    assert (record.state, record.reason, record.final) == ("COMPLETED", "", True)
    assert record.what["entry"] == {"kind": "function", "target": "tasks_of_tests.train"}
    assert record.params == {"arg0": 4, "lr": 0.5}
    assert record.described == {"result": {"loss": 0.125, "name": "conv"}}
    assert record.metrics["result.loss"].last == 0.125
    assert before - 1 < record.created <= record.started <= record.ended < time.time() + 1
    figures = {figure.name: (figure.value, figure.source) for figure in record.figures}
    assert figures["command"][1] == "submitit log" and 0 <= figures["command"][0] < 60
    assert figures["queue"][1] == "submitit files, log"
    log = record.generated[f"{good.job_id}_0_log.out"]
    path = logs / f"{good.job_id}_0_log.out"
    assert (log.bytes, record.workspace) == (path.stat().st_size, str(logs))
    assert f"{good.job_id}_0_result.pkl" in record.generated
    assert record.attempts[0].host["host"] == os.uname().nodename
    assert record.place["job"] == good.job_id

    failed = on_record("fail")
    assert (failed.state, failed.reason) == ("FAILED", "ValueError: no such data")
    assert failed.metrics == failed.described == {}

    assert import_folder(logs) == Imported(0, 2, 0, ())
    assert len(records.find(site="submitit")) == 2


def test_a_function_of_a_script_has_its_parameters_names(
    executor: Callable[..., Any], logs: Path
) -> None:
    def score(width: int, depth: int) -> int:
        return width * depth

    score.__module__ = "__main__"  # so that it goes by value, as from a notebook
    jobs = executor().map_array(score, [1, 2, 3, 4, 5], [10] * 5)
    assert [job.result() for job in jobs] == [10, 20, 30, 40, 50]
    import_folder(logs)
    found = records.find(params={"depth": 10})
    assert {record.params["width"]: record.metrics["result"].last for record in found} == {
        n: 10 * n for n in range(1, 6)
    }
    table = hpcml.compare([record.id for record in found], by="width")
    assert len(table.rows) == 5
    unknown = next(mark for mark in table.marks if mark.startswith("not known of any run"))
    assert "code" in unknown and "Python" in unknown and "data" in unknown


def test_a_job_of_several_tasks_is_one_run_with_a_result_by_rank(
    executor: Callable[..., Any], tasks: Any, logs: Path
) -> None:
    job = executor(tasks_per_node=3).submit(tasks.rank)
    assert job.results() == [0, 1, 2]
    assert import_folder(logs) == Imported(1, 0, 0, ())
    assert on_record("rank").described == {"result.0": 0, "result.1": 1, "result.2": 2}


def test_a_running_job_is_passed_over_and_recorded_once_it_has_ended(
    executor: Callable[..., Any], tasks: Any, logs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = executor("%j").submit(tasks.wait, str(gate))
    eventually(lambda: "Loading pickle" in (job.stdout() or ""))
    assert import_folder(logs) == Imported(0, 0, 1, ())
    gate.touch()
    job.result()
    job._process.wait()
    assert import_folder(logs) == Imported(1, 0, 0, ())
    assert on_record("wait").described == {"result": "done"}


def test_a_killed_job_has_no_state_that_nobody_saw(
    executor: Callable[..., Any], tasks: Any, logs: Path, tmp_path: Path
) -> None:
    job = executor().submit(tasks.wait, str(tmp_path / "gate"))
    eventually(lambda: "Loading pickle" in (job.stdout() or ""))
    children = tasks_of(job)
    os.kill(int(job.job_id), signal.SIGKILL)
    job._process.wait()
    assert import_folder(logs).unfinished == 1  # its task lives on
    for child in children:
        os.kill(child, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))
    assert import_folder(logs) == Imported(1, 0, 0, ())
    record = on_record("wait")
    assert (record.state, record.final) == ("UNKNOWN", False)
    assert record.reason == "it left no result, and no process of it is left"
    assert import_folder(logs).new == 1  # looked at again: it may be known one day
    assert len(records.find()) == 1


def test_a_checkpointed_job_has_an_attempt_for_each_start(
    executor: Callable[..., Any], tasks: Any, logs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = executor().submit(tasks.Counter(str(gate)))
    eventually(gate.exists)
    interrupt(job)
    assert job.result() == 1
    import_folder(logs)
    record = on_record("Counter")
    assert (record.state, record.described) == ("COMPLETED", {"result": 1})
    assert [attempt.requeued for attempt in record.attempts] == [True, False]
    assert len([figure for figure in record.figures if figure.name == "command"]) == 2
    assert not any(figure.name == "queue" for figure in record.figures)  # that file is newer
    assert record.created <= record.started


def test_a_job_that_submitit_ended_for_its_time_is_a_timeout(
    executor: Callable[..., Any], tasks: Any, logs: Path, tmp_path: Path
) -> None:
    job = executor().submit(tasks.wait, str(tmp_path / "gate"))
    eventually((tmp_path / "gate.waits").exists)
    interrupt(job)
    assert job.exception() is not None
    job._process.wait()
    import_folder(logs)
    record = on_record("wait")
    assert record.state == "TIMEOUT"
    assert record.reason == "Job not requeued because: timed-out and not checkpointable."


def test_a_folder_that_grows_gives_the_new_jobs_alone(
    executor: Callable[..., Any], tasks: Any, logs: Path
) -> None:
    for count in (1, 2):
        job = executor("%j").submit(tasks.train, count)
        job.result()
        assert import_folder(logs) == Imported(1, count - 1, 0, ())
    assert import_folder(logs / job.job_id) == Imported(0, 1, 0, ())  # however it is named


# --- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("*** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:05:00 DUE TO TIME LIMIT ***", "TIMEOUT"),
        ("*** STEP 7.0 ON n1 CANCELLED AT 2026-01-02T03:05:00 ***", "CANCELLED"),
    ],
)
def test_of_a_job_without_a_result_slurm_may_have_said_how_it_ended(
    logs: Path, word: str, state: str
) -> None:
    (logs / "7_submission.sh").write_text("#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --gres=gpu:4\n")
    left(logs, "7", log__out=started(), log__err=f"slurmstepd: error: {word}\n")
    assert import_folder(logs) == Imported(1, 0, 0, ())
    (record,) = records.find()
    assert record.state == state and "as its log says" in record.reason
    assert record.what["placement"] == {"nodes": 2, "tasks": 1, "cpus": 1, "devices": 4}


def test_a_job_that_slurm_has_started_again_is_not_over(logs: Path) -> None:
    word = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:05:00 ***\n"
    log = started() + started("2026-01-02 03:06:00,000")
    left(logs, "7", log__out=log, log__err=word)
    assert import_folder(logs) == Imported(0, 0, 1, ())


def test_jobs_without_a_word_of_their_end_are_unfinished(logs: Path) -> None:
    left(logs, "1")  # waits
    left(logs, "2", log__out=started())  # somewhere else
    assert import_folder(logs) == Imported(0, 0, 2, ())


def test_of_an_imported_run_it_is_said_where_its_logs_are(logs: Path) -> None:
    left(logs, "7", ("success", 1), log__out=started())
    import_folder(logs)
    (record,) = records.find()
    for id in (record.id, record.batch):
        with pytest.raises(RunNotFoundError, match="imported from submitit") as caught:
            hpcml.attach(id)
        assert str(logs) in caught.value.advice


def test_jobs_of_an_array_are_a_batch(logs: Path) -> None:
    for index in range(3):
        left(logs, f"55_{index}", ("success", index))
    (logs / "55_submission.sh").write_text("#SBATCH --cpus-per-task=8\n")
    import_folder(logs, "levante")
    batches = {record.batch for record in records.find(site="levante")}
    assert len(batches) == 1
    table = hpcml.compare(batches.pop())
    assert sum(row.n for row in table.rows) == 3
    assert table.rows[0].aspects["cpus"] == ("8",)


def test_what_returned_cannot_be_shown_is_told_by_its_type(logs: Path) -> None:
    left(logs, "1", ("success", {1, 2}))
    left(logs, "2", ("success", [0] * 200_000))
    import_folder(logs)
    told = [record.described for record in records.find()]
    assert told == [{"result.type": "set"}, {"result.type": "large object"}]
    assert {record.state for record in records.find()} == {"COMPLETED"}


def test_a_result_that_would_run_code_runs_none(logs: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    left(logs, "1", ("success", Hostile(made)))
    left(logs, "2", ("error", Hostile(made)))
    left(logs, "3", Hostile(made))
    (logs / "4_submitted.pkl").write_bytes(pickle.dumps(Hostile(made)))
    (logs / "4_0_result.pkl").write_bytes(pickle.dumps(("success", 1)))
    for path in logs.iterdir():
        path.chmod(0o600)
    import_folder(logs)
    assert not made.exists()
    states = {record.place["job"]: record.state for record in records.find()}
    assert states == {"1": "COMPLETED", "2": "FAILED", "3": "UNKNOWN", "4": "COMPLETED"}


@pytest.mark.parametrize("name", ["submitted.pkl", "0_result.pkl"])
def test_torn_pickles_leave_the_rest_of_the_job_on_record(logs: Path, name: str) -> None:
    left(logs, "1", ("success", {"loss": 1.0}), log__out=started())
    path = logs / f"1_{name}"
    path.write_bytes(path.read_bytes()[:-5])
    import_folder(logs)
    (record,) = records.find()
    if name == "submitted.pkl":
        assert (record.state, record.name, record.params) == ("COMPLETED", "submitit", {})
    else:
        assert record.state == "UNKNOWN"
        assert record.reason == "the result of task 0 cannot be read"


@pytest.mark.parametrize("name", ["1_submitted.pkl", "1_0_result.pkl", "1_0_log.out"])
@pytest.mark.parametrize("how", ["owner", "mode", "link", "pipe"])
def test_files_that_somebody_else_could_have_written_are_passed_over(
    logs: Path, tmp_path: Path, name: str, how: str
) -> None:
    left(logs, "1", ("success", 1), log__out=started())
    left(logs, "2", ("success", 2), log__out=started())
    path = logs / name
    if how == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(path, 65534, -1)
    elif how == "mode":
        path.chmod(0o620)
    else:
        path.rename(tmp_path / "elsewhere")
        os.mkfifo(path) if how == "pipe" else path.symlink_to(tmp_path / "elsewhere")
    imported = import_folder(logs)
    (why,) = imported.refused
    assert imported.new == 1 and str(path) in why
    assert [record.place["job"] for record in records.find()] == ["2"]


def test_a_folder_that_others_may_write_to_is_refused(logs: Path) -> None:
    (logs / "inner").mkdir(mode=0o700)
    left(logs / "inner", "1", ("success", 1))
    (logs / "inner").chmod(0o777)
    assert import_folder(logs).refused == (f"{logs / 'inner'}: others may write to it",)
    logs.chmod(0o770)
    assert import_folder(logs).refused == (f"{logs}: others may write to it",)
    assert records.find() == []


def test_a_job_id_that_is_used_again_elsewhere_is_another_run(logs: Path, tmp_path: Path) -> None:
    left(logs, "1", ("success", 1), log__out=started(host="a"))
    import_folder(logs)
    shutil.copytree(logs, tmp_path / "other")
    assert import_folder(tmp_path / "other").new == 1
    left(logs, "1", ("success", 2), log__out=started(host="b"))
    assert import_folder(logs).new == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is no folder"):
        import_folder(tmp_path / "nothing")


def test_hostile_names_and_texts_are_recorded_as_they_are_and_shown_escaped(
    tmp_path: Path,
) -> None:
    odd = "\x1b[31m\u202e\n"
    logs = tmp_path / f"logs{odd}"
    logs.mkdir(mode=0o700)
    text = f'Traceback:\n  File "x", line 1\nValueError: {odd}'
    left(logs, "1", ("error", text), log__out=started(host=f"h{odd[:4]}"))
    left(logs, "2", ("success", {odd: 1.0}))
    (logs / "2_0_result.pkl").chmod(0o606)
    (tmp_path / os.fsdecode(b"bytes\xff")).mkdir(mode=0o700)
    left(tmp_path / os.fsdecode(b"bytes\xff"), "3", ("success", {odd: 1.0}))
    done = subprocess.run(
        [sys.executable, "-c", "from hpcml.cli import main; main()", "import", "submitit", logs],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1 recorded, 0 known, 0 unfinished\n"
    assert "\x1b" not in done.stderr and "\\x1b[31m" in done.stderr
    assert import_folder(tmp_path / os.fsdecode(b"bytes\xff")).new == 1
    first, second = sorted(records.find(), key=lambda record: record.place["job"])
    assert first.reason == "ValueError: \x1b[31m\u202e" and first.workspace == str(logs)
    assert second.metrics[f"result.{odd}"].last == 1.0


def test_the_command_prints_what_was_imported_as_json(logs: Path) -> None:
    left(logs, "1", ("success", 1))
    command = [sys.executable, "-c", "from hpcml.cli import main; main()", "import", "submitit"]
    done = subprocess.run([*command, "--json", logs], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"new": 1, "known": 0, "unfinished": 0, "refused": []}


def test_known_jobs_are_not_read_again(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a thousand jobs are a thousand times one job, not a million."""
    for job in range(1000):
        left(logs, str(job), ("success", job), log__out=started())
    assert import_folder(logs).new == 1000
    opened: list[Path] = []
    open_private = submitit_jobs.open_private
    monkeypatch.setattr(
        submitit_jobs, "open_private", lambda path: opened.append(path) or open_private(path)
    )
    assert import_folder(logs).known == 1000
    assert len(opened) == 1000 and {path.suffix for path in opened} == {".out"}  # where it ran
    opened.clear()
    left(logs, "2000", ("success", 1), log__out=started())
    assert import_folder(logs).new == 1
    assert len(opened) == 1000 + 4
