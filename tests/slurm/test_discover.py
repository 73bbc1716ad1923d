"""``hpcml sites discover``: the first profile of a cluster is one that runs jobs there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcml
from hpcml.settings import SiteSettings
from hpcml.sites import Site, load_site, site_names, wrong_with
from hpcml.surveying.comparing import disagreements
from hpcml.surveying.discovering import Discovery, discover
from tests.cli.calling import call
from tests.contract.conftest import ssh_of
from tests.slurm.conftest import emptied
from tests.slurm.outside import Outside
from tests.slurm.site import Login
from tests.testbed.box import Box, python, this_python
from tests.testbed.conftest import brought_up

pytestmark = pytest.mark.testbed

DEVICES = 'echo "$SLURM_JOB_PARTITION ${CUDA_VISIBLE_DEVICES:-none}"'


def settings(home: Path, box: Box, *sites: str) -> None:
    """Settings of a user who reaches sites by ssh."""
    python = os.path.realpath(sys.executable)
    yours = f"{{ssh_config: {box.ssh_config()}, python: {python}, account: climate}}"
    lines = "".join(f"  {site}: {yours}\n" for site in sites)
    folder = home / "config" / "hpcml"
    (folder / "sites").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"sites:\n{lines}")


@pytest.fixture
def outside(friendly: Box, home: Path) -> Iterator[Outside]:
    found = Outside(friendly, home)
    (home / "config" / "hpcml" / "sites" / "box.yaml").unlink()
    settings(home, friendly, "box", "found")
    yield found
    for site in ("box", "found"):
        if site in site_names():
            ssh_of(site).close()
    emptied(friendly)


def test_what_is_found_by_ssh_validates_plans_and_runs_jobs(outside: Outside) -> None:
    done = call("sites", "discover", "found", "--host", "box", "--workspace", outside.there)
    assert done.returncode == 0, done.stderr
    assert wrong_with("found") == []

    decisions = hpcml.plan(hpcml.Job(["hostname"], code=None), "found").decisions
    assert decisions[0].startswith("partition cpu: the first with device 'cpu'")
    for wanted, said in ({}, "cpu none"), ({"device": "gpu", "devices": 2}, "gpu 0,1"):
        resources = hpcml.Resources(time="5m", cpus=1, **wanted)
        job = hpcml.Job(["/bin/sh", "-c", DEVICES], code=None, resources=resources)
        run = hpcml.submit(job, "found").wait(120)
        assert (run.state, run.reason) == ("COMPLETED", "")
        assert set(run.logs(stream="stdout").splitlines()) == {said}


def test_what_is_found_on_the_login_node_runs_jobs(friendly: Box) -> None:
    login = Login(friendly)
    environment = ["env", f"HOME={login.home}", f"--chdir={login.home}", *python()]
    hpcml_there = [*environment, "-c", "from hpcml.cli import main; main()"]
    command = [*hpcml_there, "sites", "discover", "found", "--workspace", f"{login.home}/ws"]
    path = friendly.run("login", command).stdout.strip()
    assert path == f"{login.home}/.config/hpcml/sites/found.yaml"
    friendly.run("login", [*hpcml_there, "sites", "validate", "found"])

    for ask, said in ("", "cpu none"), ("device='gpu', devices=1", "gpu 0"):
        state, logs = login.do(
            f"""
            run = hpcml.submit(job(S["tell"], {ask}), "found").wait(120)
            tell([f"{{run.state}} {{run.reason}}", run.logs(stream="stdout")])
            """,
            tell=DEVICES,
        )
        assert (state, logs) == ("COMPLETED ", f"{said}\n")
    emptied(friendly)


def test_a_profile_tells_where_it_is_from_and_what_was_concluded(outside: Outside) -> None:
    done = call("sites", "discover", "--host", "box", "--workspace", outside.there)
    assert done.returncode == 0, done.stderr
    site = load_site("box")  # what the cluster calls itself
    limit = site.origin("partitions.gpu.time")
    assert limit is not None and limit.confidence == "A"
    assert (limit.source or "").startswith("scontrol show config, partition, node; sacctmgr")
    assert "box, Slurm 2" in (limit.source or "")
    device = site.origin("partitions.gpu.node.device.architecture")
    assert device is not None and (device.source, device.confidence) == (
        "by the name of its gres, a100",
        "B",
    )
    assert site.partitions["gpu"].node.device.memory is None, "some have 40 GB, and some 80"
    assert site.container.runtime == "apptainer"


def test_nothing_is_replaced(outside: Outside, tmp_path: Path) -> None:
    to = ("--host", "box", "--workspace", outside.there)
    done = call("sites", "discover", "lumi-g", *to)
    assert done.returncode != 0
    assert "there is a site lumi-g already" in done.stderr
    taken = tmp_path / "found.yaml"
    taken.write_text("mine")
    done = call("sites", "discover", "--output", str(taken), *to)
    assert done.returncode != 0 and "is there already" in done.stderr
    assert taken.read_text() == "mine"


def test_variables_and_names_of_a_workspace_are_filled_in_when_the_site_is_set_up(
    outside: Outside,
) -> None:
    """Nothing is made there before that, least of all a folder called $USER."""
    workspace = f"{outside.there}/$USER/{{project}}"
    done = call("sites", "discover", "found", "--host", "box", "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    plan = call("plan", "--site", "found", "--", "hostname")
    assert plan.returncode == 70 and "hpcml sites setup found" in plan.stderr
    assert list(outside.folder.iterdir()) == []

    done = call("sites", "setup", "found", "--project", "storms", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert call("plan", "--site", "found", "--", "hostname").returncode == 0
    assert (outside.folder / "alice" / "storms").is_dir()


def test_a_profile_can_be_printed(outside: Outside) -> None:
    done = call("sites", "discover", "-o", "-", "--host", "box", "--workspace", outside.there)
    assert done.returncode == 0, done.stderr
    assert "\nname: box\n" in done.stdout and "\npartitions:\n" in done.stdout
    assert "box" not in site_names()


def test_an_option_is_no_host() -> None:
    done = call("sites", "discover", "here", "--host=-oProxyCommand=evil", "-o", "-")
    assert done.returncode != 0
    assert "is no host" in done.stderr


def test_a_machine_without_slurm_says_so() -> None:
    done = call("sites", "discover", "here", "-o", "-")
    assert done.returncode != 0
    assert "scontrol" in done.stderr and "--host" in done.stderr


# --- beside the profiles that come along ------------------------------------------------


@pytest.fixture(scope="module")
def mimicking() -> Iterator[Box]:
    """A box of its own: what it mimics changes it for good."""
    yield from brought_up(binds=this_python(), kill_wait=30)


SHIPPED = ("juwels-booster", "lumi-g", "marenostrum5", "leonardo", "jureca-dc")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_found_does_not_contradict_what_is_known_of_a_site(
    mimicking: Box, home: Path, name: str
) -> None:
    shipped = load_site(name)
    mimicking.mimic(shipped)
    settings(home, mimicking, "found")
    workspace = f"/scratch/{name}"
    mimicking.run("login", ["mkdir", "-p", "-m", "700", workspace])
    discovery = discover("found", "box", workspace)
    found = in_file(discovery, home)

    for site in shipped, found:
        own = {key: "weather" for key, part in site.partitions.items() if part.own_account}
        yours = SiteSettings(account="climate", accounts=own)
        said = disagreements(site, discovery.cluster, yours)
        assert [it for it in said if it.verdict == "bad"] == [], f"of {site.name}"
    assert contradictions(shipped, found) == []


def in_file(discovery: Discovery, home: Path) -> Site:
    (home / "config" / "hpcml" / "sites" / "found.yaml").write_text(discovery.text())
    return load_site("found")


def contradictions(shipped: Site, found: Site) -> list[str]:
    """Facts of partitions that both say, and not alike."""
    assert set(found.partitions) == {
        key
        for key, part in shipped.partitions.items()
        if part.partition_option or key in found.partitions
    }
    wrong = []
    for key, mine in found.partitions.items():
        theirs = shipped.partitions[key]
        facts = {
            "time": (mine.longest(1), theirs.longest(1)),
            "node_sharing": (mine.node_sharing, theirs.node_sharing),
            "cpus": (mine.node.cpus, theirs.node.cpus),
            "reserved_cores": (mine.node.reserved_cores, theirs.node.reserved_cores),
            "devices": (mine.node.devices or None, theirs.node.devices or None),
            "gres": (mine.gres, theirs.gres),
            "architecture": (mine.node.architecture, theirs.node.architecture),
        }
        wrong += [
            f"{key}.{fact}: {one}, {other}"
            for fact, (one, other) in facts.items()
            if None not in (one, other) and one != other
        ]
    return wrong
