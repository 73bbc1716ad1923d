"""What a live Slurm says of itself is read as it stands, of old and new versions."""

from __future__ import annotations

import math
import time

import pytest

from hpcml.surveying.answers import (
    parse_associations,
    parse_config,
    parse_gres,
    parse_nodes,
    parse_partitions,
    parse_qos,
)
from hpcml.surveying.model import Association, Cluster, Gres, LivePartition

# Of a node with devices, and of one with cores that are kept from jobs, in a box.
GPU_NODE = (
    "NodeName=gpu1 Arch=x86_64 CoresPerSocket=8  CPUAlloc=0 CPUEfctv=8 CPUTot=8 CPULoad=3.29 "
    "AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:a100:4 NodeAddr=gpu1 "
    "NodeHostName=gpu1 Version=26.05.5 OS=Linux 6.18.44-fc-v669 #1 SMP PREEMPT_DYNAMIC @0  "
    "RealMemory=16000 AllocMem=0 FreeMem=4271 Sockets=1 Boards=1 State=IDLE ThreadsPerCore=1 "
    "TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=gpu,whole,low  "
    "BootTime=2026-11-21T13:53:24 SlurmdStartTime=2026-11-22T06:20:04 "
    "CfgTRES=cpu=8,mem=16000M,billing=8,gres/gpu=4 AllocTRES= CurrentWatts=n/a AveWatts=n/a"
)
RESERVED = (
    "NodeName=standard-g-n1 CoresPerSocket=64  CPUAlloc=0 CPUEfctv=56 CPUTot=64 CPULoad=0.00 "
    "AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:8 RealMemory=524288 AllocMem=0 "
    "FreeMem=N/A Sockets=1 Boards=1 CoreSpecCount=8 CPUSpecList=56-63  "
    "State=IDLE+CLOUD+POWERED_DOWN ThreadsPerCore=1 Partitions=standard-g,small-g,dev-g"
)
# As scontrol(1) of Slurm 20.11 describes it: no CPUEfctv; a node with memory that is kept.
OLD_NODE = (
    "NodeName=n1 Arch=ppc64le CoresPerSocket=20 CPUAlloc=0 CPUTot=160 CPULoad=0.01 "
    "AvailableFeatures=volta,rack7 ActiveFeatures=volta,rack7 Gres=gpu:v100:4(S:0-1),lustre:1 "
    "OS=Linux 4.18.0 #1 SMP Gres=of the kernel RealMemory=583992 Sockets=2 Boards=1 "
    "CPUSpecList=0-3,80-83 MemSpecLimit=8192 State=DOWN*+DRAIN ThreadsPerCore=4 Partitions=batch "
    "Reason=Not responding [slurm@2020-12-01T10:00:00]"
)
PARTITION = (
    "PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES "
    "QoS=N/A DefaultTime=00:30:00 DisableRootJobs=NO Exclusive=NO GraceTime=0 Hidden=NO "
    "MaxNodes=UNLIMITED MaxTime=1-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED "
    "Nodes=cpu[1-2] OverSubscribe=NO State=UP TotalCPUs=16 TotalNodes=2 "
    "TRES=cpu=16,mem=62.50G,node=2,billing=16"
)
WHOLE = (  # of the box: Slurm 26.05
    "PartitionName=whole AllowAccounts=ALL AllowQos=ALL Default=NO QoS=N/A DefaultTime=NONE "
    "Exclusive=NODE Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED OverSubscribe=NO State=UP"
)
OLD_WHOLE = (  # of Slurm 20.11
    "PartitionName=batch AllowAccounts=climate,Weather DenyQos=debug Default=NO QoS=batch "
    "DefaultTime=NONE ExclusiveUser=NO Hidden=YES MaxNodes=64 MaxTime=12:00:00 "
    "OverSubscribe=EXCLUSIVE State=DRAIN"
)
CONFIG = """\
Configuration data as of 2026-11-22T06:20:04
AccountingStorageEnforce = associations,limits
AccountingStorageType   = accounting_storage/slurmdbd
AcctGatherEnergyType    = acct_gather_energy/pm_counters
ClusterName             = box
DefMemPerCPU            = 2000
GresTypes               = gpu
JobDefaults             = (null)
KillWait                = 2 sec
MaxArraySize            = 1001
SelectType              = select/cons_tres
SelectTypeParameters    = CR_CORE_MEMORY
SLURM_VERSION           = 26.05.5

Account Gather
Configuration:
KillWait                = 99 sec

Slurmctld(primary) at control is UP
"""


def partition(line: str) -> LivePartition:
    (found,) = parse_partitions(line, ()).values()
    return found


def test_a_node_has_cpus_memory_and_devices() -> None:
    (node,) = parse_nodes(GPU_NODE)
    assert node.name == "gpu1"
    assert (node.kind.cpus, node.kind.cores, node.kind.threads) == (8, 8, 1)
    assert node.kind.memory == 16000 << 20
    assert node.kind.gres == (Gres("gpu", "a100", 4),)
    assert node.partitions == ("gpu", "whole", "low")
    assert (node.architecture, node.features, node.state) == ("x86_64", (), ("IDLE",))


def test_reserved_cores_are_none_that_jobs_may_use() -> None:
    (node,) = parse_nodes(RESERVED)
    assert (node.kind.cores, node.kind.reserved_cores, node.kind.cpus) == (64, 8, 56)
    assert node.architecture is None, "it was never up"


def test_an_old_slurm_lists_the_cpus_that_it_keeps() -> None:
    (node,) = parse_nodes(OLD_NODE)
    assert (node.kind.cores, node.kind.threads, node.kind.reserved_cores) == (40, 4, 2)
    assert node.kind.cpus == 152
    assert node.kind.memory == (583992 - 8192) << 20
    assert node.features == ("volta", "rack7")
    assert node.state == ("DOWN", "DRAIN")


def test_the_first_field_of_a_name_counts() -> None:
    (node,) = parse_nodes(OLD_NODE)
    assert node.kind.gres == (Gres("gpu", "v100", 4), Gres("lustre", None, 1))


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("(null)", ()),
        (None, ()),
        ("gpu:4", (Gres("gpu", None, 4),)),
        ("gpu", (Gres("gpu", None, 1),)),
        ("gpu:3090:2(S:0,1)", (Gres("gpu", "3090", 2),)),
        (
            "gpu:a100:3,gpu:a100_1g.5gb:7",
            (Gres("gpu", "a100", 3), Gres("gpu", "a100_1g.5gb", 7)),
        ),
        ("bandwidth:lustre:no_consume:4G", (Gres("bandwidth", "lustre", 4 << 30),)),
        ("craynetwork:4", (Gres("craynetwork", None, 4),)),
    ],
)
def test_resources_have_a_type_and_a_number(said: str | None, means: tuple[Gres, ...]) -> None:
    assert parse_gres(said) == means


def test_a_partition_has_limits_and_its_nodes() -> None:
    nodes = parse_nodes(f"{GPU_NODE}\n{RESERVED}")
    found = parse_partitions(PARTITION.replace("=cpu ", "=gpu ", 1), nodes)["gpu"]
    assert (found.default, found.hidden, found.state) == (True, False, "UP")
    assert (found.max_time, found.max_nodes) == (86400, math.inf)
    assert found.exclusive is False
    assert found.accounts is found.allowed_qos is found.qos is None
    assert [node.name for node in found.nodes] == ["gpu1"]


@pytest.mark.parametrize("line", [WHOLE, OLD_WHOLE])
def test_whole_nodes_are_said_in_new_words_and_in_old_ones(line: str) -> None:
    assert partition(line).exclusive is True


def test_no_limit_is_another_thing_than_a_limit_that_is_not_said() -> None:
    assert partition(WHOLE).max_time == math.inf
    bare = partition("PartitionName=bare")
    assert bare.max_time is bare.max_nodes is bare.exclusive is bare.state is None


def test_who_may_use_a_partition_does_not_depend_on_capitals() -> None:
    batch = partition(OLD_WHOLE)
    assert batch.allows_account("Climate") and batch.allows_account("weather")
    assert batch.allows_account("other") is None, "it may be below one of them"
    assert partition("PartitionName=a DenyAccounts=Other").allows_account("other") is False
    assert [batch.allows_qos(it) for it in ("normal", "DEBUG")] == [True, False]
    assert (batch.qos, batch.hidden, batch.state) == ("batch", True, "DRAIN")


def test_the_configuration_is_read() -> None:
    config = parse_config(CONFIG)
    assert (config.name, config.version, config.max_array) == ("box", "26.05.5", 1001)
    assert config.kill_wait == 2
    assert config.enforced == {"associations", "limits"}
    assert config.energy == ("pm_counters",)
    assert config.accounting is True


def test_an_array_has_no_more_tasks_than_the_scheduler_takes() -> None:
    config = CONFIG + "SchedulerParameters = bf_interval=2,max_array_tasks=300\n"
    assert parse_config(config).max_array == 300


def test_an_empty_configuration_says_nothing() -> None:
    config = parse_config("")
    assert config.max_array is config.kill_wait is config.enforced is config.energy is None
    assert Cluster(config, {}, (), "alice").needs_account is None


def test_no_energy_is_gathered_by_none() -> None:
    for said in ("(null)", "acct_gather_energy/none"):
        assert parse_config(f"AcctGatherEnergyType = {said}").energy == ()


def test_an_association_says_who_pays_and_how_many_jobs_there_may_be() -> None:
    assert parse_associations("climate||acc_debug,normal|210\nweather|gpu|normal|\n") == (
        Association("climate", None, ("acc_debug", "normal"), 210),
        Association("weather", "gpu", ("normal",), None),
    )


def test_a_quality_of_service_has_limits() -> None:
    found = parse_qos("normal|||\nacc_debug|02:00:00|cpu=9,node=4|2\n")
    assert (found["normal"].max_time, found["normal"].max_nodes) == (None, None)
    debug = found["acc_debug"]
    assert (debug.max_time, debug.max_nodes, debug.max_submit) == (7200, 4, 2)


def test_four_thousand_nodes_are_read_at_once() -> None:
    """About 0.2 s of CPU time; each is read on its own, so that a slip would take minutes."""
    answer = "\n".join(GPU_NODE.replace("gpu1", f"n{number}") for number in range(4000))
    begin = time.process_time()
    nodes = parse_nodes(answer)
    found = parse_partitions(PARTITION.replace("=cpu ", "=gpu ", 1), nodes)["gpu"]
    assert found.kinds == {nodes[0].kind: 4000}
    assert time.process_time() - begin < 10
