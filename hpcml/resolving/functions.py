"""Functions as entries: by reference where they can be imported, else by value."""

from __future__ import annotations

import inspect
import os
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from hpcml import units
from hpcml.agent import wire
from hpcml.call import is_checkpointable
from hpcml.errors import JobError
from hpcml.resolving.git import is_within

LARGEST = 50 * 10**6  # bytes of a function by value, with all that it holds


@dataclass(frozen=True)
class Function:
    """A function, found.

    Attributes
    ----------
    target : str
        ``package.module:name``, or a name alone for one by value.
    root : str or None
        Absolute folder that its imports start from, where that is the user's own.
    known : tuple of str or None
        Names of its parameters; ``None``: it takes any. ``required`` have no default.
    pickled : bytes or None
        A function by value.
    """

    target: str
    root: str | None
    known: tuple[str, ...] | None
    required: tuple[str, ...]
    checkpointable: bool
    fork: bool
    pickled: bytes | None = None

    def as_data(self) -> dict[str, Any]:
        """What the plan says of it; stable for a function by reference."""
        data: dict[str, Any] = {"kind": "function", "target": self.target}
        if not self.fork:
            data["fork"] = False
        if self.pickled is not None:
            data["pickle"] = wire.sha256(self.pickled)
            data["python"] = "{}.{}".format(*sys.version_info[:2])
        return data


def find_function(function: Callable[..., Any]) -> Function:
    """See how a function can be taken along.

    Raises
    ------
    JobError
        It can neither be imported nor pickled, or it cannot be called with keywords, or would have
        to be awaited.
    """
    known, required = _parameters(function)
    module = _importable(function)
    root = import_root(module) if module else None
    if module and root is None and _is_loaded_by_hand(module):
        module = None
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition(".")[2]
    pickled = None if module else _pickle(function)
    return Function(
        target=f"{module.__name__}:{function.__qualname__}" if module else name,
        root=root if module else _root_by_value(function, pickled or b""),
        known=known,
        required=required,
        checkpointable=is_checkpointable(function),
        fork=getattr(function, "fork", True) is not False,
        pickled=pickled,
    )


def _importable(function: Callable[..., Any]) -> types.ModuleType | None:
    """The module under whose name the very same function can be imported."""
    name = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not isinstance(name, str) or not isinstance(path, str) or name == "__main__":
        return None
    module = sys.modules.get(name)
    found: object = module
    for part in path.split("."):  # "<locals>" and "<lambda>" are no attributes
        found = getattr(found, part, None)
    return None if found is not function else module


def _is_loaded_by_hand(module: types.ModuleType) -> bool:
    """Whether its name, of no folder, does not tell where it is from: this process alone has it."""
    file = _file(module)
    return file is not None and not _is_installed(file)


def import_root(module: types.ModuleType) -> str | None:
    """The folder on ``sys.path`` from which a module of the user's own is imported."""
    file = _file(module)
    if file is None or _is_installed(file):
        return None
    path = file.removesuffix(".py").removesuffix("/__init__")
    spec = getattr(module, "__spec__", None)
    name = module.__name__ if spec is None else spec.name  # of ``python -m`` it is not __main__
    within = "/" + name.replace(".", "/")
    return path.removesuffix(within) or "/" if path.endswith(within) else None


def _root_by_value(function: object, pickled: bytes) -> str | None:
    """Where what a function by value imports may lie."""
    module = _module_of(function)
    file = _file(module)
    if module is not None and module.__name__ == "__main__":
        if file is not None:
            return import_root(module) or os.path.dirname(file)
        here = os.getcwd()  # a notebook: its own modules count, if it has loaded any
        own = [other for other in map(_file, list(sys.modules.values())) if other is not None]
        if any(is_within(other, here) and not _is_installed(other) for other in own):
            return here
    elif module is not None and (root := import_root(module)) is not None:
        return root
    for name, other in list(sys.modules.items()):
        root = import_root(other)
        if root is not None and _is_named(name, pickled):
            return root
    return None


def _module_of(function: object) -> types.ModuleType | None:
    return sys.modules.get(getattr(function, "__module__", None) or type(function).__module__)


def _is_named(name: str, pickled: bytes) -> bool:
    """Whether a pickle holds a name, as it does that of each module that it refers to."""
    encoded = name.encode("utf-8", "replace")
    if len(encoded) > 255:
        return False
    return pickle.SHORT_BINUNICODE + bytes([len(encoded)]) + encoded in pickled


def _file(module: object) -> str | None:
    name = getattr(module, "__dict__", {}).get("__file__")  # one that loads lazily is left asleep
    if not isinstance(name, str) or not name.endswith(".py") or not os.path.isfile(name):
        return None
    return _real(name)


@lru_cache(maxsize=4096)
def _real(file: str) -> str:
    """Where a module was loaded from, by no link: that was so then."""
    return os.path.realpath(file)


@lru_cache(maxsize=4096)  # modules: of a function by value all are asked about
def _is_installed(file: str) -> bool:
    """Whether it came with Python or was installed: then the job's Python has it, or has not."""
    return any(is_within(file, folder) for folder in _installed_folders())


@cache
def _installed_folders() -> list[str]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [site.getusersitepackages(), str(Path(__file__).parents[1])]
    return [os.path.realpath(folder) for folder in folders]


_Parameters = tuple[tuple[str, ...] | None, tuple[str, ...]]
_looked_at: WeakKeyDictionary[types.FunctionType, tuple[object, _Parameters]] = WeakKeyDictionary()


def _parameters(function: Callable[..., Any]) -> _Parameters:
    """Names that a function takes as keywords, and those that it must get."""
    if not isinstance(function, types.FunctionType) or function.__dict__:
        return _read_parameters(function)
    # Nothing but these says it, and they can be exchanged: a notebook's autoreload does that.
    said = function.__code__, len(function.__defaults__ or ()), {*(function.__kwdefaults__ or ())}
    before, parameters = _looked_at.get(function, (None, None))
    if parameters is None or said != before:
        parameters = _read_parameters(function)
        _looked_at[function] = said, parameters
    return parameters


def _read_parameters(function: Callable[..., Any]) -> _Parameters:
    if inspect.iscoroutinefunction(function):
        problem = f"{function!r} is a coroutine function, and nothing would await it"
        raise JobError("entry", problem, "Write a function that returns asyncio.run(...).")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return None, ()
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            problem = f"its parameter {parameter.name!r} cannot be given by name"
            raise JobError("entry", problem, "Parameters are keywords: remove the / before it.")
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = tuple(p.name for p in named if p.default is p.empty)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None, required
    return tuple(p.name for p in named), required


def _pickle(function: Callable[..., Any]) -> bytes:
    import cloudpickle

    module = _module_of(function)
    by_hand = module is not None and module.__name__ != "__main__" and _is_loaded_by_hand(module)
    try:
        if by_hand:
            cloudpickle.register_pickle_by_value(module)
        data: bytes = cloudpickle.dumps(function)
    except Exception as error:  # whatever a foreign type's __reduce__ does
        raise JobError(
            "entry",
            f"{function!r} cannot be imported, nor pickled: {type(error).__name__}: {error}",
            "Put it into a module, or do not let it hold what lives in this process only.",
        ) from error
    finally:
        if by_hand:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > LARGEST:
        size = units.memory_text(len(data))
        raise JobError(
            "entry",
            f"{function!r} holds {size} of data, and may have 50 MB",
            "Data that a job reads belongs into Job(inputs=...).",
        )
    return data
