"""Each finished run is in an MLflow store once, and its values read back as they are on record."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.utils import validation

import hpcml
from hpcml import records
from hpcml.errors import ArgumentError, HpcmlError, RunNotFoundError
from hpcml.integrations import mlflow as ours
from hpcml.integrations.mlflow import mirror
from hpcml.integrations.mlflow_names import LONGEST_NAME, fit, read_name, spell_names
from tests.byhand import ByHand
from tests.cli.calling import on_a_terminal
from tests.records.telling import NOW, ended, log
from tests.records.test_records import HOSTILE

MOST = sys.float_info.max


@pytest.fixture(autouse=True)
def mlflow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow tells nobody that it was used here, and opens its file store."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database of MLflow's, which takes seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


@pytest.fixture
def sqlite(tmp_path: Path, tables: bytes) -> str:
    (tmp_path / "mlflow.db").write_bytes(tables)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(params=["sqlite", "files"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each test once with a database, once with files."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite"))
    return (tmp_path / "mlruns").as_uri()


def copies(uri: str, view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """All runs of a store, by the run that they are copies of, which must be another one each."""
    client = MlflowClient(tracking_uri=uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, run_view_type=view)
    by_id = {run.data.tags["hpcml.run"]: run for run in found}
    assert len(by_id) == len(found)
    return by_id


def points(uri: str, run: Run, name: str) -> list[tuple[float, int, int]]:
    """Values, times in ms and steps of a metric."""
    found = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return [(one.value, one.timestamp, one.step) for one in found]


def told(*logged: Any, **fields: Any) -> str:
    """A run that has logged something and ended, on record. Returns its id."""
    batch = ByHand(**fields)
    ended(batch, 0, *logged)
    hpcml.sync()
    return str(batch.runs[0].id)


# --- what is copied ---------------------------------------------------------------------------


def test_a_real_run_is_copied_with_all_that_is_known_of_it(
    uri: str, script: Callable[..., str], project: Path
) -> None:
    train = script(
        """
        import hpcml
        hpcml.describe(model="conv", global_batch=8)
        with hpcml.phase("train"):
            for step in range(3):
                hpcml.log(step=step, samples=10, loss=1 / (step + 1))
        open("model.pt", "w").write("weights")
        """
    )
    (project / "data.csv").write_text("1,2\n")
    job = hpcml.Job(
        train, params={"width": 64, "lr": 1e-3, "names": ["a"], "on": True}, tags={"paper": "1"},
        inputs={"data": "data.csv"}, outputs=["model.pt"], name="emulator",
        resources=hpcml.Resources(time="5m"),
    )  # fmt: skip
    run = hpcml.submit(job).wait(60)
    hpcml.sync()

    assert mirror(uri) == 1
    record, copy = records.find()[0], copies(uri)[run.id]
    assert (copy.info.status, copy.info.run_name) == ("FINISHED", "emulator")
    assert copy.info.start_time == round(record.started * 1000)
    assert copy.info.end_time == round(record.ended * 1000)
    read = {name: json.loads(value) for name, value in copy.data.params.items()}
    assert read == {"width": 64, "lr": 1e-3, "names": ["a"], "on": True} == record.params
    history = records.history(run.id, "loss")
    logged = [(point.value, round(point.time * 1000), point.step) for point in history]
    assert points(uri, copy, "loss") == logged
    assert copy.data.metrics["hpcml.phase.train"] == record.phases["train"].seconds
    figures = {figure.name: figure.value for figure in record.figures}
    assert copy.data.metrics["hpcml.command"] == figures["command"]
    assert not any("energy" in name for name in copy.data.metrics)
    tags = copy.data.tags
    assert tags["hpcml.no_energy"] == record.energy.why
    assert (tags["paper"], tags["hpcml.state"], tags["hpcml.site"]) == ("1", "COMPLETED", "local")
    assert (tags["hpcml.digest"], tags["hpcml.batch"]) == (record.digest, record.batch)
    assert tags["hpcml.job_digest"] == record.job_digest
    assert (tags["hpcml.described.model"], tags["hpcml.described.global_batch"]) == ("conv", "8")
    assert tags["hpcml.input.data"] == f"sha256:{record.used['data'].digest}"
    digest = record.generated["model.pt"].digest
    assert tags["hpcml.output.model.pt"] == f"sha256:{digest}, 7 bytes"
    assert tags["hpcml.host"] == record.attempts[0].host["host"]
    experiment = MlflowClient(tracking_uri=uri).get_experiment(copy.info.experiment_id)
    assert experiment.name == "emulator"
    assert mirror(uri) == 0


@pytest.mark.parametrize(
    ("cause", "state", "status"),
    [
        (None, "FAILED", "FAILED"),
        ("TIMEOUT", "TIMEOUT", "FAILED"),
        ("CANCELLED", "CANCELLED", "KILLED"),
    ],
)
def test_runs_that_ended_badly_say_so(
    sqlite: str, cause: str | None, state: str, status: str
) -> None:
    batch = ByHand()
    batch.end(0, exit_code=1, cause=cause, reason="because")
    hpcml.sync()
    mirror(sqlite)
    (copy,) = copies(sqlite).values()
    assert (copy.info.status, copy.data.tags["hpcml.state"]) == (status, state)
    assert copy.data.tags["hpcml.reason"] == records.find()[0].reason


def test_runs_under_way_are_not_copied_before_they_end(sqlite: str, unserved: None) -> None:
    batch = ByHand([{"n": 0}, {"n": 1}])
    batch.queue()
    batch.end(0)
    hpcml.sync()
    assert mirror(sqlite) == 1
    assert mirror(sqlite, batch.runs) == 0
    batch.end(1)
    hpcml.sync()
    assert mirror(sqlite) == 1
    assert copies(sqlite).keys() == {run.id for run in batch.runs}


def test_every_one_of_many_points_reads_back_equal(uri: str) -> None:
    run = told(*(log(step, loss=math.sin(step)) for step in range(10_000)))
    mirror(uri)
    found = points(uri, copies(uri)[run], "loss")
    assert len(found) == 10_000
    assert sorted(found, key=lambda point: point[2]) == [
        (math.sin(step), round((NOW + step + 1) * 1000), step) for step in range(10_000)
    ]


def test_values_that_mlflow_cannot_keep_are_told_in_words(uri: str) -> None:
    infinite = float("inf")
    run = told(
        log(0, loss=float("nan"), grad=infinite, note="text", big=1 << 60),
        log(1, loss=infinite, grad=-infinite, note="diverged", big=(1 << 60) + 1),
        log(2, loss=1.5, note=2.5, big=10**400),
        log(0.5, epoch=1.0),
        log(None, alone=True),
        log(None, alone=False),
    )
    mirror(uri)
    copy = copies(uri)[run]
    tags = copy.data.tags
    nan, inf, last = points(uri, copy, "loss")
    assert math.isnan(nan[0]) and inf[0] in (infinite, MOST) and last[0] == 1.5
    assert tags["hpcml.metric.loss"].startswith("1 infinite")
    assert tags["hpcml.metric.grad"].startswith("2 infinite")
    assert [value for value, _, _ in points(uri, copy, "note")] == [2.5]
    assert tags["hpcml.metric.note"] == "2 of 3 are no numbers"
    assert "1 rounded" in tags["hpcml.metric.big"]
    assert tags["hpcml.metric.big"].endswith(f"the last one: {10**400}")
    assert [step for _, _, step in points(uri, copy, "epoch")] == [0]
    assert "numbered" in tags["hpcml.metric.epoch"]
    assert [(value, step) for value, _, step in points(uri, copy, "alone")] == [(1, 0), (0, 1)]


def test_energy_is_a_metric_only_where_it_was_measured(sqlite: str) -> None:
    from tests.records.test_energy_on_record import metered, seconds

    metered(seconds())
    hpcml.sync()
    record = records.find()[0]
    assert record.energy.joules is not None
    mirror(sqlite)
    (copy,) = copies(sqlite).values()
    scope = copy.data.tags["hpcml.energy_scope"]
    assert scope.startswith(record.energy.scope)
    energies = [name for name in copy.data.metrics if name.startswith("hpcml.energy.")]
    assert [copy.data.metrics[name] for name in energies] == [record.energy.joules]
    assert float(copy.data.tags["hpcml.energy_coverage"]) == record.energy.coverage


def test_hostile_names_and_values_are_kept_apart_and_can_be_read_back(uri: str) -> None:
    whole = [name for name in HOSTILE if "\ud800" not in name]  # no parameter can be called that
    names = [*whole, ".", "..", "/a", "a/", "a//b", "a", "a/b", "a/b/c", "../../etc", "é" * 200]
    values = {name: f"{n} {name}" for n, name in enumerate(names)}
    run = told(
        log(0, **{name: float(n) for n, name in enumerate(names)}),
        points=[values],
        tags={name: "of the job" for name in ("a", "a/b", "hpcml.run", "why?")},
    )
    mirror(uri)
    data = copies(uri)[run].data
    spelt = {name: other for name, other in spell_names(names).items()}
    for n, name in enumerate(names):
        assert data.metrics[spelt[name]] == n
        assert data.params[spelt[name]] == fit(values[name], 6000)
        if len(name) < 200:
            assert read_name(spelt[name]) == name
    assert data.tags["hpcml.name._x001B__x005B_31mred_x0007_"] == "\x1b[31mred\x07"
    assert data.tags["a"] == data.tags["why_x003F_"] == data.tags["a_x002F_b"] == "of the job"


@given(st.lists(st.text() | st.text(alphabet="a/._x0F2-;"), unique=True, max_size=8))
@example(["_x;"])
@example(["_x0041;"])
@example(["_x_x_", "_x005F_", "_x/"])
def test_names_are_spelt_as_mlflow_takes_them_each_as_another_one(names: list[str]) -> None:
    spelt = spell_names(names)
    assert len(set(spelt.values())) == len(names)
    for name, other in spelt.items():
        validation._validate_metric_name(other)
        assert len(other.encode()) <= LONGEST_NAME
        if len(other.encode()) < LONGEST_NAME - 20:
            assert read_name(other) == name
        assert not any(other.startswith(f"{one}/") for one in spelt.values())


def test_a_long_parameter_is_told_by_its_length_and_digest(uri: str) -> None:
    run = told(params={"long": "x" * 7000, "short": "y" * 6000}, tags={"note": "z" * 9000})
    mirror(uri)
    data = copies(uri)[run].data
    assert data.params["short"] == "y" * 6000
    assert data.params["long"].startswith("7000 characters, more than MLflow keeps; sha256:")
    assert data.tags["note"].startswith("9000 characters")


# --- once -------------------------------------------------------------------------------------


def test_runs_that_are_there_are_not_asked_for_again(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told()
    mirror(uri)
    monkeypatch.setattr(ours, "_load", lambda uri: pytest.fail("MLflow was asked"))
    assert mirror(uri) == 0


def test_the_store_is_believed_where_it_is_not_known_what_it_has(uri: str, home: Path) -> None:
    run = told()
    mirror(uri)
    (home / "state" / "hpcml" / "index.db").unlink()
    assert mirror(uri) == 0
    assert list(copies(uri)) == [run]


def test_a_store_that_was_emptied_gets_everything_again(sqlite: str, tmp_path: Path) -> None:
    told()
    mirror(sqlite)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        for table in ("latest_metrics", "metrics", "params", "tags", "runs"):
            connection.execute(f"DELETE FROM {table}")
    told()
    assert mirror(sqlite) == 2
    assert len(copies(sqlite)) == 2


def test_a_copy_that_was_deleted_stays_away_until_it_is_asked_for(uri: str) -> None:
    run = told()
    mirror(uri)
    MlflowClient(tracking_uri=uri).delete_run(copies(uri)[run].info.run_id)
    told()
    assert mirror(uri) == 1
    assert run not in copies(uri)
    assert mirror(uri, run) == 1
    assert run in copies(uri)


def test_two_mirrors_at_once_copy_each_run_once(uri: str) -> None:
    batch = ByHand([{"n": n} for n in range(20)])
    for index in range(20):
        ended(batch, index, log(0, loss=1.0))
    hpcml.sync()
    code = f"from hpcml.integrations.mlflow import mirror; print(mirror({uri!r}))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(counts) == [0, 20]
    assert len(copies(uri)) == 20


@pytest.mark.parametrize(
    ("uri", "when"),
    [
        ("sqlite", "log_batch"),
        ("sqlite", "note_mirrors"),
        ("files", "create_run"),
        ("files", "log_batch"),
        ("files", "set_terminated"),
    ],
    indirect=["uri"],
)
def test_a_mirror_that_is_killed_leaves_nothing_half_copied_that_is_believed(
    uri: str, when: str, another_python: Callable[..., Any]
) -> None:
    batch = ByHand([{"n": n} for n in range(3)])
    for index in range(3):
        ended(batch, index, *(log(step, loss=step) for step in range(1500)))
    hpcml.sync()
    killed = another_python(
        f"""
        import os
        from mlflow import MlflowClient
        from hpcml.integrations import mlflow
        of = mlflow if {when!r} == "note_mirrors" else MlflowClient
        calls, real = [], getattr(of, {when!r})

        def dying(*args, **kwargs):
            calls.append(None)
            found = real(*args, **kwargs) if of is MlflowClient else None
            if len(calls) == {{"note_mirrors": 1, "log_batch": 6}}.get({when!r}, 2):
                os.kill(os.getpid(), 9)
            return found

        setattr(of, {when!r}, dying)
        mlflow.mirror({uri!r})
        """
    )
    assert killed.returncode == -9, killed.stderr
    half = {run for run, copy in copies(uri).items() if copy.info.status == "RUNNING"}
    assert len(half) == (1 if when in ("create_run", "log_batch") else 0)

    mirror(uri)
    found = copies(uri)
    assert found.keys() == {run.id for run in batch.runs}
    for copy in found.values():
        assert copy.info.status == "FINISHED"
        assert len(points(uri, copy, "loss")) == 1500


# --- which store ------------------------------------------------------------------------------


def settings(home: Path, text: str) -> None:
    path = home / "config" / "hpcml" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def test_sync_mirrors_to_the_store_of_the_settings(home: Path, sqlite: str) -> None:
    settings(home, f"mlflow: {{uri: '{sqlite}', experiment: everything}}")
    run = told(name="train")
    assert list(copies(sqlite)) == [run]
    assert MlflowClient(tracking_uri=sqlite).get_experiment_by_name("everything") is not None


def test_a_store_that_cannot_be_used_does_not_keep_runs_from_the_records(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_text("no database, and long enough not to be taken for one")
    settings(home, f"mlflow: {{uri: 'sqlite:///{tmp_path / 'broken.db'}'}}")
    with pytest.warns(UserWarning, match="records are up to date, their mirror is not"):
        run = told()
    assert [record.id for record in records.find()] == [run]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("https://me:secret@mlflow.example.org", "there is a password"),
        ("postgresql://host/db?password=secret", "there is a password"),
        ("mlruns", "a path from the root"),
        ("sqlite:///mlflow.db", "a path from the root"),
    ],
)
def test_settings_name_a_store_wherever_they_are_read_and_hold_no_password(
    home: Path, uri: str, problem: str
) -> None:
    settings(home, f"mlflow: {{uri: '{uri}'}}")
    with pytest.raises(HpcmlError, match=problem):
        mirror()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("weird://me:secret@nowhere/x", "weird://me@nowhere/x"),
        ("weird://:secret@nowhere/x", "weird://nowhere/x"),
        ("weird://nowhere/x?password=secret&a=1", "weird://nowhere/x?a=1"),
    ],
)
def test_a_password_is_in_no_message_and_no_record(home: Path, uri: str, shown: str) -> None:
    told()
    with pytest.raises(HpcmlError) as caught:
        mirror(uri)
    assert "secret" not in str(caught.value) and f"{shown} " in str(caught.value)


def test_what_is_no_uri_is_said_to_be_none() -> None:
    with pytest.raises(ArgumentError, match="is no URI"):
        mirror("http://[x")


def test_the_store_is_asked_once_what_it_has_of_a_submission(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, asked, find = ByHand([{"n": n} for n in range(6)]), [], ours._Store.find
    for n in range(6):
        ended(batch, n)
    hpcml.sync()

    def noted(self: ours._Store, batches: set[str]) -> dict[str, str]:
        asked.extend(batches)
        return find(self, batches)

    monkeypatch.setattr(ours, "AT_ONCE", 2)
    monkeypatch.setattr(ours._Store, "find", noted)
    assert mirror(sqlite) == 6 and asked == [batch.batch.id]


def test_a_relative_path_names_a_store_in_the_current_folder(
    project: Path, tables: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mlflow.db").write_bytes(tables)
    told()
    assert mirror("sqlite:///mlflow.db") == 1
    assert mirror(f"sqlite:///{project / 'mlflow.db'}") == 0


def test_what_cannot_be_mirrored_is_said_with_what_to_do(sqlite: str) -> None:
    with pytest.raises(ArgumentError, match="which MLflow store"):
        mirror()
    with pytest.raises(RunNotFoundError, match="no run nothing on record"):
        mirror(sqlite, "nothing")
    run = told(name="gone")
    client = MlflowClient(tracking_uri=sqlite)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(HpcmlError, match="has been deleted"):
        mirror(sqlite)
    assert mirror(sqlite, run, experiment="other") == 1


def test_without_mlflow_the_error_says_what_to_install(
    another_python: Callable[..., Any],
) -> None:
    told()
    done = another_python(
        """
        import sys
        sys.modules["mlflow"] = sys.modules["mlflow.exceptions"] = None
        from hpcml.integrations.mlflow import mirror
        mirror("/tmp/nowhere")
        """
    )
    assert 'pip install "hpcml[mlflow]"' in done.stderr


def test_runs_of_a_team_are_mirrored_from_its_database(team: str, sqlite: str) -> None:
    run = told()
    assert mirror(sqlite) == 1
    assert list(copies(sqlite)) == [run]


def test_imported_runs_are_mirrored_too(sqlite: str, tmp_path: Path) -> None:
    from hpcml.integrations.submitit import import_folder
    from tests.integrations.test_submitit import left, started

    folder = tmp_path / "logs"
    folder.mkdir(mode=0o700)
    left(folder, "1", ("success", {"loss": 0.5}), log__out=started())
    import_folder(folder)
    mirror(sqlite)
    (copy,) = copies(sqlite).values()
    assert copy.data.metrics["result.loss"] == 0.5
    assert copy.data.tags["hpcml.site"] == "submitit"


def test_progress_is_told_run_by_run(sqlite: str) -> None:
    for _ in range(3):
        told()
    seen: list[tuple[int, int]] = []
    mirror(sqlite, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_command_says_on_a_terminal_how_far_it_is(sqlite: str) -> None:
    for _ in range(2):
        told()
    hpcml.sync()
    shown = on_a_terminal("sync", "--mlflow", sqlite)
    assert "\r1 of 2 runs mirrored\r2 of 2 runs mirrored\r\n" in shown


def test_the_command_mirrors_and_says_how_many(sqlite: str) -> None:
    told()
    command = [sys.executable, "-c", "from hpcml.cli import main; main()", "sync", "--mlflow"]
    done = subprocess.run([*command, sqlite, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"runs": 0, "mirrored": 1, "passed_over": []}
    done = subprocess.run([*command, sqlite], capture_output=True, text=True, check=True)
    assert done.stdout == "0 runs with news, 0 mirrored\n"
