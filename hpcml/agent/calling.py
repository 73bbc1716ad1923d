"""Functions: how the agent has one called, and what it left (its other half: hpcml.call)."""

import os
import sys

from hpcml.agent import launch, processes, supervise, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcml.agent.attempt import Attempt
    from hpcml.agent.memory import Limit

EXCEPTION = "exception.json"
UNCOMPLETED = ("submitit.core.utils", "UncompletedJobError")
NO_MORE = "it may not be requeued once more"


def start(attempt: "Attempt", limit: "Limit", streams: "list[int]") -> "supervise.Command":
    """Have the function called: in the fork of a warm interpreter, or in a fresh one."""
    slot, argv = attempt.slot, command(attempt)
    if attempt.what.get("image") is not None:  # a fork could not be told from outside of it
        return attempt.spawn(launch.around(attempt, argv), limit, streams)
    argv = launch.prepared(attempt, argv)
    if not slot.many or attempt.what["entry"].get("fork") is False:
        return attempt.spawn(argv, limit, streams)
    from hpcml.agent.warm import Warm

    warm = slot.warm
    if warm is None:
        environment = dict(attempt.environment(), **{processes.SLOT_VARIABLE: slot.name})
        try:
            warm = Warm(argv, environment, streams)
        except OSError:
            return attempt.spawn(argv, limit, streams)  # which tells what is wrong
        slot.keep_warm(warm)
    request = {
        "folder": attempt.folder,
        "work": attempt.work,
        "environment": attempt.of_this_run(),
        "gate": limit.gate,
    }
    try:
        forked = warm.fork(request)
    except OSError:  # it has died since the last run
        return attempt.spawn(argv, limit, streams)
    attempt.events.write("command", argv=argv, pid=warm.pid)
    return forked


def command(attempt: "Attempt") -> "list[str]":
    """Call :func:`hpcml.call.main`; the travelling file knows the way."""
    what, where = attempt.what, attempt.where
    root = wire.workspace_of(attempt.batch)
    code = os.path.join(root, "code")
    return [
        where["python"],
        os.path.abspath(sys.path[0]),
        "call",
        attempt.batch,
        os.path.join(root, "lib", where["functions"]),
        os.path.join(code, what["code"]) if what["code"] else "",
    ]


def clear(folder: str) -> None:
    """Remove what an earlier attempt left: its exception, and a result half-written."""
    for name in os.listdir(folder):
        if name == EXCEPTION or name.endswith((".save_tmp", "_result.pkl")):
            os.unlink(os.path.join(folder, name))


def judge(attempt: "Attempt", outcome: "supervise.Outcome") -> None:
    """A function has ended well only if it returned; an exception is the reason if it did not."""
    if outcome.received or outcome.cause is not None:
        return
    raised = _exception(attempt.folder)
    if outcome.exit_code != 0 and raised is not None:
        said = raised["message"].strip().split("\n")[0][:200]
        outcome.blame(wire.FAILED, "%s: %s" % (raised["type"], said) if said else raised["type"])
    elif outcome.exit_code == 0 and not os.path.exists(result(attempt.folder, attempt.id)):
        outcome.blame(wire.FAILED, "it ended with exit code 0 before its function returned")


def tidy(attempt: "Attempt") -> None:
    """Remove what submitit was given: only a further attempt needs it."""
    try:
        os.unlink(os.path.join(attempt.folder, attempt.id + "_submitted.pkl"))
    except OSError:
        pass


def refusal(folder: str) -> str:
    """Why submitit ended a function that was asked to save its state; empty if it did not."""
    raised = _exception(folder)
    if raised is None or (raised["module"], raised["type"]) != UNCOMPLETED:
        return ""
    if "returned None" in raised["message"]:
        return "its checkpoint method returned None"
    return NO_MORE


def result(folder: str, run: str) -> str:
    """Where submitit writes what a function returned."""
    return os.path.join(folder, run + "_0_result.pkl")


def _exception(folder: str) -> "dict[str, Any] | None":
    try:
        found: "dict[str, Any] | None" = wire.read_json(os.path.join(folder, EXCEPTION))
        return found
    except ValueError:
        return None
