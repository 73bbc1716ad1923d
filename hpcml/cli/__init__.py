"""The command ``hpcml``. Each command is loaded when it is called."""

from __future__ import annotations

import io
import os
import sys
import warnings
from importlib import import_module
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from hpcml import __version__
from hpcml.cli import stages
from hpcml.cli.verbose import verbose_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "plan": ("hpcml.cli.submitting", "Show how a job would be run, offline."),
    "submit": ("hpcml.cli.submitting", "Submit a job."),
    "sweep": ("hpcml.cli.submitting", "Submit a job at many points of its parameters."),
    "runs": ("hpcml.cli.looking", "List runs."),
    "status": ("hpcml.cli.looking", "Show the state of runs."),
    "logs": ("hpcml.cli.looking", "Show what a run printed."),
    "wait": ("hpcml.cli.looking", "Wait for a run; its exit code becomes this command's."),
    "cancel": ("hpcml.cli.looking", "Cancel runs."),
    "resume": ("hpcml.cli.looking", "Go on with a submission that was broken off."),
    "resubmit": ("hpcml.cli.looking", "Run again what has ended."),
    "fetch": ("hpcml.cli.looking", "Copy what runs have left to this machine."),
    "top": ("hpcml.cli.top", "Show runs on a live screen."),
    "compare": ("hpcml.cli.remembering", "Show runs side by side: time, energy, metrics."),
    "show": ("hpcml.cli.recorded", "Show what agents and the site's accounting say of runs."),
    "prune": ("hpcml.cli.pruning", "Free space on a site: what has ended, and is not in use."),
    "sync": ("hpcml.cli.remembering", "Record what is new on the sites."),
    "import": ("hpcml.cli.importing", "Take runs of other tools into the records."),
    "doctor": ("hpcml.cli.doctor", "Show what works here, and what to install."),
    "sites": ("hpcml.cli.sites", "List sites, and show what is known of one."),
    "demo": ("hpcml.cli.demo", "Train on real climate data, on this machine."),
    "completion": ("hpcml.cli.completing", "Print what makes a shell complete hpcml's words."),
}


class Group(click.Group):
    """A group that knows what its commands are for without loading them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(COMMANDS[cmd_name][0]), f"{cmd_name}_command"
        )
        for one in (command, *getattr(command, "commands", {}).values()):
            if verbose_option not in one.params:
                one.params.append(verbose_option)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from hpcml.errors import nearest

            ctx.fail(f"there is no command {args[0]!r}; {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpcml")
def cli() -> None:
    """Train and run machine-learning models on supercomputers."""


cli.params.append(verbose_option)


def main() -> None:
    """Run the command line; errors become one message and an exit code: see docs/commands.md."""
    _mend_streams()
    warnings.showwarning = _show_warning
    try:
        try:
            _call()
        finally:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        _say("UsageError", error.format_message(), "`hpcml COMMAND --help` says what there is.")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        problem, advice = "interrupted", _left_behind(error)
        if error.__cause__ is None:  # else click has ended the line with ^C in it
            print(file=sys.stderr)
        print(f"hpcml: {problem}. {advice}", file=sys.stderr)
        _say("Interrupted", problem, advice)
        sys.exit(75)  # as after --timeout
    except BrokenPipeError:  # whoever read it has seen enough, as `head` does
        _write_no_more()
        sys.exit(1)  # as click does
    except _StdoutError as error:
        why = f"stdout cannot be written: {error.strerror}"
        print(f"hpcml: {why}\n  {stages.told()}", file=sys.stderr)
        _write_no_more()
        sys.exit(70)
    except Exception as error:
        from hpcml.errors import HpcmlError

        if not isinstance(error, HpcmlError):
            raise
        print(f"hpcml: {error}", file=sys.stderr)
        _say(type(error).__name__, error.problem, error.advice)
        sys.exit(70)  # EX_SOFTWARE of sysexits.h: no job's own code is likely to be this


def _call() -> None:
    """Call the command; again, if it was refused for want of an agreement that is then given.

    Commands look at a site's profile before they do anything there.
    """
    try:
        cli(prog_name="hpcml", standalone_mode=False)
    except Exception as error:
        from hpcml.errors import UntrustedError

        if not isinstance(error, UntrustedError):
            raise
        from hpcml.cli.asking import agreed
        from hpcml.sites.trust import trust

        if sys.argv[1:3] == ["sites", "trust"] or not agreed(error):
            raise
        trust(error.digests)
        _call()


class _StdoutError(OSError):
    """What goes to stdout cannot be written: its disk is full, say."""


class _Stdout(io.FileIO):
    """Stdout, with an error of its own: other files have such errors, too."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _StdoutError(error.errno, error.strerror) from error


def _mend_streams() -> None:
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(out.fileno(), "w", closefd=False)),
            encoding=out.encoding,
            line_buffering=out.line_buffering,
        )
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed, and the next file would take its number
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a job printed may not fit the locale
            stream.reconfigure(errors="backslashreplace")


def _left_behind(error: BaseException) -> str:
    """What was done before Ctrl-C, and what to do now."""
    pressed = error.__cause__ or error  # click has made an Abort of it
    return " ".join(getattr(pressed, "__notes__", ())) or stages.told()


def _write_no_more() -> None:
    """Python writes what is left once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(kind: str, problem: str, advice: str) -> None:
    """What went wrong, for programs: on stdout, if the command was asked for JSON."""
    if "--json" in takewhile(lambda word: word != "--", sys.argv[1:]):
        from hpcml.cli.showing import print_json

        print_json({"error": {"kind": kind, "problem": problem, "advice": advice}})


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from hpcml.texts import plain_lines

    print(plain_lines(f"hpcml: {message}"), file=sys.stderr)
