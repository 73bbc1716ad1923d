"""Boxes with hpcml on their login nodes; a home of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.site import Login
from tests.testbed.box import Box, this_python
from tests.testbed.conftest import UNFRIENDLY, brought_up


@pytest.fixture(scope="session")
def friendly() -> Iterator[Box]:
    """A cluster with accounting."""
    yield from brought_up(binds=this_python())


@pytest.fixture(scope="session")
def unaccounted() -> Iterator[Box]:
    """A cluster without accounting."""
    yield from brought_up(binds=this_python(), slurmdbd=False)


@pytest.fixture(scope="session")
def forgetful() -> Iterator[Box]:
    """A cluster without accounting, whose controller soon forgets what has ended."""
    yield from brought_up(binds=this_python(), slurmdbd=False, min_job_age=4)


@pytest.fixture(scope="session")
def confining() -> Iterator[Box]:
    """A cluster whose kernel keeps jobs within their memory."""
    yield from brought_up(binds=this_python(), memory_enforced=True)


@pytest.fixture(scope="session")
def confining_without_accounting() -> Iterator[Box]:
    """The same without accounting."""
    yield from brought_up(binds=this_python(), memory_enforced=True, slurmdbd=False)


@pytest.fixture(scope="session")
def strict() -> Iterator[Box]:
    """A cluster with the limits of real ones."""
    yield from brought_up(
        binds=this_python(),
        max_submit_jobs=20,
        max_array_size=11,
        min_job_age=4,
        account_required=True,
        mem_forbidden=True,
    )


@pytest.fixture(scope="session")
def unfriendly() -> Iterator[Box]:
    """A cluster that nobody has made for us."""
    yield from brought_up(binds=this_python(), **UNFRIENDLY)


def emptied(box: Box) -> None:
    """Nothing of a test may be in the way of the next."""
    box.run("login", ["scancel", "--me"], check=False)


@pytest.fixture
def login(friendly: Box) -> Iterator[Login]:
    yield Login(friendly)
    emptied(friendly)


@pytest.fixture
def login_without_accounting(unaccounted: Box) -> Iterator[Login]:
    yield Login(unaccounted)
    emptied(unaccounted)


@pytest.fixture
def forgetful_login(forgetful: Box) -> Iterator[Login]:
    yield Login(forgetful)
    emptied(forgetful)


@pytest.fixture(params=["with accounting", "without accounting"])
def either(request: pytest.FixtureRequest) -> Login:
    """A login node of each kind, one after the other."""
    names = {"with accounting": "login", "without accounting": "login_without_accounting"}
    found: Login = request.getfixturevalue(names[request.param])
    return found


@pytest.fixture(params=[True, False], ids=["with accounting", "without accounting"])
def confined(request: pytest.FixtureRequest) -> Iterator[Login]:
    """A login node of each kind, where the kernel keeps jobs within their memory."""
    names = {True: "confining", False: "confining_without_accounting"}
    box: Box = request.getfixturevalue(names[request.param])
    yield Login(box)
    emptied(box)


@pytest.fixture
def strict_login(strict: Box) -> Iterator[Login]:
    facts = "max_array: 10\nmax_submitted: 20\naccount_required: true"
    yield Login(strict, facts=facts, partition="memory_option: never", account="climate")
    emptied(strict)
