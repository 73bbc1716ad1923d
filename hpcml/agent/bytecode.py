"""Bytecode for the Python that a site has, where the client's is another version.

Compiling would be half of an agent's start. So the first agent leaves the modules that agents need,
compiled, beside the travelling file, and all others of that Python find them there.
"""

import importlib.util
import marshal
import os
import sys

from hpcml.agent import wire

NEEDED = "hpcml/agent/"


def place(archive: str) -> str:
    """Where bytecode of a travelling file is, for this Python: ``hpcml-<d>.cpython-39.zip``."""
    return "%s.%s.zip" % (os.path.splitext(archive)[0], sys.implementation.cache_tag)


def leave(archive: str) -> None:
    """Leave bytecode for this Python, unless somebody has left it.

    Where that cannot be done, agents only start later.
    """
    # Before Python 3.7 bytecode in an archive would have to bear its source's time.
    if sys.version_info < (3, 7):
        return
    path = place(archive)
    try:
        if not os.path.exists(path):
            wire.write_once(path, _compiled(archive))
    except OSError:
        pass


def _compiled(archive: str) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(archive) as sources, zipfile.ZipFile(buffer, "w") as made:
        for name in sources.namelist():
            if name.endswith(".py") and name.startswith(NEEDED):
                made.writestr("%sc" % name, bytecode(name, sources.read(name)))
    return buffer.getvalue()


def bytecode(name: str, source: bytes) -> bytes:
    """A module as this Python would have it in a ``.pyc``.

    "Unchecked" (PEP 552), and without a hash, as the archive's name has the digest of its sources.
    Which objects marshal flags as shared depends on what else the process holds, so that two
    results may differ in these bits; never in length or meaning.
    """
    code = marshal.dumps(compile(source, name, "exec", dont_inherit=True))
    unchecked = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked + bytes(8) + code
