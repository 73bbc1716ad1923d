"""What a live Slurm says of a cluster. What a version of it does not say is ``None``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Config:
    """What holds for the whole cluster.

    Attributes
    ----------
    max_array : int or None
        Most tasks of an array, whose indices begin at 0; 0: there are no arrays.
    kill_wait : float or None
        Between TERM and KILL, in s.
    enforced : frozenset of str or None
        What of the accounting jobs are held to: associations, limits, qos, safe.
    accounting : bool or None
        Whether there is any.
    energy : tuple of str or None
        Plugins that gather it.
    """

    name: str | None
    version: str | None
    max_array: int | None
    kill_wait: float | None
    select: str | None
    enforced: frozenset[str] | None
    accounting: bool | None
    energy: tuple[str, ...] | None


@dataclass(frozen=True)
class Gres:
    """Generic resources of a node: ``gpu:a100:4``."""

    name: str
    type: str | None
    count: int

    def __str__(self) -> str:
        return ":".join(filter(None, (self.name, self.type, str(self.count))))


@dataclass(frozen=True)
class Kind:
    """What nodes that are alike have in common.

    Attributes
    ----------
    cpus : int or None
        That jobs may use, as Slurm counts them.
    cores, threads : int or None
        Cores that are there, and hardware threads of each.
    reserved_cores : int
        Cores that are kept from jobs.
    memory : int or None
        That jobs may have, in bytes.
    gres : tuple of Gres
    """

    cpus: int | None
    cores: int | None
    threads: int | None
    reserved_cores: int
    memory: int | None
    gres: tuple[Gres, ...]


@dataclass(frozen=True)
class LiveNode:
    """A node.

    Attributes
    ----------
    architecture : str or None
        Of its CPUs; nodes that were never up do not say it.
    features : tuple of str
        That can be asked for as constraints.
    state : tuple of str
        ``("IDLE", "DRAIN")``.
    """

    name: str
    kind: Kind
    architecture: str | None
    features: tuple[str, ...]
    state: tuple[str, ...]
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class LivePartition:
    """A partition.

    Attributes
    ----------
    default, hidden : bool
    state : str or None
        ``UP``, ``DOWN``, ``DRAIN``, ``INACTIVE``.
    max_time : float or None
        In s; infinite: no limit.
    max_nodes, max_cpus_per_node : float or None
        Infinite: no limit.
    exclusive : bool or None
        Whether jobs get whole nodes.
    qos : str or None
        Whose limits hold for all jobs here.
    accounts, allowed_qos : tuple of str or None
        That may use it; ``None``: all.
    denied_accounts, denied_qos : tuple of str
        That may not; they do not count where those are listed that may.
    nodes : tuple of LiveNode
    """

    name: str
    default: bool
    hidden: bool
    state: str | None
    max_time: float | None
    max_nodes: float | None
    max_cpus_per_node: float | None
    exclusive: bool | None
    qos: str | None
    accounts: tuple[str, ...] | None
    allowed_qos: tuple[str, ...] | None
    denied_accounts: tuple[str, ...]
    denied_qos: tuple[str, ...]
    nodes: tuple[LiveNode, ...]

    @cached_property
    def kinds(self) -> dict[Kind, int]:
        """Its kinds of nodes and how many there are of each, most first."""
        return dict(Counter(node.kind for node in self.nodes).most_common())

    def allows_account(self, account: str) -> bool | None:
        """Whether an account may use it; ``None``: it is not listed, but one above it may be."""
        if self.accounts is None:
            return account.lower() not in self.denied_accounts
        return True if account.lower() in self.accounts else None

    def allows_qos(self, qos: str) -> bool:
        """Whether a quality of service may be used in it."""
        if self.allowed_qos is None:
            return qos.lower() not in self.denied_qos
        return qos.lower() in self.allowed_qos


@dataclass(frozen=True)
class Association:
    """Under which account a user may run jobs, and how.

    Attributes
    ----------
    partition : str or None
        Where it is valid; ``None``: in all.
    max_submit : int or None
        Most jobs in the queue; ``None``: no limit.
    """

    account: str
    partition: str | None
    qos: tuple[str, ...]
    max_submit: int | None


@dataclass(frozen=True)
class LiveQos:
    """A quality of service: limits of a job in it; ``None``: it has none.

    Attributes
    ----------
    max_time : float or None
        In s.
    max_nodes : int or None
    max_submit : int or None
        Most jobs that a user may have in the queue.
    """

    name: str
    max_time: float | None
    max_nodes: int | None
    max_submit: int | None


@dataclass(frozen=True)
class Cluster:
    """What Slurm says of a cluster, and of a user there.

    Attributes
    ----------
    partitions : dict
    nodes : tuple of LiveNode
    user : str
        Who asked.
    default_account : str or None
        That pays where a job names none; ``None``: there is none, or that is not known.
    associations : tuple of Association or None
        The user's own; ``None``: not known.
    qos : dict or None
        ``None``: not known.
    unanswered : tuple of str
        What could not be asked, and why.
    """

    config: Config
    partitions: Mapping[str, LivePartition]
    nodes: tuple[LiveNode, ...]
    user: str
    default_account: str | None = None
    associations: tuple[Association, ...] | None = None
    qos: Mapping[str, LiveQos] | None = None
    unanswered: tuple[str, ...] = ()

    def has_unseen_qos(self, live: LivePartition) -> bool:
        """Whether jobs in a partition may be under limits of a QOS that is not known."""
        enforced = self.config.enforced
        if enforced is not None and not enforced & {"limits", "qos", "safe"}:
            return False
        if self.qos is None:
            return self.config.accounting is not False
        return live.qos is not None and live.qos not in self.qos

    @property
    def needs_account(self) -> bool | None:
        """Whether a job of the user that names no account is refused; ``None``: not known."""
        enforced = self.config.enforced
        if enforced is None:
            return None
        if not enforced & {"associations", "limits", "qos", "safe"}:
            return False
        return None if self.associations is None else self.default_account is None
