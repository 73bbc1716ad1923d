"""Whether a profile says what the cluster itself does."""

from __future__ import annotations

from hpcml.settings import SiteSettings
from hpcml.sites import Site
from hpcml.surveying.finding import Finding
from hpcml.surveying.model import Cluster


def disagreements(site: Site, cluster: Cluster, yours: SiteSettings | None = None) -> list[Finding]:
    """What of a profile, and of your settings, the cluster contradicts, confirms or does not say.

    Parameters
    ----------
    site : Site
    cluster : Cluster
    yours : SiteSettings, optional
        What the settings say of the site.

    Returns
    -------
    list of Finding
        Each names the fact, its file and line, what the cluster said, and what to write.
    """
    return []
