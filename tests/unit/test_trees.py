"""What folders take, and removing them, whatever jobs have left in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcml.agent import trees
from hpcml.connection import connect
from hpcml.errors import TransportError
from hpcml.transports import base
from hpcml.transports.local import LocalTransport

BIG = b"x" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to fill and remove."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


def taken(*paths: Path) -> trees.Usage:
    found = trees.usage(map(str, paths))
    assert found is not None
    return found


def blocks(path: Path) -> int:
    return path.lstat().st_blocks * 512


def without_privileges(code: str, *arguments: Path) -> str:
    """What Python prints if modes count for it, though this user may be root."""
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    argv = [*drop, sys.executable, "-c", f"import sys\nfrom hpcml.agent import trees\n{code}"]
    done = subprocess.run(
        [*argv, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- what is taken ------------------------------------------------------------------------


def test_blocks_are_counted_not_lengths(folder: Path) -> None:
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 40)
    (folder / "small").write_bytes(b"x")

    used = taken(folder)

    assert used.bytes == sum(map(blocks, [folder, folder / "sparse", folder / "small"]))
    assert used.bytes < 1 << 20
    assert (used.entries, used.whole, used.foreign) == (3, True, "")


def test_a_file_with_two_names_is_counted_once(folder: Path) -> None:
    (folder / "one").write_bytes(BIG)
    os.link(folder / "one", folder / "two")

    assert taken(folder).bytes == blocks(folder) + blocks(folder / "one")


def test_a_file_that_has_a_name_elsewhere_would_not_be_freed(folder: Path, tmp_path: Path) -> None:
    (folder / "one").write_bytes(BIG)
    os.link(folder / "one", tmp_path / "elsewhere")

    used = taken(folder)

    assert (used.bytes, used.shared) == (blocks(folder), blocks(folder / "one"))


def test_what_links_lead_to_is_not_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big").write_bytes(BIG)
    (folder / "link").symlink_to(tmp_path / "data")

    assert taken(folder).entries == 2
    assert taken(folder / "link").entries == 1


def test_nothing_is_no_usage(folder: Path) -> None:
    assert trees.usage([str(folder / "nothing"), str(folder / "nothing" / "below")]) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_named(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    os.chown(folder / "a" / "b", 12345, 12345)

    assert taken(folder).foreign == str(folder / "a" / "b")


def test_what_cannot_be_read_makes_it_a_lower_bound(folder: Path) -> None:
    (folder / "closed").mkdir(0o000)

    assert without_privileges("print(trees.usage([sys.argv[1]]).whole)", folder) == "False"


# --- removing -----------------------------------------------------------------------------


def test_what_jobs_have_made_read_only_is_removed(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    (below / "file").write_bytes(b"x")
    for place in (below / "file", below, folder / "a", folder):
        place.chmod(0o400 if place.is_file() else 0o500)

    assert without_privileges("trees.remove(sys.argv[1])", folder) == ""

    assert not folder.exists()


def test_what_others_have_moved_and_made_anew_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, rename = tmp_path / "source", tmp_path / "target", os.rename
    source.touch()

    def too_late(*paths: str) -> None:
        rename(*paths)
        source.touch()
        raise FileNotFoundError

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", too_late)
        assert not trees.move(str(source), str(target))
    with pytest.raises(FileNotFoundError):
        trees.move(str(source), str(tmp_path / "no" / "target"))


def test_a_folder_that_is_closed_to_its_owner_is_moved(folder: Path, tmp_path: Path) -> None:
    inner, target = folder / "inner", tmp_path / "target"
    inner.mkdir(0o000)

    assert without_privileges("print(trees.move(*sys.argv[1:]))", inner, target) == "True"

    assert target.is_dir() and not inner.exists()


def test_what_links_lead_to_stays(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "file").write_bytes(b"x")
    (folder / "a").mkdir()
    for place in (folder, folder / "a"):
        (place / "to-folder").symlink_to(outside)
        (place / "to-file").symlink_to(tmp_path / "file")

    trees.remove(str(folder))

    assert not folder.exists()
    assert (tmp_path / "file").exists() and outside.stat().st_mode & 0o777 == 0o500


def test_what_links_lead_to_is_not_made_read_only(folder: Path, tmp_path: Path) -> None:
    """Somebody may have moved much data elsewhere, and put a link in its place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("1")
    modes = [path.stat().st_mode for path in (elsewhere, elsewhere / "mine")]
    (folder / "folder").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "mine")
    (tmp_path / "moved").symlink_to(elsewhere)

    trees.seal(str(folder))
    trees.seal(str(tmp_path / "moved"))
    assert [path.stat().st_mode for path in (elsewhere, elsewhere / "mine")] == modes


def test_a_link_itself_is_removed_and_not_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    (folder / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(folder)

    trees.remove(str(tmp_path / "link"))

    assert not os.path.lexists(tmp_path / "link") and (folder / "file").exists()


def test_no_level_is_too_deep_and_no_path_too_long(folder: Path) -> None:
    code = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for _ in range(3000):\n"
        "    os.mkdir('d' * 20)\n"
        "    os.chdir('d' * 20)\n"
        "open('file', 'w').close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert not taken(folder).whole

    trees.remove(str(folder))

    assert not folder.exists()


def test_names_may_be_hostile(folder: Path) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"\x1b[2J", b"*", b".hidden"):
        os.mkdir(os.fsencode(folder) + b"/" + name)
        with open(os.fsencode(folder) + b"/" + name + b"/" + name, "wb"):
            pass
    assert taken(folder).entries == 13

    trees.remove(str(folder))

    assert not folder.exists()


def test_what_is_mounted_within_is_seen_and_never_touched(tmp_path: Path) -> None:
    """Also a folder of the same file system, of which the device number tells nothing."""
    code = (
        "import os, sys\n"
        "from hpcml.agent import trees\n"
        "print(trees.usage([sys.argv[1]]).foreign)\n"
        "try: trees.remove(sys.argv[1])\n"
        "except OSError as error: print(error.strerror)\n"
    )
    folder, data = tmp_path / "folder", tmp_path / "data"
    for place in (folder / "a" / "mount", data / "below"):
        place.mkdir(parents=True)
    (data / "below" / "file").write_bytes(b"x")
    mount = 'mount --bind "$1/data" "$1/folder/a/mount" || exit 99; exec "$2" -c "$3" "$1/folder"'
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
    done = subprocess.run(
        [*unshare, str(tmp_path), sys.executable, code], capture_output=True, text=True
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount")

    assert done.stdout.splitlines() == [str(folder / "a" / "mount"), "Device or resource busy"]
    assert (data / "below" / "file").exists()


def test_two_may_remove_the_same_at_once(folder: Path) -> None:
    for a in range(20):
        for b in range(20):
            (folder / str(a) / str(b)).mkdir(parents=True)
            (folder / str(a) / str(b) / "file").write_bytes(b"x")
    errors: list[Exception] = []

    def remove() -> None:
        try:
            trees.remove(str(folder))
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not folder.exists() and errors == []


# --- the contract of a transport ----------------------------------------------------------


@pytest.fixture
def files() -> Iterator[LocalTransport]:
    """The embedded site's files."""
    found = connect("local").files
    assert isinstance(found, LocalTransport)
    yield found


def test_what_is_moved_is_there_under_its_new_name_alone(files: LocalTransport) -> None:
    files.put({"runs/a/file": b"x"})
    Path(files.workspace, "runs/a").chmod(0o500)

    assert files.move("runs/a", "code")
    assert not files.move("runs/a", "code")

    assert files.names("runs") == set() and files.names("code") == {"file"}


def test_moving_to_nowhere_is_no_success(files: LocalTransport) -> None:
    files.put({"file": b"x"})

    with pytest.raises(TransportError, match="cannot be moved"):
        files.move("file", "nowhere/file")


def test_touching_makes_the_time_now_and_makes_nothing(files: LocalTransport) -> None:
    files.put({"file": b"x"})
    os.utime(f"{files.workspace}/file", (1, 1))

    assert files.touch(["file", "nothing"]).keys() == {"file"}

    times = {entry.name: entry.mtime for entry in files.list("") or ()}
    assert abs(times["file"] - files.now()) < 3600 and "nothing" not in times


def test_usage_is_that_of_the_whole_workspace_too(files: LocalTransport) -> None:
    files.put({"a/file": BIG, "b/file": BIG})

    whole, part = files.usage([""]), files.usage(["a", "nothing"])

    assert whole is not None and part is not None and files.usage(["nothing"]) is None
    assert whole.bytes > 2 * len(BIG) > part.bytes > len(BIG)


def test_many_hold_the_workspace_and_one_alone_does(
    files: LocalTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PATIENCE", 0.1)
    refused = pytest.raises(TransportError, match="submitting")
    with files.holding(), files.holding(), refused, files.holding(alone=True):
        pass
    with files.holding(alone=True), refused, files.holding(alone=True):
        pass
    with files.holding():
        pass


def test_who_wants_it_alone_waits_for_a_moment(files: LocalTransport) -> None:
    order = []
    holding = files.holding()
    holding.__enter__()

    def take() -> None:
        with files.holding(alone=True):
            order.append("alone")

    thread = threading.Thread(target=take)
    thread.start()
    order.append("let go")
    holding.__exit__(None, None, None)
    thread.join()

    assert order == ["let go", "alone"]
