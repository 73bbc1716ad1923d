"""Which account pays for a job, by the site's rules."""

from __future__ import annotations

import re

from hpcml.errors import PlanError
from hpcml.planning.fitting import Misfit
from hpcml.planning.sources import said
from hpcml.settings import Binding
from hpcml.sites import Partition, Site
from hpcml.sites.facts import OPTION


def check_own_account(name: str, site: Site, binding: Binding, doubts: list[str]) -> None:
    """A partition with an account of its own is not for who has none.

    Raises
    ------
    Misfit
    """
    if not site.partitions[name].own_account or name in binding.accounts:
        return
    key = f"partitions.{name}.own_account"
    problem = f"{name} is paid from another account than the rest{said(site, key)}"
    if not site.is_hint(key):
        raise Misfit("account", problem, _advice(site, f"accounts.{name}"))
    doubts.append(f"account: {problem}")


def account(
    name: str, partition: Partition, site: Site, binding: Binding, decisions: list[str]
) -> str | None:
    """The account that pays for jobs in a partition.

    Raises
    ------
    PlanError
        It is not known; the message has the site's own rule.
    """
    own = binding.accounts.get(name)
    found = binding.account if own is None else own
    if found is None:
        if site.account_required and not site.is_hint("account_required"):
            told = said(site, "account_required")
            problem = f"{site.name} wants to know who pays{told}"
            raise PlanError("account", problem, _advice(site, "account"))
        return None
    if not re.fullmatch(OPTION, found):
        problem = f"{found!r} cannot stand in a batch script"
        raise PlanError("account", problem, f"Mend it in the settings: sites.{site.name}.")
    named = partition.account_named(found)
    if named != found:
        told = said(site, f"partitions.{name}.account_suffix")
        decisions.append(
            f"account {named}: in {name} accounts end in {partition.account_suffix}{told}"
        )
    elif own is not None:
        decisions.append(f"account {found}: yours for {name}")
    return named


def account_rule(site: Site) -> str:
    """What the site says of its accounts, as a sentence; empty if that is not known."""
    rule = site.account_rule.rstrip(".")
    return f"Of accounts on {site.name}: {rule}{said(site, 'account_rule')}." if rule else ""


def _advice(site: Site, key: str) -> str:
    return f"Write sites.{site.name}.{key} into the settings. {account_rule(site)}".rstrip()
