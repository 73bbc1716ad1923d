"""The root file system of a box: made once from Debian's packages, then taken from a cache.

It has two layers, each in a folder named by the digest of its recipe: ``packages-*`` as
mmdebstrap makes it, and ``finished-*``, what `recipe.FINISH` changed in it. A box mounts both
read-only below its own. The versions of all packages lie beside the layer as ``versions.txt``.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.testbed import recipe
from tests.testbed.machine import CannotHaveBox, CommandFailed, run

CACHE = Path("/var/cache/hpcml-box")
MONTH = 30 * 86400.0
MIRROR = "http://deb.debian.org/debian"


@dataclass(frozen=True)
class RootFs:
    """A root file system in the cache."""

    packages: Path
    finished: Path

    @property
    def layers(self) -> str:
        """As overlayfs has them, the upper one first."""
        return f"{self.finished / 'root'}:{self.packages / 'root'}"

    @property
    def versions(self) -> dict[str, str]:
        """The version of each Debian package."""
        lines = (self.packages / "versions.txt").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)


def root_file_system() -> RootFs:
    """The one of today's recipe; made if it is not in the cache, which takes a minute or more.

    Raises
    ------
    CannotHaveBox
        It could not be made: no mirror, no space.
    """
    packages = CACHE / f"packages-{recipe.packages_digest()}"
    finished = CACHE / f"finished-{recipe.finished_digest()}"
    try:
        _once(packages, _install_packages)
        _once(finished, lambda folder, lock: _finish(packages, folder, lock))
    except (CommandFailed, OSError) as problem:
        raise CannotHaveBox(
            f"its root file system could not be made:\n{problem}\n",
            "It takes 3 GB of disk and a mirror of Debian, as this machine's apt has it.",
        ) from problem
    _forget_unused({packages, finished})
    return RootFs(packages, finished)


def _once(folder: Path, make: Callable[[Path, int], None]) -> None:
    """Have a folder made, unless it is there; it appears whole, by rename.

    Who comes while somebody else makes it waits for them, and for the commands of one that was
    killed, which have the lock too. What that one left is removed.
    """
    if folder.exists():
        return
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")) as lock:
        if folder.exists():
            return
        half = folder.with_suffix(".part")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        try:
            make(half, lock)
            half.rename(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _forget_unused(used: set[Path]) -> None:
    """Remove layers of other recipes that no box was made of for a month."""
    for folder in used:
        folder.touch()
    for folder in CACHE.glob("*-????????????????"):
        if folder not in used and time.time() - folder.stat().st_mtime > MONTH:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _install_packages(folder: Path, lock: int) -> None:
    root = folder / "root"
    run(
        "mmdebstrap",
        "--variant=apt",
        '--aptopt=Acquire::Check-Valid-Until "false"',  # a mirror's copy may be old
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(recipe.PACKAGES)}",
        recipe.SUITE,
        root,
        _mirror(),
        timeout=1800,
        pass_fds=[lock],
    )
    versions = run("chroot", root, "dpkg-query", "-W", "-f", "${Package} ${Version}\n").stdout
    (folder / "versions.txt").write_text(versions)


def _mirror() -> str:
    """Where this machine's own apt takes Debian from."""
    try:
        targets = run("apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI)").stdout
    except (CommandFailed, FileNotFoundError):
        return MIRROR
    found = (line.split()[-1].rstrip("/") for line in targets.splitlines() if line.strip())
    return next((uri for uri in found if uri.endswith("/debian")), MIRROR)


def _finish(packages: Path, folder: Path, lock: int) -> None:
    """Run `recipe.FINISH` in namespaces of its own, in which all it mounts vanishes with it."""
    upper, work, root = folder / "root", folder / "work", folder / "mounted"
    for path in (upper, work, root):
        path.mkdir()
    shutil.copy(recipe.FINISH, upper / "finish.sh")
    layers = f"lowerdir={packages / 'root'},upperdir={upper},workdir={work}"
    inside = "exec sh -x /finish.sh >/var/log/finish.log 2>&1"
    try:
        run(
            *("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"),
            *("sh", "-euc", 'mount -t overlay -o "$1" box "$2"; shift 2; exec sh "$@"', "sh"),
            *(layers, root),
            *(recipe.HOST, root, "control", "198.18.0.1/24", "0", "sh", "-c", inside),
            pass_fds=[lock],
        )
    except CommandFailed as failed:
        log = upper / "var/log/finish.log"
        said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
        raise OSError(f"{failed}\n{said}") from failed
    for path in (work, root):
        shutil.rmtree(path)
