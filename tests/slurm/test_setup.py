"""From a profile to a first job: ``hpcml sites setup``, at a supercomputer in a box."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from hpcml.connection import bind
from hpcml.sites import load_site
from hpcml.transports.ssh import way_to
from tests.cli.calling import HPCML, call
from tests.slurm.conftest import emptied
from tests.slurm.outside import Outside
from tests.slurm.site import Login
from tests.testbed.box import Box, python
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed


class Newcomer(Outside):
    """Somebody outside, with a profile of the site and hardly any settings."""

    def __init__(self, box: Box, home: Path, facts: str = "", partition: str = "") -> None:
        super().__init__(box, home, facts=facts, partition=partition)
        self.config = home / "config" / "hpcml" / "config.yaml"
        self.profile = self.config.parent / "sites" / "box.yaml"
        self.write(f"# mine\nsites:\n  box:\n    ssh_config: {box.ssh_config()}  # how\n")

    def write(self, text: str) -> None:
        self.config.write_text(text)
        self.before = text

    def change_profile(self, old: str, new: str) -> None:
        text = self.profile.read_text()
        assert old in text
        self.profile.write_text(text.replace(old, new))

    def untouched(self) -> bool:
        return self.config.read_text() == self.before


def setting_up(*args: str) -> Any:
    """``hpcml sites setup box`` on a terminal."""
    words = [*HPCML[1:], "sites", "setup", "box", *args]
    return pexpect.spawn(HPCML[0], words, encoding="utf-8", timeout=PATIENCE, dimensions=(50, 250))


def ended(terminal: Any) -> tuple[int, str]:
    """Exit code, and all that was shown since the last question."""
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus, terminal.before.replace("\r\n", "\n")


@pytest.fixture
def newcomer(unfriendly: Box, home: Path) -> Iterator[Newcomer]:
    """To a csh that prints, few inodes, and Slurm that wants to know who pays."""
    made = Newcomer(
        unfriendly, home, "max_array: 100\naccount_required: true", "memory_option: never"
    )
    yield made
    emptied(unfriendly)


def hostname() -> subprocess.CompletedProcess[str]:
    """A first job, as setting up ends by saying."""
    return call("submit", "--site", "box", "--wait", "--", "hostname", timeout=PATIENCE)


def test_who_answers_what_is_asked_can_submit(newcomer: Newcomer) -> None:
    newcomer.change_profile(f"workspace: {newcomer.there}/ws\n", "")
    terminal = setting_up()
    terminal.expect("Account that pays.*: ")
    terminal.sendline("climat")
    terminal.expect("climat is no account of yours")
    terminal.expect("Account that pays.*: ")
    terminal.sendline("climate")
    terminal.expect("Folder for hpcml's files.*: ")
    terminal.sendline("$NO_SUCH_PLACE/hpcml")
    terminal.expect("NO_SUCH_PLACE is not set there")
    terminal.expect("Folder for hpcml's files.*: ")
    terminal.sendline(f"{newcomer.there}/$USER/hpcml")
    terminal.expect("Partition that is tried first.*: ")
    terminal.sendline("")
    code, shown = ended(terminal)

    assert code == 0, shown
    assert "climate is yours" in shown and "sbatch would take a job in partition cpu" in shown
    assert "hpcml submit --site box --wait -- hostname" in shown
    assert newcomer.config.read_text() == newcomer.before + (
        f"    workspace: {newcomer.there}/alice/hpcml\n    account: climate\n"
    )
    assert stat.S_IMODE(newcomer.config.stat().st_mode) == 0o600
    done = hostname()
    assert done.returncode == 0, done.stderr

    again = call("sites", "setup", "box", "--yes")
    assert again.returncode == 0, again.stderr
    assert "says all of it already" in again.stdout


def test_a_login_shell_that_prints_without_end_is_told(newcomer: Newcomer, unfriendly: Box) -> None:
    rc = unfriendly.path("login", "/home/alice/.cshrc")
    before = rc.read_text()
    rc.write_text("yes\n")
    try:
        done = call("sites", "setup", "box", "--account", "climate", "--yes")
    finally:
        rc.write_text(before)
    assert done.returncode == 70
    assert "the login shell of box prints without end" in done.stderr
    assert newcomer.untouched()


def test_a_script_answers_by_options_and_variables_are_those_of_the_login_shell(
    newcomer: Newcomer, unfriendly: Box
) -> None:
    newcomer.change_profile(f"workspace: {newcomer.there}/ws\n", "")
    rc = unfriendly.path("login", "/home/alice/.cshrc")
    before = rc.read_text()
    rc.write_text(f"{before}setenv SCRATCH {newcomer.there}\n")
    try:
        done = call("sites", "setup", "box", "--account", "weather", "--yes")
    finally:
        rc.write_text(before)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"workspace: {newcomer.there}/hpcml\n" in newcomer.config.read_text()
    assert hostname().returncode == 0


def test_where_nobody_can_be_asked_the_option_that_answers_is_named(newcomer: Newcomer) -> None:
    for words in ((), ("--yes",)):
        done = call("sites", "setup", "box", *words)
        assert done.returncode == 70
        assert "Account that pays: nobody can be asked" in done.stderr
        assert "--account, one of climate, weather" in done.stderr
    assert newcomer.untouched()


def test_an_account_that_is_not_yours_is_told_and_written_only_if_you_insist(
    newcomer: Newcomer,
) -> None:
    words = ("sites", "setup", "box", "--account", "nobody", "--partition", "cpu")
    done = call(*words)
    assert done.returncode == 70 and "nothing was written" in done.stderr
    assert "bad\taccount\taccount nobody is none of yours (alice)\tvalid: climate" in done.stdout
    assert "bad\tqueue\tsbatch would not take a job" in done.stdout
    assert newcomer.untouched()

    terminal = setting_up("--account", "nobody", "--partition", "cpu")
    terminal.expect("Write the settings all the same.*: ")
    terminal.sendline("n")
    code, _ = ended(terminal)
    assert code == 70 and newcomer.untouched()

    done = call(*words, "--yes")
    assert done.returncode == 1
    assert "then: hpcml sites doctor box" in done.stdout and "Try it" not in done.stdout
    assert "account: nobody\n" in newcomer.config.read_text()

    terminal = setting_up()  # there is nothing more to write, and nothing to be asked
    code, shown = ended(terminal)
    assert code == 70 and "a check has failed" in shown and "all the same" not in shown


@pytest.mark.parametrize(
    ("mode", "told"), [("500", "Permission denied"), ("755", "is not this user's alone")]
)
def test_a_workspace_that_cannot_be_used_is_told_and_not_written(
    newcomer: Newcomer, mode: str, told: str
) -> None:
    newcomer.box.run("login", ["mkdir", "-m", mode, f"{newcomer.there}/ws"])
    done = call("sites", "setup", "box", "--account", "climate", "--partition", "cpu")

    assert done.returncode == 70
    assert "bad\treach" in done.stdout and told in done.stdout
    assert "unknown\tqueue\tnot looked at: see reach" in done.stdout
    assert newcomer.untouched()


def test_who_presses_ctrl_c_finds_the_settings_as_they_were(newcomer: Newcomer) -> None:
    terminal = setting_up()
    terminal.expect("Account that pays.*: ")
    terminal.sendintr()
    code, shown = ended(terminal)
    assert code == 75 and "The settings are as they were" in shown

    terminal = setting_up("--account", "nobody", "--partition", "cpu")
    terminal.expect("answers, by ssh")
    terminal.sendintr()
    code, _ = ended(terminal)
    assert code == 75
    assert newcomer.untouched()


def test_settings_that_are_wrong_are_told_before_anything_is_asked(newcomer: Newcomer) -> None:
    newcomer.write("sites:\n  box: {acount: x}\n")
    terminal = setting_up()
    code, shown = ended(terminal)
    assert code == 70
    assert "line 2" in shown and "'account'" in shown and "Account that pays" not in shown
    assert newcomer.untouched()


def test_what_the_site_asks_beside_is_asked_on_the_same_terminal_once(
    newcomer: Newcomer, tmp_path: Path
) -> None:
    """A key with a passphrase stands for all that only a person can answer."""
    way_to(load_site("box"), bind(load_site("box"))).close()
    config = newcomer.box.ssh_config()
    key = tmp_path / "key"
    shutil.copy(config.parent / "key", key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
    mine = tmp_path / "ssh_config"
    mine.write_text(config.read_text().replace(str(config.parent / "key"), str(key)))
    newcomer.write(f"sites: {{box: {{ssh_config: {mine}}}}}\n")

    terminal = setting_up("--partition", "cpu")
    terminal.expect("passphrase for key.*: ")
    terminal.sendline("secret")
    terminal.expect("Account that pays.*: ")
    terminal.sendline("climate")
    code, shown = ended(terminal)
    way_to(load_site("box"), bind(load_site("box"))).close()

    assert code == 0 and "passphrase" not in shown, shown
    assert "account: climate" in newcomer.config.read_text()


def test_on_the_login_node_it_is_the_same(friendly: Box) -> None:
    login = Login(friendly)
    login.write(".config/hpcml/config.yaml", "records:  # none yet\n")
    hpcml = ["env", f"HOME={login.home}", *python(), *HPCML[1:]]
    done = friendly.run("login", [*hpcml, "sites", "setup", "box", "--yes"], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"workspace: {login.home}/ws" in login.read(".config/hpcml/config.yaml")
    assert login.read(".config/hpcml/config.yaml").startswith("records:  # none yet\n")
    submit = ["submit", "--site", "box", "--wait", "--", "hostname"]
    friendly.run("login", [*hpcml, *submit], timeout=PATIENCE)


def test_without_accounting_slurm_itself_is_asked_whether_it_takes_a_job(
    unaccounted: Box, home: Path
) -> None:
    newcomer = Newcomer(unaccounted, home, "account_required: true")
    done = call("sites", "setup", "box", "--account", "climate", "--yes")
    assert done.returncode == 0, done.stderr
    told = "unknown\taccount\twhether your accounts may pay: the cluster shows no accounts"
    assert told in done.stdout
    assert "ok\tqueue\tsbatch would take a job in partition cpu" in done.stdout
    assert "account: climate" in newcomer.config.read_text()
    emptied(unaccounted)


def test_a_partition_that_is_not_there_is_refused_before_anything_else(newcomer: Newcomer) -> None:
    done = call("sites", "setup", "box", "--partition", "gpus")
    assert done.returncode == 70 and "did you mean 'gpu'?" in done.stderr
    assert newcomer.untouched()
