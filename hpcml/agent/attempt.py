"""One attempt of one run: prepare its folder, run the command, say how it ended."""

import errno
import json
import os
import re
import sys

from hpcml.agent import (
    calling,
    events,
    launch,
    memory,
    processes,
    snapshot,
    starting,
    supervise,
    wire,
)
from hpcml.agent.inputs import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from hpcml.agent.slot import Slot

LAST_WORDS = 65536  # bytes of stderr in which srun says what it knows of the end
PRELUDE_WORDS = 400  # bytes of stderr that tell why a line of the prelude failed
TEMPLATE = r"\{(params|inputs)\.([^{}]+)\}"


class AgentError(Exception):
    """The batch's files are not what they must be; nothing was started."""


class StartError(Exception):
    """The command cannot be started; ``exit_code`` is what shells say then."""

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__("%r cannot be run: %s" % (command, error.strerror))
        self.exit_code = 127 if error.errno == errno.ENOENT else 126


def load_plan(batch: str) -> "Any":
    """``plan.json``, verified: a half-written one never runs."""
    try:
        plan = wire.read_json(os.path.join(batch, "plan.json"))
    except ValueError as error:
        raise AgentError("%s/plan.json is torn: %s" % (batch, error))
    if plan is None:
        raise AgentError("there is no %s/plan.json" % batch)
    if plan["schema"] != wire.SCHEMA:
        raise AgentError(
            "plan.json has schema %s, this agent reads %d" % (plan["schema"], wire.SCHEMA)
        )
    if wire.sha256(wire.canonical(plan["what"])) != plan["digest"]:
        raise AgentError("%s/plan.json is not what its digest says" % batch)
    return plan


class Points:
    """The lines of ``points.jsonl``: what each run has of its own; parsed when asked for."""

    def __init__(self, batch: str, plan: "Mapping[str, Any]") -> None:
        self.path = os.path.join(batch, wire.POINTS)
        self.data = wire.ONE_POINT
        if wire.has_points(plan["batch"]):
            with open(self.path, "rb") as file:
                self.data = file.read()
        self.offsets = [0]
        self.offsets += [match.end() for match in re.finditer(b"\n", self.data)]

    def __getitem__(self, index: int) -> "Point":
        if index + 1 >= len(self.offsets):
            raise AgentError("%s has no line %d" % (self.path, index))
        line = self.data[self.offsets[index] : self.offsets[index + 1]]
        return Point(self.offsets[index], json.loads(line.decode("utf-8")))


class Point:
    """A run's line of ``points.jsonl``, and where it begins."""

    def __init__(self, offset: int, content: "dict[str, Any]") -> None:
        self.offset, self.content = offset, content


class Attempt:
    """The folder and the command of one attempt of a run.

    Attributes
    ----------
    begun : bool
        Whether its command was started.
    inputs : dict
        SHA-256 of each input, as it was when the run started.
    usage : dict
        What the run used (see :meth:`hpcml.agent.supervise.Usage.as_data`), and ``peak_memory`` in
        bytes: of its cgroup where it has one, else the most that was seen at any look, but the
        largest process at least.
    outputs : dict
        ``{path: {"sha256", "bytes", "stamp"}}`` of the declared outputs that are there.
    """

    def __init__(self, slot: "Slot", index: int, number: int, point: Point) -> None:
        self.slot, self.batch, self.index, self.number = slot, slot.batch, index, number
        self.what, self.where = slot.plan["what"], slot.plan["where"]
        self.params = dict(self.what["params"], **point.content.get("params", {}))
        self.offset = point.offset
        self.id = wire.run_id(self.batch, index)
        self.folder = os.path.join(self.batch, str(index))
        self.work = os.path.join(self.folder, "work")
        self.events = events.Events(os.path.join(self.folder, "events.jsonl"))
        self.begun = False
        self.usage: "dict[str, Any]" = {}
        self.inputs: "dict[str, str]" = {}
        self.outputs: "dict[str, dict[str, Any]]" = {}

    def perform(self) -> "supervise.Outcome":
        """Prepare, run and account. Whatever goes wrong becomes an Outcome with its reason."""
        try:
            try:
                self._prepare()
                outcome = self._run()
            except (OSError, snapshot.SnapshotError, InputError, StartError) as error:
                if self.begun:
                    raise
                code = error.exit_code if isinstance(error, StartError) else 1
                return _failure(code, "before its command started: %s" % error)
            self._judge_prelude(outcome)
            self._judge(outcome)
        except Exception:  # a fault of the agent's own: say so, and leave nothing running
            import traceback

            said = traceback.format_exc(limit=-3)
            self.slot.let_go()  # what it still says of this run must not be heard in the next
            processes.kill_all(self.id, os.getpid(), reap=processes.collect)
            return _failure(70, "hpcml's agent failed: %s" % said)
        if self.what["entry"]["kind"] == "function" and not outcome.requeue:
            calling.tidy(self)
        self.events.write("end", exit_code=outcome.exit_code, signal=outcome.signal, **self.usage)
        self.events.tidy()
        return outcome

    def _prepare(self) -> None:
        if not os.path.isdir(self.folder):
            os.mkdir(self.folder, 0o700)
        self.events.write(
            "start", run=self.id, agent=os.getpid(), attempt=self.number, **self.slot.host
        )
        self.inputs = self.slot.inputs.check()
        if not os.path.isdir(self.work):  # a later attempt goes on in the folder of the first
            self._make_work()

    def _make_work(self) -> None:
        """It appears whole: a killed agent leaves nothing half-filled to the next attempt."""
        fresh = self.work + ".tmp"
        if os.path.isdir(fresh):
            snapshot.remove(fresh)
        os.mkdir(fresh, 0o700)
        if self.what["code"]:
            code = snapshot.unpack(self._workspace("code"), self.what["code"])
            outputs = [output["path"] for output in self.what["outputs"]]
            snapshot.lay_out(os.path.join(code, self.what["folder"]), fresh, outputs)
        os.rename(fresh, self.work)

    def _run(self) -> "supervise.Outcome":
        """Start the command and watch it to its end."""
        limit = memory.Limit(self.what["limits"]["memory"], self.id, self.slot.spare)
        streams = [self._stream("stdout"), self._stream("stderr")]
        sizes = [os.fstat(stream).st_size for stream in streams]
        try:
            supervisor = self._watch(limit, streams)
            if supervisor.command.refused is not None:  # once more, in a fresh interpreter
                self.events.write("refused", why=supervisor.command.refused)
                self.slot.many = False
                for stream, size in zip(streams, sizes):
                    os.ftruncate(stream, size)  # what the import printed it will print again
                supervisor = self._watch(limit, streams)
        finally:
            for stream in streams:
                os.close(stream)
            limit.close()
        if supervisor.outcome.exit_code and self.what.get("launcher") == "srun":
            self._hear_slurm(supervisor.outcome, sizes[1])
        usage = supervisor.usage.as_data()
        peak = limit.peak or 0
        if limit.folder is None:  # looks from time to time miss a short peak
            peak = max(peak, usage["max_rss"])
        self.usage = dict(usage, peak_memory=peak or None)
        return supervisor.outcome

    def _hear_slurm(self, outcome: "supervise.Outcome", since: int) -> None:
        """Ranks are not this agent's processes: what killed them, Slurm says by way of srun."""
        said, job = self._last_words(LAST_WORDS, since), self.slot.allocation.job
        killed = wire.killed_for_memory(said, job)
        if killed is not None:
            outcome.blame(wire.OUT_OF_MEMORY, "a rank was killed for want of memory: %s" % killed)
        # A node was lost, say: srun hears of that before Slurm ends this agent.
        outcome.aborted = wire.aborted_by_slurm(said, job)

    def _last_words(self, most: int, since: int = 0) -> str:
        """What its stderr ends with, of so many bytes; nothing if the job has removed it."""
        try:
            with open(os.path.join(self.folder, "stderr"), "rb") as file:
                file.seek(max(since, os.fstat(file.fileno()).st_size - most))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def _watch(self, limit: "memory.Limit", streams: "list[int]") -> "supervise.Supervisor":
        if self.what["entry"]["kind"] == "function":
            calling.clear(self.folder)
            command = calling.start(self, limit, streams)
        else:
            command = self.spawn(launch.around(self, self._argv()), limit, streams)
        self.begun = True
        supervisor = supervise.Supervisor(
            command,
            self.index,
            self._limits(),
            limit,
            self.slot,
            self.events,
            launch.telling(self),
        )
        supervisor.watch()
        return supervisor

    def _limits(self) -> "dict[str, Any]":
        """The plan's, and no more time than the allocation has left."""
        limits: "dict[str, Any]" = self.what["limits"]
        left = self.slot.allocation.time_left()
        if left is None or limits["time"] is None or left >= limits["time"]:
            return limits
        return dict(limits, time=max(left, 0.0))

    def _stream(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(os.path.join(self.folder, name), flags, 0o600)

    def spawn(
        self, argv: "list[str]", limit: "memory.Limit", streams: "list[int]"
    ) -> supervise.Command:
        """Start a process of its own."""
        try:
            environment = dict(self.environment(), **self.of_this_run())
            child = starting.start(argv, self.work, environment, streams, enter=limit.enter)
        except OSError as error:
            raise StartError(argv[0], error)
        self.events.write("command", argv=argv, pid=child)
        return supervise.Command(child)

    def _argv(self) -> "list[str]":
        entry, python = self.what["entry"], self.where["python"]
        target = entry["target"]
        if entry["kind"] == "command":
            return [self._fill(part) for part in target]
        if target.startswith("-"):
            target = "./" + target
        start = {"script": [python], "module": [python, "-m"], "shell": entry.get("interpreter")}
        argv: "list[str]" = start[entry["kind"]] + [target]
        if self.what["args"] is not None:
            return argv + [self._fill(part) for part in self.what["args"]]
        return argv + [
            "--%s=%s" % (name, as_argument(value))
            for name, value in self.params.items()
            if value is not None
        ]

    def _fill(self, template: str) -> str:
        """Put parameters and input paths in the place of ``{params.x}`` and ``{inputs.x}``."""
        values = {"params": self.params, "inputs": self.where["inputs"]}

        def value(match: "re.Match[str]") -> str:
            return as_argument(values[match.group(1)][match.group(2)])

        return re.sub(TEMPLATE, value, template) if "{" in template else template

    def environment(self) -> "dict[str, str]":
        """The environment of all runs of the batch."""
        environment = self.slot.allocation.environment(self.where["environment"])
        environment.update(self.what["env"])
        library = os.path.abspath(sys.path[0])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (library, environment.get("PYTHONPATH")))
        )
        for name, path in self.where["inputs"].items():
            environment["HPCML_INPUT_" + name.upper()] = path
        return environment

    def of_this_run(self) -> "dict[str, str]":
        """What a run's environment has of its own."""
        own = {
            "HPCML_BATCH": self.batch,
            "HPCML_INDEX": str(self.index),
            "HPCML_POINT": str(self.offset),
            processes.RUN_VARIABLE: self.id,
        }
        checkpoint = self.what.get("checkpoint")
        if checkpoint is not None:
            own["HPCML_CHECKPOINT"] = os.path.join(self.work, checkpoint["path"])
        own.update(launch.rendezvous(self.what))
        return own

    # --- the end --------------------------------------------------------------------------

    def _judge(self, outcome: "supervise.Outcome") -> None:
        """Whether it goes on, what it left behind, and what nobody else can say of its end."""
        if self._asks_to_go_on(outcome):
            if self.number <= self.what["checkpoint"]["requeues"]:
                outcome.requeue = True
                return
            self._blame_for_asking(outcome)
        signalled = outcome.signal is not None or wire.cut_off(outcome.__dict__)
        if signalled and self.slot.cancelled(self.index):
            outcome.blame(wire.CANCELLED, "cancelled while it ran")
        if signalled and self.slot.embedded:  # this agent is all there is of a scheduler
            outcome.blame(wire.FAILED, wire.ended_on_signals(outcome.__dict__))
        if self.what["entry"]["kind"] == "function":
            self._judge_function(outcome)
        self._account_outputs(outcome)

    def _judge_prelude(self, outcome: "supervise.Outcome") -> None:
        """Whether the site's modules or its prelude failed, so that nothing was started."""
        line = launch.failed_line(self)
        if line is None or outcome.received:
            return
        words = self._last_words(PRELUDE_WORDS).split()
        end = "exit code %s" % outcome.exit_code
        if outcome.signal is not None:
            end = "signal %s" % outcome.signal
        why = " ".join(words) or end
        outcome.blame(wire.FAILED, "before its command started, %r failed: %s" % (line, why))

    def _judge_function(self, outcome: "supervise.Outcome") -> None:
        refusal = calling.refusal(self.folder) if outcome.exit_code and not outcome.received else ""
        if refusal == calling.NO_MORE:
            self._blame_for_asking(outcome)
        elif refusal and outcome.noticed:
            outcome.blame(wire.TIMEOUT, "its walltime was over, and %s" % refusal)
        elif refusal:
            outcome.blame(wire.FAILED, "it was asked to save its state, and %s" % refusal)
        calling.judge(self, outcome)

    def _blame_for_asking(self, outcome: "supervise.Outcome") -> None:
        """It would go on, and has been requeued as often as it may."""
        if outcome.noticed:
            reason = "its walltime was over, and it may not be requeued once more"
            return outcome.blame(wire.TIMEOUT, reason)
        most = self.what["checkpoint"]["requeues"]
        reason = "it asked to be requeued once more, and Checkpoint(requeues=%d) is used up" % most
        return outcome.blame(wire.FAILED, reason)

    def _asks_to_go_on(self, outcome: "supervise.Outcome") -> bool:
        asks = outcome.exit_code == wire.REQUEUE and self.what.get("checkpoint") is not None
        return asks and outcome.cause is None and not outcome.received

    def _account_outputs(self, outcome: "supervise.Outcome") -> None:
        """Digest the declared outputs; a missing one fails a run that says it succeeded."""
        missing = []
        for output in self.what["outputs"]:
            path = os.path.join(self.work, output["path"])
            try:
                digest, size = wire.digest_path(path)
                stamp = wire.stamp_path(path)
                self.outputs[output["path"]] = {"sha256": digest, "bytes": size, "stamp": stamp}
            except OSError as error:
                if not (output.get("optional") and error.errno == errno.ENOENT):
                    missing.append("%r (%s)" % (output["path"], why_missing(error, self.work)))
        if missing and outcome.exit_code == 0 and not outcome.received:
            names = ", ".join(missing)
            outcome.blame(wire.FAILED, "it ended well but without its output %s" % names)

    def _workspace(self, name: str) -> str:
        return os.path.join(wire.workspace_of(self.batch), name)


def _failure(exit_code: int, reason: str) -> "supervise.Outcome":
    outcome = supervise.Outcome()
    outcome.exit_code = exit_code
    outcome.blame(wire.FAILED, reason)
    return outcome


def why_missing(error: OSError, work: str) -> str:
    """What is wrong with an output, with the path within ``work/``."""
    path = os.path.relpath(str(error.filename), work) if error.filename else "it"
    return "%s: %s" % (path, error.strerror)


def as_argument(value: "Any") -> str:
    """A parameter as one argument: text as it is, True and numbers as Python writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
