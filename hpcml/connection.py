"""The way to a site: one a process and site, made when first needed."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from hpcml.errors import ProfileError
from hpcml.library import library
from hpcml.schedulers import Scheduler, load_scheduler
from hpcml.settings import Binding, load_settings
from hpcml.sites import Site, load_site
from hpcml.transports import Transport, load_transport

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


_open: dict[tuple[int, str, str], Connection] = {}
_lock = threading.Lock()


def connect(name: str) -> Connection:
    """The connection to a site: the one there is, or a new one (after a fork, too)."""
    site = load_site(name)
    binding = bind(site)
    with _lock:
        key = (os.getpid(), name, binding.workspace)
        if key not in _open:
            files = load_transport(site.transport)(site, binding)
            queue = load_scheduler(site.scheduler)(site, binding, files)
            _open[key] = Connection(site, binding, files, queue)
        return _open[key]


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
    return Binding(
        workspace=str(Path(workspace).expanduser().absolute()),
        python=(yours and yours.python) or sys.executable,
        agent_python=site.python or sys.executable,
        library=library().name,
        account=yours.account if yours else None,
        user=yours.user if yours else None,
        environment={key: os.environ[key] for key in INHERITED if key in os.environ},
    )
