"""What is yours on a site: asked of you where only you can know it, else of the site."""

from __future__ import annotations

import getpass
import os.path
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hpcml.connection import bind
from hpcml.documents import Mark, changed, wrong_in
from hpcml.errors import ArgumentError, CommandError, few, nearest
from hpcml.planning.paying import account_rule
from hpcml.settings import SiteSettings
from hpcml.sites import Site
from hpcml.sites.braces import filled, names_of
from hpcml.surveying.accounts import payers, pays
from hpcml.surveying.cluster import cluster_of
from hpcml.surveying.finding import NoAnswerError
from hpcml.surveying.model import Cluster
from hpcml.surveying.shell import NOWHERE, Commands, Shell
from hpcml.transports.ssh import way_to

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Question:
    """What somebody is asked.

    Attributes
    ----------
    key : str
        Of the settings.
    text : str
    check : callable
        Gives what the answer comes to; raises ArgumentError where it cannot be.
    default : str
        What an empty answer means.
    choices : tuple of str
        Answers that the site knows.
    needed : bool
        Whether an empty answer, without a default, is none.
    """

    key: str
    text: str
    check: Callable[[str], str]
    default: str = ""
    choices: tuple[str, ...] = ()
    needed: bool = True


Ask = Callable[[Question], str | None]


def asked_before(site: Site, yours: SiteSettings, ask: Ask) -> SiteSettings:
    """The way in: as whom, and to which host if the profile does not say."""
    if site.transport != "ssh":
        return yours
    if site.ssh is None and yours.ssh_host is None:
        text = "Host, or its alias in ~/.ssh/config"
        yours = _with(yours, ssh_host=ask(Question("ssh_host", text, checked("ssh_host"))))
    if yours.user is not None:
        return yours
    here = getpass.getuser()
    known = way_to(site, bind(site, _with(yours, workspace=NOWHERE))).known_user()
    if known not in (None, here):  # OpenSSH has been told
        return yours
    user = ask(Question("user", "User name there", checked("user"), default=here))
    return yours if user == known else _with(yours, user=user)


def asked_there(site: Site, yours: SiteSettings, shell: Shell, ask: Ask) -> SiteSettings:
    """Who pays, where files lie, and what is tried first.

    Raises
    ------
    ArgumentError
        The workspace cannot be a path from the root.
    TransportError
        The site cannot be asked.
    """
    if yours.user is None and re.search(r"\{(u|user)\}", repr(site)):
        yours = _with(yours, user=_printed(shell, "id", "-un"))
    yours = _account(site, yours, _cluster(site, shell), ask)
    yours = _workspace(site, yours, shell, ask)
    if yours.partition is None and site.scheduler == "slurm" and len(site.partitions) > 1:
        names = tuple(site.partitions)
        text = "Partition that is tried first"
        check = checked("partition", names)
        asked = Question("partition", text, check, choices=names, needed=False)
        yours = _with(yours, partition=ask(asked))
    return yours


def _cluster(site: Site, shell: Commands) -> Cluster | None:
    if site.scheduler != "slurm":
        return None
    try:
        return cluster_of(shell)
    except (CommandError, NoAnswerError):
        return None  # the checks say so


def _account(site: Site, yours: SiteSettings, cluster: Cluster | None, ask: Ask) -> SiteSettings:
    if yours.account is not None or yours.accounts or site.scheduler != "slurm":
        return yours
    mine = (payers(cluster) or None) if cluster is not None else None  # of none none is proposed
    needed = site.account_required or bool(cluster and cluster.needs_account)
    if mine is not None and len(mine) == 1:
        return _with(yours, account=mine[0])
    if not needed and mine is None:
        return yours

    def check(answer: str) -> str:
        if mine is not None and not pays(answer, site, mine):
            problem = f"{answer} is no account of yours on {site.name}"
            raise ArgumentError(problem, f"Yours: {few(mine)}. {account_rule(site)}".rstrip())
        return answer

    default = (cluster.default_account if cluster is not None else None) or ""
    question = Question("account", "Account that pays", check, default, tuple(mine or ()), needed)
    return _with(yours, account=ask(question))


def _workspace(site: Site, yours: SiteSettings, shell: Shell, ask: Ask) -> SiteSettings:
    """The workspace as a literal path, and the project if one is in it."""
    template = yours.workspace or site.workspace
    if "{project}" in (template or "") and yours.project is None:
        groups = tuple(_printed(shell, "id", "-Gn").split())
        default = shell.environment.get("PROJECT", "").rpartition("/")[2]
        text = "Project, as folders are named after it"
        project = ask(Question("project", text, checked("project"), default, groups))
        yours = _with(yours, project=project)
    if template is not None:
        return _with(yours, workspace=literal(template, yours, shell))
    default = "$SCRATCH/hpcml" if shell.environment.get("SCRATCH") else "~/hpcml"
    text = "Folder for hpcml's files, which compute nodes see"
    check = partial(literal, yours=yours, shell=shell)
    return _with(yours, workspace=ask(Question("workspace", text, check, default)))


def literal(folder: str, yours: SiteSettings, shell: Shell) -> str:
    """The path of a folder on a site, with nothing left to be filled in.

    Parameters
    ----------
    folder : str
        May begin with ``~/``, and have in it variables of the login shell, ``{user}`` and
        ``{project}``.

    Raises
    ------
    ArgumentError
        A variable is not set there, or it is no path from the root.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        found = shell.environment.get(name)
        if not found:
            raise ArgumentError(f"{match[0]} is not set there", "Write the path itself.")
        return found

    if folder == "~" or folder.startswith("~/"):
        folder = "$HOME" + folder[1:]
    path = filled(VARIABLE.sub(value, folder), names_of(yours.user, yours.project))
    if not path.startswith("/") or "{" in path or ".." in path.split("/"):
        problem = f"{path!r} is no path from the root"
        raise ArgumentError(problem, 'Write one like "/scratch/me/hpcml", or "$SCRATCH/hpcml".')
    return checked("workspace")(os.path.normpath(path))


def checked(key: str, valid: tuple[str, ...] = ()) -> Callable[[str], str]:
    """What the settings allow for a key."""

    def check(answer: str) -> str:
        if valid and answer not in valid:
            raise ArgumentError(f"there is no {key} {answer!r}", f"{nearest(answer, valid)}.")
        for error in wrong_in(SiteSettings, {key: answer}, {(key,): Mark("", 1, 1)}, ""):
            problem = error.problem.partition(f"key {key}: ")[2]
            raise ArgumentError(f"{answer!r} cannot be: {problem}", "Answer otherwise.")
        return answer

    return check


def _with(yours: SiteSettings, **values: Any) -> SiteSettings:
    return changed(yours, **{key: it for key, it in values.items() if it is not None})


def _printed(shell: Commands, *argv: str) -> str:
    done = shell.run(argv)
    if done.exit_code:
        raise CommandError(argv, done.exit_code, done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace").strip()
