"""The files of a workspace, and commands: what a transport does, wherever it is done.

The client does it itself where it sees the workspace, and has it done by :mod:`hpcml.agent.serving`
where it does not. All paths are relative to the workspace, and none leads out of it by ``..``.
"""

import errno
import os
import shutil
import stat
import time
from contextlib import suppress

from hpcml.agent import commands, trees, wire
from hpcml.agent.commands import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

    Content = Union[bytes, Iterable[bytes]]
    Status = Tuple[str, int, float, str, str]  # name, bytes, mtime, kind, target

JUST_NOW = 60.0  # seconds; whoever looks at times of files goes by days
NO_SPACE = (28, 122)  # ENOSPC, EDQUOT
MAKE_ROOM = "Free some space, or remove files: there may be no inodes left, or a quota of them."


class Trouble(Exception):
    """Something cannot be done with a file; ``advice`` says what to do about it."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem, self.advice = problem, advice


class told:
    """Errors of the operating system, told as Trouble."""

    # Not @contextmanager, which costs three times as much: it is around everything.

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: "BaseException | None", trace: object) -> None:
        if isinstance(error, OSError):
            advice = MAKE_ROOM if error.errno in NO_SPACE else "Look at the path by hand."
            raise Trouble("%s: %s" % (self._what, error.strerror or error), advice) from error


def private_folder(path: str) -> None:
    """Make a folder, and those above it that are missing, for this user's eyes only.

    Raises
    ------
    Trouble
        It is there, and others may write to it: what lies in it is run and believed.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        above = os.path.dirname(path)
        if not os.path.isdir(above):
            private_folder(above)
        with suppress(FileExistsError):  # somebody was quicker
            os.mkdir(path, 0o700)
        status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if status.st_uid != os.geteuid():
        raise Trouble(
            "%s belongs to %s, and what lies in it is run and believed" % (path, whose(status)),
            "Use a folder of your own.",
        )
    if status.st_mode & 0o022:
        raise Trouble(
            "others may write to %s, and what lies in it is run and believed" % path,
            "Run `chmod go-w %s`, or use a folder of your own." % path,
        )


def whose(status: "os.stat_result") -> str:
    """The name of the user that a file belongs to, or a number where there is none."""
    import pwd

    try:
        return pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        return "user %d" % status.st_uid


def _room_in(folder: str) -> None:
    """Have a folder that can be written to, though it, or what it is in, was made read-only."""
    there = folder
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    trees.open_up(there)
    private_folder(folder)


def pieces_of(path: str) -> "Iterator[bytes]":
    """The content of a file, a piece at a time."""
    with told("%s cannot be read" % path), open(path, "rb", buffering=0) as file:
        for piece in _pieces_of(file, path):
            yield piece


def _pieces_of(file: "Any", path: str) -> "Iterator[bytes]":
    with told("%s cannot be read" % path):
        for piece in iter(lambda: file.read(PIECE), b""):
            yield piece


def make_link(path: str, target: str, temporary: str) -> None:
    """Make a symbolic link appear, in place of what was there."""
    os.symlink(target, temporary)
    try:
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class Files:
    """A workspace.

    Parameters
    ----------
    workspace : str
        Absolute; made if it is not there.

    Raises
    ------
    Trouble
        From every method, if it cannot be done.
    """

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace
        self._commands = commands.Commands()
        with told("the workspace %s cannot be used" % workspace):
            private_folder(workspace)
            if os.stat(workspace).st_mode & 0o077:
                raise Trouble(
                    "the workspace %s is not this user's alone" % workspace,
                    "Run `chmod 700 %s`, or choose another one in the settings." % workspace,
                )

    def path(self, name: str) -> str:
        """The absolute path of a name in the workspace; ``""`` is the workspace itself."""
        if name.startswith("/") or "\0" in name or ".." in name.split("/"):
            raise Trouble("%r leads out of the workspace" % name, "Give a path within it.")
        return (self.workspace + "/" + name).rstrip("/")

    def run(self, argv: "Sequence[str]", stdin: bytes) -> "tuple[int, bytes, bytes]":
        """Run a command. Returns its exit code and what it printed.

        As in a shell, the exit code is 127 where there is no such command.
        """
        with told("%s cannot be run" % argv[0]):
            try:
                return self._commands.run(argv, stdin)
            except ChildProcessError as error:
                raise Trouble(
                    "how %s ended is not known: somebody else in this program waited for it"
                    % argv[0],
                    "Have SIGCHLD neither ignored nor handled by waiting for any process.",
                ) from error
            except commands.EndlessError as error:
                raise Trouble(
                    "%s prints without end" % argv[0], "Run it by hand to see what."
                ) from error

    def end_commands(self) -> None:
        """End the commands that are under way."""
        self._commands.end()

    def put(self, name: str, content: "Content") -> None:
        """Write a file of mode 0600, whole, making its folders."""
        path = self.path(name)
        with told("%s cannot be written" % path):
            private_folder(os.path.dirname(path))
            wire.publish(path, content)

    def publish(
        self,
        folder: str,
        files: "Iterable[tuple[str, Content]]",
        empty: "Iterable[str]",
        synced: "Iterable[str]" = (),
    ) -> bool:
        """Make a folder appear with all its files; ``False``: it is there already.

        Those that are ``synced``, and its name, are on disk for good by then.
        """
        path = self.path(folder)
        above = os.path.dirname(path)
        with told("%s cannot be written" % path):
            private_folder(above)
            temporary = os.path.join(above, ".tmp-" + wire.unique())
            try:
                os.mkdir(temporary, 0o700)
                for name in empty:
                    make = os.makedirs if "/" in name else os.mkdir
                    make(os.path.join(temporary, name), 0o700)
                for name, content in files:
                    wire.write_private(os.path.join(temporary, name), content)
                try:
                    os.rename(temporary, path)
                except OSError:
                    if not os.path.isdir(path):
                        raise
                else:
                    wire.make_durable([os.path.join(path, name) for name in synced])
                    return True
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            shutil.rmtree(temporary, ignore_errors=True)
            return False

    def put_once(self, name: str, content: "Content") -> bool:
        """Make a one-time fact appear; ``False`` where it stands already."""
        path = self.path(name)
        with told("%s cannot be written" % path):
            return wire.write_once(path, content)

    def put_verified(
        self, name: str, content: "Iterable[bytes]", digest: str, executable: bool
    ) -> bool:
        """Write a file that must have a SHA-256; ``False``: it has another, and is not there.

        It is read-only. One of that length that is there already stays: it got there likewise.
        """
        path = self.path(name)
        temporary = self._aside(name)
        with told("%s cannot be written" % path):
            _room_in(os.path.dirname(path))
            passing = _Digested(content)
            wire.write_private(temporary, passing, mode=0o500 if executable else 0o400)
            try:
                if passing.hexdigest() != digest:
                    return False
                if not os.path.isfile(path) or os.path.getsize(path) != passing.size:
                    trees.open_up(os.path.dirname(path))  # another client may have sealed it
                    os.rename(temporary, path)
                return True
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link, replacing what was there."""
        path = self.path(name)
        temporary = self._aside(name)
        with told("%s cannot be made" % path):
            _room_in(os.path.dirname(path))
            make_link(path, target, temporary)

    def seal(self, folder: str) -> None:
        """Make a folder and all that is in it read-only."""
        path = self.path(folder)
        with told("%s cannot be made read-only" % path):
            trees.seal(path)

    def _aside(self, name: str) -> str:
        """A path for what is not whole yet: in no folder that is digested as a whole."""
        top, below, _ = name.partition("/")
        return os.path.join(self.workspace, top if below else "", ".tmp-" + wire.unique())

    def append(self, name: str, record: "Mapping[str, Any]") -> None:
        """Append one line of JSON."""
        path = self.path(name)
        with told("%s cannot be written" % path):
            wire.append_line(path, record)

    def get(self, names: "Mapping[str, int]") -> "dict[str, bytes]":
        """Read files from the given offsets on; missing ones are left out."""
        found = {}
        for name, offset in names.items():
            path = self.path(name)
            try:  # no context manager: it may be tens of thousands of small files
                with open(path, "rb", buffering=0) as file:
                    if offset:
                        file.seek(offset)
                    found[name] = file.readall()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                with told("%s cannot be read" % path):
                    raise error
        return found

    def list(self, folder: str) -> "List[Status] | None":
        """Entries of a folder; ``None`` if there is no such folder."""
        path = self.path(folder)
        entries = []
        with told("%s cannot be listed" % path):
            try:
                listing = os.scandir(path)
            except FileNotFoundError:
                return None
            with listing:
                for entry in listing:
                    try:
                        status = entry.stat(follow_symlinks=False)
                        entries.append(_status(entry.name, entry.path, status))
                    except FileNotFoundError:
                        continue  # gone since the listing
        return entries

    def walk(self, name: str) -> "List[Status] | None":
        """All that is below a folder, by paths relative to it; of a file, itself as ``""``.

        ``None`` if there is no such thing. A link is followed at the top alone.
        """
        top = self.path(name)
        with told("%s cannot be looked through" % top):
            try:
                status = os.stat(top)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not stat.S_ISDIR(status.st_mode):
                return [_status("", top, status)]
            found, folders = [], [""]
            while folders:
                below = folders.pop()
                with suppress(FileNotFoundError), os.scandir(os.path.join(top, below)) as listing:
                    for entry in listing:
                        relative = os.path.join(below, entry.name)
                        with suppress(FileNotFoundError):  # gone since the listing
                            status = entry.stat(follow_symlinks=False)
                            found.append(_status(relative, entry.path, status))
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(relative)
        return found

    def digest(self, name: str) -> "tuple[str, int, str] | None":
        """``(SHA-256, bytes, stamp)`` of a file or folder, which then is on disk for good.

        ``None`` if it is not there.
        """
        path = self.path(name)
        with told("%s cannot be digested" % path):
            if not os.path.exists(path):
                return None
            stamp = wire.stamp_path(path)
            found, size = wire.digest_path(path)
            paths = [full for _, full in wire.walk(path)] if os.path.isdir(path) else [path]
            wire.make_durable([full for full in paths if full == path or not os.path.islink(full)])
            if wire.stamp_path(path) != stamp:
                raise Trouble("%s changes while it is read" % path, "Wait for who writes to it.")
            return found, size, stamp

    def names(self, folder: str) -> "List[str] | None":
        """Names in a folder; ``None`` if there is none."""
        path = self.path(folder)
        with told("%s cannot be listed" % path):
            try:
                return os.listdir(path)
            except FileNotFoundError:
                return None

    def open_private(self, name: str) -> "BinaryIO":
        """A file that nobody else can have written, opened for reading."""
        path = place = self.path(name)
        parts = [part for part in name.split("/") if part]
        for depth in range(len(parts) + 1):
            place = "/".join([self.workspace, *parts[:depth]])
            last = depth == len(parts)
            with told("%s cannot be looked at" % place):
                status = os.lstat(place)
            if status.st_uid != os.geteuid():
                raise Trouble(
                    "%s is not this user's alone: it belongs to %s, and what is in it will not be "
                    "loaded" % (place, whose(status)),
                    "Look who has put it there; use another workspace if it was not you.",
                )
            private = not status.st_mode & (0o022 if last else 0o077)
            wanted = stat.S_ISREG if last else stat.S_ISDIR
            if not private or not wanted(status.st_mode):
                raise Trouble(
                    "%s is not this user's alone: what is in it will not be loaded" % place,
                    "Look at it; if it is all right: chmod go-rwx %s" % place,
                )
        with told("%s cannot be read" % path):
            return open(path, "rb", opener=_not_a_link)

    def stream(self, names: "Iterable[str]") -> "Iterator[tuple[int, int, int, Iterator[bytes]]]":
        """Files, one after the other: number, mode, mtime in ns, and the content.

        Those that are not there (any more) are left out.
        """
        for number, name in enumerate(names):
            path = self.path(name)
            with told("%s cannot be copied" % path):
                try:
                    file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115
                except (FileNotFoundError, NotADirectoryError):
                    continue
                with file:
                    status = os.fstat(file.fileno())  # before its content: it may grow meanwhile
                    if not stat.S_ISREG(status.st_mode):
                        raise OSError(22, "it is no file")
                    mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
                    yield number, mode, mtime, _pieces_of(file, path)

    def remove(self, name: str) -> None:
        """Remove a file or a whole folder; what is gone is no error."""
        path = self.path(name)
        with told("%s cannot be removed" % path):
            trees.remove(path)

    def move(self, source: str, target: str) -> bool:
        """Rename within the workspace; ``False``: it is not there."""
        place, new = self.path(source), self.path(target)
        with told("%s cannot be moved" % place):
            return trees.move(place, new)

    def touch(self, name: str) -> "Status | None":
        """Make the time of a file or folder now, or leave one of this minute as it is.

        ``None`` if it is not there.
        """
        path = self.path(name)
        with told("%s cannot be touched" % path):
            try:
                status = os.lstat(path)
                if not 0 <= time.time() - status.st_mtime < JUST_NOW:
                    os.utime(path, follow_symlinks=False)
                    status = os.lstat(path)
                return _status(os.path.basename(path), path, status)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def is_whole(self, marker: str) -> bool:
        """Whether an input is as it was when its marker was written, for a stat a file."""
        try:
            said = wire.read_json(self.path(marker)) or {}
            return bool(said.get("stamp") == wire.stamp_path(self.path(wire.marked(marker))))
        except (OSError, ValueError):
            return False

    def usage(self, names: "Iterable[str]") -> "trees.Usage | None":
        """What files and whole folders take; ``None`` if none of them is there."""
        with told("%s cannot be looked through" % self.workspace):
            return trees.usage([self.path(name) for name in names])

    def lock(self, alone: bool) -> "int | None":
        """Lock the workspace, for a descriptor to :meth:`unlock`; ``None``: not now."""
        path = self.workspace + "/lock"
        with told("%s cannot be locked" % path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if wire.take_lock(descriptor, shared=not alone):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            return None

    def unlock(self, descriptor: int) -> None:
        """Let go of it. (Closing would not do: a child forked meanwhile may hold a copy.)"""
        wire.drop_lock(descriptor)
        os.close(descriptor)


def _status(name: str, path: str, status: "os.stat_result") -> "Status":
    size, mtime, mode = status.st_size, status.st_mtime, status.st_mode
    if stat.S_ISLNK(mode):
        return name, size, mtime, "link", os.readlink(path)
    if stat.S_ISDIR(mode):
        return name, size, mtime, "folder", ""
    return name, size, mtime, "file" if stat.S_ISREG(mode) else "special", ""


class _Digested:
    """Pieces on their way, which are digested and counted."""

    def __init__(self, pieces: "Iterable[bytes]") -> None:
        import hashlib  # OpenSSL's: slow to load, and several times as fast

        self.size, self._pieces, self._digest = 0, pieces, hashlib.sha256()
        self.hexdigest = self._digest.hexdigest

    def __iter__(self) -> "Iterator[bytes]":
        for piece in self._pieces:
            self.size += len(piece)
            self._digest.update(piece)
            yield piece


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
