"""What git knows of a folder, asked from git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hpcml.agent import wire
from hpcml.errors import CodeError

LARGEST_DIFF = 256 * 1024  # bytes of a diff that are kept in the plan


def top_level(folder: Path) -> str | None:
    """Absolute top folder of the working tree, ``None`` outside one or without git."""
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    output = _git(folder, "rev-parse", "--show-toplevel")
    return None if output is None else os.path.realpath(os.fsdecode(output.rstrip(b"\n")))


def files(folder: str) -> list[str]:
    """Tracked, and untracked but not ignored files, submodules' included, relative to a folder."""
    output = _git(
        Path(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."
    )
    found = set()
    for raw in (output or b"").split(b"\0"):
        name = os.fsdecode(raw)
        path = os.path.join(folder, name)
        if raw and os.path.isdir(path) and not os.path.islink(path):
            name = name.rstrip("/")
            found |= {f"{name}/{inner}" for inner in files(path) if inner}  # a submodule
        elif raw and os.path.lexists(path):
            found.add(name)
    return sorted(found)


def state(folder: str) -> dict[str, Any] | None:
    """Commit and uncommitted changes, for the record; ``None`` outside git.

    Returns
    -------
    dict
        ``commit`` (``None`` before the first), ``dirty``, ``diff_sha256`` and ``diff`` (``None``
        where it is larger than 256 KiB or not text; the snapshot holds the files all the same).
    """
    if top_level(Path(folder)) is None:
        return None
    commit = _git(Path(folder), "rev-parse", "--verify", "--quiet", "HEAD", may_fail=True)
    if not commit:
        return {"commit": None, "dirty": True, "diff_sha256": None, "diff": None}
    diff = _git(Path(folder), "diff", "--no-ext-diff", "--no-color", "HEAD", "--", ".") or b""
    try:
        text = diff.decode("utf-8") if len(diff) <= LARGEST_DIFF else None
    except UnicodeDecodeError:
        text = None
    return {
        "commit": commit.decode().strip(),
        "dirty": bool(diff),
        "diff_sha256": wire.sha256(diff) if diff else None,
        "diff": text or None,
    }


def _git(folder: Path, *args: str, may_fail: bool = False) -> bytes | None:
    # Inside a hook git's own variables would point at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
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
