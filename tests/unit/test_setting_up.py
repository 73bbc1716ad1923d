"""What is asked when a site is set up, and what is found out instead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hpcml.documents import changed
from hpcml.errors import ArgumentError, ProfileError, TransportError
from hpcml.settings import SiteSettings, load_settings, save_site
from hpcml.sites import load_site, site_names
from hpcml.surveying.setting_up import Question, asked_before, asked_there, literal
from hpcml.surveying.shell import shell_of
from hpcml.transports import Completed
from tests.cli.calling import call

ANSWERS = {"account": "me", "project": "climate", "user": "alice", "ssh_host": "host"}


class Pretended:
    """A site's login shell without a Slurm; ``associations`` are what sacctmgr says."""

    def __init__(self, said: Mapping[str, str] | None = None, **environment: str) -> None:
        self.environment = {"HOME": "/home/alice", "USER": "alice", **environment}
        self.said = {"id -un": "alice\n", "id -Gn": "users climate\n", **(said or {})}

    def run(self, argv: Sequence[str]) -> Completed:
        line = " ".join(argv)
        for words, said in self.said.items():
            if line.endswith(words) or f" {words} " in line:
                return Completed(tuple(argv), 0, said.encode(), b"")
        return Completed(tuple(argv), 127, b"", b"not found")


SLURM = {
    "scontrol show config": "AccountingStorageType = accounting_storage/slurmdbd\n"
    "AccountingStorageEnforce = associations\n",
    "show node": "",
    "show partition": "",
    "show user": "",
    "show qos": "",
}


class Asked:
    """Answers, and remembers what was asked."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.questions = {**ANSWERS, **answers}, list[Question]()

    def __call__(self, question: Question) -> str | None:
        self.questions.append(question)
        answer = self.answers.get(question.key) or question.default
        return question.check(answer) if answer else None

    @property
    def keys(self) -> list[str]:
        return [question.key for question in self.questions]


def set_up(name: str, ask: Asked, shell: Pretended, **yours: str) -> SiteSettings:
    site = load_site(name)
    return asked_there(site, asked_before(site, SiteSettings(**yours), ask), shell, ask)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in site_names() if name != "local"])
def test_no_site_takes_more_than_five_questions(name: str) -> None:
    ask = Asked()
    yours = set_up(name, ask, Pretended())
    assert len(ask.questions) <= 5 and len(ask.questions) == len(set(ask.keys))
    assert yours.workspace is not None
    assert yours.workspace.startswith("/") and "{" not in yours.workspace


def test_of_a_site_that_says_nothing_five_things_are_asked(home: Path) -> None:
    profile = home / "config" / "hpcml" / "sites" / "bare.yaml"
    profile.parent.mkdir(parents=True)
    node = "node: {cpus: 1, memory: 1 GiB}"
    profile.write_text(
        "name: bare\nscheduler: slurm\ntransport: ssh\naccount_required: true\n"
        f"partitions: {{a: {{{node}}}, b: {{{node}}}}}\n"
    )
    ask = Asked()
    yours = set_up("bare", ask, Pretended(SCRATCH="/scratch/alice"))
    assert ask.keys == ["ssh_host", "user", "account", "workspace", "partition"]
    assert yours.workspace == "/scratch/alice/hpcml"
    assert yours.partition is None

    ask = Asked()
    known = {"ssh_host": "h", "user": "u", "account": "a", "workspace": "~/w", "partition": "b"}
    assert set_up("bare", ask, Pretended(), **known).workspace == "/home/alice/w"
    assert ask.questions == []


def test_the_only_account_is_taken_and_of_several_the_default_is_proposed() -> None:
    one = {**SLURM, "show assoc": "climate||normal|\n"}
    ask = Asked()
    assert set_up("lumi-c", ask, Pretended(one)).account == "climate"
    assert "account" not in ask.keys

    several = {**SLURM, "show assoc": "climate|||\nweather|||\n", "show user": "weather\n"}
    ask = Asked(account="")
    assert set_up("lumi-c", ask, Pretended(several)).account == "weather"
    (question,) = (one for one in ask.questions if one.key == "account")
    assert question.choices == ("climate", "weather")
    with pytest.raises(ArgumentError, match="me is no account of yours"):
        question.check("me")


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("~", "/home/alice"),
        ("~/x//y/", "/home/alice/x/y"),
        ("$SCRATCH/h", "/s/h"),
        ("${SCRATCH}h", "/sh"),
        ("/p/{project}/{user}", "/p/climate/alice"),
    ],
)
def test_a_workspace_is_expanded_to_its_literal_path(said: str, path: str) -> None:
    yours = SiteSettings(user="alice", project="climate")
    assert literal(said, yours, Pretended(SCRATCH="/s")) == path


@pytest.mark.parametrize("said", ["work", "$NONE/x", "/a/../b", "{data}/x", "/x/{user}", "$USER"])
def test_what_is_no_path_from_the_root_is_refused(said: str) -> None:
    with pytest.raises(ArgumentError):
        literal(said, SiteSettings(), Pretended())


def test_a_site_that_is_reached_in_another_way_is_refused() -> None:
    site = changed(load_site("juwels-booster"), transport="unicore")
    with pytest.raises(TransportError, match="reached by unicore"):
        shell_of(site, None)  # type: ignore[arg-type]


def test_an_option_that_cannot_be_is_refused_at_once() -> None:
    done = call("sites", "setup", "lumi-c", "--user", "a b")
    assert done.returncode == 70 and "is expected" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "sites:\n  far: &far {account: a}\n  lumi-c: *far\n",
            "Write sites.lumi-c without what others share",
        ),
        ("sites: {box: {account: 3}}\n", "line 1, column 15, key sites.box.account"),
    ],
)
def test_settings_that_cannot_be_written_are_told_before_anything_is_asked(
    text: str, told: str, home: Path
) -> None:
    path = home / "config" / "hpcml" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    done = call("sites", "setup", "lumi-c", "--account", "me")
    assert done.returncode == 70 and told in done.stderr
    assert "nobody can be asked" not in done.stderr and path.read_text() == text


def test_settings_that_are_a_link_stay_one(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "dotfiles"
    mine.mkdir(mode=0o700)
    (mine / "config.yaml").write_text("# mine\n")
    link = home / "config" / "hpcml" / "config.yaml"
    link.parent.mkdir(parents=True)
    link.symlink_to(mine / "config.yaml")

    save_site("box", {"account": "climate"})
    assert link.is_symlink()
    assert (mine / "config.yaml").read_text() == "# mine\nsites:\n  box:\n    account: climate\n"
    assert load_settings().sites["box"].account == "climate"


def test_of_several_that_write_the_settings_at_once_none_loses_what_another_wrote(
    home: Path,
) -> None:
    code = (
        "import sys; from hpcml.settings import save_site\n"
        "for k in range(10): save_site(sys.argv[1] + str(k), {'account': 'climate'})"
    )
    names = ("a", "b", "c")
    writing = [subprocess.Popen([sys.executable, "-c", code, name]) for name in names]
    assert [one.wait() for one in writing] == [0, 0, 0]
    assert set(load_settings().sites) == {f"{name}{k}" for name in names for k in range(10)}


def test_what_a_writer_of_settings_left_that_was_killed_goes_with_a_later_write(
    home: Path,
) -> None:
    """It may be that of a writer that is at it; and other files are somebody's."""
    killed = (
        "import os; from hpcml.settings import save_site\n"
        "done = os.rename\n"
        "def killed(source, path):\n"
        "    os.kill(os.getpid(), 9 if path.endswith('config.yaml') else 0)\n"
        "    done(source, path)\n"
        "os.rename = killed\n"
        "save_site('box', {'account': 'climate'})"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    path = save_site("near", {"account": "climate"})
    (torn,) = path.parent.glob(".tmp-*")
    mine = path.parent / ".tmp-of-mine"
    mine.touch()
    for file in (torn, mine):
        os.utime(file, (time.time() - 86400,) * 2)
    save_site("far", {"account": "climate"})
    assert {one.name for one in path.parent.iterdir()} == {"config.yaml", ".tmp-of-mine"}
    assert set(load_settings().sites) == {"near", "far"}


def test_what_the_settings_cannot_say_is_not_written(home: Path) -> None:
    path = save_site("box", {"account": "climate"})
    before = path.read_text()
    with pytest.raises(ProfileError):
        save_site("box", {"workspace": "nowhere"})
    assert path.read_text() == before
    assert [one.name for one in path.parent.iterdir()] == ["config.yaml"]
