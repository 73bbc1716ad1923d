"""Site profiles: model, loading."""

from hpcml.sites.loading import (
    load_site,
    packaged_profiles,
    places_of,
    profile_of,
    read_site,
    site_names,
    wrong_with,
)
from hpcml.sites.profile import Node, Partition, Site

__all__ = [
    "Node",
    "Partition",
    "Site",
    "load_site",
    "packaged_profiles",
    "places_of",
    "profile_of",
    "read_site",
    "site_names",
    "wrong_with",
]
