"""Fourteen things that a profile must be able to say, since real sites force each of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args, get_type_hints

import pytest

from hpcml import units
from hpcml.job import Job, Resources
from hpcml.planning import Plan, make_plan
from hpcml.resolving import resolve
from hpcml.sites import Partition, Site, load_site
from hpcml.sites.profile import Meter
from tests.golden.plans import sites, yours


def partition(name: str) -> Partition:
    site, _, part = name.partition("/")
    return load_site(site).partitions[part]


def asked(name: str, *options: str) -> Plan:
    """The plan of a job for a GPU node, with options of sbatch."""
    site = load_site(name)
    resources = Resources(device="gpu", options=dict.fromkeys(options, True))
    return make_plan(resolve(Job(["true"], code=None, resources=resources)), site, yours(site))


def every_site() -> list[Site]:
    return [load_site(name) for name in sites() if name != "local"]


@pytest.mark.parametrize("name", [name for name in sites() if name != "local"])
def test_who_says_a_fact_is_told_of_all_partitions_that_hpcml_ships(name: str) -> None:
    site = load_site(name)
    unsaid = {
        key
        for key, origin in site.origins.items()
        if key.startswith("partitions.") and None in (origin.source, origin.confidence)
    }
    known = {key for key in unsaid if _fact(site, key) is not None}
    assert {key for key in known if not key.endswith(".description")} == set()


def _fact(site: Site, key: str) -> object:
    found: Any = asdict(site)
    for part in key.split("."):
        found = found[part]
    return found


def test_1_each_partition_says_how_devices_are_asked_for() -> None:
    assert partition("juwels-booster/booster").asks_devices_by == "gres"
    assert partition("lumi-g/standard-g").asks_devices_by == "gpus-per-node"
    assert partition("daint/normal").asks_devices_by == "gpus-per-task"
    assert partition("perlmutter/gpu").constraint == "gpu"
    assert not partition("perlmutter/gpu").partition_option
    for name in ("jureca-dc/dc-mi200", "jureca-dc/dc-ipu"):
        assert partition(name).asks_devices_by == "none"
        assert partition(name).node.devices > 0


def test_2_the_devices_that_slurm_sees_are_not_the_boards_that_draw_power() -> None:
    for name in ("jureca-dc/dc-mi200", "lumi-g/standard-g", "frontier/batch"):
        node = partition(name).node
        assert (node.devices, node.boards, node.device.memory) == (8, 4, "64 GiB")
    (rsmi,) = (meter for meter in load_site("jureca-dc").energy if meter.name == "rsmi")
    assert rsmi.scope == "board"


def test_3_the_cores_that_a_job_may_use_are_not_those_that_are_there_and_each_rank_has_a_mask() -> (
    None
):
    for name in ("lumi-g/standard-g", "frontier/batch"):
        node = partition(name).node
        assert (node.cores, node.reserved_cores, node.cpus) == (64, 8, 56)
    word, _, masks = str(partition("lumi-g/standard-g").cpu_bind).partition(":")
    usable = [int(mask, 16) for mask in masks.split(",")]
    assert word == "mask_cpu" and len(usable) == 8
    assert sum(usable) == 0x7E7E7E7E7E7E7E7E, "none has the first core of a region, none two"
    assert partition("lumi-g/dev-g").cpu_bind is None, "where the mask fails"


def test_4_whether_memory_must_be_said_may_not_be_said_or_comes_with_the_node() -> None:
    assert partition("e4/i-gpu-a100").memory_option == "required"
    assert partition("leonardo/boost_usr_prod").node.memory == "494000 MiB"
    assert partition("marenostrum5/acc").memory_option == "never"
    assert partition("juwels-booster/booster").memory_option == "implicit"


def test_5_how_long_a_job_may_run_depends_on_its_nodes_its_qos_or_both_together() -> None:
    hours = {
        nodes: partition("frontier/batch").longest(nodes) for nodes in (1, 91, 92, 183, 184, 9000)
    }
    assert [(it or 0) // 3600 for it in hours.values()] == [2, 2, 6, 6, 12, 12]
    leonardo = partition("leonardo/boost_usr_prod")
    assert leonardo.longest(1) == 24 * 3600
    assert leonardo.longest(1, "boost_qos_dbg") == 30 * 60
    assert leonardo.longest(1, "boost_qos_lprod") == 4 * 86400
    acc = partition("marenostrum5/acc")
    assert (acc.default_qos, acc.longest(1, "acc_debug")) == ("acc_ehpc", 2 * 3600)
    debug = partition("clariden/debug")
    assert [debug.longest(nodes) for nodes in (1, 2, 3)] == [90 * 60, 45 * 60, 30 * 60]


def test_6_the_internet_is_a_matter_of_the_partition_and_one_site_lets_nothing_out() -> None:
    assert partition("jusuf/gpus").internet == "no"
    assert partition("jusuf/develgpus").internet == "yes"
    assert partition("leonardo/boost_usr_prod").internet == "no"
    assert partition("frontier/batch").internet == "proxy"
    assert partition("daint/normal").internet == "yes"
    assert {it.internet for it in load_site("marenostrum5").partitions.values()} == {"push-only"}


def test_7_a_file_system_says_who_sees_it_when_it_is_purged_and_which_way_data_is_staged() -> None:
    jsc = load_site("juwels-booster").file_systems
    assert not jsc["data"].compute and jsc["data"].staging == "both"
    assert jsc["scratch"].compute and jsc["scratch"].purge == "90d"
    purged = {
        site: units.seconds(str(load_site(site).file_systems[system].purge)) // 86400
        for site, system in {
            "lumi-c": "flash",
            "leonardo": "large",
            "perlmutter": "scratch",
            "frontier": "shared",
        }.items()
    }
    assert purged == {"lumi-c": 30, "leonardo": 40, "perlmutter": 56, "frontier": 90}


def test_8_what_runs_images_where_by_which_module_for_whom_and_what_it_is_to_see() -> None:
    jsc = load_site("jureca-dc").container
    assert (jsc.runtime, jsc.group) == ("apptainer", "container")
    assert jsc.test == ["apptainer", "--version"]
    assert "JuDoor" in jsc.access
    lumi = load_site("lumi-g").container
    assert (lumi.runtime, lumi.build) == ("singularity-ce", "no")
    assert "/scratch/{project}" in lumi.binds
    meluxina = load_site("meluxina").container
    assert (meluxina.where, meluxina.module) == ("compute", "Apptainer/1.2.4-GCCcore-12.3.0")
    assert load_site("daint").container.runtime == "cscs-ce"
    e4 = load_site("e4")
    assert e4.container_of("i-gpu-a100").runtime == "singularity-ce"
    assert e4.container_of("t-gpu-gh200").runtime == "docker"
    assert e4.container_of("t-gpu-gh200").module is None
    assert load_site("leonardo").container.runtime is None, "nobody says"


def test_9_each_partition_says_for_which_cpus_programs_are_built() -> None:
    clusters = ("daint", "santis", "clariden")
    alps = {f"{name}/{part}" for name in clusters for part in load_site(name).partitions}
    arm = {
        f"{site.name}/{name}"
        for site in every_site()
        for name, part in site.partitions.items()
        if part.node.architecture == "aarch64"
    }
    assert arm == alps | {"jureca-dc/dc-gh", "jedi/all", "jupiter/booster", "e4/t-gpu-gh200"}
    others = {it.node.architecture for site in every_site() for it in site.partitions.values()}
    assert others == {"aarch64", "x86_64"}


def test_10_how_ranks_meet_by_which_network_and_mpi_and_what_runs_before_them() -> None:
    booster = load_site("juwels-booster")
    launch = booster.launch_of("booster")
    assert (launch.rendezvous_suffix, launch.interface, launch.mpi) == ("i.juwels", "ib0", "pspmix")
    assert booster.environment == {"PMIX_SECURITY_MODE": "native"}
    jureca = load_site("jureca-dc")
    mi200 = jureca.launch_of("dc-mi200")
    assert (mi200.rendezvous_suffix, mi200.interface, mi200.mpi) == ("i.jureca", None, "pmi2")
    assert jureca.partitions["dc-h100"].modules == ["Architecture/jureca_spr"]
    assert load_site("jedi").launch.rendezvous_suffix is None, "a host's own name will do"
    assert load_site("e4").launch.rendezvous_suffix == ".e4red"


def test_11_which_account_pays_has_rules_of_its_own() -> None:
    assert partition("perlmutter/gpu").account_suffix == "_g"
    assert partition("perlmutter/cpu").account_suffix is None
    own = {name for name, it in load_site("jureca-dc").partitions.items() if it.own_account}
    assert {"dc-mi200", "dc-ipu", "dc-h100", "dc-gh", "dc-wai", "dc-hwai"} <= own
    assert not {"dc-gpu", "dc-cpu"} & own
    assert "can differ" in load_site("juwels-booster").account_rule, "the budget, and the project"
    assert "project_" in load_site("lumi-g").account_rule


def test_12_the_ways_in_with_port_jump_host_certificate_and_rest_interfaces() -> None:
    ways = {site.name: site.ssh for site in every_site() if site.ssh is not None}
    assert ways["meluxina"].port == 8822
    assert ways["santis"].jump == "ela.cscs.ch"
    assert "step ssh login" in ways["leonardo"].login
    assert ways["jupiter"].ipv4 and not ways["jusuf"].ipv4
    assert "login shells" in str(load_site("marenostrum5").login_shell)
    unicore = load_site("jureca-dc").unicore
    assert unicore is not None
    assert unicore.url == "https://unicore.fz-juelich.de/JURECA/rest/core"
    assert unicore.preferences == "uid:{user},group:{project}"
    assert load_site("daint").firecrest == "https://api.cscs.ch/hpc/firecrest/v2"


def test_13_which_energy_figures_to_expect_the_widest_first_and_who_may_read_them() -> None:
    assert [(it.name, it.scope, it.readable) for it in load_site("daint").energy] == [
        ("pm_counters", "node", "yes"),
        ("hwmon", "module", None),
        ("nvml", "device", None),
        ("slurm", "node", None),
    ]
    meters = {it.name: it for it in load_site("jureca-dc").energy}
    assert meters["gcipuinfo"].scope == "device"
    assert meters["dcgm"].options == {"disable-dcgm": True}
    assert "#SBATCH --disable-dcgm\n" in asked("jureca-dc", "disable-dcgm").script
    assert "--disable-dcgm" not in asked("jureca-dc").script, "the site's own reports need it"
    (pdu, _) = load_site("e4").energy
    assert (pdu.name, pdu.scope) == ("pdu", "node") and pdu.interval.startswith("1 s")


@pytest.mark.parametrize("name", [name for name in sites() if name != "local"])
def test_14_which_energy_plugin_slurm_has_can_be_said_and_is_not_known_of_any_site(
    name: str,
) -> None:
    site = load_site(name)
    (slurm,) = (meter for meter in site.energy if meter.name == "slurm")
    assert slurm.plugin is None and slurm.readable is None
    plugins, _ = get_args(get_type_hints(Meter)["plugin"])
    assert {*get_args(plugins)} == {"gpu", "ibmaem", "ipmi", "pm_counters", "rapl", "xcc"}
