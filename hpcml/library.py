"""What travels to a site, each as one file that is named by its digest.

``hpcml-<digest>.pyz`` is all of hpcml: Python runs it as the agent, and on ``PYTHONPATH`` it is the
``import hpcml`` of the job. ``fn-<digest>.zip`` is what executes functions, in two folders:
``first/`` goes to the front of the job's ``sys.path``, ``last/`` to its end, where it serves only
jobs that have none of their own.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import zipfile
import zipimport
from functools import cache, lru_cache
from pathlib import Path

from hpcml.agent import wire
from hpcml.agent.bytecode import bytecode
from hpcml.errors import HpcmlError
from hpcml.settings import cache_folder, keep
from hpcml.sites import packaged_profiles

MAIN = b"""\
import os
import sys

if sys.argv[1:2] == ["call"]:
    from hpcml.call import main

    sys.exit(main(sys.argv[2:]))

# What an agent of this Python has left (hpcml.agent.bytecode) stands for the same file.
place = sys.path[0]
ours = "%s.%s.zip" % (os.path.splitext(place)[0], sys.implementation.cache_tag)
if os.path.exists(ours):
    import zipimport

    try:
        zipimport.zipimporter(ours)
        place = ours
    except ImportError:
        pass  # torn by a power loss

# What `import hpcml` is to a job no agent needs, and each starts sooner without it.
package = type(sys)("hpcml")
package.__path__ = [os.path.join(place, "hpcml")]
sys.modules["hpcml"] = package

from hpcml.agent.main import main

sys.exit(main(sys.argv[1:]))
"""
SITE_SIDE = ("__main__.py", "hpcml/__init__.py", "hpcml/call.py", "hpcml/injob.py", "hpcml/agent/")

_whole: dict[Path, int] = {}  # sizes of archives that this process has made, or found whole

TYPING_EXTENSIONS = b"""\
try:
    from clients_typing_extensions import *
except Exception:  # made for newer Pythons than this one: what submitit needs of it will do
    from typing import TypedDict
"""


def travelling() -> bool:
    """Whether this hpcml is the travelling one: then this is a job."""
    return _archive_of_this() is not None


def library_name() -> str:
    """The file name of hpcml's archive, which holds its digest."""
    return library().name if travelling() else _contents()[0]


def library() -> Path:
    """hpcml's archive in the cache, made if it is not there, or not whole after a power loss.

    In a job it is the one that the job imports hpcml from.
    """
    archive = _archive_of_this()
    if archive is not None:
        return Path(archive)
    return _kept(*_contents(), SITE_SIDE)


def function_library_name() -> str:
    """The file name of the archive that executes functions, which holds its digest.

    Raises
    ------
    HpcmlError
        As :func:`function_library`.
    """
    return (_beside_this() or Path(_function_contents()[0])).name


def function_library() -> Path:
    """The archive that executes functions, in the cache, made if it is not there or not whole.

    In a job it is the newest one of the site, if that has any.

    Raises
    ------
    HpcmlError
        A package that belongs into it is not installed.
    """
    beside = _beside_this()
    if beside is not None:
        return beside
    return _kept(*_function_contents(), ("",))


def archive_in_cache(name: str) -> Path:
    """Where an archive of that name is kept, if it is: one of an earlier hpcml, say."""
    return _place(cache_folder(), name)


def whole_size(name: str) -> int | None:
    """Of an archive, in bytes; ``None`` if this process has neither made it nor found it whole."""
    return _whole.get(archive_in_cache(name))


def _archive_of_this() -> str | None:
    """The archive that this hpcml was imported from, ``None`` if it is an installed one."""
    loader = wire.__spec__.loader
    return loader.archive if isinstance(loader, zipimport.zipimporter) else None


def _beside_this() -> Path | None:
    """The newest archive for functions beside a travelling hpcml."""
    if not travelling():
        return None
    found = [path for path in library().parent.glob("fn-*.zip") if zipfile.is_zipfile(path)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


@cache
def _contents() -> tuple[str, dict[str, bytes]]:
    """Name and files of hpcml's archive, as the package was when it was first asked for."""
    files = {"__main__.py": MAIN, **_sources(Path(__file__).parent)}
    for profile in packaged_profiles():
        files[f"hpcml/site-configs/{profile.name}"] = profile.read_bytes()
    return f"hpcml-{_digest(files)}.pyz", files


@cache
def _function_contents() -> tuple[str, dict[str, bytes]]:
    """Name and files of the archive for functions, of what is installed here."""
    files = {}
    for package in ("submitit", "cloudpickle"):
        for name, content in _sources(_installed(package).parent).items():
            files[f"first/{name}"] = content
    # Pythons older than this client's may be older than any that its typing_extensions knows.
    files["last/typing_extensions.py"] = TYPING_EXTENSIONS
    files["last/clients_typing_extensions.py"] = _installed("typing_extensions").read_bytes()
    return f"fn-{_digest(files)}.zip", files


def _sources(package: Path) -> dict[str, bytes]:
    """A package's Python files, its tests left out, by their paths beginning with its name."""
    files = {}
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__", "demo"})  # no job needs our demo
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(("test_", "conftest.")):
                path = Path(folder, name)
                files[path.relative_to(package.parent).as_posix()] = path.read_bytes()
    return files


def _installed(name: str) -> Path:
    """The file of a module, or the ``__init__.py`` of a package; it is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise HpcmlError(
            f"functions need the package {name}, and {sys.executable} does not have it",
            "Install it there, or submit a script.",
        )
    return Path(spec.origin)


def _digest(files: dict[str, bytes]) -> str:
    rows = [(name, "file", wire.sha256(content)) for name, content in files.items()]
    rows.append(("bytecode", "file", importlib.util.MAGIC_NUMBER.hex()))
    return wire.tree_digest(rows)[:16]


def _kept(name: str, files: dict[str, bytes], compiled: tuple[str, ...]) -> Path:
    """An archive in the cache, with bytecode of the files whose paths begin so."""
    path = archive_in_cache(name)
    if _whole.get(path) != _size(path):
        if not zipfile.is_zipfile(path):
            chosen = {file: code for file, code in files.items() if file.startswith(compiled)}
            keep(path, _archive({**files, **_compiled(chosen)}), "Free some space.")
        _whole[path] = _size(path)
    return path


@lru_cache(maxsize=16)
def _place(cache: Path, name: str) -> Path:
    return cache / "lib" / name


def _size(path: Path) -> int:
    """In bytes; -1 if there is no such file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _compiled(files: dict[str, bytes]) -> dict[str, bytes]:
    """Bytecode of what runs on the site, beside its source: other Pythons pass over it."""
    return {f"{name}c": bytecode(name, source) for name, source in files.items()}


def _archive(files: dict[str, bytes]) -> bytes:
    """A zip without compression: a site's Python may lack zlib, and imports are faster."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)  # dated 1980-01-01: the same bytes every time
            member.external_attr = 0o600 << 16
            archive.writestr(member, content)
    return buffer.getvalue()
