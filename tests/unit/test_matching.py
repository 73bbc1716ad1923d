"""Which sites and partitions can run a job is known from their profiles, without asking anybody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml.errors import JobError
from hpcml.matching import Match

SITE = """\
name: hill
scheduler: slurm
transport: ssh
ssh: {host: hill.example.org}
account_required: true
container: {runtime: docker}
partitions:
  gpu:
    nodes: 4
    time: 1h
    gres: gpu
    node: {device: gpu, devices: 4, cpus: 32, memory: 256 GiB}
  cpu:
    nodes: 4
    time: {value: 1d, source: a forum, confidence: C}
    node: {cpus: 32, memory: 1 GiB}
"""


@pytest.fixture(autouse=True)
def profile(home: Path) -> Path:
    path = home / "config" / "hpcml" / "sites" / "hill.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SITE)
    return path


def found(partition: str, site: str = "hill", **asked: Any) -> Match:
    image = asked.pop("image", None)
    job = hpcml.Job(["true"], code=None, image=image, resources=hpcml.Resources(**asked))
    (one,) = [it for it in hpcml.match(job) if (it.site, it.partition) == (site, partition)]
    return one


def test_a_partition_that_fits_says_how_much_of_it_and_what_is_not_sure() -> None:
    match = found("gpu", device="gpu", devices=8)
    assert (match.fits, match.nodes, match.devices, match.reason) == (True, 2, 8, "")
    told = "\n".join(match.doubts)
    assert "no workspace is known on hill" in told and "wants to know who pays" in told

    hint = "walltime limit: 1-00:00:00 (a hint, source: a forum): the site may refuse"
    assert f"partition cpu: {hint}" in found("cpu").doubts


@pytest.mark.parametrize(
    ("partition", "asked", "why"),
    [
        ("cpu", {"device": "gpu"}, "partition 'cpu' has no device 'gpu'"),
        ("gpu", {"device": "gpu", "time": "2h"}, "walltime limit of gpu: 01:00:00"),
        ("gpu", {"device": "gpu", "devices": 32}, "most nodes of a job of gpu: 4"),
        ("cpu", {"options": {"partition": "gpu"}}, "the job asks for 'gpu'"),
    ],
)
def test_a_partition_that_cannot_run_the_job_says_why(
    partition: str, asked: dict[str, Any], why: str
) -> None:
    match = found(partition, **asked)
    assert not match.fits and why in match.reason


def test_a_site_that_cannot_start_the_image_does_not_fit(project: Path) -> None:
    (project / "x.sif").write_bytes(b"")
    match = found("gpu", device="gpu", image="x.sif")
    assert not match.fits and "hill has docker for images" in match.reason


def test_a_profile_that_cannot_be_read_is_told_and_the_others_are_matched(profile: Path) -> None:
    profile.write_text("name: hill\npartitons: {}\n")
    assert "partitons" in found("").reason
    assert found("local", site="local").fits


def test_those_that_fit_come_first_and_real_systems_are_among_them() -> None:
    job = hpcml.Job(["true"], code=None, resources=hpcml.Resources(device="gpu", time="10m"))
    matches = hpcml.match(job, resources=hpcml.Resources(device="gpu", min_device_memory="60 GiB"))

    assert [one.fits for one in matches] == sorted((one.fits for one in matches), reverse=True)
    names = {(one.site, one.partition) for one in matches.fitting}
    assert {("lumi-g", "standard-g"), ("leonardo", "boost_usr_prod")} <= names
    assert ("juwels-booster", "booster") not in names, "its devices have 40 GB"


def test_a_job_that_cannot_be_meant_is_refused_on_all_sites_at_once() -> None:
    with pytest.raises(JobError, match="cpus"):
        found("cpu", cpus=0)


def test_matching_loads_no_database() -> None:
    code = (
        "import hpcml, sys; hpcml.match(hpcml.Job(['true'], code=None)); "
        "sys.exit('sqlalchemy' in sys.modules or 'rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plan_loads_neither_a_database_nor_what_checks_profiles_that_are_known(
    home: Path,
) -> None:
    code = (
        "import hpcml, sys; hpcml.plan(hpcml.Job(['true'], code=None)); "
        "slow = {'sqlalchemy', 'rich', 'pydantic', 'yaml', 'importlib.metadata'}; "
        "print(sorted(slow & set(sys.modules)))"
    )
    loaded = [
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout for process in loaded] == [
        "['importlib.metadata', 'pydantic', 'yaml']\n",
        "[]\n",
    ]
