"""Slurm from outside, by ssh: the same contract, and the same journey."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.errors import TransportError
from hpcml.states import State
from hpcml.testing.schedulers import SchedulerSuite
from hpcml.transports.ssh import SshTransport
from tests.conftest import eventually
from tests.contract.conftest import ssh_of
from tests.slurm.conftest import emptied
from tests.slurm.outside import Outside
from tests.testbed.box import Box, this_python
from tests.testbed.conftest import brought_up
from tests.testbed.slurmconf import COMPUTE
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

RANKS = hpcml.Resources(nodes=2, tasks=2, cpus=1, time="5m")


@contextmanager
def from_outside(box: Box, *args: Any, **kwargs: Any) -> Iterator[Outside]:
    yield Outside(box, *args, **kwargs)
    ssh_of("box").close()
    emptied(box)


@pytest.fixture
def outside(friendly: Box, home: Path) -> Iterator[Outside]:
    with from_outside(friendly, home) as found:
        yield found


OF_UNFRIENDLY = {
    "facts": "max_array: 100\nmax_submitted: 20\naccount_required: true",
    "partition": "memory_option: never",
    "account": "climate",
}


@pytest.fixture
def outside_of_unfriendly(unfriendly: Box, home: Path) -> Iterator[Outside]:
    with from_outside(unfriendly, home, **OF_UNFRIENDLY) as found:
        yield found


@pytest.fixture
def outside_of_small_home(unfriendly: Box, home: Path) -> Iterator[Outside]:
    """Where the workspace is in the home, which holds 1,000 files."""
    with from_outside(unfriendly, home, workspace="~/hpcml", **OF_UNFRIENDLY) as found:
        yield found
    unfriendly.run("login", ["rm", "-rf", "hpcml", "filler"])


@pytest.fixture(params=["/bin/bash", "/bin/csh"])
def outside_of_profiles(request: pytest.FixtureRequest, home: Path) -> Iterator[Outside]:
    """Where only a login shell finds Slurm, and prints what it likes."""
    switches = {"login_shell": request.param, "chatty": True, "slurmdbd": False}
    for box in brought_up(binds=this_python(), slurm_of_profile=True, **switches):
        yield Outside(box, home)
        ssh_of("box").close()


class TestSlurmBySsh(SchedulerSuite):
    @pytest.fixture
    def site(self, outside: Outside) -> str:
        return "box"

    @pytest.fixture
    def shared(self, outside: Outside) -> Path:
        return outside.folder

    @pytest.fixture
    def there(self, outside: Outside) -> str:
        return outside.there


def test_a_sweep_goes_there_and_what_it_left_comes_back(outside: Outside, tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo $0 | tee left.txt", "{params.n}"]
    job = hpcml.Job(command, code=None, outputs=["left.txt"])
    runs = hpcml.submit(job.sweep(n=[1, 2, 3]), "box")
    runs.wait()

    assert [(run.state, run.reason) for run in runs] == [(State.COMPLETED, "")] * 3
    assert [run.logs() for run in runs] == ["1\n", "2\n", "3\n"]
    assert (runs[2].fetch(tmp_path / "third") / "left.txt").read_text() == "3\n"


def test_a_job_has_the_path_and_home_of_the_login_node_and_nothing_else_of_it(
    outside: Outside,
) -> None:
    show = 'echo "$HOME $USER"; command -v srun; echo "$TZ$LC_ALL$SSH_CONNECTION"; echo "$PATH"'
    run = hpcml.submit(hpcml.Job(["/bin/sh", "-c", show], code=None), "box").wait()

    home, srun, other, path = run.logs().splitlines()
    assert (home, srun, other) == ("/home/alice alice", "/usr/bin/srun", "")
    there = ["ssh", "-F", str(outside.box.ssh_config()), "box", "/bin/sh -c 'echo $PATH'"]
    assert path == subprocess.run(there, capture_output=True, text=True).stdout.strip()


def test_inputs_from_outside_are_read_on_a_compute_node_and_sent_once(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "t2m.zarr"
    (folder / "c").mkdir(parents=True)
    for number in range(100):
        (folder / "c" / str(number)).write_text(f"{number}\n")
    (tmp_path / "stats.nc").write_text("mean\n")
    command = ["/bin/sh", "-c", 'hostname; cat "$0"/c/99 "$1"', "{inputs.t2m}", "{inputs.stats}"]
    inputs = {"t2m": str(folder), "stats": str(tmp_path / "stats.nc")}
    job = hpcml.Job(command, code=None, inputs=inputs)

    run = hpcml.submit(job, "box").wait()
    assert run.state is State.COMPLETED, run.reason
    assert run.logs().splitlines()[0].startswith("cpu")
    assert run.logs().splitlines()[1:] == ["99", "mean"]

    def send(*_: object) -> set[str]:
        raise AssertionError("it was there already")

    monkeypatch.setattr(SshTransport, "put_verified", send)
    assert hpcml.submit(job, "box").wait().logs().splitlines()[1:] == ["99", "mean"]


def test_a_job_that_writes_to_its_input_fails_and_spoils_it_for_nobody(
    outside: Outside, tmp_path: Path
) -> None:
    (tmp_path / "t2m.nc").write_text("measured\n")
    inputs = {"t2m": str(tmp_path / "t2m.nc")}
    for spoil in ('echo x >> "$0"', 'sed -i s/m/n/ "$0"', 'rm -f "$0"'):
        command = ["/bin/sh", "-c", spoil, "{inputs.t2m}"]
        assert hpcml.submit(hpcml.Job(command, code=None), "box", inputs=inputs).wait().exit_code

    read = hpcml.Job(["cat", "{inputs.t2m}"], code=None)
    assert hpcml.submit(read, "box", inputs=inputs).wait().logs() == "measured\n"


def test_an_image_from_outside_is_brought_there_once(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python.sif").symlink_to(outside.box.path("login", outside.box.image))
    command = ["python3", "-c", "import hpcml, sys; print(sys.prefix)"]
    job = hpcml.Job(command, code=None, image=str(tmp_path / "python.sif"))

    run = hpcml.submit(job, "box").wait()
    assert run.logs() == "/usr\n", run.reason
    assert run.plan.where["image"] == (
        f"{outside.there}/ws/data/{run.plan.what['image']}/python.sif"
    )

    def send(*_: object) -> set[str]:
        raise AssertionError("it was there already")

    monkeypatch.setattr(SshTransport, "put_verified", send)
    assert hpcml.submit(job, "box").wait().logs() == "/usr\n"


def test_a_function_is_given_the_path_of_an_input_there(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "t2m.zarr" / "c").mkdir(parents=True)
    (tmp_path / "t2m.zarr" / "c" / "7").write_text("7")

    def head(t2m: str) -> str:
        with open(f"{t2m}/c/7") as file:
            return file.read()

    run = hpcml.submit(head, "box", inputs={"t2m": str(tmp_path / "t2m.zarr")})

    assert run.result() == "7"


def test_a_function_s_result_comes_back(outside: Outside) -> None:
    def doubled(x: int) -> int:
        return 2 * x

    run = hpcml.submit(doubled, "box", params={"x": 21})

    assert run.result() == 42


def test_a_connection_that_is_dropped_costs_no_run_and_no_truth(outside: Outside) -> None:
    gate = f"while [ ! -e {outside.there}/gate ]; do sleep 0.1; done"
    run = hpcml.submit(hpcml.Job(["/bin/sh", "-c", gate], code=None), "box")
    eventually(lambda: run.state is State.RUNNING, PATIENCE)
    outside.box.drop_ssh()
    (outside.folder / "gate").touch()

    assert run.wait(PATIENCE).state is State.COMPLETED


def test_a_chatty_csh_few_inodes_and_few_jobs_are_no_obstacle(
    outside_of_unfriendly: Outside,
) -> None:
    command = ["/bin/sh", "-c", "echo $0", "{params.n}"]
    runs = hpcml.submit(hpcml.Job(command, code=None).sweep(n=range(60)), "box")
    runs.wait()

    assert {run.state for run in runs} == {State.COMPLETED}
    assert [run.logs() for run in runs] == [f"{n}\n" for n in range(60)]


WHERE_ONE_MAY_WRITE = (
    "/home",
    "/tmp",
    "/var",
    "/dev/shm",
    "/run",
    "/scratch",
    "/opt",
    "/usr/local",
)


def hers(outside: Outside) -> set[tuple[str, str]]:
    """All that is alice's on any host, but what is below the workspace: host, path."""
    there = f"{outside.there}/ws"
    find = [
        "find",
        *WHERE_ONE_MAY_WRITE,
        "-path",
        there,
        "-prune",
        "-o",
        "-user",
        "alice",
        "-print",
    ]
    found = set()
    for host in ("login", *COMPUTE):
        done = outside.box.run(host, find, user="root", check=False)
        # What others remove meanwhile is told, though it is no error.
        said = [line for line in done.stderr.splitlines() if "No such file" not in line]
        assert said == []
        found |= {(host, path) for path in done.stdout.splitlines()}
    return found


def test_nothing_is_installed_on_the_site_and_nothing_left_outside_of_the_workspace(
    outside: Outside, tmp_path: Path
) -> None:
    (tmp_path / "t2m.nc").write_text("measured\n")

    def head(t2m: str) -> str:
        with open(t2m) as file:
            return file.read()

    before = hers(outside)
    assert ("login", "/home/alice") in before
    function = hpcml.submit(head, "box", inputs={"t2m": str(tmp_path / "t2m.nc")})
    ranks = hpcml.submit(hpcml.Job(["true"], code=None), "box", resources=RANKS)
    assert function.result() == "measured\n"
    assert ranks.wait().state is State.COMPLETED
    ssh_of("box").close()

    eventually(lambda: hers(outside) == before, PATIENCE)
    assert (outside.folder / "ws" / "lib").is_dir()


FILL = """
import os, sys
os.makedirs("filler")
for n in range(os.statvfs(".").f_favail - 1 - int(sys.argv[1])):
    open("filler/%d" % n, "w").close()
"""
NUMBERED = hpcml.Job(
    ["/bin/sh", "-c", "echo $0 | tee left.txt", "{params.n}"],
    code=None,
    outputs=["left.txt"],
    resources=hpcml.Resources(time="5m"),
)


def leave_room(box: Box, files: int) -> None:
    """Fill the home, but for so many files."""
    box.run("login", ["python3", "-c", FILL, str(files)])


def queued(box: Box) -> str:
    """What Slurm shows of alice's jobs; those that have ended, too, until it has tidied up."""
    return box.run("login", ["squeue", "--me", "--noheader"]).stdout


def make_room(box: Box) -> None:
    box.run("login", ["rm", "-r", "filler"])


def test_a_sweep_of_thirty_completes_in_a_home_of_a_thousand_files(
    outside_of_small_home: Outside,
) -> None:
    runs = hpcml.submit(NUMBERED.sweep(n=range(30)), "box")
    runs.wait()

    assert {(run.state, run.reason) for run in runs} == {(State.COMPLETED, "")}
    assert outside_of_small_home.box.run("login", ["ls", "hpcml/runs"]).stdout.split() == [
        runs[0].id.partition(".")[0]
    ]


@pytest.mark.parametrize("left", [0, 4])
def test_what_a_full_home_does_not_take_is_not_queued_and_resumed_when_there_is_room(
    outside_of_small_home: Outside, left: int
) -> None:
    box = outside_of_small_home.box
    hpcml.submit(NUMBERED, "box", params={"n": -1}).wait()
    eventually(lambda: queued(box) == "", PATIENCE)
    leave_room(box, left)
    with pytest.raises(TransportError, match="cannot be written: No space left") as caught:
        hpcml.submit(NUMBERED.sweep(n=range(30)), "box")
    assert "there may be no inodes left" in caught.value.advice
    assert queued(box) == ""

    make_room(box)
    broken_off = hpcml.Runs([run for run in hpcml.runs() if run.state is State.PREPARING])
    assert len(broken_off) == 30
    broken_off[0].resume()
    broken_off.wait()
    assert {run.state for run in broken_off} == {State.COMPLETED}


def test_a_sweep_that_fills_its_home_up_is_told_so_and_nothing_half_written_is_believed(
    outside_of_small_home: Outside, tmp_path: Path
) -> None:
    box = outside_of_small_home.box
    hpcml.submit(NUMBERED, "box", params={"n": -1}).wait()
    leave_room(box, 60)
    runs = hpcml.submit(NUMBERED.sweep(n=range(30)), "box")

    def is_told() -> bool:
        seen = runs.seen()
        return any("No space left on device" in it.reason for _, it in seen if not it.state.final)

    eventually(is_told, PATIENCE)
    make_room(box)
    runs.wait()
    completed = [run for run in runs if run.state is State.COMPLETED]
    others = [run for run in runs if run not in completed]
    assert others and {run.state for run in others} == {State.FAILED}
    assert all(run.reason for run in others)
    for run in completed:
        left = run.fetch(tmp_path / run.id) / "left.txt"
        assert run.logs() == left.read_text() == f"{run.params['n']}\n"


def test_slurm_is_found_where_only_a_login_shell_finds_it(outside_of_profiles: Outside) -> None:
    config = str(outside_of_profiles.box.ssh_config())
    plain = ["ssh", "-F", config, "box", "/bin/sh -c 'command -v sbatch'"]
    assert subprocess.run(plain, capture_output=True, check=False).returncode != 0

    show = 'echo "$PATH $LD_LIBRARY_PATH"'
    job = hpcml.Job(["/bin/sh", "-c", show], code=None)
    runs = [hpcml.submit(job, "box"), hpcml.submit(job, "box", resources=RANKS)]

    for run in runs:
        assert run.wait().state is State.COMPLETED, run.reason
        path, libraries = run.logs().splitlines()[0].split(" ")
        assert ("/opt/slurm/bin" in path.split(":"), libraries) == (True, "/opt/slurm/lib")
