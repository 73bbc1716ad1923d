"""What these tests share with those of the records."""

from tests.records.conftest import postgres, team

__all__ = ["postgres", "team"]
