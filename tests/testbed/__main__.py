"""``python -m tests.testbed up|down|mimic|shell|status``: a supercomputer in a box, by hand."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from hpcml.sites import load_site
from tests.testbed.box import Box
from tests.testbed.hosts import LOGIN
from tests.testbed.machine import CannotHaveBox
from tests.testbed.state import all_boxes

NAME = "box"


def up(name: str, settings: list[str]) -> int:
    switches: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        switches[key] = value if value.startswith("/") else json.loads(value.lower())
    begin = time.monotonic()
    box = Box(name, **switches).up()
    box.keep()
    print(f"Box {name} is up after {time.monotonic() - begin:.1f} s. To use it:")
    print("  make box-shell, as alice on the login node")
    print(f"  ssh -F {box.ssh_config('alice')} box")
    return 0


def down(name: str) -> int:
    for state in all_boxes():
        if state.name == name or state.abandoned:
            state.remove()
            print(f"Box {state.name} is gone.")
    return 0


def mimic(name: str, settings: list[str]) -> int:
    site, *partition = settings
    Box.of_name(name).mimic(load_site(site), *partition)
    print(f"Box {name} is like {site} now.")
    return 0


def status() -> int:
    for state in all_boxes():
        print(f"{state.name}: {'up' if state.alive else 'dead; `down` or the next `up` clears it'}")
        if state.alive and LOGIN in state.hosts:  # else it is just going up
            box = Box.of_name(state.name)
            print(box.switches)
            shown = box.run("login", ["sinfo"], check=False)
            print(shown.stdout + shown.stderr, end="")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "mimic", "shell", "status"])
    parser.add_argument(
        "settings",
        nargs="*",
        help="of `up`: max_submit_jobs=20 chatty=true ...; of `mimic`: SITE PARTITION",
    )
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--user", default="alice")
    parser.add_argument("--host", default="login")
    given = parser.parse_args()
    if given.settings and given.action not in ("up", "mimic"):
        parser.error(f"{given.action} takes no settings; --name says which box is meant")
    try:
        code = act(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CannotHaveBox, LookupError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1


def act(given: argparse.Namespace) -> int:
    if given.action == "up":
        return up(given.name, given.settings)
    if given.action == "down":
        return down(given.name)
    if given.action == "mimic":
        return mimic(given.name, given.settings)
    if given.action == "shell":
        return Box.of_name(given.name).shell(given.host, given.user)
    return status()


if __name__ == "__main__":
    sys.exit(main())
