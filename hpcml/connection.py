"""The way to a site: one a process and site, made when first needed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from hpcml.agent import wire
from hpcml.enclosing import enclosing_run
from hpcml.errors import HpcmlError, ProfileError
from hpcml.library import library_name, travelling
from hpcml.plugins import load_plugin
from hpcml.schedulers import Scheduler
from hpcml.settings import (
    Binding,
    SiteSettings,
    cache_folder,
    config_folder,
    data_folder,
    keep,
    settings_of,
    sites_of_settings,
)
from hpcml.site_log import telling_files, told_files, told_queue
from hpcml.sites import Site, load_site
from hpcml.sites.braces import filled, missing, names_of
from hpcml.transports import Transport


@dataclass(frozen=True)
class Connection:
    """A site within reach.

    Attributes
    ----------
    files : Transport
        Its files and commands.
    queue : Scheduler
        Its queue.

    Both tell what is done with them, if somebody listens (:mod:`hpcml.site_log`).
    """

    site: Site
    binding: Binding
    _files: Transport
    _queue: Scheduler
    _bound_by: object

    @property
    def files(self) -> Transport:
        return told_files(self.site.name, self._files)

    @cached_property
    def way(self) -> str:
        """What all connections have in common that see the same batches in the same manner."""
        return repr((self.site, replace(self.binding, environment={})))

    @property
    def queue(self) -> Scheduler:
        return told_queue(self.site.name, self._queue)


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

    Raises
    ------
    ProfileError
        The profile or the settings are wrong.
    HpcmlError
        This is a job, and the site's queue is not the one that the job itself came from.
    """
    if not isinstance(name, str):
        load_site(name)  # which says so
    key = (os.getpid(), name, str(config_folder()), str(data_folder()))
    known = _open.get(key)
    if known is not None and not reload:
        return known
    site, yours = load_site(name), settings_of(name)
    bound_by = site, yours, enclosing_run(), wire.inherited()
    if known is not None and known._bound_by == bound_by:
        return known
    binding = bind(site, yours)
    _refuse_in_job(site, binding)
    _refuse_open_workspace(site, binding.workspace)
    if site.transport != "local" and binding.workspace.startswith("~"):
        _learn_home(site, binding)
        binding = bind(site, yours)
    if known is not None and (known.site, known.binding) == (site, binding):
        return known
    files = reached_by(site, binding)
    queue = load_plugin("hpcml.schedulers", site.scheduler)(
        site, binding, telling_files(name, files)
    )
    made = Connection(site, binding, files, queue, bound_by)
    _open[key] = made
    return made


def reached_by(site: Site, binding: Binding) -> Transport:
    """A site's files and commands, without a queue; nothing is reached yet."""
    files: Transport = load_plugin("hpcml.transports", site.transport)(site, binding)
    return files


def known_sites() -> list[str]:
    """The embedded site, and those of the settings; within a job, the job's own alone."""
    run = enclosing_run()
    if run is not None:
        return [run.site]
    return list(dict.fromkeys(["local", *sites_of_settings()]))


def bind(site: Site, yours: SiteSettings | None = None) -> Binding:
    """What is yours on a site, from the settings; within a job, what the job itself has there.

    Parameters
    ----------
    yours : SiteSettings, optional
        In place of what the settings say.

    Raises
    ------
    ProfileError
        The workspace is not known.
    """
    if yours is None:
        yours = settings_of(site.name)
    run = enclosing_run()
    if run is not None and run.site == site.name:
        places = run.workspace, run.python, run.agent_python
    elif site.transport == "local":
        python = yours.python or sys.executable
        places = _workspace(site, yours), python, site.agent_python.compute or sys.executable
    else:
        agent_python = site.agent_python.compute or "python3"
        places = _workspace_there(site, yours), yours.python or agent_python, agent_python
    return Binding(
        *places,
        library=library_name(),
        account=yours.account,
        accounts=yours.accounts,
        partition=yours.partition,
        project=yours.project,
        user=yours.user,
        # What a job finds elsewhere its agent takes from there.
        environment=wire.inherited() if site.transport == "local" else {},
        ssh_host=yours.ssh_host,
        ssh_config=yours.ssh_config,
    )


def _workspace(site: Site, yours: SiteSettings) -> str:
    workspace = _named_workspace(site, yours)
    if workspace.startswith("/"):
        return _spelt(workspace)
    try:
        return str(Path(workspace).expanduser().absolute())
    except RuntimeError as error:  # there is no such user
        raise ProfileError(
            f"the workspace {workspace} of {site.name} cannot be found: {error}",
            f"Write another sites.{site.name}.workspace into the settings.",
        ) from error


@lru_cache(maxsize=16)
def _spelt(path: str) -> str:
    return str(Path(path))  # without doubled slashes, say


def _workspace_there(site: Site, yours: SiteSettings) -> str:
    """Its literal path; ``~/`` stays until somebody has been there."""
    workspace = _named_workspace(site, yours)
    if not workspace.startswith(("/", "~/")):
        raise ProfileError(
            f"the workspace {workspace} of {site.name} does not begin at the root, nor at ~/",
            f"Write the whole path into the settings: sites.{site.name}.workspace.",
        )
    if "$" in workspace:
        raise ProfileError(
            f"the workspace {workspace} of {site.name} has variables in it, which the site must "
            "fill in",
            f"Run `hpcml sites setup {site.name}`, or write the whole path into the settings: "
            f"sites.{site.name}.workspace.",
        )
    home = _homes().get(_account(site, yours.ssh_host, yours.user))
    return home + workspace[1:] if home and workspace.startswith("~/") else workspace


def _named_workspace(site: Site, yours: SiteSettings) -> str:
    workspace = yours.workspace or site.workspace
    if not workspace:
        raise ProfileError(
            f"no workspace is known on {site.name}",
            f"Run `hpcml sites setup {site.name}`, or write sites.{site.name}.workspace into the "
            "settings.",
        )
    return filled(workspace, names_of(yours.user, yours.project))


def _refuse_open_workspace(site: Site, workspace: str) -> None:
    """A profile's workspace may have a place for a name that only you can say."""
    for name, setting in missing(workspace):
        raise ProfileError(
            f"what {{{name}}} is in the workspace {workspace} of {site.name} is not known",
            f"Run `hpcml sites setup {site.name}`, or write sites.{site.name}.{setting} into the "
            "settings.",
        )


def _learn_home(site: Site, binding: Binding) -> None:
    """Ask a site for the literal path of ``~``: a plan has no other."""
    files = reached_by(site, binding)
    done = files.run(["/bin/sh", "-c", 'printf %s "$HOME"'])
    home = done.stdout.decode("utf-8", "surrogateescape")
    if done.exit_code or not home.startswith("/"):
        raise HpcmlError(
            f"{site.name} does not say what ~ is there",
            f"Write the whole path into the settings: sites.{site.name}.workspace.",
        )
    homes = {**_homes(), _account(site, binding.ssh_host, binding.user): home}
    keep(_homes_file(), wire.canonical(homes), "Free some space.")


def _homes() -> dict[str, str]:
    try:
        homes: dict[str, str] | None = wire.read_json(str(_homes_file()))
    except (OSError, ValueError):
        return {}  # a memory only
    return homes or {}


def _homes_file() -> Path:
    return cache_folder() / "homes.json"


def _account(site: Site, host: str | None, user: str | None) -> str:
    return " ".join([site.name, host or (site.ssh.host if site.ssh else ""), user or ""])


def _refuse_in_job(site: Site, binding: Binding) -> None:
    """A job reaches its own queue alone: that is known to be served, and on this machine."""
    run = enclosing_run()
    if run is None:
        if travelling():
            raise HpcmlError(
                "this is the hpcml of a job, and HPCML_BATCH does not say of which",
                "Leave the job's environment as it is, or do it from outside.",
            )
    elif site.scheduler != "process":
        raise HpcmlError(
            f"a job cannot submit to {site.name} or look at its runs",
            "Do it from outside; submit(..., after=run) makes runs follow each other.",
        )
    elif binding.workspace != run.workspace:
        raise HpcmlError(
            f"the workspace {binding.workspace} of {site.name} is not the one that this job is in",
            f'Do it from outside, or on the job\'s own site: site="{run.site}".',
        )
