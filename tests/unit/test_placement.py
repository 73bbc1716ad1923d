"""From what a job asks for, portably, to what Slurm is asked for, and why."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.errors import PlanError
from hpcml.layout import Layout
from hpcml.planning import Plan, lay_out, make_plan
from hpcml.resolving import resolve
from hpcml.settings import Binding
from hpcml.sites import load_site

SITE = """\
name: hill
scheduler: slurm
transport: local
workspace: /ws
partitions:
  small:
    nodes: 2
    time: {value: 1h, source: the handbook, confidence: A}
    gres: gpu:a100
    node: &a100
      device: {kind: gpu, vendor: nvidia, memory: 40 GiB}
      devices: 4
      cpus: 32
      memory: 256 GiB
  large:
    nodes: 64
    node_sharing: exclusive
    time: {value: 24h, source: a forum, confidence: C}
    gres: gpu:a100
    cpu_bind: "mask_cpu:ff,ff00,ff0000,ff000000"
    node: *a100
  fat:
    nodes: unknown
    time: unknown
    devices_by: gpus-per-task
    constraint: gpu&hbm80g
    partition_option: false
    qos: {regular: {time: 12h}, long: {time: 48h, nodes: 2}}
    default_qos: regular
    options: {exclusive: true}
    node:
      device: {kind: gpu, vendor: nvidia, memory: 80 GiB}
      devices: 4
      cpus: unknown
      memory: unknown
  pod:
    devices_by: {value: none, source: the handbook, confidence: A}
    tasks_per: node
    node_sharing: exclusive
    node: {device: ipu, devices: 4, cpus: 48, memory: 512 GiB}
  must:
    memory_option: {value: required, source: the handbook, confidence: A}
    node: {cpus: 16, memory: 64 GiB}
launch:
  mpi: pmix
  rendezvous_suffix: i.hill
  interface: ib0
modules: [Stages/2025, GCC]
prelude: ["ulimit -s unlimited"]
environment: {FI_PROVIDER: cxi}
energy:
  - {name: dcgm, scope: device, readable: unknown, options: {disable-dcgm: true}}
"""


@pytest.fixture(autouse=True)
def profile(home: Path) -> None:
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SITE)


def plan(*, binding: Binding | None = None, image: str | None = None, **asked: Any) -> Plan:
    job = hpcml.Job(["true"], code=None, image=image, resources=hpcml.Resources(**asked))
    yours = binding or Binding("/ws", "python3", "python3", "hpcml.pyz")
    return make_plan(resolve(job, online=False), load_site("hill"), yours)


def placed(made: Plan, *names: str) -> tuple[Any, ...]:
    return tuple(made.what["placement"][name] for name in names)


def lines(made: Plan) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in made.script.splitlines()}


# --- which partition ------------------------------------------------------------------------


def test_a_job_takes_the_first_partition_that_it_fits_into_and_is_told_why_no_other() -> None:
    assert placed(plan(device="gpu"), "partition") == ("small",)
    longer = plan(device="gpu", time="2h")

    assert placed(longer, "partition") == ("fat",)
    assert "partition fat: the first with device 'gpu' that the job fits into" in longer.decisions
    (why,) = [line for line in longer.decisions if line.startswith("not elsewhere")]
    assert why == (
        "not elsewhere: resources.time: walltime limit of small: 01:00:00 (source: the handbook); "
        "the job asks for 02:00:00"
    )


def test_a_job_beyond_a_known_limit_goes_where_it_may_fit_only_if_it_says_so() -> None:
    """The walltime limit of large is a hint, and that of fat is not as long."""
    with pytest.raises(PlanError) as caught:
        plan(device="gpu", time="20h", nodes=2, options={"qos": "regular"})
    assert "walltime limit of QOS regular of fat: 12:00:00" in str(caught.value)
    with pytest.raises(PlanError) as caught:
        plan(device="gpu", time="20h", devices=32)
    assert "walltime limit of QOS regular of fat: 12:00:00" in str(caught.value)
    assert 'By name only, options={"partition": ...}: large.' in str(caught.value)
    asked = plan(device="gpu", time="20h", devices=32, options={"partition": "large"})
    assert placed(asked, "partition", "nodes") == ("large", 8)


def test_a_job_beyond_several_limits_goes_only_where_all_of_them_are_known_to_be_kept(
    home: Path,
) -> None:
    """Memory is known of large, and would do; its walltime limit is a hint."""
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    low = "node: {device: {kind: gpu, vendor: nvidia, memory: 40 GiB}, devices: 4, cpus: 32, "
    path.write_text(SITE.replace("node: *a100", low + "memory: 512 GiB}"))
    asked = {"device": "gpu", "memory": "300 GiB"}
    assert placed(plan(**asked, time="1h"), "partition") == ("large",)
    with pytest.raises(PlanError, match=r"By name only.*: large"):
        plan(**asked, time="20h")
    path.write_text(path.read_text().replace("source: a forum, confidence: C", "confidence: A"))
    assert placed(plan(**asked, time="20h"), "partition") == ("large",)


@pytest.mark.parametrize(
    ("of_small", "of_large"),
    [("architecture: x86_64", "architecture: aarch64"), ("cores: 32", "device: {vendor: amd}")],
)
def test_a_job_beyond_a_limit_goes_nowhere_where_its_code_may_not_run(
    home: Path, of_small: str, of_large: str
) -> None:
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    known = SITE.replace("{value: 24h, source: a forum, confidence: C}", "24h")
    other = f"node: {{<<: *a100, {of_large}}}".replace("device: {", "device: {kind: gpu, ")
    known = known.replace("cpus: 32\n", f"cpus: 32\n      {of_small}\n")
    path.write_text(known)
    assert placed(plan(device="gpu", time="20h", devices=16), "partition") == ("large",)
    path.write_text(known.replace("node: *a100", other))
    with pytest.raises(PlanError, match=r"walltime limit.*\n.*By name only.*: large"):
        plan(device="gpu", time="20h", devices=16)


def test_a_quality_of_service_that_one_partition_knows_stays_with_it(home: Path) -> None:
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    path.write_text(SITE.replace("{value: 24h, source: a forum, confidence: C}", "96h"))
    made = plan(device="gpu", time="40h", options={"qos": "long"})
    assert placed(made, "partition") == ("fat",)
    with pytest.raises(PlanError, match="walltime limit of QOS long of fat: 2-00:00:00"):
        plan(device="gpu", time="60h", options={"qos": "long"})


def test_a_partition_that_your_settings_prefer_comes_first_where_the_job_fits_into_it() -> None:
    yours = Binding("/ws", "python3", "python3", "hpcml.pyz", partition="large")
    made = plan(binding=yours, device="gpu")
    assert placed(made, "partition") == ("large",)
    assert "partition large: your settings prefer it" in made.decisions
    assert placed(plan(binding=yours), "partition") == ("must",), "it has no such device"


def test_a_partition_that_is_paid_otherwise_is_passed_over_by_who_has_no_such_account(
    home: Path,
) -> None:
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    path.write_text(SITE.replace("  small:\n", "  small:\n    own_account: true\n"))
    assert placed(plan(device="gpu"), "partition") == ("large",)
    yours = Binding("/ws", "python3", "python3", "hpcml.pyz", accounts={"small": "mine"})
    made = plan(binding=yours, device="gpu")
    assert placed(made, "partition") == ("small",) and "--account=mine" in lines(made)


def test_a_job_goes_where_devices_have_the_memory_that_it_asks_for() -> None:
    made = plan(device="gpu", min_device_memory="64 GiB")
    assert placed(made, "partition") == ("fat",)
    with pytest.raises(PlanError, match="memory of a device of fat: 80"):
        plan(device="gpu", min_device_memory="100 GiB")


def test_a_job_takes_as_few_nodes_as_hold_its_devices() -> None:
    made = plan(device="gpu", devices=8)
    assert placed(made, "partition", "nodes", "devices", "tasks", "cpus") == ("small", 2, 4, 4, 8)
    assert "nodes 2: as few as hold what is asked for" in made.decisions
    assert placed(plan(device="gpu", devices=16), "partition", "nodes") == ("large", 4)
    with pytest.raises(PlanError, match="devices=6"):
        plan(device="gpu", devices=5)


def test_a_job_takes_as_few_nodes_as_hold_its_tasks() -> None:
    assert placed(plan(tasks=8, cpus=4), "nodes", "tasks") == (2, 4)


def test_a_job_that_fits_nowhere_is_told_of_the_partition_that_comes_nearest() -> None:
    with pytest.raises(PlanError) as caught:
        plan(device="gpu", nodes=65, min_device_memory="10 GiB", options={"partition": "large"})
    assert "most nodes of a job of large: 64; the job asks for 65" in str(caught.value)


def test_a_job_of_more_nodes_than_there_are_is_told_how_many_there_are(home: Path) -> None:
    """That is no limit of a job, which nobody knows."""
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    path.write_text(SITE.replace("nodes: unknown", "total_nodes: 9"))
    fat = {"partition": "fat"}
    with pytest.raises(PlanError, match="partition fat has 9 nodes; the job asks for 10"):
        plan(device="gpu", nodes=10, options=fat)
    made = plan(device="gpu", nodes=9, options=fat)
    assert "partition fat: most nodes of a job is not known: the site may refuse" in made.decisions
    path.write_text(SITE.replace("nodes: unknown", "total_nodes: {value: 9, confidence: C}"))
    made = plan(device="gpu", nodes=10, options=fat)
    hint = "it has 9 nodes (a hint); the job asks for 10"
    assert f"partition fat: {hint}: the site may refuse" in made.decisions


# --- what is not sure -----------------------------------------------------------------------


def test_a_hint_refuses_nothing_and_is_told() -> None:
    made = plan(device="gpu", time="30h", options={"partition": "large"})

    hint = "walltime limit: 1-00:00:00 (a hint, source: a forum); the job asks for 1-06:00:00"
    assert f"partition large: {hint}: the site may refuse" in made.decisions


def test_a_partition_that_may_have_it_comes_before_one_that_by_a_hint_has_not() -> None:
    made = plan(device="gpu", nodes=3, memory="900 GiB", options={"partition": "fat"})

    told = "\n".join(made.decisions)
    for what in ("most nodes of a job", "CPUs of a node", "memory of a node"):
        assert f"partition fat: {what} is not known: the site may refuse" in told
    assert "cpus 1 a task: how many a node has is not known" in made.decisions


# --- how Slurm is asked ---------------------------------------------------------------------


def test_devices_are_asked_for_as_the_partition_wants_it() -> None:
    assert "--gres=gpu:a100:4" in lines(plan(device="gpu"))
    assert "--gpus-per-task=1" in lines(plan(device="gpu", options={"partition": "fat"}))
    pod = plan(device="ipu")
    assert not [line for line in lines(pod) if "gres" in line or "gpus" in line]
    assert "devices 4 a node: they come with the node (source: the handbook)" in pod.decisions
    assert placed(pod, "tasks") == (1,)


def test_a_plan_tells_where_a_rank_sees_its_own_device_alone() -> None:
    """There the number of a device is not the rank's."""
    fat = {"partition": "fat"}
    alone = "tasks 4 a node: one a device, and each sees its own devices alone, "
    assert f"{alone}which it counts from 0" in plan(device="gpu", options=fat).decisions
    assert "tasks 4 a node: one a device" in plan(device="gpu").decisions


def test_a_partition_that_a_constraint_selects_is_not_named() -> None:
    asked = lines(plan(device="gpu", options={"partition": "fat"}))
    assert {"--constraint=gpu&hbm80g", "--qos=regular", "--exclusive"} <= asked
    assert not [line for line in asked if line.startswith("--partition")]


def test_another_quality_of_service_is_asked_for_only_where_the_default_is_too_short() -> None:
    made = plan(device="gpu", time="40h", options={"partition": "fat"})
    assert "--qos=long" in lines(made)
    assert "qos long: the first in which the job fits" in made.decisions
    with pytest.raises(PlanError, match="walltime limit of QOS regular of fat: 12"):
        plan(device="gpu", time="40h", nodes=3, options={"partition": "fat"})


def test_a_quality_of_service_that_the_profile_does_not_know_may_be_asked_for() -> None:
    options = {"partition": "fat", "qos": "mine"}
    made = plan(device="gpu", time="90h", options=options)
    assert "--qos=mine" in lines(made)
    assert "partition fat: walltime limit is not known: the site may refuse" in made.decisions


def test_options_of_a_job_override_the_profile_s() -> None:
    options = {"partition": "fat", "constraint": "nvme", "reservation": "class", "hold": True}
    asked = lines(plan(device="gpu", options=options))
    assert {"--constraint=nvme", "--reservation=class", "--hold"} <= asked
    gres = lines(plan(device="gpu", options={"gres": "gpu:h100:2"}))
    assert {line for line in gres if "gres" in line} == {"--gres=gpu:h100:2"}


def test_a_meter_s_options_are_for_jobs_with_devices() -> None:
    assert "--disable-dcgm" in lines(plan(device="gpu"))
    assert "--disable-dcgm" not in lines(plan())


def test_memory_that_must_be_said_is_a_share_of_the_node_if_the_job_says_nothing() -> None:
    made = plan(cpus=4)
    assert "--mem=16777216K" in lines(made)
    assert made.what["limits"]["memory"] is None, "nobody is to be killed for it"
    told = "memory 16.0 GiB: its share of a node's, since it must be said (source: the handbook)"
    assert told in made.decisions


# --- how it is started ----------------------------------------------------------------------


def test_a_mask_is_used_only_with_a_task_on_each_device_of_whole_nodes() -> None:
    whole = plan(device="gpu", options={"partition": "large"})
    assert whole.what["launch"]["cpu_bind"] == "mask_cpu:ff,ff00,ff0000,ff000000"
    part = plan(device="gpu", devices=2, options={"partition": "large"})
    assert part.what["launch"]["cpu_bind"] is None
    assert whole.what["launch"]["mpi"] == "pmix"
    assert plan().what["launch"] is None


def test_the_environment_is_the_site_s_and_says_what_the_network_is() -> None:
    found = plan(device="gpu", tasks=4, cpus=6).where["environment"]
    expected = {"FI_PROVIDER": "cxi", "NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}
    expected |= {"SRUN_CPUS_PER_TASK": "6", "OMP_NUM_THREADS": "6"}
    assert expected.items() <= found.items()
    assert "NCCL_SOCKET_IFNAME" not in plan().where["environment"]


def test_a_variable_that_is_a_hint_is_told_and_not_set(home: Path) -> None:
    hinted = SITE.replace("interface: ib0", "interface: {value: ib0, source: me, confidence: C}")
    hinted = hinted.replace("FI_PROVIDER: cxi", "FI_PROVIDER: {value: cxi, confidence: C}")
    (home / "config" / "hpcml" / "sites" / "hill.yaml").write_text(hinted)
    made = plan(device="gpu", tasks=4)
    assert not {"FI_PROVIDER", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} & {
        *made.where["environment"]
    }
    assert "FI_PROVIDER=cxi is not set (a hint): the job may set it" in made.decisions
    told = "NCCL and Gloo choose the interface: it may be ib0 (a hint, source: me)"
    assert told in made.decisions


def test_modules_and_prelude_are_in_a_script_of_their_own() -> None:
    made = plan()
    assert made.what["prelude"] == [
        *("module load Stages/2025", "module load GCC"),
        "ulimit -s unlimited",
    ]
    assert made.prelude is not None and "ulimit" in made.prelude
    assert "module" not in made.script


OLD_MODULES = """\
module() {
    if [ "$2" = GCC ]; then
        echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for '$2'" >&2
        return 0
    fi
    echo "WARNING: an ERROR of no matter" >&2
    export LOADEDMODULES="$LOADEDMODULES:$2"
}
"""


def test_a_module_that_is_not_loaded_stops_the_run_though_its_tool_says_nothing_failed(
    home: Path, tmp_path: Path
) -> None:
    def tried(text: str) -> tuple[int, str, str, str]:
        (tmp_path / ".bash_profile").write_text(text)
        script, line = tmp_path / "env.sh", tmp_path / "env.line"
        script.write_text(plan().prelude or "")
        environment = {"HOME": str(tmp_path), "PATH": os.defpath}
        argv = ["bash", "-l", str(script), str(line), "/lib.pyz", "echo", "began"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert not list(tmp_path.glob("*.said"))
        return done.returncode, done.stdout, done.stderr, line.read_text()

    code, began, said, line = tried(OLD_MODULES)
    assert (code, began, line) == (1, "", "module load GCC")
    assert "Unable to locate a modulefile for 'GCC'" in said
    assert tried(OLD_MODULES.replace("= GCC", "= icc"))[:2] == (0, "began\n")
    assert tried('module() { [ "$2" != GCC ] || return 7; }')[0::3] == (7, "module load GCC")
    assert tried("set -u; module() { :; }")[:3] == (0, "began\n", ""), "no module is loaded yet"


def test_an_image_sees_the_devices_that_the_profile_knows(project: Path) -> None:
    (project / "x.sif").write_bytes(b"")
    how = plan(device="gpu", image="x.sif").what["container"]
    assert how == {"command": "apptainer", "flag": "--nv"}
    assert plan(device="ipu", image="x.sif").what["container"]["flag"] is None, "it will look"


# --- many runs ------------------------------------------------------------------------------


def laid_out(count: int = 100, **asked: Any) -> Layout:
    return lay_out(plan(**asked), load_site("hill"), count)


def test_runs_share_a_whole_node_as_far_as_its_devices_reach() -> None:
    assert laid_out(device="gpu", devices=1, options={"partition": "large"}).slots == 4


def test_ranks_that_share_a_node_have_cores_of_their_own(home: Path) -> None:
    node = "cores: 8, threads_per_core: 2, cpus: 16"
    whole = SITE.replace("    node: {cpus: 16", f"    node_sharing: exclusive\n    node: {{{node}")
    (home / "config" / "hpcml" / "sites" / "hill.yaml").write_text(whole)
    slots = [laid_out(tasks=tasks, cpus=1, memory="1 GiB").slots for tasks in (1, 2, 3)]

    assert slots == [16, 8, 4], "three CPUs of a run are two cores"


def test_runs_do_not_share_a_node_of_which_nobody_knows_what_it_has() -> None:
    assert laid_out(device="gpu", devices=1, options={"partition": "fat"}).slots == 1
    assert laid_out(device="ipu", devices=1).slots == 1, "which devices are whose?"


def test_runs_do_not_follow_each_other_within_a_walltime_that_is_a_hint() -> None:
    asked = {"device": "gpu", "time": "1h", "options": {"partition": "large"}}
    assert laid_out(1000, **asked).rounds == 1
