"""Site profiles: reading all that come with hpcml, and a plan as a whole process."""

from __future__ import annotations

import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measure import alternate, cpu_and_output, cpu_seconds, fresh_home

PYTHON = sys.executable
LOADED = """
    import time, hpcml.sites, hpcml.sites.loading
    begin = time.process_time()
    for name in hpcml.sites.site_names():
        hpcml.sites.read_site(name)
    print(time.process_time() - begin)
"""
PLANNED = "from hpcml.cli import main; main()"
KNOWN, COLD, PLAN = 0.05, 0.4, 0.25  # s: what these may take


def measure(row: Any) -> Iterator[Any]:
    """Each beside the time that it may take: the ratio is the part of it that is used."""
    known = fresh_home()
    # An installed hpcml has its bytecode, which a checkout may be told not to write.
    known.update(PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=f"{known['HOME']}/bytecode")
    _loading(known)
    cold, again = alternate(lambda: _loading(fresh_home()), lambda: _loading(known))
    yield row("all profiles, first", "s", cold, "may take", COLD, limit=1.0)
    yield row("all profiles, again", "s", again, "may take", KNOWN, limit=1.0)
    with tempfile.TemporaryDirectory() as empty:
        (planning,) = alternate(lambda: _planning(known, empty))
    yield row("hpcml plan, as a process", "s", planning, "may take", PLAN, limit=1.0)


def _loading(environment: Mapping[str, str]) -> float:
    code = textwrap.dedent(LOADED)
    return float(cpu_and_output([PYTHON, "-c", code], environment)[1])


def _planning(environment: Mapping[str, str], folder: str) -> float:
    argv = ["env", f"--chdir={folder}", PYTHON, "-c", PLANNED, "plan", "--", "true"]
    return cpu_seconds(argv, environment)
