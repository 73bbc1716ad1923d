"""The recipe of the root file system: a suite of Debian, its packages, and the finishing touch."""

from __future__ import annotations

import hashlib
from pathlib import Path

HERE = Path(__file__).parent

SUITE = "sid"

PACKAGES = (
    # Slurm with its accounting and its REST interface
    "slurm-wlm",
    "slurm-wlm-jwt-plugin",
    "slurmdbd",
    "slurmrestd",
    "munge",
    "mariadb-server",
    # containers for users
    "apptainer",
    "squashfs-tools",
    "squashfuse",
    "fuse-overlayfs",
    "fuse2fs",
    # what login nodes have
    "openssh-server",
    "rsync",
    "csh",
    "python3-minimal",
    "python3-venv",
    # what the box itself needs
    "iproute2",
    "nftables",
    "procps",
    "tini",
)

# What runs in the fresh root file system, as a host of its own.
FINISH = HERE / "finish.sh"
HOST = HERE / "host.sh"

USERS = ("alice", "bob")
IMAGE = "/opt/images/python.sif"


def packages_digest() -> str:
    """Names the root file system as Debian makes it."""
    return _digest(SUITE, *PACKAGES)


def finished_digest() -> str:
    """Names the same one with users, keys, an empty accounting database and an image."""
    return _digest(packages_digest(), FINISH.read_text())


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
