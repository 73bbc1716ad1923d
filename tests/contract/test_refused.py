"""What a queue that refuses a part of a batch says of the other parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import hpcml
from hpcml import plugins
from hpcml.agent import wire
from hpcml.batch import outbox_ids
from hpcml.connection import connect
from hpcml.errors import RefusedError
from hpcml.schedulers import Chunk
from tests.contract.pretend import PretendScheduler

PROFILE = """
name: near
scheduler: slurm
transport: local
workspace: {workspace}
max_array: 2
partitions:
  all: {{nodes: 2, time: 1h, node: {{cpus: 4, memory: 8 GiB}}, node_sharing: shared}}
"""


@pytest.fixture
def near(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A site that takes two runs a call."""
    monkeypatch.setitem(
        plugins.BUILT_IN, "hpcml.schedulers", {"slurm": "tests.contract.pretend:PretendScheduler"}
    )
    sites = home / "config" / "hpcml" / "sites"
    sites.mkdir(parents=True)
    (sites / "near.yaml").write_text(PROFILE.format(workspace=tmp_path / "ws"))
    return "near"


def test_a_part_that_the_queue_lost_and_then_refuses_says_nothing_of_those_that_it_has(
    near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = hpcml.submit(hpcml.Job(["true"], code=None).sweep(x=range(5)), near)
    first, second, third = (f"{runs[0].id.rpartition('.')[0]}.{k}" for k in range(3))

    def refuses(self: PretendScheduler, chunks: Sequence[Chunk]) -> list[str]:
        raise RefusedError("no such account", "Ask for one.")

    monkeypatch.setattr(PretendScheduler, "submit", refuses)
    monkeypatch.setattr(PretendScheduler, "find", lambda *_: {second: second, third: third})
    with pytest.raises(RefusedError, match=r"2 of 5 runs, .* for the 3 others"):
        runs[0].resume()

    path = wire.words_file(f"runs/{first.rpartition('.')[0]}")
    spoken = wire.parse_lines(connect(near).files.get({path: 0})[path])
    assert {*wire.first_words(spoken)} == {(0, 1), (1, 1)}


def test_what_is_refused_at_once_leaves_nothing_here(
    near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: PretendScheduler, chunks: Sequence[Chunk]) -> list[str]:
        raise RefusedError("no such account", "Ask for one.")

    monkeypatch.setattr(PretendScheduler, "submit", refuses)
    with pytest.raises(RefusedError, match="5 of 5 runs"):
        hpcml.submit(hpcml.Job(["true"], code=None).sweep(x=range(5)), near)

    assert outbox_ids() == []
