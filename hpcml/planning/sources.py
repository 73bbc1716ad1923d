"""Who says a fact of a profile, in the words of plans and errors."""

from __future__ import annotations

from hpcml.sites import Site


def said(site: Site, key: str) -> str:
    """What stands behind a fact: its source, and that it is a hint; empty where nothing is known.

    Parameters
    ----------
    site : Site
    key : str
        With dots: ``"partitions.booster.time"``.
    """
    origin = site.origin(key)
    hint = "a hint" if site.is_hint(key) else ""
    words = [hint, f"source: {origin.source}" if origin and origin.source else ""]
    told = ", ".join(filter(None, words))
    return f" ({told})" if told else ""
