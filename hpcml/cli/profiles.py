"""``hpcml sites explain|validate|schema|new``: what profiles say, and whether they do it right."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from hpcml.cli import shapes
from hpcml.cli.completing import complete_keys, complete_sites
from hpcml.cli.options import json_option
from hpcml.cli.showing import print_json, print_table
from hpcml.texts import plain_lines


@click.command("explain")
@click.argument("key", required=False, shell_complete=complete_keys)
@json_option
def explain_command(key: str | None, as_json: bool) -> None:
    """Tell what the KEY of a profile means, or list all keys.

    KEY is a whole key ("partitions.booster.node.cpus"), or its end ("cpus").
    """
    from hpcml.sites.keys import all_keys, keys_of

    found = all_keys() if key is None else keys_of(key)
    if as_json:
        told: list[shapes.Key] = [
            {
                "name": one.name,
                "description": one.description,
                "kind": one.kind,
                "default": one.default,
                "required": one.required,
                "allowed": list(one.allowed),
                "pattern": one.pattern,
                "example": one.example,
            }
            for one in found
        ]
        print_json(told)
        return
    if key is None:
        rows = [(one.name, one.kind, one.description) for one in found]
        print_table(("key", "is", "description"), rows, folded=("description",))
        return
    for one in found:
        click.echo(one.name)
        click.echo(f"  {one.description}")
        rest = {
            "is": one.kind,
            "needed": "yes" if one.required else "no",
            "default": one.default,
            "one of": ", ".join(one.allowed),
            "looks like": one.pattern,
            "example": one.example,
        }
        for name, said in rest.items():
            if said:
                click.echo(f"  {name:<11} {said}")


@click.command("validate")
@click.argument("profiles", nargs=-1, metavar="[NAME or FILE]...", shell_complete=complete_sites)
@json_option
def validate_command(profiles: tuple[str, ...], as_json: bool) -> None:
    """Say all that is wrong with profiles, by name or file; default: all that can be found.

    The exit code is 1 if something is.
    """
    from hpcml.sites import site_names

    found = [_validated(one) for one in profiles or site_names(bases=True)]
    if as_json:
        print_json(found)
    else:
        for one in found:
            for wrong in one["problems"]:
                click.echo(plain_lines(f"{wrong['problem']}\n  {wrong['advice']}"))
            if not one["problems"]:
                click.echo(plain_lines(f"{one['profile']}: in order"))
    if any(one["problems"] for one in found):
        sys.exit(1)


@click.command("schema")
def schema_command() -> None:
    """Print the JSON schema of profiles, with which editors complete and check them.

    An editor with a YAML language server finds it by the first line of a profile:
    "# yaml-language-server: $schema=./schema.json"
    """
    from hpcml.sites.schema import site_schema

    click.echo(json.dumps(site_schema(), indent=1, ensure_ascii=False))


@click.command("new")
@click.argument("name")
@click.option("--from", "base", metavar="SITE", shell_complete=complete_sites, help="Extend it.")
def new_command(name: str, base: str | None) -> None:
    """Write a profile NAME of your own to begin with; it replaces none.

    What can be said stands in it as comments; with --from, it adds to another profile.
    """
    from hpcml.sites import profile_of
    from hpcml.sites.layers import check_name
    from hpcml.sites.skeleton import new_profile

    check_name(name)
    if base is not None:
        profile_of(base)  # which says that there is none
    if base != name:
        check_new(name)
    click.echo(write_new(name, new_profile(name, base)))


def write_new(name: str, text: str, path: Path | None = None) -> Path:
    """Write a profile where there is no file yet; default: among those of the user.

    Raises
    ------
    ArgumentError
        There is one.
    HpcmlError
        It cannot be written.
    """
    from hpcml.errors import ArgumentError, HpcmlError
    from hpcml.settings import config_folder, private_folder
    from hpcml.sites.layers import SUFFIX, packaged

    schema = packaged() / "schema.json"
    where = f"# yaml-language-server: $schema={schema}\n" if isinstance(schema, Path) else ""
    if path is None:
        path = private_folder(config_folder() / "sites") / f"{name}{SUFFIX}"
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(where + text)
    except FileExistsError:
        problem = f"{path} is there already"
        raise ArgumentError(problem, "Change it, or take another name.") from None
    except OSError as error:
        raise HpcmlError(f"{path} cannot be written: {error.strerror}", "Mend that.") from error
    return path


def check_new(name: str) -> None:
    """Refuse the name of a site that there is: the new one would stand before it."""
    from hpcml.errors import ArgumentError
    from hpcml.sites import profile_of, site_names

    if name in site_names(bases=True):
        problem = f"there is a site {name} already: {profile_of(name)}"
        advice = f"Take another name; `hpcml sites new {name} --from {name}` adds to it, and "
        raise ArgumentError(problem, f"{advice}`hpcml sites doctor {name}` looks at it.")


def _validated(named: str) -> shapes.Validation:
    from hpcml.errors import ProfileError
    from hpcml.sites import profile_of, wrong_with

    file = Path(named) if os.sep in named or named.endswith(".yaml") else None
    name = named if file is None else file.name.removesuffix(".yaml")
    try:
        profile = str(profile_of(name) if file is None else file)
    except ProfileError:
        profile = named  # that there is none is told
    return {
        "name": name,
        "profile": profile,
        "problems": [
            {"problem": error.problem, "advice": error.advice} for error in wrong_with(name, file)
        ],
    }
