"""The command line in pipes, on terminals, and with names that want to steer them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hpcml
from hpcml.cli import COMMANDS
from tests.cli.calling import HPCML, call, on_a_terminal

EVIL = "bad\x1b]0;owned\x07\x1b[31m\tname\nline"
HEAVY = ("sqlalchemy", "alembic", "rich", "textual", "matplotlib", "pandas", "mlflow", "asyncio")
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-7])m")


@pytest.mark.parametrize("line", ["--help", "runs", "runs --json", "status --help"])
def test_what_only_lists_loads_no_heavy_package(line: str) -> None:
    hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    code = (
        "import sys; from hpcml.cli import main\n"
        "try: main()\n"
        f"finally: print('loaded', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == "loaded []\n"


def test_help_and_completion_load_neither_pydantic_nor_yaml() -> None:
    code = (
        "import sys; from hpcml.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'pydantic', 'yaml'} & set(sys.modules)), file=sys.stderr)"
    )
    helps = [[*name.split(), "--help"] for name in ("", *COMMANDS, "import submitit", "sites show")]
    for args in (*helps, ["completion", "fish"]):
        argv = [sys.executable, "-c", code, *args]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "[]\n"), args


def test_control_characters_of_names_reach_no_terminal_and_break_no_column() -> None:
    job = hpcml.Job(["sh", "-c", "exit 3"], name=None, code=None, params={"p": EVIL})
    try:
        named = hpcml.Job(["sh", "-c", "exit 3"], name=EVIL, code=None)
        hpcml.submit(named).wait(30)
    except hpcml.HpcmlError:
        pass  # a name may be refused: then it cannot do harm
    swept = hpcml.submit(job.sweep(p=[EVIL, "good"])).wait(30)
    count = len(hpcml.runs())

    piped = call("runs").stdout
    assert "\x1b" not in piped and "\x07" not in piped
    assert [line.count("\t") for line in piped.splitlines()] == [4] * count

    for args in (["runs"], ["wait", swept[0].id], ["compare", swept[0].id, swept[1].id]):
        shown = on_a_terminal(*args)
        assert "\x07" not in shown and "\x1b]" not in shown and "\x1b[31m" not in shown, args


def test_json_is_ascii_whatever_a_job_says_and_the_locale_is() -> None:
    """U+009B begins a control sequence, too; a locale without U+1F600 must not break JSON."""
    said = "\x9b31m\x7f\u202e\u00e9\U0001f600"
    run = hpcml.submit(hpcml.Job(["printf", said], code=None)).wait(30)
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    logs = call("logs", run.id, "--json", env=poor).stdout
    plan = call("plan", "--json", f"--param=said={said}", "true").stdout
    for written in (logs, plan):
        assert written.isascii() and "\x7f" not in written
    assert json.loads(logs)["stdout"] == json.loads(plan)["what"]["params"]["said"] == said


@pytest.mark.usefixtures("small_packages")
def test_a_terminal_that_is_dumb_gets_text_alone() -> None:
    shown = on_a_terminal("submit", "--code", "none", "--wait", "--", "true", env={"TERM": "dumb"})
    assert "\x1b" not in shown and "COMPLETED" in shown
    for args in (["runs"], ["sites"], ["doctor"]):
        shown = on_a_terminal(*args, env={"TERM": "dumb"})
        assert "\x1b" not in shown and "local" in shown


@pytest.mark.usefixtures("small_packages")
def test_no_color_is_respected() -> None:
    run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    assert COLOUR.search(on_a_terminal("doctor"))
    for args in (["doctor"], ["runs"], ["compare", run.id]):
        assert not COLOUR.search(on_a_terminal(*args, env={"NO_COLOR": "1"})), args


def test_in_a_pipe_there_is_a_line_a_run_without_header_or_colours() -> None:
    run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    forced = call("runs", env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert forced.stdout == f"{run.id}\ttrue\tlocal\tCOMPLETED\t\n"
    assert forced.stderr == ""


@pytest.mark.usefixtures("small_packages")
@pytest.mark.parametrize("command", ["runs", "runs --json", "sites show local", "doctor"])
def test_a_reader_that_has_seen_enough_is_no_error(command: str) -> None:
    hpcml.submit(hpcml.Job(["true"], code=None).sweep(n=list(range(20)))).wait(60)
    line = f"{shlex.join([*HPCML, *command.split()])} | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_a_reader_that_never_reads_is_no_error(project: Path) -> None:
    run = hpcml.submit(hpcml.Job(["echo", "little"], code=None)).wait(30)
    for command in (["logs", run.id], ["status", run.id]):
        read, write = os.pipe()
        os.close(read)
        with subprocess.Popen([*HPCML, *command], stdout=write, stderr=subprocess.PIPE) as process:
            os.close(write)
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.returncode == 1


@pytest.mark.parametrize(
    "command",
    [
        "submit --code none -- true",
        "submit --code none --wait --json -- true",
        "runs",
        "runs --json",
    ],
)
def test_a_full_disk_behind_stdout_is_told_and_what_was_submitted_is_named(command: str) -> None:
    hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    with open("/dev/full", "w") as full:
        argv = [*HPCML, *command.split()]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 70 and "Traceback" not in done.stderr
    assert done.stderr.startswith("hpcml: stdout cannot be written: No space left on device\n")
    if command.startswith("submit"):
        assert f"Runs go on: {hpcml.runs()[-1].id}\n" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_are_no_error(closed: str) -> None:
    line = f"{shlex.join([*HPCML, 'submit', '--code', 'none', '--wait', '--', 'true'])} {closed}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [run.state for run in hpcml.runs()] == ["COMPLETED"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_who_waits_in_a_pipe_is_told_once_what_a_run_waits_for(options: list[str]) -> None:
    first = hpcml.submit(hpcml.Job(["sleep", "600"], code=None))
    second = hpcml.submit(hpcml.Job(["true"], code=None), after=first)
    argv = [*HPCML, "wait", *options, second.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as wait:
        assert wait.stderr is not None
        line = wait.stderr.readline()
        assert line == f"hpcml: {second.id} is PENDING: {second.reason}\n"
        first.cancel()
        assert wait.wait(60) == 130
        assert "PENDING" not in wait.stderr.read()
