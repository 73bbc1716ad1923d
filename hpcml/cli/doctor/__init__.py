"""``hpcml doctor``: what works here, and what to do about the rest. Each check tries the thing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from threading import Thread
from typing import NoReturn

import click

from hpcml.cli import shapes
from hpcml.cli.options import json_option
from hpcml.cli.showing import print_json
from hpcml.errors import HpcmlError
from hpcml.surveying.finding import Check, Finding, NoAnswerError, bad, unknown
from hpcml.texts import plain

PATIENCE = 30.0  # seconds that a check may take: a file system that hangs does so for ever
FAR = 100.0  # seconds for a check of a site, which may be silent for a minute at first
COLOURS = {"ok": "green", "warn": "yellow", "bad": "red", "unknown": "cyan"}


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Show what of hpcml works here, and what to install.

    The exit code is 1 if something is bad, else 0.
    """
    from hpcml.cli.doctor import here, records, sites  # slow to load

    tell(examine([*here.CHECKS, *sites.checks(), *records.CHECKS]), as_json)


def tell(findings: Iterable[shapes.Finding], as_json: bool) -> NoReturn:
    """Print findings as they come, or together as JSON, and exit with 1 if one is bad."""
    told = []
    for finding in findings:
        told.append(finding)
        if not as_json:
            print_finding(finding)
    well = all(finding["verdict"] != "bad" for finding in told)
    if as_json:
        diagnosis: shapes.Diagnosis = {"ok": well, "findings": told}
        print_json(diagnosis)
    sys.exit(0 if well else 1)


def examine(
    checks: Iterable[tuple[str, Check]], gate: str | None = None, patience: float | None = None
) -> Iterator[shapes.Finding]:
    """What the checks find, one after the other. One that fails or hangs harms no other.

    Parameters
    ----------
    gate : str, optional
        The check without which nobody can know about those after it.
    patience : float, optional
        Seconds that each may take; default: :data:`PATIENCE`.
    """
    closed = False
    for name, check in checks:
        findings = [unknown(f"not looked at: see {gate}")] if closed else _found(check, patience)
        for found in findings:
            closed = closed or (name == gate and found.verdict == "bad")
            yield {"check": name, **found._asdict()}  # type: ignore[typeddict-item]


def _found(check: Check, patience: float | None) -> list[Finding]:
    seconds = PATIENCE if patience is None else patience
    found: list[Finding] = []

    thread = Thread(target=lambda: found.extend(caught(check)), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        advice = "Look whether a file system hangs, or a command."
        hangs = bad(f"no answer within {seconds:.0f} s", advice)
        return [*found, hangs]
    return found


def caught(check: Check) -> Iterator[Finding]:
    """What a check finds; that it fails is a finding, too."""
    try:
        yield from check()
    except NoAnswerError as error:
        yield unknown(error.problem, error.advice)
    except HpcmlError as error:
        yield bad(error.problem, error.advice)
    except Exception as error:
        yield bad(f"this could not be found out: {error!r}", "Please report it.")


def print_finding(finding: shapes.Finding) -> None:
    """A line in a pipe; on a terminal the advice is below it."""
    verdict, check, what, advice = (
        plain(" ".join(finding[key].split())) for key in ("verdict", "check", "what", "advice")
    )
    if not sys.stdout.isatty():
        click.echo("\t".join((verdict, check, what, advice)))
        return
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble((f"{verdict:<7}", COLOURS[verdict]), f"  {check:<12}  {what}")
    if advice:
        line.append(f"\n{'':<23}{advice}")
    Console().print(line, soft_wrap=True)
