"""What is yours: settings and where hpcml keeps its files.

``$XDG_CONFIG_HOME/hpcml/config.yaml`` says what differs from person to person::

    sites:
      local:
        workspace: /scratch/me/hpcml
        python: /opt/venv/bin/python
    records: postgresql://me@host/hpcml     # default: a file beside you
    mlflow:
      uri: https://mlflow.example.org       # default: no mirror

Site profiles of your own lie beside it in ``sites/<name>.yaml``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from hpcml.agent import files, wire
from hpcml.documents import (
    Checked,
    Marks,
    check_model,
    check_takes,
    fact,
    facts,
    matching,
    parse,
    read_text,
    with_values,
)
from hpcml.errors import HpcmlError, ProfileError
from hpcml.folders import cache_folder as cache_folder
from hpcml.folders import config_folder as config_folder
from hpcml.folders import data_folder as data_folder
from hpcml.folders import remove_torn
from hpcml.folders import state_folder as state_folder

# Never an option of ssh's.
HOST = matching(r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]*$", "a host or an alias")
Host = Annotated[str, HOST]

Workspace = Annotated[
    str, matching(r"^(/|~/).*$", 'a path from the root, like "/scratch/me" or "~/hpcml",')
]
FolderName = Annotated[
    str,
    matching(r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$", "one word, since folders are named after it,"),
]


def password_in(url: str) -> str | None:
    """The password in a URL, before its host or among what it asks for; ``None`` if there is none.

    Raises
    ------
    ValueError
        It is no URL.
    """
    parts = urlsplit(url)
    asked = parse_qs(parts.query, keep_blank_values=True).get("password", [None])
    return parts.password if parts.password is not None else asked[0]


def _whole_uri(value: Any) -> None:
    if not isinstance(value, str):
        return  # which is told of its type
    scheme, _, rest = value.rpartition("://")
    if not (scheme or rest.startswith("/")) or (
        scheme.startswith("sqlite") and not rest.startswith("//")
    ):
        raise ValueError('a path from the root is expected, like "sqlite:////home/me/ml.db"')
    if password_in(value) is not None:
        raise ValueError("there is a password in it: MLFLOW_TRACKING_PASSWORD is for that")


@facts
class SiteSettings:
    """Your part of a site: account, workspace, way in."""

    workspace: Workspace | None = fact(
        default=None, description="Folder for hpcml's files on the site."
    )
    account: str | None = fact(default=None, description="Account or budget that pays.")
    accounts: dict[str, str] = fact(
        default_factory=dict, description="By partition: accounts that pay in place of that one."
    )
    partition: str | None = fact(
        default=None, description="Partition that is tried first for jobs that name none."
    )
    project: FolderName | None = fact(
        default=None, description="Your project, as folders are named after it."
    )
    user: FolderName | None = fact(default=None, description="Your user name on the site.")
    python: str | None = fact(default=None, description="Interpreter of jobs without an image.")
    ssh_host: Host | None = fact(
        default=None, description="Host or alias of ~/.ssh/config, in place of the profile's."
    )
    ssh_config: str | None = fact(
        default=None, description="File that ssh reads in place of ~/.ssh/config."
    )


@facts
class MlflowSettings:
    """A mirror of the records in an MLflow store."""

    uri: Annotated[str, Checked(_whole_uri)] = fact(
        description="MLflow's tracking URI, without a password."
    )
    experiment: str | None = fact(
        default=None, description="Experiment of all runs; default: one for each job's name."
    )


@facts
class Settings:
    """The settings file."""

    sites: dict[str, SiteSettings] = fact(default_factory=dict, description="By their names.")
    records: str | None = fact(
        default=None,
        description="URL of a PostgreSQL database that keeps the records, without a password.",
    )
    mlflow: MlflowSettings | None = fact(
        default=None, description="Where `hpcml sync` mirrors runs to."
    )


@dataclass(frozen=True)
class Binding:
    """What is yours on a site, so that the same job has the same plan for everybody.

    Attributes
    ----------
    workspace : str
        Absolute path of hpcml's folder on the site.
    python : str
        Interpreter of jobs without an image.
    agent_python : str
        Interpreter of hpcml's agent, 3.6 or newer.
    library : str
        File name of the travelling hpcml.
    functions : str
        File name of what functions need besides it; empty where nobody calls any.
    account, partition, project, user : str or None
    accounts : dict
        By partition: accounts that pay in place of that one.
    environment : dict
        Environment that the site gives to every job.
    ssh_host, ssh_config : str or None
        In place of the profile's host, and of ``~/.ssh/config``.
    """

    workspace: str
    python: str
    agent_python: str
    library: str
    functions: str = ""
    account: str | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)
    partition: str | None = None
    project: str | None = None
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ssh_host: Host | None = None
    ssh_config: str | None = None


def private_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, for this user's eyes only.

    Raises
    ------
    HpcmlError
        It is there, and others may write to it: what lies in it is run and believed.
    """
    try:
        files.private_folder(str(path))
    except files.Trouble as trouble:
        raise HpcmlError(trouble.problem, trouble.advice) from None
    return path


def keep(path: Path, data: bytes, advice: str, *, sync: bool = False) -> None:
    """Write a file of one's own, whole.

    Raises
    ------
    HpcmlError
        It cannot be written; with the advice.
    """
    try:
        private_folder(path.parent)
        wire.publish(str(path), data, sync=sync)
    except OSError as error:
        raise HpcmlError(f"{path} cannot be written: {error.strerror}", advice) from error


def settings_file() -> Path:
    """Where the settings stand, be there any or not."""
    return _settings_file(config_folder())


@lru_cache(maxsize=16)  # it is asked for all the time
def _settings_file(folder: Path) -> Path:
    return folder / "config.yaml"


def load_settings() -> Settings:
    """Read the settings; none are needed. A site of which they say what is wrong is left out.

    Raises
    ------
    ProfileError
        Naming file, line and key; not of what is said of a site (:func:`settings_of`).
    """
    path = settings_file()
    return _settings(read_text(path), str(path)) if os.path.exists(path) else Settings()


def settings_of(site: str) -> SiteSettings:
    """What the settings say of a site.

    Raises
    ------
    ProfileError
        What is wrong with that, naming file, line and key; other sites do not matter.
    """
    path = settings_file()
    return _of_site(site, read_text(path), str(path)) if os.path.exists(path) else SiteSettings()


def sites_of_settings() -> list[str]:
    """Names of the sites of which the settings say something, be it wrong."""
    path = settings_file()
    return list(_said_of_sites(read_text(path), str(path))) if os.path.exists(path) else []


def check_settings() -> None:
    """Look at all of the settings.

    Raises
    ------
    ProfileError
        The first thing that is wrong; its ``others`` are the rest.
    """
    path = settings_file()
    if os.path.exists(path):
        check_model(Settings, *parse(read_text(path), str(path)), str(path))


def save_site(name: str, yours: Mapping[str, str]) -> Path:
    """Write into the settings what is yours on a site; all else in them stays as it stands.

    Returns
    -------
    Path
        Their file, which has appeared whole. Where it is a link, that stays one.

    Raises
    ------
    ProfileError
        They are wrong, or cannot be added to.
    HpcmlError
        They cannot be written.
    """
    path = settings_file()
    with _alone():
        text = _text(path)
        changed = with_values(text, str(path), {"sites": {name: dict(yours)}})
        check_model(Settings, *parse(changed.removeprefix("\ufeff"), str(path)), str(path))
        place = path.resolve()
        keep(place, changed.encode(), "Look at the path by hand.", sync=True)
        remove_torn(place.parent)
    return path


def check_savable(name: str, keys: Sequence[str]) -> None:
    """Look whether :func:`save_site` could write some keys, before anybody is asked for them.

    Raises
    ------
    ProfileError
        The settings are wrong, or cannot be added to.
    """
    check_settings()
    path = settings_file()
    if keys:
        check_takes(_text(path), str(path), ("sites", name), keys)


def _text(path: Path) -> str:
    """The settings to the letter; none are none."""
    if not path.exists():
        return ""
    read_text(path)  # which says what is no text
    return path.read_bytes().decode("utf-8")


@contextmanager
def _alone() -> Iterator[None]:
    """While it lasts, no other hpcml of this user changes the settings."""
    path = private_folder(state_folder()) / "settings.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = "Look at the path by hand."
        raise HpcmlError(f"{path} cannot be written: {error.strerror}", advice) from error
    try:
        with suppress(OSError):  # where files cannot be locked
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@lru_cache(maxsize=16)
def _settings(text: str, path: str) -> Settings:
    content, marks = parse(text, path)
    said = content.get("sites", {})
    if not isinstance(said, dict):
        return check_model(Settings, content, marks, path)  # which says so
    right = {}
    for name, of_site in said.items():
        with suppress(ProfileError):
            _settings_of(name, of_site, marks, path)
            right[name] = of_site
    return check_model(Settings, {**content, "sites": right}, marks, path)


def _said_of_sites(text: str, path: str) -> dict[str, Any]:
    _settings(text, path)  # what is wrong with the whole is told
    return dict(parse(text, path)[0].get("sites", {}))


@lru_cache(maxsize=16)  # each submission looks at them
def _of_site(site: str, text: str, path: str) -> SiteSettings:
    said = _said_of_sites(text, path)
    if site not in said:
        return SiteSettings()
    return _settings_of(site, said[site], parse(text, path)[1], path)


def _settings_of(site: str, said: Any, marks: Marks, path: str) -> SiteSettings:
    return check_model(Settings, {"sites": {site: said}}, marks, path).sites[site]
