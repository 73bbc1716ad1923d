"""The files of a workspace, and commands: what a transport does, wherever it is done.

The client does it itself where it sees the workspace, and has it done by :mod:`hpcml.agent.serving`
where it does not. All paths are relative to the workspace, and none leads out of it by ``..``.
"""

import errno
import os
import select
import shutil
import signal
import stat
from contextlib import suppress

from hpcml.agent import trees, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

    Content = Union[bytes, Iterable[bytes]]
    Status = Tuple[str, int, float, str, str]  # name, bytes, mtime, kind, target

PIECE = 1 << 20  # bytes of a file that are held at a time
MOST_PRINTED = 64 << 20  # bytes that a command may print
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
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Trouble(
            "others may write to %s, and what lies in it is run and believed" % path,
            "Run `chmod go-w %s`, or use a folder of your own." % path,
        )


def pieces_of(path: str) -> "Iterator[bytes]":
    """The content of a file, a piece at a time."""
    with told("%s cannot be read" % path), open(path, "rb", buffering=0) as file:
        for piece in _pieces_of(file, path):
            yield piece


def _pieces_of(file: "Any", path: str) -> "Iterator[bytes]":
    with told("%s cannot be read" % path):
        for piece in iter(lambda: file.read(PIECE), b""):
            yield piece


# Whoever calls may be part of a job, or have preferences: SLURM_*, SBATCH_*, SQUEUE_FORMAT and
# their like would change what is asked, and a batch job is given what its submission had. Answers
# are in English; lists of array tasks come whole, times in s since 1970.
KEPT = ("PATH", "HOME", "USER", "LD_LIBRARY_PATH", "SLURM_CONF")
SAID = {"LC_ALL": "C", "TZ": "UTC", "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}


def of_commands() -> "dict[str, str]":
    """The environment of commands: of this process's no more than where things are."""
    kept = ((name, os.environ.get(name)) for name in KEPT)
    return dict(SAID, **{name: value for name, value in kept if value})


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
        self._commands: "set[Any]" = set()  # under way
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
        """Run a command in the workspace. Returns its exit code and what it printed.

        As in a shell, the exit code is 127 where there is no such command.
        """
        import subprocess

        pipe = subprocess.PIPE
        with told("%s cannot be run" % argv[0]):
            try:
                command = subprocess.Popen(
                    argv,
                    cwd=self.workspace,
                    env=of_commands(),
                    stdin=pipe if stdin else subprocess.DEVNULL,
                    stdout=pipe,
                    stderr=pipe,
                    bufsize=0,  # its output is read by descriptor
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                if not os.path.isdir(self.workspace):
                    raise
                return 127, b"", os.fsencode("%s: %s\n" % (argv[0], error.strerror))
        self._commands.add(command)
        try:
            stdout, stderr = _talk(command, argv[0], stdin)
        except BaseException:
            os.killpg(command.pid, signal.SIGKILL)
            raise
        finally:
            code = command.wait()
            self._commands.discard(command)
        return code, stdout, stderr

    def end_commands(self) -> None:
        """End the commands that are under way."""
        for command in list(self._commands):
            try:
                os.killpg(command.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it has just ended

    def put(self, name: str, content: "Content") -> None:
        """Write a file of mode 0600, whole, making its folders."""
        path = self.path(name)
        with told("%s cannot be written" % path):
            private_folder(os.path.dirname(path))
            wire.publish(path, content)

    def publish(
        self, folder: str, files: "Iterable[tuple[str, Content]]", empty: "Iterable[str]"
    ) -> bool:
        """Make a folder appear with all its files; ``False``: it is there already."""
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
            private_folder(os.path.dirname(path))
            passing = _Digested(content)
            wire.write_private(temporary, passing, mode=0o500 if executable else 0o400)
            try:
                if passing.hexdigest() != digest:
                    return False
                if not os.path.isfile(path) or os.path.getsize(path) != passing.size:
                    trees.open_up(os.path.dirname(path))
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
            private_folder(os.path.dirname(path))
            trees.open_up(os.path.dirname(path))
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
            private = status.st_uid == os.geteuid() and not status.st_mode & (
                0o022 if last else 0o077
            )
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
        """Make the time of a file or folder now; ``None`` if it is not there."""
        path = self.path(name)
        with told("%s cannot be touched" % path):
            try:
                os.utime(path, follow_symlinks=False)
                return _status(os.path.basename(path), path, os.lstat(path))
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


def _talk(command: "Any", name: str, stdin: bytes) -> "tuple[bytes, bytes]":
    """Write a command's input and read what it prints, until it has closed its output."""
    streams = {stream.fileno(): stream for stream in (command.stdout, command.stderr)}
    printed: "dict[int, list[bytes]]" = {descriptor: [] for descriptor in streams}
    left, given, poll = MOST_PRINTED, memoryview(stdin), select.poll()
    for descriptor in streams:
        poll.register(descriptor, select.POLLIN)
    if command.stdin is not None:
        streams[command.stdin.fileno()] = command.stdin
        os.set_blocking(command.stdin.fileno(), False)
        poll.register(command.stdin, select.POLLOUT)
    try:
        while streams:
            for descriptor, _ in poll.poll():
                if descriptor in printed:
                    piece = os.read(descriptor, PIECE)
                    printed[descriptor].append(piece)
                    left, done = left - len(piece), not piece
                else:
                    given = _give(descriptor, given)
                    done = not given
                if done:
                    poll.unregister(descriptor)
                    streams.pop(descriptor).close()
                if left < 0:
                    raise Trouble("%s prints without end" % name, "Run it by hand to see what.")
    finally:
        for stream in streams.values():
            stream.close()
    stdout, stderr = (b"".join(pieces) for pieces in printed.values())
    return stdout, stderr


def _give(descriptor: int, data: memoryview) -> memoryview:
    """Write what can be written at once. Returns the rest; nothing if nobody reads it."""
    try:
        return data[os.write(descriptor, data[:PIECE]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


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
