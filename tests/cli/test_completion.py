"""TAB in real shells offers commands, options, states, sites, files and ids of runs."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hpcml
from hpcml.cli.completing import _workspaces
from hpcml.connection import connect
from tests.cli.calling import call
from tests.cli.conftest import shell_of

pytestmark = pytest.mark.usefixtures("on_path", "project")


def in_bash(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = (
        'eval "$(hpcml completion bash)"\n'
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
        "$(complete -p hpcml | sed 's/.*-F \\([^ ]*\\) .*/\\1/') hpcml\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    argv = [shell_of("bash"), "--norc", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def in_fish(line: str) -> dict[str, str]:
    """What fish offers at the end of a line, with its help."""
    script = f"hpcml completion fish | source; complete -C {shlex.quote(line)}"
    argv = [shell_of("fish"), "--no-config", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    offered = (line.partition("\t") for line in done.stdout.splitlines())
    return {word: help for word, _, help in offered}


class Zsh:
    """zsh on a terminal."""

    def __init__(self) -> None:
        self.leader, follower = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "PS1": "READY> ", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [shell_of("zsh"), "-f", "-i"],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            start_new_session=True,
        )
        os.close(follower)
        self.until("READY> ")
        self.type('autoload -U compinit && compinit -u -D; eval "$(hpcml completion zsh)"; ')
        self.type("print DO''NE\n")
        self.until("DONE")

    def type(self, keys: str) -> None:
        os.write(self.leader, keys.encode())

    def until(self, wanted: str) -> str:
        """What is shown, up to and with a text."""
        shown, deadline = "", time.monotonic() + 30
        while wanted not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([self.leader], [], [], 1)[0]:
                shown += os.read(self.leader, 4096).decode()
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.leader)


def submitted(name: str, code: int = 0) -> str:
    """The id of a submission that has ended."""
    job = hpcml.Job(["sh", "-c", f"exit {code}"], name=name, code=None)
    return hpcml.submit(job).wait(30).id.partition(".")[0]


def test_bash_completes_commands_options_and_what_they_take(project: Path) -> None:
    first, second = submitted("first"), submitted("second", code=1)
    assert in_bash("hpcml", "res") == ["resume", "resubmit"]
    assert "--state" in in_bash("hpcml", "runs", "--st")
    assert in_bash("hpcml", "status", "") == [second, first] or first[:15] == second[:15]
    assert in_bash("hpcml", "status", first[:-1]) == [first]
    assert in_bash("hpcml", "status", f"{first}.") == [f"{first}.00000"]
    assert in_bash("hpcml", "runs", "--state", "comp") == ["COMPLETED"]
    assert in_bash("hpcml", "submit", "--site", "loc") == ["local"]
    assert in_bash("hpcml", "sweep", "--pack", "n") == ["never"]
    assert in_bash("hpcml", "sites", "show", "lo") == ["local"]
    assert in_bash("hpcml", "sites", "explain", "kill") == ["kill_wait"]
    assert in_bash("hpcml", "status", "nix") == []


def test_fish_shows_what_a_submission_is(project: Path) -> None:
    well, failed = submitted("well"), submitted("failed", code=1)
    job = hpcml.Job(["sh", "-c", "exit 0"], name="many", code=None)
    many = hpcml.submit(job.sweep(n=[1, 2, 3])).wait(30)[0].id.partition(".")[0]
    assert in_fish("hpcml status ") == {
        well: "well: COMPLETED",
        failed: "failed: FAILED",
        many: "many: 3 of 3 runs ended",
    }
    assert in_fish("hpcml sta") == {"status": "Show the state of runs."}
    assert list(in_fish(f"hpcml logs {many}.")) == [f"{many}.{n:05d}" for n in range(3)]


def test_zsh_completes_when_tab_is_pressed(project: Path) -> None:
    batch = submitted("only")
    zsh = Zsh()
    try:
        zsh.type("hpcml compl\t")
        zsh.until("hpcml completion")
        zsh.type("\x15hpcml status \t")
        zsh.until(f"hpcml status {batch}")
        zsh.type("\x15hpcml re\t\t")
        shown = zsh.until("Go on with a submission")
        assert "resubmit" in shown
    finally:
        zsh.close()


def test_a_run_that_goes_on_or_waits_is_not_called_by_a_state(project: Path) -> None:
    run = hpcml.submit(hpcml.Job(["sleep", "60"], name="long", code=None))
    batch = run.id.partition(".")[0]
    assert in_fish("hpcml cancel ")[batch] in ("long: has not started", "long: has started")
    run.cancel().wait(30)
    assert in_fish("hpcml cancel ")[batch] == "long: CANCELLED"


def test_a_submission_that_never_reached_the_site_is_offered(project: Path, home: Path) -> None:
    outbox = home / "state" / "hpcml" / "outbox"
    outbox.mkdir(parents=True, mode=0o700)
    (outbox / "20261121-141502-k3f9a2.jsonl").write_text("torn")
    assert in_bash("hpcml", "resume", "") == ["20261121-141502-k3f9a2"]


def test_names_that_want_to_steer_the_terminal_are_escaped(project: Path, workspace: Path) -> None:
    batch = submitted("fine")
    plan = workspace / "runs" / batch / "plan.json"
    plan.write_text(plan.read_text().replace('"name":"fine"', '"name":"\\u001b[31m"'))
    assert in_fish("hpcml status ")[batch] == r"\x1b[31m: COMPLETED"


def test_runs_of_a_workspace_that_the_settings_name_are_offered(
    project: Path, home: Path, tmp_path: Path
) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"sites:\n  local:\n    workspace: {tmp_path / 'elsewhere'}\n")
    batch = submitted("there")
    assert in_bash("hpcml", "status", "") == [batch]
    settings.write_text("sites:\n  local:\n    workspce: /x\n")
    assert in_bash("hpcml", "status", "") == []


def test_without_settings_the_workspace_is_the_embedded_sites() -> None:
    """It is not asked of the profile, which takes longer to load than all the rest."""
    import click

    context = click.Context(click.Command("status"))
    assert _workspaces(context) == [connect("local").binding.workspace]


def test_a_tab_loads_little(project: Path) -> None:
    submitted("one")
    code = (
        "import sys; from hpcml.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'pydantic', 'yaml', 'hpcml.run'} & set(sys.modules)))"
    )
    for words in ("hpcml ", "hpcml status ", "hpcml runs --state "):
        environment = {
            **os.environ,
            "_HPCML_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split())),
        }
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        offered, loaded = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
        assert offered and loaded == "[]", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_alone(shell: str) -> None:
    done = call("completion", shell)
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(r"_HPCML_COMPLETE=" + shell, done.stdout)
