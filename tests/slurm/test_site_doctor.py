"""``hpcml sites doctor``: each check is made to fail by breaking the thing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.slurm.conftest import emptied
from tests.slurm.outside import Outside
from tests.testbed.box import Box
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

Findings = dict[str, list[dict[str, str]]]


class Patient(Outside):
    """A site with a profile that can be changed, and its doctor."""

    def __init__(self, box: Box, home: Path) -> None:
        super().__init__(box, home, facts="max_array: 1000", account="climate")
        self.profile = home / "config" / "hpcml" / "sites" / "box.yaml"
        self.config = home / "config" / "hpcml" / "config.yaml"

    def say(self, text: str) -> None:
        """Add a fact to the profile."""
        self.profile.write_text(f"{self.profile.read_text()}{text}\n")

    def settle(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def examine(self, *words: str, code: int = 0) -> Findings:
        done = call("sites", "doctor", "box", "--json", *words, timeout=2 * PATIENCE)
        diagnosis = json.loads(done.stdout)
        assert done.returncode == code == (0 if diagnosis["ok"] else 1), done.stdout
        found: Findings = {}
        for one in diagnosis["findings"]:
            found.setdefault(one["check"], []).append(one)
        return found


@pytest.fixture
def patient(friendly: Box, home: Path) -> Iterator[Patient]:
    yield Patient(friendly, home)
    emptied(friendly)


def verdicts(found: Findings, check: str) -> set[str]:
    return {one["verdict"] for one in found[check]}


def the_only(found: Findings, check: str) -> dict[str, str]:
    (one,) = found[check]
    return one


def test_a_site_that_is_as_it_is_said_to_be_is_well(patient: Patient) -> None:
    patient.say("container: {runtime: apptainer}\nquota: [df, -h, /scratch]")
    found = patient.examine("--job", "--partition", "gpu")

    for check in ("reach", "workspace", "space", "agent python", "clock", "container", "queue"):
        assert verdicts(found, check) == {"ok"}, check
    assert "Filesystem" in the_only(found, "quota")["what"]
    assert "partition cpu" in the_only(found, "queue")["what"]
    assert "of the compute nodes was not looked at" in the_only(found, "agent python")["what"]
    said = " ".join(one["what"] for one in found["compute node"])
    assert "of gpu sees the workspace" in said and "4 devices, as asked for" in said
    assert "apptainer version" in said
    assert "bad" not in {one["verdict"] for one in found["compute node"] + found["profile"]}


def test_a_site_that_cannot_be_reached_is_one_finding_and_ends(patient: Patient) -> None:
    patient.settle("ssh_config:", "ssh_host: nowhere.invalid, ssh_config:")
    found = patient.examine(code=1)
    reached = the_only(found, "reach")
    assert reached["verdict"] == "bad" and "Could not resolve hostname" in reached["what"]
    assert "by hand" in reached["advice"]
    others = {one["verdict"] for check, them in found.items() if check != "reach" for one in them}
    assert others == {"unknown"}


def test_a_workspace_that_cannot_be_written_is_bad(patient: Patient) -> None:
    patient.examine()
    patient.box.run("login", ["chmod", "500", f"{patient.there}/ws"])
    try:
        found = patient.examine(code=1)
    finally:
        patient.box.run("login", ["chmod", "700", f"{patient.there}/ws"])
    assert "Permission denied" in the_only(found, "workspace")["what"]


def test_a_file_system_without_inodes_is_told(
    patient: Patient, unfriendly: Box, home: Path
) -> None:
    patient.settle("climate", f"climate, workspace: {patient.there}/few")
    few = f"{patient.there}/few"
    patient.box.run("login", ["mkdir", "-m", "700", few])
    mount = f"mount -t tmpfs -o nr_inodes=60,mode=700,uid=$(id -u alice) few {few}"
    patient.box.hosts.run("login", "sh", "-ec", mount)
    try:
        found = patient.examine()
        assert verdicts(found, "space") == {"warn"}
        assert "files can be made" in the_only(found, "space")["what"]
        fill = f"cd {few}; i=0; while : > $i; do i=$((i+1)); done 2> /dev/null"
        patient.box.run("login", ["sh", "-c", fill], check=False)
        found = patient.examine(code=1)
        assert verdicts(found, "workspace") == {"bad"}
        assert "No space left" in the_only(found, "workspace")["what"]
    finally:
        patient.box.hosts.run("login", "umount", "-l", few)


def test_who_is_not_in_the_group_of_containers_is_told_how_to_get_in(patient: Patient) -> None:
    gate = "group: container, access: Ask in room 7."
    patient.say(f"container: {{runtime: apptainer, {gate}}}")
    said = the_only(patient.examine(), "container")
    assert said["verdict"] == "warn" and said["advice"] == "Ask in room 7."
    assert "you are not in the group container" in said["what"]

    refused = patient.profile.read_text().replace("access:", "test: ['false'], access:")
    patient.profile.write_text(refused)
    said = the_only(patient.examine(), "container")
    assert said["verdict"] == "warn" and "exit code 1" in said["what"]


def test_a_python_that_is_too_old_or_missing_is_named(patient: Patient) -> None:
    text = patient.profile.read_text()
    patient.profile.write_text(text.replace("/usr/bin/python3", f"{patient.there}/python"))
    missing = the_only(patient.examine(code=1), "reach")
    assert "there is no /scratch" in missing["what"] and "agent_python" in missing["advice"]

    old = patient.folder / "python"
    pretend = "import sys; sys.version_info = (3, 5, 2)\n"
    old.write_text(
        '#!/bin/sh\nfor word; do [ "$1" = -c ] && break; shift; done\nshift\n'
        f'code=$1; shift\nexec /usr/bin/python3 -c \'{pretend}\'"$code" "$@"\n'
    )
    old.chmod(0o755)
    assert "is Python 3.5.2: too old" in the_only(patient.examine(code=1), "reach")["what"]


def test_a_quota_is_asked_for_by_your_names(patient: Patient) -> None:
    patient.settle("account:", "project: climate42, account:")
    patient.say('quota: [echo, "12 GiB of {project}"]')
    assert the_only(patient.examine(), "quota")["what"] == "12 GiB of climate42"


def test_a_quota_that_cannot_be_asked_is_told_with_what_it_said(patient: Patient) -> None:
    patient.say("quota: [sh, -c, 'echo no quota today >&2; exit 3']")
    said = the_only(patient.examine(), "quota")
    assert said["verdict"] == "warn" and "exit code 3: no quota today" in said["what"]


def test_of_a_quota_that_is_told_at_length_the_beginning_is_shown(patient: Patient) -> None:
    patient.say("quota: [sh, -c, 'head -c 1000000 /dev/zero | tr \"\\0\" x; echo; echo end']")
    said = the_only(patient.examine(), "quota")
    assert said["verdict"] == "ok" and said["what"].endswith("…; end") and len(said["what"]) < 300


def test_what_is_purged_is_told(patient: Patient) -> None:
    patient.say("file_systems: {scratch: {path: /scratch, purge: 90d}}")
    said = the_only(patient.examine(), "purge")
    assert said["verdict"] == "warn"
    assert "what nobody has used for 90d is deleted on scratch" in said["what"]


def test_an_account_that_cannot_pay_is_bad_in_the_settings_and_for_the_queue(
    patient: Patient,
) -> None:
    patient.settle("climate", "nobody")
    found = patient.examine(code=1)
    assert any("nobody is none of yours" in one["what"] for one in found["profile"])
    assert "sbatch would not take a job" in the_only(found, "queue")["what"]


def test_a_fact_that_the_cluster_contradicts_is_told_with_file_and_line(patient: Patient) -> None:
    text = patient.profile.read_text()
    patient.profile.write_text(text.replace("gres: gpu:a100", "gres: gpu:h100"))
    found = patient.examine(code=1)
    wrong = [one for one in found["profile"] if one["verdict"] == "bad"]
    assert wrong and all("gpu" in one["what"] for one in wrong)


def test_a_job_that_cannot_run_is_told_with_its_reason(patient: Patient) -> None:
    """Its agent's Python is missing on compute nodes: what the login node does not show."""
    text = patient.profile.read_text()
    there = "agent_python: {login: /usr/bin/python3, compute: /opt/none/python3}"
    patient.profile.write_text(text.replace("agent_python: /usr/bin/python3", there))
    assert "/opt/none/python3 of the compute nodes was not looked at" in str(patient.examine())
    said = the_only(patient.examine("--job", code=1), "compute node")
    assert said["verdict"] == "bad" and "a job that only looks around is FAILED" in said["what"]


def test_a_partition_that_is_not_there_is_a_mistake(patient: Patient) -> None:
    done = call("sites", "doctor", "box", "--partition", "gpus")
    assert done.returncode == 70 and "did you mean 'gpu'?" in done.stderr
