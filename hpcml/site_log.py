"""What is done on a site, told to Python's logging: a record for each call, once it is over.

>>> import logging
>>> logging.basicConfig(); logging.getLogger("hpcml").setLevel("INFO")    # doctest: +SKIP

The loggers are ``hpcml.transports`` (files and commands of a site) and ``hpcml.schedulers`` (its
queue). What changes something there is told at level INFO, what only looks at level DEBUG. Paths,
sizes and commands are told, contents never.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from hpcml.schedulers import Chunk, Scheduler
    from hpcml.transports import Transport

_FILES = logging.getLogger("hpcml.transports")
_QUEUE = logging.getLogger("hpcml.schedulers")
FEW = 3  # names that are told of a longer list
Calls = Mapping[str, tuple[int, Callable[..., str]]]


def _several(names: Collection[str] | Any) -> str:
    if not isinstance(names, Collection):
        return "several"  # an iterator: it is not ours to use up
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(list(names)[:FEW]) + more


def _chunks(chunks: Sequence[Chunk]) -> str:
    return _several([chunk.name for chunk in chunks])


# By method of the contract: the level, and what is told of its arguments.
FILES: Calls = {
    "run": (logging.INFO, lambda argv, stdin=b"": shlex.join(argv)),
    "put": (logging.INFO, lambda files: _several(files)),
    "publish": (
        logging.INFO,
        lambda folder, files, empty=(), synced=(): f"{folder}: {_several(files)}",
    ),
    "get": (logging.DEBUG, lambda paths: _several(paths)),
    "list": (logging.DEBUG, lambda folder: folder),
    "names": (logging.DEBUG, lambda folder: folder),
    "names_in": (logging.DEBUG, lambda folders: _several(folders)),
    "put_once": (logging.INFO, lambda files: _several(files)),
    "put_verified": (logging.INFO, lambda files, digests, executable: _several(files)),
    "link": (logging.INFO, lambda links: _several(links)),
    "seal": (logging.INFO, lambda folder: folder),
    "walk": (logging.DEBUG, lambda paths: _several(paths)),
    "digest": (logging.INFO, lambda paths: _several(paths)),
    "append": (logging.INFO, lambda path, record: path),
    "open_private": (logging.DEBUG, lambda path: path),
    "fetch": (logging.INFO, lambda files: _several(files)),
    "remove": (logging.INFO, lambda paths: _several(paths)),
    "move": (logging.INFO, lambda source, target: f"{source} to {target}"),
    "touch": (logging.INFO, lambda paths, markers=(): _several([*paths, *markers])),
    "usage": (logging.DEBUG, lambda paths: _several(paths)),
    "holding": (logging.DEBUG, lambda alone=False: "alone" if alone else ""),
    "together": (logging.DEBUG, lambda: ""),
    "now": (logging.DEBUG, lambda: ""),
}
QUEUE: Calls = {
    "submit": (logging.INFO, lambda chunks: _chunks(chunks)),
    "find": (logging.DEBUG, lambda names: _several(names)),
    "poll": (logging.DEBUG, lambda chunks: _chunks(chunks)),
    "account": (
        logging.DEBUG,
        lambda chunk, attempts: f"{chunk.name}, {len(attempts)} runs",
    ),
    "facts": (logging.DEBUG, lambda chunks: _chunks(chunks)),
    "record": (
        logging.INFO,
        lambda chunk, index, attempt, word: f"{chunk.name}, run {index}: {word.state}",
    ),
    "cancel": (logging.INFO, lambda chunk, indices: f"{chunk.name}, {len(indices)} runs"),
}


def told_files(site: str, files: Transport) -> Transport:
    """A transport that tells what is done with it; while nobody listens, the very same."""
    return telling_files(site, files) if _FILES.isEnabledFor(logging.INFO) else files


def telling_files(site: str, files: Transport) -> Transport:
    """A transport to keep: it tells what is done with it whenever somebody listens."""
    return cast("Transport", _Telling(site, files, _FILES, FILES))


def told_queue(site: str, queue: Scheduler) -> Scheduler:
    """A scheduler that tells what is done with it; while nobody listens, the very same."""
    if not _QUEUE.isEnabledFor(logging.INFO):
        return queue
    return cast("Scheduler", _Telling(site, queue, _QUEUE, QUEUE))


class _Telling:
    """A backend, its methods wrapped where somebody listens to the level of what they do."""

    def __init__(self, site: str, backend: object, logger: logging.Logger, calls: Calls) -> None:
        self._site, self._backend, self._logger, self._calls = site, backend, logger, calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._backend, name)
        level, describe = self._calls.get(name, (logging.NOTSET, str))
        if level == logging.NOTSET or not self._logger.isEnabledFor(level):
            return method

        def told(*args: Any, **named: Any) -> Any:
            what = f"{self._site}: {name} {describe(*args, **named)}".rstrip()
            began = time.monotonic()
            try:
                result = method(*args, **named)
            except Exception as error:
                problem = getattr(error, "problem", repr(error))
                self._logger.log(level, "%s (%s): %s", what, _since(began), problem)
                raise
            self._logger.log(level, "%s (%s)", what, _since(began))
            return result

        return told


def _since(began: float) -> str:
    return f"{(time.monotonic() - began) * 1e3:.1f} ms"
