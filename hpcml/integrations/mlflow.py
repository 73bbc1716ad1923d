"""A copy of each finished run in an MLflow store.

>>> hpcml.integrations.mlflow.mirror("https://mlflow.example.org")     # doctest: +SKIP

It is made from the records alone, and each run is there once: the store tells by the tag
``hpcml.run`` which ones it has. It takes the package ``mlflow-skinny``, or ``mlflow``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy.exc import SQLAlchemyError

from hpcml import records
from hpcml.agent import wire
from hpcml.errors import ArgumentError, HpcmlError, RunNotFoundError
from hpcml.integrations.mlflow_names import fit
from hpcml.integrations.mlflow_run import BATCH, RUN, Copy, copy_of
from hpcml.records.database import Database
from hpcml.records.mirroring import any_mirror, forget_mirrors, note_mirrors, unmirrored
from hpcml.records.model import Record
from hpcml.records.writing import parts
from hpcml.settings import load_settings, password_in

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from hpcml.run import Run

__all__ = ["mirror"]

AT_ONCE = 200  # runs that are read from the records together
VALUES, TEXTS = 1000, 100  # that MLflow takes together, of metrics, and of parameters or tags
LONGEST_EXPERIMENT = 500
T = TypeVar("T")


def mirror(
    uri: str | None = None,
    runs: Run | Record | str | Iterable[Run | Record | str] | None = None,
    experiment: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Copy finished runs that are on record into an MLflow store; those that it has stay there.

    Parameters
    ----------
    uri : str, optional
        MLflow's tracking URI. Default: the settings' ``mlflow.uri``, else ``MLFLOW_TRACKING_URI``.
    runs : Runs, or iterable of Run, str or Record, optional
        Handles, ids of runs or of whole submissions, records. Default: all of which no copy is
        known; runs that somebody has deleted in that store are not copied again then.
    experiment : str, optional
        The experiment that they go to. Default: the settings' ``mlflow.experiment``, else one for
        each job's name, so that MLflow shows side by side what can be compared.
    progress : callable, optional
        Called with how many runs have been looked at, and how many there are.

    Returns
    -------
    int
        How many runs were copied.

    Raises
    ------
    ArgumentError
        It is nowhere said which store.
    RunNotFoundError
        One of the runs is not on record.
    HpcmlError
        MLflow is not installed, or its store cannot be used.
    RecordsError
        The records cannot be read or written.
    """
    settings = load_settings().mlflow
    if settings is not None:
        experiment = experiment or settings.experiment
    uri = uri or (settings and settings.uri) or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ArgumentError(
            "it is not said which MLflow store to mirror to",
            "Give its URI, or write it into the settings: mlflow: {uri: …}",
        )
    store, chosen = _Store(_absolute(uri)), None if runs is None else _listed(runs)
    return records.with_database(
        lambda database: _mirror(database, store, chosen, experiment, progress or _silent)
    )


def _silent(done: int, count: int) -> None:
    """Nobody wants to know."""


def _listed(
    runs: Run | Record | str | Iterable[Run | Record | str],
) -> list[str]:
    several = isinstance(runs, Iterable) and not isinstance(runs, str)
    given = list(cast("Iterable[Run | Record | str]", runs if several else [runs]))
    return [one if isinstance(one, str) else one.id for one in given]


def _mirror(
    database: Database,
    store: _Store,
    chosen: Sequence[str] | None,
    experiment: str | None,
    progress: Callable[[int, int], None],
) -> int:
    with database.mirroring():
        ids = _on_record(chosen) if chosen is not None else unmirrored(database, store.key)
        if not ids:
            return 0
        with store.told():
            if chosen is None and store.is_another(any_mirror(database, store.key)):
                forget_mirrors(database, store.key)
                ids = unmirrored(database, store.key)
            count, looked, asked = 0, 0, set[str]()
            there: dict[str, str] = {}
            for some in parts(ids, AT_ONCE):
                found = [record for record in records.find(id=some) if record.final]
                new = {record.batch for record in found} - asked
                there |= store.find(new)
                asked |= new
                for record in found:
                    if record.id not in there:
                        there[record.id] = store.copy(record, experiment or record.place["name"])
                        count += 1
                    looked += 1
                    progress(looked, len(ids))
                mirrors = {record.id: there[record.id] for record in found}
                note_mirrors(database, store.key, mirrors)
    return count


def _on_record(chosen: Sequence[str]) -> list[str]:
    """Ids of runs; a submission's id stands for all its runs."""
    found = [*records.find(id=chosen), *records.find(batch=chosen)]
    known = {name for record in found for name in (record.id, record.batch)}
    for one in chosen:
        if one not in known:
            problem = f"there is no run {one} on record"
            raise RunNotFoundError(problem, "`hpcml sync` records what is new.")
    return list(dict.fromkeys(record.id for record in found))


# --- the store --------------------------------------------------------------------------------


class _Store:
    """An MLflow store. Nobody of ours writes to it beside us."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self.password, self.shown = password_in(uri), _without_password(uri)
        except ValueError:
            raise ArgumentError(f"{uri!r} is no URI", "It begins like https://host.") from None
        self.key = wire.sha256(self.shown.encode())
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            self._client = _load(self.uri)
        return self._client

    @contextmanager
    def told(self) -> Iterator[None]:
        """MLflow's errors are ours within the block."""
        _load_errors()
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:  # as the store is one of
            problem = str(error).replace(self.password, "***") if self.password else str(error)
            raise HpcmlError(
                f"the MLflow store {self.shown} cannot be used: {problem}",
                "Mend that, and mirror again: what has not been copied yet will be.",
            ) from None

    def is_another(self, mirror: str | None) -> bool:
        """Whether a run that was copied has never been there: the store was made anew."""
        from mlflow.exceptions import MlflowException

        if mirror is None:
            return False
        try:
            self.client.get_run(mirror)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return True
            raise
        return False

    def find(self, batches: Iterable[str]) -> dict[str, str]:
        """The copies that are whole, by run; others, which a killed process left, are deleted."""
        experiments = [one.experiment_id for one in _pages(self.client.search_experiments)]
        found = {}
        for batch in batches:
            wanted = {"experiment_ids": experiments, "filter_string": f"tags.`{BATCH}` = '{batch}'"}
            for run in _pages(self.client.search_runs, **wanted):
                if run.info.status == "RUNNING":
                    self.client.delete_run(run.info.run_id)
                else:
                    found[run.data.tags[RUN]] = run.info.run_id
        return found

    def copy(self, record: Record, experiment: str) -> str:
        """Copy a run. While its copy is not whole it is RUNNING there. Returns MLflow's id."""
        histories = {name: records.history(record.id, name) for name in record.metrics}
        copy = copy_of(record, histories)
        identity = {RUN: copy.tags[RUN], BATCH: copy.tags[BATCH]}
        made = self.client.create_run(self._experiment(experiment), copy.start, identity, copy.name)
        self._log(made.info.run_id, copy)
        self.client.set_terminated(made.info.run_id, copy.status, copy.end)
        return str(made.info.run_id)

    def _log(self, mirror: str, copy: Copy) -> None:
        from mlflow.entities import Metric, Param, RunTag

        for texts in parts(copy.params.items(), TEXTS):
            self.client.log_batch(mirror, params=[Param(*text) for text in texts])
        for texts in parts(copy.tags.items(), TEXTS):
            self.client.log_batch(mirror, tags=[RunTag(*text) for text in texts])
        for values in parts(copy.values, VALUES):
            self.client.log_batch(mirror, metrics=[Metric(*value) for value in values])

    def _experiment(self, name: str) -> str:
        """Its id; it is made if it is not there."""
        name = fit(name, LONGEST_EXPERIMENT).strip() or "hpcml"
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise HpcmlError(
                    f"the experiment {name!r} of {self.shown} has been deleted",
                    "Restore it in MLflow, or choose another one: experiment=…",
                )
            made = found.experiment_id if found else self.client.create_experiment(name)
            self._experiments[name] = made
        return self._experiments[name]


def _pages(search: Any, **wanted: Any) -> Iterator[Any]:
    """All that a search finds."""
    token = None
    while True:
        page = search(**wanted, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _load_errors() -> None:
    try:
        import mlflow.exceptions  # noqa: F401
    except ModuleNotFoundError as error:
        raise HpcmlError(
            f"the mirror needs the package {error.name!r}", 'pip install "hpcml[mlflow]"'
        ) from error


def _load(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _absolute(uri: str) -> str:
    """A path, also of SQLite, from the root: it names the store wherever we are."""
    if "://" not in uri:
        return os.path.abspath(uri)
    scheme, _, path = uri.partition(":///")
    if scheme.startswith("sqlite") and path and not path.startswith("/"):
        return f"{scheme}:///{os.path.abspath(path)}"
    return uri


def _without_password(uri: str) -> str:
    if password_in(uri) is None:
        return uri
    parts = urlsplit(uri)
    place = parts.netloc.rpartition("@")[2]
    place = f"{parts.username}@{place}" if parts.username else place
    asked = [one for one in parts.query.split("&") if not one.startswith("password=")]
    return urlunsplit(parts._replace(netloc=place, query="&".join(asked)))
