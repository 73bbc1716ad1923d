"""The machine hpcml itself runs on."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hpcml import trees
from hpcml.agent import wire
from hpcml.errors import TransportError
from hpcml.settings import Binding, private_folder
from hpcml.sites import Site
from hpcml.transports import Completed, FileStatus

PATIENCE, INTERVAL = 10.0, 0.05  # seconds to wait for the workspace alone, and between two tries


class LocalTransport:
    """See :class:`hpcml.transports.Transport`."""

    def __init__(self, site: Site, binding: Binding) -> None:
        self.workspace = Path(binding.workspace)
        with _told(f"{site.name}: the workspace {self.workspace} cannot be used"):
            private_folder(self.workspace)
            status = self.workspace.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise TransportError(
                    f"{site.name}: the workspace {self.workspace} is not this user's alone",
                    f"Run `chmod 700 {self.workspace}`, or choose another one in the settings.",
                )

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        with _told(f"{argv[0]} cannot be run"):
            done = subprocess.run(
                argv, input=stdin, cwd=self.workspace, capture_output=True, check=False
            )
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    def put(self, files: Mapping[str, bytes | Path]) -> None:
        for name, content in files.items():
            path = self.workspace / name
            with _told(f"{path} cannot be written"):
                private_folder(path.parent)
                data = content.read_bytes() if isinstance(content, Path) else content
                wire.publish(str(path), data)

    def publish(self, folder: str, files: Mapping[str, bytes], empty: Iterable[str] = ()) -> bool:
        path = self.workspace / folder
        with _told(f"{path} cannot be written"):
            private_folder(path.parent)
            temporary = path.parent / f".tmp-{wire.unique()}"
            try:
                temporary.mkdir(0o700)
                for name in empty:
                    (temporary / name).mkdir(0o700, parents=True)
                for name, content in files.items():
                    wire.write_private(str(temporary / name), content)
                try:
                    temporary.rename(path)
                except OSError:
                    if not path.is_dir():
                        raise
                    return False
                return True
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def get(self, paths: Mapping[str, int]) -> dict[str, bytes]:
        found, path = {}, ""
        root = str(self.workspace)  # text, unbuffered: it may be tens of thousands of small files
        for name, offset in paths.items():
            path = f"{root}/{name}"
            try:
                with open(path, "rb", buffering=0) as file:
                    if offset:
                        file.seek(offset)
                    found[name] = file.readall()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                with _told(f"{path} cannot be read"):
                    raise error
        return found

    def list(self, folder: str) -> list[FileStatus] | None:
        path = self.workspace / folder
        entries = []
        with _told(f"{path} cannot be listed"):
            try:
                listing = os.scandir(path)
            except FileNotFoundError:
                return None
            with listing:
                for entry in listing:
                    try:
                        entries.append(_status(entry))
                    except FileNotFoundError:
                        continue  # gone since the listing
        return entries

    def names(self, folder: str) -> set[str] | None:
        path = self.workspace / folder
        with _told(f"{path} cannot be listed"):
            try:
                return set(os.listdir(path))
            except FileNotFoundError:
                return None

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        found = ((folder, self.names(folder)) for folder in folders)
        return {folder: names for folder, names in found if names is not None}

    def put_once(self, files: Mapping[str, bytes]) -> set[str]:
        made = set()
        for name, content in files.items():
            path = self.workspace / name
            with _told(f"{path} cannot be written"):
                if wire.write_once(str(path), content):
                    made.add(name)
        return made

    def append(self, path: str, record: Mapping[str, Any]) -> None:
        full = self.workspace / path
        with _told(f"{full} cannot be written"):
            wire.append_line(str(full), record)

    def open_private(self, path: str) -> BinaryIO:
        full = self.workspace / path
        above = [place for place in full.parents if place.is_relative_to(self.workspace)]
        for place in [*reversed(above), full]:
            with _told(f"{place} cannot be looked at"):
                status = place.lstat()
            mask = 0o022 if place == full else 0o077
            private = status.st_uid == os.geteuid() and not status.st_mode & mask
            wanted = stat.S_ISREG if place == full else stat.S_ISDIR
            if not private or not wanted(status.st_mode):
                raise TransportError(
                    f"{place} is not this user's alone: what is in it will not be loaded",
                    f"Look at it; if it is all right: chmod go-rwx {place}",
                )
        with _told(f"{full} cannot be read"):
            return open(full, "rb", opener=_not_a_link)

    def fetch(self, path: str, destination: Path) -> None:
        source = self.workspace / path
        temporary = destination.parent / f".{destination.name}.tmp-{wire.unique()}"
        with _told(f"{source} cannot be copied to {destination}"):
            destination.parent.mkdir(parents=True, exist_ok=True)
            try:
                if source.is_dir():
                    shutil.copytree(source, temporary, symlinks=True)
                    if destination.is_dir() and not destination.is_symlink():
                        shutil.rmtree(destination)
                else:
                    shutil.copyfile(source, temporary)
                temporary.rename(destination)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.unlink(missing_ok=True)
                raise

    def remove(self, paths: Iterable[str]) -> None:
        for name in paths:
            path = self.workspace / name
            with _told(f"{path} cannot be removed"):
                trees.remove(str(path))

    def move(self, source: str, target: str) -> bool:
        place = self.workspace / source
        with _told(f"{place} cannot be moved"):
            return trees.move(str(place), str(self.workspace / target))

    def touch(self, path: str) -> bool:
        place = self.workspace / path
        with _told(f"{place} cannot be touched"):
            try:
                os.utime(place, follow_symlinks=False)
            except FileNotFoundError:
                return False
            return True

    def usage(self, paths: Iterable[str]) -> trees.Usage | None:
        root = str(self.workspace)
        with _told(f"{root} cannot be looked through"):
            return trees.usage(f"{root}/{path}".rstrip("/") for path in paths)

    @contextmanager
    def holding(self, *, alone: bool = False) -> Iterator[None]:
        path = self.workspace / "lock"
        with _told(f"{path} cannot be locked"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _told(f"{path} cannot be locked"):
                if alone:
                    self._wait_to_be_alone(descriptor)
                else:
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            # Closing would not do: a child forked meanwhile may hold a copy.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _wait_to_be_alone(self, descriptor: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not wire.take_lock(descriptor):
            if time.monotonic() >= deadline:
                raise TransportError(
                    f"somebody is submitting to {self.workspace}, or pruning it",
                    "Try again when that is over.",
                )
            time.sleep(INTERVAL)

    def now(self) -> float:
        return time.time()


def _status(entry: os.DirEntry[str]) -> FileStatus:
    status = entry.stat(follow_symlinks=False)
    size, mtime = status.st_size, status.st_mtime
    if entry.is_symlink():
        return FileStatus(entry.name, size, mtime, "link", os.readlink(entry.path))
    if entry.is_dir(follow_symlinks=False):
        return FileStatus(entry.name, size, mtime, "folder")
    kind = "file" if entry.is_file(follow_symlinks=False) else "special"
    return FileStatus(entry.name, size, mtime, kind)


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextmanager
def _told(what: str) -> Any:
    try:
        yield
    except OSError as error:
        advice = "Free some space." if error.errno in (28, 122) else "Look at the path by hand."
        raise TransportError(f"{what}: {error.strerror or error}", advice) from error
