"""The code snapshot on the site: unpacked once a digest, read-only, shared by all its runs."""

import os

from hpcml.agent import trees, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile

PLACEHOLDERS = (".gitkeep", ".keep", ".gitignore", ".placeholder")


class SnapshotError(Exception):
    """The archive of the code is missing or is not what its name says."""


def unpack(folder: str, digest: str) -> str:
    """Make ``code/<digest>/`` from ``code/<digest>.tar`` unless it is there. Returns its path.

    Several agents may do so at once: each unpacks aside, verifies, and tries to rename.
    """
    place = os.path.join(folder, digest)
    if os.path.isdir(place):
        return place
    import tarfile

    temporary = os.path.join(folder, ".tmp-" + wire.unique())
    os.mkdir(temporary, 0o700)
    try:
        entries = []
        try:
            with tarfile.open(place + ".tar", "r:") as archive:
                for member in archive:
                    entries.append(_extract(archive, member, temporary))
        except (OSError, tarfile.TarError) as error:
            if os.path.isdir(place):
                return place  # another agent was quicker, and has removed the archive
            raise SnapshotError("the code archive %s.tar cannot be read: %s" % (place, error))
        if wire.tree_digest(entries) != digest:
            raise SnapshotError("the code archive %s.tar is not what its name says" % place)
        files = [os.path.join(temporary, name) for name, kind, _ in entries if kind != "link"]
        wire.make_durable(files)  # before the name that vouches for it
        trees.seal(temporary)
        try:
            os.rename(temporary, place)
        except OSError:
            if not os.path.isdir(place):
                raise
        try:
            os.unlink(place + ".tar")  # half of the space
        except OSError:
            pass  # another agent has
        return place
    finally:
        if os.path.isdir(temporary):
            remove(temporary)


def remove(folder: str) -> None:
    """Remove a folder whose parts may be read-only."""
    import shutil

    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)
    shutil.rmtree(folder)


def _extract(
    archive: "tarfile.TarFile", member: "tarfile.TarInfo", folder: str
) -> "tuple[str, str, str]":
    parts = member.name.split("/")
    above = [os.path.join(folder, *parts[:depth]) for depth in range(1, len(parts))]
    within = not (member.name.startswith("/") or ".." in parts or any(map(os.path.islink, above)))
    if not within or not (member.isreg() or member.issym()):
        raise SnapshotError("the code archive holds %r, which it must not" % member.name)
    target = os.path.join(folder, *parts)
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    if member.issym():
        os.symlink(member.linkname, target)
        return member.name, "link", member.linkname
    content = archive.extractfile(member)
    data = content.read() if content is not None else b""
    wire.write_private(target, data)
    executable = bool(member.mode & 0o100)
    os.chmod(target, 0o500 if executable else 0o400)
    return member.name, "exec" if executable else "file", wire.sha256(data)


def lay_out(source: str, work: str, outputs: "list[str]") -> None:
    """Fill a run's ``work/`` so that it looks like the snapshot and can be written to.

    Top-level entries are links into the shared, read-only snapshot. Real folders are made where
    the run is known to write: along the paths of its declared outputs, and where the snapshot
    holds nothing but a placeholder such as ``.gitkeep``. Root ignores read-only modes and would
    write through the links into what other runs share, so root gets a copy of everything.
    """
    if os.geteuid() == 0:
        _copy(source, work)
        for output in outputs:
            os.makedirs(os.path.join(work, os.path.dirname(output)), mode=0o700, exist_ok=True)
        return
    _link(source, work, [output.split("/") for output in outputs])


def _link(source: str, work: str, outputs: "list[list[str]]") -> None:
    with os.scandir(source) as listing:
        entries = list(listing)
    for entry in entries:
        target = os.path.join(work, entry.name)
        below = [parts[1:] for parts in outputs if parts[0] == entry.name and len(parts) > 1]
        if entry.is_dir(follow_symlinks=False) and (below or _is_placeholder(entry.path)):
            os.mkdir(target, 0o700)
            _link(entry.path, target, below)
        elif [entry.name] not in outputs:  # a tracked file that the run replaces is not linked
            os.symlink(entry.path, target)
    for parts in outputs:
        os.makedirs(os.path.join(work, *parts[:-1]), mode=0o700, exist_ok=True)


def _is_placeholder(folder: str) -> bool:
    return all(name in PLACEHOLDERS for name in os.listdir(folder))


def _copy(source: str, work: str) -> None:
    for relative, full in wire.walk(source):
        target = os.path.join(work, relative)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        if os.path.islink(full):
            os.symlink(os.readlink(full), target)
        else:
            with open(full, "rb", buffering=0) as file:  # a snapshot has 50 MB at most
                wire.write_private(target, file.readall())
            status = os.stat(full)
            os.chmod(target, 0o700 if status.st_mode & 0o100 else 0o600)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))  # tells a copy apart
