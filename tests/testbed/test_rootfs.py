"""Layers of the root file system are made once, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.testbed import machine, recipe, rootfs

pytestmark = pytest.mark.testbed

ROOT = Path(__file__).parents[2]

# Makes a layer, and says so in a file; goes on when there is a file "go-on".
BUILDER = """
import sys, time
from pathlib import Path
from tests.testbed import rootfs
rootfs.CACHE = Path(sys.argv[1])
def make(folder, lock):
    with (rootfs.CACHE / "begun").open("a") as begun:
        begun.write("once ")
    (folder / "half").touch()
    while not (rootfs.CACHE / "go-on").exists():
        time.sleep(0.01)
    (folder / "whole").touch()
rootfs._once(rootfs.CACHE / "layer", make)
"""


def builder(cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(cache)], cwd=ROOT)


def test_two_who_need_a_layer_make_it_once(tmp_path: Path) -> None:
    first, second = builder(tmp_path), builder(tmp_path)
    eventually((tmp_path / "begun").exists)
    (tmp_path / "go-on").touch()
    assert first.wait(60) == second.wait(60) == 0
    assert (tmp_path / "begun").read_text() == "once "
    assert (tmp_path / "layer" / "whole").exists()


def test_a_layer_whose_maker_was_killed_is_made_anew(tmp_path: Path) -> None:
    killed = builder(tmp_path)
    eventually((tmp_path / "begun").exists)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "layer").exists()
    (tmp_path / "go-on").touch()
    assert builder(tmp_path).wait(60) == 0
    assert (tmp_path / "begun").read_text() == "once once "
    assert sorted(path.name for path in (tmp_path / "layer").iterdir()) == ["half", "whole"]


def test_another_recipe_is_another_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    packages, finished = recipe.packages_digest(), recipe.finished_digest()
    monkeypatch.setattr(recipe, "PACKAGES", (*recipe.PACKAGES, "hello"))
    assert recipe.packages_digest() != packages
    assert recipe.finished_digest() != finished


def test_the_versions_of_all_packages_are_on_record() -> None:
    machine.make_ready()
    versions = rootfs.root_file_system().versions
    assert set(recipe.PACKAGES) <= set(versions)
    assert versions["slurm-wlm"]
