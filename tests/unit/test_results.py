"""What a function has left is loaded when asked for, with its traceback, and from safe hands."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from hpcml.errors import ResultError, RunFailedError, TransportError
from hpcml.results import HERE, RemoteTraceback
from tests.byhand import ByHand

BY_VALUE = {"kind": "function", "target": "f", "python": HERE}
BY_REFERENCE = {"kind": "function", "target": "m:f"}
TRACEBACK = 'Traceback (most recent call last):\n  File "job.py", line 3, in f\nValueError: no\n'
OTHER = "3.8" if HERE != "3.8" else "3.9"


class NeedsTwo(Exception):
    """Its ``__init__`` takes other arguments than ``args`` holds."""

    def __init__(self, width: int, why: str) -> None:
        super().__init__(f"{width}: {why}")
        self.width = width


def left(entry: dict[str, Any] = BY_VALUE, **options: Any) -> ByHand:
    """A run of a function that ended well."""
    made = ByHand(entry=entry, **options)
    made.end()
    return made


def write_result(made: ByHand, value: object, outcome: str = "success") -> Path:
    path = made.file(f"{made.runs[0].id}_0_result.pkl")
    path.write_bytes(cloudpickle.dumps((outcome, value)))
    return path


def raised(pickled: object | None, **told: Any) -> ByHand:
    """A run of a function that raised."""
    made = ByHand(entry=BY_VALUE)
    made.end(exit_code=1)
    encoded = None if pickled is None else base64.b64encode(cloudpickle.dumps(pickled)).decode()
    facts = {
        "type": "ValueError",
        "module": "builtins",
        "message": "no",
        "repr": "ValueError('no')",
        "traceback": TRACEBACK,
        "python": HERE,
        "about": "function",
        "pickle": encoded,
    }
    made.file("exception.json").write_text(json.dumps({**facts, **told}))
    return made


# --- results ------------------------------------------------------------------------------


def test_what_a_function_returned_comes_back() -> None:
    made = left()
    write_result(made, {"loss": 0.5})
    (run,) = made.runs

    assert run.result() == {"loss": 0.5}
    assert run.exception() is None
    assert made.runs.results() == [{"loss": 0.5}]


def test_the_result_of_what_is_no_function_is_none() -> None:
    made = ByHand()
    made.end()
    assert made.runs[0].result() is None


def test_a_result_is_not_unpickled_before_somebody_asks_for_it(tmp_path: Path) -> None:
    mark = tmp_path / "loaded"

    class Loud:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    made = left()
    write_result(made, Loud())
    run = made.runs[0].wait(5)
    assert (run.state, run.files(), run.exception()) == ("COMPLETED", [], None)
    assert not mark.exists()
    run.result()
    assert mark.exists()


def test_a_function_by_value_of_another_python_is_refused_before_anything_is_loaded() -> None:
    made = left({**BY_VALUE, "python": OTHER})
    made.file(f"{made.runs[0].id}_0_result.pkl").write_bytes(b"would crash")

    with pytest.raises(ResultError, match=f"under Python {OTHER}") as caught:
        made.runs[0].result()
    for way in (f"Use Python {OTHER} here", "into a module", "to a file"):
        assert way in caught.value.advice


def test_code_by_value_is_refused_where_the_jobs_python_is_not_known() -> None:
    made = left(BY_REFERENCE, python="/opt/another/bin/python")
    path = write_result(made, lambda: 1)
    with pytest.raises(ResultError, match="which Python the job had is not known"):
        made.runs[0].result()

    path.write_bytes(cloudpickle.dumps(("success", type("Local", (), {})())))
    with pytest.raises(ResultError, match="which Python the job had is not known"):
        made.runs[0].result()

    path.write_bytes(pickle.dumps(("success", [Path("/a"), {1, 2}])))
    assert made.runs[0].result() == [Path("/a"), {1, 2}]


def test_code_by_value_is_loaded_where_the_job_had_this_very_python() -> None:
    made = left(BY_REFERENCE, python=sys.executable)
    write_result(made, lambda: 7)
    assert made.runs[0].result()() == 7


def test_a_result_that_is_not_there_or_torn_is_named() -> None:
    made = left()
    with pytest.raises(ResultError, match="has left no result"):
        made.runs[0].result()
    write_result(made, 1).write_bytes(b"\x80\x05torn")
    with pytest.raises(ResultError, match="cannot be loaded: "):
        made.runs[0].result()


def test_an_error_in_the_place_of_a_result_is_raised_with_its_traceback() -> None:
    made = left()
    write_result(made, TRACEBACK, outcome="error")
    with pytest.raises(ResultError) as caught:
        made.runs[0].result()
    assert str(caught.value.__cause__) == TRACEBACK


# --- exceptions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("k"), FileNotFoundError(2, "No such file", "/data/x")]
)
def test_an_exception_comes_back_with_its_type_and_its_remote_traceback(error: Exception) -> None:
    (run,) = raised(("object", error)).runs

    with pytest.raises(type(error)) as caught:
        run.result()
    assert caught.value.args == error.args and str(caught.value) == str(error)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert str(caught.value.__cause__) == TRACEBACK
    assert getattr(caught.value, "filename", None) == getattr(error, "filename", None)


def test_an_exception_with_an_init_of_its_own_is_put_together_from_its_parts() -> None:
    parts = ("parts", NeedsTwo, ("32: too wide",), {"width": 32, "hint": "less"})
    error = raised(parts).runs[0].exception()

    assert isinstance(error, NeedsTwo) and error.args == ("32: too wide",)
    assert (error.width, error.hint) == (32, "less")  # type: ignore[attr-defined]
    assert str(error.__cause__) == TRACEBACK


def test_an_exception_of_a_class_by_value_comes_back() -> None:
    kind = type("Local", (Exception,), {"__module__": "__main__"})
    error = raised(("parts", kind, ("x",), {"code": 7})).runs[0].exception()
    assert type(error).__name__ == "Local"
    assert error is not None and error.args == ("x",)
    assert error.code == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "pickled, told",
    [
        (None, {}),
        (("object", ValueError("no")), {"python": OTHER}),
        (("object", ValueError("no")), {"pickle": base64.b64encode(b"torn").decode()}),
        (("object", ValueError("no")), {"pickle": "no base64 at all"}),
        (("parts", NeedsTwo), {}),
        (("object", SystemExit(3)), {}),
        (("object", "no exception"), {}),
    ],
)
def test_an_exception_that_cannot_be_loaded_is_told_in_words(
    pickled: object, told: dict[str, Any]
) -> None:
    error = raised(pickled, **told).runs[0].exception()

    assert isinstance(error, RunFailedError) and error.state == "FAILED"
    assert "raised ValueError: no (ValueError('no'))" in str(error)
    assert str(error.__cause__) == TRACEBACK


def test_a_result_that_could_not_be_pickled_is_shown_as_text() -> None:
    error = raised(None, about="result", repr="<socket>", message="a socket").runs[0].exception()
    assert isinstance(error, RunFailedError)
    assert "returned what cannot be pickled: <socket> (a socket)" in str(error)


def test_a_function_that_was_never_called_says_why() -> None:
    error = raised(None, about="start", message="there is no module m").runs[0].exception()
    assert "was never called: there is no module m" in str(error)


def test_a_torn_exception_is_a_failed_run_all_the_same() -> None:
    made = raised(None)
    made.file("exception.json").write_text('{"type": "Val')
    error = made.runs[0].exception()
    assert isinstance(error, RunFailedError) and "torn" in str(error)


def test_a_run_that_failed_without_an_exception_quotes_the_end_of_its_stderr() -> None:
    made = ByHand()
    made.end(exit_code=3)
    with open(made.file("stderr"), "wb") as file:
        file.truncate(3 << 30)  # sparse: to read all of it would show
        file.seek(0, 2)
        file.write(b"\nbefore\nno such grid\n")
    (run,) = made.runs

    with pytest.raises(RunFailedError, match=r"is FAILED: exit code 3") as caught:
        run.result()
    assert caught.value.advice.endswith("before\nno such grid")
    assert (caught.value.run_id, caught.value.state) == (run.id, "FAILED")
    assert caught.value.reason == "exit code 3"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.state) == (str(caught.value), "FAILED")


def test_results_raises_the_exception_of_the_first_run_that_failed() -> None:
    made = ByHand([{"n": 0}, {"n": 1}, {"n": 2}])
    made.end(2, exit_code=2)
    made.end(1, exit_code=1)
    made.end(0)
    with pytest.raises(RunFailedError, match=f"{made.runs[1].id} is FAILED: exit code 1"):
        made.runs.results()


# --- whose file it is ---------------------------------------------------------------------

SOMEBODY = 12345


def give_away(path: Path) -> None:
    os.chown(path, SOMEBODY, SOMEBODY)


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "meddle, match",
    [
        (lambda path: path.chmod(0o622), "pkl is not this user's alone"),
        (link_elsewhere, "pkl is not this user's alone"),
        (lambda path: path.parent.chmod(0o770), "0 is not this user's alone"),
        (lambda path: path.parents[1].chmod(0o770), "is not this user's alone"),
        pytest.param(
            give_away,
            "pkl is not this user's alone",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs chown"),
        ),
        pytest.param(
            lambda path: give_away(path.parent),
            "0 is not this user's alone",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs chown"),
        ),
    ],
)
def test_what_somebody_else_could_have_written_is_not_loaded(meddle: Any, match: str) -> None:
    made = left()
    path = write_result(made, 1)
    assert made.runs[0].result() == 1
    meddle(path)
    with pytest.raises(TransportError, match=match):
        made.runs[0].result()


def test_an_exception_that_somebody_else_could_have_written_is_not_loaded() -> None:
    made = raised(("object", ValueError("no")))
    made.file("exception.json").chmod(0o666)
    with pytest.raises(TransportError, match="not this user's alone"):
        made.runs[0].exception()
