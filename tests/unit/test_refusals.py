"""Mistakes that people have made on these systems are found before anything is queued.

The message names the limit, who says so, and what would fit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.errors import PlanError, ProfileError
from hpcml.job import Resources
from hpcml.submission import Plan

SIF = b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + b"01\0"
X86_64, AARCH64 = SIF + b"02\0", SIF + b"04\0"

SETTINGS = """\
sites:
  jureca-dc: {account: deepacf, project: deepacf, user: me, accounts: {dc-gh: exalab}}
  juwels-cluster: {account: deepacf, project: deepacf, user: me}
  lumi-g: {account: project_465000454, project: project_465000454, user: me}
  marenostrum5: {account: ehpc01, project: ehpc01, user: me}
  frontier: {account: cli900, project: cli900, user: me}
  perlmutter: {account: m1234, workspace: /pscratch/sd/m/me/hpcml}
"""


@pytest.fixture(autouse=True)
def settings(home: Path) -> Callable[[str], None]:
    """Accounts on the sites below; gives a way to write others."""

    def write(text: str) -> None:
        path = home / "config" / "hpcml" / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    write(SETTINGS)
    return write


def plan(site: str, **asked: Any) -> Plan:
    fields = {name: asked.pop(name) for name in ("image", "inputs") if name in asked}
    return hpcml.plan(hpcml.Job(["true"], code=None, **fields), site, resources=Resources(**asked))


def refusal(site: str, **asked: Any) -> str:
    with pytest.raises(PlanError) as caught:
        plan(site, **asked)
    return str(caught.value)


def test_a_job_that_asks_for_all_64_cores_of_lumi_g_is_refused_and_does_not_wait_for_ever() -> None:
    told = refusal("lumi-g", device="gpu", tasks=1, cpus=64)

    assert told.startswith("resources.cpus: CPUs of a node of standard-g: 56 (source: LUMI's user ")
    assert "the job asks for 64" in told
    assert "cpus=56 (8 of 64 cores are kept from jobs)" in told


def test_a_job_of_eight_tasks_on_lumi_g_is_told_how_many_cpus_each_can_have() -> None:
    assert "cpus=7 (8 of 64 cores" in refusal("lumi-g", device="gpu", nodes=1, tasks=8, cpus=8)


def test_gres_is_refused_where_devices_come_with_the_node() -> None:
    options = {"partition": "dc-mi200", "gres": "gpu:8"}
    told = refusal("jureca-dc", device="gpu", options=options)

    assert told.startswith("resources.options.gres: devices of dc-mi200 come with the node")
    assert "source: github.com/FZJ-JSC/CARAML" in told and "Leave it out." in told


def test_an_image_for_x86_64_is_refused_on_gh200_and_one_for_aarch64_is_not(project: Path) -> None:
    (project / "x.sif").write_bytes(X86_64)
    (project / "arm.sif").write_bytes(AARCH64)
    options = {"partition": "dc-gh"}
    told = refusal("jureca-dc", device="gpu", options=options, image="x.sif")

    assert told.startswith("image: it is built for x86_64, and the CPUs of dc-gh are aarch64 (sour")
    assert "Build or pull it for aarch64." in told
    assert plan("jureca-dc", device="gpu", options=options, image="arm.sif").what["container"]


def test_an_image_goes_to_the_partition_whose_cpus_it_is_built_for(project: Path) -> None:
    (project / "arm.sif").write_bytes(AARCH64)
    made = plan("jureca-dc", device="gpu", image="arm.sif")

    assert made.what["placement"]["partition"] == "dc-gh"


def test_mem_is_refused_where_the_site_refuses_it() -> None:
    told = refusal("marenostrum5", device="gpu", options={"mem": "10G"})
    assert told.startswith("resources.options.mem: hpcml relies on what it says by --mem itself")
    assert "resources.memory" in told

    made = plan("marenostrum5", device="gpu", memory="10 GiB")
    assert "--mem" not in made.script
    (why,) = [line for line in made.decisions if line.startswith("memory:")]
    assert why.startswith("memory: --mem is refused (source: github.com/EESSI/test-suite")


def test_more_than_two_hours_on_50_nodes_of_frontier_are_refused_and_what_fits_is_named() -> None:
    options = {"partition": "batch"}
    told = refusal("frontier", device="gpu", nodes=50, time="3h", options=options)

    assert told.startswith("resources.time: walltime limit of 50 nodes of batch: 02:00:00 (source:")
    assert 'time="2h", or nodes=92.' in told
    assert plan("frontier", device="gpu", nodes=92, time="3h", options=options)
    elsewhere = plan("frontier", device="gpu", nodes=50, time="3h")
    assert elsewhere.what["placement"]["partition"] == "extended"
    assert any(line.startswith("not elsewhere: resources.time") for line in elsewhere.decisions)


def test_a_walltime_that_is_counted_in_node_hours_is_refused_by_the_number_of_nodes(
    settings: Callable[[str], None],
) -> None:
    settings("sites: {clariden: {account: a1, user: me, partition: debug}}")
    asked = {"device": "gpu", "options": {"partition": "debug"}}
    told = refusal("clariden", nodes=2, time="1h", **asked)

    assert told.startswith("resources.time: walltime limit of 2 nodes of debug: 00:45:00 (source:")
    assert plan("clariden", nodes=1, time="1h", **asked)


LOGIN_ONLY = """\
name: archive
scheduler: slurm
transport: local
workspace: /p/scratch/{project}/{user}/hpcml
file_systems:
  scratch: {path: "/p/scratch/{project}"}
  data: {path: "/p/data1/{project}", compute: {value: false, source: its documentation}}
partitions:
  batch: {nodes: 1, time: 1d, node: {cpus: 8, memory: 8 GiB}}
"""


def test_a_path_that_compute_nodes_do_not_see_is_refused(
    home: Path, settings: Callable[[str], None]
) -> None:
    profiles = home / "config" / "hpcml" / "sites"
    profiles.mkdir(parents=True)
    (profiles / "archive.yaml").write_text(LOGIN_ONLY)
    settings("sites: {archive: {workspace: /p/data1/climate/me}}")
    told = refusal("archive")

    assert told.startswith("workspace: /p/data1/climate/me is on data, which compute nodes of arch")
    assert "(source: its documentation)" in told
    assert "Use a file system that they see: /p/scratch/{project}." in told
    settings("sites: {archive: {workspace: /p/data10/climate/me}}")
    assert plan("archive")


def test_an_input_that_compute_nodes_do_not_see_is_refused(
    home: Path, project: Path, settings: Callable[[str], None]
) -> None:
    profiles = home / "config" / "hpcml" / "sites"
    profiles.mkdir(parents=True)
    (profiles / "archive.yaml").write_text(LOGIN_ONLY.replace("/p/data1/{project}", str(project)))
    settings("sites: {archive: {workspace: /p/scratch/climate/me}}")
    (project / "t2m.nc").write_text("data")

    told = refusal("archive", inputs={"t2m": "t2m.nc"})
    assert told.startswith(f"inputs.t2m: {project}/t2m.nc is on data, which compute nodes of arch")


def test_a_partition_of_another_cluster_is_refused_with_the_site_that_has_it() -> None:
    told = refusal("juwels-cluster", device="gpu", options={"partition": "booster"})

    assert told.startswith("resources.options.partition: juwels-cluster has no partition 'booster'")
    assert 'Submit it there: site="juwels-booster".' in told


def test_a_partition_with_a_typo_is_refused_with_the_nearest_one() -> None:
    told = refusal("jureca-dc", device="gpu", options={"partition": "dc-gpu-dev"})
    assert "did you mean 'dc-gpu-devel'?" in told


def test_a_quality_of_service_that_the_profile_does_not_know_is_told_with_the_nearest_one() -> None:
    made = plan("marenostrum5", device="gpu", options={"qos": "acc_debag"})
    assert "qos acc_debag: asked for, and not in the profile: did you mean 'acc_debug'?" in str(
        made
    )


@pytest.mark.parametrize(
    ("yours", "key"),
    [("partition: dc-gup", "partition"), ("accounts: {dc-gup: exalab}", "accounts")],
)
def test_a_partition_with_a_typo_in_the_settings_is_refused_with_the_nearest_one(
    yours: str, key: str, settings: Callable[[str], None]
) -> None:
    settings(f"sites: {{jureca-dc: {{account: a, project: p, user: me, {yours}}}}}")
    told = refusal("jureca-dc", device="gpu")
    assert told.startswith(f"sites.jureca-dc.{key} in the settings: jureca-dc has no partition")
    assert "did you mean 'dc-gpu'?" in told


def test_a_job_that_nobody_pays_for_is_refused_with_what_accounts_are(
    settings: Callable[[str], None],
) -> None:
    settings("sites: {jureca-dc: {project: deepacf, user: me}}")
    told = refusal("jureca-dc", device="gpu")

    assert told.startswith("account: jureca-dc wants to know who pays (source: job files of MAELS")
    assert "Write sites.jureca-dc.account into the settings." in told
    assert (
        "the compute budget; the evaluation platform and WestAI have budgets of their own" in told
    )


def test_a_partition_with_an_account_of_its_own_is_not_paid_from_the_other_one() -> None:
    told = refusal("jureca-dc", device="ipu")
    assert told.startswith("account: dc-ipu is paid from another account than the rest (source:")
    assert "Write sites.jureca-dc.accounts.dc-ipu into the settings." in told

    made = plan("jureca-dc", device="gpu", options={"partition": "dc-gh"})
    assert "#SBATCH --account=exalab" in made.script


def test_a_job_that_fits_only_where_nobody_pays_for_it_is_told_of_both() -> None:
    told = refusal("jureca-dc", device="gpu", devices=8, min_device_memory="60 GiB")
    assert told.startswith("resources.nodes: partition dc-h100 has 1 node (sou")
    assert "It would fit elsewhere, but dc-mi200 is paid from another account" in told


def test_an_account_gets_the_suffix_that_a_partition_wants() -> None:
    assert "#SBATCH --account=m1234_g" in plan("perlmutter", device="gpu").script
    assert "#SBATCH --account=m1234\n" in plan("perlmutter", device="cpu").script


def test_a_workspace_with_a_name_that_nobody_has_said_is_open_until_then(
    settings: Callable[[str], None],
) -> None:
    settings("sites: {jureca-dc: {account: deepacf, user: me}}")

    (why,) = plan("jureca-dc", device="gpu").unresolved
    assert why.startswith("what {project} is in /p/scratch/{project}/me/hpcml is for your settings")
    assert why.endswith("sites.jureca-dc.project")
    with pytest.raises(ProfileError, match=r"sites\.jureca-dc\.project"):
        hpcml.submit(hpcml.Job(["true"], code=None), "jureca-dc")


def test_a_workspace_that_is_a_hint_is_told_unless_yours_is_another(
    settings: Callable[[str], None],
) -> None:
    hinted = "workspace /mnt/tier2/project/p200123/me/hpcml (a hint, source: "
    settings("sites: {meluxina: {account: p200123, project: p200123, user: me}}")
    assert hinted in str(plan("meluxina", device="gpu"))
    settings("sites: {meluxina: {account: p200123, user: me, workspace: /project/home/me}}")
    assert "workspace /" not in str(plan("meluxina", device="gpu"))


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("array", "which runs start"),
        ("chdir", "where hpcml looks"),
        ("output", "where hpcml looks"),
        ("job-name", "by their names"),
        ("export", "env"),
        ("dependency", "which runs start"),
        ("requeue", "which runs start"),
        ("wrap", "entry"),
        ("parsable", "sbatch's answer"),
        ("time", "resources.time"),
        ("account", "settings"),
    ],
)
def test_an_option_that_hpcml_relies_on_is_refused_by_name(option: str, instead: str) -> None:
    told = refusal("lumi-g", device="gpu", options={option: "x"})
    assert told.startswith(f"resources.options.{option}: hpcml relies on") and instead in told


@pytest.mark.parametrize("value", ["a b", "x\n", "x\n#SBATCH --wrap=evil", "$(id)", "'"])
def test_an_option_that_is_no_single_word_is_refused(value: str) -> None:
    assert "cannot stand in a batch script" in refusal(
        "lumi-g", device="gpu", options={"reservation": value}
    )


def test_an_account_that_is_no_single_word_is_refused(settings: Callable[[str], None]) -> None:
    settings('sites: {lumi-g: {account: "a\\n#SBATCH --wrap=evil", user: me, project: p}}')
    assert "cannot stand in a batch script" in refusal("lumi-g", device="gpu")


CSCS = ("daint", "santis", "clariden")


@pytest.mark.parametrize("site", CSCS)
def test_an_image_is_refused_where_nothing_starts_it_that_hpcml_knows(
    site: str, project: Path, settings: Callable[[str], None]
) -> None:
    settings(f"sites: {{{site}: {{account: cwp01, user: me}}}}")
    (project / "arm.sif").write_bytes(AARCH64)
    told = refusal(site, device="gpu", image="arm.sif")

    assert told.startswith(f"image: {site} has cscs-ce for images (source: ")
    assert "apptainer and singularity-ce" in told
