"""What a job's own code calls; harmless outside a run. Standard library, Python 3.6 and newer.

A run's processes learn from environment variables which run they are (:func:`bind`). Everything
else is read from the batch's files when it is asked for.
"""

import errno
import itertools
import json
import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from typing import Any, Callable  # noqa: F401 (used in a type comment)

WINDOW = (1 << 14, 1 << 18)  # bytes a process reserves first, and then again and again
PAUSE = 2 * 10**9  # ns until it is tried again to write where there was no room
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what may have room again later
LOST = b'{"m":%d,"e":"lost","n":%-12d}\n'  # of one length, whatever the number
SOFTWARE = ("torch", "numpy", "xarray", "jax", "tensorflow")  # whose versions are told
TOLD = "HPCML_TOLD"  # in the environment: of which run a process above told its Python, and which
SPARE = 64  # bytes at the end of a window that are kept for it


class Params(dict):  # type: ignore[type-arg]
    """Parameters by name: ``p["width"]`` and ``p.width``."""

    def __getattr__(self, name: str) -> "Any":
        try:
            return self[name]
        except KeyError:
            raise AttributeError("there is no parameter %r" % name)


def params(**defaults: "Any") -> Params:
    """The run's parameters, with defaults for those that the job does not set.

    Parameters
    ----------
    **defaults
        Every parameter that the code knows, with the value it takes when it is not set, and
        always outside a run.

    Returns
    -------
    Params
        ``p.width`` and ``p["width"]``.

    Raises
    ------
    ValueError
        The job sets a parameter that the code does not know. Submitting such a job is refused
        already, where the call can be found in the script.
    """
    given = _given().params
    unknown = sorted(set(given) - set(defaults))
    if unknown and defaults:
        raise ValueError(
            "the job sets the parameter %r, but hpcml.params() here knows %s"
            % (unknown[0], ", ".join(sorted(defaults)))
        )
    return Params(defaults, **given)


def input_path(name: str, default: "str | None" = None) -> str:
    """Path of an input of the run.

    Parameters
    ----------
    name : str
        Its key in ``Job(inputs=...)``.
    default : str, optional
        What is returned outside a run, and in a run whose job has no such input.

    Raises
    ------
    KeyError
        There is neither such an input nor a default.
    """
    inputs = _given().inputs
    if name in inputs:
        return inputs[name]
    if default is None:
        raise KeyError("no input %r; the job has: %s" % (name, ", ".join(inputs) or "none"))
    return default


def output_path(name: str) -> str:
    """Path under which to write an output; its folder is made.

    In a run this is ``work/<name>``, outside it ``<name>`` in the current folder.

    Raises
    ------
    FileNotFoundError
        The run's folder was removed while it runs; it is not made again.
    """
    run = _given()
    if run.work and not os.path.isdir(run.work):
        raise FileNotFoundError(errno.ENOENT, "the folder of this run was removed", run.work)
    path = os.path.join(run.work, name) if run.work else name
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    return path


class Checkpointing:
    """What :func:`checkpoint` gives.

    Attributes
    ----------
    path : str
        Where to keep the state: a file or a folder, as the code likes. Nothing is there at first.
    requested : bool
        Whether the signal USR2 has come: time runs out, it is time to save and to requeue.
    """

    def __init__(self, path: str, again: bool) -> None:
        self.path, self.requested = path, False
        self._again = again  # whether anybody would start this again
        self._before: "Any" = None

    def requeue(self) -> None:
        """End this attempt, to be started again in the same folder. Call it after saving.

        Raises
        ------
        SystemExit
            With exit code 144: so it leaves.
        RuntimeError
            Nothing would start this again, or it is called in a thread, which alone would end.
        """
        if not self._again:
            raise RuntimeError(
                "nothing would start this again: it is not a run of a job with a checkpoint. "
                "Call requeue() only if .requested is true, and give the job "
                "checkpoint=hpcml.Checkpoint()."
            )
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("requeue() would end this thread alone: call it in the main thread")
        from hpcml.agent import wire

        raise SystemExit(wire.REQUEUE)

    def _listen(self) -> None:
        import signal

        self._before = signal.getsignal(signal.SIGUSR2)
        try:
            signal.signal(signal.SIGUSR2, self._heard)
        except ValueError:  # Python allows it in the main thread only
            raise RuntimeError(
                "hpcml.checkpoint() cannot listen for signals from a thread: "
                "call it first in the main thread"
            )

    def _heard(self, number: int, frame: "Any") -> None:
        self.requested = True
        if callable(self._before):
            self._before(number, frame)


def checkpoint(default: str = "checkpoint") -> Checkpointing:
    """Where this run keeps its state, and whether it is asked to save it and to be requeued.

    ::

        state = hpcml.checkpoint()
        if os.path.exists(state.path):
            load(state.path)
        for step in steps:
            train(step)
            if state.requested:
                save(state.path)
                state.requeue()

    Call it early, before the work begins: in a run of a job with a checkpoint the first call sets
    a handler for the signal USR2 (one that was there is called, too). A handler that the code sets
    for USR2 later takes the place of this one. Further calls give the same object.

    Parameters
    ----------
    default : str
        The path outside a run, and in a run whose job has no checkpoint. Nothing is ever requested
        there.

    Returns
    -------
    Checkpointing
        ``.path`` (str) is where to keep the state, a file or a folder: in a run absolute, and the
        same in all its attempts. ``.requested`` (bool) tells whether USR2 has come.
        ``.requeue()`` ends this attempt with exit code 144, to be started again.

    Raises
    ------
    RuntimeError
        The first call was not made in the main thread, where alone Python lets set handlers.
    """
    path = os.environ.get("HPCML_CHECKPOINT") if _sink is not None else None
    path = path or _given().checkpoint
    known = _checkpoints.get(path or default)
    if known is None:
        known = Checkpointing(path or default, again=path is not None)
        if path is not None:
            known._listen()
        _checkpoints[known.path] = known
    return known


class Phase:
    """A named span of time; nests, and may be entered again and again."""

    __slots__ = ("_begin", "_finish")

    def __init__(self, name: object) -> None:
        quoted = json.dumps(str(name)).replace("%", "%%")
        self._begin = ('{"m":%%d,"e":"begin","phase":%s}\n' % quoted).encode()
        self._finish = ('{"m":%%d,"e":"finish","phase":%s}\n' % quoted).encode()

    def __enter__(self) -> "Phase":
        if _emit is not None:
            _emit(self._begin % _now())
        return self

    def __exit__(self, *failure: object) -> None:
        if _emit is not None:
            _emit(self._finish % _now())


def phase(name: str) -> Phase:
    """Mark a span of time in the run's timeline: ``with hpcml.phase("epoch"): ...``.

    Nothing is synchronised: work that a device does asynchronously is not waited for.
    """
    known = _phases.get(name)
    if known is None:
        known = _phases[name] = Phase(name)
    return known


def log(step: "int | None" = None, samples: "int | None" = None, **values: "Any") -> None:
    """Record metrics of the run: ``hpcml.log(step=3, samples=256, loss=0.5)``.

    Parameters
    ----------
    step : int, optional
        Which training step, epoch or iteration the values belong to.
    samples : int, optional
        Samples processed since the last ``log`` that told it; gives samples/s of the phase it is
        called in. What is no finite number from 0 up is passed over when it is read, and counted.
    **values : float
        Metrics by name. What is not a number (a tensor, say) is converted by ``float()``, what
        cannot be converted is kept as text. Nothing here ever raises: a metric is not worth a run.
    """
    if _emit is None:
        return None
    if len(values) == 1 and samples is None and step.__class__ is int:
        # The usual case, without what the general one costs.
        ((name, value),) = values.items()
        single = _single.get(name)
        if single is not None and value.__class__ is float and value - value == 0.0:
            return _emit(single % (_now(), step, value))
    try:
        names = tuple(values)
        template = _templates.get(names) or _template(names)
        for value in values.values():
            if value.__class__ is not float or value - value != 0.0:  # not finite
                raise TypeError
        if step.__class__ is not int or samples.__class__ not in _INT_OR_NONE:
            raise TypeError
        if samples is None:
            line = template[0] % (_now(), step, *values.values())
        else:
            line = template[1] % (_now(), step, samples, *values.values())
    except TypeError:
        line = _careful(step, samples, values)
    return _emit(line)


def describe(**facts: "Any") -> None:
    """Tell what makes runs comparable: ``describe(model=..., precision=..., global_batch=...)``.

    Values are numbers, text, booleans or ``None``; others are kept as text. May be called again:
    later facts are added.
    """
    if _emit is not None:
        plain = {name: _plain(value) for name, value in facts.items()}
        record = {"m": _now(), "e": "describe", "v": plain}
        _emit(_line(record))


# --- inside ---------------------------------------------------------------------------------

_INT_OR_NONE = (int, type(None))
_phases: "dict[str, Phase]" = {}
_single: "dict[str, bytes]" = {}
_templates: "dict[tuple[str, ...], tuple[bytes, bytes]]" = {}
_now = getattr(time, "monotonic_ns", None) or (lambda: int(time.monotonic() * 1e9))


def _template(names: "tuple[str, ...]") -> "tuple[bytes, bytes]":
    """Two ``%`` templates of a log line with these names, without and with samples."""
    quoted = [json.dumps(name).replace("%", "%%") + ":%a" for name in names]
    start, rest = b'{"m":%d,"e":"log","step":%d', b',"v":{' + ",".join(quoted).encode() + b"}}\n"
    _templates[names] = (start + rest, start + b',"samples":%d' + rest)
    if len(names) == 1:
        _single[names[0]] = start + rest
    return _templates[names]


def _careful(step: "Any", samples: "Any", values: "dict[str, Any]") -> bytes:
    """A log line of values that are not all plain floats."""
    record: "dict[str, Any]" = {
        "m": _now(),
        "e": "log",
        "v": {name: _number(v) for name, v in values.items()},
    }
    for name, value in (("step", step), ("samples", samples)):
        if value is not None:  # text is no count, even if it looks like one
            record[name] = value if isinstance(value, str) else _number(value)
    return _line(record)


def _line(record: "dict[str, Any]") -> bytes:
    try:
        return json.dumps(record).encode() + b"\n"
    except ValueError:  # an integer of thousands of digits
        record["v"] = {name: _text(value) for name, value in record["v"].items()}
        return json.dumps(record).encode() + b"\n"


def _number(value: "Any") -> "Any":
    if isinstance(value, (int, float)) or value is None:
        return value
    try:
        return float(value)
    except Exception:  # whatever a foreign type's __float__ does
        return _text(value)


def _plain(value: "Any") -> "Any":
    return value if isinstance(value, (int, float, str, type(None))) else _text(value)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return "<%s that has no text>" % type(value).__name__


class _Given:
    """What the run's files say of this run; empty outside a run."""

    def __init__(self, batch: "str | None" = None, index: str = "0") -> None:
        self.params: "dict[str, Any]" = {}
        self.inputs: "dict[str, str]" = {}
        self.work: "str | None" = None
        self.checkpoint: "str | None" = None
        if batch is None:
            return
        with open(os.path.join(batch, "plan.json"), "rb") as file:
            plan = json.loads(file.read().decode("utf-8"))
        own = plan.get("batch", {}).get("points", True)  # else it is one run, and has nothing
        point = _point(batch, index) if own else {}
        self.params = dict(plan["what"]["params"], **point.get("params", {}))
        self.inputs = plan["where"]["inputs"]
        self.work = os.path.join(batch, index, "work")
        if "checkpoint" in plan["what"]:
            self.checkpoint = os.path.join(self.work, plan["what"]["checkpoint"]["path"])


def _point(batch: str, index: str) -> "Any":
    """The run's line of ``points.jsonl``; the environment may say at which byte it begins."""
    with open(os.path.join(batch, "points.jsonl"), "rb") as file:
        offset = os.environ.get("HPCML_POINT")
        if offset is None:
            line = next(itertools.islice(file, int(index), None))
        else:
            file.seek(int(offset))
            line = file.readline()
    return json.loads(line.decode("utf-8"))


def _given() -> _Given:
    global _run
    if _emit is _note_use:
        _note_use(b"")
        return _Given()
    if _run is None:
        _run = _Given(*_place() or ())
    return _run


class Sink:
    """Appends lines to a file that several processes share, at the price of a memory copy.

    Each process reserves a window at the end of the file and fills it through shared memory, so
    that a line is with the kernel, and survives the process, as soon as it is written. What is
    not filled stays zero; readers pass over it and the agent removes it at the end. The window's
    blocks are allocated first: a full disk must be an error here, not a fatal signal later.

    Where a file system cannot do that, each line is one ``write``. Where there is no room, lines
    are lost, and counted; it is tried again from time to time. The count is an event itself. A part
    of each window is kept for it, so that it is told even if there is never room again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.spare: "int | None" = None  # where in the file a count may be written, room or not
        self.forget()

    def forget(self) -> None:
        """Start with no window (in a forked child: the parent's is not ours)."""
        self.lock = threading.RLock()  # a signal's handler may log while its thread holds it
        self.pid = os.getpid()
        self.window: "mmap.mmap | _Gap | None" = None
        self.waiting: "list[bytes]" = []
        self.size = WINDOW[0]
        self.plain_until = 0.0  # ns
        self.lost = 0  # since `since`, in ns
        self.since = 0

    def write(self, line: bytes) -> None:
        """Append one line (bytes ending in a newline)."""
        window = self.window
        try:
            # One step of the interpreter: no other thread and no signal's handler comes between.
            window.write(line)  # type: ignore[union-attr]
        except (AttributeError, ValueError):  # there is no window, or it is full
            self._elsewhere(line, window)

    def write_as_who_i_am(self, line: bytes) -> None:
        """Append one line where a fork goes unseen."""
        if self.pid != os.getpid():
            self.forget()
        self.write(line)

    def _elsewhere(self, line: bytes, full: "mmap.mmap | _Gap | None") -> None:
        with self.lock:
            if self.window is not full:  # another thread has just made one
                return self.write(line)
            first = not self.waiting
            self.waiting.append(line)
            if first:  # else a signal's handler has interrupted what follows: its line comes next
                self._put_waiting()

    def _put_waiting(self) -> None:
        try:
            while self.waiting:
                self._put(self.waiting[0])
                del self.waiting[0]
        except BaseException:  # the handler's own, such as SystemExit
            lines, self.waiting = self.waiting[1:], []
            for line in lines:
                self.write(line)
            raise

    def _put(self, line: bytes) -> None:
        if isinstance(self.window, _Gap):
            self.lost += self.window.close()
        spare = self.spare
        if self.lost:  # what was written last may have been torn: a line of its own ends it
            told = self._overwrite()
            line = b"\n" + (b"" if told else self._count()) + line
        try:
            self._place(line)
        except OSError as error:
            return self._lose(error)
        if self.lost:
            self.lost = 0
            if self.spare == spare:
                self.spare = None  # it says what it is to say; the next window has another one

    def note(self, kind: str, **facts: "Any") -> None:
        """Append an event that is worth no window, and nobody misses on a full disk."""
        try:
            self._append(_line(dict(facts, m=_now(), e=kind)))
        except OSError:
            pass

    def _place(self, line: bytes) -> None:
        if _now() >= self.plain_until and len(line) <= self.size - SPARE:
            try:
                window = self._reserve()
                window.write(line)
                self.window = window
                return
            except (OSError, ValueError, ImportError, AttributeError) as error:
                full = getattr(error, "errno", None) in FULL
                self.plain_until = _now() + PAUSE if full else float("inf")
        self._append(line)
        self.window = None

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            _lock(descriptor)
            while line:  # a full disk takes a part first
                line = line[os.write(descriptor, line) :]
        finally:
            os.close(descriptor)

    def _reserve(self) -> "mmap.mmap":
        """Allocate and map a page-aligned window behind everything in the file."""
        import fcntl
        import mmap

        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            start = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            os.posix_fallocate(descriptor, start, self.size)
            window = mmap.mmap(descriptor, self.size - SPARE, offset=start)
            self.spare = start + self.size - SPARE
            self.size = WINDOW[1]
            return window
        finally:
            os.close(descriptor)  # and with it the lock

    def _lose(self, error: OSError) -> None:
        """Count a line that there was no room for, and all others until it is tried again."""
        if not self.lost:
            self.since = _now()
            _say_once("hpcml: events are lost, as they cannot be written: %s\n" % error)
        self.lost += 1
        self._overwrite()
        self.window = _Gap(_now() + PAUSE)

    def _count(self) -> bytes:
        return LOST % (self.since, self.lost)

    def _overwrite(self) -> bool:
        """Write the count where room was kept for it, if there is such a place."""
        if self.spare is None:
            return False
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, self._count(), self.spare)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Say what was lost to the end."""
        with self.lock:
            if isinstance(self.window, _Gap):
                self.lost += self.window.close()
                self.window = None
            if self.lost and not self._overwrite():
                try:
                    self._append(b"\n" + self._count())
                except OSError:
                    pass  # its window had room for the first count, if it had a window
            self.lost = 0


class _Gap:
    """In the place of a window where there is no room: counts what is lost for a while."""

    def __init__(self, until: int) -> None:
        self.until = until
        self._count = itertools.count()

    def write(self, line: bytes) -> None:
        if _now() >= self.until:
            raise ValueError
        next(self._count)  # one step of the interpreter, as that of a window

    def close(self) -> int:
        """How many lines were lost."""
        return next(self._count)


def _lock(descriptor: int) -> None:
    """Wait until nobody reserves a window at the end of the file, where we are to append."""
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    except (OSError, ImportError):
        pass  # a file system without locks


def _say_once(why: str) -> None:
    """Say that events are lost, and see to it that at the end it is told how many."""
    global _lossy
    if _lossy:
        return
    _lossy = True
    import atexit

    atexit.register(_at_exit)
    try:
        os.write(2, why.encode("utf-8", "replace"))
    except OSError:
        pass  # the disk that is full may be that of stderr, too


def _at_exit() -> None:
    if _sink is not None:
        _sink.close()


def _note_use(line: bytes) -> None:
    """What becomes of events while use is watched."""
    global used
    used = True


# (An annotated name cannot be `global` in Python 3.6.)
_run = None  # type: _Given | None
_sink = None  # type: Sink | None
_emit = None  # type: Callable[[bytes], None] | None
_checkpoints = {}  # type: dict[str, Checkpointing]
_lossy = False  # whether this process has said that events are lost
used = False  # whether anything that depends on the run was called since `watch_use`


def _place() -> "tuple[str, str] | None":
    """The batch's folder and the run's index in it; ``None`` outside a run."""
    batch, index = os.environ.get("HPCML_BATCH"), os.environ.get("HPCML_INDEX")
    return (batch, index) if batch and index else None


def bind() -> None:
    """Become part of the run that the environment names now; of none where it names none.

    Called at import, and again by a process that was forked for a run after the import. All that
    was known of an earlier run is forgotten, and use is no longer watched.
    """
    global _run, _sink, _emit, _checkpoints
    _run, _sink, _emit, _checkpoints = None, None, None, {}
    place = _place()
    if place is not None and os.environ.get("HPCML_EVENTS") != "none":
        _sink = Sink(os.path.join(place[0], place[1], "events.jsonl"))
        # Before Python 3.7 nobody is told of a fork.
        told = hasattr(os, "register_at_fork")
        _emit = _sink.write if told else _sink.write_as_who_i_am
        _tell_python(_sink, place)


def _tell_python(sink: Sink, place: "tuple[str, str]") -> None:
    """Tell which Python this is, unless a process above it has told the same of this run."""
    import atexit

    version, prefix = sys.version.split()[0], os.path.realpath(sys.prefix)
    if sys.implementation.name != "cpython":
        version = "%s (%s)" % (version, sys.implementation.name)
    told = "\n".join((*place, version, prefix))
    if os.environ.get(TOLD) != told:
        os.environ[TOLD] = told
        sink.note("python", version=version, prefix=prefix)
        atexit.register(_tell_software, sink, os.getpid())


def _tell_software(sink: Sink, pid: int) -> None:
    """Tell versions of what this process has imported; it imports nothing for that."""
    modules = ((name, sys.modules.get(name)) for name in SOFTWARE)
    versions = {name: vars(found).get("__version__") for name, found in modules if found}
    known = {name: str(one) for name, one in versions.items() if isinstance(one, str)}
    if known and os.getpid() == pid:
        sink.note("software", v=known)


def watch_use() -> None:
    """Behave as outside a run until :func:`bind`, and note in ``used`` what would depend on one.

    For a process that imports a job's code once and then forks for each run: it may do so only if
    the import has asked for nothing that differs from run to run. (Making a phase does not count,
    entering one does.)
    """
    global _run, _sink, _emit, _checkpoints, used
    _run, _sink, _emit, _checkpoints, used = None, None, _note_use, {}, False


def _forked() -> None:
    if _sink is not None:
        _sink.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)  # novm
bind()
