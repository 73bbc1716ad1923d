"""One attempt of one run: take it, prepare its folder, run the command, say how it ended."""

import errno
import json
import os
import re
import subprocess
import sys
import time

from hpcml.agent import events, facts, memory, processes, snapshot, supervise, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

END_PAUSES = (0.1, 1.0, 5.0, 10.0, 15.0)  # seconds between tries to record an end
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


def load_point(batch: str, index: int) -> "Any":
    """Line ``index`` of ``points.jsonl``: what this run has of its own."""
    with open(os.path.join(batch, "points.jsonl"), "rb") as file:
        for number, line in enumerate(file):
            if number == index:
                return json.loads(line.decode("utf-8"))
    raise AgentError("%s/points.jsonl has no line %d" % (batch, index))


def run(batch: str, index: int) -> int:
    """Run one attempt. Returns the command's exit code, 128 + n if signal n killed it.

    Who finds the attempt taken returns 0 and judges nothing.
    """
    signals = supervise.Signals()
    plan, point = load_plan(batch), load_point(batch, index)
    number = int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1
    attempts = wire.Attempts(batch)
    if not attempts.start(index, number):
        return 0
    attempt = Attempt(batch, index, plan, point, signals)
    outcome = attempt.perform()
    _record_end(attempts, number, attempt, outcome)
    return 128 + outcome.signal if outcome.signal is not None else outcome.exit_code or 0


def _record_end(
    attempts: wire.Attempts, number: int, attempt: "Attempt", outcome: supervise.Outcome
) -> None:
    """Write ``.end``; a disk that is full now may have room in a moment."""
    for pause in (*END_PAUSES, None):
        try:
            attempts.end(
                attempt.index,
                number,
                exit_code=outcome.exit_code,
                signal=outcome.signal,
                received=outcome.received,
                cause=outcome.cause,
                reason=outcome.reason,
                usage=attempt.usage,
                outputs=attempt.outputs,
                events_lost=attempt.events.lost,
            )
            return
        except OSError as error:
            if pause is None:  # the exit code still tells the scheduler
                said = "hpcml: the end of run %s could not be recorded: %s\n" % (attempt.id, error)
                sys.stderr.write(said)
            else:
                time.sleep(pause)


class Attempt:
    """The folder and the command of a run.

    Attributes
    ----------
    usage : dict
        What the run used (see :func:`hpcml.agent.events.usage_since`), and ``peak_memory`` in
        bytes: of its cgroup where it has one, else the most that was seen at any look, but the
        largest process at least.
    outputs : dict
        ``{path: {"sha256", "bytes"}}`` of the declared outputs that are there.
    """

    def __init__(
        self,
        batch: str,
        index: int,
        plan: "dict[str, Any]",
        point: "dict[str, Any]",
        signals: "supervise.Signals",
    ) -> None:
        self.batch, self.index, self.signals = batch, index, signals
        self.what, self.where = plan["what"], plan["where"]
        self.params = dict(self.what["params"], **point.get("params", {}))
        self.id = wire.run_id(batch, index)
        self.folder = os.path.join(batch, str(index))
        self.work = os.path.join(self.folder, "work")
        self.events = events.Events(os.path.join(self.folder, "events.jsonl"))
        self.adopting = False
        self.usage: "dict[str, Any]" = {}
        self.outputs: "dict[str, dict[str, Any]]" = {}

    def perform(self) -> "supervise.Outcome":
        """Prepare, run and account. Whatever goes wrong becomes an Outcome with its reason."""
        try:
            try:
                self._prepare()
                run = self._start()
            except (OSError, snapshot.SnapshotError, StartError) as error:
                code = error.exit_code if isinstance(error, StartError) else 1
                return _failure(code, "before its command started: %s" % error)
            outcome = self._watch(*run)
            self._account_outputs(outcome)
        except Exception:  # a fault of the agent's own: say so, and leave nothing running
            import traceback

            processes.kill_all(self.id, os.getpid())
            return _failure(70, "hpcml's agent failed: %s" % traceback.format_exc(limit=-3))
        self.events.write("end", exit_code=outcome.exit_code, signal=outcome.signal, **self.usage)
        self.events.tidy()
        return outcome

    def _prepare(self) -> None:
        if not os.path.isdir(self.folder):
            os.mkdir(self.folder, 0o700)
        self.events.write("start", run=self.id, agent=os.getpid(), **facts.host_facts())
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

    def _start(self) -> "tuple[subprocess.Popen[bytes], memory.Limit]":
        argv = self._argv()
        limit = memory.Limit(self.what["limits"]["memory"], self.id)
        self.adopting = processes.adopt_orphans()
        try:
            child = self._spawn(argv, limit)
        except OSError as error:
            limit.close()
            raise StartError(argv[0], error)
        self.events.write("command", argv=argv, pid=child.pid)
        return child, limit

    def _watch(
        self, child: "subprocess.Popen[bytes]", limit: "memory.Limit"
    ) -> "supervise.Outcome":
        before, limits = events.input_output(), self.what["limits"]
        outcome = supervise.Supervisor(
            child.pid, self.id, limits, limit, self.signals, self.events, self.adopting
        ).watch()
        child.returncode = 0  # collected by the supervisor
        limit.close()
        usage = events.usage_since(before)
        peak = limit.peak or 0
        if limit.folder is None:  # looks from time to time miss a short peak
            peak = max(peak, usage["max_rss"])
        self.usage = dict(usage, peak_memory=peak or None)
        return outcome

    def _spawn(self, argv: "list[str]", limit: "memory.Limit") -> "subprocess.Popen[bytes]":
        streams = [
            os.open(
                os.path.join(self.folder, name),
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
                0o600,
            )
            for name in ("stdout", "stderr")
        ]
        try:
            return subprocess.Popen(
                argv,
                cwd=self.work,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                start_new_session=True,
                preexec_fn=limit.enter if limit.folder else None,
            )
        finally:
            for stream in streams:
                os.close(stream)

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

    def _environment(self) -> "dict[str, str]":
        environment = dict(self.where["environment"])
        environment.update(self.what["env"])
        library = os.path.abspath(sys.path[0])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (library, environment.get("PYTHONPATH")))
        )
        environment["HPCML_BATCH"] = self.batch
        environment["HPCML_INDEX"] = str(self.index)
        environment[processes.RUN_VARIABLE] = self.id
        for name, path in self.where["inputs"].items():
            environment["HPCML_INPUT_" + name.upper()] = path
        return environment

    def _account_outputs(self, outcome: "supervise.Outcome") -> None:
        """Digest the declared outputs; a missing one fails a run that says it succeeded."""
        missing = []
        for output in self.what["outputs"]:
            path = os.path.join(self.work, output["path"])
            try:
                digest, size = wire.digest_path(path)
                self.outputs[output["path"]] = {"sha256": digest, "bytes": size}
            except OSError as error:
                missing.append("%r (%s)" % (output["path"], why_missing(error, self.work)))
        if missing and outcome.exit_code == 0 and not outcome.received:
            names = ", ".join(missing)
            outcome.blame(wire.FAILED, "it ended well but without its output %s" % names)

    def _workspace(self, name: str) -> str:
        return os.path.join(os.path.dirname(os.path.dirname(self.batch)), name)


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
