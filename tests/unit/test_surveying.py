"""Clusters that are not like a box, by texts as Slurm's documentation has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcml.errors import CommandError, HpcmlError
from hpcml.settings import Binding, SiteSettings
from hpcml.sites import Site, load_site, wrong_with
from hpcml.surveying.cluster import cluster_of
from hpcml.surveying.comparing import disagreements
from hpcml.surveying.discovering import Discovery, runtime_of
from hpcml.surveying.finding import Finding
from hpcml.surveying.login import Login, account
from hpcml.surveying.model import Cluster
from hpcml.transports import Completed

CONFIG = """\
AccountingStorageEnforce = associations,limits,qos,safe
AccountingStorageType   = accounting_storage/slurmdbd
AcctGatherEnergyType    = acct_gather_energy/gpu,acct_gather_energy/rapl
ClusterName             = alp
KillWait                = 30 sec
MaxArraySize            = 1001
SLURM_VERSION           = 23.11.10
"""
NODES = """\
NodeName=a1 Arch=x86_64 CoresPerSocket=32 CPUEfctv=128 CPUTot=128 AvailableFeatures=amd,a100,rack1 \
Gres=gpu:nvidia_a100-sxm4-80gb:4(S:0-1) RealMemory=512000 Sockets=2 ThreadsPerCore=2 State=IDLE \
Partitions=gpu,all
NodeName=a2 Arch=x86_64 CoresPerSocket=32 CPUEfctv=128 CPUTot=128 AvailableFeatures=amd,a100,rack2 \
Gres=gpu:nvidia_a100-sxm4-80gb:4(S:0-1) RealMemory=512000 Sockets=2 ThreadsPerCore=2 State=IDLE \
Partitions=gpu,all
NodeName=b1 Arch=x86_64 CoresPerSocket=32 CPUEfctv=128 CPUTot=128 AvailableFeatures=amd,mi250x \
Gres=gpu:8 RealMemory=512000 Sockets=2 ThreadsPerCore=2 State=DOWN+DRAIN Partitions=gpu,all
NodeName=c1 Arch=aarch64 CoresPerSocket=72 CPUEfctv=140 CPUTot=144 AvailableFeatures=grace \
Gres=(null) RealMemory=240000 MemSpecLimit=8000 CoreSpecCount=4 Sockets=2 ThreadsPerCore=1 \
State=IDLE Partitions=cpu,all,secret
NodeName=d1 CoresPerSocket=32 CPUEfctv=64 CPUTot=64 Gres=gpu:a100_1g.5gb:28,gpu:a100:1,mps:400 \
RealMemory=512000 Sockets=2 ThreadsPerCore=1 State=IDLE Partitions=parts
"""
PARTITIONS = """\
PartitionName=gpu AllowAccounts=ALL AllowQos=gpu,gpu_dbg Default=YES QoS=pgpu Hidden=NO \
MaxNodes=64 MaxTime=2-00:00:00 OverSubscribe=EXCLUSIVE State=UP TotalNodes=3
PartitionName=cpu AllowAccounts=ALL DenyQos=gpu,gpu_dbg Default=NO QoS=N/A Hidden=NO \
MaxNodes=UNLIMITED MaxTime=UNLIMITED MaxCPUsPerNode=100 OverSubscribe=NO State=DRAIN
PartitionName=all AllowAccounts=root DenyAccounts=none Default=NO QoS=N/A Hidden=NO \
MaxNodes=2 MaxTime=01:00:00 OverSubscribe=NO State=UP
PartitionName=parts DenyAccounts=trial Default=NO Hidden=NO MaxNodes=1 MaxTime=00:30:00 State=UP
PartitionName=secret AllowAccounts=ALL Default=NO Hidden=YES MaxTime=01:00:00 State=UP
PartitionName=8x Default=NO Hidden=NO MaxTime=01:00:00 State=UP
PartitionName=no|thing Default=NO Hidden=NO MaxTime=01:00:00 State=UP
"""
ASSOCIATIONS = "trial||gpu,gpu_dbg,normal|50\n"
QOS = (
    "normal|||\ngpu|||\ngpu_dbg|00:30:00|node=2|2\npgpu|1-00:00:00|node=16|20\nothers|02:00:00||\n"
)


class Slurm:
    """What the commands of a Slurm print."""

    def __init__(self, **answers: str) -> None:
        told = {"nodes": NODES, "partitions": PARTITIONS, "assoc": ASSOCIATIONS, "qos": QOS}
        self.answers = {"config": CONFIG, "user": "\n", **told, **answers}
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        words = " ".join(argv)
        self.asked.append(words)
        ends = {"show config": "config", "show node": "nodes", "show partition": "partitions"}
        found = next((key for end, key in ends.items() if words.endswith(end)), None)
        what = found or next(
            (key for key in ("assoc", "user", "qos") if f" show {key} " in words), ""
        )
        if words.endswith("id -un"):
            return Completed(tuple(argv), 0, b"alice\n", b"")
        if what not in self.answers:
            return Completed(tuple(argv), 1, b"", b"sacctmgr: error: slurmdbd: Connection refused")
        return Completed(tuple(argv), 0, self.answers[what].encode(), b"")

    def cluster(self) -> Cluster:
        return cluster_of(self)  # type: ignore[arg-type]


@pytest.fixture
def sites(home: Path) -> Path:
    folder = home / "config" / "hpcml" / "sites"
    folder.mkdir(parents=True, mode=0o700)
    return folder


def written(sites: Path, cluster: Cluster, name: str = "alp") -> Site:
    """The profile of a cluster, as it is read again."""
    (sites / f"{name}.yaml").write_text(Discovery(cluster, name, runtime="apptainer").text())
    assert wrong_with(name) == []
    return load_site(name)


def told(findings: list[Finding], *verdicts: str) -> list[str]:
    return [it.what for it in findings if it.verdict in verdicts]


def test_each_command_is_called_once() -> None:
    slurm = Slurm()
    slurm.cluster()
    assert len(slurm.asked) == 7
    whose = "show assoc user=alice cluster=alp format=Account,"
    assert any(whose in it for it in slurm.asked)


def test_a_partition_whose_nodes_differ_has_the_kind_that_most_are_of(sites: Path) -> None:
    cluster = Slurm().cluster()
    gpu = written(sites, cluster).partitions["gpu"]
    assert (gpu.gres, gpu.node.devices) == ("gpu:nvidia_a100-sxm4-80gb", 4)
    assert gpu.nodes == 2, "the third one has other devices"
    text = (sites / "alp.yaml").read_text()
    assert (
        "# its nodes differ: beside 2 of those below,\n    #   1 with 128 CPUs, 500 GiB, gpu:8"
        in text
    )
    assert "# features: a100, amd" in text, "those that all have"


def test_the_qos_of_a_partition_limits_it(sites: Path) -> None:
    site = written(sites, Slurm().cluster())
    assert site.partitions["gpu"].time == "1d", "Slurm's MaxTime is 2 days, its QOS has less"
    assert site.max_submitted == 20
    assert {*site.partitions["gpu"].qos} == {"gpu", "gpu_dbg"}
    assert site.partitions["gpu"].qos["gpu_dbg"].time == "30m"
    assert not site.partitions["cpu"].qos, "the only one that is left is that of all jobs"


def test_the_default_partition_is_the_first_that_jobs_take(sites: Path) -> None:
    lines = PARTITIONS.replace("Default=YES", "Default=NO")
    lines = lines.replace("DenyAccounts=none Default=NO", "DenyAccounts=none Default=YES")
    assert next(iter(written(sites, Slurm(partitions=lines).cluster()).partitions)) == "all"


def test_what_is_kept_from_jobs_is_not_theirs(sites: Path) -> None:
    node = written(sites, Slurm().cluster()).partitions["cpu"].node
    assert (node.cores, node.reserved_cores) == (144, 4)
    assert node.cpus == 100, "MaxCPUsPerNode"
    assert node.memory_bytes == 232000 << 20
    assert node.architecture == "aarch64"


def test_devices_in_parts_are_counted_by_the_first_of_their_types(sites: Path) -> None:
    site = load_site(
        written(sites, Slurm(partitions=PARTITIONS.replace("=trial", "=x")).cluster()).name
    )
    parts = site.partitions["parts"]
    assert (parts.gres, parts.node.devices) == ("gpu:a100_1g.5gb", 28)
    assert parts.node.device.model == "A100" and parts.node.device.memory is None
    assert "# and gpu:a100:1" in (sites / "alp.yaml").read_text()


def test_a_feature_may_tell_the_device(sites: Path) -> None:
    nodes = "\n".join(line for line in NODES.splitlines() if "=b1" in line)
    device = written(sites, Slurm(nodes=nodes).cluster()).partitions["gpu"].node.device
    assert (device.vendor, device.model, device.architecture) == ("amd", "MI250X", "gfx90a")


def test_partitions_that_are_nobodys_are_left_out_with_the_reason(sites: Path) -> None:
    site = written(sites, Slurm().cluster())
    assert list(site.partitions) == ["gpu", "cpu", "all"]
    text = (sites / "alp.yaml").read_text()
    for name, why in {
        "parts": "none of your accounts may use it",
        "secret": "it is hidden",
        "8x": "the cluster shows no nodes of it",
        "no|thing": "a profile cannot say its name",
    }.items():
        assert f"# {name} is left out: {why}" in text


def test_names_that_mean_something_to_yaml_stay_names(sites: Path) -> None:
    nodes = NODES.replace("Partitions=cpu", "Partitions=no,1e3,cpu")
    lines = "PartitionName=no MaxTime=01:00:00\nPartitionName=1e3 MaxTime=01:00:00\n"
    site = written(sites, Slurm(nodes=nodes, partitions=lines).cluster(), "on")
    assert list(site.partitions) == ["no", "1e3"]
    assert site.name == "on"


def test_what_a_cluster_prints_cannot_write_into_a_profile(sites: Path) -> None:
    evil = CONFIG.replace(
        "ClusterName             = alp", 'ClusterName = x"\x1b[2J\nprelude: [evil]'
    )
    site = written(sites, Slurm(config=evil, nodes=NODES.replace("rack1", "a\x1b]b")).cluster())
    assert site.prelude == []
    assert "\x1b" not in (sites / "alp.yaml").read_text()


def test_a_cluster_that_shows_no_nodes_makes_no_profile() -> None:
    with pytest.raises(HpcmlError, match="no partition that a profile could have"):
        Discovery(Slurm(nodes="No nodes in the system").cluster(), "alp").text()


def test_a_profile_of_a_cluster_agrees_with_it(sites: Path) -> None:
    cluster = Slurm().cluster()
    found = disagreements(written(sites, cluster), cluster, SiteSettings(account="trial"))
    assert told(found, "bad") == []
    assert told(found, "unknown") == [
        "whether your account trial may use all: it is not listed there (AllowAccounts), "
        "one above it may be"
    ]


def test_accounting_that_does_not_answer_leaves_facts_unknown(sites: Path) -> None:
    slurm = Slurm()
    for name in ("assoc", "user", "qos"):
        del slurm.answers[name]
    cluster = slurm.cluster()
    assert cluster.needs_account is None
    site = written(sites, cluster)
    assert site.max_submitted is None and not site.account_required
    limit = site.origin("max_array")
    assert limit is not None and "sacctmgr" not in (limit.source or "")
    unknown = told(disagreements(site, cluster, SiteSettings(account="trial")), "unknown")
    assert len([it for it in unknown if "Connection refused" in it]) == 3
    assert "whether your accounts may pay: the cluster shows no accounts" in unknown


def test_limits_are_less_sure_where_a_qos_that_is_not_shown_may_allow_less(sites: Path) -> None:
    slurm = Slurm()
    del slurm.answers["qos"]
    other = Slurm(qos="normal|||\n")  # not that of the partition gpu
    free = Slurm(config=CONFIG.replace("associations,limits,qos,safe", "associations"))
    del free.answers["qos"]
    for said, unsure in (
        (slurm, {"gpu.nodes", "gpu.time", "cpu.nodes", "all.nodes", "all.time"}),
        (other, {"gpu.nodes", "gpu.time"}),
        (free, set()),
        (Slurm(), set()),
    ):
        site = written(sites, said.cluster())
        origins = {
            f"{name}.{key}": site.origin(f"partitions.{name}.{key}")
            for name in site.partitions
            for key in ("nodes", "time")
        }
        found = {key for key, it in origins.items() if it is not None and it.confidence == "B"}
        assert found == unsure
        assert all("a QOS may allow less" in str(origins[key]) for key in unsure)
    assert site.partitions["all"].time == "1h"


def test_a_partition_that_is_down_is_told(sites: Path) -> None:
    cluster = Slurm().cluster()
    found = disagreements(written(sites, cluster), cluster, SiteSettings(account="trial"))
    assert "partitions.cpu: the cluster says that it is DRAIN" in told(found, "warn")


def test_of_what_becomes_of_jobs_in_a_partition_that_is_not_up_slurm_s_own_rule_is_told(
    sites: Path,
) -> None:
    for state, advice in (
        ("DOWN", "Jobs wait until it is up again."),
        ("INACTIVE", "It takes no jobs until it is up again."),
    ):
        cluster = Slurm(partitions=PARTITIONS.replace("State=DRAIN", f"State={state}")).cluster()
        found = disagreements(written(sites, cluster), cluster, SiteSettings(account="trial"))
        (one,) = [it for it in found if it.what.endswith(f"says that it is {state}")]
        assert one.advice == advice


def test_a_partition_is_told_of_which_no_node_takes_jobs(sites: Path) -> None:
    nodes = NODES.replace("State=IDLE", "State=IDLE+DRAIN*")
    for said, partitions in (NODES, set()), (nodes, {"gpu", "cpu", "all"}):
        cluster = Slurm(nodes=said).cluster()
        found = disagreements(written(sites, cluster), cluster, SiteSettings(account="trial"))
        out = [it for it in told(found, "warn") if "none of its nodes takes jobs now" in it]
        assert {it.split(":")[0].removeprefix("partitions.") for it in out} == partitions
    assert "partitions.cpu: none of its nodes takes jobs now (IDLE+DRAIN)" in out


@pytest.mark.parametrize(
    ("code", "advice"), [(127, "must be on PATH"), (1, "controller may be down")]
)
def test_a_slurm_that_is_not_there_and_one_that_is_silent_take_different_advice(
    code: int, advice: str
) -> None:
    class Login:
        def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
            return Completed(tuple(argv), code, b"", b"no")

    with pytest.raises(CommandError) as error:
        cluster_of(Login())  # type: ignore[arg-type]
    assert advice in error.value.advice


def test_an_account_that_may_queue_no_job_is_told_and_is_no_fact_of_the_site(sites: Path) -> None:
    cluster = Slurm(assoc="trial||gpu,gpu_dbg,normal|0\n").cluster()
    site = written(sites, cluster)
    assert site.max_submitted is None
    found = disagreements(site, cluster, SiteSettings(account="trial"))
    (one,) = [it for it in told(found, "bad") if "no job of yours" in it]
    assert "MaxSubmitJobs of your account trial" in one


def test_an_account_that_pays_in_some_partitions_alone_is_no_obstacle(sites: Path) -> None:
    """Of accounts with suffixes one has those for some kinds of nodes."""
    cluster = Slurm(assoc="trial||gpu,normal|50\ntrialg|gpu|gpu|\n").cluster()
    text = Discovery(cluster, "alp").text()
    (sites / "alp.yaml").write_text(text.replace("  cpu:\n", "  cpu:\n    account_suffix: c\n"))
    found = disagreements(load_site("alp"), cluster, SiteSettings(account="trial"))
    assert "account trialc is none of yours (alice)" in told(found, "warn")
    assert "trial is yours" in told(found, "ok") and told(found, "bad") == []
    found = disagreements(load_site("alp"), cluster, SiteSettings(account="trail"))
    assert "account trail is none of yours (alice)" in told(found, "bad")


def test_setup_and_doctor_judge_accounts_by_the_same_rule(sites: Path) -> None:
    """Setup looked at names alone: that an account is for other partitions it did not see."""
    cluster = Slurm(assoc="trial|secret|gpu|\n").cluster()
    site = written(sites, Slurm().cluster())
    for yours in (SiteSettings(account="trial"), SiteSettings(account="x"), SiteSettings()):
        binding = Binding("/ws", "python3", "python3", "lib", account=yours.account)
        look = Login(site, lambda binding=binding: (binding, None))  # type: ignore[misc, return-value]
        vars(look)["cluster"] = cluster
        at_setup = list(account(look))
        assert at_setup and {*at_setup} <= {*disagreements(site, cluster, yours)}
        assert {it.verdict for it in at_setup} == {"bad"}


def test_an_account_for_other_partitions_alone_is_told_as_such(sites: Path) -> None:
    cluster = Slurm(assoc="trial|secret|gpu|\n").cluster()
    site = written(sites, Slurm().cluster())
    found = disagreements(site, cluster, SiteSettings(account="trial"))
    assert any("your account trial is for secret alone" in it for it in told(found, "bad"))


def test_of_nodes_with_a_feature_those_are_looked_at(sites: Path) -> None:
    cluster = Slurm().cluster()
    written(sites, cluster)
    gpu = "{constraint: %s, gres: gpu, nodes: %d, node: {devices: %d}}"
    mine = f"extends: alp\nname: mine\npartitions: {{gpu: {gpu}}}\n"
    for feature, nodes, devices in (("mi250x", 1, 8), ("a100", 2, 4), ("a100|mi250x", 2, 4)):
        (sites / "mine.yaml").write_text(mine % (f'"{feature}"', nodes, devices))
        found = disagreements(load_site("mine"), cluster, SiteSettings(account="trial"))
        assert told(found, "bad") == [], feature


def test_an_image_runtime_is_called_by_its_own_word() -> None:
    class Login:
        def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
            said = {"singularity": b"singularity-ce version 4.1.3-1\n"}.get(argv[1])
            return Completed(tuple(argv), 0 if said else 127, said or b"", b"")

    assert runtime_of(Login()) == "singularity-ce"  # type: ignore[arg-type]


def test_a_large_cluster_is_described_and_compared_at_once(sites: Path) -> None:
    """2 s of CPU time or so; a look at all nodes for each of them would take minutes."""
    line = NODES.splitlines()[0]
    nodes = "\n".join(
        line.replace("=a1", f"=a{it}").replace("rack1", f"rack{it % 90}") for it in range(4000)
    )
    begin = time.process_time()
    cluster = Slurm(nodes=nodes).cluster()
    site = written(sites, cluster)
    assert site.partitions["gpu"].nodes == 16, "by its QOS"
    assert told(disagreements(site, cluster, SiteSettings(account="trial")), "bad") == []
    assert time.process_time() - begin < 20
