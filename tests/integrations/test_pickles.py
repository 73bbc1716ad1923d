"""Pickles are read without running anything in them."""

from __future__ import annotations

import collections
import functools
import math
import os
import pathlib
import pickle
import pickletools
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcml.integrations import pickles

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Hostile:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_of_every_protocol_are_read_as_they_are(value: Any, protocol: int) -> None:
    told = pickles.plain(pickles.read(pickle.dumps(value, protocol)))
    assert repr(told) == repr(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = pickles.read(data)
    except pickles.UnreadableError:
        return
    pickles.name_of(found)
    try:
        pickles.plain(found)
    except pickles.NotPlainError:
        pass


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for protocol in PROTOCOLS:
        found = pickles.read(pickle.dumps(("success", Hostile(made)), protocol))
        with pytest.raises(pickles.NotPlainError, match="mkdir"):
            pickles.plain(found[1])
    assert not made.exists()
    pickle.loads(pickle.dumps(Hostile(made)))
    assert made.exists()  # so it would have


def test_numbers_of_numpy_and_paths_are_plain() -> None:
    for value in (
        np.float64(1.5),
        np.float32(0.5),
        np.int8(-3),
        np.uint64(1 << 63),
        np.bool_(True),
    ):
        assert pickles.plain(pickles.read(pickle.dumps(value))) == value.item()
    assert pickles.plain(pickles.read(pickle.dumps(pathlib.PurePosixPath("/a/b").parts))) == [
        "/",
        "a",
        "b",
    ]
    assert pickles.plain(pickles.read(pickle.dumps(pathlib.PosixPath("/a/b")))) == "/a/b"
    assert math.isnan(pickles.plain(pickles.read(pickle.dumps(np.float32("nan")))))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.zeros(3), "numpy.ndarray"),
        ({1, 2}, "set"),
        (b"abc", "bytes"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        ({1: 2}, "dict"),
        ([0] * 20_000, "large int"),
        (1 << 2000, "int"),
        (os.path.join, "function"),
    ],
)
def test_other_values_are_told_by_their_type(value: Any, name: str) -> None:
    with pytest.raises(pickles.NotPlainError) as caught:
        pickles.plain(pickles.read(pickle.dumps(value)))
    assert str(caught.value) == name


def test_functions_and_classes_by_value_are_named() -> None:
    def train(width: int, lr: float, *more: int, seed: int = 0) -> None: ...

    class Task:
        def __call__(self) -> None: ...

    train.__module__ = Task.__module__ = "__main__"
    function = pickles.read(cloudpickle.dumps(train))
    assert pickles.name_of(function).endswith(".train")
    assert pickles.parameter_names(function) == ["width", "lr"]
    assert pickles.name_of(pickles.read(cloudpickle.dumps(Task()))) == "__main__.Task"
    partial = pickles.read(pickle.dumps(functools.partial(math.pow, 2)))
    assert pickles.name_of(partial) == "math.pow"


def test_a_small_pickle_that_stands_for_endless_values_is_refused() -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    found = pickles.read(pickle.dumps(value))
    with pytest.raises(pickles.NotPlainError, match="large"):
        pickles.plain(found)
    with pytest.raises(pickles.TooLargeError):
        pickles.digest_of(found)
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(pickles.NotPlainError, match="large"):
        pickles.plain(pickles.read(pickle.dumps(itself)))


def test_a_text_that_a_pickle_has_once_counts_as_often_as_it_is_there() -> None:
    for once in ("x" * 10_000, b"x" * 10_000, 1 << 80_000):
        for many in ([once] * 1000, {"a": [once] * 1000}):
            found = pickles.read(pickle.dumps(many))
            with pytest.raises(pickles.NotPlainError):
                pickles.plain(found)
            with pytest.raises(pickles.TooLargeError):
                pickles.digest_of(found)
    assert pickles.plain(pickles.read(pickle.dumps(["x" * 10_000] * 10))) == ["x" * 10_000] * 10


def test_a_key_that_would_take_for_ever_to_hash_does_no_harm() -> None:
    """A tuple of twice the tuple before it, sixty times, is a key of a dict."""
    dup, tuple2, one, setitem = b"2", b"\x86", b"K\x01", b"s"
    found = pickles.read(b"\x80\x02})" + (dup + tuple2) * 60 + one + setitem + b".")
    with pytest.raises(pickles.NotPlainError, match="dict"):
        pickles.plain(found)
    usual = pickles.read(pickle.dumps({(1, 2): 3}))
    assert pickles.digest_of(usual) == pickles.digest_of(pickles.read(pickle.dumps({(1, 2): 3})))


def test_a_torn_pickle_is_refused_wherever_it_is_torn() -> None:
    whole = pickle.dumps(("success", {"loss": [0.5, "text", None, 1 << 70]}), 5)
    assert pickles.first_text(whole[:30]) == "success"
    for end in range(len(whole) - 1):
        with pytest.raises(pickles.UnreadableError):
            pickles.read(whole[:end])


def test_equal_objects_have_one_digest() -> None:
    made = [pickles.read(pickle.dumps(np.arange(n))) for n in (3, 3, 4)]
    first, second, other = map(pickles.digest_of, made)
    assert first == second != other


def test_every_instruction_of_pickles_is_known() -> None:
    """Those that name objects outside the pickle are refused with the whole pickle."""
    outside = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}
    machine = pickles._Machine
    for code in pickletools.opcodes:
        tables = (pickles.CONSTANTS, pickles.FRESH, pickles.COLLECTED, pickles.IGNORED)
        known = code.name in pickles.LITERALS or any(code.name in table for table in tables)
        method = f"_{code.name.removeprefix('LONG_').removeprefix('BIN').lower()}"
        assert known or hasattr(machine, method) or code.name in outside, code.name
