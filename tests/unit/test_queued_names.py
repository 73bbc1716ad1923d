"""Under which id a queue has a chunk: the name of a file says it."""

from __future__ import annotations

import pytest

from hpcml.agent import wire


@pytest.mark.parametrize("identifier", ["5", "a/b.c%d", "https://site:8080/rest/jobs/0f-1", "é"])
def test_the_id_under_which_a_queue_has_a_chunk_is_the_name_of_a_file(identifier: str) -> None:
    name = wire.queued_name("3", identifier, 1795351872.9)

    assert "/" not in name and name.isascii()
    others = ["3.intent", "0.out", "12.1.start", "4.queued.soon.5", "4.queued.²³.5", "4.queued.1."]
    assert wire.queued_as([name, *others]) == {"3": (identifier, 1795351872.9)}


def test_of_a_chunk_that_was_queued_again_the_last_id_counts() -> None:
    names = [wire.queued_name("0", one, float(n)) for n, one in enumerate(["7", "9", "8"])]

    assert wire.queued_as(names)["0"] == ("8", 2.0)
    assert wire.queued_as(reversed(names))["0"] == ("8", 2.0)
