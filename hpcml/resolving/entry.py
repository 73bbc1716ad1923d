"""What a job starts, and which folder of code goes with it."""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcml.errors import JobError, nearest
from hpcml.job import Job
from hpcml.resolving import checks
from hpcml.resolving.git import is_within, top_level

if TYPE_CHECKING:
    from hpcml.resolving.functions import Function

_MODULE = re.compile(r"-m\s+([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


@dataclass(frozen=True)
class Entry:
    """A job's entry, found.

    Attributes
    ----------
    base : str
        Absolute folder that becomes the job's current folder; ``target`` is relative to it.
    root : str or None
        Absolute folder to take a snapshot of; ``None``: no code goes along.
    import_paths : tuple of str
        Folders within it that a function's imports start from.
    """

    kind: str
    target: str | tuple[str, ...]
    base: str
    root: str | None
    interpreter: tuple[str, ...] = ()
    known_params: tuple[str, ...] | None = None
    function: Function | None = None
    known_inputs: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What people call it."""
        if self.function is not None:
            return self.function.target.rpartition(":")[2].rpartition(".")[2]
        first = self.target if isinstance(self.target, str) else self.target[0]
        base = os.path.basename(first).removesuffix(".py").removesuffix(".sh")
        return checks.CONTROL.sub(" ", base)[:200] or "job"

    @property
    def folder(self) -> str:
        """The current folder within the snapshot, ``""`` at its top."""
        if not self.root or self.base == self.root:
            return ""
        return os.path.relpath(self.base, self.root)

    def as_data(self) -> dict[str, Any]:
        """For the plan."""
        if self.function is not None:
            return {**self.function.as_data(), "path": list(self.import_paths)}
        target = self.target if isinstance(self.target, str) else list(self.target)
        data: dict[str, Any] = {"kind": self.kind, "target": target}
        if self.kind == "shell":
            data["interpreter"] = list(self.interpreter)
        return data


def find_entry(job: Job) -> Entry:
    """See what kind of entry it is, and find its files.

    Raises
    ------
    JobError
        It is none that hpcml knows, or its file is missing.
    """
    explicit = None if job.code in ("auto", None) else str(job.code)
    base = _base(explicit)
    if callable(job.entry):
        return _function(job.entry, base, explicit, alone=job.code is None)
    if not isinstance(job.entry, str | os.PathLike):
        command = tuple(checks.texts("entry", job.entry))
        if not command or not command[0]:
            raise JobError("entry", "the command is empty", 'Write it like ["./program", "-v"].')
        root = _top(base, explicit)
        if root is None and any(_is_own(base, word) for word in command):
            root = base
        return _finish(job, Entry("command", command, base, root))
    text = checks.text("entry", job.entry)
    module = _MODULE.fullmatch(text)
    if module:
        return _finish(job, _module(module.group(1), Path(base), explicit))
    if text.endswith((".py", ".sh", ".bash")):
        return _finish(job, _script(text, Path(base), explicit))
    raise JobError(
        "entry",
        f"{text!r} is no script (*.py, *.sh) and no module",
        'Write "train.py", "run.sh", "-m package.module", or a command as a list: '
        '["program", "argument"].',
    )


def _function(
    function: Callable[..., Any], base: str, explicit: str | None, *, alone: bool
) -> Entry:
    """A function with the code that it is imported from, or ``alone``."""
    from hpcml.resolving.functions import find_function  # it loads much, which scripts do not need

    found = find_function(function)
    if alone:
        return _called(found, base, None, ())
    start, root, here = found.root, base if explicit else None, base
    if root is None and start is not None:
        root = top_level(start) or start
    if root is None:
        return _called(found, here, None, ())
    if start is not None and not is_within(start, root):
        problem = f"{found.target} is imported from {start}, not from the folder that code names"
        raise JobError("code", problem, 'Give a folder that holds it, or leave code="auto".')
    if not is_within(here, root):
        here = root
    paths = [start] if start else []
    if found.pickled is not None:  # what it imports may come from anywhere in there
        paths += [path for path in sys.path if os.path.isabs(path) and _is_source(path, root)]
    relative = tuple(dict.fromkeys(os.path.relpath(path, root) for path in paths))
    return _called(found, here, root, relative)


def _called(found: Function, base: str, root: str | None, paths: tuple[str, ...]) -> Entry:
    return Entry(
        "function",
        found.target,
        base,
        root,
        known_params=found.known,
        known_inputs=found.known or (),
        function=found,
        import_paths=paths,
    )


def _is_source(path: str, root: str) -> bool:
    """Whether a folder of ``sys.path`` is within the code, and no environment's own."""
    return is_within(path, root) and "site-packages" not in path and os.path.isdir(path)


def _base(explicit: str | None) -> str:
    try:
        if not explicit:  # the kernel knows it without links, and that it is there
            return checks.text("code", os.getcwd())
        base = os.path.realpath(os.path.expanduser(checks.text("code", explicit)))
        there = Path(base).is_dir()  # which tells why it cannot be looked at
    except OSError as error:
        where = explicit or "the current folder"
        raise JobError(
            "code", f"{where} cannot be used: {error.strerror}", "Give another folder."
        ) from error
    if not there:
        raise JobError("code", f"{base} is not a folder", "Give the folder with the job's code.")
    return checks.text("code", base)


def _finish(job: Job, entry: Entry) -> Entry:
    return replace(entry, root=None) if job.code is None and entry.root else entry


def _script(text: str, base: Path, explicit: str | None) -> Entry:
    # Links to folders are followed, as git does; a link to a script is a file of its own.
    path = base / text
    path = path.parent.resolve() / path.name
    if not _is_file(path):
        there = [entry.name for entry in path.parent.glob(f"*{path.suffix}")]
        raise JobError("entry", f"there is no file {path}", nearest(path.name, there))
    root = top_level(str(path.parent))
    if explicit:
        root = str(base)
    elif root is None or not base.is_relative_to(root):
        base = path.parent
        root = root or str(base)
    if not path.is_relative_to(base):
        if explicit:
            problem = f"{path} is not in the folder {base} that code names"
            raise JobError("entry", problem, "Give a script within it, or another folder.")
        base = path.parent
    target = str(path.relative_to(base))
    if path.name.endswith(".py"):  # a file called ".py" has no suffix, but is one
        params, inputs = known_names(path)
        return Entry("script", target, str(base), root, known_params=params, known_inputs=inputs)
    return Entry("shell", target, str(base), root, interpreter=_interpreter(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _module(name: str, base: Path, explicit: str | None) -> Entry:
    place = base.joinpath(*name.split("."))
    candidates = (place.with_suffix(".py"), place / "__main__.py")
    source = next((path for path in candidates if path.is_file()), None)
    root = _top(str(base), explicit)
    if root is None and source is not None:
        root = str(base)
    params, inputs = known_names(source) if source else (None, ())
    return Entry("module", name, str(base), root, known_params=params, known_inputs=inputs)


def _top(base: str, explicit: str | None) -> str | None:
    return base if explicit else top_level(base)


def _is_own(base: str, word: str) -> bool:
    """Whether a word of a command names a file of the folder it is submitted from."""
    try:
        return bool(word) and not os.path.isabs(word) and _is_file(Path(base, word))
    except (OSError, ValueError):
        return False


def _interpreter(path: Path) -> tuple[str, ...]:
    """What the script's first line asks for, ``/bin/sh`` if it asks for nothing."""
    with path.open("rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!"):
        return ("/bin/sh",)
    words = checks.text("entry", os.fsdecode(first[2:].strip())).split(maxsplit=1)
    return tuple(words) or ("/bin/sh",)


def known_names(path: Path) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Parameters and inputs that a file asks hpcml for. It is read, never run.

    Returns
    -------
    params : tuple of str or None
        Names that its only ``hpcml.params(...)`` call knows; ``None`` if it cannot be told.
    inputs : tuple of str
        First arguments of its ``hpcml.input_path(...)`` calls, as far as they are plain text.
    """
    try:
        with warnings.catch_warnings():  # what is wrong with its escapes, the run will tell
            warnings.simplefilter("ignore")
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, ()  # another Python's, or broken: the run will tell
    inputs = [
        call.args[0].value
        for call in _calls(nodes, "input_path")
        if call.args and isinstance(call.args[0], ast.Constant)
    ]
    params = [[keyword.arg for keyword in call.keywords] for call in _calls(nodes, "params")]
    names = params[0] if len(params) == 1 else []
    known = tuple(name for name in names if name)
    return (
        known if known and len(known) == len(names) else None,
        tuple(name for name in inputs if isinstance(name, str)),
    )


def _calls(nodes: Iterable[ast.AST], name: str) -> list[ast.Call]:
    """Calls of one of hpcml's functions, ``hpcml.name(...)`` or, imported, ``name(...)``."""
    nodes = list(nodes)
    direct = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "hpcml"
        and any(alias.name == name and alias.asname is None for alias in node.names)
        for node in nodes
    )
    return [n for n in nodes if isinstance(n, ast.Call) and _is_ours(n.func, name, direct)]


def _is_ours(function: ast.expr, name: str, direct: bool) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr == name and function.value.id == "hpcml"
    return direct and isinstance(function, ast.Name) and function.id == name
