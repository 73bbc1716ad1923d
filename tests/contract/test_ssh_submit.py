"""Submitting to a site that is far away, and looking at it: what stands in plans, what it costs."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import hpcml
from hpcml.agent import wire
from hpcml.batch import batch_folder, batch_of
from hpcml.batch_view import BatchView, look
from hpcml.cli.sites import login_command
from hpcml.connection import bind, connect
from hpcml.errors import ProfileError
from hpcml.sites import load_site
from tests.cli.calling import call
from tests.contract.conftest import PROFILE, Loop, ssh_of, trips
from tests.contract.proxy import Proxy

# --- what is whose ------------------------------------------------------------------------


def test_a_plan_holds_the_sites_own_paths_and_nothing_of_this_machines(
    far: str, script: Callable[..., str], csh_user: pwd.struct_passwd
) -> None:
    run = hpcml.submit(script("print(1)"), site=far)

    connection = connect(far)
    workspace = connection.binding.workspace
    assert workspace.startswith(f"{csh_user.pw_dir}/")
    path = f"{batch_folder(batch_of(run.id))}/plan.json"
    where = json.loads(connection.files.get({path: 0})[path])["where"]
    assert (where["workspace"], where["user"]) == (workspace, csh_user.pw_name)
    assert (where["python"], where["agent_python"]) == (
        "/opt/venv/bin/python",
        "/usr/bin/python3",
    )
    ours = {"PYTHONUNBUFFERED", "OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK"}
    assert where["environment"].keys() == ours
    assert run.state == "PENDING"


def test_a_home_is_asked_for_once(far: str, script: Callable[..., str]) -> None:
    """Offline nobody knows it until then, and what takes it is no plan to be queued."""
    assert bind(load_site(far)).workspace.startswith("~/")
    assert "asked at first contact" in hpcml.plan(script("print(1)"), site=far).unresolved[0]

    connect(far)

    assert bind(load_site(far)).workspace.startswith("/")
    assert hpcml.plan("train.py", site=far).unresolved == ()


def test_a_workspace_far_away_is_named_from_the_root(far: str, home: Path) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    before = settings.read_text()
    profile = home / "config" / "hpcml" / "sites" / "far.yaml"
    settings.write_text(before.replace("    workspace: ~/", "    account: "))
    profile.write_text(PROFILE + "workspace: work/hpcml\n")

    with pytest.raises(ProfileError, match="does not begin at the root"):
        bind(load_site(far))
    settings.write_text(before)


def test_a_site_of_which_nobody_says_the_host_is_no_site_to_reach(far: str, home: Path) -> None:
    profile = home / "config" / "hpcml" / "sites" / "far.yaml"
    profile.write_text(PROFILE.replace("ssh: {host: loop}\n", ""))

    with pytest.raises(ProfileError, match="nothing says which host"):
        connect(far)
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.write_text(settings.read_text() + "    ssh_host: loop\n")
    assert connect(far).files.names("") == {"lib"}


@pytest.mark.parametrize("host", ["-oProxyCommand=sh", "a b", ""])
def test_no_host_is_an_option(far: str, home: Path, host: str) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    before = settings.read_text()
    settings.write_text(f"{before}    ssh_host: {host!r}\n")

    with pytest.raises(ProfileError, match="ssh_host"):
        connect(far)
    settings.write_text(before)


# --- what it costs ------------------------------------------------------------------------


@pytest.mark.parametrize("points", [1, 1000])
def test_a_submission_takes_few_round_trips_however_many_points_it_has(
    far: str, script: Callable[..., str], points: int
) -> None:
    job = hpcml.Job(script("print(1)"))
    first = trips(far, lambda: hpcml.submit(job.sweep(seed=range(points)), site=far))
    again = trips(far, lambda: hpcml.submit(job.sweep(seed=range(points)), site=far))

    assert (first, again) == (5, 5)


def test_a_function_takes_no_more(far: str) -> None:
    assert trips(far, lambda: hpcml.submit(os.getpid, site=far)) == 5


def test_on_a_slow_way_the_wire_itself_sees_no_more(
    far: str, script: Callable[..., str], loop: Loop
) -> None:
    """25 ms each way: counted are all turns of the conversation, those of ssh included."""
    proxy = Proxy(loop.server.port, delay=0.025)
    config = loop.folder / "config-far"
    config.write_text(loop.server.config("loop", "somebody-else", proxy.port))
    try:
        ssh_of(far).names("")
        proxy.turns = 0
        hpcml.submit(script("print(1)"), site=far)
        assert proxy.turns <= 6
    finally:
        proxy.close()


def test_a_look_at_fifty_batches_takes_two_round_trips(
    far: str, script: Callable[..., str]
) -> None:
    """A listing and the queue; with news of all of them one more, for what is new."""
    job = hpcml.Job(script("print(1)"))
    runs = [hpcml.submit(job, site=far) for _ in range(50)]
    connection = connect(far)
    views = [BatchView.load(batch_of(run.id), connection) for run in runs]

    assert trips(far, lambda: look(views)) == 2
    ends = {
        f"{view.attempts_folder}/0.1.end": wire.canonical(
            {"exit_code": 0, "signal": None, "received": [], "cause": None, "time": 1.0}
        )
        for view in views
    }
    connection.files.put(ends)
    assert trips(far, lambda: look(views)) == 3
    assert {view.seen[0].state for view in views} == {"COMPLETED"}


# --- logging in ---------------------------------------------------------------------------


def test_login_says_where_one_is(far: str, csh_user: pwd.struct_passwd) -> None:
    done = CliRunner().invoke(login_command, [far])

    assert done.exit_code == 0, done.exception
    assert done.output.startswith(f"far: logged in; workspace {csh_user.pw_dir}/")


def test_who_is_not_let_in_is_told_by_ssh(far: str, home: Path) -> None:
    settings = home / "config" / "hpcml" / "config.yaml"
    before = settings.read_text()
    settings.write_text(before.replace("    user: ", "    user: not-"))

    done = call("sites", "login", far)

    assert done.returncode == 70
    assert "Permission denied" in done.stderr and "far cannot be reached" in done.stderr
    settings.write_text(before)


def test_a_site_without_a_way_in_needs_no_login() -> None:
    done = call("sites", "login", "local")

    assert done.returncode == 70 and "asks for no login" in done.stderr
