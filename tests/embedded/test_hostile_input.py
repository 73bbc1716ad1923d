"""Whatever text a job is made of arrives unchanged or is refused, and is never executed.

Each example is a real run with many hostile values at once. The run dumps what arrived, as bytes;
the text everywhere tries to make a file called ``canary``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hpcml
from hpcml.errors import HpcmlError, JobError

DUMP = """\
import json, os, sys
import hpcml

p = hpcml.params()
names = [name for name in os.environ if name.startswith("V_")]
told = {
    "argv": [os.fsencode(word).hex() for word in sys.argv],
    "env": {name: os.fsencode(os.environ[name]).hex() for name in names},
    "params": dict(p),
    "inputs": {},
}
for name in p["input_names"]:
    path = hpcml.input_path(name)
    with open(path) as file:
        told["inputs"][name] = [os.fsencode(path).hex(), file.read()]
    assert os.environ["HPCML_INPUT_" + name.upper()] == path
for name in p["output_names"]:
    with open(hpcml.output_path(name), "w") as file:
        file.write("output")
with open("dump.json", "w") as file:
    json.dump(told, file)
"""

FRAGMENTS = [
    "",
    " ",
    "\n",
    "\r",
    "\t",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "'",
    '"',
    "\\",
    "$(touch canary)",
    "`touch canary`",
    "; touch canary;",
    "\ntouch canary\n",
    "' touch canary '",
    "'; touch canary; '",
    '"; touch canary; "',
    "' + __import__('os').system('touch canary') + '",
    "| touch canary",
    "& touch canary &",
    ">canary",
    "$HOME",
    "${IFS}",
    "~",
    "*",
    "?",
    "[a]",
    "!!",
    "#",
    "%s",
    "%(x)d",
    "{}",
    "{0}",
    "-",
    "--",
    "-rf",
    "--help",
    "-m",
    "=",
    ",",
    "..",
    "é",
    "\U0001f600",
    "a" * 50,
]

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
hostile = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.lists(st.sampled_from(FRAGMENTS), max_size=5).map("".join),
    st.text(letters, max_size=30),
)
# No escape from the template language is needed: what is no known name stays as it is.
plain = hostile.filter(lambda text: "{params." not in text and "{inputs." not in text)
one_line = st.builds(lambda text: re.sub(r"[\x00-\x1f\x7f]", "", text)[:200] or "'", hostile)
file_name = st.builds(
    lambda text: text.replace("/", "").encode()[:180].decode(errors="ignore"), hostile
)
values = st.recursive(
    hostile
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile, inner, max_size=3),
    max_leaves=6,
)
parameter_name = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
variable_name = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)


@dataclass
class Case:
    """What one run is made of."""

    kind: str
    name: str
    folder: str
    file: str
    params: dict[str, Any]
    words: list[str]
    env: dict[str, str]
    tags: dict[str, str]
    inputs: dict[str, tuple[str, str]]
    outputs: list[tuple[str, str]]


cases = st.builds(
    Case,
    kind=st.sampled_from(["parameters", "arguments", "command", "shell"]),
    name=one_line,
    folder=file_name,
    file=file_name,
    params=st.dictionaries(parameter_name, values, min_size=2, max_size=6),
    words=st.lists(plain, min_size=4, max_size=10),
    env=st.dictionaries(variable_name, hostile, min_size=2, max_size=6),
    tags=st.dictionaries(one_line, hostile, max_size=3),
    inputs=st.dictionaries(
        variable_name.map(str.lower), st.tuples(file_name, file_name), min_size=1, max_size=3
    ),
    outputs=st.lists(st.tuples(file_name, file_name), min_size=1, max_size=3),
)


def everything_at_once(kind: str) -> Case:
    """Each fragment in each place, so that no luck is needed to find the usual mistakes."""
    lines = [text for text in FRAGMENTS if text and text.isprintable()]
    files = [text.replace("/", "") for text in FRAGMENTS]
    return Case(
        kind,
        name=" ".join(lines)[:200],
        folder="".join(files)[:60],
        file="-rf '\"$(touch canary)`touch canary`\n\\",
        params={f"p{number}": text for number, text in enumerate([*FRAGMENTS, "x" * 65_536])},
        words=[*FRAGMENTS, "x" * 65_536],
        env={f"n{number}": text for number, text in enumerate([*FRAGMENTS, "x" * 65_536])},
        tags=dict.fromkeys(lines, "".join(FRAGMENTS)),
        inputs={f"i{number}": (text, text) for number, text in enumerate(files)},
        outputs=[(text, text) for text in files],
    )


def as_argument(value: Any) -> str:
    """A parameter as an argument: text as it is, lists and dicts as JSON, the rest as Python."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value if isinstance(value, str) else repr(value)


class Stage:
    """One example: its folders, its job, and what should arrive."""

    def __init__(self, case: Case, place: Path) -> None:
        self.case, self.place = case, place
        self.project = place / f"{case.folder}1" / "project"
        self.project.mkdir(parents=True)
        self.inputs = {
            name: place / f"{folder}2" / f"{number}{file}"
            for number, (name, (folder, file)) in enumerate(case.inputs.items())
        }
        for name, path in self.inputs.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"data of {name}")
        self.outputs = [f"{a}{n}/{b}{n}" for n, (a, b) in enumerate(case.outputs)]
        self.params = {
            **case.params,
            "input_names": list(self.inputs),
            "output_names": self.outputs,
        }
        self.env = {f"V_{name}": text for name, text in case.env.items()}

    def job(self) -> hpcml.Job:
        entry, args = getattr(self, self.case.kind)()
        return hpcml.Job(
            entry,
            name=self.case.name,
            params=self.params,
            args=args,
            inputs={name: str(path) for name, path in self.inputs.items()},
            outputs=["dump.json", *self.outputs],
            env=self.env,
            tags=self.case.tags,
            code="." if self.case.kind == "command" else "auto",
        )

    def parameters(self) -> tuple[Any, None]:
        pairs = sorted(self.params.items())
        self.expected = [f"--{n}={as_argument(v)}" for n, v in pairs if v is not None]
        return self._write(DUMP, ".py"), None

    def arguments(self) -> tuple[Any, list[str]]:
        return self._write(DUMP, ".py"), self._words()

    def command(self) -> tuple[Any, None]:
        (self.project / "dump").write_text(DUMP)
        return [sys.executable, "dump", *self._words()], None

    def shell(self) -> tuple[Any, list[str]]:
        (self.project / "dump").write_text(DUMP)
        self.env["PYTHON"] = sys.executable
        return self._write('exec "$PYTHON" dump "$@"\n', ".sh"), self._words()

    def _write(self, text: str, suffix: str) -> str:
        path = self.project / f"{self.case.file}{suffix}"
        path.write_text(text)
        return path.name if not path.name.startswith("-m") else f"./{path.name}"

    def _words(self) -> list[str]:
        """Words as they are, and some that are put together from parameters and inputs."""
        names = list(self.params)[:3]
        first = next(iter(self.inputs), None)
        templates = [f"{{params.{name}}}" for name in names]
        filled = [as_argument(self.params[name]) for name in names]
        if first is not None:
            templates.append(f"'{{inputs.{first}}}'{{params.{names[0]}}}")
            filled.append(f"'{self.inputs[first]}'{filled[0]}")
        self.expected = [*self.case.words, *filled]
        return [*self.case.words, *templates]

    def check(self, run: hpcml.Run) -> None:
        assert run.state == "COMPLETED", f"{run.reason}\n{run.logs()}"
        told = json.loads(run.output("dump.json").read_text())
        assert [bytes.fromhex(word) for word in told["argv"][1:]] == [
            word.encode() for word in self.expected
        ]
        env = {name: text for name, text in self.env.items() if name.startswith("V_")}
        assert {n: bytes.fromhex(text).decode() for n, text in told["env"].items()} == env
        assert told["params"] == self.params
        assert told["inputs"] == {
            name: [os.fsencode(path).hex(), f"data of {name}"] for name, path in self.inputs.items()
        }
        for name in self.outputs:
            assert run.output(os.path.normpath(name)).read_text() == "output"
        assert {os.path.normpath(name) for name in self.outputs} <= set(run.files())
        again = hpcml.attach(run.id)
        assert again.name == self.case.name
        assert again.plan.where["tags"] == self.case.tags
        assert again.params == self.params


def no_canary(folder: Path) -> None:
    """Nothing that was text has been executed."""
    assert not [path for path in folder.rglob("*") if path.name == "canary"]


@settings(
    max_examples=15,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(case=cases)
@example(case=everything_at_once("parameters"))
@example(case=everything_at_once("arguments"))
@example(case=everything_at_once("command"))
@example(case=everything_at_once("shell"))
def test_hostile_text_arrives_unchanged_and_is_not_executed(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / str(len(list(tmp_path.iterdir())))
    stage = Stage(case, place)
    monkeypatch.chdir(stage.project)

    run = hpcml.submit(stage.job()).wait(60)

    stage.check(run)
    no_canary(tmp_path)


# --- what is refused ----------------------------------------------------------------------

PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "a script's name": lambda text: {"entry": f"{text}.py"},
    "a word of a command": lambda text: {"entry": ["echo", text]},
    "the name": lambda text: {"name": text},
    "a parameter": lambda text: {"params": {"p": text}},
    "a text within a parameter": lambda text: {"params": {"p": [{"a": text}]}},
    "a key within a parameter": lambda text: {"params": {"p": {text: 1}}},
    "a parameter's name": lambda text: {"params": {text: 1}},
    "an argument": lambda text: {"args": [text]},
    "an input": lambda text: {"inputs": {"i": text}},
    "an input's name": lambda text: {"inputs": {text: "train.py"}},
    "an output": lambda text: {"outputs": [text]},
    "a variable": lambda text: {"env": {"V": text}},
    "a variable's name": lambda text: {"env": {text: "v"}},
    "a tag": lambda text: {"tags": {"t": text}},
    "a tag's name": lambda text: {"tags": {text: "t"}},
    "the code's folder": lambda text: {"code": text},
    "a device": lambda text: {"resources": hpcml.Resources(device=text)},
    "a time": lambda text: {"resources": hpcml.Resources(time=text)},
    "memory": lambda text: {"resources": hpcml.Resources(memory=text)},
    "an option": lambda text: {"resources": hpcml.Resources(options={text: "x"})},
    "a partition": lambda text: {"resources": hpcml.Resources(options={"partition": text})},
}


@pytest.mark.parametrize("text", ["a\0b", "\0", "a\ud800b", "\udcff"])
@pytest.mark.parametrize("place", PLACES)
def test_what_no_command_line_or_file_can_hold_is_refused_before_anything_runs(
    place: str, text: str, script: Callable[..., str], home: Path
) -> None:
    script("print(1)")
    job = hpcml.Job(**{"entry": "train.py", **PLACES[place](text)})

    for attempt in (hpcml.plan, hpcml.submit):
        with pytest.raises(JobError) as caught:
            attempt(job)
        str(caught.value).encode()  # the message itself can be shown everywhere

    assert not list(home.rglob("outbox")) and not list(home.rglob("runs"))


@given(text=st.text(max_size=40))
@settings(
    max_examples=60,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_text_anywhere_is_more_than_an_error_of_ours(
    text: str, script: Callable[..., str]
) -> None:
    script("print(1)")
    for changes in (make(text) for make in PLACES.values()):
        job = hpcml.Job(**{"entry": "train.py", **changes})
        try:
            hpcml.plan(job).to_json().encode()
        except HpcmlError as error:
            str(error).encode()


@pytest.mark.parametrize("name", ["XDG_DATA_HOME", "PATH"])
def test_a_folder_or_variable_that_is_no_text_is_refused(
    name: str, script: Callable[..., str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = script("print(1)")
    before = os.environ[name]
    monkeypatch.setenv(name, os.fsdecode(os.fsencode(before) + b"/caf\xe9"))

    with pytest.raises(HpcmlError, match="is not UTF-8"):
        hpcml.submit(entry)

    assert not list(home.rglob("outbox")) and not list(home.rglob("runs"))


def test_a_current_folder_that_is_no_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "train.py").write_text("print(1)")
    monkeypatch.chdir(folder)

    for entry in ("train.py", ["true"]):
        with pytest.raises(JobError, match="surrogate"):
            hpcml.submit(hpcml.Job(entry))


# --- folders ------------------------------------------------------------------------------

FOLDERS = [
    "a b",
    "it's",
    'qu"ote',
    "$(touch canary)",
    "`touch canary`",
    "$HOME",
    "-rf",
    "new\nline",
    "end\n",
    " ",
    "semi;touch canary;",
    "é\U0001f600",
    "back\\slash",
    "%s%d",
    "*",
    "{params.x}",
    "#",
    "~",
    "a=b",
]


@pytest.mark.parametrize("in_git", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
def test_project_workspace_and_interpreters_may_lie_anywhere(
    folder: str, in_git: bool, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / folder
    project = place / "project" if in_git else place
    project.mkdir(parents=True)
    (tmp_path / f"{folder}.bin").mkdir()
    python = tmp_path / f"{folder}.bin" / folder
    python.symlink_to(sys.executable)
    (project / "train.py").write_text("import sys, hpcml; print(sys.executable, hpcml.params().x)")
    monkeypatch.chdir(project)
    if in_git:
        assert os.system("git init -q") == 0
    yours = {"workspace": str(tmp_path / f"{folder}.ws"), "python": str(python)}
    write_yaml(home, "config.yaml", {"sites": {"mine": yours}})
    write_yaml(home, "sites/mine.yaml", {"extends": "local", "agent_python": str(python)})

    run = hpcml.submit(hpcml.Job("train.py", params={"x": "y"}), site="mine").wait(30)

    assert run.state == "COMPLETED", f"{run.reason}\n{run.logs()}"
    assert run.logs() == f"{python} y\n"
    assert run.fetch(tmp_path / "fetched" / folder).is_dir()
    assert hpcml.attach(run.id, site="mine").state == "COMPLETED"
    no_canary(tmp_path)


def write_yaml(home: Path, name: str, content: Any) -> None:
    path = home / "config" / "hpcml" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
