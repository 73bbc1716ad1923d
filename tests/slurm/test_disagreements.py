"""What a profile says is held against a live Slurm: each fault is found, and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcml.connection import connect
from hpcml.surveying.cluster import cluster_of
from hpcml.surveying.comparing import disagreements
from hpcml.surveying.finding import Finding
from tests.contract.conftest import ssh_of
from tests.slurm.outside import Outside
from tests.testbed.box import Box

pytestmark = pytest.mark.testbed

RIGHT = """\
name: box
scheduler: slurm
transport: ssh
ssh: {host: box}
workspace: %s
max_array: 1001
kill_wait: 2s
energy: [{name: slurm, scope: node, plugin: pm_counters}]
partitions:
  cpu:
    nodes: 2
    time: 1d
    node_sharing: shared
    node: &cpu {architecture: x86_64, cpus: 8, memory: 16000 MiB}
  short: {nodes: 2, time: 5m, node_sharing: shared, node: *cpu}
  whole: {nodes: 4, time: 1d, node_sharing: exclusive, node: *cpu}
  low: {nodes: 4, time: 1d, node_sharing: shared, node: *cpu}
  gpu:
    nodes: 2
    time: 1d
    node_sharing: shared
    gres: gpu:a100
    node: {device: gpu, devices: 4, architecture: x86_64, cpus: 8, memory: 16000 MiB}
"""


class Profile:
    """The profile of a box that is reached by ssh, with what is wrong in it."""

    def __init__(self, box: Box, home: Path) -> None:
        self.there = Outside(box, home).there
        self.path = home / "config" / "hpcml" / "sites" / "box.yaml"
        self.settings = home / "config" / "hpcml" / "config.yaml"

    def with_(self, right: str = "", wrong: str = "") -> list[Finding]:
        """What is found where the profile says something wrong."""
        assert right in RIGHT
        self.path.write_text(RIGHT.replace(right, wrong, 1) % self.there)
        connection = connect("box", reload=True)
        return disagreements(connection.site, cluster_of(connection.files))


@pytest.fixture
def profile(friendly: Box, home: Path) -> Iterator[Profile]:
    yield Profile(friendly, home)
    ssh_of("box").close()


@pytest.fixture
def strict_profile(strict: Box, home: Path) -> Iterator[Profile]:
    yield Profile(strict, home)
    ssh_of("box").close()


@pytest.fixture
def unaccounted_profile(unaccounted: Box, home: Path) -> Iterator[Profile]:
    yield Profile(unaccounted, home)
    ssh_of("box").close()


def told(findings: list[Finding], *verdicts: str) -> list[str]:
    return [f"{it.what} -> {it.advice}" for it in findings if it.verdict in verdicts]


def test_a_right_profile_is_confirmed(profile: Profile) -> None:
    found = profile.with_()
    assert told(found, "bad", "unknown") == []
    others = "partitions.{}: the profile says one kind of nodes"
    assert [it.what.partition(",")[0] for it in found if it.verdict == "warn"] == [
        others.format("whole"),
        others.format("low"),
    ]
    same = [it.what for it in found if "the cluster says the same" in it.what]
    assert len(same) == 6, "the site's, and those of five partitions"
    assert "partitions.gpu: time, node_sharing, nodes, node.cpus, node.memory, gres" in same[-1]


GPU = "devices: 4, architecture: x86_64, cpus: "
WRONG = {
    "a walltime that is too long": (
        ("time: 1d", "time: 2d"),
        "partitions.cpu.time is 2d ({path}, line 12), the cluster says 1d (MaxTime)",
        "Write time: 1d",
    ),
    "a partition that is not there": (
        ("short:", "shorter:"),
        "partitions.shorter ({path}, line 15): the cluster has no partition 'shorter'",
        "did you mean 'short'? (valid: cpu, gpu, low, short, whole).",
    ),
    "devices that have another type": (
        ("gpu:a100", "gpu:h100"),
        "partitions.gpu.gres is gpu:h100 ({path}, line 22), the cluster's nodes have gpu:a100:4",
        "did you mean 'gpu:a100'? (valid: gpu:a100).",
    ),
    "another number of devices": (
        ("devices: 4", "devices: 8"),
        "partitions.gpu.node.devices is 8 ({path}, line 23), the cluster says 4",
        "Write devices: 4",
    ),
    "more CPUs than there are": (
        (f"{GPU}8", f"{GPU}9"),
        "partitions.gpu.node.cpus is 9 ({path}, line 23), the cluster says 8",
        "Write cpus: 8",
    ),
    "more memory than there is": (
        (f"{GPU}8, memory: 16000 MiB", f"{GPU}8, memory: 16 GiB"),
        "partitions.gpu.node.memory is 16 GiB ({path}, line 23), the cluster says 16000 MiB",
        "Write memory: 16000 MiB",
    ),
    "other CPUs": (
        (GPU, GPU.replace("x86_64", "aarch64")),
        "partitions.gpu.node.architecture is aarch64 ({path}, line 23), the cluster says x86_64",
        "Write architecture: x86_64",
    ),
    "nodes that are shared in truth": (
        ("node_sharing: shared", "node_sharing: exclusive"),
        "partitions.cpu.node_sharing is exclusive ({path}, line 13), the cluster says shared",
        "Write node_sharing: shared",
    ),
    "larger arrays than Slurm takes": (
        ("max_array: 1001", "max_array: 2000"),
        "max_array is 2000 ({path}, line 6), the cluster says 1001 (MaxArraySize)",
        "Write max_array: 1001",
    ),
    "a longer time before a kill": (
        ("kill_wait: 2s\n", ""),
        "kill_wait is 30s (default of hpcml), the cluster says 2s (KillWait)",
        "Write kill_wait: 2s",
    ),
    "a feature that no node has": (
        ("gres: gpu:a100", "gres: gpu:a100\n    constraint: fast"),
        "partitions.gpu.constraint is fast ({path}, line 23): the cluster has no feature 'fast'",
        "there is none to choose from.",
    ),
    "a quality of service that is not there": (
        ("gres: gpu:a100", "gres: gpu:a100\n    qos: {norm: {time: 1h}}"),
        "partitions.gpu.qos.norm ({path}, line 23): the cluster has no QOS 'norm'",
        "did you mean 'normal'? (valid: normal).",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_slurm_would_refuse_is_bad_and_named(profile: Profile, case: str) -> None:
    fault, what, advice = WRONG[case]
    bad = told(profile.with_(*fault), "bad")
    assert len(bad) == 1, bad
    assert bad[0].startswith(what.format(path=profile.path)), bad
    assert bad[0].endswith(f"-> {advice}"), bad


LESS = {
    "a walltime that may be longer": ("time: 1d", "time: 1h", "partitions.cpu.time is 1h"),
    "fewer CPUs than there are": ("cpus: 8", "cpus: 4", "partitions.cpu.node.cpus is 4"),
    "an energy plugin that is another": (
        "plugin: pm_counters",
        "plugin: rapl",
        "energy.0.plugin is rapl",
    ),
    "an unknown time": ("time: 5m", "time: unknown", "partitions.short.time is not said"),
    "a partition of the cluster's": (
        "  short: {nodes: 2, time: 5m, node_sharing: shared, node: *cpu}\n",
        "",
        "the cluster has partitions that the profile lacks: short",
    ),
    "devices that are not asked for": (
        "gres: gpu:a100\n",
        "\n",
        "partitions.gpu: the cluster has devices there (Gres=gpu:a100:4)",
    ),
}


@pytest.mark.parametrize("case", LESS)
def test_what_a_profile_gives_away_is_a_warning(profile: Profile, case: str) -> None:
    right, wrong, what = LESS[case]
    found = profile.with_(right, wrong)
    if case != "an energy plugin that is another":
        assert told(found, "bad") == []
    assert any(it.what.startswith(what) for it in found if it.verdict != "ok"), found


def test_a_hint_that_the_cluster_confirms_need_not_be_one(profile: Profile) -> None:
    found = profile.with_("time: 5m", "time: {value: 5m, source: a friend, confidence: C}")
    hint = f"partitions.short.time is 5m ({profile.path}, line 15): a hint"
    assert Finding("ok", hint, "The cluster confirms it: its confidence can be A.") in found


def test_an_account_that_is_not_yours_is_named_with_those_that_are(profile: Profile) -> None:
    settings = profile.settings.read_text()
    profile.settings.write_text(settings.replace("{box: {", "{box: {account: climat, "))
    (bad,) = told(profile.with_(), "bad")
    assert bad.startswith("account climat is none of yours (alice)")
    assert "did you mean 'climate'? (valid: climate, weather)" in bad


def test_a_strict_site_wants_an_account_and_few_jobs(strict_profile: Profile) -> None:
    bad = told(strict_profile.with_("max_array: 1001", "max_array: 11\nmax_submitted: 30"), "bad")
    named = [it.partition(" ->")[0] for it in bad]
    assert named[0].startswith("max_submitted is 30") and "the cluster says 20" in named[0]
    assert named[1].startswith("account_required is false (default of hpcml)")
    assert named[2] == "your settings name no account, and jobs must"
    assert bad[2].endswith("climate, weather.")


def test_without_accounting_accounts_are_not_known(unaccounted_profile: Profile) -> None:
    settings = unaccounted_profile.settings
    settings.write_text(settings.read_text().replace("{box: {", "{box: {account: climate, "))
    found = unaccounted_profile.with_()
    assert told(found, "bad") == []
    assert [it.what for it in found if it.verdict == "unknown"] == [
        "whether your accounts may pay: the cluster shows no accounts"
    ]
