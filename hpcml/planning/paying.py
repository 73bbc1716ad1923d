"""Which account pays for a job, by the site's rules."""

from __future__ import annotations

from hpcml.errors import PlanError
from hpcml.planning.sources import said
from hpcml.settings import Binding
from hpcml.sites import Partition, Site


def account(
    name: str, partition: Partition, site: Site, binding: Binding, decisions: list[str]
) -> str | None:
    """The account that pays for jobs in a partition.

    Raises
    ------
    PlanError
        It is not known; the message has the site's own rule.
    """
    key, own = f"partitions.{name}", binding.accounts.get(name)
    found = binding.account if own is None else own
    if partition.own_account and own is None:
        told = said(site, f"{key}.own_account")
        if not site.is_hint(f"{key}.own_account"):
            raise _unknown(f"{name} is paid from another account than the rest{told}", site, name)
        decisions.append(f"account: {name} may be paid from another account than the rest{told}")
    if found is None:
        if site.account_required and not site.is_hint("account_required"):
            told = said(site, "account_required")
            raise _unknown(f"{site.name} wants to know who pays{told}", site)
        return None
    suffix = partition.account_suffix
    if suffix is not None and not found.endswith(suffix):
        # Added and not refused: it is the same account, and the site's way to write it. One word
        # in the settings then serves the partitions with the suffix and those without.
        found += suffix
        told = said(site, f"{key}.account_suffix")
        decisions.append(f"account {found}: in {name} accounts end in {suffix}{told}")
    elif own is not None:
        decisions.append(f"account {found}: yours for {name}")
    return found


def account_rule(site: Site) -> str:
    """What the site says of its accounts, as a sentence; empty if that is not known."""
    rule = site.account_rule.rstrip(".")
    return f"Of accounts on {site.name}: {rule}{said(site, 'account_rule')}." if rule else ""


def _unknown(problem: str, site: Site, partition: str | None = None) -> PlanError:
    key = f"accounts.{partition}" if partition else "account"
    advice = f"Write sites.{site.name}.{key} into the settings. {account_rule(site)}"
    return PlanError("account", problem, advice.rstrip())
