"""From a file to its text, whatever the file is."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path

from hpcml.errors import ProfileError

LARGEST = 1 << 20  # bytes
# Controls of terminals, of the direction of writing, and what is not seen at all: what stands in a
# file would not be what one reads there.
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def read_text(path: Traversable) -> str:
    """What stands in a file.

    Raises
    ------
    ProfileError
        It cannot be read, is no file, is larger than 1 MiB, no UTF-8, or has characters in it that
        nobody sees.
    """
    try:
        data = _read(path) if isinstance(path, Path) else path.read_bytes()
        return _text(data)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except _HiddenError as error:
        where = "{}, line {}, column {}".format(path, *_position(error.text, error.at))
        problem = f"{where}: {name_of(error.text[error.at])} stands there"
        advice = "Remove it: it is not seen, or changes what is seen."
        raise ProfileError(problem, advice) from None
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start].decode(), error.start)
        where = f"{path}, line {line}, column {column}"
        problem = f"{where}: it cannot be read: byte {data[error.start]:#04x} is no UTF-8"
        raise ProfileError(problem, "Save the file as UTF-8.") from None


class _HiddenError(Exception):
    def __init__(self, text: str, at: int) -> None:
        super().__init__(text, at)
        self.text, self.at = text, at


@lru_cache(maxsize=64)  # each submission reads its site's profile again
def _text(data: bytes) -> str:
    text = data.decode("utf-8-sig")
    found = HIDDEN.search(text)
    if found is not None:
        raise _HiddenError(text, found.start())
    return text.replace("\r\n", "\n").replace("\r", "\n")


def name_of(letter: str) -> str:
    """How Unicode calls a character."""
    return f"U+{ord(letter):04X} ({unicodedata.name(letter, 'a control character').lower()})"


def _read(path: Path) -> bytes:
    # A FIFO that nobody writes to would never open, and a terminal's device become ours.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "it is no file")
        data = piece = os.read(handle, LARGEST + 1)
        while piece and len(data) < min(status.st_size, LARGEST + 1):
            piece = os.read(handle, LARGEST + 1)
            data += piece
    finally:
        os.close(handle)
    if len(data) > LARGEST:
        raise _unreadable(path, f"it is larger than {LARGEST >> 20} MiB")
    return data


def _unreadable(path: Traversable, why: str) -> ProfileError:
    return ProfileError(f"{path} cannot be read: {why}", "Mend or move the file.")


def _position(text: str, at: int) -> tuple[int, int]:
    """Line and column, both from 1."""
    before = text[:at]
    return before.count("\n") + 1, len(before) - before.rfind("\n")
