"""``hpcml sites setup``: from a profile, a few answers and the site itself to the settings."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from hpcml.cli import stages
from hpcml.cli.asking import somebody
from hpcml.cli.completing import complete_sites
from hpcml.texts import plain, plain_lines

if TYPE_CHECKING:
    from hpcml.settings import SiteSettings
    from hpcml.sites import Site
    from hpcml.surveying.setting_up import Question

OPTIONS = {"ssh_host": "host"}  # called otherwise than the key of the settings


@click.command("setup")
@click.argument("name", shell_complete=complete_sites)
@click.option("--host", "ssh_host", help="Host or alias of ~/.ssh/config, in place of its own.")
@click.option("--user", help="Your user name there.")
@click.option("--account", help="Account that pays.")
@click.option("--project", help="Your project, as folders are named after it.")
@click.option("--workspace", help="Folder there for hpcml's files; $VARIABLES are the site's.")
@click.option("--partition", help="Partition that is tried first.")
@click.option(
    "-y",
    "--yes",
    is_flag=True,
    help="Ask nothing: take what is proposed, and write even if a check fails.",
)
def setup_command(name: str, yes: bool, **given: str | None) -> None:
    """Set up the site NAME for you: log in, look what is yours there, write the settings.

    It asks what only you can know, five questions at most; options answer them. Nothing is written
    before the end, and a check that fails is told before.
    """
    from hpcml.enclosing import enclosing_run
    from hpcml.errors import ArgumentError
    from hpcml.settings import check_savable, settings_of
    from hpcml.sites import load_site

    if enclosing_run() is not None:
        raise ArgumentError("a job has the settings of where it came from", "Do it from outside.")
    site = load_site(name)
    before = settings_of(name)
    check_savable(name, [key for key in given if given[key] or getattr(before, key) is None])
    stages.reached("The settings are as they were.")
    yours, well = _set_up(site, _given(site, before, given), yes)
    values = {key: value for key, value in vars(yours).items() if value != vars(before)[key]}
    _write(name, values, well, yes)


def _given(site: Site, before: SiteSettings, given: dict[str, str | None]) -> SiteSettings:
    """What the settings say, and over it what options do."""
    from hpcml.documents import changed
    from hpcml.surveying.setting_up import checked

    valid = {"partition": tuple(site.partitions)}
    said = {key: it for key, it in given.items() if it}
    for key in said.keys() - {"workspace"}:  # of which the site says what is to be filled in
        checked(key, valid.get(key, ()))(said[key])
    return changed(before, **said)


def _set_up(site: Site, yours: SiteSettings, yes: bool) -> tuple[SiteSettings, bool]:
    """What is yours, and whether all checks of it went well."""
    from hpcml.cli.doctor import FAR, examine, print_finding
    from hpcml.connection import bind, reached_by
    from hpcml.documents import changed
    from hpcml.surveying.login import Login, account, checks
    from hpcml.surveying.setting_up import asked_before, asked_there
    from hpcml.surveying.shell import NOWHERE, shell_of

    ask = _Asking(yes)
    yours = asked_before(site, yours, ask)
    nowhere = changed(yours, workspace=NOWHERE)
    yours = asked_there(site, yours, shell_of(site, bind(site, nowhere)), ask)
    binding = bind(site, yours)
    well = True
    login = Login(site, lambda: (binding, reached_by(site, binding)))
    found = checks(login)
    if site.scheduler == "slurm":
        found.append(("account", partial(account, login)))
    for finding in examine(found, gate="reach", patience=FAR):
        print_finding(finding)
        well = well and finding["verdict"] != "bad"
    return yours, well


def _write(name: str, values: dict[str, str], well: bool, yes: bool) -> None:
    from hpcml.errors import HpcmlError
    from hpcml.settings import save_site, settings_file

    for key, value in values.items():
        click.echo(plain(f"sites.{name}.{key}: {value}"))
    if not well and not yes:
        write = "; --yes writes all the same" if values else ""
        failed = HpcmlError(
            "a check has failed, and nothing was written", f"See what it advises{write}."
        )
        if not values or not somebody():
            raise failed
        if not click.confirm("A check has failed. Write the settings all the same?", err=True):
            raise failed
    if values:
        click.echo(f"written: {save_site(name, values)}")
    else:
        click.echo(f"{settings_file()} says all of it already")
    stages.reached("The settings are written.")
    if well:
        click.echo(f"Try it: hpcml submit --site {name} --wait -- hostname")
    else:
        click.echo(f"A check has failed, see what it advises; then: hpcml sites doctor {name}")
        sys.exit(1)


class _Asking:
    """Asks on the terminal, again where an answer cannot be."""

    def __init__(self, yes: bool) -> None:
        self._yes = yes

    def __call__(self, question: Question) -> str | None:
        from hpcml.errors import ArgumentError, few

        if self._yes and (question.default or not question.needed):
            return question.check(question.default) if question.default else None
        option = OPTIONS.get(question.key, question.key)
        if self._yes or not somebody():
            advice = f"Say it by --{option}"
            known = f", one of {few(question.choices)}" if question.choices else ""
            take = "; --yes takes what is proposed" if question.default and not self._yes else ""
            raise ArgumentError(f"{question.text}: nobody can be asked", f"{advice}{known}{take}.")
        while True:
            answer = self._answer(question)
            if not answer and not question.needed:
                return None
            try:
                return question.check(answer)
            except ArgumentError as error:
                click.echo(plain_lines(str(error)), err=True)

    def _answer(self, question: Question) -> str:
        from hpcml.errors import few

        choices = f" ({few(question.choices)})" if question.choices else ""
        text = plain(question.text + choices)
        if question.default or question.needed:
            return str(click.prompt(text, default=question.default or None, err=True))
        said = click.prompt(f"{text} [none]", default="", show_default=False, err=True)
        return str(said)
