"""Inputs go to a site once, and are believed when they are whole; what runs left comes back."""

from __future__ import annotations

import json
import os
import posixpath
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import hpcml
from hpcml import submission
from hpcml.agent import wire
from hpcml.agent.inputs import InputError, Inputs
from hpcml.batch import batch_folder, batch_of, outbox_ids
from hpcml.connection import connect
from hpcml.errors import HpcmlError, JobError, TransportError
from hpcml.pruning import Pruning
from hpcml.staging import inputs as staging
from hpcml.transports import Digest, FileStatus
from hpcml.transports.ssh import SshTransport, streams
from tests.conftest import eventually
from tests.contract.conftest import ssh_of, trips

READ = ["cat", "{inputs.x}"]


@pytest.fixture
def zarr(project: Path) -> Path:
    """A folder of some files, one executable, and a link."""
    folder = project / "t2m.zarr"
    (folder / "c" / "0").mkdir(parents=True)
    for number in range(20):
        (folder / "c" / "0" / str(number)).write_bytes(b"%d" % number * 1000)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "zarr.json").write_text("{}")
    (folder / "c" / "first").symlink_to("0/0")
    return folder


@pytest.fixture
def there(far: str) -> Path:
    """The workspace, as this machine finds it."""
    return Path(connect(far).binding.workspace)


def submitted(source: Path, site: str = "far") -> hpcml.Run:
    return hpcml.submit(hpcml.Job(READ, code=None), site=site, inputs={"x": str(source)})


def agent_s(run: hpcml.Run) -> Inputs:
    """What an agent on the site looks at before it starts a run."""
    connection = connect(run.site)
    path = f"{batch_folder(batch_of(run.id))}/plan.json"
    plan = json.loads(connection.files.get({path: 0})[path])
    return Inputs(plan, f"{connection.binding.workspace}/runs")


def digest_of(path: Path) -> str:
    return wire.digest_path(str(path))[0]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that were sent as data."""
    found: list[str] = []
    put = SshTransport.put_verified

    def counted(self: SshTransport, files: dict[str, Path], *rest: object) -> set[str]:
        found.extend(files)
        return put(self, files, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SshTransport, "put_verified", counted)
    return found


# --- once ---------------------------------------------------------------------------------


def test_an_input_lies_on_the_site_by_digest_and_under_its_own_name(
    far: str, zarr: Path, there: Path
) -> None:
    planned = hpcml.plan(hpcml.Job(READ, code=None), site=far, inputs={"x": str(zarr)})
    run = submitted(zarr)

    path = there / "data" / digest_of(zarr) / "t2m.zarr"
    assert planned.where["inputs"] == run.plan.where["inputs"] == {"x": str(path)}
    assert digest_of(path) == digest_of(zarr) == planned.what["inputs"]["x"]
    assert os.readlink(path / "c" / "first") == "0/0"
    marker = wire.read_json(str(there / wire.data_marker(digest_of(zarr), "t2m.zarr")))
    assert marker["stamp"] == wire.stamp_path(str(path))
    assert marker["sha256"] == digest_of(zarr)


def test_a_second_submission_sends_nothing_and_takes_no_more_round_trips(
    far: str, zarr: Path, sent: list[str]
) -> None:
    submitted(zarr)
    assert len(sent) == 22
    sent.clear()

    again = trips(far, lambda: submitted(zarr))
    without = trips(far, lambda: hpcml.submit(hpcml.Job(["true"], code=None), site=far))

    assert sent == []
    assert again == without <= 6


def test_the_same_content_under_another_name_is_not_sent_again(
    far: str, zarr: Path, there: Path, sent: list[str]
) -> None:
    submitted(zarr)
    sent.clear()
    other = zarr.rename(zarr.with_name("2m_temperature.zarr"))
    run = submitted(other)

    path = there / "data" / digest_of(other) / other.name
    assert sent == [] and os.readlink(path) == "t2m.zarr"
    assert run.plan.where["inputs"]["x"] == str(path)
    assert agent_s(run).check() == {"x": digest_of(other)}


def test_files_empty_ones_and_empty_folders_are_inputs(
    far: str, project: Path, there: Path
) -> None:
    (project / "t2m.nc").write_bytes(b"1" * 100)
    (project / "empty").touch()
    (project / "nothing").mkdir()
    names = "t2m.nc", "empty", "nothing"
    job = hpcml.Job(["true"], code=None)
    run = hpcml.submit(job, site=far, inputs={f"i{n}": name for n, name in enumerate(names)})

    for name in names:
        path = there / "data" / digest_of(project / name) / name
        assert digest_of(path) == digest_of(project / name)
    assert len(agent_s(run).check()) == 3


def test_a_link_that_leads_out_of_an_input_is_refused(far: str, zarr: Path) -> None:
    (zarr / "c" / "out").symlink_to("../../elsewhere")

    with pytest.raises(JobError, match=r"inputs\.x.*out is a link that leads out of"):
        submitted(zarr)


# --- an agent believes what is whole ------------------------------------------------------


def test_an_agent_s_look_costs_a_stat_a_file(
    far: str, zarr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(zarr)
    monkeypatch.setattr(wire, "sha256_file", lambda path: pytest.fail(f"{path} is read"))

    assert agent_s(run).check() == {"x": digest_of_tree(run)}


def digest_of_tree(run: hpcml.Run) -> str:
    return str(run.plan.what["inputs"]["x"])


def test_an_agent_believes_no_input_without_its_marker(far: str, zarr: Path, there: Path) -> None:
    run = submitted(zarr)
    (there / wire.data_marker(digest_of(zarr), zarr.name)).unlink()

    with pytest.raises(InputError, match="has not been brought here whole"):
        agent_s(run).check()


def test_an_input_that_was_changed_there_is_found_out(far: str, zarr: Path, there: Path) -> None:
    run = submitted(zarr)
    (there / "data" / digest_of(zarr) / zarr.name / "zarr.json").write_text("[]")

    with pytest.raises(InputError, match="is not what it was"):
        agent_s(run).check()


def test_data_that_was_removed_by_hand_is_brought_again(
    far: str, zarr: Path, there: Path, sent: list[str]
) -> None:
    submitted(zarr)
    subprocess.run(["rm", "-r", there / "data" / digest_of(zarr)], check=True)
    sent.clear()

    assert agent_s(submitted(zarr)).check() == {"x": digest_of(zarr)}
    assert len(sent) == 22


def test_content_that_a_power_loss_took_is_sent_again(far: str, zarr: Path, there: Path) -> None:
    """The names are there, of the right length; the marker is not yet."""
    submitted(zarr)
    (there / wire.data_marker(digest_of(zarr), zarr.name)).unlink()
    lost = there / "data" / digest_of(zarr) / zarr.name / "c" / "0" / "5"
    lost.write_bytes(bytes(lost.stat().st_size))

    assert agent_s(submitted(zarr)).check() == {"x": digest_of(zarr)}
    assert digest_of(there / "data" / digest_of(zarr) / zarr.name) == digest_of(zarr)


# --- sources that change ------------------------------------------------------------------


def test_a_source_that_changes_while_it_is_sent_is_told_and_blocks_nothing(
    far: str, zarr: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = SshTransport.put_verified

    def changing(self: SshTransport, *args: object) -> set[str]:
        (zarr / "c" / "0" / "7").write_bytes(b"8" * 1000)
        return put(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SshTransport, "put_verified", changing)
    with pytest.raises(JobError, match=r"inputs\.x.*c/0/7 has changed"):
        submitted(zarr)
    monkeypatch.setattr(SshTransport, "put_verified", put)

    assert list(outbox_ids()) == []
    assert agent_s(submitted(zarr)).check() == {"x": digest_of(zarr)}


def test_a_file_that_is_cut_short_while_it_is_sent_is_told_and_blocks_nothing(
    far: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = project / "t2m.nc"
    source.write_bytes(b"1" * (5 << 20))
    pieces_of = streams.pieces_of

    def cut(path: str) -> Iterator[bytes]:
        if path.endswith("t2m.nc"):
            os.truncate(source, 1000)
        return pieces_of(path)

    monkeypatch.setattr(streams, "pieces_of", cut)
    with pytest.raises(JobError, match=r"inputs\.x.*has changed"):
        submitted(source)
    monkeypatch.setattr(streams, "pieces_of", pieces_of)

    assert agent_s(submitted(source)).check() == {"x": digest_of(source)}


# --- broken off ---------------------------------------------------------------------------

PRETEND = """
from hpcml import plugins
plugins.BUILT_IN["hpcml.schedulers"] = {"slurm": "tests.contract.pretend:PretendScheduler"}
"""
CLIENT = """
import os, signal
import hpcml
from hpcml.staging import inputs
from hpcml.transports.ssh import SshTransport

inputs.MOST_FILES = 5

def die(*args, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)

def dies(name, calls=1, *, after=False, only=lambda args: True):
    method, left = getattr(SshTransport, name), [calls]
    def hooked(self, *args, **keywords):
        left[0] -= bool(only(args))
        if left[0] == 0 and only(args):
            if after:
                method(self, *args, **keywords)
            die()
        return method(self, *args, **keywords)
    setattr(SshTransport, name, hooked)

def of_marker(args):
    return any(".whole/" in path for path in args[0])
"""
SUBMIT = """
hpcml.submit(hpcml.Job(["cat", "{inputs.x}"], code=None), site="far", inputs={"x": "t2m.zarr"})
"""


@pytest.mark.parametrize(
    ("hook", "arrived"),
    [
        pytest.param("dies('walk')", 0, id="before-it-looks-what-is-there"),
        pytest.param("dies('link')", 0, id="before-the-links"),
        pytest.param("dies('put_verified')", 0, id="before-the-first-file"),
        pytest.param("dies('put_verified', 3)", 10, id="half-way"),
        pytest.param("dies('digest')", 22, id="before-it-is-verified"),
        pytest.param("dies('digest', after=True)", 22, id="verified"),
        pytest.param("dies('put', only=of_marker)", 22, id="before-the-marker"),
        pytest.param("dies('put', only=of_marker, after=True)", 22, id="marked"),
        pytest.param("dies('publish')", 22, id="before-the-batch-appears"),
    ],
)
def test_killed_while_it_stages_the_next_submission_goes_on(
    far: str,
    zarr: Path,
    there: Path,
    project: Path,
    hook: str,
    arrived: int,
    sent: list[str],
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = another_python(PRETEND + CLIENT + hook + SUBMIT, cwd=project)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = wire.data_marker(digest_of(zarr), zarr.name)
    if (there / whole).exists():
        assert digest_of(there / "data" / digest_of(zarr) / zarr.name) == digest_of(zarr)

    run = submitted(zarr)

    assert len(sent) == 22 - arrived
    assert (there / whole).exists()
    assert agent_s(run).check() == {"x": digest_of(zarr)}


def test_a_submission_whose_input_is_gone_by_then_is_not_resumed(
    far: str,
    zarr: Path,
    there: Path,
    project: Path,
    another_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = another_python(PRETEND + CLIENT + "dies('publish')" + SUBMIT, cwd=project)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (batch,) = outbox_ids()
    subprocess.run(["rm", "-r", there / "data"], check=True)

    with pytest.raises(JobError, match=r"inputs\.x.*is not on far any more, or was changed"):
        submission.resume(batch, far)


def test_a_connection_that_is_lost_half_way_costs_what_was_under_way(
    far: str, zarr: Path, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    monkeypatch.setattr(staging, "MOST_FILES", 5)
    put = SshTransport.put_verified

    def lost(self: SshTransport, *args: object) -> set[str]:
        if len(sent) == 10:
            self.close()
        return put(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SshTransport, "put_verified", lost)
    with pytest.raises(TransportError) as caught:
        submitted(zarr)
    monkeypatch.setattr(SshTransport, "put_verified", put)

    assert any("is not sent again" in note for note in caught.value.__notes__)
    assert agent_s(submitted(zarr)).check() == {"x": digest_of(zarr)}


def test_two_clients_at_once_do_each_other_no_harm(
    far: str, zarr: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MOST_FILES", 1)
    files = connect(far).files
    one = staging.Input("inputs.x", digest_of(zarr), zarr.name)
    errors: list[BaseException] = []

    def stage() -> None:
        try:
            staging.stage(one, zarr, files)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=stage) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert agent_s(submitted(zarr)).check() == {"x": digest_of(zarr)}
    assert [name for name in os.listdir(there / "data") if name.startswith(".tmp-")] == []


# --- somebody writes to it there ----------------------------------------------------------


def on_site(run: hpcml.Run, script: str) -> int:
    """What a command of the site's user ends with, in the folder of an input."""
    folder = posixpath.dirname(run.plan.where["inputs"]["x"])
    return connect(run.site).files.run(["/bin/sh", "-c", script, folder]).exit_code


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param('echo x >> "$0"/t2m.zarr/zarr.json', id="written-to"),
        pytest.param('echo x > "$0"/t2m.zarr/c/0/new', id="added-to"),
        pytest.param('rm "$0"/t2m.zarr/c/0/7', id="removed"),
        pytest.param('sed -i s/0/1/ "$0"/t2m.zarr/c/0/7', id="replaced"),
        pytest.param('mv "$0"/t2m.zarr "$0"/other', id="renamed"),
    ],
)
def test_a_job_cannot_change_its_input(far: str, zarr: Path, spoil: str) -> None:
    run = submitted(zarr)

    assert on_site(run, spoil) != 0
    assert agent_s(run).check() == {"x": digest_of(zarr)}


JSON = 'f="$0"/t2m.zarr/zarr.json; chmod u+w "$f"; '
SPOILT = [
    pytest.param(JSON + 'echo x > "$f"', 1, id="longer"),
    pytest.param(JSON + 'echo [ | tr "\\n" ] > "$f"', 1, id="as-long"),
    pytest.param('chmod u+w "$0"/t2m.zarr/c/0; rm -f "$0"/t2m.zarr/c/0/7', 1, id="removed"),
    pytest.param('chmod u+w "$0"/t2m.zarr; touch "$0"/t2m.zarr/more', 0, id="added"),
    pytest.param('chmod u+x "$0"/t2m.zarr/zarr.json', 22, id="made-executable"),
    pytest.param('chmod -R u+w "$0"; rm -rf "$0"/t2m.zarr; mkdir "$0"/t2m.zarr', 22, id="all"),
]


@pytest.mark.parametrize(("spoil", "bad"), SPOILT)
def test_what_somebody_has_changed_of_an_input_there_is_brought_anew(
    far: str, zarr: Path, there: Path, sent: list[str], spoil: str, bad: int
) -> None:
    run = submitted(zarr)
    assert on_site(run, spoil) == 0
    with pytest.raises(InputError):
        agent_s(run).check()
    sent.clear()

    again = submitted(zarr)

    assert len(sent) == bad
    assert agent_s(again).check() == agent_s(run).check() == {"x": digest_of(zarr)}
    digest = digest_of(zarr)
    assert {*os.listdir(there / "data")} == {digest, f"{digest}.whole"}
    assert os.listdir(there / "data" / digest) == ["t2m.zarr"]


def test_what_nobody_has_changed_of_an_input_stays_where_runs_may_be_reading_it(
    far: str, zarr: Path, there: Path
) -> None:
    run = submitted(zarr)
    path = there / "data" / digest_of(zarr) / zarr.name
    assert on_site(run, JSON + 'echo x > "$f"') == 0
    before = {file: file.stat().st_ino for file in (path / "c").rglob("*")}

    submitted(zarr)

    assert {file: file.stat().st_ino for file in (path / "c").rglob("*")} == before


def test_what_another_client_has_brought_anew_meanwhile_is_not_taken_away(
    far: str, zarr: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found it changed; one of them has mended it before the other one had read it."""
    assert on_site(submitted(zarr), 'f="$0"/t2m.zarr/zarr.json; chmod u+w "$f"; echo >> "$f"') == 0
    sent.clear()
    digest, others = SshTransport.digest, []

    def late(self: SshTransport, paths: Iterable[str]) -> dict[str, Digest]:
        found = digest(self, paths)
        monkeypatch.setattr(SshTransport, "digest", digest)
        others.append(submitted(zarr))
        return found

    monkeypatch.setattr(SshTransport, "digest", late)
    run = submitted(zarr)

    assert len(sent) == 1
    assert agent_s(others[0]).check() == agent_s(run).check() == {"x": digest_of(zarr)}


def test_an_input_that_has_only_got_other_times_is_read_there_and_not_sent_again(
    far: str, zarr: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_site(submitted(zarr), 'touch "$0"/t2m.zarr/zarr.json') == 0
    sent.clear()
    run = submitted(zarr)

    monkeypatch.setattr(wire, "sha256_file", lambda path: pytest.fail(f"{path} is read"))
    assert agent_s(run).check() == {"x": digest_of_tree(run)}
    assert sent == []


# --- no room ------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("limit", ["size=20k", "nr_inodes=12"])
def test_a_full_disk_and_spent_inodes_are_told_and_block_nothing(
    far: str, zarr: Path, there: Path, limit: str
) -> None:
    owner = there.stat()
    (there / "data").mkdir(mode=0o700)
    small = f"{limit},mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", small, "hpcml-test", there / "data"], check=True)
    try:
        with pytest.raises(TransportError, match="No space left") as caught:
            submitted(zarr)
        assert "inodes" in caught.value.advice
        more = f"remount,size=10m,nr_inodes=100,{small.partition(',')[2]}"
        subprocess.run(["mount", "-o", more, there / "data"], check=True)

        assert agent_s(submitted(zarr)).check() == {"x": digest_of(zarr)}
    finally:
        subprocess.run(["umount", "--lazy", there / "data"], check=True)


# --- pruning ------------------------------------------------------------------------------


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many days go by, on the site."""

    def go_by(days: float) -> None:
        monkeypatch.setattr(SshTransport, "now", lambda self: time.time() + days * 86400)

    return go_by


def items(pruning: Pruning) -> dict[str, str]:
    return {item.name: item.kind for item in pruning.items if item.kind in ("data", "leftover")}


def test_an_input_that_nobody_names_is_freed_and_one_in_use_stays(
    far: str, zarr: Path, there: Path, project: Path, later: Callable[[float], None]
) -> None:
    run = submitted(zarr)
    (project / "old.nc").write_bytes(b"1" * 100_000)
    old = staging.Input("inputs.x", digest_of(project / "old.nc"), "old.nc")
    staging.stage(old, project / "old.nc", connect(far).files)
    assert items(hpcml.prune(far)) == {}
    later(40)

    found = hpcml.prune(far)
    assert items(found) == {old.digest: "data"}
    (why,) = [kept.why for kept in found.kept if kept.kind == "data"]
    assert why == f"{batch_of(run.id)} was made with it"
    done = found.apply()

    assert items(done) == {old.digest: "data"}
    assert {*os.listdir(there / "data")} == {digest_of(zarr), f"{digest_of(zarr)}.whole"}
    assert agent_s(run).check() == {"x": digest_of(zarr)}


def test_a_half_staged_input_is_a_leftover_unless_somebody_goes_on_with_it(
    far: str, zarr: Path, there: Path, later: Callable[[float], None]
) -> None:
    files = connect(far).files
    folder = f"data/{digest_of(zarr)}"
    files.put({f"{folder}/{zarr.name}/zarr.json": b"{}"})
    assert items(hpcml.prune(far)) == {}
    later(2)
    found = hpcml.prune(far)
    assert items(found) == {digest_of(zarr): "leftover"}
    later(0)
    files.touch([folder])

    assert items(found.apply()) == {}
    later(2)
    assert items(hpcml.prune(far).apply()) == {digest_of(zarr): "leftover"}
    assert os.listdir(there / "data") == []


# --- images -------------------------------------------------------------------------------


@pytest.fixture
def image(project: Path) -> Path:
    path = project / "python.sif"
    path.write_bytes(b"1" * 1000)
    return path


def contained(image: Path) -> hpcml.Run:
    return hpcml.submit(hpcml.Job(["true"], code=None, image=str(image)), site="far")


def test_an_image_goes_there_once_by_digest_and_is_read_only(
    far: str, image: Path, there: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second submission costs no more than one without an image: it is read by nobody."""
    planned = hpcml.plan(hpcml.Job(["true"], code=None, image="python.sif"), site=far)
    run = contained(image)
    path = there / "data" / digest_of(image) / "python.sif"

    assert planned.where["image"] == run.plan.where["image"] == str(path)
    assert path.read_bytes() == b"1" * 1000
    assert path.stat().st_mode & 0o777 == 0o400
    assert len(sent) == 1
    monkeypatch.setattr(SshTransport, "digest", lambda *_: pytest.fail("it is read there"))
    assert trips(far, lambda: contained(image)) <= 6
    assert len(sent) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: os.truncate(path, 10), id="cut-short"),
        pytest.param(lambda path: path.write_bytes(b"2" * 1000), id="of-the-same-size"),
    ],
)
def test_an_image_that_is_not_what_it_was_there_starts_no_run_and_is_brought_anew(
    far: str, image: Path, there: Path, spoil: Callable[[Path], None]
) -> None:
    run = contained(image)
    path = there / "data" / digest_of(image) / "python.sif"
    assert agent_s(run).check() == {}
    spoil(path)
    with pytest.raises(InputError, match=r"the image: .*python\.sif is not what it was"):
        agent_s(run).check()

    again = contained(image)

    assert path.read_bytes() == b"1" * 1000
    assert agent_s(again).check() == agent_s(run).check() == {}


def test_an_image_that_is_gone_by_then_is_not_resumed(
    far: str, image: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise TransportError("the connection broke off", "Again.")

    with monkeypatch.context() as patch, pytest.raises(TransportError):
        patch.setattr(submission, "publish", lost)
        contained(image)
    (batch,) = outbox_ids()
    subprocess.run(["rm", "-r", there / "data"], check=True)

    with pytest.raises(JobError, match=r"image.*is not on far any more, or was changed"):
        submission.resume(batch, far)


def test_an_image_that_an_older_plan_has_elsewhere_is_left_to_its_own_agent(
    far: str, image: Path
) -> None:
    plan = contained(image).plan
    where = {name: value for name, value in plan.where.items() if name != "image_stamp"}
    where["image"] = f"{where['workspace']}/images/{digest_of(image)}.sif"

    assert [one.field for one in staging.staged(plan)] == ["image"]
    assert staging.staged(replace(plan, where=where)) == []


def test_an_image_that_no_run_needs_any_more_is_freed(
    far: str, project: Path, there: Path, later: Callable[[float], None]
) -> None:
    for name in ("used", "old"):
        (project / name).write_text(name)
    run = contained(project / "used")
    old = staging.Input("image", digest_of(project / "old"), "old")
    staging.stage(old, project / "old", connect(far).files)
    assert items(hpcml.prune(far)) == {}
    later(40)

    done = hpcml.prune(far).apply()

    assert items(done) == {old.digest: "data"}
    assert agent_s(run).check() == {}


# --- coming back --------------------------------------------------------------------------


@pytest.fixture
def left(far: str, there: Path) -> tuple[hpcml.Run, Path]:
    """A run, and its folder, in which it has left a tree."""
    run = hpcml.submit(hpcml.Job(["true"], code=None), site=far)
    folder = there / "runs" / batch_of(run.id) / "0"
    for number in range(30):
        path = folder / "work" / "out.zarr" / "c" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    (folder / "work" / "latest").symlink_to("out.zarr/c/29")
    (folder / "stdout").write_text("hello")
    return run, folder


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that were fetched."""
    found: list[str] = []
    fetch = SshTransport.fetch

    def counted(self: SshTransport, files: dict[str, Path]) -> None:
        found.extend(files)
        fetch(self, files)

    monkeypatch.setattr(SshTransport, "fetch", counted)
    return found


def test_a_tree_comes_back_in_two_round_trips_and_once(
    left: tuple[hpcml.Run, Path], far: str, tmp_path: Path, came: list[str]
) -> None:
    run, folder = left
    run.files()  # the plan is known then
    assert trips(far, lambda: run.fetch(tmp_path / "got")) == 2
    assert len(came) == 31
    assert trips(far, lambda: run.fetch(tmp_path / "got")) == 1
    assert len(came) == 31

    copy = tmp_path / "got" / "out.zarr" / "c" / "7"
    assert copy.stat().st_mtime_ns == (folder / "work/out.zarr/c/7").stat().st_mtime_ns
    assert (tmp_path / "got" / "latest").read_text() == "29"
    assert (tmp_path / "got" / f"{run.id}.stdout").read_text() == "hello"


def test_what_has_changed_on_the_site_or_here_comes_again(
    left: tuple[hpcml.Run, Path], tmp_path: Path, came: list[str]
) -> None:
    run, folder = left
    run.fetch(tmp_path / "got")
    came.clear()
    (folder / "work/out.zarr/c/7").write_text("x")
    (tmp_path / "got/out.zarr/c/8").write_text("spoilt")
    (tmp_path / "got/out.zarr/c/9").unlink()

    run.fetch(tmp_path / "got")

    assert sorted(path[-1] for path in came) == ["7", "8", "9"]
    read = [(tmp_path / "got/out.zarr/c" / number).read_text() for number in "789"]
    assert read == ["x", "8", "9"]


def test_what_came_before_a_connection_was_lost_is_whole_and_does_not_come_again(
    left: tuple[hpcml.Run, Path], far: str, tmp_path: Path, came: list[str]
) -> None:
    run, folder = left
    big = folder / "work" / "out.zarr" / "zzz"
    with big.open("wb") as file:
        file.truncate(4 << 40)  # it has no blocks, and takes hours to come
    got, errors = tmp_path / "got", []

    def fetch() -> None:
        try:
            with connect(far).files.holding():  # else it would go on over another connection
                run.fetch(got)
        except TransportError as error:
            errors.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    eventually(lambda: any(path.stat().st_size for path in got.rglob(".tmp-*")))
    ssh_of(far).close()
    thread.join()
    assert len(errors) == 1 and not list(got.rglob(".tmp-*"))
    before = {path.name for path in got.rglob("*") if path.is_file()}
    assert all(path.read_text() == path.name for path in (got / "out.zarr/c").iterdir())
    os.truncate(big, 3)
    came.clear()

    run.fetch(got)

    assert (got / "out.zarr" / "zzz").stat().st_size == 3
    assert not before & {posixpath.basename(path) for path in came}


def test_what_two_runs_have_left_does_not_go_into_one_folder(
    left: tuple[hpcml.Run, Path], far: str, tmp_path: Path, came: list[str]
) -> None:
    run, _ = left
    run.fetch(tmp_path / "got")
    came.clear()
    other = hpcml.submit(hpcml.Job(["true"], code=None), site=far)

    with pytest.raises(HpcmlError, match=f"holds what {run.id} has left") as caught:
        other.fetch(tmp_path / "got")
    assert str(tmp_path / "got" / other.id) in caught.value.advice
    run.fetch(tmp_path / "got")
    assert came == []


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "a//b", ".", "a/."])
def test_no_name_from_a_site_leads_out_of_the_folder(
    left: tuple[hpcml.Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run, _ = left
    walk = SshTransport.walk

    def hostile(self: SshTransport, paths: list[str]) -> dict[str, dict[str, FileStatus]]:
        entry = FileStatus(f"work/{name}", 1, 0.0, "file")
        return {path: {**found, entry.name: entry} for path, found in walk(self, paths).items()}

    monkeypatch.setattr(SshTransport, "walk", hostile)
    with pytest.raises(TransportError, match="which leads elsewhere"):
        run.fetch(tmp_path / "deep" / "got")
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"got"}


def test_nothing_is_written_through_a_link(left: tuple[hpcml.Run, Path], tmp_path: Path) -> None:
    """A run leaves a link at first, and a folder in its place later."""
    run, _ = left
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "out.zarr").symlink_to(mine)

    with pytest.raises(HpcmlError, match=r"out\.zarr is a link, and a folder on the site"):
        run.fetch(tmp_path / "got")
    assert list(mine.iterdir()) == []


def test_a_link_that_leads_out_brings_what_it_leads_to(
    left: tuple[hpcml.Run, Path], there: Path, tmp_path: Path
) -> None:
    run, folder = left
    (there / "elsewhere" / "deep").mkdir(parents=True)
    (there / "elsewhere" / "deep" / "file").write_text("1")
    for name, target in (
        ("absolute", str(there / "elsewhere/deep/file")),
        ("up", "../../../../elsewhere"),
        ("sly", "out.zarr/c/../../../../../../elsewhere/deep/file"),
        ("broken", "no/where/../.."),
    ):
        (folder / "work" / name).symlink_to(target)

    got = run.fetch(tmp_path / "got")

    assert [(got / name).read_text() for name in ("absolute", "sly", "up/deep/file")] == ["1"] * 3
    assert not [path for path in got.rglob("*") if path.is_symlink() and path.name != "latest"]
