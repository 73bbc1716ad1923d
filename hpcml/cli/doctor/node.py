"""What a compute node shows: a job of hpcml's looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

import hpcml
from hpcml import units
from hpcml.cli import stages
from hpcml.connection import Connection, connect
from hpcml.errors import HpcmlError
from hpcml.sites import Node, Site
from hpcml.states import State
from hpcml.surveying.finding import Finding, bad, ok, unknown, warn
from hpcml.surveying.login import MOST_SKEW, container_test, small, tried_first

LOOK = """
import json, os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from hpcml.agent.energy import domains
found = domains.find(sys.argv[2])
test = sys.argv[3:]
said = None
if test:
    try:
        done = subprocess.run(test, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = [done.returncode, done.stdout.decode(errors="replace")]
    except OSError as error:
        said = [127, str(error)]
names = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL"
devices = [os.environ[name] for name in names if name in os.environ]
pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
print(json.dumps({
    "host": os.uname().nodename,
    "architecture": os.uname().machine,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "cpus": os.cpu_count(),
    "memory": pages,
    "devices": devices[0] if devices else None,
    "time": time.time(),
    "energy": [found.readable(), found.tried],
    "container": said,
}))
"""
AS_IN_PROFILES = {"powercap": "rapl"}  # what the agent's readers read


def look_at_a_node(site: Site, partition: str | None) -> Iterator[Finding]:
    """Submit a job that looks around, wait for it, and hold against the profile what it saw.

    It takes as long as the queue does.
    """
    connection = connect(site.name)
    before = connection.files.now()
    run = hpcml.submit(_job(connection, partition), site.name)
    try:
        stages.going_on(hpcml.Runs([run]))
        click.echo(f"{run.id} is in the queue; this waits for it", err=True)
        run.wait()
    except KeyboardInterrupt:
        stages.reached(_taken_back(run))
        raise
    after = connection.files.now()
    if run.state is not State.COMPLETED:
        said = run.logs().strip().splitlines()[-1:]
        yield bad(
            f"a job that only looks around is {run.state}: {'; '.join([run.reason, *said])}",
            f"See `hpcml logs {run.id}` and `hpcml show {run.id}`.",
        )
        return
    seen = json.loads(run.logs(stream="stdout").splitlines()[-1])
    placed = run.plan.what["placement"]
    name = placed["partition"]
    yield ok(f"{seen['host']} of {name} sees the workspace; Python {seen['version']}")
    yield from _hardware(seen, site.partitions[name].node, name)
    yield from _devices(seen, name, placed["devices"])
    yield from _energy(seen, site)
    yield from _container(seen, site, name)
    skew = max(before - seen["time"], seen["time"] - after, 0.0)
    if skew > MOST_SKEW:
        problem = f"the clock of {seen['host']} is {skew:.0f} s off the login node's"
        yield warn(problem, "Tell the site: times of runs are wrong by that.")


def _taken_back(run: hpcml.Run) -> str:
    """Cancel a job for which nobody waits any more. Returns what is to be said of it."""
    try:
        run.cancel()
    except HpcmlError as error:
        return f"{run.id} may go on: {error.problem}. `hpcml cancel {run.id}` tries again."
    return f"{run.id} is cancelled."


def _job(connection: Connection, partition: str | None) -> hpcml.Job:
    site, binding = connection.site, connection.binding
    chosen = partition or tried_first(site, binding)
    library = f"{binding.workspace}/lib/{binding.library}"
    argv = [binding.agent_python, "-I", "-S", "-c", LOOK, library, site.system_root or "/"]
    argv += container_test(site.container_of(chosen))
    return hpcml.Job(argv, name="doctor", code=None, resources=small(site, chosen))


def _hardware(seen: dict[str, Any], node: Node, name: str) -> Iterator[Finding]:
    key = f"partitions.{name}.node"
    wrong, host, architecture = [], seen["host"], seen["architecture"]
    if node.architecture not in (None, architecture):
        told = f"{key}.architecture is {node.architecture}, {host} is {architecture}"
        yield bad(told, f"Write architecture: {architecture}")
    if isinstance(node.cpus, int) and seen["cpus"] < node.cpus:
        wrong.append(f"{key}.cpus is {node.cpus}, {host} has {seen['cpus']}")
    memory = node.memory_bytes
    if memory is not None and seen["memory"] < memory:
        has = units.memory_text(seen["memory"])
        wrong.append(f"{key}.memory is {node.memory}, {host} has {has}")
    for one in wrong:
        yield warn(one, "See `scontrol show node` there, and write what jobs may use.")


def _devices(seen: dict[str, Any], name: str, asked: int) -> Iterator[Finding]:
    if not asked:
        return
    if seen["devices"] is None:
        yield unknown(f"{asked} devices were asked for, and the environment names none")
        return
    found = len([one for one in seen["devices"].split(",") if one])
    if found == asked:
        yield ok(f"{found} devices, as asked for: {seen['devices']}")
    else:
        problem = f"{asked} devices were asked for, and {found} can be used: {seen['devices']}"
        yield bad(problem, f"See partitions.{name}.gres, devices_by and node.devices.")


def _energy(seen: dict[str, Any], site: Site) -> Iterator[Finding]:
    readable, tried = seen["energy"]
    if readable:
        names = [name for name, one in tried.items() if one["status"] == "measured"]
        yield ok(f"energy counters can be read ({', '.join(names)})")
        return
    said = "; ".join(f"{name}: {one['reason'] or one['status']}" for name, one in tried.items())
    expected = {meter.name for meter in site.energy if meter.readable == "yes"}
    missed = sorted(expected & {AS_IN_PROFILES[name] for name in tried})
    problem = f"energy counters cannot be read on {seen['host']} ({said})"
    if missed:
        yield warn(f"{problem}; the profile expects {', '.join(missed)}", "Ask the site.")
    else:
        yield unknown(problem)


def _container(seen: dict[str, Any], site: Site, name: str) -> Iterator[Finding]:
    if seen["container"] is None:
        return
    facts = site.container_of(name)
    code, said = seen["container"]
    line = " ".join(said.split()) or "no output"
    if code:
        advice = facts.access or "Ask the site; jobs without an image run as ever."
        yield warn(f"{facts.runtime} on {seen['host']}: exit code {code}: {line}", advice)
    else:
        yield ok(f"{line}, on {seen['host']}")
