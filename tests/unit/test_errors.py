"""One tree of errors; each says what went wrong and what to do."""

from __future__ import annotations

import inspect
import pickle

import pytest

import hpcml
from hpcml import errors
from hpcml.errors import CommandError, HpcmlError, JobError, nearest

ALL = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, Exception)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_of_one_tree_and_cannot_be_made_without_advice(
    kind: type[HpcmlError],
) -> None:
    assert issubclass(kind, HpcmlError)
    assert hpcml.HpcmlError is HpcmlError
    parameters = inspect.signature(kind).parameters
    if kind is not CommandError:  # it has advice of its own
        assert parameters["advice"].default is inspect.Parameter.empty


def test_an_error_shows_problem_and_advice_and_survives_pickling() -> None:
    error = JobError("resources.time", "too long", "Ask for less.")
    assert str(error) == "resources.time: too long\n  Ask for less."
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.field) == (str(error), "resources.time")


def test_names_of_jobs_in_an_error_control_no_terminal() -> None:
    error = errors.UnknownNameError("no loss", nearest("los", ["\x1b[31mloss", "los\ns"]))
    assert str(error).count("\n") == 1
    assert "\x1b" not in str(error) and "\\x1b[31mloss" in str(error)


def test_a_failed_command_carries_argv_exit_code_and_output() -> None:
    error = pickle.loads(pickle.dumps(CommandError(["sbatch", "a b"], 1, "no such account")))
    assert (error.argv, error.exit_code, error.output) == (("sbatch", "a b"), 1, "no such account")
    assert "exit code 1" in str(error) and "no such account" in str(error)


def test_the_nearest_valid_word_is_offered_with_all_of_them() -> None:
    assert nearest("boster", ["booster", "batch"]) == (
        "did you mean 'booster'? (valid: batch, booster)"
    )
    assert nearest("xyz", ["a", "b"]) == "valid: a, b"
    assert nearest("xyz", []) == "there is none to choose from"
