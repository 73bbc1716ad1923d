"""Runs that were submitted earlier: by their ids, and all of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcml.agent import wire
from hpcml.batch import Batch, batch_folder, load_outbox, outbox_ids, outbox_owner_alive
from hpcml.batch_view import BatchView, files_gone, look
from hpcml.connection import bind, connect, known_sites
from hpcml.errors import (
    HpcmlError,
    ProfileError,
    QueueError,
    RecordsError,
    RunNotFoundError,
    TransportError,
)
from hpcml.poller import poller
from hpcml.run import Run, Runs, no_id, parts_of
from hpcml.settings import sites_of_settings
from hpcml.sites import load_site, site_names
from hpcml.states import State, state_named

# Batches, with the site under which each was found; and sites that could not be asked.
Found = tuple[list[tuple[BatchView, str]], dict[str, HpcmlError]]


def attach(id: str, site: str | None = None) -> Run:
    """The handle of a run that was submitted earlier, by anybody with the same workspace.

    Parameters
    ----------
    id : str
        A run's id; a batch's id will do for its only run (see :func:`runs` for several).
    site : str, optional
        Its site; default: it is looked for here and on all sites of the settings.

    Raises
    ------
    RunNotFoundError
        It is nowhere.
    """
    batch, index = _parts_of(id)
    view, place = _find(batch, site, id)
    if index is None and view.count > 1:
        problem = f"{id} has {view.count} runs, {id}.00000 and so on"
        raise RunNotFoundError(problem, f'hpcml.runs(batch="{id}") has all of them.')
    index = index or 0
    if index not in view.indices:
        run = wire.run_id(view.id, index)
        raise RunNotFoundError(f"there is no run {run}", f"{view.id} has fewer runs.")
    return Run(wire.run_id(view.id, index), site_of(view, place))


def _find(batch: str, site: str | None, id: str) -> tuple[BatchView, str]:
    """A batch, and the site under which it was found; ``id`` is what was asked for."""
    waiting = load_outbox(batch)
    if waiting is not None and site in (None, waiting.site):
        return poller(waiting.site).view(batch), waiting.site
    sites = [site] if site is not None else known_sites()
    away: list[HpcmlError] = []
    for name in sites:
        try:
            if connect(name).files.list(f"{batch_folder(batch)}/attempts") is not None:
                return poller(name).view(batch), name
        except (TransportError, ProfileError) as error:
            away.append(error)  # it may be there, or on another one
    if away:
        raise away[0]
    raise _on_record(id) or RunNotFoundError(
        f"there is no run {id} on {', '.join(sites)}", "`hpcml runs` lists those there are."
    )


def _parts_of(id: str) -> tuple[str, int | None]:
    try:
        return parts_of(id)
    except RunNotFoundError:
        known = _on_record(id) if isinstance(id, str) else None
        raise known or no_id(id) from None


def _on_record(id: str) -> RunNotFoundError | None:
    """What to say of a run, or of a submission, that is on record alone; ``None``: it is not."""
    batch, _, index = id.partition(".")
    run = wire.run_id(batch, int(index or 0)) if index.isdecimal() or not index else id
    from hpcml import records  # waiting for runs needs none

    found = []
    with suppress(RecordsError):  # within a job there are none
        found = records.remembered(id=run)
    if not found:
        return None
    (record,) = found
    if record.imported:
        problem = f"{id} was imported from {record.place['imported']}: hpcml has no files of it"
        return RunNotFoundError(problem, f"Its logs are in {record.workspace}.")
    advice = f"It is on record: `hpcml compare {id}`, and hpcml.records.find(batch={batch!r})."
    return files_gone(id, record.site, advice)


def site_of(view: BatchView, place: str) -> str:
    """The site that a batch was planned for; several may share a workspace."""
    planned = str(view.plan.where["site"])
    return planned if planned in site_names() else place


def runs(
    site: str | None = None,
    *,
    batch: str | None = None,
    state: str | None = None,
    name: str | None = None,
    tags: dict[str, str] | None = None,
) -> Runs:
    """Runs that can be found, oldest first.

    Parameters
    ----------
    site : str, optional
        Default: all sites of the settings, and the embedded one; those that cannot be reached, or
        whose profile or settings are wrong, are passed over with a warning.
    batch : str, optional
        Only the runs of one submission, by its id: a run's id without the index.
    state, name : str, optional
        Only runs in that state (``"failed"`` will do, too), or of jobs of that name.
    tags : dict, optional
        Only runs whose jobs have these tags.

    Raises
    ------
    ArgumentError
        There is no such state.
    RunNotFoundError
        There is no such submission.
    TransportError, QueueError
        The one site, or its queue, cannot be asked.
    """
    found, away = find_runs(site, batch=batch, state=state, name=name, tags=tags)
    if site in away:
        raise away[site]
    if away:
        from hpcml.records import SiteWarning  # waiting for runs needs none

    for place, error in away.items():
        warnings.warn(f"site {place} is passed over: {error}", SiteWarning, stacklevel=2)
    return found


def find_runs(
    site: str | None,
    *,
    batch: str | None = None,
    state: str | None = None,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[Runs, dict[str, HpcmlError]]:
    """As :func:`runs`, and the sites of which not all could be seen, with what stood in the way."""
    wanted = None if state is None else state_named(state)
    found, away = _looked_at(site) if batch is None else _looked_at_one(site, batch)
    chosen = [
        (view, site_of(view, place))
        for view, place in found
        if name in (None, view.plan.name)
        and (tags or {}).items() <= dict(view.plan.where["tags"]).items()
    ]
    fitting = [
        Run(wire.run_id(view.id, index), where)
        for view, where in sorted(chosen, key=_age)
        if site in (None, where)
        for index in view.indices
        if wanted in (None, view.seen[index].state if index in view.seen else State.UNKNOWN)
    ]
    return Runs(fitting), away


def _age(found: tuple[BatchView, str]) -> tuple[float, str]:
    view, _ = found
    return view.submission.created, view.id


def _looked_at_one(site: str | None, batch: str) -> Found:
    identifier, index = _parts_of(batch)
    if index is not None:
        advice = f"It is one of the runs of {identifier}."
        raise RunNotFoundError(f"{batch!r} is no submission's id", advice)
    view, place = _find(identifier, site, batch)
    away: dict[str, HpcmlError] = {}
    with _noted(place, away):
        look([view])
    return [(view, place)], away


def _looked_at(site: str | None) -> Found:
    """All batches, looked at."""
    found: list[tuple[BatchView, str]] = []
    away: dict[str, HpcmlError] = {}
    waiting = waiting_batches()
    places: dict[str, str] = {}
    for name in reversed([site] if site else known_sites()):
        with _noted(name, away):
            if site or waiting or not _is_unused(name):
                places[connect(name).binding.workspace] = name
    for place in places.values():
        views: list[BatchView] = []
        with _noted(place, away):
            names = sorted(batches_at(place, waiting))
            views += [view for view in map(poller(place).readable, names) if view is not None]
            look(views)
        views = [view for view in views if not view.removed]  # since the listing
        for view in views:
            if view.id in waiting:
                forget_if_there(view)
        found += [(view, place) for view in views]
    return found, away


@contextmanager
def _noted(site: str, away: dict[str, HpcmlError]) -> Iterator[None]:
    """Note that a site, or its queue, cannot be asked within the block."""
    try:
        yield
    except (TransportError, QueueError, ProfileError) as error:
        away[site] = error


def _is_unused(site: str) -> bool:
    """Whether nothing was ever submitted to the embedded site: looking makes no folder for it."""
    profile = load_site(site)
    usual = profile.transport == "local" and site not in sites_of_settings()
    return usual and not Path(bind(profile).workspace).exists()


def waiting_batches() -> dict[str, Batch]:
    """The batches of the outbox, by id: a site may not have them yet."""
    found = {identifier: load_outbox(identifier) for identifier in outbox_ids()}
    return {identifier: batch for identifier, batch in found.items() if batch is not None}


def batches_at(place: str, waiting: Mapping[str, Batch]) -> set[str]:
    """Ids of the batches in the workspace of a site, and of those on their way to it.

    Parameters
    ----------
    place : str
        Name of the site.
    waiting : mapping
        See :func:`waiting_batches`.
    """
    there = {name for name in connect(place).files.names("runs") or () if name[0] != "."}
    return there | {key for key, batch in waiting.items() if _lies_at(batch, place)}


def forget_if_there(view: BatchView) -> None:
    """Clear the outbox of a batch whose client was killed just after the queue had taken it."""
    batch = load_outbox(view.id) if view.queued or view.final else None
    # That it was cancelled before the site had it is said in the outbox alone.
    there = batch and (view.queued or not batch.cancelled)
    if batch and there and not outbox_owner_alive(batch):
        batch.forget()


def _lies_at(batch: Batch, place: str) -> bool:
    """Whether a batch of the outbox is on its way to the workspace of a site."""
    return bool(batch.plan.where["workspace"] == connect(place).binding.workspace)
