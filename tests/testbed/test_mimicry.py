"""A box that mimics a real site takes what hpcml would submit there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcml.sites import load_site
from tests.golden.plans import cases, sites
from tests.testbed.box import Box
from tests.testbed.conftest import brought_up
from tests.testbed.using import refused

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def mimicking() -> Iterator[Box]:
    """A box of its own: what it mimics changes it for good."""
    yield from brought_up()


@pytest.mark.parametrize("name", [name for name in sites() if name != "local"])
def test_slurm_takes_all_that_is_submitted_on_a_site(mimicking: Box, name: str) -> None:
    mimicking.mimic(load_site(name))
    for case in cases(name):
        test = ["sbatch", "--test-only"]
        done = mimicking.run("login", test, stdin=case.plan().script, check=False)
        assert done.returncode == 0, f"{case.name}: {done.stderr}"


REFUSED = {
    "devices that Slurm knows nothing of": (
        "jureca-dc",
        ["--account=weather", "--partition=dc-mi200", "--gres=gpu:1"],
        "node configuration",
    ),
    "an evaluation partition on the usual account": (
        "jureca-dc",
        ["--account=climate", "--partition=dc-ipu"],
        "account",
    ),
    "cores that are reserved": (
        "lumi-g",
        ["--account=climate", "--partition=standard-g", "--cpus-per-task=64"],
        "node configuration",
    ),
    "memory where it may not be said": (
        "marenostrum5",
        ["--account=climate", "--partition=acc", "--qos=acc_ehpc", "--mem=1G"],
        "Memory may not be requested",
    ),
    "no memory where it must be said": (
        "e4",
        ["--account=climate", "--partition=i-gpu-a100"],
        "Say how much memory",
    ),
    "a walltime over that of the QOS": (
        "leonardo",
        ["--account=climate", "--partition=boost_usr_prod", "--qos=boost_qos_dbg", "--time=60"],
        "QOSMaxWall",
    ),
    "a walltime over that of the partition": (
        "clariden",
        ["--account=climate", "--partition=normal", "--time=13:00:00"],
        "time limit",
    ),
    "more nodes than a job may have": (
        "daint",
        ["--account=climate", "--partition=debug", "--nodes=3", "--time=5"],
        "Node count",
    ),
    "a job that names no account": (
        "lumi-g",
        ["--partition=standard-g"],
        "account",
    ),
    "a feature that no node has": (
        "perlmutter",
        ["--account=climate", "--constraint=gpus"],
        "feature",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_slurm_refuses_what_the_site_would(mimicking: Box, case: str) -> None:
    name, options, words = REFUSED[case]
    mimicking.mimic(load_site(name))
    assert words in refused(mimicking, "--test-only", *options, "--wrap", "true")
