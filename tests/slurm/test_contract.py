"""Slurm's queue keeps the contract of schedulers, with and without accounting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.site import Login, on_both_at_once
from tests.testbed.box import python

pytestmark = pytest.mark.testbed

SUITE = Path(__file__).with_name("on_the_login_node.py")


@on_both_at_once
def test_slurm_keeps_the_contract_of_schedulers(either: Login) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--noconftest", f"--rootdir={either.home}"]
    suite = [*python(), "-m", "pytest", *options, "-c", "/dev/null", str(SUITE)]
    command = ["env", f"--chdir={either.home}", f"HOME={either.home}", *suite]
    done = either.box.run("login", command, check=False, timeout=500)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout and "failed" not in done.stdout
