"""Records say what the sites' files say, all of it, and once."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcml
from hpcml import records
from hpcml.batch_view import BatchView
from hpcml.errors import ArgumentError, RecordsError, UnknownNameError
from hpcml.transports.local import LocalTransport
from tests.byhand import ByHand
from tests.records.telling import NOW, ended, events, lines_of, log

HOSTILE = [
    "a\x00b",
    "\x1b[31mred\x07",
    "x'; DROP TABLE runs; --",
    "<script>alert(1)</script>&amp;",
    "\u202egnp.exe",
    "half \ud800 of a pair",
    "\x1a0000 like an escape",
    "back\\slash\\u0000",
    "long " * 2000,
    "",
    "100%s %(name)s :name {name}",
]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Each test once with a file, once with a server."""
    if request.param == "postgresql":
        request.getfixturevalue("team")
    return str(request.param)


def the_one(**filters: Any) -> Any:
    (found,) = records.find(**filters)
    return found


# --- real runs --------------------------------------------------------------------------------


def test_what_real_runs_were_made_of_and_told_is_on_record(
    script: Callable[..., str], project: Path
) -> None:
    train = script(
        """
        import hpcml
        p = hpcml.params(width=1, seed=0)
        hpcml.describe(model="conv", global_batch=8)
        with hpcml.phase("train"):
            for step in range(3):
                hpcml.log(step=step, samples=10, loss=p["width"] / (step + 1))
        open("model.pt", "w").write(str(p))
        """
    )
    (project / "data.csv").write_text("1,2\n")
    resources = hpcml.Resources(time="5m")
    job = hpcml.Job(
        train, params={"width": 64}, tags={"paper": "1"}, inputs={"data": "data.csv"},
        outputs=["model.pt"], resources=resources,
    )  # fmt: skip
    runs = hpcml.submit(job.sweep(seed=[0, 1]))
    script("import hpcml, sys; sys.exit(len(open(hpcml.input_path('model')).read()) == 0)", "s.py")
    score = hpcml.submit(hpcml.Job("s.py", inputs={"model": runs[1].output("model.pt")}))
    runs.wait(60)
    score.wait(60)

    assert hpcml.sync() == 3
    first, second = records.find(tags={"paper": "1"})
    run = runs[0]
    assert (first.id, first.site, first.state, first.final) == (run.id, "local", "COMPLETED", True)
    assert (first.name, first.params) == (run.name, {"width": 64, "seed": 0})
    assert (first.digest, first.job_digest) == (run.digest, run.plan.job_digest)
    assert (first.plan_digest, first.what) == (run.plan.digest, run.plan.what)
    assert first.metrics["loss"].last == run.metrics["loss"] == 64 / 3
    assert (first.metrics["loss"].points, first.metrics["loss"].highest) == (3, 64)
    assert records.history(run.id, "loss") == run.history("loss")
    assert first.described == {"model": "conv", "global_batch": 8}
    assert first.phases["train"].seconds == run.timeline.phases["train"]
    assert first.phases["train"].samples == 30
    (attempt,) = first.attempts
    assert attempt.exit_code == 0 and attempt.host["cores"] == run.host["cores"]
    figures = {figure.name: (figure.value, figure.source) for figure in first.figures}
    assert figures["cpu_user"] == (run.usage["cpu_user"], "agent")
    assert figures["command"] == (run.timeline.command, "events")
    assert figures["queue"] == (run.timeline.queue, "queue and events")
    assert first.used["data"].checked and first.used["data"].origin is None
    assert (
        first.generated["model.pt"].digest == run.attempts[-1].end["outputs"]["model.pt"]["sha256"]
    )

    (link, outside) = records.lineage(score.id)
    assert (link.made_by, link.output, link.input) == (second.id, "model.pt", "model")
    assert link.said and link.hop == 1
    assert (outside.made_by, outside.used_by, outside.hop) == (None, second.id, 2)
    assert records.lineage(second.id, down=True) == [link]
    assert hpcml.sync() == 0


def test_runs_that_end_badly_or_never_start_are_on_record_as_well(
    script: Callable[..., str],
) -> None:
    failing = hpcml.submit(hpcml.Job(script("import sys; sys.exit(3)")))
    after = hpcml.submit(hpcml.Job(["true"], code=None), after=[failing])
    hpcml.Runs([failing, after]).wait(60)

    hpcml.sync()
    failed, cancelled = the_one(id=failing.id), the_one(id=after.id)
    assert (failed.state, failed.reason, failed.attempts[0].exit_code) == (
        "FAILED",
        "exit code 3",
        3,
    )
    assert (cancelled.state, cancelled.started) == ("CANCELLED", None)
    assert cancelled.reason == after.reason != ""


# --- by hand ----------------------------------------------------------------------------------


def test_a_record_is_found_by_what_it_is(database: str) -> None:
    batch = ByHand(
        [{"width": 32}, {"width": 64}], name="train", tags={"a": "b"}, params={"lr": 0.5}
    )
    ended(batch, 0)
    batch.end(1, exit_code=1)
    ByHand(name="other").end()
    hpcml.sync()

    ids = [run.id for run in batch.runs]

    def found(**filters: Any) -> list[str]:
        return [record.id for record in records.find(**filters)]

    assert found(name="train") == found(batch=batch.batch.id) == found(tags={"a": "b"}) == ids
    assert found(id=[ids[1], "none"]) == found(params={"width": 64.0, "lr": 0.5}) == [ids[1]]
    assert found(state="FAILED") == [ids[1]]
    assert found(digest=batch.runs[0].digest) == [ids[0]]
    assert found(job_digest=batch.batch.plan.job_digest, site="local")[:2] == ids
    assert found(params={"width": "64"}) == found(tags={"a": "c"}) == found(site="x") == []
    assert len(found()) == 3


def test_values_that_are_no_numbers_are_kept_and_never_rank(database: str) -> None:
    values = [math.nan, math.inf, -math.inf, "diverged", None, True, 2**70, 10**400, 0.1, 3]
    batch = ByHand([{"n": n} for n in range(len(values))])
    for n, value in enumerate(values):
        ended(batch, n, log(0, loss=value, good=1.0), log(1, good=value))
    hpcml.sync()

    for n, (value, record) in enumerate(zip(values, records.find(), strict=True)):
        for told in (record.metrics["loss"].last, records.history(record.id, "good")[1].value):
            assert told == value or (value is values[0] and math.isnan(told)), n
            assert type(told) is type(value) or type(told) is float
    ranked = [value for _, value in records.top("loss")]
    assert ranked == [0.1, 1.0, 3.0, 2.0**70]
    assert [value for _, value in records.top("loss", 2, highest=True)] == [2.0**70, 3.0]
    assert records.find()[0].metrics["good"].lowest == 1.0
    ids = [record.id for record in records.find()]
    for name, count in (("loss", 1), ("good", 2)):
        several = records.histories([*ids, "nobody"], name)
        assert {id: len(points) for id, points in several.items()} == dict.fromkeys(ids, count)
        alone = {id: records.history(id, name) for id in ids}
        assert str(several) == str(alone)
    assert records.histories(ids, "nothing") == {}


def test_steps_that_are_no_numbers_count_as_not_told() -> None:
    batch = ByHand()
    steps = [0, 1.5, None, "first", math.nan]
    ended(batch, 0, *(log(step, loss=1.0) for step in steps))
    hpcml.sync()
    told = [point.step for point in records.history(batch.runs[0].id, "loss")]
    assert told == [0.0, 1.5, None, None, None]


def test_hostile_names_come_back_as_they_were(database: str) -> None:
    values = dict.fromkeys(HOSTILE, 1.0)
    batch = ByHand()
    told = [log(0, **values), {"e": "describe", "v": {name: name for name in HOSTILE}}]
    told += [{"e": kind, "phase": name} for name in HOSTILE for kind in ("begin", "finish")]
    whole = [text for text in HOSTILE if "\ud800" not in text]  # no plan nor end can hold that
    outputs = {name: {"sha256": f"{n:064x}", "bytes": n} for n, name in enumerate(whole)}
    ended(batch, 0, *told, outputs=outputs)
    same = {text: text for text in whole}
    named = ByHand(
        [same], name=HOSTILE[2], tags={f"t{n}": text for n, text in enumerate(whole) if n}
    )
    named.end()
    hpcml.sync()

    record = the_one(id=batch.runs[0].id)
    assert record.metrics.keys() == record.phases.keys() == set(HOSTILE)
    assert {path: left.bytes for path, left in record.generated.items()} == {
        path: left["bytes"] for path, left in outputs.items()
    }
    assert record.described == {name: name for name in HOSTILE}
    for name in HOSTILE:
        assert records.top(name) == [(record.id, 1.0)]
        assert len(records.history(record.id, name)) == 1
    for n, text in enumerate(whole):
        tag = {f"t{n}": text} if n else {}  # a NUL is refused there
        found = the_one(params={text: text}, tags=tag, name=HOSTILE[2])
        assert found.params == same and found.tags.items() >= tag.items()


def test_attempts_of_a_requeued_run_are_told_apart() -> None:
    batch = ByHand()
    batch.end(0, 144, requeue=True, usage={"cpu_user": 1.0})
    batch.end(0, 0, attempt=2, usage={"cpu_user": 2.0})
    told = events(log(0, loss=2.0)) + events(log(1, loss=1.0), attempt=2)
    batch.file("events.jsonl").write_bytes(told)
    hpcml.sync()

    record = the_one()
    assert [(one.number, one.requeued) for one in record.attempts] == [(1, True), (2, False)]
    counted = [(one.attempt, one.value) for one in record.figures if one.name == "cpu_user"]
    assert counted == [(1, 1.0), (2, 2.0)]
    assert record.metrics["loss"].points == 2


def test_what_happened_to_attempts_is_on_record_with_time_and_facts(database: str) -> None:
    batch = ByHand()
    odd = {"e": "\x00odd", "why": [1, {"a": None}]}
    told = events(
        {"e": "command", "argv": ["true"]}, log(0, loss=1.0), {"e": "signal", "signal": 15}
    )
    again = events(odd, attempt=2)
    batch.end(0, 144, requeue=True)
    batch.end(0, 0, attempt=2)
    batch.file("events.jsonl").write_bytes(told + again)
    hpcml.sync()

    found = [(one.attempt, one.kind, one.time - NOW, one.facts) for one in the_one().events]
    end = {"exit_code": 0, "signal": None}
    assert found == [
        (1, "start", 0.0, {}),
        (1, "command", 1.0, {"argv": ["true"]}),
        (1, "signal", 3.0, {"signal": 15}),
        (1, "end", 4.0, end),
        (2, "start", 0.0, {}),
        (2, "\x00odd", 1.0, {"why": odd["why"]}),
        (2, "end", 2.0, end),
    ]


def test_a_clock_that_jumps_changes_no_duration() -> None:
    batch = ByHand()
    start, end = ({"e": kind, "t": t, "m": m} for kind, t, m in (("start", NOW, 5), ("end", 0, 7)))
    command = {"e": "command", "t": NOW + 1e6, "m": 6}
    batch.file("events.jsonl").write_bytes(lines_of([start, command, end]))
    batch.end()
    hpcml.sync()
    seconds = {figure.name: figure.value for figure in the_one().figures}
    assert (seconds["setup"], seconds["command"]) == (1e-9, 1e-9)


def test_events_that_are_no_events_leave_the_rest_of_the_run_on_record() -> None:
    batch = ByHand([{"n": 0}, {"n": 1}])
    nonsense = [{"e": "log", "v": 3}, {"e": "begin", "phase": 3}, {"e": {}}, {"e": "log", "m": 0.5}]
    ended(batch, 0, *nonsense, log(0, loss=2.0))
    ended(batch, 1, log(0, loss=1.0))
    assert hpcml.sync() == 2
    odd, whole = records.find()
    assert (odd.state, odd.unread) == ("COMPLETED", "4 of its lines are no events")
    assert (odd.metrics["loss"].last, whole.metrics["loss"].last) == (2.0, 1.0)
    assert batch.runs[0].metrics == {"loss": 2.0}
    told = "1 of 2 runs told something that cannot be read, and is passed over"
    assert told in hpcml.compare(batch.runs).marks


def test_an_attempt_that_says_twice_that_it_began_is_recorded_once(database: str) -> None:
    batch = ByHand()
    batch.file("events.jsonl").write_bytes(events(log(0, loss=2.0)) + events(log(1, loss=1.0)))
    batch.end()
    assert hpcml.sync() == 1
    assert [figure.name for figure in the_one().figures].count("queue") <= 1


def test_a_batch_that_cannot_be_read_is_passed_over_with_a_warning() -> None:
    batch, torn = ByHand(), ByHand()
    batch.end()
    (torn.folder / "plan.json").write_bytes(b'{"schema"')
    with pytest.warns(UserWarning, match=f"{torn.batch.id} is passed over"):
        assert hpcml.sync() == 1
    assert the_one().id == batch.runs[0].id


# --- again and again ---------------------------------------------------------------------------


def test_a_run_under_way_is_on_record_and_follows_its_events(database: str, unserved: None) -> None:
    batch = ByHand([{"n": 0}, {"n": 1}])
    batch.queue()
    batch.start(0)
    path = batch.file("events.jsonl")
    path.write_bytes(events(log(0, loss=2.0), end=False) + b'{"m":5,"e":"log","step":1,"v":{"lo')
    hpcml.sync()
    running, waiting = records.find()
    assert not running.final and running.metrics["loss"].points == 1
    assert waiting.state == "PENDING" and waiting.params == {"n": 1}

    path.write_bytes(events(log(0, loss=2.0), log(1, loss=1.0)))
    batch.end(0)
    assert hpcml.sync() == 1
    record = records.find()[0]
    assert record.state == "COMPLETED"
    assert [point.value for point in records.history(record.id, "loss")] == [2.0, 1.0]


def test_what_is_final_is_never_read_again(monkeypatch: pytest.MonkeyPatch, unserved: None) -> None:
    batch = ByHand([{"n": n} for n in range(20)])
    batch.queue()
    for n in range(19):
        ended(batch, n, log(0, loss=1.0))
    assert hpcml.sync() == 20
    read: list[str] = []
    get = LocalTransport.get

    def counted(files: LocalTransport, paths: Any) -> dict[str, bytes]:
        read.extend(paths)
        return get(files, paths)

    monkeypatch.setattr(LocalTransport, "get", counted)
    assert hpcml.sync() == 0
    assert not [path for path in read if path.endswith("events.jsonl")]

    ended(batch, 19, log(0, loss=1.0))
    batch.leave_the_queue()
    assert hpcml.sync() == 1
    read.clear()
    monkeypatch.setattr(BatchView, "load", lambda *_: pytest.fail("it is complete"))
    assert hpcml.sync() == 0
    assert read == []


def test_some_batches_can_be_ingested_alone() -> None:
    assert hpcml.sync() == 0  # ones that are not there would be made from everything
    one, other = ByHand(), ByHand()
    one.end()
    other.end()
    assert records.ingest("local", [one.batch.id, "20200101-000000-nobody"]) == 1
    assert [record.id for record in records.find()] == [one.runs[0].id]


def test_a_site_that_cannot_be_read_does_not_keep_others_from_the_records(home: Path) -> None:
    ByHand().end()
    settings = home / "config" / "hpcml" / "config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("sites: {nowhere: {workspace: /nowhere}}\n")
    with pytest.warns(UserWarning, match="nowhere is passed over"):
        assert hpcml.sync() == 1
    with pytest.raises(hpcml.HpcmlError):
        hpcml.sync("nowhere")


def test_records_outlive_the_runs_files(workspace: Path) -> None:
    batch = ByHand()
    ended(batch, 0, log(0, loss=1.0))
    hpcml.sync()
    shutil.rmtree(workspace / "runs")
    assert hpcml.sync() == 0
    assert the_one().metrics["loss"].last == 1.0


@pytest.mark.slow
def test_a_metric_of_a_million_points_is_on_record() -> None:
    count = 1_000_000
    batch = ByHand()
    lines = [b'{"m":%d,"e":"log","step":%d,"v":{"loss":%d.5}}\n' % (n, n, n) for n in range(count)]
    batch.file("events.jsonl").write_bytes(b'{"e":"start","t":0,"m":0}\n' + b"".join(lines))
    batch.end()
    hpcml.sync()
    metric = the_one().metrics["loss"]
    assert (metric.points, metric.last, metric.lowest) == (count, count - 0.5, 0.5)
    told = records.history(batch.runs[0].id, "loss")
    assert len(told) == count and told[-1].step == count - 1


# --- questions --------------------------------------------------------------------------------


def test_a_lineage_goes_by_digest_where_no_origin_was_named(project: Path) -> None:
    """Two runs that left the same bytes may both be where they came from."""
    (project / "data").write_text("1")
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    makers = [ByHand(outputs=["out"]) for _ in range(2)]
    for maker in makers:
        maker.end(outputs={"out": {"sha256": digest, "bytes": 1}})
    user = ByHand(inputs={"x": "data"})
    user.end(inputs={"x": digest})
    hpcml.sync()

    links = records.lineage(user.runs[0].id)
    assert {link.made_by for link in links} == {maker.runs[0].id for maker in makers}
    assert not any(link.said for link in links)
    (down,) = records.lineage(makers[0].runs[0].id, down=True)
    assert (down.used_by, down.input, down.output) == (user.runs[0].id, "x", "out")


def test_a_state_or_metric_that_there_is_not_is_refused_and_the_nearest_one_named() -> None:
    ended(ByHand(), 0, log(loss=1.0))
    with pytest.raises(ArgumentError, match="did you mean 'FAILED'"):
        records.find(state="FAILD")
    assert len(records.find(state="completed")) == 1
    with pytest.raises(UnknownNameError, match="did you mean 'loss'"):
        records.top("lss")
    assert records.top("loss", state="FAILED") == []


def test_questions_that_make_no_sense_are_refused_with_what_would_do() -> None:
    ByHand().end()
    with pytest.raises(ArgumentError, match="lowest"):
        records.top("loss", by="low")
    with pytest.raises(ArgumentError, match="job_digest"):
        records.top("loss", jobdigest="x")
    with pytest.raises(RecordsError, match="no metric 'loss'"):
        records.history("20200101-000000-nobody.00000", "loss")
    assert records.lineage("nobody") == records.lineage("\ud800") == []
    with pytest.raises(ArgumentError, match="there are no -1 runs"):
        records.top("loss", -1)
    for wrong in ({"id": 3}, {"tags": {"a": 3}}, {"params": {3: 4}}, {"params": {"a": {1}}}):
        with pytest.raises(ArgumentError):
            records.find(**wrong)


def test_a_question_may_name_any_number_of_runs_and_anything(database: str) -> None:
    batch = ByHand([{"n": n} for n in range(3)])
    for n in range(3):
        ended(batch, n, log(0, loss=float(n)))
    hpcml.sync()
    ids = [run.id for run in batch.runs]
    others = [f"20260101-000000-abcdef.{n:05d}" for n in range(70_000)]

    assert [one.id for one in records.find(id=[*ids[::-1], *others, ids[0]])] == ids
    best = records.top("loss", 2, highest=True, id=[*ids, *others, ids[2]])
    assert best == [(ids[2], 2.0), (ids[1], 1.0)]
    assert records.find(id=(id for id in ("\x00", "\ud800", "é", ids[1])))[0].id == ids[1]
    assert records.find(id=[]) == records.find(site="\ud800") == []


def test_waiting_does_not_load_what_records_need(another_python: Callable[..., Any]) -> None:
    done = another_python(
        """
        import sys, hpcml
        hpcml.submit(hpcml.Job(["true"], code=None)).wait(30)
        assert not {"sqlalchemy", "alembic", "hpcml.records"} & set(sys.modules)
        """
    )
    assert done.returncode == 0, done.stderr
