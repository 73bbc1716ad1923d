"""What a function has left: its result or its exception, loaded when asked for, and as a future.

Loading a pickle runs code. Whoever calls this has made sure whose file it is; here it is made sure
that no code of another Python's is loaded: bytecode of 3.11 crashes 3.12.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from hpcml.errors import ResultError, RunFailedError

if TYPE_CHECKING:
    from hpcml.batch_view import Seen
    from hpcml.run import Run

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
RESULT = "0_result.pkl"  # submitit's name, behind the run's id
EXCEPTION = "exception.json"
BY_VALUE = ("_make_", "_builtin_type", "_fill_", "_rehydrate_")  # what cloudpickle makes code with


class RemoteTraceback(Exception):
    """The traceback of a function that raised in a job; its text is ``str()`` of this."""


@dataclass(frozen=True)
class Failure:
    """How a run ended that did not end well."""

    run_id: str
    state: str
    reason: str

    def error(self, problem: str, advice: str) -> RunFailedError:
        """An error that says so."""
        return RunFailedError(self.run_id, self.state, self.reason, problem, advice)


def check_python(entry: Mapping[str, Any]) -> None:
    """Refuse what a function by value has left for another Python.

    Raises
    ------
    ResultError
        Its Python is not this one.
    """
    python = entry.get("python")
    if python not in (None, HERE):
        raise ResultError(
            f"the function ran under Python {python}, and this is {HERE}: its result may hold code",
            f"Use Python {python} here; or put the function into a module, so that it goes by "
            "reference; or write results to a file.",
        )


def load_result(file: BinaryIO, *, same_python: bool) -> Any:
    """What a function returned.

    Parameters
    ----------
    file : binary file
        A pickle of ``("success", value)`` or ``("error", traceback text)``.
    same_python : bool
        Whether the job's Python is known to be like this one; else code by value is refused.

    Raises
    ------
    ResultError
        It cannot be loaded.
    """
    try:
        outcome, value = (pickle.Unpickler if same_python else _WithoutCode)(file).load()
    except ResultError:
        raise
    except Exception as error:
        raise ResultError(
            f"the result cannot be loaded: {type(error).__name__}: {error}",
            "What it is made of must be importable here as it is in the job.",
        ) from error
    if outcome != "success":
        advice = "Look at its logs."
        raise ResultError("the function left no result, but an error", advice) from (
            RemoteTraceback(value)
        )
    return value


def load_exception(text: bytes, failure: Failure) -> Exception:
    """The exception of a function, with ``__cause__`` for its traceback in the job.

    It is the one that was raised where it can be loaded here, else a RunFailedError with its type,
    message and repr.
    """
    try:
        told = json.loads(text)
        about, cause = told["about"], RemoteTraceback(told["traceback"])
        made = _unpickled(told) if about == "function" else None
        words = _in_words(failure, told, about)
        error = failure.error(*words) if made is None else made
    except (ValueError, KeyError, TypeError, RecursionError) as torn:
        advice = "Look at its logs."
        return failure.error(f"{failure.run_id} left an exception that is torn: {torn!r}", advice)
    error.__cause__ = cause
    return error


def _in_words(failure: Failure, told: Mapping[str, Any], about: str) -> tuple[str, str]:
    """Problem and advice."""
    if about == "result":
        return (
            f"{failure.run_id} returned what cannot be pickled: {told['repr']} ({told['message']})",
            "Return plain data, or write it to a file.",
        )
    if about == "start":
        return (
            f"the function of {failure.run_id} was never called: {told['message']}",
            "Mend that, and submit it again.",
        )
    return (
        f"{failure.run_id} raised {told['type']}: {told['message']} ({told['repr']})",
        "The exception itself cannot be loaded here; its traceback is the cause of this error.",
    )


def _unpickled(told: Mapping[str, Any]) -> Exception | None:
    """The exception itself; ``None`` where it cannot be loaded, or would end this process, too."""
    if told["pickle"] is None or told["python"] != HERE:
        return None
    try:
        kind, *parts = pickle.loads(base64.b64decode(told["pickle"]))  # noqa: S301
        made = parts[0] if kind == "object" else _from_parts(*parts)
    except Exception:
        return None  # its class is not known here, or does not let itself be made
    return made if isinstance(made, Exception) else None  # a job's SystemExit is not ours


def _from_parts(kind: type[Any], args: tuple[Any, ...], state: Mapping[str, Any]) -> Any:
    """An exception whose class cannot be called with its arguments."""
    made = kind.__new__(kind, *args)
    made.args = args
    made.__dict__.update(state)
    return made


class _WithoutCode(pickle.Unpickler):
    """Refuses code by value: it may be of another Python."""

    def find_class(self, module: str, name: str) -> Any:
        by_value = module.split(".")[0] == "cloudpickle" and name.startswith(BY_VALUE)
        if by_value or (module, name) in (("types", "CodeType"), ("builtins", "code")):
            raise ResultError(
                "the result holds a function or class by value, and which Python the job had is "
                "not known",
                "Put it into a module that the job and you can import; or write results to a file.",
            )
        return super().find_class(module, name)


class RunFuture(Future[Any]):
    """A run as a future. It is done when the run has ended; its result is loaded when asked for.

    ``cancel()`` returns ``False``: a run is cancelled by ``run.cancel()``. Callbacks run in the
    thread that looks at the site; they must not wait for other runs. A future belongs to the
    process that made it.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self._outcome: tuple[Any, BaseException | None] | None = None

    def cancel(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Any:
        value, error = self._load(timeout)
        if error is not None:
            raise error
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._load(timeout)[1]

    def _load(self, timeout: float | None) -> tuple[Any, BaseException | None]:
        error = super().exception(timeout)
        if error is not None and not isinstance(error, _Ended):
            return None, error
        if self._outcome is None:
            try:
                self._outcome = self.run.result(), None
            except Exception as failed:
                self._outcome = None, failed
        return self._outcome

    # What the poller calls.

    def end(self, seen: Seen) -> None:
        """The run has ended; who waits for the first exception must hear of a failure."""
        if seen.state == "COMPLETED":
            self.set_result(None)
        else:
            self.set_exception(_Ended())

    def fail(self, error: Exception) -> None:
        """Its end will never be known."""
        self.set_exception(error)


class _Ended(Exception):
    """Stands for the exception of a run until that is loaded."""


def tail(text: bytes, lines: int = 20) -> str:
    """The last lines of what a job printed."""
    return "\n".join(text.decode("utf-8", "replace").splitlines()[-lines:])
