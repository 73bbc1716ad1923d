"""The code that goes along: which files, what is refused, and that a run has it as it was."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.agent import snapshot as site_side
from hpcml.agent import wire
from hpcml.errors import CodeError, HpcmlError
from hpcml.resolving.code import Snapshot, take_snapshot
from tests.conftest import eventually

SECRET = "hunter2-is-the-password"
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.fixture
def repository(project: Path) -> Path:
    """A folder in git, with a script that is committed."""
    (project / "train.py").write_text("print(open('note.txt').read())\n")
    (project / "note.txt").write_text("first\n")
    git(project, "init", "-q")
    commit(project)
    return project


def git(folder: Path, *args: str) -> str:
    who = [
        "-c",
        "user.name=me",
        "-c",
        "user.email=me@localhost",
        "-c",
        "protocol.file.allow=always",
    ]
    done = subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


def names(folder: Path) -> list[str]:
    return [name for name, _, _ in take_snapshot(str(folder)).entries]


# --- with git -----------------------------------------------------------------------------


def test_what_git_tracks_or_would_track_goes_along(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.log\n/data/\n")
    (repository / "new.py").write_text("")
    (repository / "new folder").mkdir()
    (repository / "new folder" / "é \n'\".py").write_text("")
    (repository / "run.log").write_text("")
    (repository / "data").mkdir()
    (repository / "data" / "x").write_text("")

    assert names(repository) == sorted(
        [".gitignore", "new folder/é \n'\".py", "new.py", "note.txt", "train.py"]
    )


def test_a_tracked_file_goes_along_even_if_it_is_ignored(repository: Path) -> None:
    (repository / ".gitignore").write_text("note.txt\n")

    assert "note.txt" in names(repository)


def test_notebooks_and_caches_stay_behind(repository: Path) -> None:
    for name in ("a.ipynb", "sub/b.ipynb", "__pycache__/c.pyc", ".ipynb_checkpoints/d.py", "e.pyc"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("")
    git(repository, "add", "-A", "-f")

    assert names(repository) == ["note.txt", "train.py"]


def test_a_tracked_file_that_is_deleted_is_no_obstacle(repository: Path) -> None:
    (repository / "note.txt").unlink()

    assert names(repository) == ["train.py"]
    git(repository, "rm", "-q", "--cached", "note.txt")
    assert names(repository) == ["train.py"]


def test_a_file_in_place_of_a_folder_is_a_file(repository: Path) -> None:
    (repository / "sub").mkdir()
    (repository / "sub" / "x.py").write_text("")
    commit(repository)
    shutil.rmtree(repository / "sub")
    (repository / "sub").write_text("a file now")

    assert names(repository) == ["note.txt", "sub", "train.py"]


def test_files_of_submodules_go_along(repository: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    (library / "deep").mkdir(parents=True)
    (library / "deep" / "lib.py").write_text("")
    (library / ".gitignore").write_text("*.log\n")
    git(library, "init", "-q")
    commit(library)
    git(repository, "submodule", "add", "-q", str(library), "vendor/lib")
    (repository / "vendor" / "lib" / "mine.py").write_text("")
    (repository / "vendor" / "lib" / "x.log").write_text("")

    assert [n for n in names(repository) if n.startswith("vendor/")] == [
        "vendor/lib/.gitignore",
        "vendor/lib/deep/lib.py",
        "vendor/lib/mine.py",
    ]

    commit(repository)
    git(tmp_path, "clone", "-q", str(repository), "clone")  # submodules are left out
    assert names(tmp_path / "clone") == [".gitmodules", "note.txt", "train.py"]


def test_files_of_a_repository_within_go_along(repository: Path) -> None:
    inner = repository / "inner"
    inner.mkdir()
    (inner / "x.py").write_text("")
    git(inner, "init", "-q")
    commit(inner)

    assert "inner/x.py" in names(repository)


def test_a_worktree_is_a_checkout_like_any_other(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"))

    assert names(tmp_path / "tree") == ["note.txt", "train.py"]


def test_a_folder_within_a_repository_goes_along_with_the_whole(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "sub").mkdir()
    (repository / "sub" / "go.py").write_text("print(open('near.txt').read())")
    (repository / "sub" / "near.txt").write_text("near")
    monkeypatch.chdir(repository / "sub")

    plan = hpcml.plan("go.py")
    run = hpcml.submit("go.py").wait(30)

    assert plan.what["folder"] == "sub"
    assert plan.what["entry"]["target"] == "go.py"
    assert (run.state, run.logs()) == ("COMPLETED", "near\n")

    monkeypatch.chdir(repository)
    assert hpcml.plan("sub/go.py").what["folder"] == ""
    assert hpcml.plan("sub/go.py").what["code"] == plan.what["code"]


def test_a_script_of_another_repository_is_run_where_it_is(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    run = hpcml.submit("../project/train.py").wait(30)

    assert (run.state, run.logs()) == ("COMPLETED", "first\n\n")


def test_a_link_to_the_folder_leads_to_the_same_code(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(repository)
    here = hpcml.plan("train.py").digest

    assert hpcml.plan(f"{tmp_path}/link/train.py").digest == here
    monkeypatch.chdir(tmp_path / "link")
    assert hpcml.plan("train.py").digest == here
    shutil.rmtree(repository / ".git")
    monkeypatch.chdir(tmp_path)
    assert hpcml.plan("link/train.py").digest == here


def test_gits_own_variables_do_not_lead_astray(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    here = take_snapshot(str(repository))
    for variable, value in (
        ("GIT_DIR", other / ".git"),
        ("GIT_WORK_TREE", other),
        ("GIT_INDEX_FILE", other / "index"),
        ("GIT_PREFIX", "sub/"),
        ("GIT_EXTERNAL_DIFF", "false"),
        ("GIT_LITERAL_PATHSPECS", "1"),
    ):
        monkeypatch.setenv(variable, str(value))

    assert take_snapshot(str(repository)) == here


def test_without_a_git_to_ask_a_checkout_is_a_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    taken = take_snapshot(str(repository))

    assert [name for name, _, _ in taken.entries] == ["note.txt", "train.py"]
    assert taken.git is None


def test_a_broken_repository_is_told(project: Path) -> None:
    (project / "train.py").write_text("")
    (project / ".git").write_text("gitdir: nowhere\n")

    with pytest.raises(CodeError, match="git rev-parse failed"):
        hpcml.plan("train.py")


# --- the record of git --------------------------------------------------------------------


def recorded(folder: Path) -> dict[str, object]:
    plan = hpcml.plan("train.py")
    git_record = plan.where["git"]
    assert isinstance(git_record, dict)
    return git_record


def test_a_clean_checkout_is_its_commit(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")

    assert recorded(repository) == {
        "commit": head,
        "dirty": False,
        "diff": None,
        "diff_sha256": None,
    }


@pytest.mark.parametrize("staged", [False, True])
def test_a_change_is_recorded_as_a_diff_that_can_be_applied(
    repository: Path, tmp_path: Path, staged: bool
) -> None:
    (repository / "note.txt").write_text("second\n")
    if staged:
        git(repository, "add", "note.txt")

    told = recorded(repository)

    assert told["dirty"] is True
    assert "-first\n+second\n" in str(told["diff"])
    assert told["diff_sha256"] == wire.sha256(str(told["diff"]).encode())
    git(tmp_path, "clone", "-q", str(repository), "clone")
    subprocess.run(
        ["git", "apply"], input=str(told["diff"]), text=True, cwd=tmp_path / "clone", check=True
    )
    assert names(tmp_path / "clone") == names(repository)
    ours, theirs = take_snapshot(str(repository)), take_snapshot(str(tmp_path / "clone"))
    assert ours.digest == theirs.digest


def test_a_touched_file_is_no_change(repository: Path) -> None:
    os.utime(repository / "note.txt", (1, 1))

    assert recorded(repository)["dirty"] is False


def test_a_new_file_makes_a_checkout_other_than_its_commit(repository: Path) -> None:
    (repository / "new.py").write_text("")

    told = recorded(repository)

    assert (told["dirty"], told["diff"]) == (True, None)


def test_a_new_notebook_does_not(repository: Path) -> None:
    (repository / "explore.ipynb").write_text("{}")

    assert recorded(repository)["dirty"] is False


def test_before_the_first_commit_there_is_none(project: Path) -> None:
    (project / "train.py").write_text("")
    git(project, "init", "-q")

    assert recorded(project) == {"commit": None, "dirty": True, "diff": None, "diff_sha256": None}


def test_without_git_there_is_no_record(project: Path) -> None:
    (project / "train.py").write_text("")

    assert hpcml.plan("train.py").where["git"] is None


@pytest.mark.parametrize("content", [b"x\n" * 200_000, b"\xff\xfe text \xff\n"])
def test_a_diff_that_is_large_or_no_text_is_known_by_its_digest(
    repository: Path, content: bytes
) -> None:
    (repository / "note.txt").write_bytes(content)

    told = recorded(repository)

    assert (told["dirty"], told["diff"]) == (True, None)
    assert re.fullmatch("[0-9a-f]{64}", str(told["diff_sha256"]))


def hide_in_gitignore(folder: Path) -> None:
    git(folder, "rm", "-q", "--cached", ".env")
    (folder / ".gitignore").write_text("/.env\n")


def hide_in_ours(folder: Path) -> None:
    (folder / ".hpcmlignore").write_text("/.env\n")
    (folder / ".env").write_text(f"PASSWORD=new-{SECRET}\n")


def delete(folder: Path) -> None:
    (folder / ".env").unlink()


def delete_and_stage(folder: Path) -> None:
    git(folder, "rm", "-q", ".env")


@pytest.mark.parametrize("hide", [hide_in_gitignore, hide_in_ours, delete, delete_and_stage])
def test_a_password_that_was_committed_once_is_not_told_by_the_diff(
    repository: Path, hide: Callable[[Path], None]
) -> None:
    (repository / ".env").write_text(f"PASSWORD={SECRET}\n")
    commit(repository)
    hide(repository)
    (repository / "note.txt").write_text("second\n")

    plan = hpcml.plan("train.py")

    assert SECRET not in plan.to_json()
    assert "+second" in plan.where["git"]["diff"]


def test_a_private_key_that_was_deleted_is_not_told_by_the_diff(repository: Path) -> None:
    (repository / "mine.txt").write_text(PRIVATE_KEY)
    commit(repository)
    (repository / "mine.txt").unlink()

    plan = hpcml.plan("train.py")

    assert "PRIVATE KEY" not in plan.to_json()
    assert plan.where["git"]["dirty"] is True


def test_looking_runs_no_program_of_the_repositorys_choice(repository: Path) -> None:
    canary = repository.parent / "canary"
    for key in ("diff.x.textconv", "diff.x.command", "diff.external"):
        git(repository, "config", key, f"touch '{canary}' #")
    (repository / ".gitattributes").write_text("* diff=x\n")
    commit(repository)
    (repository / "note.txt").write_text("second\n")

    assert recorded(repository)["dirty"] is True
    assert not canary.exists()


# --- without git --------------------------------------------------------------------------


def test_without_git_the_scripts_folder_goes_along(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/train.py", "a/lib/x.py", "a/.venv/lib/y.py", "a/z.ipynb", "b/other.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("print('here')")

    run = hpcml.submit("a/train.py").wait(30)

    assert names(project / "a") == ["lib/x.py", "train.py"]
    assert (run.state, run.logs()) == ("COMPLETED", "here\n")
    assert hpcml.plan("a/train.py").what["entry"]["target"] == "train.py"


def test_a_named_folder_goes_along_in_place_of_the_current_one(project: Path) -> None:
    for name in ("src/train.py", "src/near.txt", "far.txt"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("import os; print(sorted(os.listdir()))")

    run = hpcml.submit(hpcml.Job("train.py", code="src")).wait(30)

    assert run.logs() == "['near.txt', 'train.py']\n"


def test_50_mb_are_too_much_and_the_largest_is_named(project: Path) -> None:
    (project / "train.py").write_text("")
    (project / "src").mkdir()
    (project / "src" / "small.py").write_text("x")
    with open(project / "src" / "weights [1].bin", "wb") as file:
        file.truncate(50 * 10**6)

    with pytest.raises(CodeError) as caught:
        hpcml.plan("train.py")

    message = str(caught.value)
    for words in ("47.7 MiB in 3 files", "50 MB and 5,000 files", "src (47.7 MiB in 2)"):
        assert words in message
    assert "inputs=" in message
    follow(message, project)
    assert hpcml.plan("train.py").digest
    assert "src/small.py" in names(project)


def test_50_mb_exactly_are_not(project: Path) -> None:
    with open(project / "weights.bin", "wb") as file:
        file.truncate(50 * 10**6)

    assert names(project) == ["weights.bin"]


@pytest.mark.parametrize("in_git", [False, True])
def test_5000_files_are_enough(project: Path, in_git: bool) -> None:
    (project / "train.py").write_text("")
    (project / "data" / "raw").mkdir(parents=True)
    for number in range(4999):
        (project / "data" / "raw" / f"{number}").touch()
    if in_git:
        git(project, "init", "-q")
    assert len(names(project)) == 5000

    (project / "data" / "one-more").touch()

    with pytest.raises(CodeError) as caught:
        hpcml.plan("train.py")
    assert "5001 files" in str(caught.value) and "data (0 B in 5000)" in str(caught.value)
    follow(str(caught.value), project)
    assert "data/one-more" in names(project)


def test_what_is_declared_as_data_is_no_code(project: Path) -> None:
    for name in ("train.py", "in/x", "one.nc", "out/old", "best.pt", "in2/y"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    job = hpcml.Job(
        "train.py",
        inputs={"folder": "in", "file": hpcml.Dataset("one.nc")},
        outputs=["out", "best.pt"],
    )

    run = hpcml.submit(job)

    digest = run.plan.what["code"]
    assert digest == wire.tree_digest(
        [("train.py", "file", wire.sha256(b"")), ("in2/y", "file", wire.sha256(b""))]
    )


def test_data_may_be_as_large_as_it_likes(project: Path) -> None:
    (project / "train.py").write_text("")
    with open(project / "big.nc", "wb") as file:
        file.truncate(51 * 10**6)

    assert hpcml.plan(hpcml.Job("train.py", inputs={"big": "big.nc"})).digest


# --- keys ---------------------------------------------------------------------------------

KEYS = [
    ".env",
    ".env.local",
    "conf/.env",
    "server.pem",
    "deep/er/server.pem",
    "id_rsa",
    "id_ed25519",
    "id_rsa.pub",
    ".netrc",
    "a b.pem",
    " a.pem",
    "id_with a space at the end ",
    "what?.pem",
    "[ab].pem",
    "*.pem",
    "!.pem",
    "#.pem",
    "back\\slash.pem",
    "a'b\"c`d$e.pem",
    "-rf.pem",
    "é.pem",
]


def follow(message: str, folder: Path, ours: bool = True) -> None:
    """Do as an error says: add the line to the file that it names."""
    found = re.search(r'add the line "(.*)" to (\.\w+)', message)
    assert found, message
    name = ".hpcmlignore" if ours else found[2]
    with open(folder / name, "a") as file:
        file.write(found[1] + "\n")


@pytest.mark.parametrize("where", ["no git", ".gitignore", ".hpcmlignore", "tracked"])
@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_refused_with_the_line_that_leaves_it_out(
    name: str, where: str, project: Path
) -> None:
    (project / "train.py").write_text("")
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text(SECRET)
    if where != "no git":
        git(project, "init", "-q")
    if where == "tracked":
        git(project, "add", "-A")

    with pytest.raises(CodeError) as caught:
        hpcml.plan("train.py")

    message = str(caught.value)
    assert f"{project / name} looks like a key or password" in message
    assert SECRET not in message
    follow(message, project, ours=where in ("no git", ".hpcmlignore"))
    if where == "tracked":
        command = re.search(r"`(git rm .*)` if", message)
        assert command
        subprocess.run(command[1], shell=True, cwd=project, check=True, capture_output=True)
    assert hpcml.plan("train.py").digest
    assert (project / name).exists()
    assert name not in names(project) and "train.py" in names(project)


@pytest.mark.parametrize("kind", ["OPENSSH ", "RSA ", "EC ", "ENCRYPTED ", ""])
def test_a_private_key_is_known_by_its_content(kind: str, project: Path) -> None:
    (project / "train.py").write_text("")
    (project / "harmless.txt").write_text(PRIVATE_KEY.replace("OPENSSH ", kind))

    with pytest.raises(CodeError, match=r'harmless\.txt looks like .*\n.*"/harmless\.txt"'):
        hpcml.plan("train.py")


@pytest.mark.parametrize("name", ["id_map.csv", "id_utils.py", "environment.yml", "x.pem.md"])
def test_what_only_sounds_like_a_key_is_none(name: str, project: Path) -> None:
    (project / name).write_text("-----BEGIN CERTIFICATE-----\n")

    assert names(project) == [name]


# --- .hpcmlignore -------------------------------------------------------------------------


@pytest.mark.parametrize("in_git", [False, True])
def test_what_hpcmlignore_names_stays_behind(project: Path, in_git: bool) -> None:
    for name in ("a.py", "b.log", "sub/c.log", "data/d", "sub/data/e", "sub/only/f", "top.txt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    (project / ".hpcmlignore").write_text("# a remark\n\n*.log\n/data/\nsub/only\n")
    if in_git:
        git(project, "init", "-q")

    assert names(project) == sorted([".hpcmlignore", "a.py", "sub/data/e", "top.txt"])


def test_an_hpcmlignore_that_is_no_text_is_told(project: Path) -> None:
    (project / "train.py").write_text("")
    (project / ".hpcmlignore").write_bytes(b"\xff\n")

    with pytest.raises(CodeError, match=r"\.hpcmlignore cannot be read"):
        hpcml.plan("train.py")


# --- kinds of files -----------------------------------------------------------------------


@pytest.mark.parametrize("in_git", [False, True])
def test_links_are_kept_as_links_wherever_they_lead(project: Path, in_git: bool) -> None:
    (project / "sub").mkdir()
    (project / "sub" / "x").write_text("x")
    links = {"link": "sub/x", "folder": "sub", "nowhere": "is/not", "loop": "loop", "out": "/etc"}
    for name, target in links.items():
        (project / name).symlink_to(target)
    (project / "train.py").write_text(
        f"import os\nfor n in {list(links)}: print(n, os.path.lexists(n))\n"
        "print(open('link').read(), open('folder/x').read())\n"
    )
    if in_git:
        git(project, "init", "-q")

    entries = {n: (k, c) for n, k, c in take_snapshot(str(project)).entries}
    run = hpcml.submit("train.py").wait(30)

    assert {n: c.decode() for n, (k, c) in entries.items() if k == "link"} == links
    assert "folder/x" not in entries
    assert run.state == "COMPLETED", run.logs()
    assert run.logs() == "".join(f"{name} True\n" for name in links) + "x x\n"


def test_a_file_stays_executable(project: Path) -> None:
    (project / "tool").write_text("#!/bin/sh\necho done\n")
    (project / "tool").chmod(0o755)
    (project / "run.sh").write_text("./tool && test ! -x run.sh")

    run = hpcml.submit("run.sh").wait(30)

    assert (run.state, run.logs()) == ("COMPLETED", "done\n")


@pytest.mark.parametrize("in_git", [False, True])
def test_a_name_that_is_not_utf8_is_refused(project: Path, in_git: bool) -> None:
    (project / "train.py").write_text("")
    (project / os.fsdecode(b"caf\xe9.txt")).write_text("")
    if in_git:
        git(project, "init", "-q")

    with pytest.raises(CodeError, match="is not UTF-8"):
        hpcml.plan("train.py")


def test_a_link_to_a_name_that_is_not_utf8_is_refused(project: Path) -> None:
    (project / "train.py").write_text("")
    (project / "link").symlink_to(os.fsdecode(b"caf\xe9.txt"))

    with pytest.raises(CodeError, match=r"link cannot be read"):
        hpcml.plan("train.py")


def test_pipes_and_sockets_are_refused_and_not_opened(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "train.py").write_text("")
    os.mkfifo(project / "pipe")

    with pytest.raises(CodeError, match=r"pipe is neither a file nor a link\n.*\"/pipe\""):
        hpcml.plan("train.py")

    (project / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("door")  # a long path would not fit into an address
        with pytest.raises(CodeError, match="door is neither a file nor a link"):
            hpcml.plan("train.py")


def test_git_does_not_see_pipes(repository: Path) -> None:
    os.mkfifo(repository / "pipe")

    assert names(repository) == ["note.txt", "train.py"]


# --- the archive --------------------------------------------------------------------------


def test_the_same_code_is_the_same_archive(repository: Path, tmp_path: Path) -> None:
    (repository / "run.sh").write_text("")
    (repository / "run.sh").chmod(0o755)
    (repository / ("long" * 40)).write_text("a name that tar alone cannot hold")
    (repository / "é\n").write_text("")
    (repository / "link").symlink_to("é\n")
    commit(repository)
    git(tmp_path, "clone", "-q", str(repository), "clone")
    for path in (tmp_path / "clone").iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
        if path.is_file() and not path.is_symlink():
            path.chmod(0o700 if os.access(path, os.X_OK) and path.name == "run.sh" else 0o600)

    one, two = take_snapshot(str(repository)), take_snapshot(str(tmp_path / "clone"))

    assert one.digest == two.digest
    assert one.archive() == two.archive()
    place = unpack(tmp_path, one.archive(), one.digest)
    assert (place / ("long" * 40)).read_text().startswith("a name")
    assert (place / "link").readlink() == Path("é\n")
    again = take_snapshot(str(place))
    assert again.digest == one.digest


def unpack(tmp_path: Path, archive: bytes, digest: str) -> Path:
    """Unpack an archive as a site does."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / f"{digest}.tar").write_bytes(archive)
    return Path(site_side.unpack(str(folder), digest))


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o400
    return info


EVIL = {
    "a name from the root": lambda out: tar((member(f"{out}/canary"), b"x")),
    "a name above": lambda out: tar((member("../../outside/canary"), b"x")),
    "a name above, in the middle": lambda out: tar((member("a/../../../outside/canary"), b"x")),
    "a file below a link": lambda out: tar(
        (member("l", tarfile.SYMTYPE, str(out)), b""), (member("l/canary"), b"x")
    ),
    "a link below a link": lambda out: tar(
        (member("l", tarfile.SYMTYPE, str(out)), b""),
        (member("l/canary", tarfile.SYMTYPE, "x"), b""),
    ),
    "a folder below a link": lambda out: tar(
        (member("l", tarfile.SYMTYPE, str(out)), b""), (member("l/canary/x"), b"x")
    ),
    "a second link to a file": lambda out: tar((member("h", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "a device": lambda out: tar((member("d", tarfile.CHRTYPE), b"")),
    "a pipe": lambda out: tar((member("p", tarfile.FIFOTYPE), b"")),
    "a folder": lambda out: tar((member("f", tarfile.DIRTYPE), b"")),
    "the same name twice": lambda out: tar((member("a"), b"x"), (member("a"), b"y")),
    "other content": lambda out: tar((member("train.py"), b"print('evil')")),
    "nothing": lambda out: tar(),
    "half of it": lambda out: tar((member("train.py"), b"x" * 9000))[:5000],
    "no archive": lambda out: b"\x7fELF" + b"\0" * 2000,
}


@pytest.mark.parametrize("case", EVIL)
def test_an_archive_that_is_not_what_its_name_says_is_refused_and_nothing_of_it_is_left(
    case: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    with pytest.raises((site_side.SnapshotError, OSError)) as caught:
        unpack(tmp_path, EVIL[case](outside), "0" * 64)

    assert str(caught.value)
    assert not list(outside.iterdir()), "something was written elsewhere"
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["0" * 64 + ".tar"]


# --- what a run sees ----------------------------------------------------------------------


@pytest.fixture
def blocker() -> hpcml.Run:
    """A run that occupies all CPUs until it is cancelled."""
    resources = hpcml.Resources(cpus=len(os.sched_getaffinity(0)))
    job = hpcml.Job(["sleep", "60"], code=None, resources=resources)
    run = hpcml.submit(job)
    eventually(lambda: run.state == "RUNNING")
    return run


def test_what_is_edited_after_submit_changes_nothing(repository: Path, blocker: hpcml.Run) -> None:
    (repository / "config.yaml").write_text("lr: 1")
    (repository / "lib.py").write_text("x = 1")
    (repository / "train.py").write_text(
        "import lib, os\nprint(lib.x, open('config.yaml').read(), sorted(os.listdir()))\n"
    )
    run = hpcml.submit("train.py")
    assert run.state == "PENDING"

    (repository / "config.yaml").write_text("lr: 2")
    (repository / "lib.py").unlink()
    (repository / "train.py").write_text("print('edited')")
    (repository / "new.py").write_text("")
    blocker.cancel()

    assert run.wait(30).state == "COMPLETED", run.logs()
    # The bytecode of lib.py is the run's own.
    assert (
        run.logs() == "1 lr: 1 ['__pycache__', 'config.yaml', 'lib.py', 'note.txt', 'train.py']\n"
    )


def test_a_run_cannot_change_what_another_one_sees(repository: Path) -> None:
    (repository / "train.py").write_text(
        """if True:
        import os
        print(open('note.txt').read().strip())
        try:
            open('note.txt', 'a').write('changed')
        except OSError:
            pass
        """
    )

    runs = [hpcml.submit("train.py") for _ in range(2)]

    assert [run.wait(30).logs() for run in runs] == ["first\n", "first\n"]
    assert (repository / "note.txt").read_text() == "first\n"


def test_a_tampered_archive_is_not_executed(
    repository: Path, workspace: Path, blocker: hpcml.Run
) -> None:
    canary = repository.parent / "canary"
    run = hpcml.submit("train.py")
    digest = run.plan.what["code"]
    evil = Snapshot("", (("train.py", "file", f"open({str(canary)!r}, 'w')".encode()),), None)
    (workspace / "code" / f"{digest}.tar").write_bytes(evil.archive())
    blocker.cancel()

    run.wait(30)

    assert run.state == "FAILED"
    assert "before its command started" in run.reason
    assert f"{digest}.tar is not what its name says" in run.reason
    assert not canary.exists()
    assert not (workspace / "code" / digest).exists()


def test_an_archive_that_is_gone_fails_the_run(
    repository: Path, workspace: Path, blocker: hpcml.Run
) -> None:
    run = hpcml.submit("train.py")
    (workspace / "code" / f"{run.plan.what['code']}.tar").unlink()
    blocker.cancel()

    run.wait(30)

    assert run.state == "FAILED"
    assert "cannot be read" in run.reason


def test_a_tampered_archive_in_the_cache_is_not_sent_or_not_executed(
    repository: Path, home: Path
) -> None:
    canary = repository.parent / "canary"
    digest = hpcml.plan("train.py").what["code"]
    evil = Snapshot("", (("train.py", "file", f"open({str(canary)!r}, 'w')".encode()),), None)
    cached = home / "cache" / "hpcml" / "code" / f"{digest}.tar"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(evil.archive())

    try:
        state = hpcml.submit("train.py").wait(30).state
    except HpcmlError:
        state = None

    assert state in (None, "FAILED", "COMPLETED")
    assert not canary.exists()
