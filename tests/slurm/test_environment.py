"""What a site wants of a run's environment: modules, a prelude, a network, a kind of MPI."""

from __future__ import annotations

import shlex

import pytest

from tests.slurm.site import Login
from tests.slurm.test_launch import MEET, RANKS, printed
from tests.testbed.box import Box

pytestmark = pytest.mark.testbed

# As Lmod and Environment Modules: a function of login shells, which says on stderr what is wrong.
MODULES = """\
module() {
    [ "$1" = load ] || return 1
    if [ ! -f "/etc/modulefiles/$2" ]; then
        echo "ERROR: Unable to locate a modulefile for '$2'" >&2
        return 1
    fi
    . "/etc/modulefiles/$2"
}
"""
TOOLBOX = "export TOOLBOX=1.0 MODE=module PYTHONPATH=/opt/toolbox OMP_NUM_THREADS=1\n"
FACTS = """\
modules: [toolbox/1.0]
prelude: ["export PRELUDE=$TOOLBOX", "cd /"]
environment: {SITE: "of the site"}
launch: {mpi: pmi2, cpu_bind: none, rendezvous_suffix: -fast, interface: lo}
"""


@pytest.fixture(scope="module")
def modular(friendly: Box) -> Box:
    """A cluster with modules, and a second network that its hosts have names in."""
    names = "".join(f"{friendly.hosts.address(host)} {host}-fast\n" for host in ("cpu1", "cpu2"))
    for host in ("cpu1", "cpu2"):
        for path, text in (
            ("/etc/profile.d/modules.sh", MODULES),
            ("/etc/modulefiles/toolbox/1.0", TOOLBOX),
        ):
            put = 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"'
            friendly.hosts.run(host, "sh", "-c", put, "sh", path, text)
        add = 'grep -q fast /etc/hosts || printf %s "$1" >> /etc/hosts'
        friendly.hosts.run(host, "sh", "-c", add, "sh", names)
    return friendly


def test_modules_and_prelude_come_before_each_run_and_the_job_s_own_word_last(
    modular: Box,
) -> None:
    login = Login(modular, facts=FACTS)
    tell = "import hpcml, os; print(os.environ['PYTHONPATH'].endswith(':/opt/toolbox'))"
    command = "echo $TOOLBOX $PRELUDE $SITE $MODE $OMP_NUM_THREADS ${PWD##*/}; python3 -c "
    command += shlex.quote(tell)
    run = login.submit(f"job({command!r}, env={{'MODE': 'job'}}, cpus=2)")

    assert login.wait(run) == [("COMPLETED", "")]
    assert printed(login, run) == ["1.0 1.0 of the site job 1 work", "True"]


def test_a_module_that_is_not_there_fails_the_run_with_what_it_said(modular: Box) -> None:
    login = Login(modular, facts="modules: [toolbox/1.0, toolbox/2.0]")
    run = login.submit("job('echo began')")

    assert login.wait(run) == [
        (
            "FAILED",
            "before its command started, 'module load toolbox/2.0' failed: "
            "ERROR: Unable to locate a modulefile for 'toolbox/2.0'",
        )
    ]


def test_ranks_meet_in_the_fast_network_and_are_started_with_the_site_s_mpi(modular: Box) -> None:
    login = Login(modular, facts=FACTS)
    login.write("meet.py", MEET)
    command = "echo $MASTER_ADDR $NCCL_SOCKET_IFNAME $PMI_RANK $TOOLBOX; exec python3 $S/meet.py"
    run = login.submit(f"job({command!r}, {RANKS})")

    assert login.wait(run) == [("COMPLETED", "")]
    told = printed(login, run)
    assert "met [1, 2, 3]" in told
    names = {line.split()[0] for line in told if line != "met [1, 2, 3]"}
    assert len(names) == 1 and names <= {"cpu1-fast", "cpu2-fast"}
    assert sorted(line.partition(" ")[2] for line in told if line != "met [1, 2, 3]") == [
        f"lo {rank} 1.0" for rank in range(4)
    ]


def test_an_image_is_started_after_its_module_and_sees_the_site_s_folders(modular: Box) -> None:
    folder = modular.image.rpartition("/")[0]
    container = f"{{runtime: apptainer, module: toolbox/1.0, binds: [{folder}]}}"
    login = Login(modular, facts=f"container: {container}")
    run = login.submit(
        f'hpcml.Job(["/bin/sh", "-c", "ls {folder}; echo $TOOLBOX"], code=None, '
        f'image="{modular.image}", resources=hpcml.Resources(time="5m"))'
    )

    assert login.wait(run) == [("COMPLETED", "")]
    assert {modular.image.rpartition("/")[2], "1.0"} <= set(printed(login, run))


def test_an_account_that_the_site_does_not_take_is_refused_with_its_own_rule_and_can_be_mended(
    modular: Box,
) -> None:
    login = Login(modular, account="project7", facts="account_rule: the budget, not the project")
    told = login.do(
        """
        from hpcml.errors import QueueError
        try: hpcml.submit(job("true"), "box")
        except QueueError as error: tell(str(error))
        """
    )
    assert "account" in told
    assert "Of accounts on box: the budget, not the project." in told

    login.write(".config/hpcml/config.yaml", "sites: {box: {account: climate}}\n")
    again = login.do('tell(hpcml.resubmit(hpcml.runs(site="box")[0])[0].id)')
    assert login.wait(again) == [("COMPLETED", "")]


def test_slurm_is_called_by_the_configuration_that_slurm_conf_names(login: Login) -> None:
    """That of a site's second cluster, say. Here it is the only one that the login node has."""
    conf, hosts = f"{login.home}/slurm.conf", login.box.hosts
    hosts.run("login", "cp", "/etc/slurm/slurm.conf", conf)
    hosts.run("login", "mount", "-t", "tmpfs", "none", "/etc/slurm")
    try:
        assert login.box.run("login", ["scontrol", "ping"], check=False).returncode
        said = login.do(
            """
            run = hpcml.submit(job("squeue --me --noheader --format=%T"), "box").wait(60)
            tell([run.state, run.logs()])
            """,
            environment={"SLURM_CONF": conf},
        )
    finally:
        hosts.run("login", "umount", "/etc/slurm")

    assert said == ["COMPLETED", "RUNNING\n"]
