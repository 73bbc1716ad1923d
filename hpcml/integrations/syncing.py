"""What `hpcml sync` does: records, and where the settings say so, their mirror."""

from __future__ import annotations

import warnings

from hpcml import records
from hpcml.errors import HpcmlError
from hpcml.settings import load_settings


def sync(site: str | None = None) -> int:
    """Record what is new on the sites, and mirror it if the settings name a store of MLflow's.

    Parameters
    ----------
    site : str, optional
        Default: all sites of the settings, and the embedded one; those that cannot be reached are
        passed over with a warning. So is a mirror.

    Returns
    -------
    int
        How many runs there was news of.

    Raises
    ------
    RecordsError
        The records cannot be written.
    HpcmlError
        The one site cannot be read.
    """
    count = records.sync(site)
    if load_settings().mlflow is not None:
        from hpcml.integrations.mlflow import mirror

        try:
            mirror()
        except HpcmlError as error:
            warnings.warn(f"the records are up to date, their mirror is not: {error}", stacklevel=2)
    return count
