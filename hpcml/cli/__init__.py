"""The command ``hpcml``. Each command is loaded when it is called."""

from __future__ import annotations

import io
import sys
from importlib import import_module

import click

from hpcml import __version__

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
    "prune": ("hpcml.cli.pruning", "Free space on a site: what has ended, and is not in use."),
    "sync": ("hpcml.cli.remembering", "Record what is new on the sites."),
    "import": ("hpcml.cli.importing", "Take runs of other tools into the records."),
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
        return command

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


def main() -> None:
    """Run the command line; errors become one message and an exit code of the guide's table."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a job printed may not fit the locale
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("\nhpcml: interrupted. Runs go on: `hpcml runs` lists them.", file=sys.stderr)
        sys.exit(75)  # as after --timeout
    except Exception as error:
        from hpcml.errors import HpcmlError

        if not isinstance(error, HpcmlError):
            raise
        print(f"hpcml: {error}", file=sys.stderr)
        sys.exit(70)  # EX_SOFTWARE of sysexits.h: no job's own code is likely to be this
