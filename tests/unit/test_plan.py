"""A plan depends on the job and the site alone, and says no before anything is queued."""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import hashlib
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hpcml
from hpcml.batch_view import Attempt
from hpcml.connection import bind
from hpcml.errors import HpcmlError, JobError, PlanError
from hpcml.planning import Plan, make_plan
from hpcml.resolving import inputs, resolve
from hpcml.settings import Binding
from hpcml.sites import load_site

ROOT = Path(__file__).resolve().parents[2]

TRAIN = """
import hpcml

p = hpcml.params(width=8, depth=2, names=(), table=None)
print(p.width)
"""

# All kinds of values, so that a Python that wrote one differently would be found out.
JOB = """hpcml.Job(
    "train.py",
    params={"width": 64, "depth": 1e22, "names": ["\\u00e9", "\\U0001f600", "", 0.1, -0.0, 5e-324],
            "table": {"b": None, "a": [True, 12345678901234567890, 1.0, {"\\u00df": "\\n"}]}},
    args=["--width", "{params.width}", "{inputs.t2m}", "a b"],
    inputs={"t2m": "t2m"},
    outputs=["model.pt", "deep/er/x"],
    env={"MODE": "fast", "EMPTY": ""},
    resources=hpcml.Resources(cpus=1, memory="1.5 GiB", time="1h30m"),
)"""


@pytest.fixture
def project(project: Path) -> Path:
    """A folder in git with a script, and data that git ignores."""
    (project / "train.py").write_text(TRAIN)
    (project / "run.sh").write_text("#!/bin/sh -e\necho hello\n")
    (project / "pkg").mkdir()
    (project / "pkg" / "mod.py").write_text(TRAIN)
    (project / ".gitignore").write_text("/t2m\n/ignored.py\n")
    (project / "ignored.py").write_text("print(1)\n")
    write_data(project)
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    return project


def write_data(project: Path) -> None:
    (project / "t2m").mkdir()
    (project / "t2m" / "0.0").write_bytes(b"\x00" * 100)
    (project / "t2m" / "zarr.json").write_bytes(b"{}")


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True)


def the_job(**changes: Any) -> hpcml.Job:
    job: hpcml.Job = eval(JOB)
    return replace(job, **changes)


def binding(**changes: Any) -> Binding:
    return replace(Binding("/ws", "/usr/bin/python3", "/usr/bin/python3", "hpcml-x.pyz"), **changes)


# --- pure ---------------------------------------------------------------------------------

FORBIDDEN = [
    (builtins, "open"),
    (io, "open"),
    (io, "FileIO"),
    *((os, name) for name in ("open", "stat", "lstat", "scandir", "listdir", "getcwd", "readlink")),
    *((os, name) for name in ("access", "mkdir", "uname", "urandom", "getpid", "getuid", "system")),
    (os, "sched_getaffinity"),
    (os, "sysconf"),
    (os, "getenv"),
    *((time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "gmtime")),
    *((time, name) for name in ("perf_counter", "localtime", "strftime", "sleep")),
    (socket, "socket"),
    (socket, "getaddrinfo"),
    (socket, "gethostname"),
    (subprocess, "Popen"),
    (random, "random"),
]


class Untouchable:
    """Whoever asks it anything is told off."""

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise AssertionError("planning looked at the world")

    __getattr__ = __getitem__ = __setitem__ = __contains__ = __iter__ = _refuse
    __len__ = __call__ = _refuse


@contextlib.contextmanager
def a_world_that_may_not_be_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module, name in FORBIDDEN:
            patch.setattr(module, name, Untouchable())
        patch.setattr(os, "environ", Untouchable())
        yield


def test_planning_is_pure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved, site, yours = resolve(the_job()), load_site("local"), binding()

    with a_world_that_may_not_be_touched(monkeypatch):
        plan = make_plan(resolved, site, yours)
        digest, job_digest, script = plan.digest, plan.job_digest, plan.script
        text = plan.to_json()
        again = Plan.from_json(text)
        told = str(plan)

    assert again == plan == make_plan(resolved, site, yours)
    assert digest and job_digest and digest != job_digest
    assert script.startswith("#!/bin/sh\n#HPCML --partition=local\n")
    assert digest in told


def test_the_guard_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    for look in (
        lambda: Path("x").exists(),
        lambda: os.environ["HOME"],
        lambda: os.environ.get("HOME"),
        lambda: time.time(),
        lambda: open("x").close(),
        lambda: subprocess.run(["true"], check=False),
    ):
        with (
            a_world_that_may_not_be_touched(monkeypatch),
            pytest.raises(AssertionError, match="looked at the world"),
        ):
            look()


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below a folder, with its size, mtime and inode."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def test_plan_writes_nothing_and_reaches_nothing(
    project: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 5  # git would note the new times in its index if it were let
    os.utime(project / "train.py", (later, later))
    monkeypatch.setattr(socket, "socket", Untouchable())
    before = listing(tmp_path)

    plan = hpcml.plan(the_job())

    assert plan.digest
    assert listing(tmp_path) == before


# --- the digest ---------------------------------------------------------------------------


def digest_in(folder: Path, monkeypatch: pytest.MonkeyPatch, job: hpcml.Job | None = None) -> str:
    monkeypatch.chdir(folder)
    digest = hpcml.plan(job or the_job()).digest
    assert digest is not None
    return digest


def test_the_digest_is_the_same_from_two_checkouts(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = digest_in(project, monkeypatch)

    for name in ("one", "deeper/an other's"):
        clone = tmp_path / name
        clone.parent.mkdir(exist_ok=True)
        git(tmp_path, "clone", "-q", str(project), str(clone))
        write_data(clone)
        assert digest_in(clone, monkeypatch) == here


def test_the_digest_is_the_same_with_and_without_git(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = digest_in(project, monkeypatch)
    shutil.rmtree(project / ".git")
    (project / "ignored.py").unlink()

    assert digest_in(project, monkeypatch) == here


def test_the_digest_is_the_same_for_two_users(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []
    for user in ("ada", "bob"):
        config = tmp_path / user / "config"
        (config / "hpcml").mkdir(parents=True)
        (config / "hpcml" / "config.yaml").write_text(
            f"sites: {{local: {{account: of-{user}, user: {user}, workspace: /scratch/{user}/ws, "
            f"python: /home/{user}/venv/bin/python}}}}"
        )
        monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
        monkeypatch.setenv("HOME", str(tmp_path / user))
        monkeypatch.setenv("USER", user)
        monkeypatch.setenv("PATH", f"/home/{user}/bin:{os.environ['PATH']}")
        plans.append(hpcml.plan(the_job()))

    ada, bob = plans
    assert ada.where["workspace"] == "/scratch/ada/ws" and bob.where["account"] == "of-bob"
    assert ada.where != bob.where
    assert ada.digest == bob.digest
    assert ada.job_digest == bob.job_digest
    assert "ada" not in json.dumps(dict(ada.what))


def test_no_absolute_path_is_in_what_is_digested(project: Path) -> None:
    for job in (the_job(), hpcml.Job("-m pkg.mod"), hpcml.Job("run.sh", inputs={"t2m": "t2m"})):
        assert str(project) not in json.dumps(dict(hpcml.plan(job).what))


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda project: (project / name).write_text(content) and None


def data(content: bytes) -> Callable[[Path], None]:
    return lambda project: (project / "t2m" / "0.0").write_bytes(content) and None


def data_as_if_never_touched(project: Path) -> None:
    path = project / "t2m" / "0.0"
    status = path.stat()
    path.write_bytes(b"\x01" + b"\x00" * 99)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


PARAMS, RESOURCES = the_job().params, the_job().resources

DIFFERENT: dict[str, Callable[[Path], None] | dict[str, Any]] = {
    "a byte of the script": write("train.py", TRAIN.replace("8", "9")),
    "a byte of another file": write("pkg/mod.py", TRAIN + "\n"),
    "a new file": write("new.py", ""),
    "a file gone": lambda project: (project / "run.sh").unlink(),
    "a file moved": lambda project: (project / "run.sh").rename(project / "go.sh") and None,
    "a file that can be executed": lambda project: (project / "run.sh").chmod(0o755),
    "a link in place of a file": lambda project: (
        (project / "run.sh").unlink() or (project / "run.sh").symlink_to("train.py")
    ),
    "a byte of the data": data(b"\x00" * 99 + b"\x01"),
    "a byte more of the data": data(b"\x00" * 101),
    "a byte of the data, with the old time": data_as_if_never_touched,
    "a file of the data moved": lambda project: (
        (project / "t2m" / "0.0").rename(project / "t2m" / "0.1") and None
    ),
    "a parameter": {"params": {**PARAMS, "width": 65}},
    "a parameter's type": {"params": {**PARAMS, "width": 64.0}},
    "a parameter's last digit": {"params": {**PARAMS, "depth": 1.0000000000000001e23}},
    "a parameter within": {"params": {**PARAMS, "names": ["é"]}},
    "a parameter more": {"params": {**PARAMS, "width": None}},
    "an argument": {"args": ["--width", "{params.width}", "{inputs.t2m}", "a  b"]},
    "an argument cut in two": {"args": ["--width", "{params.width}", "{inputs.t2m}", "a", "b"]},
    "no arguments": {"args": []},
    "the usual arguments": {"args": None},
    "a variable": {"env": {"MODE": "slow", "EMPTY": ""}},
    "an empty variable less": {"env": {"MODE": "fast"}},
    "an output": {"outputs": ["model.pt", "deep/er/y"]},
    "an output less": {"outputs": ["model.pt"]},
    "an input's name": {"inputs": {"pr": "t2m"}, "args": []},
    "the entry": {"entry": "pkg/mod.py"},
    "the kind of entry": {"entry": "-m pkg.mod"},
    "no code": {"entry": ["python3", "train.py"], "args": None, "code": None},
    "CPUs": {"resources": replace(RESOURCES, cpus=2)},
    "memory": {"resources": replace(RESOURCES, memory="1 GiB")},
    "walltime": {"resources": replace(RESOURCES, time="1h31m")},
}


@pytest.mark.parametrize("change", DIFFERENT)
def test_the_digest_differs_when_what_is_run_differs(
    change: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DIFFERENT[change]
    before = hpcml.plan(the_job())
    resolve(the_job())  # so that digests are remembered, as after an earlier submission
    if callable(made):
        made(project)
        job = the_job()
    else:
        job = the_job(**made)

    after = hpcml.plan(job)

    assert after.digest and before.digest
    assert after.digest != before.digest
    resources_alone = change in ("CPUs", "memory", "walltime")
    assert (after.job_digest == before.job_digest) is resources_alone


SAME: dict[str, Callable[[Path], None] | dict[str, Any]] = {
    "the name": {"name": "another"},
    "tags": {"tags": {"for": "paper"}},
    "the order of parameters": {"params": dict(reversed(PARAMS.items()))},
    "a tuple in place of a list": {"params": {**PARAMS, "names": tuple(PARAMS["names"])}},
    "the same time in other words": {"resources": replace(RESOURCES, time="90m")},
    "the same time as a timedelta": {"resources": replace(RESOURCES, time=timedelta(hours=1.5))},
    "the same memory in other words": {"resources": replace(RESOURCES, memory="1536 MiB")},
    "an input as a Dataset": {"inputs": {"t2m": hpcml.Dataset("t2m")}},
    "an output spelt otherwise": {"outputs": ["./model.pt", "deep//er/x/"]},
    "the code's folder by its name": {"code": "."},
    "a notebook": write("explore.ipynb", "{}"),
    "an ignored file": write("ignored.py", "print(2)\n"),
    "the time of a file": lambda project: os.utime(project / "train.py", (1, 1)),
    "who else may read a file": lambda project: (project / "train.py").chmod(0o600),
    "a commit": lambda project: git(project, "commit", "-q", "--allow-empty", "-m", "x"),
    "data read again": lambda project: os.utime(project / "t2m" / "0.0", (1, 1)),
}


@pytest.mark.parametrize("change", SAME)
def test_the_digest_stays_when_what_is_run_stays(
    change: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SAME[change]
    (project / ".gitignore").write_text("/t2m\n/ignored.py\n")
    before = hpcml.plan(the_job()).digest
    if callable(made):
        made(project)
        job = the_job()
    else:
        job = the_job(**made)

    assert hpcml.plan(job).digest == before


def test_a_numpy_scalar_is_the_number_it_holds(project: Path) -> None:
    # Numpy is no dependency; what counts is how its scalars look from outside.
    scalar = SimpleNamespace(shape=(), item=lambda: 64)
    job = the_job(params={**PARAMS, "width": scalar})

    assert hpcml.plan(job).digest == hpcml.plan(the_job()).digest


# --- on every Python ----------------------------------------------------------------------


def other_pythons() -> dict[str, Path]:
    """An interpreter of each newer or other Python >= 3.11 on this machine, by ``3.x``."""
    candidates = [Path(found) for x in range(11, 30) if (found := shutil.which(f"python3.{x}"))]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout
        candidates += sorted(Path(root.strip()).glob("versions/*/bin/python3.[0-9]*"))
    found: dict[str, Path] = {}
    tell = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable, sep='\\n')"
    for candidate in candidates:
        if not re.fullmatch(r"python3\.(1[1-9]|2\d)", candidate.name):
            continue
        told = subprocess.run([candidate, "-c", tell], capture_output=True, text=True, check=False)
        if told.returncode == 0:  # a shim of a version that is not switched on fails
            version, executable = told.stdout.splitlines()
            found.setdefault(version, Path(executable))
    found.pop(f"{sys.version_info[0]}.{sys.version_info[1]}", None)
    return found


@pytest.fixture(scope="session")
def environments(request: pytest.FixtureRequest) -> dict[str, Path]:
    """Interpreters with hpcml's core dependencies, in environments that are kept."""
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = (ROOT / "constraints.txt").read_bytes()
    key = hashlib.sha256(repr(core).encode() + pins).hexdigest()[:12]
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("pythons")
    made = {}
    for version, python in other_pythons().items():
        place = folder / f"{version}-{key}"
        with open(folder / f"{version}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "complete").exists():
                build_environment(python, place, core)
        made[version] = place / "bin" / "python"
    print("Pythons:", sys.version.split()[0], *made)
    return made


def build_environment(python: Path, place: Path, packages: list[str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    pip = [place / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in (
        [python, "-m", "venv", place],
        [*pip, "-c", ROOT / "constraints.txt", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    (place / "complete").touch()


def test_the_digest_is_the_same_on_every_python(
    project: Path, environments: dict[str, Path]
) -> None:
    code = f"import hpcml; p = hpcml.plan({JOB}); print(p.digest, p.job_digest)"
    here = hpcml.plan(the_job())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    for version, python in environments.items():
        told = subprocess.run(
            [python, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, f"{version}: {told.stderr}"
        assert told.stdout.split() == [here.digest, here.job_digest], version


def test_the_digest_does_not_depend_on_hash_seed_and_locale(project: Path) -> None:
    code = f"import hpcml; print(hpcml.plan({JOB}).digest)"
    for changes in ({"PYTHONHASHSEED": "1"}, {"LC_ALL": "C"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), **changes},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == hpcml.plan(the_job()).digest, changes


# --- offline ------------------------------------------------------------------------------


def test_offline_a_long_read_stays_open_and_submit_does_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "RACY", 0)  # else what is younger than 2 s is read again
    with open(project / "t2m" / "big", "wb") as file:
        file.truncate(65 << 20)
    job = hpcml.Job("train.py", inputs={"t2m": "t2m"})

    plan = hpcml.plan(job)

    (open_question,) = plan.unresolved
    assert open_question.startswith("inputs.t2m: ")
    assert "have not been read yet" in open_question
    assert plan.digest is None and plan.job_digest is None
    assert plan.what["inputs"] == {"t2m": None}
    assert f"unresolved: {open_question}" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan

    run = hpcml.submit(job)
    assert run.plan.unresolved == ()
    assert run.plan.digest
    assert hpcml.plan(job).digest == run.plan.digest, "what was read once is remembered"
    assert run.wait(30).state == "COMPLETED"


# --- JSON ---------------------------------------------------------------------------------


def test_a_plan_survives_json(project: Path) -> None:
    for job in (
        the_job(name="é\U0001f600", tags={"a b": "\n"}),
        hpcml.Job(["echo", "a b", ""]),
        hpcml.Job("run.sh"),
        hpcml.Job("-m pkg.mod", resources=hpcml.Resources(time="7s")),
    ):
        plan = hpcml.plan(job)
        again = Plan.from_json(plan.to_json())
        assert again == plan
        assert (again.digest, again.script) == (plan.digest, plan.script)
        assert again.to_json() == plan.to_json()


def test_a_torn_plan_is_refused(project: Path) -> None:
    text = hpcml.plan(the_job()).to_json()

    for end in range(0, len(text) - 1, 37):
        with pytest.raises(HpcmlError, match="no plan"):
            Plan.from_json(text[:end])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"plan"',
        "{}",
        '{"schema": 2}',
        '{"schema": 2, "what": 3, "where": {}, "decisions": [], "unresolved": [], "digest": "x"}',
        '{"schema": 2, "what": {"a": NaN}, "where": {}, "decisions": [], "unresolved": [],'
        ' "digest": "x"}',
        '{"schema": 2, "what": {}, "where": {}, "decisions": 3, "unresolved": [], "digest": "x"}',
        "[" * 100_000,
        "\0",
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(HpcmlError, match="no plan"):
        Plan.from_json(text)


def test_another_schema_is_refused(project: Path) -> None:
    data = json.loads(hpcml.plan(the_job()).to_json())

    with pytest.raises(HpcmlError, match="schema 99"):
        Plan.from_json(json.dumps({**data, "schema": 99}))


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands that is not made of other things."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        if isinstance(below, dict | list) and below:
            yield from leaves(below, (*place, key))
        else:
            yield (*place, key)


def test_a_tampered_plan_is_refused(project: Path) -> None:
    text = hpcml.plan(the_job()).to_json()
    places = list(leaves(json.loads(text)["what"]))
    assert len(places) > 25

    for place in places:
        data = json.loads(text)
        holder = data["what"]
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = "tampered"
        with pytest.raises(HpcmlError, match="not what its digest says"):
            Plan.from_json(json.dumps(data))


def test_questions_cannot_be_taken_out_of_a_plan(project: Path) -> None:
    plan = replace(hpcml.plan(the_job()), unresolved=("inputs.t2m: not read",))
    data = json.loads(plan.to_json())

    with pytest.raises(HpcmlError, match="not what its digest says"):
        Plan.from_json(json.dumps({**data, "unresolved": []}))


# --- decisions ----------------------------------------------------------------------------


def test_decisions_say_why(project: Path) -> None:
    plan = hpcml.plan(hpcml.Job("train.py", resources=hpcml.Resources(cpus=2, time="10m")))

    told = "\n".join(plan.decisions)
    assert "partition local: the first with device 'cpu'" in told
    assert "memory: not asked for" in told
    assert "walltime 00:10:00: USR2 to who listens 60 s before" in told
    assert "OMP_NUM_THREADS=2: the run has 2 CPUs" in told
    assert f"code: snapshot {plan.what['code'][:12]}" in told


def test_decisions_of_others_are_told_as_theirs(project: Path) -> None:
    resources = hpcml.Resources(memory="1 GiB", options={"partition": "local"})
    job = hpcml.Job(["echo"], resources=resources, env={"OMP_NUM_THREADS": "1"}, code=None)

    told = "\n".join(hpcml.plan(job).decisions)

    assert "partition local: asked for" in told
    assert "code: none is taken along" in told
    assert "OMP_NUM_THREADS" not in told and "memory" not in told


def test_the_script_asks_for_what_was_planned(project: Path) -> None:
    plan = hpcml.plan(the_job())

    lines = plan.script.splitlines()
    for line in ("--partition=local", "--nodes=1", "--cpus-per-task=1", "--time=01:30:00"):
        assert f"#HPCML {line}" in lines
    assert "#HPCML --mem=1572864K" in lines
    assert lines[-1].startswith("exec ") and lines[-1].endswith('"$@"')


# --- refusals -----------------------------------------------------------------------------

deep: list[Any] = []
deep.append(deep)


class Text(str):
    """So that a test's name stays short."""

    def __repr__(self) -> str:
        return "…"


def resources(**asked: Any) -> dict[str, Any]:
    return {"resources": hpcml.Resources(**asked)}


CPUS = len(os.sched_getaffinity(0))

# What the job says → field, words of the message.
REFUSED: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    # time
    "time over the limit": (resources(time="31d"), "resources.time", ["30-00:00:00", '"30d"']),
    "an unknown unit of time": (resources(time="10 mins"), "resources.time", ["'min'"]),
    "no unit of time": (resources(time="10"), "resources.time", ["no unit", '"10m"']),
    "a number as time": (resources(time=10), "resources.time", ['"10s", "10m"']),
    "no time": (resources(time=None), "resources.time", ["None"]),
    "time that has passed": (resources(time=timedelta(-1)), "resources.time", ["no time to run"]),
    "time without end": (resources(time="9" * 400 + "d"), "resources.time", ["too long"]),
    # memory
    "an unknown unit of memory": (resources(memory="2 Gb"), "resources.memory", ["'GB'"]),
    "no unit of memory": (resources(memory="2"), "resources.memory", ["no unit", '"2 GiB"']),
    "a number as memory": (resources(memory=2), "resources.memory", ["2 is no amount"]),
    "too much memory": (resources(memory="900 TiB"), "resources.memory", ["nearest", "MiB"]),
    "memory of no size": (resources(memory="0 GiB"), "resources.memory", ["none at all", "GiB"]),
    "memory without end": (resources(memory="9" * 400 + " T"), "resources.memory", ["too much"]),
    # devices, CPUs, nodes, tasks
    "an unknown kind of device": (resources(device="gpu"), "resources.device", ["'gpu'", "cpu"]),
    "a misspelt device": (resources(device="cpus"), "resources.device", ["did you mean 'cpu'?"]),
    "no device": (resources(device=None), "resources.device", ["not text"]),
    "GPUs where there are none": (resources(devices=1), "resources.devices", [": 0;", "for 1"]),
    "too many CPUs": (resources(cpus=10**6), "resources.cpus", [f"cpus={CPUS}."]),
    "CPUs as text": (resources(cpus="2"), "resources.cpus", ["'2' is no number", "cpus=1"]),
    "half a CPU": (resources(cpus=0.5), "resources.cpus", ["0.5 is no number"]),
    "no CPU": (resources(cpus=0), "resources.cpus", ["0 is no number from 1 up"]),
    "less than no CPU": (resources(cpus=-1), "resources.cpus", ["-1 is no number"]),
    "CPUs as a truth": (resources(cpus=True), "resources.cpus", ["True is no number"]),
    "too many nodes": (resources(nodes=2), "resources.nodes", [": 1;", "nodes=1."]),
    "no node": (resources(nodes=0), "resources.nodes", ["0 is no number"]),
    "nodes of no number": (resources(nodes="1"), "resources.nodes", ["'1' is no number"]),
    "tasks": (resources(tasks=2), "resources.tasks", ["one process a run", "more cpus"]),
    "tasks as text": (resources(tasks="1"), "resources.tasks", ["'1' is no number"]),
    # options
    "an unknown option": (
        resources(options={"partiton": "local"}),
        "resources.options",
        ["did you mean 'partition'?"],
    ),
    "an unknown partition": (
        resources(options={"partition": "locla"}),
        "resources.options.partition",
        ["did you mean 'local'?"],
    ),
    "options as a list": (
        resources(options=["partition"]),
        "resources.options",
        ["no dict"],
    ),
    "a partition that is no text": (
        resources(options={"partition": 3}),
        "resources.options.partition",
        ["3 is not text"],
    ),
    "resources as a dict": ({"resources": {"cpus": 1}}, "resources", ["hpcml.Resources("]),
    # parameters
    "an unknown parameter": (
        {"params": {"widht": 3}},
        "params.widht",
        ["train.py does not know it", "did you mean 'width'?"],
    ),
    "a parameter unknown to a module": (
        {"entry": "-m pkg.mod", "params": {"dpeth": 3}},
        "params.dpeth",
        ["did you mean 'depth'?"],
    ),
    "a parameter that is no number": (
        {"params": {"width": float("nan")}},
        "params.width",
        ["nan is no JSON number"],
    ),
    "a parameter without end": ({"params": {"width": float("-inf")}}, "params.width", ["-inf"]),
    "a parameter that is an object": (
        {"params": {"width": object()}},
        "params.width",
        ["object is no JSON value", "inputs"],
    ),
    "a parameter that is a set": ({"params": {"names": {1}}}, "params.names", ["set is no JSON"]),
    "a parameter that is bytes": ({"params": {"width": b"1"}}, "params.width", ["bytes is no"]),
    "an object within a parameter": (
        {"params": {"table": {"a": [1, object()]}}},
        "params.table.a[1]",
        ["object is no JSON value"],
    ),
    "a number as a key within a parameter": (
        {"params": {"table": {1: 2}}},
        "params.table",
        ["1 is not text"],
    ),
    "a parameter that holds itself": (
        {"params": {"names": deep}},
        "params.names",
        ["holds itself"],
    ),
    "a number of 5000 digits": ({"params": {"width": 10**5000}}, "params.width", ["digits"]),
    "a parameter with a space in its name": ({"params": {"a b": 1}}, "params", ["'a b'"]),
    "a parameter with a dash before its name": ({"params": {"-w": 1}}, "params", ["'-w'"]),
    "a parameter with a line's end in its name": ({"params": {"w\n": 1}}, "params", ["w\\n"]),
    "a parameter with no name": ({"params": {"": 1}}, "params", ["''"]),
    "a parameter whose name is a number": ({"params": {3: 1}}, "params", ["3"]),
    "parameters as a list": ({"params": [("width", 3)]}, "params", ["no dict"]),
    "a parameter that no argument can hold": (
        {"params": {"width": Text("x" * (1 << 17))}},
        "params",
        ["128 KiB", "input"],
    ),
    "a list that no argument can hold": (
        {"params": {"names": [Text("\n" * 700)] * 100}},  # each a "\\n" in JSON
        "params",
        ["128 KiB"],
    ),
    # arguments
    "an unknown parameter in an argument": (
        {"params": {"width": 3}, "args": ["{params.widht}"]},
        "args",
        ["{params.widht}", "did you mean 'width'?"],
    ),
    "an unknown input in an argument": (
        {"inputs": {"t2m": "t2m"}, "args": ["--data={inputs.t2}"]},
        "args",
        ["{inputs.t2}", "did you mean 't2m'?"],
    ),
    "an unknown parameter in a command": (
        {"entry": ["echo", "{params.width}"]},
        "entry",
        ["{params.width}", "none to choose from"],
    ),
    "arguments beside a command": (
        {"entry": ["echo"], "args": ["x"]},
        "args",
        ["holds its own arguments"],
    ),
    "arguments as one text": ({"args": "--width 3"}, "args", ["one text", "['--width', '3']"]),
    "an argument that is a number": ({"args": ["--width", 3]}, "args[1]", ["3 is not text"]),
    "arguments that are a number": ({"args": 3}, "args", ["no list"]),
    "an argument that is too long": ({"args": [Text("x" * (1 << 17))]}, "args", ["128 KiB"]),
    "arguments that no command line can hold": (
        {"args": [Text("x" * 100_000)] * 11},
        "args",
        ["1 MiB"],
    ),
    "an argument that gets too long": (
        {"params": {"width": Text("x" * 70_000)}, "args": ["{params.width}{params.width}"]},
        "args",
        ["128 KiB"],
    ),
    "a command that is too long": (
        {"entry": ["echo", *[Text("x" * 100_000)] * 11]},
        "entry",
        ["1 MiB"],
    ),
    # inputs and outputs
    "a missing input": (
        {"inputs": {"t2m": "t2n"}},
        "inputs.t2m",
        ["there is no", "did you mean 't2m'?"],
    ),
    "an input without a path": ({"inputs": {"t2m": None}}, "inputs.t2m", ["None is not text"]),
    "an input from the net": (
        {"inputs": {"t2m": "https://example.org/t2m.zarr"}},
        "inputs.t2m",
        ["URL", "path"],
    ),
    "an input whose name is none": ({"inputs": {"t 2": "t2m"}}, "inputs", ["'t 2'"]),
    "an input whose name is too long": (
        {"inputs": {"t2m": Text("x" * 300)}},
        "inputs.t2m",
        ["cannot be read"],
    ),
    "inputs as a list": ({"inputs": ["t2m"]}, "inputs", ["no dict"]),
    "an output elsewhere": ({"outputs": ["/tmp/x"]}, "outputs", ["'/tmp/x'", "model.pt"]),
    "an output above": ({"outputs": ["a/../../x"]}, "outputs", ["is not below"]),
    "an output that is the folder": ({"outputs": ["a/.."]}, "outputs", ["is not below"]),
    "an output without a name": ({"outputs": [""]}, "outputs", ["is not below"]),
    "outputs as one text": ({"outputs": "model.pt"}, "outputs", ["['model.pt']"]),
    "outputs as a set": ({"outputs": {"a", "b"}}, "outputs", ["no list"]),
    "no outputs at all": ({"outputs": None}, "outputs", ["no list"]),
    "an output in place of the entry": (
        {"outputs": ["train.py"]},
        "entry",
        ["train.py is left out"],
    ),
    "the entry as an input": ({"inputs": {"me": "train.py"}}, "entry", ["train.py is left out"]),
    # the entry
    "a missing script": ({"entry": "trian.py"}, "entry", ["there is no", "'train.py'?"]),
    "a missing shell script": ({"entry": "runn.sh"}, "entry", ["did you mean 'run.sh'?"]),
    "a script in a missing folder": ({"entry": "src/train.py"}, "entry", ["there is no"]),
    "a script that git ignores": ({"entry": "ignored.py"}, "entry", ["ignored.py is left out"]),
    "a script without its code": ({"code": None}, "code", ["train.py is code", '"auto"']),
    "a command as one text": ({"entry": "echo hello"}, "entry", ["as a list"]),
    "a script with its arguments": ({"entry": "train.py --width 3"}, "entry", ["as a list"]),
    "python and a script": ({"entry": "python train.py"}, "entry", ["did you mean 'train.py'?"]),
    "a folder": ({"entry": "pkg"}, "entry", ["is no script"]),
    "a folder like a script": ({"entry": "dir.py"}, "entry", ["there is no file"]),
    "no entry": ({"entry": ""}, "entry", ["is no script"]),
    "a module of no name": ({"entry": "-m pkg/mod"}, "entry", ["-m package.module"]),
    "an empty command": ({"entry": []}, "entry", ["empty"]),
    "a command without a program": ({"entry": ["", "x"]}, "entry", ["empty"]),
    "a number as entry": ({"entry": 3}, "entry", ["no list"]),
    "bytes as entry": ({"entry": b"train.py"}, "entry", ["one text"]),
    "a name no disk takes": ({"entry": Text("x" * 300 + ".py")}, "entry", ["there is no file"]),
    # the code's folder
    "code in a missing folder": ({"code": "nowhere"}, "code", ["not a folder"]),
    "code of nobody": ({"code": "~nobody-of-that-name/x"}, "code", ["not a folder"]),
    "code with a name no disk takes": ({"code": Text("x" * 300)}, "code", ["cannot be used"]),
    "an entry outside the code's folder": (
        {"entry": "../elsewhere.py", "code": "."},
        "entry",
        ["not in the folder"],
    ),
    # the environment
    "a secret": ({"env": {"HF_TOKEN": "x"}}, "env.HF_TOKEN", ["looks like a secret", "file"]),
    "a password": ({"env": {"DB_PASSWORD": "x"}}, "env.DB_PASSWORD", ["looks like a secret"]),
    "a key": ({"env": {"WANDB_API_KEY": "x"}}, "env.WANDB_API_KEY", ["looks like a secret"]),
    "a variable of ours": ({"env": {"HPCML_RUN_ID": "x"}}, "env.HPCML_RUN_ID", ["hpcml's own"]),
    "a variable with a dash": ({"env": {"A-B": "x"}}, "env", ["'A-B'"]),
    "a variable with an equals sign": ({"env": {"A=B": "x"}}, "env", ["'A=B'"]),
    "a variable that is a number": ({"env": {"A": 1}}, "env.A", ["1 is not text"]),
    "a variable whose name is a number": ({"env": {1: "x"}}, "env", ["1"]),
    "variables as a list": ({"env": ["A=B"]}, "env", ["no dict"]),
    "a variable that is too long": ({"env": {"A": Text("x" * (1 << 17))}}, "params", ["128 KiB"]),
    # names
    "a name of two lines": ({"name": "a\nb"}, "name", ["One line"]),
    "a name with an escape": ({"name": "a\x1b[31m"}, "name", ["no control characters"]),
    "a name that is too long": ({"name": "x" * 201}, "name", ["1 to 200"]),
    "a name that is a number": ({"name": 3}, "name", ["3 is not text"]),
    "a tag that is a number": ({"tags": {"a": 1}}, "tags.a", ["1 is not text"]),
    "a tag without a name": ({"tags": {"": "x"}}, "tags", ["1 to 200"]),
    "tags as a list": ({"tags": ["a"]}, "tags", ["no dict"]),
    "a NUL": ({"args": ["a\0b"]}, "args[0]", ["NUL"]),
    "a lone surrogate": ({"params": {"width": "\ud800"}}, "params.width", ["surrogate"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_at_plan_time(case: str, project: Path, home: Path) -> None:
    changes, field, words = REFUSED[case]
    (project / "dir.py").mkdir()
    (project.parent / "elsewhere.py").write_text("")
    job = hpcml.Job(**{"entry": "train.py", **changes})

    with pytest.raises(JobError) as caught:
        hpcml.plan(job)

    assert caught.value.field == field
    message = str(caught.value)
    for word in [f"{field}: ", *words]:
        assert word in message
    with pytest.raises(type(caught.value)) as again:
        hpcml.submit(job)
    assert str(again.value) == message
    assert not list(home.rglob("outbox")) and not list(home.rglob("runs")), "nothing was queued"


def test_of_several_jobs_none_is_queued_if_one_is_wrong(project: Path, home: Path) -> None:
    with pytest.raises(PlanError, match="did you mean 'width'"):
        hpcml.submit([hpcml.Job("train.py"), hpcml.Job("train.py", params={"widht": 1})])

    assert not list(home.rglob("outbox")) and not list(home.rglob("runs"))


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "NUM_TOKENS"])
def test_a_variable_that_only_sounds_like_a_secret_is_none(name: str, project: Path) -> None:
    assert hpcml.plan(hpcml.Job("train.py", env={name: "1"})).what["env"] == {name: "1"}


@pytest.mark.parametrize(
    "script",
    [
        "import hpcml\np = hpcml.params(a=1)\nq = hpcml.params(b=1)\n",  # two calls
        "import hpcml\np = hpcml.params(**defaults)\n",  # names come from elsewhere
        "import hpcml\np = hpcml.params()\n",  # takes all
        "import hpcml as h\np = h.params(a=1)\n",
        "p = params(a=1)\n",  # somebody else's
        "this is no Python (a=1",
        "x = " + "(" * 3000 + ")" * 3000 + "\n",
        "print('\\d')\n",
    ],
)
def test_where_it_cannot_be_told_what_a_script_knows_everything_is_let_through(
    script: str, project: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (project / "train.py").write_text(script)

    plan = hpcml.plan(hpcml.Job("train.py", params={"anything": 1}))

    assert plan.what["params"] == {"anything": 1}
    assert not recwarn.list, "a script's own faults are not the planner's to tell"


@pytest.mark.parametrize(
    "script",
    [
        "from hpcml import params\np = params(width=1)\n",
        "import hpcml\nhpcml.params(width=1).width",
    ],
)
def test_what_a_script_knows_is_read_from_its_only_call(script: str, project: Path) -> None:
    (project / "train.py").write_text(script)

    assert hpcml.plan(hpcml.Job("train.py", params={"width": 1})).digest
    with pytest.raises(PlanError, match="did you mean 'width'"):
        hpcml.plan(hpcml.Job("train.py", params={"widht": 1}))


def test_a_pipe_as_input_is_refused_and_not_waited_for(project: Path) -> None:
    os.mkfifo(project / "t2m" / "pipe")
    os.mkfifo(project / "pipe")
    (project / ".gitignore").write_text("/t2m\n/ignored.py\n/pipe\n")

    for path in ("t2m", "pipe"):
        with pytest.raises(JobError, match="neither a file nor a folder"):
            hpcml.plan(hpcml.Job("train.py", inputs={"t2m": path}))


def test_a_folder_that_is_gone_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = project / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(JobError, match="the current folder cannot be used"):
        hpcml.plan("train.py")


def test_errors_can_be_pickled_and_stay_what_they_were(project: Path) -> None:
    import pickle

    with pytest.raises(PlanError) as caught:
        hpcml.plan(hpcml.Job("train.py", resources=hpcml.Resources(time="31d")))

    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is PlanError
    assert (again.field, str(again)) == (caught.value.field, str(caught.value))


def test_settings_reach_the_binding_and_only_that(project: Path, home: Path) -> None:
    folder = home / "config" / "hpcml"
    folder.mkdir(parents=True)
    text = "sites:\n  local:\n    account: abc\n"
    (folder / "config.yaml").write_text(textwrap.dedent(text))

    yours = bind(load_site("local"))
    plan = make_plan(resolve(the_job()), load_site("local"), yours)

    assert plan.where["account"] == "abc"
    assert "abc" not in plan.what.values()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hpcml.submit(["ls", "-l"]), r"may be a command(.|\n)*hpcml\.Job\("),
        (lambda: hpcml.submit("train.py", {"x": 1}), r"site: \{'x': 1\} is no name"),
        (lambda: hpcml.plan("train.py", 1), "site: 1 is no name"),
        (lambda: hpcml.plan("train.py", resources={"cpus": 1}), r"hpcml\.Resources\("),
        (lambda: hpcml.plan("train.py", args="--lr 3"), r"\['--lr', '3'\]"),
    ],
)
def test_a_call_that_was_meant_otherwise_says_how(
    project: Path, call: Callable[[], object], words: str
) -> None:
    with pytest.raises(HpcmlError, match=words):
        call()


def test_what_python_has_for_paths_and_numbers_is_understood(project: Path) -> None:
    plan = hpcml.plan(Path("train.py"), resources=hpcml.Resources(cpus=np.int64(1)))
    assert plan.what["entry"]["target"] == "train.py" and plan.what["placement"]["cpus"] == 1


def test_a_plan_is_short_where_python_shows_it(project: Path) -> None:
    made = hpcml.plan(hpcml.Job(["true"], code=None, name="train"))
    assert repr(made) == f"<Plan 'train' on local: {(made.digest or '')[:12]}>"


def test_no_text_of_a_job_controls_the_terminal_on_which_its_plan_is_printed() -> None:
    made = hpcml.plan(hpcml.Job(["true", "\x1b[31mred"], code=None, params={"a": "\x1b"}))
    assert "\x1b" not in str(made)


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (None, "<Attempt 1: not ended>"),
        ({"exit_code": 3, "signal": None}, "<Attempt 1: exit code 3>"),
        ({"exit_code": None, "signal": 9}, "<Attempt 1: signal 9>"),
        ({"reason": "lost"}, "<Attempt 1: ended>"),
    ],
)
def test_an_attempt_is_short_where_python_shows_it(end: dict[str, Any] | None, shown: str) -> None:
    assert repr(Attempt(1, {"time": 1.0}, end)) == shown
