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

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hpcml.agent import files, wire
from hpcml.documents import read_model
from hpcml.errors import HpcmlError
from hpcml.folders import cache_folder as cache_folder
from hpcml.folders import config_folder as config_folder
from hpcml.folders import data_folder as data_folder
from hpcml.folders import state_folder as state_folder

HOST = r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]*$"  # never an option of ssh's


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


class SiteSettings(BaseModel):
    """Your part of a site: account, workspace, way in."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    workspace: str | None = Field(None, description="Folder for hpcml's files on the site.")
    account: str | None = Field(None, description="Account or budget that pays.")
    accounts: dict[str, str] = Field(
        default_factory=dict, description="By partition: accounts that pay in place of that one."
    )
    partition: str | None = Field(
        None, description="Partition that is tried first for jobs that name none."
    )
    project: str | None = Field(None, description="Your project, as folders are named after it.")
    user: str | None = Field(None, description="Your user name on the site.")
    python: str | None = Field(None, description="Interpreter of jobs without an image.")
    ssh_host: str | None = Field(
        None, pattern=HOST, description="Host or alias of ~/.ssh/config, in place of the profile's."
    )
    ssh_config: str | None = Field(
        None, description="File that ssh reads in place of ~/.ssh/config."
    )

    @field_validator("workspace")
    @classmethod
    def _workspace_is_absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("/", "~/")):
            raise ValueError('a path from the root is expected, like "/scratch/me" or "~/hpcml"')
        return value

    @field_validator("project", "user")
    @classmethod
    def _names_a_folder(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"\w[\w.@+-]*", value, re.ASCII) is None:
            raise ValueError("one word is expected, since folders are named after it")
        return value


class MlflowSettings(BaseModel):
    """A mirror of the records in an MLflow store."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    uri: str = Field(description="MLflow's tracking URI, without a password.")
    experiment: str | None = Field(
        None, description="Experiment of all runs; default: one for each job's name."
    )

    @field_validator("uri")
    @classmethod
    def _uri_is_whole(cls, value: str) -> str:
        scheme, _, rest = value.rpartition("://")
        if not (scheme or rest.startswith("/")) or (
            scheme.startswith("sqlite") and not rest.startswith("//")
        ):
            raise ValueError('a path from the root is expected, like "sqlite:////home/me/ml.db"')
        if password_in(value) is not None:
            raise ValueError("there is a password in it: MLFLOW_TRACKING_PASSWORD is for that")
        return value


class Settings(BaseModel):
    """The settings file."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    sites: dict[str, SiteSettings] = Field(default_factory=dict)
    records: str | None = Field(
        None, description="URL of a PostgreSQL database that keeps the records, without a password."
    )
    mlflow: MlflowSettings | None = Field(None, description="Where `hpcml sync` mirrors runs to.")


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
    ssh_host: str | None = None
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


def load_settings() -> Settings:
    """Read the settings; none are needed.

    Raises
    ------
    ProfileError
        Naming file, line and key.
    """
    path = _settings_file(config_folder())
    return read_model(Settings, path) if os.path.exists(path) else _nothing_set()


def site_settings(name: str) -> SiteSettings:
    """Yours of a site; none are needed. Raises as :func:`load_settings`."""
    return load_settings().sites.get(name) or _nothing_set_of_it()


@cache
def _nothing_set() -> Settings:
    return Settings()


@cache
def _nothing_set_of_it() -> SiteSettings:
    return SiteSettings()


@lru_cache(maxsize=16)  # it is asked for all the time
def _settings_file(folder: Path) -> Path:
    return folder / "config.yaml"
