"""Slurm, by its own commands on a machine that has them: ``sbatch``, ``squeue``, ``sacct``...

All that it does on the site goes through the transport, so that it works from afar as well.
"""

from __future__ import annotations

import calendar
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hpcml.agent import wire
from hpcml.agent.commands import NOT_FOUND
from hpcml.errors import QueueError, RefusedError, TransportError, UnreachableError
from hpcml.schedulers import Accounted, Chunk, JobStatus, Word, unwritten
from hpcml.schedulers.slurm import accounting, commands, words
from hpcml.schedulers.slurm.commands import Row, Trouble
from hpcml.schedulers.slurm.dependencies import dependencies, group_file, known_to
from hpcml.schedulers.slurm.pacing import BackOff, Bucket
from hpcml.schedulers.slurm.said import Said, listen
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.states import State
from hpcml.transports import Completed, Transport

TRIES = 3  # of a call that Slurm was too busy for
SKEW = 24 * 3600  # seconds by which clocks may differ when a lost job is looked for
CLOCKS = 60.0  # seconds by which those of Slurm and of a node may differ
CANCELLED = Word(State.CANCELLED, "cancelled before it started")
STILL_THERE = Word(
    State.PENDING, "cancelled, so that it will not run; `hpcml cancel` takes it out of the queue"
)


class SlurmScheduler:
    """See :class:`hpcml.schedulers.Scheduler`.

    Attributes
    ----------
    patience : float
        Seconds after the end of an allocation in which an ``.end`` of its runs may still become
        visible: other machines' files do so late.
    """

    poll_interval = (1.0, 30.0)
    patience = wire.STALE

    def __init__(self, site: Site, binding: Binding, files: Transport) -> None:
        self.site, self.binding, self.files = site, binding, files
        self._pace = Bucket(size=100, rate=10)
        self._ask_again = BackOff(first=1.0, longest=60.0)
        self._said: dict[str, Said] = {}
        self._lock = threading.RLock()

    # --- queueing -------------------------------------------------------------------------

    def submit(self, chunks: Sequence[Chunk]) -> list[str]:
        return [self._submit(chunk) for chunk in chunks]

    def _submit(self, chunk: Chunk) -> str:
        before = dependencies(chunk, self.files)
        for _ in range(TRIES):
            self._pace.take()
            folder = f"{self.binding.workspace}/{chunk.folder}"
            done = self._run(commands.sbatch(chunk, folder, before))
            identifier = commands.parse_sbatch(_text(done))
            if done.exit_code == 0 and identifier is not None:
                return self._noted(chunk, identifier)
            trouble = Trouble.LOST if _was_cut_off(done) else commands.trouble(_said(done))
            if trouble is Trouble.LOST:
                return self._noted(chunk, self._find_lost(chunk, done))
            if trouble is Trouble.DEPENDENCY and before:
                before = known_to(before, self._rows(ended=True))
            elif trouble is not Trouble.BUSY:
                break
        raise self._refusal(done)

    def _noted(self, chunk: Chunk, identifier: str) -> str:
        """Write down what is counted together with chunks that are still to come."""
        if chunk.max_running is not None and chunk.group:
            line = {"name": chunk.name, "id": identifier, "runs": chunk.count}
            self.files.append(group_file(chunk), line)
        return identifier

    def _find_lost(self, chunk: Chunk, done: Completed) -> str:
        """The id of a job of which sbatch could not say whether it was taken."""
        said = f"sbatch says: {_told(done)}"
        problem = f"{self.site.name}: whether {chunk.name} was queued is not known; {said}"
        try:
            found = self.find([chunk.name])
        except QueueError as error:
            raise TransportError(f"{problem}; {error.problem}", _resume(chunk)) from error
        if not found:
            raise TransportError(problem, _resume(chunk))
        return found[chunk.name]

    def find(self, names: Sequence[str]) -> dict[str, str]:
        """Ask the controller, then the accounting, by the names of jobs."""
        asked = {commands.job_name(name): name for name in names}
        rows = self._rows(ended=True, names=names)
        found = {asked[row.name]: row.job for row in rows if row.name in asked}
        missing = [name for name in names if name not in found]
        if missing:
            since = min(_queued_at(name) for name in missing) - SKEW
            until = self.files.now() + SKEW
            done = self._run(commands.sacct_by_name(missing, since, until))
            if done.exit_code == 0:
                old = commands.parse_names(_text(done))
                found.update({asked[name]: job for name, job in old.items() if name in asked})
            elif commands.trouble(_said(done)) is not Trouble.DISABLED:
                raise self._refusal(done)
        return found

    # --- looking --------------------------------------------------------------------------

    def poll(self, chunks: Sequence[Chunk]) -> dict[str, JobStatus]:
        by_job: dict[tuple[str, str], list[Row]] = {}
        if any(chunk.id is not None for chunk in chunks):
            for row in self._rows():  # by name, too: ids come again when a cluster is made anew
                by_job.setdefault((row.job, row.name), []).append(row)
        with self._lock:
            listen(self.files, {self._said_of(chunk) for chunk in chunks})
            names = {it.name: (it.id or "", commands.job_name(it.name)) for it in chunks}
            return {it.name: self._status(it, by_job.get(names[it.name], ())) for it in chunks}

    def _status(self, chunk: Chunk, rows: Sequence[Row]) -> JobStatus:
        live: dict[int, Word] = {}
        rest, waiting = None, set[int]()
        for row in rows:
            word = words.of_live(row.state, row.reason)
            if word is None:
                continue
            indices = [index for task in row for index in commands.runs_of(chunk, task)]
            if row.waiting:
                rest = word
                waiting.update(indices)
            else:
                live.update(dict.fromkeys(indices, word))
        gone = set(chunk.indices) - waiting - live.keys() if rest else set[int]()
        said = self._said_of(chunk)
        for index in said.cancels & (waiting | live.keys()):
            begun = index in live and live[index].state is State.RUNNING
            live[index] = Word(State.RUNNING, "it was told to end") if begun else STILL_THERE
        return JobStatus(live, rest, said.words, gone)

    def _said_of(self, chunk: Chunk) -> Said:
        if chunk.folder not in self._said:
            self._said[chunk.folder] = Said(chunk.folder)
        return self._said[chunk.folder]

    # --- what has left the queue ----------------------------------------------------------

    def account(
        self, chunk: Chunk, attempts: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], Word]:
        due: dict[int, list[tuple[int, int]]] = {}
        for index, number in attempts:
            task = commands.task_of(chunk, index)
            if self._ask_again.is_due((chunk.name, task)):
                due.setdefault(task, []).append((index, number))
        if not due or chunk.id is None:
            return {}
        rows = {chunk.id: self._histories(chunk, chunk.id, due)}
        names = self.files.names(f"{chunk.folder}/attempts") or ()
        known, found = wire.attempts_of(names), dict[tuple[int, int], Word]()
        asked = [key for runs in due.values() for key in runs]
        starts = self._starts(chunk, known, asked)
        jobs = {key: _array(start) or chunk.id for key, start in starts.items()}
        for job in {*jobs.values()} - rows.keys():
            rows[job] = self._histories(chunk, job, due)
        killed: dict[str, dict[tuple[int, int], dict[str, Any]]] = {"FAILED": {}, "CANCELLED": {}}
        held: dict[tuple[int, int], Word] = {}
        for task, runs in due.items():
            rows_of = {key: rows[jobs.get(key, chunk.id)].get(task) for key in runs}
            judged = {
                key: self._final(chunk, row, known, key, starts.get(key))
                for key, row in rows_of.items()
            }
            said = {key: word for key, word in judged.items() if word is not None}
            for key in said.keys() & starts.keys():
                state = _killed_as(chunk, rows_of[key], _kinds(known, key))
                if state is not None:
                    killed[state][key] = starts[key]
            unbegun = {key: word for key, word in said.items() if not _kinds(known, key)}
            with _unless_written(unbegun, held):
                for key in self._refuse(chunk, unbegun):  # somebody has begun it meanwhile
                    del said[key]
            found.update(said)
        found |= self._for_want_of_memory(chunk, killed["FAILED"], wire.killed_for_memory)
        found |= self._for_want_of_memory(chunk, killed["CANCELLED"], words.cancelled_for_memory)
        told = self._record(chunk, {key: found[key] for key in found.keys() - held.keys()}) | held
        for task, runs in due.items():
            final = all(key in told and told[key].state.final for key in runs)
            note = self._ask_again.answered if final else self._ask_again.failed
            note((chunk.name, task))
        return told

    def _starts(
        self, chunk: Chunk, known: Known, attempts: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Any]]:
        """What is said of the start of attempts that have begun."""
        paths = {
            f"{chunk.folder}/attempts/{key[0]}.{key[1]}.start": key
            for key in attempts
            if "start" in _kinds(known, key)
        }
        found = self.files.get(dict.fromkeys(paths, 0)) if paths else {}
        return {paths[path]: wire.attempt_record(data, "start") for path, data in found.items()}

    def _final(
        self,
        chunk: Chunk,
        row: Row | None,
        known: Known,
        key: tuple[int, int],
        start: Mapping[str, Any] | None,
    ) -> Word | None:
        """The word on a run of which the accounting has a row; ``None`` if it has none yet."""
        kinds = _kinds(known, key)
        word = words.of_ended(row, started=bool(kinds)) if row is not None else None
        if row is None or word is None or "end" in kinds:
            return word
        if row.waiting and kinds:
            return None  # it speaks of those that never started
        if not kinds:
            return _before_it(chunk, row, word)
        ended = row.ended or 0.0
        if start is not None and ended < start.get("time", 0.0) - CLOCKS:
            return None  # this is an earlier life of its allocation
        return word if self.files.now() - ended >= self.patience else None

    def _for_want_of_memory(
        self,
        chunk: Chunk,
        killed: Mapping[tuple[int, int], Mapping[str, Any]],
        why_killed: Callable[[str, str], str | None],
    ) -> dict[tuple[int, int], Word]:
        """Without cgroups Slurm ends who has too much, as FAILED or CANCELLED, and prints why.

        Of attempts in the first life of their allocation alone: all lives print into one file.
        """
        lives = {key: start.get("allocation") or {} for key, start in killed.items()}
        jobs = {key: str(it["job"]) for key, it in lives.items() if it.get("restarts") == 0}
        printed = f"{chunk.folder}/attempts/{chunk.number}.out"
        content = self.files.get({printed: 0}).get(printed, b"") if jobs else b""
        text = content.decode(errors="replace")
        said = {key: why_killed(text, job) for key, job in jobs.items()}
        return {
            key: Word(State.OUT_OF_MEMORY, f"Slurm killed it: {why}")
            for key, why in said.items()
            if why is not None
        }

    def _histories(self, chunk: Chunk, job: str, tasks: Iterable[int]) -> dict[int, Row]:
        """How allocations are, or have ended, by the accounting, else by the controller."""
        asked, name = list(tasks), commands.job_name(chunk.name)
        done = self._run(commands.sacct(job))
        accounted = done.exit_code == 0 and _by_task(commands.parse_sacct(_text(done)), job, name)
        found = accounted or {}
        if all(task in found for task in asked):
            return found
        done = self._run(commands.scontrol(job))
        rows = list(commands.parse_scontrol(_text(done)))
        found = _by_task(rows, job, name) | found
        for row in rows:
            if (row.job, row.name, row.tasks) == (job, name, ()):
                found = dict.fromkeys(asked, row) | found
        answered = done.exit_code == 0 or commands.trouble(_said(done)) is Trouble.GONE
        if accounted and answered:  # whatever has begun would be on record
            removed = (
                Row(job, (range(task, task + 1),), commands.REMOVED, name=name) for task in asked
            )
            found = _by_task(removed, job, name) | found
        return found

    def _record(
        self, chunk: Chunk, found: Mapping[tuple[int, int], Word]
    ) -> dict[tuple[int, int], Word]:
        """Write final words down, those that are alike in one line. Returns what stands."""
        alike: dict[tuple[int, Word], list[int]] = {}
        held: dict[tuple[int, int], Word] = {}
        for (index, number), word in found.items():
            alike.setdefault((number, word), []).append(index)
        for (number, word), indices in alike.items():
            line = {"indices": indices, "attempt": number, "time": self.files.now()}
            said = {"state": str(word.state), "reason": word.reason}
            with _unless_written({(index, number): word for index in indices}, held):
                self.files.append(wire.words_file(chunk.folder), {**line, **said})
        with self._lock:
            said_of = self._said_of(chunk)
            if found:
                listen(self.files, [said_of])
            return {key: said_of.words.get(key, word) for key, word in {**found, **held}.items()}

    def facts(self, chunks: Sequence[Chunk]) -> dict[str, dict[int, list[Accounted]]] | None:
        known = {commands.job_name(it.name): it for it in chunks if it.id is not None}
        if not known:
            return {}
        done = self._run(accounting.sacct([str(chunk.id) for chunk in known.values()]))
        if done.exit_code == NOT_FOUND or commands.trouble(_said(done)) is Trouble.DISABLED:
            return None
        if done.exit_code:
            raise self._refusal(done)
        found: dict[str, dict[int, list[Accounted]]] = {}
        # By name: a cluster that began to count anew has other jobs under the same ids.
        for (name, task), lives in accounting.parse(_text(done), self.site.partitions).items():
            if name in known:
                runs = commands.runs_of(known[name], task)
                shared = [replace(life, runs=len(runs)) for life in lives]
                found.setdefault(known[name].name, {}).update(dict.fromkeys(runs, shared))
        return found

    def record(self, chunk: Chunk, index: int, attempt: int, word: Word) -> Word:
        return self._record(chunk, {(index, attempt): word})[index, attempt]

    # --- cancelling -----------------------------------------------------------------------

    def cancel(self, chunks: Sequence[Chunk], indices: Collection[int]) -> None:
        # The request for all of them first: agents begin no such run, and end one that goes on,
        # whatever becomes of this process. And who sees the signal must find out why it was sent.
        request = {"indices": sorted(indices), "request": "cancel", "time": self.files.now()}
        self.files.append(wire.words_file(chunks[0].folder), request)
        for chunk in chunks:
            self._cancel(chunk, {*indices}.intersection(chunk.indices))

    def _cancel(self, chunk: Chunk, indices: set[int]) -> None:
        """Take runs out of the queue, then end those that have not begun.

        In this order: who was ended would not be cancelled once more, and hold its place there.
        """
        known = wire.attempts_of(self.files.names(f"{chunk.folder}/attempts") or ())
        if chunk.id is not None:
            self._scancel(chunk, indices, known)
        fresh = {(index, 1): CANCELLED for index in indices - known.keys()}
        again = self._requeued(chunk, indices & known.keys(), known)
        self._refuse(chunk, fresh | {key: CANCELLED for key in again.items()})

    def _refuse(
        self, chunk: Chunk, attempts: Mapping[tuple[int, int], Word]
    ) -> list[tuple[int, int]]:
        """End attempts that have not begun, so that nobody can. Returns those that have, after all.

        Listings of other machines' files may be late; who makes the ``.start`` is never in doubt.
        """
        now, folder = self.files.now(), f"{chunk.folder}/attempts"
        contents = {
            key: wire.refused(*key, str(word.state), word.reason, now)
            for key, word in attempts.items()
        }
        paths = {key: f"{folder}/{key[0]}.{key[1]}" for key in contents}
        starts = {f"{paths[key]}.start": start for key, (start, _) in contents.items()}
        made = self.files.put_once(starts) if starts else set()
        ours = {key for key in contents if f"{paths[key]}.start" in made}
        if ours:
            self.files.put_once({f"{paths[key]}.end": contents[key][1] for key in ours})
        return [key for key in contents if key not in ours]

    def _requeued(
        self, chunk: Chunk, indices: Iterable[int], known: Mapping[int, Mapping[int, set[str]]]
    ) -> dict[int, int]:
        """The next attempts of runs whose last one has asked to be started again."""
        last = {index: max(known[index]) for index in indices}
        paths = {
            f"{chunk.folder}/attempts/{index}.{number}.end": (index, number)
            for index, number in last.items()
            if "end" in known[index][number]
        }
        found = self.files.get(dict.fromkeys(paths, 0)) if paths else {}
        ends = {paths[path]: wire.attempt_record(data, "end") for path, data in found.items()}
        return {index: n + 1 for (index, n), end in ends.items() if end and end.get("requeue")}

    def _scancel(
        self, chunk: Chunk, indices: set[int], known: Mapping[int, Mapping[int, set[str]]]
    ) -> None:
        """Take allocations out of the queue that have nothing else to do."""
        tasks = {commands.task_of(chunk, index) for index in indices}
        beside = {index for task in tasks for index in commands.runs_of(chunk, task)} - indices
        over = {
            index for index in beside & known.keys() if "end" in known[index][max(known[index])]
        }
        over = over - self._requeued(chunk, over, known).keys() | indices
        idle = [task for task in tasks if over.issuperset(commands.runs_of(chunk, task))]
        if not idle:
            return
        job = str(chunk.id)
        whole = len(idle) == commands.allocations(chunk)
        named = f"--name={commands.job_name(chunk.name)}"
        done = self._run(["scancel", named, job if whole else commands.several(job, idle)])
        if done.exit_code and commands.trouble(_said(done)) is not Trouble.GONE:
            raise self._refusal(done)

    # --- calls ----------------------------------------------------------------------------

    def _rows(self, *, ended: bool = False, names: Sequence[str] = ()) -> list[Row]:
        done = self._run(commands.squeue(ended=ended, names=names))
        if done.exit_code:
            raise self._refusal(done)
        return list(commands.parse_squeue(_text(done)))

    def _run(self, argv: Sequence[str]) -> Completed:
        return self.files.run(argv)

    def _refusal(self, done: Completed) -> QueueError:
        said, command = _said(done), done.argv[0]
        problem = f"{self.site.name}: {command} says: {_told(done)}"
        if commands.trouble(said) in (Trouble.BUSY, Trouble.LOST):
            later = "Nothing was queued." if command == "sbatch" else "Try again in a minute."
            return QueueError(problem, later)
        kind = RefusedError if command == "sbatch" and commands.refuses(said) else QueueError
        return kind(problem, commands.advice(said, self.site.name, self.binding.account))


@contextmanager
def _unless_written(
    words: Mapping[tuple[int, int], Word], held: dict[tuple[int, int], Word]
) -> Iterator[None]:
    """Have words in ``held`` that the block cannot write down: what else is seen is told."""
    try:
        yield
    except UnreachableError:
        raise
    except TransportError as error:
        held.update({key: unwritten(word, error.problem) for key, word in words.items()})


Known = Mapping[int, Mapping[int, set[str]]]


def _kinds(known: Known, key: tuple[int, int]) -> set[str]:
    """Which files there are of an attempt."""
    return known.get(key[0], {}).get(key[1], set())


def _killed_as(chunk: Chunk, row: Row | None, kinds: set[str]) -> str | None:
    """Slurm's state of an allocation that an attempt was killed with, if it may hide why.

    Where others share the allocation, one with an ``.end`` may have been killed before that.
    """
    with_it = chunk.layout.size == 1 or "end" not in kinds
    if row is None or not with_it:
        return None
    hides = row.state == "CANCELLED" or (row.state == "FAILED" and row.signal == signal.SIGKILL)
    return row.state if hides else None


def _array(start: Mapping[str, Any]) -> str | None:
    """The array that an attempt has begun in: the queue may have had its chunk twice."""
    array = (start.get("allocation") or {}).get("array")
    return None if array is None else str(array)


def _by_task(rows: Iterable[Row], job: str, name: str) -> dict[int, Row]:
    """By name, too: ids come again when a cluster is made anew."""
    return {task: row for row in rows if (row.job, row.name) == (job, name) for task in row}


def _was_cut_off(done: Completed) -> bool:
    """Whether a call may have been done though it says nothing of it: killed, or no answer."""
    return done.exit_code == 0 or not 0 < done.exit_code < 128 or not _said(done)


def _text(done: Completed) -> str:
    return done.stdout.decode(errors="replace")


def _said(done: Completed) -> str:
    """What a command has said, its own name left out."""
    lines = (done.stderr or done.stdout).decode(errors="replace").splitlines()
    return "; ".join(line.partition("error: ")[2] or line for line in lines if line.strip())


def _told(done: Completed) -> str:
    """What a command that failed has said, and how it ended if it may have been cut short."""
    said, code = _said(done), done.exit_code
    if said and 0 < code < 128:
        return said
    killed = f"killed by signal {-code} ({wire.signal_name(-code)})"
    return f"{said or 'nothing'} ({killed if code < 0 else f'exit code {code}'})"


def _resume(chunk: Chunk) -> str:
    return f"`hpcml resume {chunk.name.rpartition('.')[0]}` asks the queue, and goes on."


def _queued_at(name: str) -> float:
    """When a batch was made, by its id, in s since the epoch."""
    return float(calendar.timegm(time.strptime(name[:15], "%Y%m%d-%H%M%S")))


def _before_it(chunk: Chunk, row: Row, word: Word) -> Word:
    """The word on a run that never began: Slurm cancels by itself what comes after a failure."""
    itself = row.by == "" or row.reason.startswith("Dependency")
    if chunk.after and row.state == "CANCELLED" and itself:
        before = ", ".join(chunk.after)
        return Word(State.CANCELLED, f"it was to run after {before}, which did not end well")
    return word


__all__ = ["SlurmScheduler"]
