"""The one file that travels: all of hpcml as an archive that Python runs and imports.

It is the agent, and on ``PYTHONPATH`` the ``import hpcml`` of the job.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import zipfile
import zipimport
from functools import cache
from pathlib import Path

from hpcml.agent import wire
from hpcml.errors import HpcmlError
from hpcml.settings import cache_folder, keep
from hpcml.transports import Transport, bring

MAIN = b"""\
import sys

from hpcml.agent.main import main

sys.exit(main(sys.argv[1:]))
"""
SITE_SIDE = ("__main__.py", "hpcml/__init__.py", "hpcml/injob.py", "hpcml/agent/")


def travelling() -> bool:
    """Whether this hpcml is the travelling one: then this is a job."""
    return isinstance(wire.__spec__.loader, zipimport.zipimporter)


def library_name() -> str:
    """The archive's file name, which holds its digest."""
    return _contents()[0]


def library() -> Path:
    """The archive in the cache, made if it is not there, or not whole after a power loss."""
    name, files = _contents()
    path = cache_folder() / "lib" / name
    if not zipfile.is_zipfile(path):
        keep(path, _archive({**files, **_compiled(files)}), "Free some space.")
    return path


@cache
def _contents() -> tuple[str, dict[str, bytes]]:
    """Name and files of the archive, as the package was when it was first asked for."""
    files = {"__main__.py": MAIN}
    package = Path(__file__).parent
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        for name in sorted(names):
            if name.endswith(".py"):
                path = Path(folder, name)
                files[f"hpcml/{path.relative_to(package)}"] = path.read_bytes()
    rows = [(name, "file", wire.sha256(content)) for name, content in files.items()]
    rows.append(("bytecode", "file", importlib.util.MAGIC_NUMBER.hex()))
    return f"hpcml-{wire.tree_digest(rows)[:16]}.pyz", files


def put_library(files: Transport, name: str | None = None) -> None:
    """Bring the archive, or an earlier one of that name, to a site that does not have it yet.

    Raises
    ------
    HpcmlError
        The earlier one is nowhere any more.
    """
    path = library()
    if name not in (None, path.name):
        path = cache_folder() / "lib" / str(name)
    if path.exists():
        bring(files, f"lib/{path.name}", path)
    elif path.name not in {entry.name for entry in files.list("lib") or ()}:
        raise HpcmlError(
            f"{path}, the hpcml that planned this, is not there any more",
            "Cancel the run, and submit the job again.",
        )


def _compiled(files: dict[str, bytes]) -> dict[str, bytes]:
    """Bytecode of what runs on the site: half of an agent's start would be compiling.

    "Unchecked" (PEP 552), as it lies beside its source for good. Other versions of Python pass
    over it, and compile.
    """
    found = {}
    for name, source in files.items():
        if name.startswith(SITE_SIDE):
            code = marshal.dumps(compile(source, name, "exec", dont_inherit=True))
            unchecked = (1).to_bytes(4, "little")
            head = importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source)
            found[f"{name}c"] = head + code
    return found


def _archive(files: dict[str, bytes]) -> bytes:
    """A zip without compression: a site's Python may lack zlib, and imports are faster."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)  # dated 1980-01-01: the same bytes every time
            member.external_attr = 0o600 << 16
            archive.writestr(member, content)
    return buffer.getvalue()
