"""YAML documents checked by pydantic models, with errors that name file, line, column and key."""

from hpcml.documents.checking import check_model, json_schema, wrong_in
from hpcml.documents.editing import check_takes, with_values
from hpcml.documents.facts import Checked, OneWord, changed, fact, facts, matching
from hpcml.documents.parsing import Mark, Marks, Place, parse, raise_first, wrong_at
from hpcml.documents.reading import read_text

__all__ = [
    "Checked",
    "Mark",
    "Marks",
    "OneWord",
    "Place",
    "changed",
    "check_model",
    "check_takes",
    "fact",
    "facts",
    "json_schema",
    "matching",
    "parse",
    "raise_first",
    "read_text",
    "with_values",
    "wrong_at",
    "wrong_in",
]
