"""submit: resolve, plan, prepare, publish, queue.

Killed after any step, nothing is lost and nothing runs twice: the outbox knows the batch, digests
make preparing repeatable, publishing is one rename, and with the batch there is an intent on the
site before the queue is called, so that afterwards one can ask the queue whether it heard. A batch
that needs nothing brought is on the site before the outbox would have it, and does without.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, overload

from hpcml.agent import wire
from hpcml.batch import Batch, batch_of, claim, new_batch, outbox_names, refuse_of_another
from hpcml.batch_view import (
    INTENT_PATIENCE,
    BatchView,
    files_gone,
    find_chunk,
    is_gone,
    note_queued,
)
from hpcml.call import is_loading
from hpcml.connection import Connection, connect
from hpcml.enclosing import enclosing_run
from hpcml.errors import (
    ArgumentError,
    CodeError,
    HpcmlError,
    JobError,
    QueueError,
    RefusedError,
    RunStateError,
    UnresolvedError,
    nearest,
)
from hpcml.finding import attach
from hpcml.job import Job, Sweep
from hpcml.layout import Layout
from hpcml.library import function_library_name, library
from hpcml.offline import Entry, job_of
from hpcml.planning import PACK, Plan, account, account_rule, lay_out, make_plan
from hpcml.poller import poller
from hpcml.resolving import Resolved, resolve_with_code
from hpcml.run import Run, Runs
from hpcml.schedulers import Chunk
from hpcml.settings import Binding, cache_folder, keep
from hpcml.sites import Site
from hpcml.staging import stage, staged
from hpcml.states import State
from hpcml.transports import FileStatus, Transport, bring
from hpcml.transports.library import put_function_library, put_library

LASTING = "plan.json", wire.POINTS, "env.sh"
DEEPEST = 16  # runs that have submitted each other; more are taken for a mistake

SUBMIT_ANEW = "Cancel the run, and submit the job again: that brings it there."

There = Mapping[str, FileStatus]  # what a site has of what is named by digest, by path


@overload
def submit(
    job: Job | Entry,
    site: str = ...,
    *,
    after: Run | str | Iterable[Run | str] = ...,
    max_running: int | None = ...,
    pack: str = ...,
    **fields: Any,
) -> Run: ...
@overload
def submit(
    job: Sweep | Sequence[Job | Sweep],
    site: str = ...,
    *,
    after: Run | str | Iterable[Run | str] = ...,
    max_running: int | None = ...,
    pack: str = ...,
    **fields: Any,
) -> Runs: ...
def submit(
    job: Job | Sweep | Entry | Sequence[Job | Sweep],
    site: str = "local",
    *,
    after: Run | str | Iterable[Run | str] = (),
    max_running: int | None = None,
    pack: str = "auto",
    **fields: Any,
) -> Run | Runs:
    """Submit a job, a sweep or a list of them, and return when the site's queue has taken it.

    Parameters
    ----------
    job : Job, an entry, Sweep, or list of them
        A job, what :class:`~hpcml.Job` takes as one (a function, a script), or several jobs.
    site : str
        Name of a site profile.
    after : Run, str, or several
        Runs on the same site that must be COMPLETED first. If one ends otherwise, this run is
        CANCELLED with that reason.
    max_running : int, optional
        How many runs of this submission may run at once.
    pack : {"auto", "never"}
        Whether runs may share allocations: where nodes are given whole those that are smaller do,
        and so do more runs than the site takes jobs.
    **fields
        Fields of the job, or of all jobs; what they have of params, inputs, env and tags is added
        to: ``submit(infer, inputs={"model": run.output("model.pt")})``.

    Returns
    -------
    Run or Runs
        One run a job and one a point of a sweep, in that order. All jobs are checked before the
        first is queued.

    Raises
    ------
    JobError, PlanError, CodeError, ProfileError
        Something is wrong with a job or the profile; nothing was queued.
    TransportError, QueueError
        The site cannot be reached, or its queue takes it later at best: as many jobs are queued as
        may be, a partition is down. Runs are PREPARING, and ``hpcml resume`` goes on with them.
    RefusedError
        The queue does not take the job as it is: runs that are not queued have ended as FAILED.
    """
    if max_running is not None and (type(max_running) is not int or max_running < 1):
        problem = f"max_running: {max_running!r} is no number from 1 up"
        raise ArgumentError(problem, "Leave it out: no limit.")
    if pack not in PACK:
        raise ArgumentError(f"pack: {pack!r} is no way to pack", nearest(str(pack), PACK))
    _refuse_recursion()
    connection = connect(site, reload=True)
    several = isinstance(job, Sweep | Sequence) and not isinstance(job, str)
    jobs = [*job] if isinstance(job, Sequence) and several else [job]
    if not jobs:
        raise ArgumentError("there is no job in the list", "Give one at least.")
    if several and all(isinstance(one, str) for one in jobs):
        problem = f"{jobs!r} may be a command, or several scripts"
        raise ArgumentError(problem, f"Write hpcml.Job({jobs!r}) for a command, or a list of Jobs.")
    with connection.files.holding():  # what it finds there is still there when it is published
        ready = [_plan_online(job_of(one, fields), connection) for one in jobs]
        layouts = [_layout(one, connection, pack, max_running) for one in ready]
        runs = _submit_all(ready, layouts, connection, after, max_running)
    return Runs(runs) if several else runs[0]


def _submit_all(
    jobs: Sequence[_Ready],
    layouts: Sequence[Layout],
    connection: Connection,
    after: Run | str | Iterable[Run | str],
    max_running: int | None,
) -> list[Run]:
    first = _runs_before(after, connection)
    batches: list[Batch] = []
    for ready, layout in zip(jobs, layouts, strict=True):
        _must_be_there(_origins(ready.plan), connection)
        batch = new_batch(
            ready.plan,
            ready.points,
            after=[*dict.fromkeys([*first, *_origins(ready.plan)])],
            group=batches[0].id if batches else None,
            max_running=max_running,
            layout=layout,
        )
        batches.append(batch)
    runs: list[Run] = []
    there: There | None = jobs[0].there
    for batch in batches:
        try:
            runs += _submit(batch, connection, there)
        except (HpcmlError, KeyboardInterrupt) as error:
            if runs:
                error.add_note(f"In the queue already: {runs[0].id} and {len(runs) - 1} more.")
            raise
        there = None  # the site has more by now, and the cache less
    return runs


def _layout(ready: _Ready, connection: Connection, pack: str, max_running: int | None) -> Layout:
    count = len(ready.points)
    return lay_out(ready.plan, connection.site, count, pack=pack, max_running=max_running)


def _refuse_recursion() -> None:
    """Jobs that would submit each other without end."""
    if is_loading():
        raise RunStateError(
            "the module of a job's function submits when it is imported, and so would every job",
            'Put the call of submit under `if __name__ == "__main__":`.',
        )
    run = enclosing_run()
    if run is not None and run.depth >= DEEPEST:
        raise RunStateError(
            f"{run.id} is the end of a chain of {run.depth} runs that have submitted each other",
            "Look for a job that submits itself.",
        )


def resubmit(runs: Run | str | Iterable[Run | str]) -> Runs:
    """Run again what has ended: the same plans, code and points, as runs of their own.

    Parameters
    ----------
    runs : Run, str, or several
        Runs, or their ids: ``hpcml.resubmit(runs.failed)``.

    Returns
    -------
    Runs
        One for each, in the same order; ``run.resubmits`` says which it repeats.

    Raises
    ------
    ArgumentError
        There is none.
    RunStateError
        One of them has not ended.
    RunNotFoundError
        Its files were removed.
    CodeError
        Its code is not on the site any more.
    """
    again = [_run_of("runs", run) for run in _several("runs", runs)]
    if not again:
        raise ArgumentError("there is no run to resubmit", "Give one at least.")
    for run, seen in Runs(again).seen():
        if not seen.state.final:
            raise RunStateError(f"{run.id} has not ended: it is {seen.state}", "Wait, or cancel.")
    with ExitStack() as stack:
        for site in {run.site for run in again}:
            stack.enter_context(connect(site).files.holding())
        made = _resubmit(dict.fromkeys(again))
    return Runs([made[run] for run in again])


def _resubmit(runs: Iterable[Run]) -> dict[Run, Run]:
    """What repeats each run."""
    batches: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        batches.setdefault((run.site, batch_of(run.id)), []).append(run)
    views = {key: poller(key[0]).view(key[1]) for key in batches}
    for view in views.values():
        if view.connection.files.names(view.folder) is None:
            raise files_gone(view.id, view.connection.site.name)
    made: dict[Run, Run] = {}
    # In the order of their first submission: what feeds others comes before them.
    for key, view in sorted(views.items(), key=lambda item: item[1].submission.created):
        site, members = key[0], batches[key]
        instead = {old.id: new for old, new in made.items()}
        connection = connect(site)
        plan = _paid_now(_following(view.plan, instead), connection)
        most = view.submission.max_running
        batch = new_batch(
            plan,
            [view.points[run.index] for run in members],
            after=_before(view, plan, instead),
            max_running=most,
            resubmits=[run.id for run in members],
            layout=lay_out(plan, connection.site, len(members), max_running=most),
        )
        made.update(zip(members, _submit(batch, connection), strict=True))
    return made


def _following(plan: Plan, instead: Mapping[str, Run]) -> Plan:
    """A plan whose inputs come from runs that are run again, too."""
    inputs, origins = dict(plan.where["inputs"]), dict(plan.where["origins"])
    for name, origin in origins.items():
        if origin["run"] in instead:
            new = instead[origin["run"]]
            inputs[name] = str(new.output(origin["output"]))
            origins[name] = {**origin, "run": new.id}
    return replace(plan, where={**plan.where, "inputs": inputs, "origins": origins})


def _paid_now(plan: Plan, connection: Connection) -> Plan:
    """A plan that is paid for as the settings say now."""
    site, name = connection.site, plan.what["placement"]["partition"]
    if name not in site.partitions:
        return plan
    paying = account(name, site.partitions[name], site, connection.binding, [])
    return replace(plan, where={**plan.where, "account": paying})


def _before(view: BatchView, plan: Plan, instead: Mapping[str, Run]) -> list[str]:
    """What a batch that is run again waits for: for what is run again, too, and for its inputs."""
    before = [instead[run].id for run in view.submission.after if run in instead]
    for name, origin in plan.where["origins"].items():
        run = attach(origin["run"], str(plan.where["site"]))
        state = run.state
        if state.final and state is not State.COMPLETED:
            raise RunStateError(
                f"the input {name!r} of {view.id} comes from {run.id}, which is {state}",
                "Resubmit that, too, in the same call.",
            )
    return [*dict.fromkeys([*before, *_origins(plan)])]


def _submit(batch: Batch, connection: Connection, there: There | None = None) -> list[Run]:
    at_once = there is not None and _appears_at_once(batch, connection, there)
    if not at_once:
        batch.save()
    carry_on(batch, connection, there, fresh=True, at_once=at_once)
    ids = (wire.run_id(batch.id, index) for index in range(len(batch.points)))
    return [Run(identifier, connection.site.name) for identifier in ids]


def resume(identifier: str, site: str) -> None:
    """Go on with a submission that was broken off, here or on another machine.

    Raises
    ------
    RunStateError
        There is nothing to go on with, somebody is at it, or the queue may still have it.
    """
    batch = claim(identifier, "owner")
    connection = connect(site if batch is None else batch.site)
    with connection.files.holding():
        carry_on(batch or _claim_there(identifier, connection), connection)


def _claim_there(identifier: str, connection: Connection) -> Batch:
    """Take over a batch that only the site knows, and put it into the outbox for that."""
    view = BatchView.load(identifier, connection)
    view.read_files()
    if not view.queued and view.owner_alive:
        refuse_of_another(view.id, view.owner)
    nothing = f"{identifier} waits for nothing", f"{connection.site.name} has it, or had it."
    lost = {it.number for it in _lost(view.batch, connection)}
    if not lost:
        raise RunStateError(*nothing)
    view.batch.keep()
    batch = claim(identifier, "owner")
    if batch is None:
        raise RunStateError(*nothing)  # another process was quicker
    try:
        # The queue may have lost it in a power loss; should it turn up, .start lets one run.
        names = connection.files.names(f"{batch.folder}/attempts") or ()
        old = [name for name in names if lost & wire.queued_as([name]).keys()]
        connection.files.remove([f"{batch.folder}/attempts/{name}" for name in old])
    except BaseException:
        batch.let_go()
        raise
    return batch


def carry_on(
    batch: Batch,
    connection: Connection,
    there: There | None = None,
    *,
    fresh: bool = False,
    at_once: bool = False,
) -> None:
    """Take a batch through all steps that it has not passed yet.

    Parameters
    ----------
    there : dict, optional
        What the site has of what it needs, if that is known.
    fresh : bool
        It has just been made: it has passed none of them.
    at_once : bool
        It is not in the outbox (:func:`_appears_at_once`).
    """
    try:
        if fresh or not published(batch, connection):
            if there is None or not _is_whole(batch.plan, there):
                batch.note("preparing")
            with connection.files.together():
                prepare(batch, connection, there)
                fresh = publish(batch, connection, for_good=at_once)
        queue(batch, connection, fresh=fresh)
    except BaseException as error:  # Ctrl-C, too: a notebook lives on, and does not go on by itself
        if at_once:
            _let_go_there(batch, connection, error)
        else:
            batch.let_go()
            if isinstance(error, KeyboardInterrupt):
                error.add_note(_goes_on(batch))
        raise
    if not at_once:
        batch.forget()
    for path in _kept_code(batch.plan):
        if not outbox_names(path.stem):  # else another site may not have it yet
            path.unlink(missing_ok=True)


def _appears_at_once(batch: Batch, connection: Connection, there: There) -> bool:
    """Whether there is no step at which a batch would be nowhere but in the outbox.

    So it is where this machine sees the workspace, nothing has to be brought there, and the queue
    is asked once: the batch appears by one rename, for good, with the intent to ask.
    """
    is_here = connection.site.transport == "local"
    return is_here and len(batch.chunks) == 1 and _is_whole(batch.plan, there)


def _let_go_there(batch: Batch, connection: Connection, error: BaseException) -> None:
    """Leave a batch that was to appear at once to whoever resumes it, if it has appeared."""
    if isinstance(error, RefusedError):
        return  # it is over
    try:
        if not published(batch, connection):
            return
        batch.is_known()
        if not isinstance(error, QueueError):  # which says so
            error.add_note(_goes_on(batch))
        said = getattr(error.__cause__, "problem", "") if isinstance(error, QueueError) else ""
        word = wire.canonical({"said": said, "time": connection.files.now()})
        connection.files.put({f"{batch.folder}/attempts/{wire.LET_GO}": word})
    except HpcmlError:
        pass  # what has happened is told; others can go on once this process has ended


def _goes_on(batch: Batch) -> str:
    return f"`hpcml resume {batch.id}` goes on with its submission."


def published(batch: Batch, connection: Connection) -> bool:
    """Whether the site has the batch."""
    return connection.files.list(batch.folder) is not None


def prepare(batch: Batch, connection: Connection, there: There | None = None) -> None:
    """Make true what the plan names by digest: the travelling hpcml, and the code."""
    plan, files = batch.plan, connection.files
    if there is None:
        there = _there(plan, files)
    for one in staged(plan):
        if not {*one.needed} <= there.keys():
            raise JobError(
                one.field,
                f"{one.path} of {batch.id} is not on {batch.site} any more, or was changed there",
                SUBMIT_ANEW,
            )
    put_library(files, plan.where["library"], there)
    if plan.what["entry"]["kind"] == "function":
        put_function_library(files, plan.where["functions"], there)
        if "pickle" in plan.what["entry"]:
            digest = plan.what["entry"]["pickle"]
            _bring_code(batch, connection, f"{digest}.pkl", _pickle_path(digest), there)
    digest = plan.what["code"]
    if digest is not None and f"code/{digest}" not in there:  # else it is unpacked already
        _bring_code(batch, connection, f"{digest}.tar", _archive_path(digest), there)


def _there(plan: Plan, files: Transport) -> There:
    """What the site has of what a plan names by digest; code may be there unpacked."""
    data = staged(plan)
    paths = [*_needed(plan), *_code(plan), *(one.folder for one in data)]
    return files.touch(paths, [one.marker for one in data])


def _is_whole(plan: Plan, there: There) -> bool:
    """Whether the site has all that comes before the batch: nothing has to be brought."""
    code = _code(plan)
    return there.keys() >= _needed(plan) and (not code or not there.keys().isdisjoint(code))


def _needed(plan: Plan) -> set[str]:
    """hpcml itself, what executes functions, and a function by value."""
    paths = {f"lib/{plan.where['library']}"}
    if plan.what["entry"]["kind"] == "function":
        paths.add(f"lib/{plan.where['functions']}")
        if "pickle" in plan.what["entry"]:
            paths.add(f"code/{plan.what['entry']['pickle']}.pkl")
    return paths


def _code(plan: Plan) -> list[str]:
    """The code, unpacked and as an archive: one of them is enough."""
    code = plan.what["code"]
    return [] if code is None else [f"code/{code}", f"code/{code}.tar"]


def _bring_code(batch: Batch, connection: Connection, name: str, kept: Path, there: There) -> None:
    if kept.exists():
        bring(connection.files, f"code/{name}", kept, there)
    elif f"code/{name}" not in there:
        raise CodeError(
            f"the code of {batch.id} is neither on {batch.site} nor here any more",
            "Cancel the run, and submit the job again.",
        )


def publish(batch: Batch, connection: Connection, *, for_good: bool = False) -> bool:
    """Make the batch's folder appear on the site, whole, with the intent of its first chunk.

    ``False``: it is there already. ``for_good``: even if power is lost just then.
    """
    files = {**batch.files(owner=for_good), "attempts/0.intent": b""}
    # Of a script that was lost its own end tells; without the others a run would be another one.
    synced = [name for name in files if name in LASTING] if for_good else []
    appeared = connection.files.publish(batch.folder, files, ["attempts"], synced)
    batch.is_known()
    return appeared


def queue(batch: Batch, connection: Connection, *, fresh: bool = False) -> None:
    """Have the queue take each chunk, once: the intent first, then the call, then its id.

    Parameters
    ----------
    fresh : bool
        This process has just published it: nobody can have asked the queue yet.

    Raises
    ------
    RunStateError
        An earlier call may still reach the queue; asking again later is safe.
    """
    listed = None if fresh else connection.files.list(f"{batch.folder}/attempts")
    entries = {entry.name: entry for entry in listed or ()}
    queued = wire.queued_as(entries)
    for chunk in batch.chunks:
        if chunk.number not in queued:
            intent = entries.get(f"{chunk.number}.intent")
            if intent is not None:
                wanted = _was_not_heard(chunk, intent.mtime, connection)
            else:
                wanted = fresh or not begun(chunk, connection)
            if wanted:
                _queue(chunk, batch, connection, intended=fresh and chunk.number == "0")


def _was_not_heard(chunk: Chunk, asked: float, connection: Connection) -> bool:
    """Whether the queue was asked to take a chunk, and certainly has not."""
    identifier = find_chunk(chunk, connection)
    if identifier is not None:
        note_queued(chunk, identifier, connection, asked)
        return False
    if begun(chunk, connection):
        return False  # it was cancelled, or refused
    age = connection.files.now() - asked
    if age < INTENT_PATIENCE:
        raise RunStateError(
            f"{connection.site.name} was asked to queue {chunk.name} {age:.0f} s ago, and its "
            "queue does not know it yet",
            f"Resume again in {INTENT_PATIENCE - age:.0f} s.",
        )
    return True


def _intent(chunk: Chunk) -> str:
    """What says that the queue is being asked, and by its time since when."""
    return f"{chunk.folder}/attempts/{chunk.number}.intent"


def _queue(chunk: Chunk, batch: Batch, connection: Connection, *, intended: bool) -> None:
    asked = connection.files.now()
    try:
        with connection.files.together():
            if not intended:
                connection.files.put({_intent(chunk): b""})
            (identifier,) = connection.queue.submit([chunk])
    except RefusedError as error:
        left = _never_queued(chunk, batch, connection)
        word = {
            "attempt": 1,
            "state": str(State.FAILED),
            "reason": f"never queued: {error.problem}",
        }
        said = {**word, "indices": left, "time": connection.files.now()}
        connection.files.append(wire.words_file(batch.folder), said)
        connection.files.remove([_intent(chunk)])
        batch.forget()
        rule = account_rule(connection.site) if "account" in error.problem.lower() else ""
        advice = " ".join(filter(None, (error.advice, rule, _refused(batch, left))))
        raise RefusedError(error.problem, advice) from error
    except QueueError as error:  # nobody has taken it: there is nothing to wait for
        connection.files.remove([_intent(chunk)])
        batch.note("not taken", said=error.problem)
        left, count = _never_queued(chunk, batch, connection), len(batch.points)
        lacks = f"It has the others of {count} runs, not {len(left)}." if len(left) < count else ""
        later = f"`hpcml resume {batch.id}` when the queue takes jobs again, or `hpcml cancel`."
        advice = " ".join(filter(None, (error.advice, lacks, later)))
        raise QueueError(f"{batch.id}: {error.problem}", advice) from error
    note_queued(chunk, identifier, connection, asked)


def _never_queued(refused: Chunk, batch: Batch, connection: Connection) -> list[int]:
    """Runs of a chunk that is not taken, and of those after it that were never asked for."""
    names = connection.files.names(f"{batch.folder}/attempts") or ()
    intents = {name.partition(".")[0] for name in names if name.endswith(".intent")}
    asked = intents | wire.queued_as(names).keys()
    later = [it for it in batch.chunks if it.first > refused.first and it.number not in asked]
    return [index for chunk in (refused, *later) for index in chunk.indices]


def _refused(batch: Batch, left: Sequence[int]) -> str:
    """What is said of the runs of a batch that were never queued."""
    count, first = len(batch.points), wire.run_id(batch.id, left[0])
    if count == 1:
        return f"{first} has ended as FAILED; `hpcml resubmit {first}` when that is put right."
    others = (
        f"; the queue was asked for the {count - len(left)} others" if len(left) < count else ""
    )
    return f"{len(left)} of {count} runs, from {first} on, have ended as FAILED{others}."


def _lost(batch: Batch, connection: Connection) -> list[Chunk]:
    """Chunks that the queue does not have, and of which nothing has begun."""
    found = connection.queue.find([chunk.name for chunk in batch.chunks])
    return [it for it in batch.chunks if it.name not in found and not begun(it, connection)]


def begun(chunk: Chunk, connection: Connection) -> bool:
    """Whether an attempt of a chunk was taken, by an agent or to cancel it, or it was refused."""
    names = connection.files.names(f"{chunk.folder}/attempts") or ()
    if any(index in chunk.indices for index in wire.attempts_of(names)):
        return True
    path = wire.words_file(chunk.folder)
    words = wire.first_words(wire.parse_lines(connection.files.get({path: 0}).get(path, b"")))
    return any(index in chunk.indices for index, _ in words)


class _Ready(NamedTuple):
    plan: Plan
    points: Sequence[dict[str, Any]]
    there: There


def _plan_online(job: Job | Sweep, connection: Connection) -> _Ready:
    resolved, snapshot = resolve_with_code(job)
    for name, origin in resolved.origins.items():
        if origin.site != connection.site.name:
            raise JobError(
                f"inputs.{name}",
                f"{origin.run} is on {origin.site}, not on {connection.site.name}",
                "Wait for it, fetch it, and give the file.",
            )
    binding = connection.binding
    if resolved.entry["kind"] == "function":
        binding = replace(binding, functions=function_library_name())
    made = _made(resolved, connection.site, binding)
    if made.unresolved:
        raise UnresolvedError(
            f"{made.name} cannot be queued: {'; '.join(made.unresolved)}", "Resolve these first."
        )
    # Unpacked code is whole, an archive may not be. Its time says when somebody relied on it last.
    there = _there(made, connection.files)
    if _stage(made, resolved, connection, there):
        there = _there(made, connection.files)
    if snapshot is not None and f"code/{snapshot.digest}" not in there:
        _keep(_archive_path(snapshot.digest), snapshot.archive())
    if resolved.pickled is not None:
        _keep(_pickle_path(resolved.entry["pickle"]), resolved.pickled)
    if f"lib/{binding.library}" not in there:
        library()  # kept likewise: hpcml may be upgraded before the site has it
    return _Ready(made, resolved.points, there)


def _stage(plan: Plan, resolved: Resolved, connection: Connection, there: There) -> bool:
    """Bring inputs and image that the site does not have, or not unchanged: whether there are."""
    sources = {f"inputs.{name}": path for name, path in resolved.input_paths.items()}
    if resolved.image_path is not None:
        sources["image"] = resolved.image_path
    missing = {one.path: one for one in staged(plan) if not {*one.needed} <= there.keys()}
    for one in missing.values():
        stage(one, Path(sources[one.field]), connection.files)
    return bool(missing)


_last: tuple[Site, bytes, Plan] | None = None


def _made(resolved: Resolved, site: Site, binding: Binding) -> Plan:
    """The plan: the one that was made last, with its digests, while nothing has changed."""
    global _last
    if len(resolved.points) > 1 or resolved.pickled is not None:
        return make_plan(resolved, site, binding)
    said = {**resolved.__dict__, "resources": resolved.resources.__dict__}
    try:  # as bytes: 1, 1.0 and True are equal, and plans with them are not
        key = marshal.dumps((said, binding.__dict__), 2)
    except ValueError:  # a length of time, say, or another run's output
        return make_plan(resolved, site, binding)
    last = _last
    if last is None or last[0] is not site or last[1] != key:
        _last = last = site, key, make_plan(resolved, site, binding)
    return last[2]


def _keep(path: Path, content: bytes) -> None:
    """Keep code until the site has it: the files may change before that."""
    if path.exists() and path.stat().st_size == len(content):
        path.touch()  # it is not old
    else:
        keep(path, content, "Nothing was submitted. Free some space and submit again.")


def _kept_code(plan: Plan) -> list[Path]:
    """Files of the cache that wait until the site has the code."""
    code, pickled = plan.what["code"], plan.what["entry"].get("pickle")
    paths = [_archive_path(code)] if code else []
    return [*paths, _pickle_path(pickled)] if pickled else paths


def _archive_path(digest: str) -> Path:
    return cache_folder() / "code" / f"{digest}.tar"


def _pickle_path(digest: str) -> Path:
    return cache_folder() / "code" / f"{digest}.pkl"


def _origins(plan: Plan) -> list[str]:
    """Runs whose outputs are inputs of a plan."""
    return [str(origin["run"]) for origin in plan.where["origins"].values()]


def _runs_before(after: Run | str | Iterable[Run | str], connection: Connection) -> list[str]:
    """Ids of the runs to wait for; they must be in the site's queue already, or over."""
    runs = [_run_of("after", item, connection.site.name) for item in _several("after", after)]
    queued: set[str] = set()
    _must_be_there([run.id for run in runs if run.site == connection.site.name], connection)
    for run in runs:
        if run.site != connection.site.name:
            raise JobError(
                "after",
                f"{run.id} is on {run.site}, not on {connection.site.name}",
                "Wait for it, then submit.",
            )
        chunk = poller(run.site).view(batch_of(run.id)).part_of(run.index).chunk
        if chunk.name not in queued:
            names = connection.files.names(f"{chunk.folder}/attempts") or ()
            if chunk.number not in wire.queued_as(names) and not begun(chunk, connection):
                raise JobError("after", f"{run.id} is not in the queue", f"hpcml resume {run.id}")
            queued.add(chunk.name)
    return [run.id for run in runs]


def _must_be_there(runs: Iterable[str], connection: Connection) -> None:
    """Refuse runs whose files were freed: nothing can wait for them, or read what they left."""
    for batch in dict.fromkeys(map(batch_of, runs)):
        if is_gone(batch, connection):
            advice = "Submit that job again, and give the new run."
            raise files_gone(batch, connection.site.name, advice)


def _several(field: str, runs: object) -> list[object]:
    if not isinstance(runs, Run | str | Iterable):
        raise ArgumentError(f"{field}: {runs!r} is no run", "Give runs, or their ids.")
    return [runs] if isinstance(runs, Run | str) else [*runs]


def _run_of(field: str, run: object, site: str | None = None) -> Run:
    if not isinstance(run, Run | str):
        raise ArgumentError(f"{field}: {run!r} is no run", "Give runs, or their ids.")
    return attach(run, site) if isinstance(run, str) else run


__all__ = ["resubmit", "resume", "submit"]
