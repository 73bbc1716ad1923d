"""What a pickle says, read without loading it: nothing in it is imported, called or made.

A pickle is a program. Here its instructions are followed, but a class or function stays a
:class:`Name`, and what would be made of one stays a :class:`Made`: the name and what it is given.
"""

from __future__ import annotations

import pickletools
import posixpath
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpcml.agent import wire

MOST_STEPS = 100_000  # instructions that are followed, about 0.2 s
MOST_VALUES = 20_000  # that a plain value has, keys included
MOST_BYTES = 1 << 20  # of its texts and large integers, each as often as it is there
DEEPEST = 50


class UnreadableError(ValueError):
    """It is no pickle, or a torn one."""


class TooLargeError(UnreadableError):
    """It is more than is read."""


class NotPlainError(ValueError):
    """It is not made of numbers, texts, lists and dicts alone; its text is the name of its type."""


@dataclass(frozen=True, eq=False)
class Name:
    """A class or function that would be imported."""

    module: str
    name: str


@dataclass(eq=False)
class Made:
    """What would be made by calling something."""

    what: Any
    args: Any
    state: Any = None


class Large:
    """Stands for what was too large to be read."""


def read(data: bytes) -> Any:
    """What a pickle holds.

    Raises
    ------
    UnreadableError
    """
    machine = _Machine()
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            if count == MOST_STEPS:
                raise TooLargeError("it is too large to be read")
            machine.follow(opcode.name, arg)
        return machine.stack[-1]
    except UnreadableError:
        raise
    except Exception as error:  # hostile bytes go wrong in any way
        raise UnreadableError(f"it is torn, or no pickle ({type(error).__name__})") from error


def first_text(data: bytes) -> str | None:
    """The first text in a pickle, of which the end may be missing."""
    try:
        for opcode, arg, _ in pickletools.genops(data):
            if isinstance(arg, str) and opcode.name in LITERALS:
                return arg
    except Exception:  # hostile bytes go wrong in any way
        return None
    return None


class _Machine:
    """Follows instructions, as ``pickle`` does, with names instead of what they stand for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what was on the stack at each mark
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, arg: Any) -> None:
        if name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in FRESH:
            self.stack.append(FRESH[name]())
        elif name in LITERALS:
            self.stack.append(arg)
        elif name in COLLECTED:
            found = self._marked()
            self.stack.append(COLLECTED[name](found))
        elif name not in IGNORED:
            getattr(self, f"_{name.removeprefix('LONG_').removeprefix('BIN').lower()}")(arg)

    def _marked(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def _pop_several(self, count: int) -> list[Any]:
        found = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return found

    # Methods bear the names of instructions.

    def _mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked()

    def _pop_mark(self, _: None) -> None:
        self._marked()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _tuple1(self, _: None) -> None:
        self.stack.append(tuple(self._pop_several(1)))

    def _tuple2(self, _: None) -> None:
        self.stack.append(tuple(self._pop_several(2)))

    def _tuple3(self, _: None) -> None:
        self.stack.append(tuple(self._pop_several(3)))

    def _append(self, _: None) -> None:
        self._extend(self._pop_several(1))

    def _appends(self, _: None) -> None:
        self._extend(self._marked())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):  # else a list of some class, whose items are its own
            self.stack[-1].extend(items)

    def _setitem(self, _: None) -> None:
        self._update(self._pop_several(2))

    def _setitems(self, _: None) -> None:
        self._update(self._marked())

    def _update(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(items))

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def _global(self, arg: str) -> None:
        self.stack.append(Name(*arg.split(" ", 1)))

    def _stack_global(self, _: None) -> None:
        module, name = self._pop_several(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError
        self.stack.append(Name(module, name))

    def _reduce(self, _: None) -> None:
        self.stack.append(Made(*self._pop_several(2)))

    _newobj = _reduce

    def _newobj_ex(self, _: None) -> None:
        what, args, kwargs = self._pop_several(3)
        self.stack.append(Made(what, (*args, kwargs)))

    def _obj(self, _: None) -> None:
        what, *args = self._marked()
        self.stack.append(Made(what, tuple(args)))

    def _inst(self, arg: str) -> None:
        args = tuple(self._marked())
        self.stack.append(Made(Name(*arg.split(" ", 1)), args))

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(_key, items[::2]), items[1::2], strict=True))


def _key(value: Any) -> Any:
    """A key of a dict. To hash a tuple of tuples of … may take for ever, so that none is hashed."""
    return Made(Name("builtins", "tuple"), value) if isinstance(value, tuple) else value


def _set(items: list[Any]) -> Made:
    return Made(Name("builtins", "set"), items)


CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
FRESH: Mapping[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: _set([]),
}
COLLECTED: Mapping[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": _pairs,
    "FROZENSET": _set,
}
IGNORED = ("PROTO", "FRAME", "STOP", "READONLY_BUFFER")
LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)


# --- what was read ----------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples become lists, NumPy's numbers numbers, paths texts.

    Raises
    ------
    NotPlainError
        There is something else in it.
    """
    return _Plain().of(value, 0)


def digest_of(value: Any) -> str:
    """SHA-256 of what was read: equal for equal pickles, whatever it is made of.

    Raises
    ------
    UnreadableError
        It is too large.
    """
    return wire.sha256("\0".join(_told(value, _Size(), 0)).encode("utf-8", "backslashreplace"))


def type_of(value: Any) -> str:
    """Name of a value's type, as far as its pickle tells."""
    if isinstance(value, Large):
        return "large object"
    if not isinstance(value, Made):
        return "function" if isinstance(value, Name) else type(value).__name__
    name = name_of(value)
    return name.removeprefix("builtins.")


def name_of(value: Any) -> str:
    """Name of a function or class, or of the class of an object."""
    for _ in range(DEEPEST):
        match value:
            case Name(module, name):
                return f"{module}.{name}"
            case Made(Name(_, "_make_function"), (Made(_, code), dict(around), *_)):
                return f"{_text(around.get('__name__'))}.{_text(code[11:12])}"
            case Made(Name(_, "_make_skeleton_class"), (_, str(name), _, dict(around), *_)):
                return f"{_text(around.get('__module__'))}.{name}"
            case Made(Name(_, "_frombuffer"), _):
                return "numpy.ndarray"
            case Made(Name(_, name), (inner, *_)) if name in PASSED_ON:
                value = inner
            case Made(inner, _):
                value = inner
            case _:
                return type(value).__name__
    return "object"


PASSED_ON = ("_reconstruct", "_reconstructor", "__newobj__", "partial")


def _text(value: Any) -> str:
    """A text, also as the one item of a tuple."""
    match value:
        case str(text) | (str(text),):
            return text
    return "?"


def parameter_names(function: Any) -> list[str]:
    """Names of the parameters of a function by value; those of another one are not told."""
    match function:
        case Made(Name(_, "_make_function"), (Made(_, (int(count), *code)), *_)):
            names = code[8] if len(code) > 8 and isinstance(code[8], tuple) else ()
            return [name for name in names[:count] if isinstance(name, str)]
        case _:
            return []


class _Size:
    """Counts what is made: a pickle of a few bytes can stand for more than fits into memory."""

    def __init__(self) -> None:
        self.values, self.bytes = MOST_VALUES, MOST_BYTES

    def exceeded_by(self, value: Any, depth: int) -> bool:
        """Whether it is too much with one more value."""
        self.values -= 1
        if isinstance(value, str | bytes | bytearray):
            self.bytes -= len(value)
        elif isinstance(value, int):
            self.bytes -= value.bit_length() // 8
        return min(self.values, self.bytes) < 0 or depth > DEEPEST


class _Plain:
    """Makes plain values, as long as they are not too many."""

    def __init__(self) -> None:
        self.size = _Size()

    def of(self, value: Any, depth: int) -> Any:
        if self.size.exceeded_by(value, depth):
            raise NotPlainError(f"large {type_of(value)}")
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int) and value.bit_length() < 1024:
            return value
        if isinstance(value, list | tuple):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {self.of(key, depth + 1): self.of(it, depth + 1) for key, it in value.items()}
        match value:
            case Made(
                Name(_, "scalar"),
                (Made(_, (str(code), *_), (_, str(order), *_)), bytes(data)),
            ) if code in FORMATS and len(data) == struct.calcsize(FORMATS[code]):
                (number,) = struct.unpack((">" if order == ">" else "<") + FORMATS[code], data)
                return number
            case Made(Name("pathlib", "PosixPath"), tuple(names)) if all(
                isinstance(name, str) for name in names
            ):
                return posixpath.join("", *names)
        raise NotPlainError(type_of(value))


FORMATS = {"b1": "?", "f2": "e", "f4": "f", "f8": "d"} | {
    f"{kind}{size}": code if kind == "i" else code.upper()
    for kind in "iu"
    for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))
}


def _told(value: Any, size: _Size, depth: int) -> Iterator[str]:
    """A value in words that no other value has."""
    if size.exceeded_by(value, depth):
        raise TooLargeError("it is too large to be read")
    inner: list[Any]
    if isinstance(value, Name):
        kind, inner = "name", [value.module, value.name]
    elif isinstance(value, Made):
        kind, inner = "made", [value.what, value.args, value.state]
    elif isinstance(value, dict):
        kind, inner = "dict", [part for pair in value.items() for part in pair]
    elif isinstance(value, list | tuple):
        kind, inner = type(value).__name__, list(value)
    else:
        text = hex(value) if isinstance(value, int) else repr(value)  # repr refuses long ones
        yield f"{type(value).__name__} {text}"
        return
    yield f"{kind} {len(inner)}"
    for item in inner:
        yield from _told(item, size, depth + 1)


def numbers_in(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Numbers of a plain value by name: those of a dict are ``<name>.<key>``."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_in(item, f"{name}.{key}")
    elif isinstance(value, int | float):
        yield name, value
