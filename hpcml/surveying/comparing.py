"""Whether a profile says what the cluster itself does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcml import units
from hpcml.errors import ProfileError, few
from hpcml.settings import SiteSettings, settings_of
from hpcml.sites import Partition, Site, places_of
from hpcml.surveying.accounts import Payment
from hpcml.surveying.facts import Facts, Place, time_text
from hpcml.surveying.finding import Finding, bad, ok, unknown, warn
from hpcml.surveying.limits import live_of, submit_limits
from hpcml.surveying.model import Cluster, LivePartition
from hpcml.surveying.partitions import compare_partition


def disagreements(site: Site, cluster: Cluster, yours: SiteSettings | None = None) -> list[Finding]:
    """What of a profile, and of your settings, a cluster contradicts, confirms or does not say.

    Bad is what makes Slurm refuse jobs or hpcml misjudge them; a warning, what one gives away, or
    what the profile could say.

    Parameters
    ----------
    site : Site
    cluster : Cluster
    yours : SiteSettings, optional
        What is yours there. Default: what the settings say.

    Returns
    -------
    list of Finding
        Each names the fact, its file and line, what the cluster says, and what to write.

    Raises
    ------
    ProfileError
        The settings are wrong.
    """
    if yours is None:
        yours = settings_of(site.name)
    return list(_Comparison(site, cluster, yours).findings())


class _Comparison:
    def __init__(self, site: Site, cluster: Cluster, yours: SiteSettings) -> None:
        self.site, self.cluster, self.yours = site, cluster, yours
        self.facts = Facts(site, _places(site))
        self.payment = Payment(site, cluster, yours)

    def findings(self) -> Iterator[Finding]:
        config = self.cluster.config
        yield ok(f"the cluster is {config.name or 'without a name'}, Slurm {config.version}")
        yield from (unknown(problem) for problem in self.cluster.unanswered)
        yield from self._limits()
        yield from self._energy()
        yield from self._accounts()
        yield from self._told_ok("")
        yield from self._absent()
        for name, partition in self.site.partitions.items():
            live = self._live(name, partition)
            if live is not None:
                yield from compare_partition(self.facts, name, partition, live, self.cluster)
                yield from self._qos(name, partition, live)
                yield from self._told_ok(f"partitions.{name}: ")

    def _told_ok(self, of: str) -> Iterator[Finding]:
        """What agrees, in one line."""
        keys = [".".join(place[2:] if of else place) for place in self.facts.agreed]
        self.facts.agreed.clear()
        if keys:
            yield ok(f"{of}{', '.join(keys)}: the cluster says the same")

    # --- the whole site -------------------------------------------------------------------

    def _limits(self) -> Iterator[Finding]:
        config, site = self.cluster.config, self.site
        if config.max_array == 0:
            yield bad("the cluster takes no arrays (MaxArraySize=0)", "Ask the site for them.")
        else:
            place = ("max_array",)
            yield from self.facts.most(place, site.max_array, config.max_array, "MaxArraySize")
        # A longer one would have hpcml's agent wait for what never comes.
        wait = units.seconds(site.kill_wait)
        place = ("kill_wait",)
        yield from self.facts.most(place, wait, config.kill_wait, "KillWait", time_text)
        yield from self._submitted()

    def _submitted(self) -> Iterator[Finding]:
        """Most jobs in the queue: of the user's associations, and of QOS of the partitions."""
        if self.cluster.associations is None:
            return
        found = (self._live(name, partition) for name, partition in self.site.partitions.items())
        limits = submit_limits(self.cluster, filter(None, found), self.yours.account)
        place, said = ("max_submitted",), self.site.max_submitted
        if limits:
            word, least = min(limits.items(), key=lambda it: it[1])
            if least:
                yield from self.facts.most(place, said, least, word)
            else:
                advice = "Ask the site: the account may have expired, or the QOS be closed."
                yield bad(f"{word} is 0: under it no job of yours is taken", advice)
        elif said is not None:
            told = self.facts.named(place)
            yield unknown(f"{told}; the cluster shows you no such limit (MaxSubmitJobs)")

    def _energy(self) -> Iterator[Finding]:
        plugins = self.cluster.config.energy
        meters = {n: it for n, it in enumerate(self.site.energy) if it.name == "slurm"}
        if plugins is None:
            return
        if plugins and not meters:
            told = f"the cluster gathers energy ({', '.join(plugins)}), and the profile is silent"
            line = f"{{name: slurm, scope: node, plugin: {plugins[0]}}}"
            yield warn(told, f"Write under energy: - {line}, with the scope that it has.")
        for number, meter in meters.items():
            place = ("energy", str(number), "plugin")
            word = "AcctGatherEnergyType"
            if not plugins:
                told = self.facts.named(place[:2])
                yield warn(f"{told}, the cluster gathers no energy ({word})", "Leave it out.")
            elif meter.plugin in plugins:
                yield from self.facts.agrees(place)
            else:
                yield from self.facts.same(place, meter.plugin, plugins[0], word)

    # --- accounts -------------------------------------------------------------------------

    def _accounts(self) -> Iterator[Finding]:
        needed, place = self.cluster.needs_account, ("account_required",)
        if needed and not self.site.account_required:
            problem = "the cluster refuses jobs that name no account (AccountingStorageEnforce)"
            told = self.facts.named(place)
            yield bad(f"{told}: {problem}", "Write account_required: true")
        elif needed:
            yield from self.facts.agrees(place)
        yield from self.payment.findings()

    # --- partitions -----------------------------------------------------------------------

    def _live(self, name: str, partition: Partition) -> LivePartition | None:
        return live_of(self.cluster, name, partition)

    def _absent(self) -> Iterator[Finding]:
        there, seen = self.cluster.partitions, set[str]()
        for name, partition in self.site.partitions.items():
            live = self._live(name, partition)
            if live is not None:
                seen.add(live.name)
            elif partition.partition_option:
                yield self.facts.absent(("partitions", name), name, there, "partition")
            else:
                yield unknown(f"partitions.{name}: jobs name no partition, and there is no default")
        rest = [it.name for it in there.values() if not it.hidden]
        rest = [it for it in rest if it not in seen and it not in self.site.elsewhere]
        if rest:
            advice = "`hpcml sites discover` says what they are."
            yield warn(f"the cluster has partitions that the profile lacks: {few(rest)}", advice)

    def _qos(self, name: str, partition: Partition, live: LivePartition) -> Iterator[Finding]:
        there = self.cluster.qos
        if there is None:
            if partition.qos:
                yield unknown(f"partitions.{name}.qos: the cluster shows no QOS")
            return
        for qos, said in partition.qos.items():
            place: Place = ("partitions", name, "qos", qos)
            if qos not in there:
                yield self.facts.absent(place, qos, there, "QOS")
                continue
            time = None if said.time is None else units.seconds(said.time)
            most = there[qos].max_time
            yield from self.facts.most((*place, "time"), time, most, "MaxWall", time_text)
            most_nodes = there[qos].max_nodes
            yield from self.facts.most((*place, "nodes"), said.nodes, most_nodes, "MaxTRES")
            if not live.allows_qos(qos):
                told = ".".join(place)
                yield bad(f"{told}: it may not be used in {live.name} (AllowQos)", "Leave it out.")
        yield from self._default_qos(name, partition)

    def _default_qos(self, name: str, partition: Partition) -> Iterator[Finding]:
        account, qos = self.payment.payer(name, partition), partition.default_qos
        if account is None or qos is None:
            return
        association = self.payment.association(account, name)
        if association is not None and qos not in association.qos:
            told = self.facts.named(("partitions", name, "default_qos"))
            problem = f"{told}: your account {account} may not use it"
            yield bad(problem, f"It may use {few(association.qos)}: ask for it by --qos.")


def _places(site: Site) -> Mapping[Place, str]:
    try:
        return places_of(site.name)
    except ProfileError:
        return {}  # it was read from elsewhere
