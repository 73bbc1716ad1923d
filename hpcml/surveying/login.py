"""What a login node shows of what is yours on a site: each check tries the thing."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from hpcml.agent import wire
from hpcml.errors import CommandError
from hpcml.job import Job, Resources
from hpcml.planning import make_plan
from hpcml.planning.paying import account_rule
from hpcml.planning.places import file_system_of
from hpcml.planning.sources import said
from hpcml.resolving import resolve
from hpcml.settings import Binding
from hpcml.sites import Site
from hpcml.sites.braces import filled, names_of
from hpcml.sites.launching import Container
from hpcml.surveying.accounts import Payment
from hpcml.surveying.cluster import SILENT, cluster_of
from hpcml.surveying.comparing import disagreements
from hpcml.surveying.finding import Check, Finding, bad, ok, unknown, warn
from hpcml.surveying.model import Cluster
from hpcml.surveying.shell import answered
from hpcml.transports import Completed, Transport
from hpcml.units import memory_text

LEAST_SPACE = 1 << 30  # bytes; less is a warning
LEAST_FILES = 10_000  # that can still be made
MOST_SKEW_OF_FILES = 2.0  # s between the clocks of a machine and of its file system
MOST_SKEW = 5.0  # s between the clocks of this machine and of the site
LINES = 20  # of what a command prints
LINE = 200  # characters of each
PROGRAMS = {"apptainer": "apptainer", "singularity-ce": "singularity"}
LOOK = """
import json, os, sys
left = os.statvfs(sys.argv[1])
space = [left.f_bavail * left.f_frsize, left.f_files, left.f_favail]
print(json.dumps([list(sys.version_info[:3]), sys.executable, space]))
"""


@dataclass(frozen=True)
class Login:
    """A site, and what is yours there.

    Attributes
    ----------
    reach : callable
        Gives what is yours, and the site's files and commands; raises HpcmlError.
    """

    site: Site
    reach: Callable[[], tuple[Binding, Transport]]

    @cached_property
    def _reached(self) -> tuple[Binding, Transport]:
        return self.reach()

    @property
    def binding(self) -> Binding:
        return self._reached[0]

    @property
    def files(self) -> Transport:
        return self._reached[1]

    @cached_property
    def cluster(self) -> Cluster:
        """What its Slurm says of itself."""
        return cluster_of(self.files)

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        """Run a command of the site's, which may hang."""
        return answered(argv, lambda: self.files.run(argv, stdin))

    @property
    def python(self) -> str:
        """Of hpcml's helper on the login node, or of its agent where there is no helper."""
        if self.site.transport == "local":
            return self.binding.agent_python
        return self.site.agent_python.login or "python3"

    @cached_property
    def look(self) -> tuple[list[int], str, list[int]]:
        """What that Python sees of itself and of the workspace."""
        argv = [self.python, "-I", "-S", "-c", LOOK, self.binding.workspace]
        done = self.files.run(argv)
        if done.exit_code:
            raise CommandError([self.python], done.exit_code, told_by(done), self._no_python)
        version, path, space = json.loads(done.stdout.splitlines()[-1])
        return version, path, space

    @property
    def _no_python(self) -> str:
        return "Name one from 3.6 up in the profile: agent_python."


def checks(login: Login) -> list[tuple[str, Check]]:
    """The checks of a login node; the first is whether it answers at all."""
    found = {
        "reach": reach,
        "workspace": workspace,
        "space": space,
        "purge": purge,
        "quota": quota,
        "agent python": agent_python,
        "clock": clock,
        "container": container,
    }
    if login.site.scheduler == "slurm":
        found["queue"] = queue
    return [(name, partial(check, login)) for name, check in found.items()]


def reach(login: Login) -> Iterator[Finding]:
    """Whether it answers."""
    files = login.files
    files.names("")  # the workspace is made where it is not there
    yield ok(f"{login.site.name} answers, by {login.site.transport}")


def workspace(login: Login) -> Iterator[Finding]:
    """Whether it can be used; a transport takes no folder that is not this user's alone."""
    yield from written(login.files, login.binding.workspace)


def written(files: Transport, folder: str, about: str = "") -> Iterator[Finding]:
    """A file is written to a workspace, read, and removed; ``about`` is said of it as well."""
    probe = f"doctor-{wire.unique()}"
    before = files.now()
    try:
        files.put({probe: b"hpcml doctor"})
        read = files.get({probe: 0}).get(probe)
        (status,) = (one for one in files.list("") or () if one.name == probe)
        after = files.now()
    finally:
        files.remove([probe])
    if read != b"hpcml doctor":
        yield bad(f"what is written to {folder} is not what is read there", "Use another folder.")
    else:
        yield ok(f"{folder} can be written, and read by you alone{about}")
    skew = max(before - status.mtime, status.mtime - after, 0.0)
    if skew > MOST_SKEW_OF_FILES:
        yield warn(
            f"the clock of the file system of {folder} is {skew:.0f} s off its machine's",
            "Have the clocks set by NTP: ages and times in the queue are wrong by that.",
        )


def space(login: Login) -> Iterator[Finding]:
    """What the file system of the workspace has left; a quota may leave less."""
    yield left(login.binding.workspace, *login.look[2])


def left(folder: str, size: int, most_files: int, files: int) -> Finding:
    """Whether bytes and files are enough that can still be written.

    Where ``most_files`` is 0 they are not counted: some file systems make inodes as they need them.
    """
    text = f"{memory_text(size)} free" + (f", {files} files can be made" if most_files else "")
    if size < LEAST_SPACE or (most_files and files < LEAST_FILES):
        return warn(f"{text} in {folder}", "Free some, or choose another workspace.")
    return ok(text)


def purge(login: Login) -> Iterator[Finding]:
    """What the profile says of when files of the workspace are deleted."""
    name = file_system_of(login.binding.workspace, login.site, login.binding)
    kept = None if name is None else login.site.file_systems[name].purge
    if kept is None:
        return
    told = said(login.site, f"file_systems.{name}.purge")
    problem = f"what nobody has used for {kept} is deleted on {name}, where the workspace is{told}"
    yield warn(problem, "Fetch in time what you want to keep: `hpcml fetch ID`.")


def quota(login: Login) -> Iterator[Finding]:
    """What the site's own command says of how much may be stored."""
    if not login.site.quota:
        return
    yours = names_of(login.binding.user, login.binding.project)
    argv = [filled(word, yours) for word in login.site.quota]
    done = login.run(argv)
    if done.exit_code:
        problem = f"{shlex.join(argv)!r} ended with exit code {done.exit_code}"
        yield warn(f"{problem}: {told_by(done)}", "See the site's documentation: quota.")
        return
    lines = done.stdout.decode(errors="replace").split("\n")
    shown = [shortened(line.strip()) for line in lines if line.strip()][:LINES]
    yield ok("; ".join(shown) or f"{shlex.join(argv)!r} says nothing")


def agent_python(login: Login) -> Iterator[Finding]:
    """The Python of hpcml's own programs, on this node."""
    version, path = ".".join(map(str, login.look[0])), login.look[1]
    if tuple(login.look[0]) < (3, 6):
        yield bad(f"{version}, {path}: too old", "Name one from 3.6 up: agent_python.")
        return
    there = login.binding.agent_python
    if login.site.scheduler == "process":
        yield ok(f"{version}, {path}")
    else:
        yield ok(f"{version}, {path}; {there} of the compute nodes was not looked at")


def clock(login: Login) -> Iterator[Finding]:
    """The site's clock beside this machine's: times of jobs are the site's."""
    login.files.names("")
    skew = login.files.now() - time.time()
    if abs(skew) <= MOST_SKEW:
        yield ok("the site's and this machine's agree")
        return
    late = "behind" if skew < 0 else "ahead of"
    problem = f"the site's is {abs(skew):.0f} s {late} this machine's"
    yield warn(problem, "Times of jobs are the site's. Have this machine's set by NTP.")


def container(login: Login) -> Iterator[Finding]:
    """What runs images: whether it is there, and whether you may use it."""
    facts = login.site.container
    if facts.runtime in (None, "none"):
        return
    missing = _group_missing(login)
    why = f"; you are not in the group {facts.group}" if missing else ""
    advice = facts.access or "Ask the site; jobs without an image run as ever."
    test = container_test(facts)
    if facts.where == "compute" or not test:
        not_seen = f"{facts.runtime} cannot be tried on this node"
        yield warn(f"{not_seen}{why}", advice) if missing else unknown(not_seen)
        return
    done = login.run(test)
    if done.exit_code:
        problem = f"{shlex.join(test)!r} ended with exit code {done.exit_code}: {told_by(done)}"
        yield warn(f"{problem}{why}", advice)
    elif missing and not facts.test:
        yield warn(f"{facts.runtime} is there{why}", advice)
    else:
        yield ok(f"{done.stdout.decode(errors='replace').strip() or facts.runtime}")


def container_test(facts: Container) -> list[str]:
    """A command that fails where images cannot be run; empty where there is none so simple."""
    if facts.module is not None:
        return []
    program = PROGRAMS.get(facts.runtime or "")
    return list(facts.test) or ([program, "--version"] if program else [])


def _group_missing(login: Login) -> bool:
    """Whether somebody must be in a group, and is not as far as this session knows."""
    group = login.site.container.group
    if group is None:
        return False
    done = login.run(["id", "-Gn"])
    return group not in done.stdout.decode(errors="replace").split()


def account(login: Login) -> Iterator[Finding]:
    """Whether who pays may pay, by Slurm's accounting."""
    return Payment(login.site, login.cluster, login.binding).findings()


def profile(login: Login) -> list[Finding]:
    """What the profile and your settings say, beside what the cluster does."""
    return disagreements(login.site, login.cluster)


def queue(login: Login) -> Iterator[Finding]:
    """Whether Slurm would take a job as hpcml writes it. None is queued."""
    site, binding = login.site, login.binding
    partition = tried_first(site, binding)
    job = Job(["true"], code=None, resources=small(site, partition))
    plan = make_plan(resolve(job, online=False), site, binding)
    where = f"partition {partition}"
    done = login.run(["sbatch", "--test-only"], plan.script.encode())
    if done.exit_code:
        told = told_by(done)
        problem = f"sbatch would not take a job in {where}: {told}"
        if "slurm controller" in told:
            problem, advice = f"sbatch cannot ask about a job in {where}: {told}", SILENT
        else:
            advice = account_rule(site) if "account" in told.lower() else ""
        yield bad(problem, advice or "See the site's documentation.")
    else:
        yield ok(f"sbatch would take a job in {where}")


def tried_first(site: Site, binding: Binding) -> str:
    """The partition of your settings; else the first one."""
    yours = binding.partition
    return yours if yours in site.partitions else next(iter(site.partitions))


def small(site: Site, partition: str) -> Resources:
    """A node of a partition, for a moment."""
    kind = site.partitions[partition].node.device.kind
    return Resources(nodes=1, device=kind, time="5m", options={"partition": partition})


def told_by(done: Completed) -> str:
    """What a command printed, in one line."""
    text = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
    return "; ".join(map(shortened, text.split("\n")[-3:])) or "no output"


def shortened(line: str) -> str:
    """A line of what a command printed, of which nobody reads more than a beginning."""
    return line if len(line) <= LINE else f"{line[:LINE]}…"
