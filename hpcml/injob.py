"""What a job's own code calls; harmless outside a run. Standard library, Python 3.6 and newer.

A run's processes learn from two environment variables which run they are. Everything else is read
from the batch's files when it is asked for.
"""

import json
import os
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from typing import Any, Callable  # noqa: F401 (used in a type comment)

WINDOW = (1 << 14, 1 << 18)  # bytes a process reserves first, and then again and again


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
    """
    run = _given()
    path = os.path.join(run.work, name) if run.work else name
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    return path


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
        called in.
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
        if value is not None:
            record[name] = _number(value)
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

    def __init__(self, batch: "str | None" = None, index: int = 0) -> None:
        self.params: "dict[str, Any]" = {}
        self.inputs: "dict[str, str]" = {}
        self.work: "str | None" = None
        if batch is None:
            return
        with open(os.path.join(batch, "plan.json"), "rb") as file:
            plan = json.loads(file.read().decode("utf-8"))
        with open(os.path.join(batch, "points.jsonl"), "rb") as file:
            for number, line in enumerate(file):
                if number == index:
                    point = json.loads(line.decode("utf-8"))
                    break
        self.params = dict(plan["what"]["params"], **point.get("params", {}))
        self.inputs = plan["where"]["inputs"]
        self.work = os.path.join(batch, str(index), "work")


def _given() -> _Given:
    global _run
    if _run is None:
        batch = os.environ.get("HPCML_BATCH")
        _run = _Given(batch, int(os.environ["HPCML_INDEX"])) if batch else _Given()
    return _run


class Sink:
    """Appends lines to a file that several processes share, at the price of a memory copy.

    Each process reserves a window at the end of the file and fills it through shared memory, so
    that a line is with the kernel, and survives the process, as soon as it is written. What is
    not filled stays zero; readers pass over it and the agent removes it at the end. The window's
    blocks are allocated first: a full disk must be an error here, not a fatal signal later.

    Where a file system cannot do that, each line is one ``write``. Where nothing can be written,
    events are dropped and one line on stderr says so.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.forget()

    def forget(self) -> None:
        """Start with no window (in a forked child: the parent's is not ours)."""
        self.lock = threading.RLock()  # a signal's handler may log while its thread holds it
        self.pid = os.getpid()
        self.window: "mmap.mmap | None" = None
        self.waiting: "list[bytes]" = []
        self.size = WINDOW[0]
        self.plain = False

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

    def _elsewhere(self, line: bytes, full: "mmap.mmap | None") -> None:
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
        try:
            if not self.plain and len(line) <= self.size:
                try:
                    window = self._reserve()
                    window.write(line)
                    self.window = window
                    return
                except (OSError, ValueError, ImportError, AttributeError):
                    self.plain = True
            self._append(line)
        except OSError as error:
            _give_up("hpcml: no more events can be recorded: %s\n" % error)

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            _lock(descriptor)
            os.write(descriptor, line)
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
            window = mmap.mmap(descriptor, self.size, offset=start)
            self.size = WINDOW[1]
            return window
        finally:
            os.close(descriptor)  # and with it the lock


def _lock(descriptor: int) -> None:
    """Wait until nobody reserves a window at the end of the file, where we are to append."""
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    except (OSError, ImportError):
        pass  # a file system without locks


def _give_up(why: str) -> None:
    global _emit
    _emit = _drop
    try:
        os.write(2, why.encode("utf-8", "replace"))
    except OSError:
        pass  # the disk that is full may be that of stderr, too


def _drop(line: bytes) -> None:
    """What becomes of events when they cannot be recorded."""


# (An annotated name cannot be `global` in Python 3.6.)
_run = None  # type: _Given | None
_sink = None  # type: Sink | None
_emit = None  # type: Callable[[bytes], None] | None
if os.environ.get("HPCML_BATCH"):
    _sink = Sink(os.path.join(os.environ["HPCML_BATCH"], os.environ["HPCML_INDEX"], "events.jsonl"))
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_sink.forget)  # novm
        _emit = _sink.write
    else:  # Python 3.6
        _emit = _sink.write_as_who_i_am
