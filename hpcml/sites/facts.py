"""What facts of a profile are made of: names, amounts, times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from hpcml import units
from hpcml.documents import Checked, matching
from hpcml.errors import JobError


def _amount(parse: Callable[[Any, str], int], **schema: Any) -> Checked:
    def check(value: Any) -> None:
        if isinstance(value, list | dict):
            return  # there may be something else in its place
        try:
            parse(value, "value")
        except JobError as error:
            problem = error.problem.removeprefix("value: ")
            raise ValueError(f"{problem}: {error.advice}") from None

    return Checked(check, **schema)


def _plain(value: Any) -> None:
    """Text that a terminal shows and a script holds as it is."""
    if isinstance(value, str) and any(not letter.isprintable() for letter in value):
        raise ValueError("there are control characters in it")


def _at_least_one(value: Any) -> None:
    if isinstance(value, int) and value < 1:
        raise ValueError("a number from 1 up is expected")


Count = Annotated[int, Checked(_at_least_one, minimum=1)]
Memory = Annotated[
    str,
    _amount(units.memory, examples=["480 GiB"], format="memory", pattern=units.MEMORY_PATTERN),
]
Duration = Annotated[
    str,
    _amount(units.seconds, examples=["24h"], format="time", pattern=units.TIME_PATTERN),
]
Text = Annotated[str, Checked(_plain)]

# What stands in the directives of a batch script, and as an argument of commands.
Word = Annotated[
    str,
    matching(r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", "one word of letters, digits and _ . + -"),
]
OPTION = r"^[A-Za-z0-9_.+:,=/@&|*\[\]()%-]+$"
Option = Annotated[str, matching(OPTION, "one word of letters, digits and _ . + : , = / @ & | *")]
Variable = Annotated[
    str, matching(r"^[A-Za-z_][A-Za-z0-9_]*$", "the name of an environment variable")
]
Folder = Annotated[
    str,
    matching(r"^(/|~/|\{).*$", "a path from the root, from ~/, or from a {place} of yours"),
]
