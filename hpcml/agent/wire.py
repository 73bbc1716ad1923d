"""What the client and the site must agree on: the files of a batch, and how a run ended.

Standard library only, Python 3.6 and newer. Two rules carry everything else:

* a file appears whole, by rename (:func:`publish`), or as a one-time fact, by link
  (:func:`write_once`): the first writer wins, for ever;
* how a run ended is judged in one place, :func:`how_it_ended`, from evidence alone.
"""

import errno
import fcntl
import json
import os
import re
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

SCHEMA = 2

CREATED = "CREATED"
PREPARING = "PREPARING"
PENDING = "PENDING"
RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
TIMEOUT = "TIMEOUT"
OUT_OF_MEMORY = "OUT_OF_MEMORY"
PREEMPTED = "PREEMPTED"
NODE_FAIL = "NODE_FAIL"
UNKNOWN = "UNKNOWN"

WORD_PATIENCE = 60.0
"""Seconds for which a signalled end waits for the scheduler's word."""

STALE = 70.0
"""Seconds after which every machine shows what another one has written: NFS lists a folder as it
was up to 60 s ago (``acdirmax``), and clocks differ a little."""

REQUEUE = 144
"""Exit code by which a job with a checkpoint asks to be started again (submitit's, too)."""

ENDING_SIGNALS = (1, 2, 3, 15, 24)
"""HUP INT QUIT TERM XCPU: whoever sends one of these wants the run to end."""


try:
    # hashlib would load OpenSSL: too slow a start.
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]
except ImportError:
    try:
        # Its name since Python 3.12.
        from _sha2 import sha256 as _sha256  # type: ignore[import-not-found]
    except ImportError:
        from hashlib import sha256 as _sha256

# --- encoding ---------------------------------------------------------------------------


# Made once: json.dumps() would make one a call.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)
_LINE = json.JSONEncoder(sort_keys=True)


def canonical(value: "Any") -> bytes:
    """JSON of which there is one spelling only: sorted keys, UTF-8, no NaN, no spaces."""
    return _CANONICAL.encode(value).encode("utf-8")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of a few bytes."""
    return str(_sha256(data).hexdigest())


def sha256_file(path: str) -> str:
    """Hexadecimal SHA-256 of a file's content, read in pieces."""
    import hashlib  # OpenSSL's: slow to load, and several times as fast

    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def tree_digest(entries: "Iterable[Sequence[str]]") -> str:
    """Digest of a folder: of its sorted ``[path, kind, content]`` rows.

    Parameters
    ----------
    entries : iterable of (str, str, str)
        Path relative to the folder with ``/`` between parts; ``"file"``, ``"exec"`` (a file
        with its execute bit set) or ``"link"``; SHA-256 of the content, or a link's target.
    """
    ordered = sorted(list(entry) for entry in entries)
    rows = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    return sha256(rows.encode("utf-8", "surrogateescape"))  # names that are not UTF-8, as they are


def digest_path(path: str) -> "tuple[str, int]":
    """``(digest, bytes)`` of a file or of a whole folder.

    Raises
    ------
    OSError
        Nothing is there, or something that is neither file nor folder (reading a FIFO might never
        end).
    """
    if not os.path.isdir(path):
        _refuse_special(path)
        return sha256_file(path), os.stat(path).st_size
    entries, size = [], 0
    for relative, full in walk(path):
        if os.path.islink(full):
            entries.append((relative, "link", os.readlink(full)))
        else:
            status = _refuse_special(full)
            kind = "exec" if status.st_mode & 0o100 else "file"
            entries.append((relative, kind, sha256_file(full)))
            size += status.st_size
    return tree_digest(entries), size


def stamp_of_file(status: "os.stat_result") -> "list[Any]":
    """What tells that nobody has touched a file: size, times, inode.

    The change time betrays who writes and then sets the mtime back (rsync -t --inplace).
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def stamp_of(rows: "Iterable[Sequence[Any]]") -> str:
    """Digest of ``[path, *stamp_of_file]`` rows, and ``[path, target]`` of links."""
    return sha256(json.dumps(sorted(list(row) for row in rows)).encode("utf-8", "surrogateescape"))


def stamp_path(path: str) -> str:
    """:func:`stamp_of` a file or a whole folder, for a stat a file."""
    if not os.path.isdir(path):
        return stamp_of([["", *stamp_of_file(_refuse_special(path))]])
    rows: "list[list[Any]]" = []
    for relative, full in walk(path):
        if os.path.islink(full):
            rows.append([relative, os.readlink(full)])
        else:
            rows.append([relative, *stamp_of_file(_refuse_special(full))])
    return stamp_of(rows)


def _refuse_special(path: str) -> "os.stat_result":
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "neither a file nor a folder", path)
    return status


def walk(folder: str) -> "Iterator[tuple[str, str]]":
    """Every file and link below a folder as ``(relative path, path)``, in a stable order."""
    stack = [""]
    while stack:
        below = stack.pop()
        with os.scandir(os.path.join(folder, below)) as listing:
            for entry in sorted(listing, key=lambda entry: entry.name):
                relative = below + "/" + entry.name if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    stack.append(relative)
                else:
                    yield relative, entry.path


FEW_FILES = 200  # up to so many are synced one by one, more with everything else


def make_durable(paths: "Sequence[str]") -> None:
    """Have the content of files on disk for good, and so the names that they have by now."""
    if len(paths) > FEW_FILES:
        return os.sync()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- inputs and images that were brought to a site --------------------------------------


def data_folder(digest: str) -> str:
    """Where a content lies in a workspace, under each name that somebody has for it."""
    return "data/" + digest


def data_marker(digest: str, name: str) -> str:
    """What says that it is there whole under a name; it holds the :func:`stamp_path` of it."""
    return "data/%s.whole/%s" % (digest, name)


def marked(marker: str) -> str:
    """What a :func:`data_marker` speaks of."""
    return marker.replace(".whole/", "/", 1)


# --- what a job takes over from where it runs -------------------------------------------

INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
)
"""Variables that a program by hand would find, less whatever could be a secret."""


def inherited() -> "dict[str, str]":
    """Those that this process has."""
    found = ((name, os.environ.get(name)) for name in INHERITED)
    return {name: value for name, value in found if value is not None}


# --- files that appear whole ------------------------------------------------------------


def unique() -> str:
    """A name no other process picks: host, process and randomness."""
    return "%s-%d-%s" % (os.uname()[1], os.getpid(), random_letters(8))


_LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # one for each byte


def random_letters(count: int) -> str:
    """Random letters and digits from the kernel's generator."""
    return os.urandom(count).translate(_LETTERS).decode("ascii")


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of it, in as many pieces as the system takes it in."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_private(
    path: str, data: "bytes | Iterable[bytes]", sync: bool = False, mode: int = 0o600
) -> None:
    """Write a new file, of bytes or of pieces as they come; or leave none behind."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            for piece in (data,) if isinstance(data, bytes) else data:
                write_whole(descriptor, piece)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)  # a full network file system may say so only here
    except BaseException:
        os.unlink(path)
        raise


def publish(path: str, data: "bytes | Iterable[bytes]", sync: bool = False) -> None:
    """Make a file appear whole, replacing what was there."""
    temporary = os.path.join(os.path.dirname(path), ".tmp-" + unique())
    write_private(temporary, data, sync)
    try:
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_once(path: str, data: "bytes | Iterable[bytes]") -> bool:
    """Make a one-time fact appear; ``False`` where it stands already, and stays as it was."""
    temporary = os.path.join(os.path.dirname(path), ".tmp-" + unique())
    write_private(temporary, data)
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno == errno.EEXIST:
            # A network file system may have done it, and lost its answer: then it is ours.
            return os.stat(temporary).st_nlink == 2
        raise
    finally:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # litter; what matters is decided
    return True


def append_line(path: str, record: "Mapping[str, Any]", create: bool = True) -> None:
    """Append one JSON line in one write; lines of several writers do not mix."""
    line = _LINE.encode(record).encode("ascii") + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        _lock(descriptor)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a writer before us was killed within its line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Keep others from reserving space at the file's end, where we are about to append.

    In vain where locks are not supported, or one is held for long: its holder may be stopped.
    """
    for _ in range(50):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return
            time.sleep(0.001)


def parse_lines(data: bytes) -> "Iterator[Any]":
    """The records of a file of JSON lines; torn lines and zero bytes are passed over.

    Zero bytes end a line, too: what a killed writer left unfinished is followed by them.
    """
    for line in re.split(b"[\\0\n]+", data):
        if line.strip():
            try:
                record = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def read_json(path: str) -> "Any":
    """A JSON file's content, ``None`` where there is none."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        return None


# --- processes --------------------------------------------------------------------------


def boot_id() -> str:
    """What tells one boot of a machine from the next (empty where the kernel has none)."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """Which processes this one sees (empty where the kernel does not tell)."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def started_at(pid: int) -> "int | None":
    """A process's start in clock ticks since boot, ``None`` if it is gone or a zombie."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identity(pid: "int | None" = None) -> "dict[str, Any]":
    """What names a process beyond its number: machine, pid and start time."""
    if pid is not None:
        return dict(machine(), pid=pid, started=started_at(pid))
    if _own.get("pid") != os.getpid():
        _own.update(identity(os.getpid()))
    return dict(_own)


_own: "dict[str, Any]" = {}  # this process's, which stays as it is
if hasattr(os, "register_at_fork"):  # a child's child may have the number of a parent that is gone
    os.register_at_fork(after_in_child=_own.clear)  # novm


def machine() -> "dict[str, Any]":
    """What tells this machine from others that see the same files, and this boot from others."""
    return {"host": os.uname()[1], "boot": boot_id(), "space": pid_namespace()}


def is_here(record: "Mapping[str, Any]") -> bool:
    """Whether something that carries a :func:`machine` belongs to this machine.

    It has our name; or it is of our boot and sees our processes, and the machine was renamed.
    (Containers on one host share its boot, but neither name nor processes.)
    """
    if record["host"] == os.uname()[1]:
        return True
    return (record["boot"], record["space"]) == (boot_id(), pid_namespace())


def alive(owner: "Mapping[str, Any]") -> bool:
    """Whether the very process that ``identity`` described still runs on this machine."""
    return (
        is_here(owner)
        and owner["boot"] == boot_id()
        and owner["started"] == started_at(owner["pid"])
        and owner["started"] is not None
    )


# --- between a client and its helper on a site ------------------------------------------

_SIZES = struct.Struct(">IQ")  # bytes of a frame's head, and of its body


def frame_head(head: "Mapping[str, Any]", body: int) -> bytes:
    """What comes before the body of a frame: a head of JSON, and how long both are."""
    text = json.dumps(head).encode("ascii")
    return _SIZES.pack(len(text), body) + text


def read_frame_head(read: "Callable[[int], bytes]") -> "tuple[dict[str, Any], int]":
    """The head of a frame, and the length of the body that follows.

    Parameters
    ----------
    read : callable
        Reads so many bytes, or raises EOFError.
    """
    length, body = _SIZES.unpack(read(_SIZES.size))
    return json.loads(read(length).decode("ascii")), body


# --- a batch's files --------------------------------------------------------------------

POINTS = "points.jsonl"
"""What each run has of its own, a line each. ``ONE_POINT`` is not written down."""
ONE_POINT = b"{}\n"

LET_GO = "0.let-go"
"""In ``attempts/``: the process that submitted a batch has given that up. Its ``said`` is what the
queue said when it did not take it."""

NOBODY: "dict[str, Any]" = {"host": "", "boot": "", "space": "", "pid": 0, "started": None}
"""An :func:`identity` that no process has."""


def has_points(batch: "Mapping[str, Any]") -> bool:
    """Whether a batch has a file of points, by ``batch`` of its plan: one that it lacks is lost."""
    return bool(batch.get("points", True))


def queued_name(number: str, identifier: str, asked: float) -> str:
    """What the intent of a chunk is called in ``attempts/`` once the queue has taken it.

    Its name says it all, so that one rename writes it down: under which id, and since when (s since
    the epoch, by the site's clock) the queue was asked.
    """
    if not identifier.isdigit():  # those of Slurm are numbers
        from urllib.parse import quote  # for the client alone: agents start sooner without it

        identifier = quote(identifier, safe="")
    return "%s.queued.%d.%s" % (number, round(asked * 1000), identifier)


def queued_as(names: "Iterable[str]") -> "dict[str, tuple[str, float]]":
    """Id and time of :func:`queued_name`, by the numbers of chunks, of the names in ``attempts/``.

    Of a chunk that was queued again, those of the last time.
    """
    from urllib.parse import unquote

    found: "dict[str, tuple[str, float]]" = {}
    for name in names:
        number, _, rest = name.partition(".queued.")
        asked, _, identifier = rest.partition(".")
        if identifier and asked.isdecimal():
            new = unquote(identifier), int(asked) / 1000
            found[number] = max(found.get(number, new), new, key=lambda one: one[1])
    return found


class Attempts:
    """The folder ``attempts/`` of a batch: who started, and who ended.

    Only the owner of ``<index>.<attempt>.start`` writes the ``.end`` beside it.
    """

    def __init__(self, batch: str) -> None:
        self.folder = os.path.join(batch, "attempts")

    def path(self, index: int, attempt: int, kind: str) -> str:
        return os.path.join(self.folder, "%d.%d.%s" % (index, attempt, kind))

    def listing(self) -> "dict[int, dict[int, set[str]]]":
        """``{index: {attempt: {"start", "end"}}}`` from one listing of the folder."""
        return attempts_of(os.listdir(self.folder))

    def start(self, index: int, attempt: int, **facts: "Any") -> bool:
        """Take the right to this attempt. ``False``: somebody has it already."""
        if os.path.exists(self.path(index, attempt, "start")):
            return False  # where many slots share a range: trying costs a hundred times as much
        return self._write(index, attempt, "start", dict(facts, owner=identity()))

    def end(self, index: int, attempt: int, **facts: "Any") -> bool:
        """Say how the attempt ended; for the owner of ``.start`` only."""
        return self._write(index, attempt, "end", facts)

    def refuse(self, index: int, attempt: int, state: str, reason: str) -> bool:
        """End an attempt that never began (``False``: it has begun).

        The two files cannot appear at once, so the first one says what the second will: whoever
        finds it alone writes the second.
        """
        refusal = {"state": state, "reason": reason}
        if not self.start(index, attempt, refused=refusal):
            return False
        self.end_refused(index, attempt, refusal)
        return True

    def end_refused(self, index: int, attempt: int, refusal: "Mapping[str, str]") -> None:
        self.end(index, attempt, **_end_of_refused(refusal))

    def read(self, index: int, attempt: int, kind: str) -> "Any":
        try:
            with open(self.path(index, attempt, kind), "rb") as file:
                return attempt_record(file.read(), kind)
        except FileNotFoundError:
            return None

    def _write(self, index: int, attempt: int, kind: str, facts: "dict[str, Any]") -> bool:
        return write_once(
            self.path(index, attempt, kind), attempt_content(index, attempt, facts, time.time())
        )


def attempt_content(index: int, attempt: int, facts: "Mapping[str, Any]", now: float) -> bytes:
    """The content of a ``.start`` or ``.end``; ``now`` is the site's clock, in s."""
    record = dict(facts, schema=SCHEMA, index=index, attempt=attempt)
    record["time"], record["clock"] = now, monotonic_ns()
    return canonical(record)


def refused(index: int, attempt: int, state: str, reason: str, now: float) -> "tuple[bytes, bytes]":
    """Contents of ``.start`` and ``.end`` as :meth:`Attempts.refuse` writes them, from afar."""
    refusal = {"state": state, "reason": reason}
    start = {"refused": refusal, "owner": identity()}
    return (
        attempt_content(index, attempt, start, now),
        attempt_content(index, attempt, _end_of_refused(refusal), now),
    )


def _end_of_refused(refusal: "Mapping[str, str]") -> "dict[str, Any]":
    return {
        "exit_code": None,
        "signal": None,
        "received": [],
        "cause": refusal["state"],
        "reason": refusal["reason"],
    }


def attempt_record(content: bytes, kind: str) -> "Any":
    """What a ``.start`` or ``.end`` says.

    After a power loss a name may be on disk without the content: nothing is synced here. Such a
    start still says that somebody had begun, before this boot; such an end says nothing: ``None``.
    """
    try:
        record = json.loads(content.decode("utf-8"))
    except ValueError:
        record = None
    if isinstance(record, dict) and (kind == "start" or "time" in record):
        return record
    return {"owner": NOBODY} if kind == "start" else None


def attempts_of(names: "Iterable[str]") -> "dict[int, dict[int, set[str]]]":
    """Sort the file names of ``attempts/`` into ``{index: {attempt: {"start", "end"}}}``."""
    found: "dict[int, dict[int, set[str]]]" = {}
    for name in names:
        parts = name.split(".")
        if len(parts) == 3 and parts[2] in ("start", "end") and parts[0] and parts[1]:
            index, number = int(parts[0]), int(parts[1])
            found.setdefault(index, {}).setdefault(number, set()).add(parts[2])
    return found


def monotonic_ns() -> int:
    """The monotonic clock in ns (``time.monotonic_ns`` came with Python 3.7)."""
    return int(time.monotonic() * 1e9)


def run_id(batch: str, index: int) -> str:
    """``<batch>.<index>``, the index with five digits at least."""
    return "%s.%05d" % (os.path.basename(batch), index)


def run_parts(run: str) -> "tuple[str, int]":
    """Name of the batch, and index, of which :func:`run_id` was made."""
    batch, _, index = run.rpartition(".")
    return batch, int(index)


def workspace_of(batch: str) -> str:
    """The workspace that a batch's folder lies in."""
    return os.path.dirname(os.path.dirname(batch))


def words_file(batch: str) -> str:
    """Where a batch keeps the scheduler's final words, and requests to cancel."""
    return os.path.join(batch, "attempts", "0.words")


class Words:
    """What is said about a batch (:func:`words_file`), heard as it is appended."""

    def __init__(self, batch: str) -> None:
        self.path = words_file(batch)
        self._heard = 0  # bytes

    def new(self) -> "list[dict[str, Any]]":
        """What has been said since the last call; a line under way is left for the next one."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._heard)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._heard += len(whole)
        return list(parse_lines(whole))


def spoken(batch: str) -> "Iterator[dict[str, Any]]":
    """Everything that was said about a batch, in order."""
    try:
        with open(words_file(batch), "rb") as file:
            return parse_lines(file.read())
    except FileNotFoundError:
        return iter(())


def first_words(spoken: "Iterable[dict[str, Any]]") -> "dict[tuple[int, int], dict[str, Any]]":
    """The scheduler's first final word on each ``(index, attempt)``, of what was said."""
    words: "dict[tuple[int, int], dict[str, Any]]" = {}
    for record in spoken:
        if "state" in record:
            for index in about(record):
                words.setdefault((index, record["attempt"]), record)
    return words


def about(record: "Mapping[str, Any]") -> "list[int]":
    """The runs that a line of the words is about: ``index``, or ``indices`` of many alike."""
    indices: "list[int]" = record["indices"] if "indices" in record else [record["index"]]
    return indices


# --- the embedded site's queue ----------------------------------------------------------


class QueueFolder:
    """Paths and files of ``<workspace>/queue``."""

    def __init__(self, workspace: str) -> None:
        self.folder = os.path.join(workspace, "queue")
        self.runs = os.path.join(workspace, "runs")
        host = os.uname()[1]
        self.lock = os.path.join(self.folder, "dispatcher.%s.lock" % host)
        self.wake = os.path.join(self.folder, "dispatcher.%s.wake" % host)
        self.log = os.path.join(self.folder, "dispatcher.%s.log" % host)

    def is_served(self) -> bool:
        """Whether this host's dispatcher is alive: it holds the lock."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not take_lock(descriptor)  # closing gives it up again
        finally:
            os.close(descriptor)

    def jobs(self) -> "list[str]":
        """Ids of the jobs in the queue, first in first."""
        return sorted(name[:-4] for name in os.listdir(self.folder) if name.endswith(".job"))

    def path(self, job: str) -> str:
        return os.path.join(self.folder, job + ".job")

    def slot(self, job: str, number: int) -> str:
        """The file whose lock says that an agent works in a slot of a job."""
        return os.path.join(self.folder, "%s.slot.%d" % (job, number))

    def slots(self, job: str) -> "dict[int, str]":
        """Those files that there are, by number; the numbers have no gaps."""
        found: "dict[int, str]" = {}
        while os.path.exists(self.slot(job, len(found))):
            found[len(found)] = self.slot(job, len(found))
        return found

    def entry(self, job: str) -> "Any":
        """A job's content if it is this host's to run, else ``None``."""
        try:
            entry = read_json(self.path(job))
        except ValueError:
            return None
        return entry if entry is not None and is_here(entry) else None


def take_lock(descriptor: int, shared: bool = False) -> bool:
    """Lock a file with ``flock``; ``False`` if somebody else holds it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise


def drop_lock(descriptor: int) -> None:
    """Give up a lock with ``flock``, for all copies of the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def wake(fifo: str) -> bool:
    """Tell the running dispatcher to look at the queue. ``False`` if none listens."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    try:
        os.write(descriptor, b"!")
    except OSError as error:
        if error.errno != errno.EAGAIN:  # full: it has been told often enough
            return False
    finally:
        os.close(descriptor)
    return True


def enqueue(workspace: str, entry: "Mapping[str, Any]") -> str:
    """Put a job into the queue. Returns its id; ids sort in the order of the calls."""
    queue = QueueFolder(workspace)
    while True:
        jobs = queue.jobs()
        last = int(jobs[-1].partition("-")[0]) if jobs else 0
        number = max(int(time.time() * 1e6), last + 1)
        identifier = "%018d-%s" % (number, entry["name"])
        if write_once(queue.path(identifier), json.dumps(entry).encode("ascii")):
            return identifier


def terminate(owner: "Mapping[str, Any]") -> bool:
    """Send TERM to the very process that ``owner`` names. ``False`` if it is gone."""
    if not alive(owner):
        return False
    try:
        os.kill(owner["pid"], 15)
    except ProcessLookupError:
        return False
    return True


# --- how it ended -----------------------------------------------------------------------


def how_it_ended(
    end: "Mapping[str, Any] | None", word: "Mapping[str, Any] | None", waited: float
) -> "tuple[str, str] | None":
    """Judge an attempt that no longer runs. The first rule that applies decides.

    1. ``.end`` without a signal, sent or received, without Slurm's word that it aborted the step,
       and without a cause: COMPLETED if the exit code is 0, else FAILED.
    2. ``.end`` names a cause that the agent itself enforced or saw: that.
    3. ``.end`` with a signal or an aborted step: the scheduler's word, awaited for 60 s, else
       FAILED. Its COMPLETED does not explain that and counts as FAILED.
    4. No ``.end``: the scheduler's final word, but its COMPLETED counts as FAILED: an agent that
       could finish would have said so.
    5. Silence: UNKNOWN.

    Parameters
    ----------
    end : dict or None
        The content of ``.end``.
    word : dict or None
        The scheduler's final word, ``{"state", "reason"}``.
    waited : float
        Seconds since the end.

    Returns
    -------
    (str, str) or None
        State and reason; ``None`` while the scheduler's word is still awaited.
    """
    if end is not None:
        if end["cause"] is not None:
            return end["cause"], end["reason"]
        if end["signal"] is None and not cut_off(end):
            if end["exit_code"] == 0:
                return COMPLETED, ""
            return FAILED, "exit code %d" % end["exit_code"]
        if word is not None and word["state"] not in (COMPLETED, FAILED):
            return word["state"], word["reason"]
        if word is None and waited < WORD_PATIENCE:
            return None
        return FAILED, ended_on_signals(end)
    if word is not None:
        if word["state"] == COMPLETED:
            return FAILED, "the scheduler says COMPLETED, but the agent left no word of its end"
        return word["state"], word["reason"]
    return UNKNOWN, "neither the agent nor the scheduler says how it ended"


def cut_off(end: "Mapping[str, Any]") -> bool:
    """Whether an attempt was ended from outside, of which its agent cannot say why.

    By signals that the agent ``received``, or in an ``aborted`` step, before which srun ends.
    """
    return bool(end["received"] or end.get("aborted"))


def ended_on_signals(end: "Mapping[str, Any]") -> str:
    """Reason of an end with a ``signal``, or one that was :func:`cut_off`."""
    if end["signal"] is None and end.get("aborted"):
        return "exit code %s: %s" % (end["exit_code"], end["aborted"])
    if end["signal"] is not None:
        return "killed by signal %d (%s)" % (end["signal"], signal_name(end["signal"]))
    names = ", ".join("%d (%s)" % (number, signal_name(number)) for number in end["received"])
    return "ended on signal %s, exit code %s" % (names, end["exit_code"])


def killed_for_memory(said: str, job: str) -> "str | None":
    """Slurm's own line on a job that was killed for want of memory, of what its nodes have said.

    ``StepId=5.batch exceeded memory limit (2688229376 > 2097152000)`` or ``Detected 1 oom_kill
    event in StepId=5.0``; ``None`` if there is none.
    """
    step = r"(?:StepId=|[Ss]tep |Job )%s\b(?:\.\w+)?" % re.escape(job)
    watched = step + r" exceeded memory limit \(\d+ > \d+\)"
    counted = r"Detected \d+ oom.kill event\S* in " + step
    found = re.search(watched + "|" + counted, said)
    return found.group() if found else None


def aborted_by_slurm(said: str, job: str) -> "str | None":
    """Slurm's own line on a step that it has aborted, of what srun has said of one of a job.

    ``Node failure on n2``, ``STEP 5.0 ON n1 CANCELLED AT 2026-11-22T17:23:20 DUE TO TIME LIMIT`` or
    ``Job step aborted``; ``None`` if there is none, or if srun did it itself: a rank had failed.
    """
    lost = re.search(r"^srun: error: (Node failure on \S+)", said, re.MULTILINE)
    if lost is not None:  # ranks that fail before Slurm finds out may have failed because of that
        return lost.group(1)
    failed = r"^srun: error: .*\btasks? [\d,-]+: "
    step = r"(?:STEP|JOB) %s\b(?:\.\w+)? ON \S+ CANCELLED AT [^*\n]*[^*\s]" % re.escape(job)
    aborted = "(%s|(?<=^srun: )Job step aborted)" % step
    first = re.search("%s|%s" % (failed, aborted), said, re.MULTILINE)
    found = first.group(1) if first is not None else None
    return None if found is not None and found.endswith("DUE TO TASK FAILURE") else found


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return "unnamed"
