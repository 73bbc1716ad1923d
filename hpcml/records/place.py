"""Where the records are: beside the user, on this node where that is on a network, or by URL."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hpcml.agent import wire
from hpcml.errors import HpcmlError, ProfileError, RecordsError
from hpcml.settings import (
    config_folder,
    load_settings,
    password_in,
    private_folder,
    state_folder,
)

# f_type of statfs(2), from linux/magic.h and the file systems' own sources.
NETWORKS: Mapping[int, str] = {
    0x6969: "NFS",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x65735546: "FUSE",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x00C36400: "Ceph",
    0xAAD7AAEA: "PanFS",
    0x20030528: "OrangeFS",
    0x01021997: "9P",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
}


@dataclass(frozen=True)
class Place:
    """Where a database is.

    Attributes
    ----------
    path : Path or None
        Its file; ``None``: ``url`` names a server.
    url : str
        As SQLAlchemy has it. There is never a password in it.
    network : str
        The network file system that the file is *not* on, as its home is; else empty.
    """

    url: str
    path: Path | None = None
    network: str = ""

    def __str__(self) -> str:
        return str(self.path or self.url)


def find_place() -> Place:
    """Where the settings, or else the kind of the home's file system, have the records.

    Raises
    ------
    ProfileError
        The settings' ``records`` is no URL of PostgreSQL, or holds a password.
    RecordsError
        The home is on a network, and nothing on this node is ours alone.
    """
    url = load_settings().records
    if url is not None:
        return Place(_checked(url))
    folder = state_folder()
    network = network_of(folder)
    path = (_node_folder() / _own_name(folder)) if network else folder / "index.db"
    return Place(f"sqlite:///{path}", path, network)


def network_of(path: Path) -> str:
    """Name of the network file system that a path is on, or would be; empty if it is on none.

    SQLite's write-ahead log needs memory that all its users share, which a network has not.
    Asked of ``statfs(2)`` itself: Python's ``os.statvfs`` does not tell the type.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    return NETWORKS.get(file_system_type(path), "")


def file_system_type(path: Path) -> int:
    """``f_type`` of ``statfs(2)``, its first member; 0 where that cannot be asked."""
    if sys.platform != "linux":
        return 0
    buffer = ctypes.create_string_buffer(512)  # the struct has 120 bytes
    if ctypes.CDLL(None).statfs(os.fsencode(path), buffer):
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def _own_name(folder: Path) -> str:
    """Several state folders of one user have a database each."""
    return f"index-{wire.sha256(os.fsencode(folder))[:12]}.db"


def _node_folder() -> Path:
    """A folder on this node that nobody else can read or could have made."""
    tried = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for above in filter(os.path.isabs, ("/tmp", runtime)):  # noqa: S108
        folder = Path(above) / f"hpcml-{os.geteuid()}"
        why = network_of(Path(above)) or _taken(folder)
        if not why:
            return folder
        tried.append(f"{folder} ({why})")
    raise RecordsError(
        f"the home is on a network, and no folder of this node will do: {', '.join(tried)}",
        "Remove what is in the way, or name a database in the settings: records: postgresql://…",
    )


def _taken(folder: Path) -> str:
    """Why a folder is not ours alone; it is made if it is not there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        private_folder(folder)
    except (OSError, HpcmlError) as error:
        return str(getattr(error, "strerror", None) or "somebody else's")
    if folder.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return "somebody else's"
    return ""


def _checked(url: str) -> str:
    """The settings' URL, with the driver that we use. It is quoted in no error: see why."""
    where = f"{config_folder() / 'config.yaml'}, key records"
    try:
        scheme, secret = urlsplit(url).scheme, password_in(url) is not None
    except ValueError:
        raise ProfileError(f"{where}: this is no URL", _EXAMPLE) from None
    if secret:
        raise ProfileError(
            f"{where}: there is a password in it",
            "Put that into ~/.pgpass or PGPASSWORD, or name a service in PGSERVICE.",
        )
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise ProfileError(f"{where}: this is no URL of PostgreSQL", _EXAMPLE)
    return "postgresql+psycopg" + url[len(scheme) :]


_EXAMPLE = "Write records: postgresql://me@host/name"
