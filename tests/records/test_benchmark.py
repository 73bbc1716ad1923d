"""The benchmark of the records still measures them."""

from __future__ import annotations

from benchmarks.records import FILLING, _run


def test_the_benchmark_of_the_records_runs() -> None:
    found = _run(FILLING, "1000")
    assert found is not None and found.keys() == {"top", "lineage", "ingest"}
    assert all(seconds > 0 for seconds in found.values())
