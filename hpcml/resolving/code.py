"""The snapshot of a job's code: which files, under which digest, in which archive."""

from __future__ import annotations

import fnmatch
import io
import os
import shlex
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcml import units
from hpcml.agent import wire
from hpcml.errors import CodeError
from hpcml.resolving import git

LARGEST = 50 * 10**6  # bytes
MOST_FILES = 5000
IGNORE_FILE = ".hpcmlignore"

LEFT_OUT = ("*.ipynb", ".ipynb_checkpoints", "__pycache__", "*.pyc", ".git")
LEFT_OUT_WITHOUT_GIT = (
    *LEFT_OUT,
    ".venv",
    "venv",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".DS_Store",
)
KEYS = (".env", ".env.local", "*.pem", "*.p12", ".netrc", ".pgpass")
# ssh names keys id_<something>; a source or data file may be called so, too.
NO_KEY_SUFFIXES = (".py", ".sh", ".csv", ".json", ".yaml", ".yml", ".toml", ".txt", ".md", ".nc")


@dataclass(frozen=True)
class Snapshot:
    """Code as it was when it was read, each file once.

    Attributes
    ----------
    digest : str
        Of paths, kinds and contents (see :func:`hpcml.agent.wire.tree_digest`): the same for
        every checkout of the same files.
    entries : tuple of (str, str, bytes)
        Path, kind (``file``, ``exec``, ``link``) and content (a link's target).
    git : dict or None
        Commit and diff.
    """

    digest: str
    entries: tuple[tuple[str, str, bytes], ...]
    git: dict[str, Any] | None

    def archive(self) -> bytes:
        """A tar of the entries, the same bytes for the same digest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, kind, content in self.entries:
                member = tarfile.TarInfo(path)
                member.mode = 0o500 if kind == "exec" else 0o400
                if kind == "link":
                    member.type, member.linkname = tarfile.SYMTYPE, content.decode("utf-8")
                    tar.addfile(member)
                else:
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        return buffer.getvalue()


def take_snapshot(root: str, left_out: Iterable[str] = ()) -> Snapshot:
    """Read the code below a folder.

    Parameters
    ----------
    root : str
        Absolute folder. Within git: tracked and untracked, not ignored files. Elsewhere: all.
    left_out : iterable of str
        Absolute paths that are data, not code: the job's inputs and outputs.

    Raises
    ------
    CodeError
        Too much, what looks like a key, or a name that is not UTF-8; the message says which file
        and how to leave it out.
    """
    in_git = git.top_level(root) is not None
    patterns = (*(LEFT_OUT if in_git else LEFT_OUT_WITHOUT_GIT), *_ignored(root))
    data = [os.path.relpath(os.path.realpath(path), root) for path in left_out]
    names = git.files(root) if in_git else [name for name, _ in _walk(root, patterns)]
    chosen = [n for n in names if not _matches(n, patterns) and not _within(n, data)]
    _refuse_too_much(root, chosen, in_git)
    executables = git.executables(root) if in_git else None
    entries = tuple(_read(root, name, in_git, executables) for name in chosen)
    rows = [(p, k, c.decode() if k == "link" else wire.sha256(c)) for p, k, c in entries]
    state = git.state(root, set(chosen), _is_named_like_a_key) if in_git else None
    return Snapshot(wire.tree_digest(rows), entries, state)


def _walk(root: str, patterns: tuple[str, ...], below: str = "") -> Iterable[tuple[str, str]]:
    """Files below a folder, without descending into what is left out."""
    with os.scandir(os.path.join(root, below)) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if _matches(name, patterns):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, patterns, name)
        else:
            yield name, entry.path


def _ignored(root: str) -> list[str]:
    path = Path(root, IGNORE_FILE)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CodeError(f"{path} cannot be read: {error}", "It is UTF-8 text.") from error
    stripped = (line.strip().rstrip("/") for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern names the path, one of its folders, or one part of it."""
    parts = name.split("/")
    heads = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(
        fnmatch.fnmatchcase(candidate, pattern.lstrip("/"))
        for pattern in patterns
        for candidate in (heads if "/" in pattern else parts)
    )


def _within(name: str, folders: Iterable[str]) -> bool:
    return any(name == folder or name.startswith(folder + "/") for folder in folders)


def _refuse_too_much(root: str, names: list[str], in_git: bool) -> None:
    try:
        sizes = {name: os.lstat(os.path.join(root, name)).st_size for name in names}
    except OSError as error:
        raise CodeError(f"{error.filename} cannot be read: {error}", "Submit again.") from error
    total = sum(sizes.values())
    if total <= LARGEST and len(names) <= MOST_FILES:
        return
    by_folder: dict[str, list[int]] = {}
    for name, size in sizes.items():
        by_folder.setdefault(name.split("/")[0], []).append(size)
    worst = sorted(by_folder.items(), key=lambda item: (-sum(item[1]), -len(item[1])))[:3]
    weights = sizes if total > LARGEST else dict.fromkeys(names, 1)
    listed = ", ".join(f"{n} ({units.memory_text(sum(s))} in {len(s)})" for n, s in worst)
    raise CodeError(
        f"the code in {root} is {units.memory_text(total)} in {len(names)} files; a snapshot may "
        f"have 50 MB and 5,000 files. The largest: {listed}",
        f"Leave out what is no code: {_how_to_ignore(_heaviest(weights), in_git)} Data that the "
        "job reads belongs into Job(inputs=...).",
    )


def _heaviest(weights: dict[str, int]) -> str:
    """The deepest file or folder that holds more than half of it all."""
    place, whole = "", sum(weights.values())
    while place not in weights:
        below: dict[str, int] = {}
        for name, weight in weights.items():
            if name.startswith(place):
                head = place + name[len(place) :].split("/")[0]
                below[head] = below.get(head, 0) + weight
        best = max(below, key=lambda head: below[head])
        if place and below[best] * 2 <= whole:
            return place.rstrip("/")
        place = best if best in weights else f"{best}/"
    return place


def _read(
    root: str, name: str, in_git: bool, executables: set[str] | None
) -> tuple[str, str, bytes]:
    path = os.path.join(root, name)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise CodeError(f"the name of {path!r} is not UTF-8", "Rename or ignore it.") from None
    if _is_named_like_a_key(name):
        raise _looks_like_a_key(root, name, in_git)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return name, "link", os.readlink(path).encode("utf-8")
        if not stat.S_ISREG(status.st_mode):
            raise CodeError(f"{path} is neither a file nor a link", _how_to_ignore(name, in_git))
        content = Path(path).read_bytes()
    except (OSError, UnicodeEncodeError) as error:
        raise CodeError(f"{path} cannot be read: {error}", _how_to_ignore(name, in_git)) from error
    if content.startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in content[:64]:
        raise _looks_like_a_key(root, name, in_git)
    executable = status.st_mode & stat.S_IXUSR if executables is None else name in executables
    return name, "exec" if executable else "file", content


def _is_named_like_a_key(name: str) -> bool:
    base = os.path.basename(name)
    looks = any(fnmatch.fnmatchcase(base, pattern) for pattern in KEYS)
    return looks or (base.startswith("id_") and not base.endswith(NO_KEY_SUFFIXES))


def _looks_like_a_key(root: str, name: str, in_git: bool) -> CodeError:
    return CodeError(
        f"{os.path.join(root, name)} looks like a key or password, and would be copied to the site",
        _how_to_ignore(name, in_git),
    )


def _how_to_ignore(name: str, in_git: bool) -> str:
    if name.splitlines() != [name]:
        return "rename it."  # no line can name it
    line = "/" + "".join(f"[{char}]" if char in "*?[ " else char for char in name)
    line = line.replace("\\", "[\\\\]")
    if not in_git:
        return f'add the line "{line}" to {IGNORE_FILE}.'
    path = f":(literal){name}" if set(name) & set("*?[\\:") else name
    return (
        f'add the line "{line}" to .gitignore (and `git rm -r --cached -- {shlex.quote(path)}` if '
        f"it is tracked), or to {IGNORE_FILE}."
    )
