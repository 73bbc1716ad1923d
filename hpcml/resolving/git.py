"""What git knows of a folder, asked from git itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from hpcml.agent import wire
from hpcml.errors import CodeError

LARGEST_DIFF = 256 * 1024  # bytes of a diff that are kept in the plan


def top_level(folder: str) -> str | None:
    """Absolute top folder of the working tree, ``None`` outside one or without git."""
    if not any(os.path.exists(f"{parent}/.git") for parent in _and_above(folder)):
        return None
    output = _git(Path(folder), "rev-parse", "--show-toplevel")
    return None if output is None else os.path.realpath(os.fsdecode(output.removesuffix(b"\n")))


def _and_above(folder: str) -> Iterator[str]:
    """An absolute folder and all those that it is in."""
    while folder != "/":
        yield folder
        folder = os.path.dirname(folder)
    yield ""


def files(folder: str) -> list[str]:
    """Tracked, and untracked but not ignored files, submodules' included, relative to a folder."""
    found = set()
    for name in _names(folder, "ls-files", "--cached", "--others", "--exclude-standard"):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            name = name.rstrip("/")
            if os.path.lexists(os.path.join(path, ".git")):  # else a submodule that is not there
                found |= {f"{name}/{inner}" for inner in files(path)}
        elif os.path.lexists(path):
            found.add(name)
    return sorted(found)


def executables(folder: str) -> set[str] | None:
    """Tracked files that git calls executable; ``None`` where the file system can be asked.

    ``core.fileMode=false`` says that execute bits mean nothing here.
    """
    mode = _git(Path(folder), "config", "--type=bool", "core.fileMode", may_fail=True)
    if mode is None or mode.strip() != b"false":
        return None
    rows = (_git(Path(folder), "ls-files", "--stage", "-z", "--", ".") or b"").split(b"\0")
    return {os.fsdecode(row.split(b"\t", 1)[1]) for row in rows if row.startswith(b"100755")}


def state(folder: str, taken: Collection[str], is_key: Callable[[str], bool]) -> dict[str, Any]:
    """Commit and uncommitted changes, for the record.

    Parameters
    ----------
    folder : str
        Absolute folder within git.
    taken : collection of str
        Files of the snapshot. Others have their reason to be left out (a password, say), so they
        are left out of the diff, too.
    is_key : callable
        Whether a file's name looks like a key's: such a file, deleted, is not shown either.

    Returns
    -------
    dict
        ``commit`` (``None`` before the first), ``dirty``, ``diff_sha256`` and ``diff`` (``None``
        where it is larger than 256 KiB or not text; the snapshot holds the files all the same).
    """
    commit = _git(Path(folder), "rev-parse", "--verify", "--quiet", "HEAD", may_fail=True)
    if not commit:
        return {"commit": None, "dirty": True, "diff_sha256": None, "diff": None}
    changed, untracked = _changes(folder)
    diff = _diff(folder, [n for n in changed if not _is_hidden(folder, n, taken, is_key)])
    try:
        text = diff.decode("utf-8") if len(diff) <= LARGEST_DIFF else None
    except UnicodeDecodeError:
        text = None
    if text is not None and "PRIVATE KEY-----" in text:
        text = None  # in a file that was deleted for that very reason
    return {
        "commit": commit.decode().strip(),
        "dirty": bool(diff) or not untracked.isdisjoint(taken),
        "diff_sha256": wire.sha256(diff) if diff else None,
        "diff": text or None,
    }


def _is_hidden(
    folder: str, name: str, taken: Collection[str], is_key: Callable[[str], bool]
) -> bool:
    path = os.path.join(folder, name)
    if name in taken or os.path.isdir(path):  # a folder: a submodule's commit
        return False
    return is_key(name) or os.path.lexists(path)


def _changes(folder: str) -> tuple[list[str], set[str]]:
    """Names of what differs from the last commit, and of what is neither tracked nor ignored.

    `git diff` alone would tell, but it writes the index.
    """
    here = _names(folder, "ls-files", "-t", "--modified", "--others", "--exclude-standard")
    staged = _names(folder, "diff-index", "--cached", "--name-only", "--relative", "HEAD")
    untracked = {line[2:] for line in here if line.startswith("? ")}
    return sorted({line[2:] for line in here} - untracked | set(staged)), untracked


def _diff(folder: str, names: list[str]) -> bytes:
    before = ("--literal-pathspecs", "-c", "diff.autoRefreshIndex=false", "diff", "--no-color")
    options = ("--no-ext-diff", "--no-textconv", "--no-renames", "--relative")
    pieces = [names[start : start + 1000] for start in range(0, len(names), 1000)]
    return b"".join(
        _git(Path(folder), *before, *options, "HEAD", "--", *piece) or b"" for piece in pieces
    )


def _names(folder: str, *args: str) -> list[str]:
    output = _git(Path(folder), *args, "-z", "--", ".") or b""
    return [os.fsdecode(raw) for raw in output.split(b"\0") if raw]


def _git(folder: Path, *args: str, may_fail: bool = False) -> bytes | None:
    # Inside a hook git's own variables would point at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # looking at a repository leaves it as it is
    try:
        done = subprocess.run(
            ["git", *args], cwd=folder, env=environment, capture_output=True, check=False
        )
    except FileNotFoundError:
        return None  # no git here: the folder counts as a plain one
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return None
    raise CodeError(
        f"git {args[0]} failed in {folder}: {done.stderr.decode(errors='replace').strip()}",
        "Mend the repository, or name the folder to take along with Job(code=...).",
    )


def is_within(path: str, folder: str) -> bool:
    """Whether an absolute path is a folder, or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
