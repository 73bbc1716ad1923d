"""Calls a run's function, in the job's own Python (3.8 and newer), by way of submitit.

The unmodified ``submitit.core._submit`` executes the call. What it pickles and calls is a
:class:`Call`, which finds the function, and saves an exception in a form in which it can come
back. Two ways lead here: a fresh interpreter calls one function; a warm one imports what the
function needs, and then forks for each run that it is asked for.
"""

import base64
import gc
import json
import os
import pickle
import signal
import sys
import traceback

from hpcml import injob
from hpcml.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SHORT = 2000  # characters of a repr
LONG = 100000  # characters of a traceback
LARGEST_EXCEPTION = 10**7  # bytes of a pickle
NOTHING = object()
OF_ONE_RUN = ("HPCML_BATCH", "HPCML_INDEX", "HPCML_POINT", "HPCML_RUN_ID", "HPCML_CHECKPOINT")
TAKEN = (signal.SIGTERM, signal.SIGUSR2)  # signals for which submitit sets handlers


class PythonVersionError(RuntimeError):
    """A function by value was pickled by another version of Python."""


def main(argv: "list[str]") -> int:
    """``call <batch> <functions.zip> <code folder> [<socket>]``. Returns an exit code."""
    batch, functions, code = argv[:3]
    sys.dont_write_bytecode = True  # into the snapshot
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "CRITICAL")  # states and reasons tell more
    plan = wire.read_json(os.path.join(batch, "plan.json"))
    sys.path[1:1] = [functions + "/first"]
    sys.path[2:2] = [os.path.join(code, path) for path in plan["what"]["entry"]["path"]]
    sys.path.append(functions + "/last")
    function = Function(batch, plan, code)
    if len(argv) > 3:
        folder = _serve(int(argv[3]), function)
        if folder is not None:
            _leave(_call_as_a_program(folder, function))
        os._exit(0)  # threads and exit functions of the import are for runs
    return _call_as_a_program(os.path.join(batch, os.environ["HPCML_INDEX"]), function)


def is_loading() -> bool:
    """Whether this process is about to import or unpickle the function that it is to call."""
    return bool(_loading)


_loading: "list[Function]" = []


class Function:
    """The plan's function, loaded when asked for, once a process.

    Attributes
    ----------
    code : str
        The folder of the snapshot; ``""`` where no code goes along.
    folder : str
        That of the run for which it is called.
    """

    def __init__(self, batch: str, plan: "dict[str, Any]", code: str) -> None:
        self.batch, self.plan, self.code = batch, plan, code
        self.folder = ""
        self.entry = plan["what"]["entry"]
        self.loaded: Any = NOTHING

    def load(self) -> "Any":
        """The function; while it is loaded, :func:`is_loading`."""
        if self.loaded is NOTHING:
            _loading.append(self)
            try:
                self.loaded = self._load()
            finally:
                _loading.pop()
        return self.loaded

    def _load(self) -> "Any":
        if "pickle" not in self.entry:
            import importlib

            module, _, path = self.entry["target"].partition(":")
            found = importlib.import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
            return found
        here = "%d.%d" % sys.version_info[:2]
        if here != self.entry["python"]:  # bytecode of another version may crash the interpreter
            raise PythonVersionError(
                "the function was pickled by Python %s, and the job's Python is %s: put it into a "
                "module, so that it is imported; or submit from Python %s, or let the job run in "
                "Python %s" % (self.entry["python"], here, here, self.entry["python"])
            )
        root = wire.workspace_of(self.batch)
        with open(os.path.join(root, "code", self.entry["pickle"] + ".pkl"), "rb") as file:
            data = file.read()
        if wire.sha256(data) != self.entry["pickle"]:
            raise RuntimeError("the pickled function is not what its name says")
        return pickle.loads(data)  # noqa: S301 (what the user submitted; its digest says so)

    def arguments(self) -> "dict[str, Any]":
        """Keywords: the parameters, and the paths of inputs that the function has names for."""
        given = dict(injob.params())
        inputs = self.plan["where"]["inputs"]
        if inputs:
            import inspect

            known: "dict[str, inspect.Parameter]" = {}
            try:
                known.update(inspect.signature(self.load()).parameters)
            except (TypeError, ValueError):
                pass  # written in C: it does not say
            for name, path in inputs.items():
                parameter = known.get(name)
                if parameter is not None and parameter.kind in (
                    parameter.POSITIONAL_OR_KEYWORD,
                    parameter.KEYWORD_ONLY,
                ):
                    given.setdefault(name, path)
        return given


class Call:
    """What submitit pickles and calls: the function of the plan, or what a checkpoint put instead.

    Parameters
    ----------
    function : callable
    planned : bool
        It is the plan's, as it was submitted: pickled, only that is said.
    """

    def __init__(self, function: "Any", planned: bool = False) -> None:
        self.function, self.planned = function, planned

    def __call__(self, /, *args: "Any", **kwargs: "Any") -> "Any":
        # submitit ignores TERM, and takes USR2 for a reason to end; both are the function's.
        signal.signal(signal.SIGTERM, _handlers[signal.SIGTERM])
        if isinstance(self, CheckpointableCall):
            signal.signal(signal.SIGUSR2, _here_and_once(signal.getsignal(signal.SIGUSR2)))
        else:
            signal.signal(signal.SIGUSR2, _handlers[signal.SIGUSR2])
        process = os.getpid()
        try:
            value = self.function(*args, **kwargs)
        except SystemExit:
            raise
        except BaseException as error:  # KeyboardInterrupt, asyncio.CancelledError
            _leave_if_forked(process, error)
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            save(error, "function", _function[0].folder)
            raise
        _leave_if_forked(process)
        _returned.append(value)
        return value

    def __reduce__(self) -> "tuple[Any, ...]":
        return _again, (type(self), None if self.planned else self.function)


class CheckpointableCall(Call):
    """Of a function with a method ``checkpoint``: submitit requeues what that gives back."""

    def checkpoint(self, /, *args: "Any", **kwargs: "Any") -> "Any":
        method = getattr(self.function, "__submitit_checkpoint__", None)
        delayed = (method or self.function.checkpoint)(*args, **kwargs)
        if delayed is not None:
            delayed.function = call_of(delayed.function)
        return delayed


def call_of(function: "Any", planned: bool = False) -> Call:
    """The call of a function."""
    return (CheckpointableCall if is_checkpointable(function) else Call)(function, planned)


def is_checkpointable(function: object) -> bool:
    """Whether submitit can requeue it."""
    return hasattr(function, "checkpoint") or hasattr(function, "__submitit_checkpoint__")


def _again(kind: "type[Call]", function: "Any") -> Call:
    return kind(function) if function is not None else kind(_function[0].load(), planned=True)


def _here_and_once(handler: "Any") -> "Callable[[int, Any], None]":
    """submitit's handler, for one process and one signal: no two may save the state at once.

    Children inherit it in vain, and a signal that comes while the state is saved says nothing new.
    """
    process = os.getpid()

    def handle(number: int, frame: "Any") -> None:
        if os.getpid() != process:
            return
        signal.signal(number, signal.SIG_IGN)
        try:
            handler(number, frame)
        except Exception:  # the function may catch it, and go on
            signal.signal(number, handle)
            raise

    return handle


_handlers: "dict[int, Any]" = {}  # as they are once the function is imported
_function: "list[Function]" = []  # the plan's, in a process that calls it
_returned: "list[Any]" = []  # what it has returned, until submitit has pickled that


def _call(folder: str, function: Function) -> int:
    """Have submitit call the function for one run. Returns an exit code."""
    run = os.environ["HPCML_RUN_ID"]
    os.environ.update(
        SUBMITIT_EXECUTOR="local",
        SUBMITIT_LOCAL_JOB_ID=run,
        SUBMITIT_LOCAL_NTASKS="1",
        SUBMITIT_LOCAL_JOB_NUM_NODES="1",
        SUBMITIT_LOCAL_NODEID="0",
        SUBMITIT_LOCAL_GLOBALID="0",
        SUBMITIT_LOCAL_LOCALID="0",
    )
    function.folder = folder
    _function[:] = [function]
    process = os.getpid()
    try:
        call = call_of(function.load(), planned=True)
        _handlers.update((number, signal.getsignal(number) or signal.SIG_DFL) for number in TAKEN)
        _write_submission(os.path.join(folder, run + "_submitted.pkl"), call, function)
    except Exception as error:
        save(error, "start" if isinstance(error, PythonVersionError) else "function", folder)
        traceback.print_exc()
        return 1
    from submitit.core._submit import submitit_main

    sys.argv = ["submitit", folder]
    try:
        _find_plugins()
        submitit_main()
        os.chmod(os.path.join(folder, run + "_0_result.pkl"), 0o600)  # whatever umask is set now
    except Exception as error:
        _leave_if_forked(process, error)
        if _returned:
            save(error, "result", folder, _returned[0])
        elif not os.path.exists(os.path.join(folder, "exception.json")):
            save(error, "function", folder)
        traceback.print_exc()
        return 1
    return 0


def _find_plugins() -> None:
    """Have submitit look for its plugins, among all that is installed; it keeps what it finds.

    Before Python 3.10 it trips (1.5.4) over a Python that has none.
    """
    from importlib import metadata

    from submitit.core import plugins

    found = metadata.entry_points
    if sys.version_info < (3, 10):
        metadata.entry_points = lambda: {"submitit": (), **found()}
    try:
        plugins.get_job_environments()
    finally:
        metadata.entry_points = found


def _write_submission(path: str, call: Call, function: Function) -> None:
    """What submitit loads; after a checkpoint it is there, with the state."""
    if os.path.exists(path):
        return
    from submitit.core.utils import DelayedSubmission

    delayed = DelayedSubmission(call)
    delayed.kwargs = function.arguments()  # whatever their names are
    what = function.plan["what"]
    checkpoint = what.get("checkpoint") or {"requeues": 0}
    delayed.set_timeout((what["limits"]["time"] or 0) / 60, checkpoint["requeues"])
    temporary = path + ".tmp"
    delayed.dump(temporary)
    os.rename(temporary, path)


def _leave_if_forked(process: int, error: "BaseException | None" = None) -> None:
    """End a child that the function has forked and let return: the parent gives the result."""
    if os.getpid() == process:
        return
    if error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
    _flush()
    os._exit(0 if error is None else 1)


def _call_as_a_program(folder: str, function: Function) -> int:
    """:func:`_call`; what would end an interpreter gives its exit code."""
    try:
        return _call(folder, function)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:  # KeyboardInterrupt
        traceback.print_exc()
        return 1


def _leave(code: int) -> None:
    """End a fork as an interpreter ends, without taking apart what it shares with its origin.

    That would copy every page, and take longer than most functions.
    """
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined] # waits for threads
        atexit._run_exitfuncs()
    except BaseException:  # Python 3.8 and 3.9 raise what an exit function has raised
        traceback.print_exc()
    if not _flush():
        code = code or 120  # as Python does
    _flush_c()
    os._exit(code & 0xFF)


def _flush() -> bool:
    """Write out what was printed. Returns whether that was possible."""
    flushed = True
    for stream in (sys.stdout, sys.stderr):
        if stream is None or getattr(stream, "closed", False):
            continue
        try:
            stream.flush()
        except Exception:  # a full disk, or whatever the function has put in its place
            flushed = False
    return flushed


def _flush_c() -> None:
    """Write out what C libraries have printed: ``os._exit`` drops it."""
    try:
        import _ctypes

        fflush = _ctypes.dlsym(_ctypes.dlopen(None, 0), "fflush")  # type: ignore[arg-type]
        _ctypes.call_function(fflush, (None,))  # None: all streams
    except (ImportError, OSError, AttributeError):
        pass  # a Python without ctypes


# --- exceptions -----------------------------------------------------------------------------


def save(error: BaseException, about: str, folder: str, value: object = NOTHING) -> None:
    """Write ``exception.json``, from which the client raises it again.

    Parameters
    ----------
    about : {"function", "result", "start"}
        It raised; it returned ``value``, which cannot be pickled; it was never called.
    folder : str
        The run's.
    """
    record = {
        "about": about,
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "message": _text(str, error),
        "repr": _text(repr, error) if value is NOTHING else _text(_brief(), value),
        "traceback": _traceback(error),
        "python": "%d.%d" % sys.version_info[:2],
        "pickle": _pickled(error) if about == "function" else None,
    }
    wire.publish(
        os.path.join(folder, "exception.json"),
        json.dumps(record).encode("ascii", "surrogatepass"),
    )


def _traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return text if len(text) <= LONG else text[: LONG // 2] + "\n…\n" + text[-LONG // 2 :]


def _brief() -> "Callable[[object], str]":
    """A repr that does not write out all of a large result."""
    import reprlib

    brief = reprlib.Repr()
    brief.maxother = brief.maxstring = SHORT
    return brief.repr


def _text(of: "Callable[[object], str]", value: object) -> str:
    try:
        text = of(value)
    except Exception as error:  # whatever a foreign type does
        text = "<%s whose text raises %s>" % (type(value).__name__, type(error).__name__)
    return text if len(text) <= SHORT else text[:SHORT] + "…"


def _pickled(error: BaseException) -> "str | None":
    """The exception itself, or the parts to build it from; ``None`` if neither can be pickled."""
    import cloudpickle

    try:
        data = cloudpickle.dumps(("object", error))
        back = pickle.loads(data)[1]  # noqa: S301 (just made)
        if len(data) > LARGEST_EXCEPTION:
            return None
        if type(back) is type(error) and back.args == error.args:
            return base64.b64encode(data).decode("ascii")
    except Exception:  # noqa: S110 (an __init__ that wants more than args, say)
        pass
    try:
        data = cloudpickle.dumps(("parts", type(error), error.args, dict(error.__dict__)))
        return base64.b64encode(data).decode("ascii") if len(data) <= LARGEST_EXCEPTION else None
    except Exception:
        return None


# --- the warm interpreter -------------------------------------------------------------------


def _serve(descriptor: int, function: Function) -> "str | None":
    """Fork for each run that is asked for, one at a time. Returns a run's folder in its process."""
    import socket

    asked = socket.socket(fileno=descriptor)

    def answer(**what: "Any") -> None:
        asked.sendall(json.dumps(what).encode("ascii") + b"\n")

    for line in asked.makefile("rb"):
        request = json.loads(line.decode("ascii"))
        if function.loaded is NOTHING:
            _enter(request["gate"])  # the first run's limit holds for the import, too
            why = _warm_up(function)
            if why:
                answer(refused=why)
                return None
            _enter(_gate_above(request["gate"]))
            _let_go_of_streams()
        process = os.fork()
        if process == 0:
            os.setsid()
            answer(pid=os.getpid())  # before anything of the function's, which may kill its parent
            asked.close()
            _become(request)
            return str(request["folder"])
        _, status, used = os.wait4(process, 0)
        usage = {name: getattr(used, name) for name in ("ru_utime", "ru_stime", "ru_maxrss")}
        answer(ended=status, usage=usage)
    return None


def _enter(gate: str) -> None:
    """Move this process into the cgroup with that ``cgroup.procs``, if there is one."""
    if gate:
        with open(gate, "w") as file:
            file.write(str(os.getpid()))


def _gate_above(gate: str) -> str:
    return gate and os.path.join(os.path.dirname(os.path.dirname(gate)), os.path.basename(gate))


def _warm_up(function: Function) -> str:
    """Load the function and submitit. Returns why forking would not be safe, or nothing."""
    import argparse
    import importlib
    import random

    injob.watch_use()
    state = random.getstate()
    getcwd, encode = os.getcwd, os.environ.encodekey
    asked = []

    def noting() -> str:
        if function.code and _caller().startswith(function.code):
            asked.append(True)
        return getcwd()

    def noting_name(name: str) -> str:
        if name in OF_ONE_RUN:
            asked.append(True)
        return encode(name)

    os.getcwd, os.environ.encodekey = noting, noting_name
    try:
        function.load()
        importlib.import_module("submitit.core._submit")  # and with it numpy, where there is one
        _find_plugins()
        argparse.ArgumentParser().parse_args([])  # as submitit will: it fills its caches
    except BaseException as error:  # a fresh interpreter will say it again, in the run's own files
        return "it cannot be loaded: %r" % (error,)
    finally:
        os.getcwd, os.environ.encodekey = getcwd, encode
    if injob.used or asked:
        return "it asks for the run's parameters, files, folder or name while it is imported"
    if random.getstate() != state or _has_generators():
        return "its import makes, seeds or uses generators of random numbers"
    import threading

    if threading.active_count() > 1:
        return "its import has started threads"
    if _has_children():
        return "its import has started processes"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "its import has initialised CUDA"
    gc.freeze()  # a collection would touch, and so copy, what all forks share
    return ""


def _caller() -> str:
    """The file from which the current folder is asked for, by whichever of Python's own ways."""
    frame = sys._getframe(2)
    while frame.f_back and os.path.basename(frame.f_code.co_filename).startswith(PATH_MODULES):
        frame = frame.f_back
    return frame.f_code.co_filename


PATH_MODULES = ("<frozen posixpath", "<frozen os", "posixpath.py", "os.py", "pathlib", "_local.py")


def _has_generators() -> bool:
    """Whether there are random generators besides the two that every fork seeds afresh.

    All forks would draw the same from them. A seed for numpy's own one is meant to stay.
    """
    import random

    kinds: "tuple[type[Any], ...]" = (random.Random,)
    usual: "list[Any]" = [random._inst]
    numpy = sys.modules.get("numpy.random")
    if numpy is not None and hasattr(numpy, "BitGenerator"):
        bits = numpy.mtrand._rand._bit_generator
        if getattr(bits, "_seed_seq", bits) is None:
            return True
        kinds += (numpy.BitGenerator,)
        usual.append(bits)
    return any(
        issubclass(type(found), kinds)
        and type(found) is not random.SystemRandom
        and not any(found is one for one in usual)
        for found in gc.get_objects()
    )


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _let_go_of_streams() -> None:
    """What was printed while importing is the first run's; from here on nothing is ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    _flush_c()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _become(request: "dict[str, Any]") -> None:
    """Make this fork the process of a run, as if it had been started for it."""
    _enter(request["gate"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        stream = os.open(os.path.join(request["folder"], name), flags, 0o600)
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["work"])
    os.environ.pop("HPCML_SLOT", None)
    os.environ.update(request["environment"])
    injob.bind()
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:  # where it starts those that it spawns
        process.ORIGINAL_DIR = request["work"]
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()  # as in a fresh process: else all forks draw the same numbers
