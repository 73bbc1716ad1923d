"""The archives that travel: what is in them, and that they work where nothing is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcml import library
from hpcml.connection import connect
from hpcml.errors import HpcmlError
from hpcml.plugins import BUILT_IN, load_plugin
from hpcml.sites import packaged_profiles
from hpcml.transports.library import put_function_library
from tests.agent.pythons import pythons

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_PYTHONS = {name: path for name, path in pythons().items() if int(name[2:]) >= 8}

FIRST_AND_LAST = "sys.path.insert(0, {zip!r} + '/first'); sys.path.append({zip!r} + '/last')"

Another = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def function_contents() -> Iterator[None]:
    """What is installed is looked at afresh, here and by the next test."""
    library._function_contents.cache_clear()
    yield
    library._function_contents.cache_clear()


def bare_venv(python: str, folder: Path) -> tuple[Path, Path]:
    """An environment with nothing in it: its Python, and where its packages would be."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    return folder / "bin" / "python", packages


def tell(python: Path | str, code: str) -> str:
    """What a line of Python prints, with the archive for functions in its place."""
    setting = FIRST_AND_LAST.format(zip=str(library.function_library()))
    argv = [str(python), "-E", "-c", f"import sys; {setting}; {code}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def members(archive: Path) -> list[tuple[str, int, int, bytes]]:
    """Name, place and length of all that is in an archive, and its content but for bytecode."""
    with zipfile.ZipFile(archive) as opened:
        return [
            (m.filename, m.header_offset, m.file_size, opened.read(m) * (m.filename[-1] != "c"))
            for m in opened.infolist()
        ]


# --- what executes functions --------------------------------------------------------------


@pytest.mark.parametrize("version", FUNCTION_PYTHONS)
def test_a_bare_python_can_execute_functions(version: str, tmp_path: Path) -> None:
    """Nothing of what is needed has to be installed at the site."""
    python, _ = bare_venv(FUNCTION_PYTHONS[version], tmp_path / "venv")

    import_all = "import submitit.core._submit, cloudpickle, typing_extensions as t"
    shown = tell(python, f"{import_all}; print(t.TypedDict.__name__, *submitit.__path__)")

    assert shown == f"TypedDict {library.function_library()}/first/submitit"


def test_a_python_of_the_clients_version_compiles_nothing() -> None:
    shown = tell(sys.executable, "import submitit.core._submit as s; print(s.__file__)")
    names = zipfile.ZipFile(library.function_library()).namelist()
    assert shown.endswith("_submit.pyc")
    assert [name for name in names if name.endswith(".py") and f"{name}c" not in names] == []


def test_a_jobs_own_typing_extensions_wins_and_its_submitit_does_not(tmp_path: Path) -> None:
    """The packages of a job may need a newer typing_extensions than the client has."""
    python, packages = bare_venv(sys.executable, tmp_path / "venv")
    (packages / "typing_extensions.py").write_text("from typing import TypedDict\nnewer = 'own'")
    (packages / "submitit.py").write_text("raise ImportError('the wrong one')")

    code = "import submitit.core._submit, typing_extensions; print(typing_extensions.newer)"

    assert tell(python, code) == "own"


def test_the_archive_for_functions_holds_no_tests_and_no_compression() -> None:
    members = zipfile.ZipFile(library.function_library()).infolist()
    names = [member.filename for member in members]
    assert {name.split("/")[0] for name in names} == {"first", "last"}
    assert [name for name in names if "test" in name or "__pycache__" in name] == []
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}


def test_an_archive_is_laid_out_the_same_whoever_makes_it_and_made_again_if_torn(
    another_python: Another,
) -> None:
    code = "from hpcml.library import *; print(function_library(), library())"
    paths = [Path(path) for path in another_python(code).stdout.split()]
    contents = [members(path) for path in paths]
    for path in paths:
        path.write_bytes(path.read_bytes()[:1000])

    made = [library.function_library(), library.library()]

    assert made == paths
    assert [members(path) for path in made] == contents
    assert [library.function_library_name(), library.library_name()] == [p.name for p in paths]


def test_import_hpcml_imports_nothing_of_what_travels(another_python: Another) -> None:
    code = """
        import sys, hpcml, hpcml.library
        hpcml.submit, hpcml.library.function_library()
        print([name for name in ("submitit", "cloudpickle") if name in sys.modules])
    """
    assert another_python(code).stdout.strip() == "[]"


@pytest.mark.usefixtures("function_contents")
def test_a_client_without_submitit_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HpcmlError, match="functions need the package submitit"):
        library.function_library_name()


def test_the_archive_for_functions_is_brought_to_a_site_once() -> None:
    files = connect("local").files
    name = library.function_library_name()

    put_function_library(files)
    there = Path(connect("local").binding.workspace, "lib", name)
    before = there.stat().st_ino
    put_function_library(files, name)

    assert there.stat().st_ino == before
    assert there.read_bytes() == library.function_library().read_bytes()


def test_an_earlier_archive_comes_from_the_cache_or_is_on_the_site_already(home: Path) -> None:
    """hpcml, or submitit, may have been upgraded since the batch was planned."""
    files = connect("local").files
    earlier = library.function_library().with_name("fn-0123456789abcdef.zip")
    earlier.write_bytes(b"as it was")

    put_function_library(files, earlier.name)
    assert files.get({f"lib/{earlier.name}": 0}) == {f"lib/{earlier.name}": b"as it was"}
    earlier.unlink()
    put_function_library(files, earlier.name)
    files.remove([f"lib/{earlier.name}"])
    with pytest.raises(HpcmlError, match="is not there any more"):
        put_function_library(files, earlier.name)


# --- the travelling hpcml -----------------------------------------------------------------


def in_archive(code: str, archive: Path) -> str:
    """What Python prints that imports hpcml from the archive."""
    argv = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(archive)!r}); {code}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=archive.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_travelling_hpcml_knows_the_sites_and_its_own_name() -> None:
    archive = library.library()
    code = (
        "from hpcml.sites import load_site, site_names; import hpcml.library as l;"
        "print(load_site('local').kill_wait, *site_names(), l.travelling(), l.library())"
    )
    kept = [profile.name.removesuffix(".yaml") for profile in packaged_profiles()]
    names = [name for name in kept if not name.startswith("_")]  # others are there to be extended
    assert in_archive(code, archive).split() == ["10s", *names, "True", str(archive)]


def test_a_broken_profile_in_the_travelling_hpcml_is_named_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "hpcml.pyz"
    with zipfile.ZipFile(library.library()) as whole, zipfile.ZipFile(broken, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            archive.writestr(name, content + b"kolor: red\n" if "local.yaml" in name else content)
    code = (
        "from hpcml.sites import load_site; from hpcml.errors import ProfileError\n"
        "try: load_site('local')\nexcept ProfileError as error: print(error)"
    )
    line = (ROOT / "site-configs" / "local.yaml").read_text().count("\n") + 1
    place = f"{broken}/hpcml/site-configs/local.yaml, line {line}, column 1, key kolor"
    assert f"{place}: unknown key" in in_archive(code, broken)


def test_the_travelling_hpcml_takes_the_newest_archive_for_functions_beside_it(
    tmp_path: Path,
) -> None:
    archive = tmp_path / library.library_name()
    archive.write_bytes(library.library().read_bytes())
    code = "from hpcml.library import *; print(function_library(), function_library_name())"
    made = library.function_library()
    assert in_archive(code, archive).split() == [str(made), made.name], "it is made where it can be"

    for name, time in (("fn-a.zip", 1000), ("fn-b.zip", 3000), ("fn-c.zip", 2000)):
        (tmp_path / name).write_bytes(made.read_bytes())
        os.utime(tmp_path / name, (time, time))
    (tmp_path / "fn-torn.zip").write_bytes(b"")

    assert in_archive(code, archive).split() == [f"{tmp_path}/fn-b.zip", "fn-b.zip"]


# --- backends without metadata ------------------------------------------------------------


def test_the_built_in_backends_are_those_of_the_distribution() -> None:
    """A travelling hpcml has no metadata; the table in its place must say the same."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert project["entry-points"] == BUILT_IN


def test_the_backends_of_others_are_found_beside_the_built_in_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "other-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[hpcml.schedulers]\nother = json:loads\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert load_plugin("hpcml.schedulers", "other")("1") == 1
    assert load_plugin("hpcml.schedulers", "process").__name__ == "ProcessScheduler"
    with pytest.raises(HpcmlError, match=r"(?s)no scheduler 'proces'.*valid: other, process"):
        load_plugin("hpcml.schedulers", "proces")
