"""The command line, as a person or a script calls it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.cli import COMMANDS, remembering, stages
from hpcml.cli.doctor.node import look_at_a_node
from hpcml.cli.submitting import WAYS
from hpcml.comparison.plotting import RESOURCES
from hpcml.comparison.table import PLOTS
from hpcml.errors import TransportError
from hpcml.planning import PACK
from hpcml.sites import load_site
from tests.cli.calling import HPCML, call, on_a_terminal
from tests.conftest import eventually
from tests.embedded.scene import Scene


def test_help_names_every_command() -> None:
    done = call("--help")
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
        assert call(command, "--help").returncode == 0


def test_an_unknown_command_is_answered_with_the_nearest_one() -> None:
    done = call("sumbit")
    assert done.returncode == 2
    assert "did you mean 'submit'?" in done.stderr


def test_submit_prints_the_id_alone_and_the_others_find_the_run(
    script: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("import sys; print('out'); print('err', file=sys.stderr)")
    submitted = call("submit", "train.py", "--name", "first")
    run_id = submitted.stdout.strip()
    assert submitted.returncode == 0 and submitted.stdout.count("\n") == 1

    monkeypatch.chdir(tmp_path)  # another folder
    assert call("wait", run_id).returncode == 0
    logs = call("logs", run_id)
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert call("status", run_id).stdout == f"{run_id}\tfirst\tlocal\tCOMPLETED\t\n"
    assert call("runs").stdout.startswith(f"{run_id}\tfirst\t")
    assert call("runs", "--state", "failed").stdout == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-program-anywhere"], 127),
    ],
)
def test_submit_wait_exits_as_the_job_did(command: list[str], code: int) -> None:
    assert call("submit", "--code", "none", "--wait", "--", *command).returncode == code


def test_wait_exits_as_documented_where_the_job_has_no_exit_code() -> None:
    too_long = call("submit", "--code", "none", "--time", "1s", "--wait", "--", "sleep", "60")
    assert too_long.returncode == 124
    missing = call("submit", "--code", "none", "-o", "model.pt", "--wait", "--", "true")
    assert missing.returncode == 125

    run_id = call("submit", "--code", "none", "--", "sleep", "60").stdout.strip()
    assert call("wait", run_id, "--timeout", "0.2").returncode == 75
    assert call("cancel", run_id).returncode == 0
    assert call("wait", run_id).returncode == 130


def test_everything_a_job_can_be_given_arrives(script: Callable[..., str], project: Path) -> None:
    script(
        "import hpcml, json, os, sys\n"
        "p = hpcml.params(width=1, lr=1.0, tag='')\n"
        "json.dump([sys.argv[1:], p, hpcml.input_path('t'), os.environ['KEY']],\n"
        "          open('got.json', 'w'))"
    )
    (project / "in.txt").write_text("1")
    done = call(
        *("submit", "--wait", "-p", "width=64", "-p", "tag=a b", "-i", "t=in.txt"),
        *(
            "-o",
            "got.json",
            "-e",
            "KEY=x=y",
            "--memory",
            "1 GiB",
            "--cpus",
            "1",
            "--tag",
            "who=me",
            "train.py",
        ),
    )
    assert done.returncode == 0, done.stderr
    (run,) = hpcml.runs(tags={"who": "me"})
    got = json.loads(run.output("got.json").read_text())
    assert got == [
        ["--tag=a b", "--width=64"],
        {"width": 64, "lr": 1.0, "tag": "a b"},
        str(project / "in.txt"),
        "x=y",
    ]


def test_arguments_behind_a_script_replace_its_parameters(script: Callable[..., str]) -> None:
    script("import sys; print(sys.argv[1:])")
    done = call("submit", "--wait", "-p", "a=1", "train.py", "--", "--fast", "{params.a}")
    assert done.stdout.splitlines()[-1] == "['--fast', '1']"


def test_a_module_is_run_as_python_runs_it(script: Callable[..., str]) -> None:
    script("print(__name__, __package__)", "pkg/mod.py")
    for args in (["-m", "pkg.mod"], ["--", "-m", "pkg.mod"]):
        assert call("submit", "--wait", *args).stdout.splitlines()[-1] == "__main__ pkg"


def test_a_refusal_is_one_message_and_exit_code_70(script: Callable[..., str]) -> None:
    script("import hpcml; hpcml.params(width=1)")
    for args, words in (
        (["submit", "train.py", "-p", "widht=5"], "did you mean 'width'?"),
        (["plan", "train.py", "--time", "10 parsecs"], "unknown unit"),
        (["status", "20200101-000000-aaaaaa.00000"], "there is no run"),
        (["submit", "--site", "lokal", "train.py"], "did you mean 'local'?"),
    ):
        done = call(*args)
        assert done.returncode == 70
        assert words in done.stderr and "Traceback" not in done.stderr
        assert done.stdout == ""


def test_on_a_terminal_progress_is_live_and_a_pipe_has_none() -> None:
    command = ["submit", "--code", "none", "--wait", "--", "true"]
    piped = call(*command)
    assert piped.stderr == ""

    shown = on_a_terminal(*command, columns=80)
    (run_id,) = {run.id for run in hpcml.runs()} - {piped.stdout.strip()}
    assert run_id in shown and "COMPLETED" in shown and "\x1b[" in shown


def test_in_a_pipe_what_did_not_complete_is_told_at_the_end() -> None:
    done = call("submit", "--code", "none", "-o", "model.pt", "--wait", "--", "true")
    assert done.stderr.startswith(f"hpcml: {done.stdout.strip()} is FAILED: it ended well but")
    assert "'model.pt'" in done.stderr and done.stderr.count("\n") == 1

    done = call("sweep", "-a", "code=0,3,4", "--wait", *ENDING)
    assert "is FAILED: exit code 3 (one of 2 of 3 runs)" in done.stderr


def test_on_a_narrow_terminal_ids_are_whole_and_the_rest_wraps(project: Path) -> None:
    job = hpcml.Job(["/bin/sh", "-c", "exit 3"], name="a_name_of_a_job_" * 3, code=None)
    run = hpcml.submit(job).wait(30)
    for columns in (80, 40):
        shown = on_a_terminal("runs", columns=columns)
        assert run.id in shown and "FAILED" in shown and "…" not in shown


def test_on_a_terminal_too_narrow_for_a_table_there_is_a_block_a_run() -> None:
    run = hpcml.submit(hpcml.Job(["/bin/sh", "-c", "exit 3"], name="train", code=None)).wait(30)
    lines = on_a_terminal("runs", columns=40).splitlines()
    assert [line.split() for line in lines] == [
        [run.id],
        ["name", "train"],
        ["site", "local"],
        ["state", "FAILED"],
        ["reason", "exit", "code", "3"],
    ]
    assert max(map(len, on_a_terminal("sites", columns=40).splitlines())) <= 40


def test_where_there_is_no_run_that_is_said_on_stderr_and_nothing_made(home: Path) -> None:
    done = call("runs")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no runs\n")
    assert call("runs", "--json").stdout == "[]\n"
    assert not (home / "data").exists()


def test_a_run_that_was_pruned_is_said_to_be_on_record_and_no_other_is_offered(
    project: Path, home: Path
) -> None:
    gone, other = (hpcml.submit(hpcml.Job(["true"], code=None)).wait(30) for _ in range(2))
    batch = gone.id.partition(".")[0]
    folder = home / "data" / "hpcml" / "local" / "runs" / batch
    hpcml.sync()
    shutil.rmtree(folder)
    commands = ("status", "wait", "logs", "resubmit", "fetch")
    for command in commands:
        done = call(command, gone.id)
        assert done.returncode == 70 and other.id not in done.stderr
        assert f"the files of {gone.id} are not on local any more" in done.stderr, command
        assert f"`hpcml compare {gone.id}`" in done.stderr
    assert "It is on record" in call("status", batch).stderr
    after = call("submit", "--after", gone.id, "--code", "none", "--", "true")
    assert after.returncode == 70 and "It is on record" in after.stderr
    assert list(project.iterdir()) == []

    index = home / "state" / "hpcml" / "index.db"
    index.unlink()
    assert f"there is no run {gone.id}" in call("status", gone.id).stderr
    assert not index.exists(), "nothing is recorded by asking"


def test_a_failed_fetch_leaves_no_folder(project: Path) -> None:
    run = hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    shutil.rmtree(Path(run.plan.where["workspace"]) / "runs")
    with pytest.raises(hpcml.HpcmlError):
        run.fetch("zz")
    assert list(project.iterdir()) == []


def test_a_home_that_is_no_path_from_the_root_is_refused_and_nothing_made(
    project: Path,
) -> None:
    variables = {f"XDG_{name}_HOME": "" for name in ("CONFIG", "STATE", "CACHE", "DATA")}
    done = call("runs", env={"HOME": "rel", **variables})
    assert done.returncode == 70 and "HOME is 'rel'" in done.stderr
    assert list(project.iterdir()) == []


def test_follow_prints_what_comes_until_the_end() -> None:
    run_id = call(
        *("submit", "--code", "none", "--", "sh", "-c", "echo one; sleep 0.5; echo two; echo e >&2")
    ).stdout.strip()
    followed = call("logs", "-f", run_id)
    assert (followed.stdout, followed.stderr) == ("one\ntwo\n", "e\n")


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    run = hpcml.submit(hpcml.Job(["seq", "200000"], code=None)).wait(30)
    logs = [sys.executable, "-c", "from hpcml.cli import main; main()", "logs", run.id]
    done = subprocess.run(
        f"{shlex.join(logs)} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n" and "Traceback" not in done.stderr


def test_ctrl_c_while_waiting_leaves_the_run_and_says_so() -> None:
    argv = ["submit", "--code", "none", "--wait", "--", "sleep", "60"]
    with subprocess.Popen(
        [sys.executable, "-c", "from hpcml.cli import main; main()", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        eventually(lambda: [run.state for run in hpcml.runs()] == ["RUNNING"])
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 75
    (run,) = hpcml.runs()
    # It may have been in the queue before its submission came to its end.
    assert run.id.partition(".")[0] in rest and "Traceback" not in rest
    assert run.state == "RUNNING"
    assert run.cancel().wait(20).state == "CANCELLED"


def test_ctrl_c_takes_the_job_of_a_doctor_back() -> None:
    """Nobody would ever see what it finds."""
    whole = load_site("local").partitions["local"].node.cpus
    fills = hpcml.Job(["sleep", "60"], code=None, resources=hpcml.Resources(cpus=whole))
    before = hpcml.submit(fills)
    argv, pipe = [*HPCML, "sites", "doctor", "local", "--job"], subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True) as process:
        eventually(lambda: len(hpcml.runs()) == 2)
        (run,) = {*hpcml.runs()} - {before}
        eventually(lambda: run.state == "PENDING")
        # It may be in the queue before its submission has come to its end.
        assert process.stderr is not None
        assert any("is in the queue; this waits for it" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 75 and f"interrupted. {run.id} is cancelled." in rest
    assert run.state == "CANCELLED"
    before.cancel()


def test_a_job_of_a_doctor_that_cannot_be_taken_back_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(run: hpcml.Run) -> hpcml.Run:
        raise TransportError("the connection was lost", "Try again.")

    def pressed(run: hpcml.Run) -> hpcml.Run:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hpcml.Run, "cancel", away)
        patch.setattr(hpcml.Run, "wait", pressed)
        list(look_at_a_node(load_site("local"), None))
    (run,) = hpcml.runs()
    assert stages.advice == (
        f"{run.id} may go on: the connection was lost. `hpcml cancel {run.id}` tries again."
    )
    run.wait(30)


PRESSED = """
import {module} as module
from hpcml.cli import main
done = module.{name}
def pressed(*args, **kwargs):
    done(*args, **kwargs)
    raise KeyboardInterrupt
module.{name} = pressed
main()
"""


def pressed(where: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Call ``hpcml``, and press Ctrl-C when a function returns."""
    module, _, name = where.partition(":")
    return subprocess.run(
        [sys.executable, "-c", PRESSED.format(module=module, name=name), *args],
        capture_output=True,
        text=True,
        check=False,
    )


def test_ctrl_c_says_how_far_a_submission_came(
    project: Path, workspace: Path, tmp_path: Path
) -> None:
    scene = Scene(tmp_path / "scene", workspace)
    submit = ["submit", "--code", "none", "--", "true"]
    done = pressed("hpcml.submission:resolve_with_code", *submit)
    assert done.returncode == 75 and not hpcml.runs()
    assert done.stderr == "\nhpcml: interrupted. Nothing was submitted.\n"

    done = pressed("hpcml.submission:carry_on", *submit)
    (run,) = hpcml.runs()
    batch = run.id.partition(".")[0]
    assert done.stderr == (
        f"\nhpcml: interrupted. `hpcml status {batch}` says how far its submission came.\n"
    )
    assert run.wait(30).state == "COMPLETED"

    done = pressed("hpcml.submission:prepare", *submit)
    assert done.returncode == 75 and [*hpcml.runs()] == [run]
    assert done.stderr == "\nhpcml: interrupted. Nothing was submitted.\n"

    done = pressed("hpcml.submission:publish", *submit)
    (run,) = {*hpcml.runs()} - {run}
    batch = run.id.partition(".")[0]
    assert done.returncode == 75 and f"`hpcml resume {batch}` goes on" in done.stderr
    scene.asked_long_ago(run)
    assert call("resume", batch, "--wait").returncode == 0


def test_ctrl_c_while_something_is_brought_leaves_it_to_be_resumed(project: Path) -> None:
    done = pressed("hpcml.submission:prepare", "submit", "--code", "none", "--", "true")
    (run,) = hpcml.runs()
    batch = run.id.partition(".")[0]

    assert done.returncode == 75 and f"`hpcml resume {batch}` goes on" in done.stderr
    assert call("resume", batch, "--wait").returncode == 0


def test_ctrl_c_while_freeing_says_what_was_freed(project: Path) -> None:
    for _ in range(2):
        hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
    command = ["prune", "--older-than", "1s", "--without-records", "--yes"]
    eventually(lambda: call(*command[:3]).stdout.count("runs") == 2)
    done = pressed("hpcml.pruning.candidates:Candidates.find", *command)
    assert done.returncode == 75 and "Nothing was freed." in done.stderr
    done = pressed("hpcml.pruning.freeing:Freeing._remove", *command)
    assert done.returncode == 75 and "freed on local: 1 × runs." in done.stderr


def test_output_that_the_locale_cannot_show_is_escaped(script: Callable[..., str]) -> None:
    run = hpcml.submit(hpcml.Job(["printf", "\u00e9"], code=None)).wait(20)
    done = subprocess.run(
        [sys.executable, "-c", "from hpcml.cli import main; main()", "logs", run.id],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"\\xe9")


def test_a_submissions_id_stands_for_all_its_runs(project: Path) -> None:
    job = hpcml.Job(["/bin/sh", "-c", 'exit "$1"', "sh", "{params.code}"], code=None)
    runs = hpcml.submit(job.sweep(code=[0, 3]))
    batch = runs[0].id.rpartition(".")[0]

    done = call("wait", batch, "--json")

    assert done.returncode == 3
    assert [run["id"] for run in json.loads(done.stdout)] == [run.id for run in runs]
    done = call("logs", batch)
    assert done.returncode == 2 and f"give a run's id: {batch}.00000" in done.stderr
    listed = call("runs", "--batch", batch).stdout.splitlines()
    assert [line.split("\t")[3] for line in listed] == ["COMPLETED", "FAILED"]


ENDING = ["--code", "none", "--name", "end", "--", "/bin/sh", "-c", "exit $0", "{params.code}"]


def test_a_sweep_is_one_submission_of_every_combination(project: Path) -> None:
    done = call("sweep", "-a", "code=0,3", "-a", "seed=[1, 2]", "--wait", *ENDING)

    assert done.returncode == 3
    runs = hpcml.runs(batch=done.stdout.strip())
    params = [(run.params["code"], run.params["seed"]) for run in runs]
    assert params == [(0, 1), (0, 2), (3, 1), (3, 2)]
    assert [run.exit_code for run in runs] == [0, 0, 3, 3]


def test_the_values_of_an_axis_may_be_a_range(project: Path) -> None:
    done = call("sweep", "-a", "code=range(2)", "-a", "n=range(10, 1, -4)", *ENDING)
    params = [(run.params["code"], run.params["n"]) for run in hpcml.runs()]
    assert params == [(0, 10), (0, 6), (0, 2), (1, 10), (1, 6), (1, 2)]
    for axis, words in (("n=", "is empty"), ("n=1,,2", "is empty"), ("n=range(1,2,0)", "zero")):
        done = call("sweep", "-a", axis, *ENDING)
        assert done.returncode == 2 and words in done.stderr


def test_runs_are_found_by_tag_and_by_state_in_any_case(project: Path) -> None:
    call("submit", "--tag", "who=me", "--wait", *ENDING[:2], "--", "true")
    call("submit", "--tag", "who=you", "--wait", *ENDING[:2], "--", "true")
    assert len(call("runs", "--tag", "who=me").stdout.splitlines()) == 1
    assert len(call("runs", "--state", "completed").stdout.splitlines()) == 2
    assert "there is no state 'nix'" in call("runs", "--state", "nix").stderr
    assert "'nix' is no run's id" in call("status", "nix").stderr


SMALL = """\
name: small
scheduler: slurm
transport: local
workspace: /nowhere
max_submitted: 2
partitions:
  cpu: {nodes: 2, time: 1d, node: {device: cpu, cpus: 8, memory: 16 GiB}}
  gpu:
    nodes: 2
    time: 1d
    gres: gpu:a100
    node: {device: gpu, devices: 4, cpus: 8, memory: 16 GiB}
"""


@pytest.fixture
def small(home: Path) -> str:
    """A site with Slurm, for plans."""
    (home / "config" / "hpcml" / "sites").mkdir(parents=True)
    (home / "config" / "hpcml" / "sites" / "small.yaml").write_text(SMALL)
    return "small"


def test_pack_says_whether_runs_share_allocations(small: str) -> None:
    sweep = ["sweep", "--site", small, "--code", "none", "-a", "n=range(9)"]

    done = call(*sweep, "--pack", "never", "--", "true")
    assert done.returncode == 70
    assert 'small takes 2 jobs; pack="auto" shares them out' in done.stderr
    assert call(*sweep, "--pack", "always", "--", "true").returncode == 2
    assert tuple(WAYS) == PACK


def test_nodes_tasks_devices_and_an_image_are_asked_for(small: str, project: Path) -> None:
    (project / "python.sif").write_bytes(b"no image, but a file")
    wish = ["--nodes", "2", "--tasks", "4", "--device", "gpu", "--devices", "4", "--cpus", "1"]
    options = ["--site", small, "--code", "none", "--image", "python.sif", *wish]
    done = call("plan", "--json", *options, "--", "true")

    what = json.loads(done.stdout)["what"]
    asked = {name: what["placement"][name] for name in ("partition", "nodes", "tasks", "devices")}
    assert asked == {"partition": "gpu", "nodes": 2, "tasks": 2, "devices": 2}, "of each node"
    assert what["image"] is not None


def test_points_of_a_sweep_come_from_a_file_of_json_lines(project: Path) -> None:
    points = project / "points.jsonl"
    points.write_text('{"code": 0}\n\n{"code": 4}\n')
    done = call("sweep", "--points", str(points), "--json", "--wait", *ENDING)
    assert [run["exit_code"] for run in json.loads(done.stdout)] == [0, 4]

    points.write_text('{"code": 0}\n{code: 4}\n')
    done = call("sweep", "--points", str(points), *ENDING)
    assert done.returncode == 2 and "points.jsonl, line 2" in done.stderr
    done = call("sweep", *ENDING)
    assert done.returncode == 70 and "it has no points" in done.stderr


def test_what_failed_is_resubmitted(project: Path) -> None:
    batch = call("sweep", "-a", "code=0,3", "--wait", *ENDING).stdout.strip()

    done = call("resubmit", "--failed", "--wait", "--json", batch)

    (again,) = json.loads(done.stdout)
    assert done.returncode == again["exit_code"] == 3
    assert hpcml.attach(again["id"]).resubmits == f"{batch}.00001"
    done = call("resubmit", "--failed", f"{batch}.00000")
    assert (done.returncode, done.stdout) == (0, "") and "none has failed" in done.stderr


def test_runs_are_fetched_into_a_folder_each(project: Path) -> None:
    write = ["--code", "none", "--", "/bin/sh", "-c", "echo $0 > said; echo done", "{params.n}"]
    batch = call("sweep", "-a", "n=1,2", "--wait", *write).stdout.strip()

    done = call("fetch", batch, "--to", "here")

    folders = [Path(line) for line in done.stdout.splitlines()]
    assert [(folder / "said").read_text() for folder in folders] == ["1\n", "2\n"]
    assert (folders[1] / f"{batch}.00001.stdout").read_text() == "done\n"


def test_a_sweep_that_was_broken_off_is_resumed_as_a_whole(
    project: Path, another_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    another_python(
        """
        import os, hpcml, hpcml.submission as submission
        submission.publish = lambda *_, **__: os._exit(9)
        hpcml.submit(hpcml.Job(["/bin/sh", "-c", "exit 0"], code=None).sweep(n=[1, 2]))
        """
    )
    first, second = hpcml.runs()
    assert [first.state, second.state] == ["PREPARING", "PREPARING"]

    done = call("resume", "--wait", "--json", first.id.rpartition(".")[0])

    assert [run["state"] for run in json.loads(done.stdout)] == ["COMPLETED", "COMPLETED"]


def test_the_plots_of_the_command_are_those_of_a_table() -> None:
    assert remembering.PLOTS == PLOTS
    assert remembering.RESOURCES == RESOURCES


def test_options_of_compare_that_do_not_go_together_are_2() -> None:
    for args in (
        ["--json", "--csv"],
        ["--markdown", "--json"],
        ["--metric", "loss"],
        *(["--over", "cpus", "--plot", "phases", "--to", "x.svg"],),
    ):
        done = call("compare", "20200101-000000-nobody", *args)
        assert done.returncode == 2 and "go" in done.stderr, args


def test_compare_prints_every_form_and_draws(script: Callable[..., str], tmp_path: Path) -> None:
    script("import hpcml; hpcml.log(loss=float(hpcml.params().width))")
    swept = call("sweep", "train.py", "-a", "width=1,2", "--wait", "--json")
    ids = [run["id"] for run in json.loads(swept.stdout)]
    batch = ids[0].partition(".")[0]

    told = json.loads(call("compare", "--json", "--by", "width", *ids).stdout)
    assert [row["group"] for row in told["rows"]] == [{"width": 1}, {"width": 2}]
    assert [point["figures"]["metric:loss"] for point in told["points"]] == [1.0, 2.0]
    both = json.loads(call("compare", "--json", "--by", "width,width", *ids).stdout)
    assert both["by"] == ["width", "width"]
    plot = ["--plot", "history", "--metric", "lss", "--to", str(tmp_path / "loss.svg")]
    assert "no run has logged 'lss' more than once" in call("compare", batch, *plot).stderr
    printed = call("compare", batch)
    assert "width=1" in printed.stdout and "! not known of any run: model" in printed.stdout
    assert call("compare", "--markdown", batch).stdout.startswith("|  | runs |")
    assert call("compare", "--csv", batch).stdout.startswith("row,param:width,states,")

    plot = tmp_path / "phases.svg"
    drawn = call("compare", batch, "--plot", "phases", "--to", str(plot))
    assert drawn.returncode == 0 and plot.read_text().startswith("<?xml")
    assert call("compare", batch, "--plot", "phases").returncode == 2
    wrong = call("compare", batch, "--by", "wdth")
    assert wrong.returncode == 70 and "did you mean 'width'" in wrong.stderr
