"""How often a site is looked at while somebody waits: by a clock and a chance that are given."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcml import poller as pollers
from hpcml.connection import connect
from hpcml.poller import Poller, Watch

FIRST, LONGEST = 1.0, 30.0
Pauses = list[float]


class Clock(threading.Condition):
    """Nobody waits by it: the pauses that would have been made are written down, in s."""

    def __init__(self, meanwhile: Callable[[Pauses], object]) -> None:
        super().__init__()
        self.pauses: Pauses = []
        self.meanwhile = meanwhile

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        self.meanwhile(self.pauses)
        return bool(predicate())


class Waiting(Watch[int]):
    """For runs of which nothing is ever seen."""

    def __init__(self, looking: Poller) -> None:
        super().__init__()
        self.looking = looking
        self.submit()

    def submit(self) -> None:
        """Wait for one more."""
        view: Any = type("Batch", (), {"connection": self.looking.connection})()
        view.seen, view.ended, view.removed, view.lock = {}, [], False, threading.Lock()
        self.add(view, 0, 0)

    def give_up(self) -> None:
        for view in self.views:
            self.discard(view, 0, 0)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Poller:
    """A poller of a site that is as patient as Slurm's."""
    monkeypatch.setattr(pollers, "look", lambda views: None)
    monkeypatch.setattr(random, "uniform", lambda least, most: (least + most) / 2)
    connection: Any = SimpleNamespace(queue=SimpleNamespace(poll_interval=(FIRST, LONGEST)))
    return Poller(connection)


def pauses(
    looking: Poller,
    over: Callable[[Pauses], bool],
    meanwhile: Callable[[Waiting, Pauses], object] = lambda waiting, made: None,
) -> Pauses:
    """Wait until it is over; the pauses that were made between the looks."""
    waiting = Waiting(looking)

    def pass_by(made: Pauses) -> None:
        meanwhile(waiting, made)
        if over(made):
            waiting.give_up()

    looking._changed = clock = Clock(pass_by)
    with looking.telling(waiting):
        looking._run()
    return clock.pauses


def grown(count: int) -> Any:
    """The pauses of one who waits undisturbed."""
    return pytest.approx([min(LONGEST, 1.15**number) for number in range(count)], rel=1e-3)


def test_the_longer_one_waits_the_more_rarely_is_looked_and_every_30_s_at_last(
    looking: Poller,
) -> None:
    made = pauses(looking, lambda made: len(made) == 40)

    assert made == grown(40)
    assert (made[0], made[-1]) == (FIRST, LONGEST)


def test_chance_makes_pauses_a_fifth_longer_or_shorter_and_does_not_add_up(
    looking: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who have begun at once do not ask at once for ever."""
    for share in (0.8, 1.2):
        bound = (lambda least, most: least) if share < 1 else (lambda least, most: most)
        monkeypatch.setattr(random, "uniform", bound)
        looking._interval = 0.0
        made = pauses(looking, lambda made: len(made) == 10)
        assert [one / share for one in made] == grown(10)


def test_what_is_submitted_while_somebody_waits_does_not_begin_the_pauses_anew(
    looking: Poller,
) -> None:
    made = pauses(looking, lambda made: len(made) == 20, lambda waiting, made: waiting.submit())

    assert made == grown(20)


def test_who_submits_and_waits_again_and_again_does_not_begin_the_pauses_anew(
    looking: Poller,
) -> None:
    """Of runs of a minute each is looked at some five times, instead of some sixteen."""
    looks = [len(pauses(looking, lambda made: sum(made) >= 60)) for _ in range(10)]

    assert looks[0] == 17
    assert set(looks[5:]) <= {4, 5, 6}


def test_changed_settings_hold_for_who_waits_as_for_who_submits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pollers.poller("local")
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"sites: {{local: {{workspace: {home}/elsewhere}}}}\n")
    connect("local", reload=True)
    after = pollers.poller("local")
    assert after.connection.binding.workspace == f"{home}/elsewhere"
    assert after.connection is connect("local") is not before.connection

    # What a job gets of this process's environment has nothing to do with looking.
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    assert connect("local", reload=True) is not after.connection
    assert pollers.poller("local") is after
