"""How an attempt ended: every end file against every word of the scheduler.

The expected values are written out by hand; nothing here computes them.
"""

from __future__ import annotations

from typing import Any

import pytest

from hpcml.agent.wire import WORD_PATIENCE, how_it_ended
from hpcml.states import State


def end(
    exit_code: int | None = None,
    signal: int | None = None,
    received: tuple[int, ...] = (),
    cause: str | None = None,
    reason: str | None = None,
    aborted: str | None = None,
) -> dict[str, Any]:
    """The part of an ``.end`` file that is judged."""
    return {
        "exit_code": exit_code,
        "signal": signal,
        "received": list(received),
        "cause": cause,
        "reason": reason,
        **({"aborted": aborted} if aborted else {}),
    }


ENDS: dict[str, dict[str, Any] | None] = {
    "no end": None,
    "exit 0": end(0),
    "exit 3": end(3),
    "exit 137": end(137),
    "exit 143": end(143),
    "killed 9": end(None, 9),
    "killed 11": end(None, 11),
    "killed 15": end(None, 15),
    "killed 64": end(None, 64),
    "got 15, exit 0": end(0, received=(15,)),
    "got 15, exit 143": end(143, received=(15,)),
    "got 15, killed 15": end(None, 15, (15,)),
    "got 2 and 15, exit 1": end(1, received=(2, 15)),
    "aborted, exit 1": end(1, aborted="Node failure on n2"),
    "memory, aborted": end(1, cause="OUT_OF_MEMORY", reason="rank killed", aborted="DUE TO X"),
    "walltime, killed": end(None, 15, cause="TIMEOUT", reason="walltime of 60 s is over"),
    "walltime, exit 0": end(0, cause="TIMEOUT", reason="walltime of 60 s is over"),
    "memory": end(None, 9, cause="OUT_OF_MEMORY", reason="held 3 GiB"),
    "memory, got 15": end(None, 9, (15,), cause="OUT_OF_MEMORY", reason="held 3 GiB"),
    "no output": end(0, cause="FAILED", reason="left no output 'm.pt'"),
    "refused": end(cause="CANCELLED", reason="cancelled before it started"),
}

WORDS = (
    "early",  # none, and the end was less than 60 s ago
    "late",  # none, and the end was 60 s ago or more
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "NODE_FAIL",
)

# One row an end file, one column a word, in the order of WORDS. "—": the word is still awaited.
TABLE = """
no end               | UNKNOWN UNKNOWN FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
exit 0               | COMPLETED COMPLETED COMPLETED COMPLETED COMPLETED COMPLETED COMPLETED COMPLETED COMPLETED
exit 3               | FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED
exit 137             | FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED
exit 143             | FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED
killed 9             | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
killed 11            | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
killed 15            | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
killed 64            | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
got 15, exit 0       | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
got 15, exit 143     | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
got 15, killed 15    | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
got 2 and 15, exit 1 | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
aborted, exit 1      | — FAILED FAILED FAILED CANCELLED TIMEOUT OUT_OF_MEMORY PREEMPTED NODE_FAIL
memory, aborted      | OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY
walltime, killed     | TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT
walltime, exit 0     | TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT TIMEOUT
memory               | OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY
memory, got 15       | OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY OUT_OF_MEMORY
no output            | FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED FAILED
refused              | CANCELLED CANCELLED CANCELLED CANCELLED CANCELLED CANCELLED CANCELLED CANCELLED CANCELLED
"""  # noqa: E501

ROWS = [
    pytest.param(ended, word, expected, id=f"{ended}-{word}")
    for ended, cells in (map(str.strip, row.split("|")) for row in TABLE.strip().splitlines())
    for word, expected in zip(WORDS, cells.split(), strict=True)
]


def judge(ended: str, word: str) -> tuple[str, str] | None:
    said = None if word in ("early", "late") else {"state": word, "reason": f"so says {word}"}
    return how_it_ended(ENDS[ended], said, {"early": 59.9, "late": 60.0}.get(word, 0.0))


def test_the_table_has_a_row_for_each_end_file_and_a_column_for_each_word() -> None:
    assert len(ROWS) == len(ENDS) * len(WORDS)
    finals = {state for state in State.__members__.values() if state.final}
    assert set(WORDS) - {"early", "late"} == finals
    assert WORD_PATIENCE == 60.0


@pytest.mark.parametrize("ended, word, expected", ROWS)
def test_an_attempt_ended_as_the_table_says(ended: str, word: str, expected: str) -> None:
    judged = judge(ended, word)

    if expected == "—":
        assert judged is None
    else:
        assert judged is not None and judged[0] == expected
        assert State(judged[0]).final is (expected != "UNKNOWN")


REASONS = {
    ("exit 0", "CANCELLED"): "",
    ("exit 3", "late"): "exit code 3",
    ("exit 143", "CANCELLED"): "exit code 143",
    ("killed 9", "late"): "killed by signal 9 (SIGKILL)",
    ("killed 9", "COMPLETED"): "killed by signal 9 (SIGKILL)",
    ("killed 9", "CANCELLED"): "so says CANCELLED",
    ("killed 64", "late"): "killed by signal 64 (SIGRTMAX)",
    ("got 15, exit 0", "late"): "ended on signal 15 (SIGTERM), exit code 0",
    ("got 15, exit 143", "FAILED"): "ended on signal 15 (SIGTERM), exit code 143",
    ("got 15, killed 15", "late"): "killed by signal 15 (SIGTERM)",
    ("got 2 and 15, exit 1", "late"): "ended on signal 2 (SIGINT), 15 (SIGTERM), exit code 1",
    ("aborted, exit 1", "late"): "exit code 1: Node failure on n2",
    ("aborted, exit 1", "NODE_FAIL"): "so says NODE_FAIL",
    ("walltime, killed", "CANCELLED"): "walltime of 60 s is over",
    ("memory", "late"): "held 3 GiB",
    ("no output", "early"): "left no output 'm.pt'",
    ("refused", "NODE_FAIL"): "cancelled before it started",
    ("no end", "late"): "neither the agent nor the scheduler says how it ended",
    ("no end", "NODE_FAIL"): "so says NODE_FAIL",
    ("no end", "COMPLETED"): (
        "the scheduler says COMPLETED, but the agent left no word of its end"
    ),
}


@pytest.mark.parametrize("ended, word", REASONS)
def test_the_reason_says_who_or_what_ended_it(ended: str, word: str) -> None:
    judged = judge(ended, word)

    assert judged is not None and judged[1] == REASONS[ended, word]


@pytest.mark.parametrize(
    "ended", [name for name in ENDS if name.startswith(("killed", "got", "aborted"))]
)
def test_the_schedulers_word_on_a_signal_is_awaited_for_sixty_seconds(ended: str) -> None:
    assert how_it_ended(ENDS[ended], None, 0.0) is None
    assert how_it_ended(ENDS[ended], None, 59.999) is None
    assert how_it_ended(ENDS[ended], None, 60.0) is not None
    assert how_it_ended(ENDS[ended], None, -3600.0) is None, "the clock was set back"
