"""What facts of a profile are made of: names, amounts, times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hpcml import units
from hpcml.errors import JobError


class Facts(BaseModel):
    """A part of a profile. An unknown key is an error, and nothing is changed once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def with_those_of(self, above: Self) -> Self:
        """These facts, and in their place what another says, be it that something is unknown."""
        return self.model_copy(update={key: getattr(above, key) for key in above.model_fields_set})


def _checked(parse: Callable[[str, str], int]) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parse(value, "value")
        except JobError as error:
            problem = error.problem.removeprefix("value: ")
            raise ValueError(f"{problem}: {error.advice}") from None
        return value

    return AfterValidator(check)


def _plain(value: str) -> str:
    """Text that a terminal shows and a script holds as it is."""
    if any(not letter.isprintable() for letter in value):
        raise ValueError("there are control characters in it")
    return value


def or_text(schema: dict[str, Any]) -> None:
    """Tell a JSON schema that a mapping may be said by one word instead."""
    mapping = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}
    schema["anyOf"] = [mapping, {"type": "string"}]


Memory = Annotated[
    str,
    _checked(units.memory),
    Field(examples=["480 GiB"], json_schema_extra={"format": "memory"}),
]
Duration = Annotated[
    str,
    _checked(units.seconds),
    Field(examples=["24h"], json_schema_extra={"format": "time"}),
]
Text = Annotated[str, AfterValidator(_plain)]

# What stands in the directives of a batch script, and as an argument of commands.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
OPTION = r"^[A-Za-z0-9_.+:,=/@&|*\[\]()%-]+$"
Option = Annotated[str, Field(pattern=OPTION)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Folder = Annotated[
    str,
    Field(pattern=r"^(/|~/|\{)", description="A path from the root, ~/, or a {place} of yours."),
]
