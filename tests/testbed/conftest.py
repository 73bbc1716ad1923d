"""The boxes that the tests share. They are up in seconds; what breaks one repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.testbed.box import Box, this_python
from tests.testbed.machine import CannotHaveBox

UNFRIENDLY = {
    "max_submit_jobs": 20,
    "max_array_size": 101,
    "min_job_age": 4,  # seconds
    "account_required": True,
    "mem_forbidden": True,
    "login_shell": "/bin/csh",
    "chatty": True,
    "home_inodes": 1000,
}
"""The limits of real sites, all of them."""


def brought_up(**settings: Any) -> Iterator[Box]:
    """A box; where none can be had the test fails, and says what was left out and why."""
    box = Box(**settings)
    try:
        box.up()
    except CannotHaveBox as problem:
        pytest.fail(str(problem), pytrace=False)
    try:
        yield box
    finally:
        box.down()


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """A friendly one, in which hpcml is installed."""
    yield from brought_up(binds=this_python())


@pytest.fixture(scope="session")
def unfriendly_box() -> Iterator[Box]:
    """One with all limits that real sites have."""
    yield from brought_up(**UNFRIENDLY)


@pytest.fixture(scope="session")
def box_without_accounting() -> Iterator[Box]:
    """One without slurmdbd, where bash is chatty."""
    yield from brought_up(slurmdbd=False, chatty=True)
