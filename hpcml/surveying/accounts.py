"""Who pays on a site: the accounts that you name beside those that the cluster has for you."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from hpcml.errors import few, nearest
from hpcml.planning.paying import account_rule
from hpcml.sites import Partition, Site
from hpcml.surveying.finding import Finding, bad, ok, unknown, warn
from hpcml.surveying.limits import live_of
from hpcml.surveying.model import Association, Cluster

ACCOUNTS = "`sacctmgr show assoc user=$USER format=account,partition,qos` there lists yours."


class Yours(Protocol):
    """What of yours says who pays: your settings do, and a binding."""

    @property
    def account(self) -> str | None: ...
    @property
    def accounts(self) -> Mapping[str, str]: ...


def payers(cluster: Cluster) -> list[str] | None:
    """Accounts that somebody may name; ``None``: not known."""
    found = cluster.associations
    return None if found is None else list(dict.fromkeys(one.account for one in found))


def pays(name: str, site: Site, mine: Sequence[str]) -> bool:
    """Whether an account is among some, be it with what a partition adds to it."""
    suffixes = {"", *(one.account_suffix or "" for one in site.partitions.values())}
    known = {one.lower() for one in mine}  # as Slurm compares them
    return any(f"{name}{suffix}".lower() in known for suffix in suffixes)


class Payment:
    """Accounts that are yours by what you say, beside what the cluster says.

    Parameters
    ----------
    yours : Yours
        What you say.
    """

    def __init__(self, site: Site, cluster: Cluster, yours: Yours) -> None:
        self.site, self.cluster, self.yours = site, cluster, yours

    def payer(self, name: str, partition: Partition) -> str | None:
        """The account that would pay in a partition."""
        said = self._said(name, partition)
        return said and partition.account_named(said)

    def association(self, account: str, partition: str) -> Association | None:
        """What allows an account to pay in a partition."""
        for it in self.cluster.associations or ():
            if it.account == account.lower() and it.partition in (None, partition):
                return it
        return None

    def findings(self) -> Iterator[Finding]:
        """Whether those that you name may pay, and whether you must name one."""
        mine = payers(self.cluster)
        if not self.yours.account and not self.yours.accounts:
            yield self._unnamed(mine or [])
        elif mine is None:
            yield unknown("whether your accounts may pay: the cluster shows no accounts")
        else:
            paying = self._paying()
            wrong = {key: self._wrong(key[1], its, mine) for key, its in paying.items()}
            right = {said for (said, _), why in wrong.items() if why is None}
            for (said, account), why in wrong.items():
                if why is not None:
                    yield warn(*why) if said in right else bad(*why)
                else:
                    yield ok(f"{account} is yours")
                    yield from self._shut(account, paying[said, account])

    def _unnamed(self, mine: list[str]) -> Finding:
        needed, default = self.cluster.needs_account, self.cluster.default_account
        if needed or self.site.account_required:
            advice = f"Write sites.{self.site.name}.account into the settings"
            told = f"{advice}: {few(mine)}." if mine else f"{advice}. {account_rule(self.site)}"
            return bad("your settings name no account, and jobs must", told.rstrip())
        if needed is None:
            return unknown("no account is named; the cluster does not show whether one must be")
        return ok(f"{default} pays, the default" if default else "none is named, or needed")

    def _wrong(
        self, account: str, partitions: list[str], mine: list[str]
    ) -> tuple[str, str] | None:
        """Why an account cannot pay, and what to do about it."""
        if any(self.association(account, one) for one in partitions):
            return None
        there = [it for it in self.cluster.associations or () if it.account == account.lower()]
        bound = [it.partition for it in there if it.partition]
        if bound:
            problem = f"your account {account} is for {few(bound)} alone"
            return f"{problem}, and would pay for {few(partitions)}", ACCOUNTS
        problem = f"account {account} is none of yours ({self.cluster.user})"
        return problem, f"{nearest(account, sorted(mine))}. {ACCOUNTS}"

    def _shut(self, account: str, partitions: list[str]) -> Iterator[Finding]:
        """Partitions that an account of yours may not use."""
        may = {name: self._may_use(account, name) for name in partitions}
        shut = [name for name, it in may.items() if it is False]
        if shut:
            judge = bad if len(shut) == len(partitions) else warn
            advice = f"Write sites.{self.site.name}.accounts.{shut[0]}, if another one may."
            yield judge(f"your account {account} may not use {few(shut)}", advice)
        unsure = [name for name, it in may.items() if it is None]
        if unsure:
            problem = f"whether your account {account} may use {few(unsure)}"
            yield unknown(f"{problem}: it is not listed there (AllowAccounts), one above it may be")

    def _may_use(self, account: str, partition: str) -> bool | None:
        if self.association(account, partition) is None:
            return False
        live = live_of(self.cluster, partition, self.site.partitions[partition])
        return True if live is None else live.allows_account(account)

    def _paying(self) -> dict[tuple[str, str], list[str]]:
        """The partitions for which accounts would pay: by what you say, and what it is there."""
        found: dict[tuple[str, str], list[str]] = {}
        for name, partition in self.site.partitions.items():
            if said := self._said(name, partition):
                found.setdefault((said, partition.account_named(said)), []).append(name)
        return found

    def _said(self, name: str, partition: Partition) -> str | None:
        own = self.yours.accounts.get(name)
        return own if own or partition.own_account else self.yours.account
