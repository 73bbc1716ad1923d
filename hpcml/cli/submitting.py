"""``hpcml plan``, ``hpcml submit`` and ``hpcml sweep``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

import hpcml
from hpcml.cli.completing import complete_files, complete_ids, complete_sites
from hpcml.cli.options import json_option, pairs
from hpcml.cli.showing import (
    exit_code,
    print_json,
    run_data,
    runs_data,
    wait_for,
    worst_exit_code,
)
from hpcml.cli.stages import NOTHING, going_on, reached

WAYS = ("auto", "never")  # hpcml.planning's, which is slow to load
RANGE = re.compile(r"range\((\s*-?\d+\s*(?:,\s*-?\d+\s*){0,2})\)")

JOB_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("entry", nargs=-1, required=True, shell_complete=complete_files),
    click.option("-m", "--module", is_flag=True, help="ENTRY is a module, as in python -m."),
    click.option("--name", help="A name for people."),
    click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Parameter."),
    click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=PATH", help="Input."),
    click.option("-o", "--output", "outputs", multiple=True, metavar="PATH", help="Output."),
    click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Variable."),
    click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="For finding it."),
    click.option("--code", help='Folder of the code; "none": take none along.'),
    click.option("--device", default="cpu", show_default=True, help="Kind of device."),
    click.option("--devices", type=int, help="Devices in all; default: those of the nodes."),
    click.option("--min-device-memory", help='Memory of each device at least, like "40 GiB".'),
    click.option("--nodes", type=int, help="Nodes; default: as few as hold what is asked for."),
    click.option("--tasks", type=int, help="Processes in all; default: one a device."),
    click.option("--cpus", type=int, help="CPUs of each process."),
    click.option("--memory", help='Memory of each node, like "2 GiB".'),
    click.option("--time", default="1h", show_default=True, help='Walltime, like "10m".'),
    click.option("--partition", help="Partition of the site."),
    click.option(
        *("--option", "options"),
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Long option of the site's scheduler, without --.",
    ),
    click.option("--image", metavar="PATH", help="Apptainer image to run in."),
]
site_option = click.option(
    "--site",
    default="local",
    show_default=True,
    help="Name of a site profile.",
    shell_complete=complete_sites,
)
after_option = click.option(
    "--after",
    multiple=True,
    metavar="ID",
    help="Run only if that one is COMPLETED.",
    shell_complete=complete_ids,
)


pack_option = click.option(
    "--pack",
    type=click.Choice(WAYS),
    default="auto",
    show_default=True,
    help="Whether runs may share allocations.",
)


def of_the_job(command: Callable[..., None]) -> Callable[..., None]:
    """The options that describe a job."""
    for option in reversed(JOB_OPTIONS):
        command = option(command)
    return command


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Those, and where it is to run."""
    return of_the_job(site_option(json_option(command)))


@click.command("plan")
@job_options
@click.option("--script", is_flag=True, help="Print the batch script only.")
def plan_command(as_json: bool, script: bool, site: str, **options: Any) -> None:
    """Show how a job would be run, offline.

    ENTRY is train.py, run.sh, -m module, or a command with its arguments. Arguments behind a
    script (after --) replace its parameters' --name=value.
    """
    plan = hpcml.plan(job_from(**options), site)
    if as_json:
        print_json(plan.as_data())
    elif script:
        click.echo(plan.script, nl=False)
    else:
        click.echo(f"{plan}\n\n{plan.script}", nl=False)


@click.command("submit")
@job_options
@after_option
@pack_option
@click.option("--wait", is_flag=True, help="Wait for its end; exit with its exit code.")
def submit_command(
    as_json: bool, site: str, after: tuple[str, ...], pack: str, wait: bool, **options: Any
) -> None:
    """Submit a job, and print its id.

    ENTRY is train.py, run.sh, -m module, or a command with its arguments. Arguments behind a
    script (after --) replace its parameters' --name=value.
    """
    reached(NOTHING)
    run = hpcml.submit(job_from(**options), site, after=after, pack=pack)
    going_on(hpcml.Runs([run]))
    if not as_json:
        click.echo(run.id)
    if wait:
        wait_for(hpcml.Runs([run]), quiet=as_json)
        if not as_json:
            sys.stdout.write(run.logs(stream="stdout"))
            sys.stderr.write(run.logs(stream="stderr"))
    if as_json:
        print_json(run_data(run))
    if wait:
        sys.exit(exit_code(run))


@click.command("sweep")
@job_options
@click.option(
    "-a",
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=V,V,...",
    help="Values of a parameter: V,V,..., range(3) as in Python, or a JSON list. "
    "Every combination of all axes is a run.",
)
@click.option(
    "--points",
    type=click.File("r", encoding="utf-8"),
    help="A file of JSON lines, the parameters of a run each; - is stdin.",
)
@after_option
@click.option("--max-running", type=int, help="How many may run at once.")
@pack_option
@click.option("--wait", is_flag=True, help="Wait for all; exit with the first code that is not 0.")
def sweep_command(
    as_json: bool,
    site: str,
    axes: tuple[str, ...],
    points: TextIO | None,
    after: tuple[str, ...],
    max_running: int | None,
    pack: str,
    wait: bool,
    **options: Any,
) -> None:
    """Submit a job at many points of its parameters, and print the submission's id.

    hpcml sweep train.py -a width=32,64 -a seed=0,1,2
    """
    reached(NOTHING)
    sweep = job_from(**options).sweep(
        points=None if points is None else _points(points),
        **{name: _axis(name, text) for name, text in pairs("--axis", axes).items()},
    )
    runs = hpcml.submit(sweep, site, after=after, max_running=max_running, pack=pack)
    going_on(runs)
    if not as_json:
        click.echo(runs[0].id.partition(".")[0])
    if wait:
        wait_for(runs, quiet=as_json)
    if as_json:
        print_json(runs_data(runs))
    if wait:
        sys.exit(worst_exit_code(runs))


def _axis(name: str, text: str) -> Sequence[Any]:
    """``[1, 2]``, ``range(3)``, or values between commas."""
    whole = _value(text)
    if isinstance(whole, list):
        return whole
    try:
        if numbers := RANGE.fullmatch(text):
            return range(*map(int, numbers[1].split(",")))
        values = text.split(",")
        if not all(values):
            raise ValueError('a value is empty; if that is meant, write a JSON list, like [""]')
    except ValueError as error:  # range() has its own
        raise click.BadParameter(f"{name}={text}: {error}", param_hint="--axis") from None
    return [_value(value) for value in values]


def _points(file: TextIO) -> list[Any]:
    found = []
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                problem = f"{file.name}, line {number}: {error}"
                raise click.BadParameter(problem, param_hint="--points") from None
    return found


def job_from(
    entry: tuple[str, ...],
    module: bool,
    name: str | None,
    params: tuple[str, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    env: tuple[str, ...],
    tags: tuple[str, ...],
    code: str | None,
    device: str,
    devices: int | None,
    min_device_memory: str | None,
    nodes: int | None,
    tasks: int | None,
    cpus: int | None,
    memory: str | None,
    time: str,
    partition: str | None,
    options: tuple[str, ...],
    image: str | None,
) -> hpcml.Job:
    """The job that a command line describes."""
    if entry[0] == "-m" and len(entry) > 1:  # it stood behind --
        module, entry = True, entry[1:]
    is_script = module or entry[0].endswith((".py", ".sh", ".bash"))
    return hpcml.Job(
        (f"-m {entry[0]}" if module else entry[0]) if is_script else list(entry),
        name=name,
        params={key: _value(text) for key, text in pairs("--param", params).items()},
        args=list(entry[1:]) if is_script and len(entry) > 1 else None,
        inputs={key: hpcml.Dataset(path) for key, path in pairs("--input", inputs).items()},
        outputs=outputs,
        resources=hpcml.Resources(
            nodes=nodes,
            device=device,
            devices=devices,
            min_device_memory=min_device_memory,
            tasks=tasks,
            cpus=cpus,
            memory=memory,
            time=time,
            options={**_options(options), **({"partition": partition} if partition else {})},
        ),
        image=image,
        env=pairs("--env", env),
        code=None if code == "none" else code or "auto",
        tags=pairs("--tag", tags),
    )


def _options(given: tuple[str, ...]) -> dict[str, str | bool]:
    """Options of the scheduler; one without a value is ``True``."""
    parts = (text.partition("=") for text in given)
    return {name: value if separator else True for name, separator, value in parts}


def _value(text: str) -> Any:
    """JSON where it is JSON (``64``, ``0.1``, ``true``, ``[1, 2]``), else the text itself."""
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text
