"""What every transport must do."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpcml.agent import wire
from hpcml.errors import TransportError
from hpcml.transports import Transport, base

BIG = b"0123456789abcdef" * (3 << 16)  # 3 MiB
STRANGE = ("a b", "ü", "-rf", "a'b\"c", "new\nline", "$HOME", "*", os.fsdecode(b"\xff\xfe"))


class TransportSuite:
    """The contract of :class:`hpcml.transports.Transport`.

    Subclasses override the fixture :meth:`make`. What is on the site is looked at by commands
    (:meth:`told`), so that it may be anywhere.
    """

    @pytest.fixture
    def make(self) -> Callable[[], Transport]:
        """Makes transports to one workspace, which is not there yet."""
        raise NotImplementedError

    @pytest.fixture
    def files(self, make: Callable[[], Transport]) -> Transport:
        """One of them."""
        return make()

    @staticmethod
    def told(files: Transport, script: str) -> str:
        """What a shell in the workspace prints."""
        done = files.run(["/bin/sh", "-c", f'cd "$0" && {{ {script}\n}}', files.workspace])
        assert done.exit_code == 0, done.stderr
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    # --- commands -------------------------------------------------------------------------

    def test_a_command_is_given_its_input_and_tells_what_it_printed(self, files: Transport) -> None:
        done = files.run(["/bin/sh", "-c", "cat; echo woe >&2; exit 3"], b"\x00\xffin\n")

        assert (done.exit_code, done.stdout, done.stderr) == (3, b"\x00\xffin\n", b"woe\n")

    def test_no_shell_reads_the_words_of_a_command(self, files: Transport) -> None:
        words = ["$HOME", "a b", "*", "'", '"', ";exit 1", "`id`", "\\", "!", "", "new\nline"]
        done = files.run(["printf", "%s|", *words])

        assert done.stdout.decode() == "".join(f"{word}|" for word in words)

    def test_a_command_that_is_not_there_is_named(self, files: Transport) -> None:
        done = files.run(["no-such-command"])

        assert (done.exit_code, done.stdout) == (127, b"")
        assert b"no-such-command" in done.stderr

    def test_a_command_that_reads_nothing_does_not_hold_up_who_gives_it_much(
        self, files: Transport
    ) -> None:
        assert files.run(["true"], BIG).exit_code == 0

    def test_what_is_large_comes_through_a_command_as_it_was(self, files: Transport) -> None:
        assert files.run(["cat"], BIG).stdout == BIG

    def test_a_command_finds_the_workspace_which_nobody_else_can_read(
        self, files: Transport
    ) -> None:
        files.put({"here": b""})

        assert self.told(files, "ls -d here; stat -c %a .") == "here\n700"

    def test_a_command_that_was_killed_is_not_taken_for_one_that_says_so(
        self, files: Transport
    ) -> None:
        assert files.run(["/bin/sh", "-c", "kill -9 $$"]).exit_code == -9
        assert files.run(["/bin/sh", "-c", "exit 137"]).exit_code == 137

    def test_a_job_that_the_client_is_in_is_not_told_of_to_commands(
        self, make: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else sbatch would submit with the limits of that job."""
        for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SQUEUE_FORMAT", "OF_MINE"):
            monkeypatch.setenv(name, "of another job")

        told = self.told(make(), "env")

        assert "another job" not in told
        assert {"LC_ALL=C", "TZ=UTC", "SLURM_TIME_FORMAT=%s"} <= {*told.splitlines()}

    # --- writing --------------------------------------------------------------------------

    def test_a_file_is_written_whole_and_for_its_owner_alone(
        self, files: Transport, tmp_path: Path
    ) -> None:
        (tmp_path / "big").write_bytes(BIG)
        files.put({"a/b/big": tmp_path / "big", "a/small": b"\x00\xff", "empty": b""})

        found = files.get({"a/b/big": 0, "a/small": 0, "empty": 0})

        assert found == {"a/b/big": BIG, "a/small": b"\x00\xff", "empty": b""}
        assert self.told(files, "stat -c %a a a/b a/b/big a/small").split() == [
            *("700", "700", "600", "600")
        ]

    def test_a_file_is_replaced_at_once(self, files: Transport) -> None:
        files.put({"file": b"old"})
        self.told(files, "ln file other")
        files.put({"file": b"new"})

        assert files.get({"file": 0, "other": 0}) == {"file": b"new", "other": b"old"}

    def test_names_may_be_strange(self, files: Transport) -> None:
        content = {f"folder/{name}": name.encode("utf-8", "surrogateescape") for name in STRANGE}
        files.put(content)

        assert files.names("folder") == set(STRANGE)
        assert {entry.name for entry in files.list("folder") or ()} == set(STRANGE)
        assert files.get(dict.fromkeys(content, 0)) == content
        assert files.touch(content).keys() == content.keys()
        files.remove(content)
        assert files.names("folder") == set()

    @pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/hpcml", "a/.."])
    def test_no_path_leads_out_of_the_workspace(
        self, files: Transport, path: str, tmp_path: Path
    ) -> None:
        for call in (
            lambda: files.put({path: b"x"}),
            lambda: files.publish(path, {}),
            lambda: files.get({path: 0}),
            lambda: files.list(path),
            lambda: files.names(path),
            lambda: files.remove([path]),
            lambda: files.move(path, "b"),
            lambda: files.move("b", path),
            lambda: files.touch([path]),
            lambda: files.append(path, {}),
            lambda: files.open_private(path),
            lambda: files.usage([path]),
            lambda: files.put_once({path: b"x"}),
            lambda: files.put_verified({path: Path(__file__)}, {path: ""}, ()),
            lambda: files.link({path: "x"}),
            lambda: files.walk([path]),
            lambda: files.digest([path]),
            lambda: files.fetch({path: tmp_path / "copy"}),
        ):
            with pytest.raises(TransportError, match="leads out of the workspace"):
                call()

    def test_who_cannot_write_is_told_so_and_can_go_on(self, files: Transport) -> None:
        files.put({"file": b"x"})
        with pytest.raises(TransportError, match="cannot be written"):
            files.put({"fine": b"1", "file/below": BIG, "not-any-more": b"2"})

        assert files.names("") == {"file", "fine", *(files.names("") or set()) & {"lib"}}

    def test_a_folder_appears_with_all_its_files_and_once(self, files: Transport) -> None:
        content = {"plan.json": b"{}", "points.jsonl": BIG}

        assert files.publish("runs/a", content, empty=("attempts", "deep/queue"))
        assert not files.publish("runs/a", {"plan.json": b"another"})

        assert files.names("runs") == {"a"}
        assert files.names("runs/a") == {"plan.json", "points.jsonl", "attempts", "deep"}
        assert files.names("runs/a/deep/queue") == set()
        assert files.get({"runs/a/plan.json": 0}) == {"runs/a/plan.json": b"{}"}
        assert self.told(files, "stat -c %a runs/a runs/a/attempts runs/a/plan.json").split() == [
            *("700", "700", "600")
        ]

    def test_one_time_facts_stand_for_ever(self, files: Transport) -> None:
        files.put({"attempts/0": b""})
        first = {"attempts/1.start": b"first", "attempts/2.start": b"first"}

        assert files.put_once({"attempts/1.start": b"first"}) == {"attempts/1.start"}
        assert files.put_once({**first, "attempts/1.start": b"second"}) == {"attempts/2.start"}

        assert files.get(dict.fromkeys(first, 0)) == first
        assert files.names("attempts") == {"0", "1.start", "2.start"}

    def test_of_many_that_want_to_be_first_one_is(self, make: Callable[[], Transport]) -> None:
        several = [make() for _ in range(3)]
        several[0].put({"facts/0": b""})
        made: list[int] = []

        def take(number: int) -> None:
            for fact in range(20):
                if several[number].put_once({f"facts/{fact}.start": str(number).encode()}):
                    made.append(fact)

        in_threads([lambda number=number: take(number) for number in range(3)])  # type: ignore[misc]

        assert sorted(made) == list(range(20))

    def test_lines_are_appended_whole(self, make: Callable[[], Transport]) -> None:
        several = [make() for _ in range(3)]
        several[0].put({"folder/0": b""})

        def say(number: int) -> None:
            for count in range(20):
                text = "ü" * 100
                several[number].append("folder/words", {"who": number, "n": count, "t": text})

        in_threads([lambda number=number: say(number) for number in range(3)])  # type: ignore[misc]

        lines = several[0].get({"folder/words": 0})["folder/words"].splitlines()
        # Who meets the half of another thread's line takes it for a torn one, and begins a new one.
        said = [json.loads(line) for line in lines if line]
        assert sorted((one["who"], one["n"]) for one in said) == [
            (number, count) for number in range(3) for count in range(20)
        ]

    # --- looking --------------------------------------------------------------------------

    def test_files_are_read_from_where_one_has_stopped(self, files: Transport) -> None:
        files.put({"a": b"0123456789", "b/c": b"abc"})

        assert files.get({"a": 4, "b/c": 0, "nothing": 0, "a/below": 0, "a ": 9}) == {
            "a": b"456789",
            "b/c": b"abc",
        }
        assert files.get({"a": 10, "b/c": 99}) == {"a": b"", "b/c": b""}
        assert files.get({}) == {}
        with pytest.raises(TransportError, match="cannot be read"):
            files.get({"b": 0})

    def test_a_listing_says_what_each_entry_is(self, files: Transport) -> None:
        files.put({"x/file": b"12345", "x/folder/below": b""})
        self.told(files, "ln -s no/where x/link; mkfifo x/pipe")

        found = {entry.name: entry for entry in files.list("x") or ()}

        assert {name: entry.kind for name, entry in found.items()} == {
            **{"file": "file", "folder": "folder", "link": "link", "pipe": "special"}
        }
        assert found["file"].size == 5
        assert (found["link"].target, found["file"].target) == ("no/where", "")
        assert abs(found["file"].mtime - files.now()) < 60
        assert files.list("nowhere") is None
        assert files.names("x") == found.keys() and files.names("nowhere") is None
        with pytest.raises(TransportError, match="cannot be listed"):
            files.list("x/file")

    def test_many_folders_are_listed_at_once(self, files: Transport) -> None:
        files.put({"a/1": b"", "b/2": b"", "b/3": b""})

        assert files.names_in(["a", "b", "nowhere"]) == {"a": {"1"}, "b": {"2", "3"}}
        assert files.names_in([]) == {}

    def test_touching_makes_the_times_now_and_makes_nothing(self, files: Transport) -> None:
        files.put({"file": b"123", "folder/below": b""})
        self.told(files, "touch -d @1 file folder")

        found = files.touch(["file", "folder", "nothing", "file/below"])

        assert found.keys() == {"file", "folder"}
        assert (found["file"].size, found["file"].kind) == (3, "file")
        assert found["folder"].kind == "folder"
        assert all(abs(entry.mtime - files.now()) < 60 for entry in found.values())
        assert "nothing" not in (files.names("") or ())

    def test_what_folders_take_is_counted(self, files: Transport) -> None:
        files.put({"a/file": BIG, "b/file": BIG})

        whole, part = files.usage([""]), files.usage(["a", "nothing"])

        assert whole is not None and part is not None and files.usage(["nothing"]) is None
        assert whole.bytes > 2 * len(BIG) > part.bytes > len(BIG)
        assert (part.entries, part.foreign, part.whole) == (2, "", True)

    def test_what_others_can_write_is_not_opened(self, files: Transport) -> None:
        files.put({"a/b/file": BIG, "a/link/file": b"x"})
        with files.open_private("a/b/file") as file:
            assert file.read() == BIG

        self.told(files, "chmod 777 a/b")
        with pytest.raises(TransportError, match="a/b is not this user's alone"):
            files.open_private("a/b/file")
        self.told(files, "chmod 700 a/b; chmod 602 a/b/file")
        with pytest.raises(TransportError, match="a/b/file is not this user's alone"):
            files.open_private("a/b/file")
        self.told(files, "chmod 600 a/b/file; mv a/b a/c; ln -s c a/b")
        with pytest.raises(TransportError, match="a/b is not this user's alone"):
            files.open_private("a/b/file")
        with pytest.raises(TransportError, match="cannot be looked at"):
            files.open_private("nothing")

    # --- copying --------------------------------------------------------------------------

    def test_files_come_whole_with_their_times_and_modes(
        self, files: Transport, tmp_path: Path
    ) -> None:
        names = [name for name in STRANGE if "\n" not in name]
        content = {f"out/{name}": name.encode("utf-8", "surrogateescape") for name in names}
        files.put({**content, "out/big": BIG, "out/empty": b""})
        self.told(files, "chmod 755 out/big; touch -d @1234567890.123456789 out/big")
        (tmp_path / "big").write_text("old")

        wanted = {path: tmp_path / path.removeprefix("out/") for path in content}
        files.fetch({**wanted, "out/big": tmp_path / "big", "out/empty": tmp_path / "empty"})

        assert {path: target.read_bytes() for path, target in wanted.items()} == content
        assert (tmp_path / "empty").read_bytes() == b""
        big = tmp_path / "big"
        assert big.read_bytes() == BIG
        assert (big.stat().st_mode & 0o777, big.stat().st_mtime_ns) == (0o755, 1234567890123456789)
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]

    def test_the_time_of_a_copy_is_the_one_that_a_listing_told(
        self, files: Transport, tmp_path: Path
    ) -> None:
        files.put({"file": b"x"})
        told = files.walk(["file"])["file"][""]
        files.fetch({"file": tmp_path / "copy"})

        assert (tmp_path / "copy").stat().st_mtime == told.mtime

    def test_what_is_gone_does_not_come_and_is_no_error(
        self, files: Transport, tmp_path: Path
    ) -> None:
        files.put({"a/1": b"1", "a/3": b"3"})
        files.fetch({f"a/{number}": tmp_path / str(number) for number in (1, 2, 3)})
        files.fetch({})

        assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"1", "3"}

    def test_what_cannot_be_copied_leaves_what_was_there_and_what_came_before(
        self, files: Transport, tmp_path: Path
    ) -> None:
        files.put({"out/1": b"new", "out/3": b"x"})
        self.told(files, "mkfifo out/2")
        targets = [tmp_path / str(number) for number in (1, 2, 3)]
        targets[1].write_text("old")
        wanted = {f"out/{target.name}": target for target in targets}

        with pytest.raises(TransportError, match="out/2 cannot be copied"):
            files.fetch(wanted)
        with pytest.raises(TransportError, match="cannot be written"):
            files.fetch({"out/1": tmp_path / "nowhere" / "1"})

        assert (targets[0].read_text(), targets[1].read_text()) == ("new", "old")
        assert not targets[2].exists()
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]
        assert files.names("out") == {"1", "2", "3"}

    # --- what is named by its digest ------------------------------------------------------

    def test_all_below_folders_is_listed_at_once(self, files: Transport) -> None:
        files.put({"a/1": b"1", "a/b/c/2": b"22", "file": b"333", "n/a\nb": b""})
        self.told(files, "ln -s ../.. a/b/up; ln -s a/b to; mkdir a/empty; mkfifo a/pipe")

        found = files.walk(["a", "file", "n", "to", "nowhere", "a/1/below"])

        assert found.keys() == {"a", "file", "n", "to"}
        assert {name: entry.kind for name, entry in found["a"].items()} == {
            **{"1": "file", "b": "folder", "b/c": "folder", "b/c/2": "file"},
            **{"b/up": "link", "empty": "folder", "pipe": "special"},
        }
        assert found["to"].keys() == {"c", "c/2", "up"}
        assert (found["a"]["b/c/2"].size, found["a"]["b/up"].target) == (2, "../..")
        assert {name: entry.size for name, entry in found["file"].items()} == {"": 3}
        assert found["n"].keys() == {"a\nb"}
        assert all(entry.name == name for name, entry in found["a"].items())

    def test_what_is_there_is_digested_there(self, files: Transport, tmp_path: Path) -> None:
        content = {f"zarr/{name}": name.encode("utf-8", "surrogateescape") for name in STRANGE}
        files.put({**content, "zarr/deep/big": BIG, "file": b"x"})
        self.told(files, "chmod 700 zarr/deep/big; ln -s deep zarr/link; ln -s file other")
        rows = [(name, "file", wire.sha256(content[f"zarr/{name}"])) for name in STRANGE]
        rows += [("deep/big", "exec", wire.sha256(BIG)), ("link", "link", "deep")]

        found = files.digest(["zarr", "file", "other", "nothing"])

        assert found.keys() == {"zarr", "file", "other"}
        assert found["zarr"].sha256 == wire.tree_digest(rows)
        assert found["zarr"].bytes == len(BIG) + sum(map(len, content.values()))
        assert found["file"] == found["other"]
        assert (found["file"].sha256, found["file"].bytes) == (wire.sha256(b"x"), 1)
        assert files.digest(["zarr"]) == {"zarr": found["zarr"]}
        self.told(files, "touch zarr/deep/big")
        again = files.digest(["zarr"])["zarr"]
        assert again.sha256 == found["zarr"].sha256 and again.stamp != found["zarr"].stamp
        self.told(files, "mkfifo zarr/pipe")
        with pytest.raises(TransportError, match="cannot be digested"):
            files.digest(["zarr"])

    def test_what_has_another_digest_when_it_comes_is_not_written(
        self, files: Transport, tmp_path: Path
    ) -> None:
        for name, data in (("a", b"1"), ("b", b"2"), ("run", b"#!"), ("big", BIG)):
            (tmp_path / name).write_bytes(data)
        sources = {f"data/{name}": tmp_path / name for name in ("a", "b", "run", "big")}
        digests = {path: wire.sha256(source.read_bytes()) for path, source in sources.items()}
        digests["data/b"] = wire.sha256(b"another")

        assert files.put_verified(sources, digests, {"data/run"}) == {"data/b"}

        assert files.names("data") == {"a", "run", "big"}
        assert files.get({"data/a": 0, "data/big": 0}) == {"data/a": b"1", "data/big": BIG}
        assert self.told(files, "stat -c %a data data/a data/run").split() == ["700", "400", "500"]
        with pytest.raises(TransportError, match="cannot be read"):
            files.put_verified({"data/c": tmp_path / "c"}, {"data/c": ""}, ())
        assert files.names("data") == {"a", "run", "big"}

    def test_what_is_there_in_full_stays_as_it_is(self, files: Transport, tmp_path: Path) -> None:
        """Others may have begun to use it."""
        (tmp_path / "a").write_bytes(b"whole")
        files.put({"data/a": b"whole", "data/short": b"who"})
        before = files.digest(["data/a"])
        sources = {"data/a": tmp_path / "a", "data/short": tmp_path / "a"}

        assert not files.put_verified(sources, dict.fromkeys(sources, wire.sha256(b"whole")), ())

        assert files.digest(["data/a"]) == before
        assert files.get({"data/short": 0}) == {"data/short": b"whole"}

    def test_links_are_made_with_their_folders(self, files: Transport) -> None:
        files.link({"a/b/link": "../c", "top": "a"})
        files.link({"top": "a/b"})

        assert files.walk(["a"])["a"]["b/link"].target == "../c"
        assert {it.name: it.target for it in files.list("") or () if it.kind == "link"} == {
            "top": "a/b"
        }

    def test_what_is_sealed_is_read_only_until_it_is_moved_or_removed_or_something_is_brought(
        self, files: Transport, tmp_path: Path
    ) -> None:
        files.put({"data/a/b/c": b"", "data/x/y/z": b""})
        files.link({"data/a/link": "../x"})
        files.seal("data/a")
        modes = self.told(files, "stat -c %a data/a data/a/b data/a/b/c data/x").split()
        assert modes == ["500", "500", "400", "700"]

        (tmp_path / "a").write_bytes(b"1")
        files.put_verified({"data/a/b/d": tmp_path / "a"}, {"data/a/b/d": wire.sha256(b"1")}, ())
        files.link({"data/a/second": "b"})
        assert files.names("data/a/b") == {"c", "d"}
        assert files.names("data/a") == {"b", "link", "second"}

        files.seal("data/a")
        files.seal("data/x")
        assert files.move("data/x", "x")
        files.remove(["data/a"])
        assert files.names("data") == set()

    def test_markers_of_inputs_that_were_changed_are_left_out(self, files: Transport) -> None:
        files.put({"data/a/t2m": b"1", "data/b/t2m": b"1"})
        markers = ["data/a.whole/t2m", "data/b.whole/t2m", "data/c.whole/t2m"]
        for path, said in files.digest(["data/a/t2m", "data/b/t2m"]).items():
            name = path.removesuffix("/t2m")
            files.put({f"{name}.whole/t2m": wire.canonical({"stamp": said.stamp})})
        assert {*files.touch(["data/a"], markers)} == {"data/a", *markers[:2]}

        self.told(files, "touch data/a/t2m")
        assert {*files.touch([], markers)} == {markers[1]}
        self.told(files, "rm data/b/t2m")
        assert files.touch([], markers) == {}

    # --- moving and removing --------------------------------------------------------------

    def test_what_is_moved_is_there_under_its_new_name_alone(self, files: Transport) -> None:
        files.put({"runs/a/file": b"x"})
        self.told(files, "chmod 500 runs/a")

        assert files.move("runs/a", "code")
        assert not files.move("runs/a", "code")

        assert files.names("runs") == set() and files.names("code") == {"file"}
        with pytest.raises(TransportError, match="cannot be moved"):
            files.move("code", "nowhere/code")

    def test_what_is_removed_goes_whatever_is_in_it_and_what_links_lead_to_stays(
        self, files: Transport
    ) -> None:
        files.put({"a/b/c": b"", "keep/file": b"x", "d": b""})
        self.told(files, "ln -s ../keep a/link; chmod 500 a/b a")

        files.remove(["a", "d", "nothing"])

        assert (files.names("") or set()) - {"lib"} == {"keep"}
        assert files.names("keep") == {"file"}

    # --- several at once ------------------------------------------------------------------

    def test_many_hold_the_workspace_and_one_alone_does(
        self, make: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "PATIENCE", 0.1)
        one, other = make(), make()
        refused = pytest.raises(TransportError, match="submitting")

        def both_have_let_go() -> None:
            """What is asked after it is answered after it."""
            one.names("")
            other.names("")

        with one.holding(), one.holding(), other.holding(), refused, other.holding(alone=True):
            pass
        both_have_let_go()
        with one.holding(alone=True), refused, other.holding(alone=True):
            pass
        both_have_let_go()
        with other.holding(alone=True), refused, other.holding(alone=True):
            pass
        with other.holding():
            pass

    def test_who_wants_it_alone_waits_for_a_moment(self, make: Callable[[], Transport]) -> None:
        one, other = make(), make()
        order = []
        with ExitStack() as stack:
            stack.enter_context(one.holding())

            def take() -> None:
                with other.holding(alone=True):
                    order.append("alone")

            thread = threading.Thread(target=take)
            thread.start()
            order.append("let go")
        thread.join()

        assert order == ["let go", "alone"]

    def test_threads_may_share_one(self, files: Transport) -> None:
        def work(number: int) -> None:
            for count in range(10):
                path = f"{number}/{count}"
                files.put({path: path.encode() * 1000})
                assert files.get({path: 0}) == {path: path.encode() * 1000}

        in_threads([lambda number=number: work(number) for number in range(8)])  # type: ignore[misc]

        assert all(len(files.names(str(number)) or ()) == 10 for number in range(8))

    def test_a_forked_child_can_go_on_and_so_can_its_parent(self, files: Transport) -> None:
        files.put({"parent": b"1"})
        child = os.fork()
        if child == 0:
            try:
                files.put({"child": files.get({"parent": 0})["parent"]})
            finally:
                os._exit(0)
        files.put({"meanwhile": b""})
        os.waitpid(child, 0)

        assert files.get({"child": 0}) == {"child": b"1"}

    # --- together -------------------------------------------------------------------------

    def test_what_is_done_together_is_done_in_its_order(self, files: Transport) -> None:
        with files.together():
            files.put({"a/file": b"1"})
            files.append("a/words", {"said": 1})
            files.put({"a/file": b"2"})
            assert files.get({"a/file": 0}) == {"a/file": b"2"}
            files.remove(["a/file"])

        assert files.names("a") == {"words"}

    def test_where_one_fails_none_of_those_after_it_is_done(self, files: Transport) -> None:
        files.put({"file": b""})
        with pytest.raises(TransportError, match="below cannot be written"), files.together():
            files.put({"before": b""})
            files.put({"file/below": b""})
            files.put({"after": b""})
            files.run(["touch", f"{files.workspace}/ran"])
        with pytest.raises(TransportError, match="below cannot be written"), files.together():
            files.put({"file/below": b""})
            files.remove(["before"])

        assert (files.names("") or set()) - {"lib"} == {"before", "file"}
        files.put({"again": b""})

    # --- time -----------------------------------------------------------------------------

    def test_now_is_by_the_clock_that_stamps_its_files(self, files: Transport) -> None:
        before = files.now()
        files.put({"file": b""})
        time.sleep(0.01)
        (entry,) = files.touch(["file"]).values()

        assert before - 0.1 <= entry.mtime <= files.now() + 0.1


def in_threads(several: list[Callable[[], None]]) -> None:
    """Do several things at once; an error of one is an error."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
