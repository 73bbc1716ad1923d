"""The output of a run as a path, and as the input of the next job before it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PosixPath

from hpcml.errors import RunStateError


@dataclass(frozen=True)
class Origin:
    """Which run makes an output, and under which name.

    Attributes
    ----------
    run, site : str
        The run's id, and where it is.
    digest : str
        The run's digest: what the output will be is known before it is there.
    output : str
        As the job declares it.
    """

    run: str
    site: str
    digest: str
    output: str


class OutputPath(PosixPath):
    """Path of a run's output, whether it is there yet or not.

    As an input of another job it makes that job run after this one. Opening it, or giving it to
    what opens it, while the run has not left it raises
    :class:`~hpcml.errors.RunStateError`.
    """

    origin: Origin | None = None
    _check: Callable[[], object] | None = None

    @classmethod
    def of(cls, path: str, origin: Origin, check: Callable[[], object]) -> OutputPath:
        """The path of an output; ``check()`` raises while the run has not left it."""
        made = cls(path)
        made.origin, made._check = origin, check
        return made

    def __fspath__(self) -> str:
        if self._check is not None:
            self._check()
        return str(self)

    # The options are those of the Python that runs this: follow_symlinks came bit by bit.

    def exists(self, **options: bool) -> bool:
        """Whether the run has left it (and nobody has removed it since)."""
        return self._is_left() and super().exists(**options)

    def is_file(self, **options: bool) -> bool:
        """Whether the run has left it, and it is a file."""
        return self._is_left() and super().is_file(**options)

    def is_dir(self, **options: bool) -> bool:
        """Whether the run has left it, and it is a folder."""
        return self._is_left() and super().is_dir(**options)

    def _is_left(self) -> bool:
        try:
            self.__fspath__()
        except RunStateError:
            return False
        return True

    def __reduce__(self) -> tuple[object, ...]:
        return PosixPath, (str(self),)
