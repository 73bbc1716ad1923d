"""What a shell offers when TAB is pressed, and ``hpcml completion``.

A shell calls hpcml at every TAB: nothing here loads more than it must, and no run is looked at.
What is said of a run beside its id is what its files show by their names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from hpcml import folders
from hpcml.agent import wire
from hpcml.states import State
from hpcml.texts import plain

MOST = 50  # submissions that are offered, the latest first
EMBEDDED = "local"


def complete_ids(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of submissions; behind one with several runs and a dot, those of its runs."""
    batch, dot, _ = incomplete.partition(".")
    if dot:
        places = (os.path.join(place, "runs", batch) for place in _workspaces(ctx))
        found = next(filter(os.path.isdir, places), None)
        runs = [wire.run_id(batch, index) for index in range(_count(found))] if found else []
        return [CompletionItem(run) for run in runs if run.startswith(incomplete)]
    return complete_batches(ctx, option, incomplete)


def complete_batches(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of submissions, the latest first."""
    named = (path for path in _batches(ctx) if os.path.basename(path).startswith(incomplete))
    return [
        CompletionItem(os.path.basename(path), help=_told(path)) for path in islice(named, MOST)
    ]


def complete_states(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of states."""
    return [CompletionItem(state) for state in State if state.startswith(incomplete.upper())]


def complete_sites(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of sites."""
    from hpcml.sites import site_names

    return [CompletionItem(name) for name in site_names() if name.startswith(incomplete)]


def complete_keys(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys of profiles."""
    from hpcml.sites.keys import key_names

    return [CompletionItem(name) for name in key_names() if name.startswith(incomplete)]


def complete_files(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files of the current folder: the shell knows them."""
    return [CompletionItem(incomplete, type="file")]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print what makes SHELL complete hpcml's commands, options and ids.

    In ~/.bashrc: eval "$(hpcml completion bash)"
    """
    from hpcml.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"{shell} is not known here")
    click.echo(kind(cli, {}, "hpcml", "_HPCML_COMPLETE").source())


def _batches(ctx: click.Context) -> Iterator[str]:
    """Folders of submissions, the latest first: their names begin with the time."""
    found = [
        (name, os.path.join(place, "runs", name))
        for place in _workspaces(ctx)
        for name in _names(os.path.join(place, "runs"))
        if name[0] != "."
    ]
    outbox = str(folders.state_folder() / "outbox")  # those that the site does not have yet
    there = {name for name, _ in found}
    waiting = {name.removesuffix(".jsonl") for name in _names(outbox) if name[0] != "."}
    found += [(name, os.path.join(outbox, name)) for name in waiting - there]
    return (path for _, path in sorted(found, reverse=True))


def _workspaces(ctx: click.Context) -> list[str]:
    """Where runs lie on this machine."""
    from hpcml.errors import HpcmlError

    try:
        config = folders.config_folder()
        if not any((config / name).exists() for name in ("config.yaml", "sites")):
            return [str(folders.data_folder() / EMBEDDED)]  # the profile is slow to load
        from hpcml.connection import bind, known_sites
        from hpcml.sites import load_site

        names = [ctx.params["site"]] if ctx.params.get("site") else known_sites()
        sites = [site for site in map(load_site, names) if site.transport == "local"]
        return list(dict.fromkeys(bind(site).workspace for site in sites))
    except HpcmlError:
        return []  # the command itself will say what is wrong


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _count(batch: str) -> int:
    try:
        return Path(batch, wire.POINTS).read_bytes().count(b"\n")
    except OSError:
        return int(os.path.isdir(batch))  # where there is no such file it is one run


def _told(batch: str) -> str:
    """Name of the job, and how far it is."""
    try:
        name = json.loads(Path(batch, "plan.json").read_bytes())["where"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    count, attempts = _count(batch), wire.attempts_of(_names(os.path.join(batch, "attempts")))
    if count == 1:
        return plain(f"{name}: {_state(batch, attempts.get(0, {}))}")
    over = sum("end" in kinds[max(kinds)] for kinds in attempts.values())
    return plain(f"{name}: {over} of {count} runs ended")


def _state(batch: str, attempts: dict[int, set[str]]) -> str:
    """How a run is, as far as its own files tell."""
    if not attempts:
        return "has not started"
    number = max(attempts)
    end = wire.Attempts(batch).read(0, number, "end") if "end" in attempts[number] else None
    if end is None:
        return "has started"
    if end.get("requeue"):
        return "has left a checkpoint"
    said = wire.first_words(wire.spoken(batch)).get((0, number))
    judged = wire.how_it_ended(end, said, time.time() - end["time"])
    return judged[0] if judged else "has ended"
