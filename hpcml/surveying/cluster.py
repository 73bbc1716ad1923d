"""A live Slurm is asked, by its commands for people: each once, for all partitions and nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hpcml.agent.commands import NOT_FOUND
from hpcml.errors import CommandError
from hpcml.surveying.answers import (
    OF_ASSOCIATION,
    OF_QOS,
    first_word,
    parse_associations,
    parse_config,
    parse_nodes,
    parse_partitions,
    parse_qos,
)
from hpcml.surveying.finding import NoAnswerError
from hpcml.surveying.model import Cluster
from hpcml.surveying.shell import Commands, answered

NO_SLURM = "Slurm's commands must be on PATH of a login shell there. Is this a login node?"
SILENT = "Slurm's controller may be down: try again later, or see the site's news."
PRIVATE = "The site may keep it from users (PrivateData), or its accounting may be down."

T = TypeVar("T")


def cluster_of(files: Commands) -> Cluster:
    """Ask a Slurm for all that a profile may say of it: seven commands at most.

    Raises
    ------
    CommandError
        There is no Slurm, or its controller does not answer.
    NoAnswerError
        A command hangs.
    TransportError
        The site cannot be reached.
    """
    config = parse_config(_asked(files, ["scontrol", "show", "config"], SILENT))
    nodes = parse_nodes(_asked(files, ["scontrol", "--all", "--oneliner", "show", "node"]))
    partitions = parse_partitions(
        _asked(files, ["scontrol", "--all", "--oneliner", "show", "partition"]), nodes
    )
    user = _asked(files, ["id", "-un"]).strip()
    if not config.accounting:
        return Cluster(config, partitions, nodes, user)
    unanswered: list[str] = []

    def shown(parse: Callable[[str], T], *what: str) -> T | None:
        try:
            return parse(_asked(files, ["sacctmgr", "-nP", "show", *what]))
        except (CommandError, NoAnswerError) as error:
            unanswered.append(error.problem)
            return None

    whose = (f"user={user}", *([f"cluster={config.name}"] if config.name else []))
    associations = shown(parse_associations, "assoc", *whose, _format(OF_ASSOCIATION))
    default = shown(first_word, "user", f"name={user}", _format(["DefaultAccount"]))
    qos = shown(parse_qos, "qos", _format(OF_QOS))
    return Cluster(
        *(config, partitions, nodes, user, default),
        *(associations, qos, tuple(unanswered)),
    )


def _asked(files: Commands, argv: Sequence[str], advice: str = PRIVATE) -> str:
    done = answered(argv, lambda: files.run(argv))
    if done.exit_code:
        output = (done.stderr or done.stdout).decode(errors="replace")
        missing = done.exit_code == NOT_FOUND
        raise CommandError(argv, done.exit_code, output, NO_SLURM if missing else advice)
    return done.stdout.decode(errors="replace")


def _format(columns: Sequence[str]) -> str:
    return f"format={','.join(columns)}"
