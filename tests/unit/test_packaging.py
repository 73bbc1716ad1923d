"""The wheel as a user gets it: built from this tree, installed unpinned and fresh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MAX_DISTRIBUTIONS = 18
MAX_MEGABYTES = 75


def call(*argv: object, cwd: Path | None = None) -> str:
    """Run a command away from this tree, free of what would pin or redirect it."""
    result = try_to_call(*argv, cwd=cwd)
    assert result.returncode == 0, f"{argv} failed:\n{result.stdout}{result.stderr}"
    return result.stdout


def try_to_call(*argv: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As :func:`call`, for what may fail."""
    steering = ("PYTHONPATH", "PYTHONHOME", "PIP_CONSTRAINT", "PIP_TARGET", "PIP_USER")
    return subprocess.run(
        [str(a) for a in argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in steering},
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "-q", "-w", folder, cwd=folder)
    (built,) = folder.glob("hpcml-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and what pip chooses for it today.

    It has no pip of its own, so that all that lies in it is ours.
    """
    home = tmp_path_factory.mktemp("fresh") / "env"
    call(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "-q", wheel, cwd=home)
    return home


def in_environment(environment: Path, code: str) -> str:
    return call(environment / "bin" / "python", "-c", code, cwd=environment)


def distributions(environment: Path) -> list[str]:
    code = (
        "import json, importlib.metadata as m;"
        "print(json.dumps([d.metadata['Name'].lower() for d in m.distributions()]))"
    )
    return json.loads(in_environment(environment, code))


def test_the_wheel_carries_the_site_profiles_and_its_types(wheel: Path) -> None:
    """A pip-installed hpcml knows the sites, and type checkers see its annotations."""
    names = zipfile.ZipFile(wheel).namelist()
    for carried in ("hpcml/site-configs/local.yaml", "hpcml/py.typed", "hpcml/agent/wire.py"):
        assert carried in names


def test_the_wheel_carries_every_site_profile_of_the_tree(wheel: Path) -> None:
    """What is added to site-configs/ reaches users without another list to keep."""
    names = zipfile.ZipFile(wheel).namelist()
    profiles = [p.name for p in (ROOT / "site-configs").glob("*.yaml")]
    assert profiles
    assert [p for p in profiles if f"hpcml/site-configs/{p}" not in names] == []


def test_the_wheel_carries_the_demo_and_none_of_its_data(wheel: Path) -> None:
    """`hpcml demo` has its files without this repository."""
    folder = "examples/temperature"
    tracked = call("git", "-C", ROOT / folder, "ls-files").split()
    names = zipfile.ZipFile(wheel).namelist()
    packed = [name for name in names if name.startswith("hpcml/demo/")]
    assert sorted(packed) == sorted(f"hpcml/demo/{name}" for name in tracked)


def test_the_wheel_carries_nothing_beside_the_package(wheel: Path) -> None:
    """Tests, examples and tools stay in the repository."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hpcml"}


def test_an_installed_hpcml_imports_and_gives_its_public_names(environment: Path) -> None:
    """`import hpcml` works without this repository, and `hpcml.Job` is there."""
    code = "import hpcml; print(hpcml.Job.__name__, hpcml.__file__)"
    name, file = in_environment(environment, code).split(maxsplit=1)
    assert name == "Job"
    assert Path(file.strip()).is_relative_to(environment)


def test_the_version_is_the_same_everywhere(environment: Path) -> None:
    """The package says the version that the wheel was released under."""
    code = "import hpcml, importlib.metadata as m; print(hpcml.__version__, m.version('hpcml'))"
    said, released = in_environment(environment, code).split()
    assert said == released


def test_an_installed_hpcml_makes_its_records(environment: Path) -> None:
    """The wheel carries the migrations, and what runs them."""
    assert in_environment(environment, "import hpcml; print(hpcml.sync())").strip() == "0"


def test_an_installed_hpcml_has_its_command(environment: Path) -> None:
    """`hpcml --help` answers from the installed wheel."""
    assert "Usage" in call(environment / "bin" / "hpcml", "--help", cwd=environment)


def test_the_demo_says_what_to_install_and_writes_nothing(
    environment: Path, tmp_path: Path
) -> None:
    """An environment with hpcml alone lacks what the demo trains with."""
    done = try_to_call(environment / "bin" / "hpcml", "demo", cwd=tmp_path)
    assert done.returncode == 70
    assert "torch" in done.stderr and '-m pip install "hpcml[demo]"' in done.stderr
    assert not (tmp_path / "hpcml-demo").exists()


def test_the_doctor_of_a_bare_installation_finds_nothing_bad(environment: Path) -> None:
    """What it lacks is optional, and is told with the command that installs it."""
    told = call(environment / "bin" / "hpcml", "doctor", cwd=environment)
    for extra in ("plot", "mlflow", "postgresql"):
        assert f'-m pip install "hpcml[{extra}]"' in told


@pytest.mark.parametrize("group", ["hpcml.transports", "hpcml.schedulers"])
def test_the_built_in_plugins_load_by_their_entry_points(environment: Path, group: str) -> None:
    """What stands in the wheel's metadata can be loaded, as anybody's plugin can."""
    code = (
        "import importlib.metadata as m;"
        f"print(*[e.load().__name__ for e in m.entry_points(group={group!r})])"
    )
    assert in_environment(environment, code).split()


def test_the_core_installs_few_distributions(environment: Path) -> None:
    """hpcml goes into other people's environments, so it brings little."""
    names = distributions(environment)
    assert "hpcml" in names
    assert len(names) <= MAX_DISTRIBUTIONS, sorted(names)


def test_the_core_installs_small(environment: Path) -> None:
    """All of it, compiled files included, fits where home quotas are tight."""
    (site_packages,) = environment.glob("lib/python*/site-packages")
    size = sum(f.stat().st_size for f in site_packages.rglob("*") if f.is_file())
    assert size <= MAX_MEGABYTES * 1e6, f"{size / 1e6:.1f} MB"


def test_the_core_brings_no_framework(environment: Path) -> None:
    """Frameworks and data readers are the user's choice, by extras."""
    heavy = {"torch", "numpy", "xarray", "zarr", "pandas", "netcdf4", "dask"}
    assert heavy & set(distributions(environment)) == set()
