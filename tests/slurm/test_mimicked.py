"""Jobs on a box that mimics real sites: each lands on the nodes, devices and CPUs it should."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hpcml.sites import load_site
from tests.slurm.site import Login
from tests.testbed.box import Box, this_python
from tests.testbed.conftest import brought_up

pytestmark = pytest.mark.testbed

# What a box has not: types of MPI that are a site's own.
MPI_TYPES_OF_SITES = ("pspmix", "pmi2")

TELL = 'echo "$SLURMD_NODENAME ${CUDA_VISIBLE_DEVICES:-none} $SLURM_CPUS_PER_TASK"'


@dataclass(frozen=True)
class Expected:
    """Where a job is to land.

    Attributes
    ----------
    partition : str
    ask : str
        Its resources, as Python.
    nodes, ranks : int
        In all, and on each node.
    devices : str
        That each rank sees; {rank}: its own, as where devices are given to tasks.
    cpus : int
        Of each rank.
    told : str
        What else Slurm shows of it.
    """

    partition: str
    ask: str
    nodes: int
    ranks: int
    devices: str
    cpus: int
    told: str = "Account=climate"


EXPECTED = {
    "juwels-booster": Expected("booster", "device='gpu', nodes=2", 2, 4, "0,1,2,3", 24),
    "lumi-g": Expected("standard-g", "device='gpu', devices=16", 2, 8, "0,1,2,3,4,5,6,7", 7),
    "jureca-dc": Expected("dc-ipu", "device='ipu'", 1, 1, "none", 96, "Account=weather"),
    "leonardo": Expected("boost_usr_prod", "device='gpu', devices=2", 1, 2, "0,1", 8),
    "marenostrum5": Expected(
        "acc", "device='gpu', min_device_memory='60 GiB'", 1, 4, "0,1,2,3", 20, "QOS=acc_ehpc"
    ),
    "daint": Expected("normal", "device='gpu', nodes=2", 2, 4, "{rank}", 72),
    "frontier": Expected("batch", "device='gpu', nodes=2", 2, 8, "{rank}", 7),
    "perlmutter": Expected(
        "gpu", "device='gpu', nodes=2", 2, 4, "0,1,2,3", 32, "Account=climate_g"
    ),
}


@pytest.fixture(scope="module")
def mimicking() -> Iterator[Box]:
    """A box of its own: what it mimics changes it for good."""
    yield from brought_up(binds=this_python())


def at_home(box: Box, name: str) -> Login:
    """A user's part of a site, whose login node is this one."""
    login = Login(box)
    site = load_site(name)
    own = [f"{key}: weather" for key, part in site.partitions.items() if part.own_account]
    profile = f"extends: {name}\ntransport: local\nworkspace: {login.home}/ws\n"
    if site.launch.mpi in MPI_TYPES_OF_SITES:
        profile += "launch: {mpi: unknown}\n"
    login.write(f".config/hpcml/sites/{name}.yaml", profile)
    yours = f"account: climate, accounts: {{{', '.join(own)}}}"
    login.write(".config/hpcml/config.yaml", f"sites: {{{name}: {{{yours}}}}}\n")
    return login


@pytest.mark.parametrize("name", EXPECTED)
def test_a_job_lands_on_the_nodes_devices_and_cpus_of_a_mimicked_site(
    mimicking: Box, name: str
) -> None:
    expected = EXPECTED[name]
    mimicking.mimic(load_site(name), expected.partition)
    login = at_home(mimicking, name)

    run, state, said = login.do(
        f"""
        run = hpcml.submit(job(S["tell"], {expected.ask}), "{name}").wait(120)
        tell([run.id, f"{{run.state}} {{run.reason}}", run.logs(stream="stdout")])
        """,
        tell=TELL,
    )

    assert state.startswith("COMPLETED"), state
    nodes = [f"{expected.partition}-n{number}" for number in range(1, expected.nodes + 1)]
    assert sorted(said.splitlines()) == sorted(
        f"{node} {expected.devices.format(rank=rank)} {expected.cpus}"
        for node in nodes
        for rank in range(expected.ranks)
    )
    shown = mimicking.run("login", ["scontrol", "-o", "show", "job", login.queue_id(run)]).stdout
    assert {f"Partition={expected.partition}", expected.told} <= {*shown.split(" ")}
