"""The way to a site: one a process and site, made when first needed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcml.errors import HpcmlError, ProfileError
from hpcml.library import library_name, travelling
from hpcml.plugins import load_plugin
from hpcml.schedulers import Scheduler
from hpcml.settings import Binding, config_folder, data_folder, load_settings
from hpcml.sites import Site, load_site
from hpcml.transports import Transport

# What a program by hand would find, less whatever could be a secret.
INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True)
class Connection:
    """A site within reach.

    Attributes
    ----------
    files : Transport
        Its files and commands.
    queue : Scheduler
        Its queue.
    """

    site: Site
    binding: Binding
    files: Transport
    queue: Scheduler


# No lock: a forked child would inherit it, locked.
_open: dict[tuple[int, str, str, str], Connection] = {}


def connect(name: str, *, reload: bool = False) -> Connection:
    """The connection to a site: the one there is, or a new one (after a fork, too).

    Parameters
    ----------
    name : str
    reload : bool
        Read the profile and the settings again, and go on with the same connection if they have
        not changed.
    """
    if travelling():
        raise HpcmlError(
            "a job cannot submit or look at runs itself yet",
            "Do it from outside; submit(..., after=run) makes runs follow each other.",
        )
    key = (os.getpid(), name, str(config_folder()), str(data_folder()))
    known = _open.get(key)
    if known is not None and not reload:
        return known
    site = load_site(name)
    binding = bind(site)
    if known is not None and (known.site, known.binding) == (site, binding):
        return known
    files = load_plugin("hpcml.transports", site.transport)(site, binding)
    made = Connection(
        site, binding, files, load_plugin("hpcml.schedulers", site.scheduler)(site, binding, files)
    )
    _open[key] = made
    return made


def bind(site: Site) -> Binding:
    """What is yours on a site, from the settings.

    Raises
    ------
    ProfileError
        The workspace is not known.
    """
    yours = load_settings().sites.get(site.name)
    workspace = (yours and yours.workspace) or site.workspace
    if not workspace:
        raise ProfileError(
            f"no workspace is known on {site.name}",
            f"Write sites.{site.name}.workspace into the settings.",
        )
    try:
        folder = Path(workspace).expanduser().absolute()
    except RuntimeError as error:  # there is no such user
        raise ProfileError(
            f"the workspace {workspace} of {site.name} cannot be found: {error}",
            f"Write another sites.{site.name}.workspace into the settings.",
        ) from error
    return Binding(
        workspace=str(folder),
        python=(yours and yours.python) or sys.executable,
        agent_python=site.python or sys.executable,
        library=library_name(),
        account=yours.account if yours else None,
        user=yours.user if yours else None,
        environment={key: os.environ[key] for key in INHERITED if key in os.environ},
    )
