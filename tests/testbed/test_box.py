"""The supercomputer in a box does what a real one does, well and badly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.testbed import machine
from tests.testbed.box import Box, python
from tests.testbed.machine import CannotHaveBox, CommandFailed
from tests.testbed.state import FOLDER, State, link_name, memory_cgroup
from tests.testbed.using import (
    PATIENCE,
    accounted,
    becomes,
    refused,
    sbatch,
    seconds,
    shown,
    ssh,
)

pytestmark = pytest.mark.testbed

ROOT = Path(__file__).parents[2]
HUNGRY = "python3 -c 'import time; hoard = bytearray(400 << 20); time.sleep(600)'"

# ------------------------------------------------------------------ a cluster


@pytest.mark.parametrize("partition", ["cpu", "gpu"])
def test_a_job_runs_on_each_kind_of_node_by_srun_and_by_sbatch(box: Box, partition: str) -> None:
    nodes = [f"{partition}1", f"{partition}2"]
    srun = ["srun", "-p", partition, "-N2", "hostname"]
    assert sorted(box.run("login", srun).stdout.split()) == nodes
    output = f"/scratch/{partition}.txt"
    script = f"#!/bin/sh\n#SBATCH -p {partition} -N2 -o {output}\nsrun hostname\n"
    job = box.run("login", ["sbatch", "--parsable"], stdin=script).stdout.strip()
    becomes(box, job, "COMPLETED")
    assert sorted(box.run("login", ["cat", output]).stdout.split()) == nodes


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_job_sees_the_devices_that_it_asked_for(box: Box, devices: int) -> None:
    show = "echo $CUDA_VISIBLE_DEVICES"
    done = box.run("login", ["srun", "-p", "gpu", f"--gres=gpu:{devices}", "sh", "-c", show])
    assert done.stdout.strip() == ",".join(map(str, range(devices)))


def test_slurm_accounts_the_energy_of_a_power_curve(box: Box) -> None:
    """The nodes are read once a second, and what has elapsed is in whole seconds.

    So is the curve, whose pieces are 100 W off the mean: another 100 J at each node.
    """
    for host in ("cpu1", "cpu2"):
        box.set_power(host, (1.0, 200.0), (1.0, 400.0))
    job = sbatch(box, "-N2", "--exclusive", "--wrap", "srun sleep 8")
    becomes(box, job, "COMPLETED")
    eventually(lambda: accounted(box, job, "State") == ["COMPLETED"], PATIENCE)
    elapsed, joules = map(int, accounted(box, job, "ElapsedRaw", "ConsumedEnergyRaw"))
    mean = 2 * 300.0
    assert elapsed >= 8
    assert mean * (8 - 1) - 200 <= joules <= mean * (elapsed + 2) + 200


def test_a_job_finds_powercap_counters_that_advance(box: Box) -> None:
    read = "cat /sys/class/powercap/intel-rapl:0/energy_uj; sleep 0.5"
    before, after = box.run("cpu1", ["sh", "-c", f"{read}; {read}"]).stdout.split()
    assert int(after) > int(before)
    zones = sorted(path.name for path in box.path("cpu1", "/sys/class/powercap").iterdir())
    assert zones == ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"]


def test_a_user_runs_a_container_in_a_job_of_two_nodes(box: Box) -> None:
    command = [
        "apptainer",
        "-q",
        "exec",
        box.image,
        "python3",
        "-c",
        "import os; print(os.uname()[1])",
    ]
    done = box.run("login", ["srun", "-N2", *command])
    assert sorted(done.stdout.split()) == ["cpu1", "cpu2"]


def test_a_job_that_needs_more_memory_than_it_asked_for_is_killed(box: Box) -> None:
    """By watching: Slurm says OUT_OF_MEMORY only where cgroups enforce it."""
    job = sbatch(box, "--mem=50", "--wrap", HUNGRY)
    becomes(box, job, "FAILED")
    assert shown(box, job, "ExitCode") == "0:9"


def test_the_kernel_kills_a_job_that_needs_more_memory_than_it_asked_for() -> None:
    with Box("confining", memory_enforced=True) as box:
        job = sbatch(box, "--mem=50", "--wrap", HUNGRY)
        becomes(box, job, "OUT_OF_MEMORY")
        assert list(memory_cgroup("confining").iterdir())
    assert nothing_is_left("confining")


def test_homes_are_shared_and_tmp_is_each_host_s_own(box: Box) -> None:
    box.run("login", ["sh", "-c", "echo here >~/shared; echo here >/tmp/own"])
    assert box.run("gpu2", ["cat", "shared"]).stdout == "here\n"
    assert box.run("gpu2", ["cat", "/tmp/own"], check=False).returncode != 0


def test_hpcml_runs_on_the_login_node(box: Box) -> None:
    submit = "import hpcml; print(hpcml.submit(hpcml.Job('run.sh')).wait().state)"
    box.run("login", ["sh", "-c", "echo hostname >/scratch/run.sh"])
    done = box.run("login", ["env", "--chdir=/scratch", *python(), "-c", submit])
    assert done.stdout.strip() == "COMPLETED"


def test_users_are_ordinary(box: Box) -> None:
    assert box.run("login", ["id", "-un"], user="bob").stdout == "bob\n"
    assert box.run("login", ["touch", "/etc/mine"], check=False).returncode != 0
    drain = ["scontrol", "update", "NodeName=cpu1", "State=DRAIN", "Reason=mine"]
    assert box.run("login", drain, check=False).returncode != 0


def test_one_comes_in_by_ssh_with_a_key(box: Box) -> None:
    for user in ("alice", "bob"):
        assert ssh(box, "hostname; id -un", user=user).stdout.split() == ["login", user]


def test_compute_nodes_have_no_route_outside(box: Box) -> None:
    outside = f"198.19.{box.state.number}.1"  # the machine's end of the login node's cable
    connect = f"import socket; socket.create_connection(('{outside}', 9), 5)"
    assert "refused" in box.run("login", ["python3", "-c", connect], check=False).stderr
    for host in ("control", "cpu1", "cpu2", "gpu1", "gpu2"):
        said = box.run(host, ["python3", "-c", connect], check=False).stderr
        assert "Network is unreachable" in said


def test_slurmrestd_answers_who_has_a_token(box: Box) -> None:
    token = box.run("login", ["scontrol", "token"]).stdout.strip().removeprefix("SLURM_JWT=")
    ask = (
        "import json, urllib.request as u\n"
        "request = u.Request('http://localhost:6820/slurm/v0.0.42/nodes')\n"
        f"request.add_header('X-SLURM-USER-TOKEN', '{token}')\n"
        "print(*sorted(node['name'] for node in json.load(u.urlopen(request))['nodes']))"
    )
    answer = box.run("login", ["python3", "-c", ask]).stdout
    assert answer.split() == ["cpu1", "cpu2", "gpu1", "gpu2"]


# ------------------------------------------------------------------- switches


def test_a_job_in_the_partition_of_whole_nodes_gets_all_cores(box: Box) -> None:
    job = sbatch(box, "-p", "whole", "-n1", "--wrap", "true")
    becomes(box, job, "COMPLETED")
    assert shown(box, job, "NumCPUs") == "8"


def test_a_job_longer_than_the_partition_s_limit_does_not_start(box: Box) -> None:
    job = sbatch(box, "-p", "short", "--time=10", "--wrap", "true")
    eventually(lambda: shown(box, job, "Reason") == "PartitionTimeLimit", PATIENCE)
    box.cancel(job)


def test_an_account_must_be_named_where_there_is_no_default(unfriendly_box: Box) -> None:
    assert "Invalid account" in refused(unfriendly_box, "--wrap", "true")
    sbatch(unfriendly_box, "--account=climate", "--wrap", "true")


def test_memory_may_not_be_requested_where_it_is_forbidden(unfriendly_box: Box) -> None:
    for request in ("--mem=1G", "--mem-per-cpu=100M"):
        said = refused(unfriendly_box, "--account=climate", request, "--wrap", "true")
        assert "Memory may not be requested here" in said


def test_a_twenty_first_job_is_refused_and_tasks_of_arrays_count(unfriendly_box: Box) -> None:
    hold = ["--account=weather", "--hold", "--wrap", "true"]
    job = sbatch(unfriendly_box, "--array=0-18", *hold)
    one_more = sbatch(unfriendly_box, *hold)
    assert "AssocMaxSubmitJobLimit" in refused(unfriendly_box, *hold)
    unfriendly_box.cancel(job)
    unfriendly_box.cancel(one_more)


def test_an_array_may_not_be_larger_than_the_site_s_largest(unfriendly_box: Box) -> None:
    words = ["--account=climate", "--hold", "--wrap", "true"]
    assert "Invalid job array specification" in refused(unfriendly_box, "--array=0-101", *words)


def test_the_controller_soon_forgets_jobs_that_ended(unfriendly_box: Box) -> None:
    job = sbatch(unfriendly_box, "--account=climate", "--wrap", "true")
    show = ["scontrol", "show", "job", job]
    eventually(lambda: unfriendly_box.run("login", show, check=False).returncode != 0, PATIENCE)
    eventually(lambda: accounted(unfriendly_box, job, "State") == ["COMPLETED"], PATIENCE)


def test_the_login_shell_is_csh_and_prints(unfriendly_box: Box) -> None:
    said = ssh(unfriendly_box, "echo $shell").stdout.splitlines()
    assert said == ["Quota: 12 % of your budget is left.", "/bin/csh"]


def test_the_home_is_full_after_a_thousand_files(unfriendly_box: Box) -> None:
    many = "mkdir many; for i in $(seq 1200); do touch many/$i || exit 1; done"
    done = unfriendly_box.run("login", ["sh", "-c", many], check=False)
    assert "No space left on device" in done.stderr
    assert 900 < int(unfriendly_box.run("cpu1", ["sh", "-c", "ls many | wc -l"]).stdout) < 1000
    unfriendly_box.run("login", ["touch", "/scratch/one-more"])
    unfriendly_box.run("login", ["rm", "-r", "many"])


def test_there_is_slurm_without_accounting(box_without_accounting: Box) -> None:
    job = sbatch(box_without_accounting, "--wrap", "true")
    becomes(box_without_accounting, job, "COMPLETED")
    sacct = box_without_accounting.run("login", ["sacct"], check=False)
    assert "accounting storage is disabled" in sacct.stderr
    assert "Quota" in ssh(box_without_accounting, "true").stdout


# --------------------------------------------------------------------- faults


@pytest.fixture
def mended(box: Box) -> Iterator[Box]:
    """The friendly box, whose queue is empty afterwards."""
    yield box
    for user in ("alice", "bob"):
        box.hosts.run("control", "scancel", f"--user={user}", "--quiet")
    eventually(lambda: box.run("login", ["squeue", "-h"]).stdout == "", PATIENCE)


def test_a_job_goes_on_while_the_controller_is_away(mended: Box) -> None:
    job = sbatch(mended, "--wrap", "until [ -e ~/go-on ]; do sleep 0.1; done")
    becomes(mended, job, "RUNNING")
    mended.stop_controller()
    with pytest.raises(CommandFailed, match="Unable to contact slurm controller"):
        mended.run("login", ["squeue"])
    mended.run("login", ["touch", "go-on"])
    mended.start_controller()
    becomes(mended, job, "COMPLETED")


def test_jobs_are_accounted_after_the_database_is_back(mended: Box) -> None:
    mended.stop_database()
    with pytest.raises(CommandFailed):
        mended.run("login", ["sacct"])
    job = sbatch(mended, "--wrap", "true")
    becomes(mended, job, "COMPLETED")
    mended.start_database()
    eventually(lambda: accounted(mended, job, "State") == ["COMPLETED"], PATIENCE)


def test_a_node_that_dies_or_is_cut_off_fails_its_job_and_comes_back(mended: Box) -> None:
    where = {"gpu2": "gpu", "cpu2": "cpu"}
    job = {
        host: sbatch(mended, "-w", host, "-p", where[host], "--no-requeue", "--wrap", "sleep 600")
        for host in where
    }
    for host in where:
        becomes(mended, job[host], "RUNNING")
    mended.path("gpu2", "/tmp/lost").touch()
    mended.kill_node("gpu2")
    mended.drop_network("cpu2")
    for host in where:
        becomes(mended, job[host], "NODE_FAIL")
    mended.revive_node("gpu2")
    mended.restore_network("cpu2")
    for host in where:
        run = ["srun", "-w", host, "-p", where[host], "hostname"]
        # Slurm asks a node that is down and silent at every 20th look only: after a minute or more.
        eventually(lambda: mended.services.node_states()[host] == "idle", 240)  # noqa: B023
        assert mended.run("login", run).stdout.strip() == host
    assert not mended.path("gpu2", "/tmp/lost").exists()


def test_nobody_comes_in_while_the_login_node_is_cut_off(mended: Box) -> None:
    mended.drop_network("login")
    assert ssh(mended, "true").returncode == 255
    mended.restore_network("login")
    eventually(lambda: ssh(mended, "true").returncode == 0)


def test_a_drained_node_takes_no_jobs_until_it_resumes(mended: Box) -> None:
    mended.drain("cpu1")
    assert mended.services.node_states()["cpu1"] == "drain"
    assert mended.run("login", ["srun", "hostname"]).stdout == "cpu2\n"
    job = sbatch(mended, "-w", "cpu1", "--wrap", "true")
    assert shown(mended, job, "JobState") == "PENDING"
    mended.resume("cpu1")
    becomes(mended, job, "COMPLETED")


def test_a_job_of_low_priority_gives_way(mended: Box) -> None:
    job = sbatch(mended, "-p", "low", "-w", "cpu1", "--no-requeue", "--wrap", "sleep 600")
    becomes(mended, job, "RUNNING")
    mended.preempt("cpu1")
    becomes(mended, job, "PREEMPTED")


@pytest.mark.parametrize("path", ["/home", "/scratch", "/tmp"])
def test_a_disk_is_full_until_it_is_freed(box: Box, path: str) -> None:
    file = {"/home": "/home/alice/file"}.get(path, f"{path}/file")
    write = ["sh", "-c", f"head -c 100000 /dev/zero >{file}"]
    size = os.statvfs(box.path("login", path)).f_blocks
    box.fill_disk(path)
    with pytest.raises(CommandFailed, match="No space left on device"):
        box.run("login", write)
    box.free_disk(path)
    box.run("login", write)
    assert os.statvfs(box.path("login", path)).f_blocks == size


def test_a_reply_of_sbatch_is_lost_though_there_is_a_job(mended: Box) -> None:
    mended.lose_sbatch_reply()
    assert "Socket timed out" in refused(mended, "--job-name=lost", "--hold", "--wrap", "true")
    mended.restore_sbatch()
    assert len(mended.run("login", ["squeue", "-h", "--name=lost"]).stdout.splitlines()) == 1


def test_a_reply_of_sbatch_is_late(mended: Box) -> None:
    mended.delay_sbatch(1.5)
    assert seconds(sbatch, mended, "--wrap", "true") >= 1.5
    mended.restore_sbatch()


def test_an_ssh_connection_breaks_in_mid_stream(box: Box) -> None:
    command = ["ssh", "-F", str(box.ssh_config("alice")), "box", "echo begun; sleep 600"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stream:
        assert stream.stdout is not None
        assert stream.stdout.readline() == "begun\n"
        box.drop_ssh()
        assert stream.wait(PATIENCE) == 255
    assert ssh(box, "echo again").stdout == "again\n"


def test_a_slow_network_adds_to_each_round_trip(box: Box) -> None:
    """Coming in takes five round trips at least: TCP, two banners, keys, who it is, a session."""
    box.slow_network(milliseconds=50)
    assert seconds(ssh, box, "true") >= 5 * 0.1
    assert ssh(box, "head -c 3000000 /dev/zero | wc -c").stdout.strip() == "3000000"
    box.fast_network()
    assert ssh(box, "echo quick").stdout == "quick\n"


# ---------------------------------------------------------------- up and down


def pids_of(box: Box) -> set[int]:
    """All processes in a box's namespaces, as the machine counts."""
    everyone = [box.state.first, *box.state.hosts.values()]
    spaces = {os.readlink(f"/proc/{one.pid}/ns/mnt") for one in everyone if one is not None}
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/mnt") in spaces:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def nothing_is_left(name: str) -> bool:
    """Neither a folder nor a mount nor a network device nor a process bears its name."""
    folder = f"{FOLDER}/{name}"
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline")]
    return not (
        Path(folder).exists()
        or folder in Path("/proc/self/mountinfo").read_text()
        or Path(f"/sys/class/net/{link_name(name)}").exists()
        or memory_cgroup(name).exists()
        or any(f"{folder}/".encode() in read(path) for path in commands)
    )


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def on_the_machine() -> tuple[list[str], list[str]]:
    """Mounts and network devices, but those of other boxes, and the small disks of other tests."""
    links = [name for name in os.listdir("/sys/class/net") if not name.startswith("hpcml-")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line for line in mounts if " hpcml-test " not in line), sorted(links)


def test_a_box_goes_up_and_down_twice_and_leaves_nothing() -> None:
    before = on_the_machine()
    for _ in range(2):
        with Box("twice") as box:
            pids = pids_of(box)
            assert len(pids) > 20
            assert box.run("login", ["srun", "hostname"]).stdout == "cpu1\n"
        assert nothing_is_left("twice")
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert on_the_machine() == before


def test_two_boxes_do_not_touch_each_other(box: Box, box_without_accounting: Box) -> None:
    """Those shared by these tests are such two."""
    job = sbatch(box, "--hold", "--wrap", "true")
    other = box_without_accounting
    assert other.run("login", ["squeue", "-h"]).stdout == ""
    other.run("login", ["touch", "/scratch/other", "/opt/other"], user="root")
    assert not box.path("login", "/scratch/other").exists()
    assert not box.path("login", "/opt/other").exists()
    assert box.hosts.login_address != other.hosts.login_address
    box.cancel(job)


MOMENTS: dict[str, Callable[[State], object]] = {
    "claimed": lambda state: True,
    "begun": lambda state: state.first,
    "hosts": lambda state: state.hosts,
    "connected": lambda state: Path(f"/sys/class/net/{link_name(state.name)}").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_owner_s_box_vanishes_and_the_next_one_goes_up(moment: str) -> None:
    box = "Box('killed', memory_enforced=True)"
    up = f"from tests.testbed.box import Box; {box}.up(); import time; time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", up], cwd=ROOT)
    try:
        eventually(lambda: reached(moment), PATIENCE)
    finally:
        owner.kill()
        owner.wait()
    if moment == "connected":
        with Box("killed", memory_enforced=True) as again:
            assert again.run("login", ["srun", "hostname"]).stdout == "cpu1\n"
    else:
        with Box("killed", slurmdbd=False):
            pass
    assert nothing_is_left("killed")


def reached(moment: str) -> bool:
    try:
        return bool(MOMENTS[moment](State.load(FOLDER / "killed")))
    except (FileNotFoundError, NotADirectoryError):
        return False


def of_whom_nobody_reads(action: str) -> tuple[int, str]:
    """Exit code and errors of an action, as in a pipe to ``head``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tests.testbed", action]
    done = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    return done.returncode, done.stderr


def test_a_box_by_hand_stays_until_it_is_taken_down() -> None:
    def by_hand(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.testbed", *words, "--name=byhand"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    up = by_hand("up", "slurmdbd=false")
    try:
        assert "Box byhand is up" in up.stdout, up.stderr
        assert "already" in by_hand("up").stderr
        assert "byhand: up" in by_hand("status").stdout
        assert of_whom_nobody_reads("status") == (0, "")
        assert Box.of_name("byhand").run("login", ["srun", "hostname"]).stdout == "cpu1\n"
    finally:
        by_hand("down")
    assert nothing_is_left("byhand")
    assert "no box 'byhand'" in by_hand("shell").stderr


def test_who_cannot_have_a_box_is_told_why_and_what_is_not_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotHaveBox, match=r"takes root.*that needs Slurm was left out"):
        machine.make_ready()


def test_where_no_box_can_be_made_the_suite_fails_by_the_names_of_tests_and_says_why(
    tmp_path: Path,
) -> None:
    """None is skipped, so that nobody takes a suite without Slurm for one that has passed."""
    for command in machine.COMMANDS.keys() - {"mmdebstrap"}:
        found = shutil.which(command)
        assert found is not None
        (tmp_path / command).symlink_to(found)
    some = "test_users_are_ordinary", "test_one_comes_in_by_ssh_with_a_key"
    named = [f"tests/testbed/test_box.py::{name}" for name in some]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *named],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path), "CI": "yes"},  # which has lines whole
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    why = "no supercomputer in a box: mmdebstrap is missing, and there is no apt-get. Install it."
    for name in named:
        assert f"ERROR {name} - Failed: {why}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("=") and "2 errors in" in done.stdout
    assert "skipped" not in done.stdout


def test_a_checkout_that_the_hosts_would_not_see_is_refused() -> None:
    with pytest.raises(CannotHaveBox, match="hosts would not see /tmp/project"):
        Box(binds={"/tmp/project": "/tmp/project"}).up()
