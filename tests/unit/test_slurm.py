"""What Slurm's commands are asked and what their answers mean, without a Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hpcml.agent import wire
from hpcml.agent.files import Files
from hpcml.documents import check_model
from hpcml.errors import QueueError, TransportError, UnreachableError
from hpcml.layout import Layout
from hpcml.schedulers import Accounted, Chunk, Word
from hpcml.schedulers.slurm import SlurmScheduler, accounting, commands, words
from hpcml.schedulers.slurm.commands import Row, Trouble
from hpcml.schedulers.slurm.dependencies import dependencies
from hpcml.schedulers.slurm.pacing import BackOff, Bucket
from hpcml.settings import Binding
from hpcml.sites import Node, Partition, Site
from hpcml.states import State
from hpcml.transports import Completed
from hpcml.transports.local import LocalTransport

BATCH = "20261121-141502-k3f9a2"
NAME = f"hpcml-{BATCH}-0"


def chunk(count: int = 10, *, first: int = 0, k: int = 0, layout: Layout | None = None) -> Chunk:
    shared = layout or Layout(1, 1, 1000)
    return Chunk(f"{BATCH}.{k}", f"runs/{BATCH}", first, count, shared, id="5")


# --- ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "job", "tasks", "waiting"),
    [
        ("7", "7", [0], False),
        ("123_5", "123", [5], False),
        ("123_[5-8]", "123", [5, 6, 7, 8], True),
        ("123_[5-100%10]", "123", list(range(5, 101)), True),
        ("123_[0,3-4,9%2]", "123", [0, 3, 4, 9], True),
        ("123_[0-10:5]", "123", [0, 5, 10], True),
    ],
)
def test_ids_of_arrays_are_read_in_all_forms(
    text: str, job: str, tasks: list[int], waiting: bool
) -> None:
    found, spans, waits = commands.parse_id(text)
    assert (found, [task for span in spans for task in span], waits) == (job, tasks, waiting)


def test_tasks_are_written_as_slurm_reads_them() -> None:
    assert commands.several("5", [0, 3, 4, 5, 9]) == "5_[0,3-5,9]"


def test_runs_are_shared_out_to_tasks_and_found_again() -> None:
    some = chunk(25, first=100, layout=Layout(10, 2, 1000))
    assert commands.allocations(some) == 3
    assert [commands.runs_of(some, task) for task in range(3)] == [
        range(100, 110),
        range(110, 120),
        range(120, 125),
    ]
    assert [commands.task_of(some, index) for index in (100, 109, 110, 124)] == [0, 0, 1, 2]


# --- what is asked --------------------------------------------------------------------------


def test_sbatch_names_the_job_throttles_it_and_gives_no_environment_along() -> None:
    some = Chunk(f"{BATCH}.3", f"runs/{BATCH}", 20, 10, Layout(4, 2, 100), max_running=5)
    argv = commands.sbatch(some, "/ws/runs/b", ["afterok:7_1"])

    assert f"--job-name=hpcml-{BATCH}-3" in argv
    assert "--array=0-2%2" in argv
    assert "--export=ALL" in argv
    assert "--dependency=afterok:7_1" in argv and "--kill-on-invalid-dep=yes" in argv
    assert argv[-3:] == ["/ws/runs/b/job.sh", "20", "10"]


def test_a_throttle_lets_at_least_one_allocation_run() -> None:
    some = Chunk(f"{BATCH}.0", f"runs/{BATCH}", 0, 8, Layout(4, 4, 100), max_running=2)
    assert "--array=0-1%1" in commands.sbatch(some, "/b", [])


def test_commands_find_nothing_of_slurm_in_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_HOLD", "SQUEUE_FORMAT", "SACCT_FORMAT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/our slurm.conf")

    _, printed, _ = Files(str(tmp_path / "ws")).run(["env"], b"")

    names = {line.partition("=")[0] for line in printed.decode().splitlines()}
    assert names >= {"PATH", "HOME", "SLURM_CONF", "SLURM_BITSTR_LEN"}
    assert not names & {"SLURM_JOB_ID", "SBATCH_HOLD", "SQUEUE_FORMAT", "SACCT_FORMAT"}
    assert "SLURM_CONF=/etc/our slurm.conf" in printed.decode()


def test_commands_get_the_libraries_of_the_login_shell_that_finds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/other/lib")
    monkeypatch.setenv("HPCML_LD_LIBRARY_PATH", "/opt/slurm/lib")
    _, printed, _ = Files(str(tmp_path)).run(["env"], b"")

    assert b"LD_LIBRARY_PATH=/opt/slurm/lib" in printed.splitlines()
    assert b"HPCML_LD_LIBRARY_PATH" not in printed


# --- what is answered -----------------------------------------------------------------------


def test_squeue_is_read_and_what_is_no_row_is_passed_over() -> None:
    rows = list(
        commands.parse_squeue(
            "Quota: 12 % of your budget is left.\n"
            "5_[2-4%2]|PENDING|JobArrayTaskLimit|hpcml-b-0\n"
            "5_0|RUNNING|None|hpcml-b-0\n"
            "6|PENDING|Priority|a|name|with|bars\n"
        )
    )
    assert rows[0] == Row(
        "5", (range(2, 5),), "PENDING", "JobArrayTaskLimit", "hpcml-b-0", waiting=True
    )
    assert list(rows[1]) == [0]
    assert rows[2].name == "a|name|with|bars"


def test_sacct_is_read_with_who_cancelled_it_and_tasks_that_never_began() -> None:
    rows = list(
        commands.parse_sacct(
            "5_0|CANCELLED by 2001|0:15|None|1795296699|a|b\n"
            "13_[0-1]|CANCELLED|0:0|None|Unknown|x\n"
        )
    )
    assert (rows[0].state, rows[0].by, rows[0].signal) == ("CANCELLED", "2001", 15)
    assert (rows[0].ended, rows[0].name) == (1795296699, "a|b")
    assert (rows[1].waiting, list(rows[1]), rows[1].ended) == (True, [0, 1], None)


def test_scontrol_is_read() -> None:
    text = (
        "JobId=10 ArrayJobId=5 ArrayTaskId=1 JobName=x JobState=NODE_FAIL Reason=NodeDown "
        "ExitCode=0:0 EndTime=1795296699 Command=/a b\n"
        "JobId=5 ArrayJobId=5 ArrayTaskId=2-9%2 JobName=x JobState=PENDING Reason=Resources\n"
    )
    first, rest = commands.parse_scontrol(text)
    assert (first.job, list(first), first.state, first.waiting) == ("5", [1], "NODE_FAIL", False)
    assert (list(rest), rest.waiting) == (list(range(2, 10)), True)


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("Batch job submission failed: Socket timed out on send/recv operation", Trouble.LOST),
        ("Batch job submission failed: Message receive failure", Trouble.LOST),
        ("Batch job submission failed: Connection timed out", Trouble.LOST),
        (
            "auth_g_verify: RESPONSE_SUBMIT_BATCH_JOB has authentication error: it expired\n"
            "Batch job submission failed: Protocol authentication error",
            Trouble.LOST,
        ),
        ("Batch job submission failed: Protocol authentication error", Trouble.BUSY),
        ("Slurm temporarily unable to accept job, sleeping and retrying", Trouble.BUSY),
        ("Unable to contact slurm controller (connect failure)", Trouble.BUSY),
        ("Batch job submission failed: Job dependency problem", Trouble.DEPENDENCY),
        ("Slurm accounting storage is disabled", Trouble.DISABLED),
        ("Kill job error on job id 5: Invalid job id specified", Trouble.GONE),
        ("Invalid account or account/partition combination specified", Trouble.REFUSED),
        ("AssocMaxSubmitJobLimit", Trouble.LATER),
        ("QOSGrpSubmitJobsLimit", Trouble.LATER),
        (
            "Batch job submission failed: Required partition not available (inactive or drain)",
            Trouble.LATER,
        ),
    ],
)
def test_only_known_errors_are_taken_for_passing_ones(said: str, meaning: Trouble) -> None:
    assert commands.trouble(said) is meaning


NODE = Node(cpus=8, memory="16 GiB")
PARTITIONS = {
    "cpu": Partition(nodes=2, time="1d", node=NODE),
    "whole": Partition(nodes=2, time="1d", node=NODE, node_sharing="exclusive"),
}


def accounted(*lines: str) -> dict[int, list[Accounted]]:
    """What rows of sacct say of the tasks of the array ``a``."""
    found = accounting.parse("\n".join(lines), PARTITIONS)
    return {task: lives for (name, task), lives in found.items() if name == "a"}


def test_the_accounting_tells_each_life_of_an_allocation_and_zero_joules_are_not_measured() -> None:
    first, second = accounted(
        "5_0|6|a|cpu|PREEMPTED|0:0|100|101|102|112|10|cpu=4,mem=16000M,node=1|cpu1||0",
        "5_0.batch|6.batch|batch||CANCELLED|0:15|102|102|102|112|10|cpu=8|cpu1|1540K|0",
        "5_0|6|a|whole|COMPLETED|0:0|113|113|120|150|30|"
        "cpu=4,energy=4100,gres/gpu=2,gres/gpu:a100=2,node=1|cpu2||4100",
        "5_0.batch|6.batch|batch||COMPLETED|0:0|120|120|120|150|30|cpu=8|cpu2|2M|4200",
        "5_0.0|6.0|true||COMPLETED|0:0|121|121|121|149|28|cpu=8|cpu2|3M|4100",
    )[0]

    assert (first.state, first.meaning, first.max_rss) == ("PREEMPTED", "PREEMPTED", 1540 << 10)
    assert (first.joules, first.alone) == (None, False)
    assert (second.submitted, second.started, second.ended) == (113, 120, 150)
    assert (second.job, second.elapsed, second.max_rss) == ("6", 30, 3 << 20)
    assert (second.cpus, second.nodes, second.devices, second.hosts) == (4, 1, 2, "cpu2")
    assert (second.joules, second.covered, second.alone) == (4200, 30, True)


# As Slurm 26.05 said of jobs on nodes of 300 W.
ONE_NODE = (
    "4|4|a|cpu|COMPLETED|0:0|1|1|28|38|10|billing=8,cpu=8,energy=1505,mem=16000M,node=1|cpu2||1505",
    "4.batch|4.batch|batch||COMPLETED|0:0|28|28|28|38|10|cpu=8,mem=16000M,node=1|cpu2|12872K|2739",
    "4.0|4.0|sleep||COMPLETED|0:0|31|31|31|36|5|cpu=8,mem=16000M,node=1|cpu2|1740K|1505",
)
TWO_NODES = (
    "1|1|a|cpu|COMPLETED|0:0|1|1|8|19|11|billing=16,cpu=16,energy=3010,node=2|cpu[1-2]||3010",
    "1.batch|1.batch|batch||COMPLETED|0:0|8|8|8|19|11|cpu=8,mem=16000M,node=1|cpu1|12680K|3343",
    "1.0|1.0|sleep||COMPLETED|0:0|11|11|11|16|5|cpu=16,mem=32000M,node=2|cpu[1-2]|1940K|3010",
)


def test_the_energy_of_one_node_is_that_of_the_whole_life_and_not_of_its_steps_alone() -> None:
    (life,) = accounted(*ONE_NODE)[0]
    assert (life.joules, life.covered, life.elapsed, life.alone) == (2739, 10, 10, True)


def test_the_energy_of_several_nodes_is_of_the_time_of_their_steps() -> None:
    (life,) = accounted(*TWO_NODES)[0]
    assert (life.joules, life.covered, life.elapsed, life.hosts) == (3010, 5, 11, "cpu[1-2]")


@pytest.mark.parametrize(
    "step",
    [
        "1.1|1.1|sleep||COMPLETED|0:0|12|12|12|17|5|cpu=8,node=2|cpu[1-2]|1940K|3010",
        "1.1|1.1|sleep||COMPLETED|0:0|17|17|17|18|1|cpu=8,node=1|cpu1|1940K|301",
        "1.1|1.1|sleep||COMPLETED|0:0|17|17|17|18|1|cpu=16,node=2|cpu[1-2]|1940K|0",
    ],
)
def test_steps_that_count_twice_or_not_all_nodes_or_that_were_not_measured_give_no_energy(
    step: str,
) -> None:
    (life,) = accounted(*TWO_NODES, step)[0]
    assert (life.joules, life.covered) == (None, 0)


def test_tasks_that_never_began_and_other_jobs_of_the_same_number_are_told_apart() -> None:
    found = accounted(
        "5_[1-2]|5|a|cpu|CANCELLED by 1000|0:0|100|Unknown|Unknown|200|0||None assigned||",
        "5_1|5|an older one|cpu|COMPLETED|0:0|1|1|1|2|1|cpu=8,node=1|cpu2||",
        "slurm_load_jobs error: it is no row",
    )
    assert found[1] == found[2]
    (life,) = found[1]
    assert (life.meaning, life.hosts, life.started, life.max_rss) == ("CANCELLED", "", None, None)


def row(name: str, task: int) -> str:
    return f"5_{task}|7|{name}|cpu|COMPLETED|0:0|1|1|2|3|1|cpu=8,node=1|cpu1||\n"


def test_one_query_tells_of_the_allocations_of_all_chunks_and_of_who_shared_them(
    queue: SlurmScheduler,
) -> None:
    layout = Layout(2, 1, 1000)
    chunks = [chunk(5, layout=layout), chunk(5, first=5, k=1, layout=layout)]
    names = [commands.job_name(it.name) for it in chunks]
    files = answering(queue, sacct=answer(row(names[0], 0) + row(names[1], 2)))
    found = queue.facts(chunks)

    assert files.asked == ["sacct"] and found is not None
    runs = {name: {index: it[0].runs for index, it in of.items()} for name, of in found.items()}
    assert runs == {chunks[0].name: {0: 2, 1: 2}, chunks[1].name: {9: 1}}


def test_a_site_without_accounting_keeps_none_and_one_that_is_silent_is_no_answer(
    queue: SlurmScheduler,
) -> None:
    one = chunk(1)
    off = answer(stderr="Slurm accounting storage is disabled", code=1)
    for nothing in (off, answer(stderr="sacct: not found", code=127)):
        answering(queue, sacct=nothing)
        assert queue.facts([one]) is None
    answering(queue, sacct=answer(stderr="Connection refused", code=1))
    with pytest.raises(QueueError):
        queue.facts([one])
    assert queue.facts([replace(one, id=None)]) == {}


# --- in words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason", "says"),
    [
        ("PENDING", "Priority", "waits for its turn (Priority)"),
        ("PENDING", "JobHeldUser", "held by you (JobHeldUser): scontrol release"),
        ("PENDING", "AssocMaxJobsLimit", "its account may have no more jobs at once"),
        ("PENDING", "QOSMaxCpuPerUserLimit", "its quality of service has reached a limit"),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:cpu1", "nodes that it needs are down"),
        ("PENDING", "SomethingNew", "waits (SomethingNew)"),
        ("PENDING", "None", "waits (nothing said yet)"),
        ("CONFIGURING", "None", "its nodes are being prepared"),
    ],
)
def test_why_a_job_waits_is_told_in_words(state: str, reason: str, says: str) -> None:
    word = words.of_live(state, reason)
    assert word is not None
    assert word.state is State.PENDING and word.reason.startswith(says)


def test_states_of_what_has_ended_are_no_live_ones() -> None:
    assert words.of_live("COMPLETED", "None") is None
    assert words.of_live("RUNNING", "None") == Word(State.RUNNING)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("CANCELLED", "CANCELLED"),
        ("TIMEOUT", "TIMEOUT"),
        ("DEADLINE", "TIMEOUT"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("PREEMPTED", "PREEMPTED"),
        ("NODE_FAIL", "NODE_FAIL"),
        ("BOOT_FAIL", "NODE_FAIL"),
        ("FAILED", "FAILED"),
    ],
)
def test_final_states_are_slurm_s_also_of_runs_that_never_began(state: str, expected: str) -> None:
    row = Row("5", (range(1),), state, exit_code=1)
    for started in (True, False):
        word = words.of_ended(row, started)
        assert word is not None and word.state == expected


def test_an_allocation_that_ended_well_before_a_run_began_did_not_complete_it() -> None:
    word = words.of_ended(Row("5", (range(1),), "COMPLETED"), started=False)
    assert word == Word(State.FAILED, "its allocation ended before it began: exit code 0")


def test_of_what_still_waits_or_is_requeued_nothing_final_is_said() -> None:
    for state in ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "UNHEARD_OF"):
        assert words.of_ended(Row("5", (range(1),), state), started=True) is None


# --- pacing ---------------------------------------------------------------------------------


def test_a_few_calls_go_at_once_and_many_are_spread_out() -> None:
    now, slept = [0.0], list[float]()
    bucket = Bucket(3, 2.0, clock=lambda: now[0], sleep=slept.append)
    for _ in range(5):
        bucket.take()
    assert slept == [0.5, 1.0]

    now[0] += 60
    bucket.take()
    assert len(slept) == 2, "it is full again"


def test_what_nobody_can_say_is_asked_ever_more_rarely() -> None:
    now = [0.0]
    again = BackOff(1.0, 4.0, clock=lambda: now[0])
    asked = []
    while now[0] < 16:
        if again.is_due("x"):
            asked.append(now[0])
            again.failed("x")
        now[0] += 1
    assert asked == [0.0, 1.0, 3.0, 7.0, 11.0, 15.0]
    again.answered("x")
    assert again.is_due("x")


# --- a queue whose answers are given --------------------------------------------------------


class Answering(LocalTransport):
    """The files of this machine; Slurm's commands answer what they are told to."""

    def answer(self, **answers: Completed | Sequence[Completed]) -> None:
        self.answers = {
            name: [it] if isinstance(it, Completed) else list(it) for name, it in answers.items()
        }
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        command = argv[0]
        self.asked.append(command)
        left = self.answers[command]
        done = left.pop(0) if len(left) > 1 else left[0]
        return Completed(tuple(argv), done.exit_code, done.stdout, done.stderr)


def answer(stdout: str = "", stderr: str = "", code: int = 0) -> Completed:
    return Completed((), code, stdout.encode(), stderr.encode())


def refusal(said: str) -> Completed:
    return answer(stderr=f"sbatch: error: {said}\n", code=1)


@pytest.fixture
def queue(tmp_path: Path) -> SlurmScheduler:
    """A scheduler of a workspace in which the batch is."""
    workspace = tmp_path / "ws"
    (workspace / "runs" / BATCH / "attempts").mkdir(parents=True, mode=0o700)
    workspace.chmod(0o700)
    node = {"device": "cpu", "cpus": 8, "memory": "16 GiB"}
    partitions = {"cpu": {"nodes": 2, "time": "1d", "node": node}}
    said = {"name": "box", "scheduler": "slurm", "transport": "local", "partitions": partitions}
    site = check_model(Site, said, {}, "box.yaml")
    binding = Binding(str(workspace), "python3", "python3", "hpcml.pyz")
    made = SlurmScheduler(site, binding, Answering(site, binding))
    made.patience = 20.0  # an attempt of now may have ended so long ago by a clock that is wrong
    return made


def answering(queue: SlurmScheduler, **answers: Completed | Sequence[Completed]) -> Answering:
    files = queue.files
    assert isinstance(files, Answering)
    files.answer(**answers)
    return files


def test_a_queue_that_was_busy_is_asked_again_and_no_more_than_thrice(
    queue: SlurmScheduler,
) -> None:
    busy = refusal("Batch job submission failed: Resource temporarily unavailable")
    files = answering(queue, sbatch=[busy, answer("77\n")])
    assert queue.submit([chunk()]) == ["77"]
    assert files.asked == ["sbatch"] * 2

    files = answering(queue, sbatch=busy)
    with pytest.raises(QueueError, match="temporarily unavailable"):
        queue.submit([chunk()])
    assert files.asked == ["sbatch"] * 3


def test_a_refusal_is_not_tried_again(queue: SlurmScheduler) -> None:
    files = answering(queue, sbatch=refusal("Batch job submission failed: Invalid qos"))
    with pytest.raises(QueueError, match="Invalid qos"):
        queue.submit([chunk()])
    assert files.asked == ["sbatch"]


def test_a_lost_reply_is_looked_for_by_name_and_never_taken_for_a_refusal(
    queue: SlurmScheduler,
) -> None:
    lost = refusal("Batch job submission failed: Socket timed out on send/recv operation")
    there = answer(f"88_[0-9]|PENDING|None|hpcml-{BATCH}-0\n")
    files = answering(queue, sbatch=lost, squeue=there)
    assert queue.submit([chunk()]) == ["88"]
    assert files.asked == ["sbatch", "squeue"]

    down = answer(stderr="squeue: error: Unable to contact slurm controller", code=1)
    answering(queue, sbatch=lost, squeue=down)
    with pytest.raises(TransportError, match="is not known"):
        queue.submit([chunk()])


def test_what_the_controller_has_forgotten_is_found_in_the_accounting(
    queue: SlurmScheduler,
) -> None:
    old = answer(f"88_0|hpcml-{BATCH}-0\n88_1|hpcml-{BATCH}-0\n")
    answering(queue, squeue=answer(), sacct=old)
    assert queue.find([f"{BATCH}.0", f"{BATCH}.1"]) == {f"{BATCH}.0": "88"}


def test_a_queue_that_cannot_answer_is_no_answer(queue: SlurmScheduler) -> None:
    down = answer(stderr="Unable to contact slurm controller", code=1)
    answering(queue, squeue=down, sacct=down)
    with pytest.raises(QueueError):
        queue.find([f"{BATCH}.0"])
    with pytest.raises(QueueError):
        queue.poll([chunk()])
    answering(queue, squeue=answer(), sacct=down)
    with pytest.raises(QueueError):
        queue.find([f"{BATCH}.0"])


def test_one_query_tells_of_all_chunks(queue: SlurmScheduler) -> None:
    rows = f"5_[4-9]|PENDING|Priority|{NAME}\n5_0|RUNNING|None|{NAME}\n"
    rows += f"5_2|PENDING|BeginTime|{NAME}\n5_3|RUNNING|None|of-another-cluster\n"
    files = answering(queue, squeue=answer(rows))
    status = queue.poll([chunk(), chunk(k=1)])[f"{BATCH}.0"]

    assert files.asked == ["squeue"]
    assert {index: word.state for index, word in status.live.items()} == {
        0: "RUNNING",
        2: "PENDING",
    }
    assert status.rest is not None and status.rest.state is State.PENDING
    assert status.gone == {1, 3}


def test_nothing_is_asked_of_a_queue_that_has_taken_nothing(queue: SlurmScheduler) -> None:
    files = answering(queue)
    queue.poll([Chunk(f"{BATCH}.0", f"runs/{BATCH}", 0, 1, Layout(1))])
    assert files.asked == []


def test_final_words_are_written_down_once_and_the_first_one_stands(
    queue: SlurmScheduler,
) -> None:
    said = f"5_0|TIMEOUT|0:0|None|1000|{NAME}\n5_1|TIMEOUT|0:0|None|1000|{NAME}\n"
    answering(queue, sacct=answer(said), squeue=answer())
    first = queue.account(chunk(2), [(0, 1), (1, 1)])
    assert {word.state for word in first.values()} == {State.TIMEOUT}
    lines = (Path(queue.binding.workspace) / wire.words_file(f"runs/{BATCH}")).read_text()
    assert lines.count("\n") == 1, "those that are alike take one line"

    late = queue.record(chunk(2), 0, 1, Word(State.FAILED, "late"))
    assert late.state is State.TIMEOUT
    assert queue.poll([chunk(2)])[f"{BATCH}.0"].final[0, 1].state is State.TIMEOUT


def test_a_word_that_cannot_be_written_down_is_not_final_and_is_written_down_later(
    queue: SlurmScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that began the words are written, of one that did not its ``.start``."""
    attempts = wire.Attempts(str(Path(queue.binding.workspace) / "runs" / BATCH))
    attempts.start(0, 1)
    ended = int(queue.files.now()) - 30
    rows = "".join(f"5_{task}|TIMEOUT|0:0|None|{ended}|{NAME}\n" for task in range(2))
    answering(queue, sacct=answer(rows), squeue=answer())

    def full(*arguments: object) -> None:
        raise TransportError("it cannot be written: No space left on device", "Free some.")

    with monkeypatch.context() as patched:
        for name in ("append", "put_once"):
            patched.setattr(queue.files, name, full)
        found = queue.account(chunk(2), [(0, 1), (1, 1)])
        assert {*found} == {(0, 1), (1, 1)}
        for word in found.values():
            assert word.state is State.UNKNOWN
            assert word.reason.startswith("it has ended (TIMEOUT: ")
            assert word.reason.endswith("No space left on device")
        assert queue.poll([chunk(2)])[f"{BATCH}.0"].final == {}
        assert queue.account(chunk(2), [(0, 1), (1, 1)]) == {}, "not at once"

    for task in range(2):
        queue._ask_again.answered((f"{BATCH}.0", task))
    found = queue.account(chunk(2), [(0, 1), (1, 1)])
    assert {word.state for word in found.values()} == {State.TIMEOUT}


def test_while_the_site_cannot_be_reached_nothing_is_said_of_what_is_to_be_written(
    queue: SlurmScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(queue, sacct=answer(f"5_0|TIMEOUT|0:0|None|1000|{NAME}\n"))

    def gone(*arguments: object) -> None:
        raise UnreachableError("the connection is lost", "Try again.")

    monkeypatch.setattr(queue.files, "put_once", gone)
    with pytest.raises(UnreachableError):
        queue.account(chunk(1), [(0, 1)])


def test_an_end_that_is_not_there_yet_is_waited_for(queue: SlurmScheduler) -> None:
    """What another machine has written may become visible late."""
    attempts = wire.Attempts(str(Path(queue.binding.workspace) / "runs" / BATCH))
    attempts.start(0, 1)
    now = int(queue.files.now())
    answering(queue, sacct=answer(f"5_0|COMPLETED|0:0|None|{now}|{NAME}\n"))
    assert queue.account(chunk(1), [(0, 1)]) == {}

    queue._ask_again.answered((f"{BATCH}.0", 0))
    answering(queue, sacct=answer(f"5_0|COMPLETED|0:0|None|{now - 30}|{NAME}\n"))
    assert queue.account(chunk(1), [(0, 1)])[0, 1].state is State.COMPLETED


def test_a_run_is_judged_by_the_allocation_that_it_began_in(queue: SlurmScheduler) -> None:
    """The queue may have a chunk twice: the allocation that came late ends at once, and well."""
    attempts = wire.Attempts(str(Path(queue.binding.workspace) / "runs" / BATCH))
    attempts.start(0, 1, allocation={"job": "8", "array": "8", "restarts": 0})
    now = int(queue.files.now())
    late = f"5_0|COMPLETED|0:0|None|{now - 30}|{NAME}\n"
    answering(queue, sacct=answer(f"{late}8_0|RUNNING|0:0|None|Unknown|{NAME}\n"))
    assert queue.account(chunk(1), [(0, 1)]) == {}

    queue._ask_again.answered((f"{BATCH}.0", 0))
    answering(queue, sacct=answer(f"{late}8_0|TIMEOUT|0:0|None|{now - 30}|{NAME}\n"))
    assert queue.account(chunk(1), [(0, 1)])[0, 1].state is State.TIMEOUT


KILLED = "error: StepId={}.batch exceeded memory limit (2688229376 > 2097152000), being killed\n"


@pytest.mark.parametrize(
    ("printed", "restarts", "state"),
    [
        ("7", 0, State.OUT_OF_MEMORY),
        ("77", 0, State.FAILED),  # of another allocation
        ("7", 1, State.FAILED),  # it may be of the life before
    ],
)
def test_a_kill_for_want_of_memory_is_told_from_others_by_what_slurm_has_printed(
    queue: SlurmScheduler, printed: str, restarts: int, state: State
) -> None:
    folder = Path(queue.binding.workspace) / "runs" / BATCH
    life = {"job": "7", "array": "5", "restarts": restarts}
    wire.Attempts(str(folder)).start(0, 1, allocation=life)
    (folder / "attempts" / "0.out").write_text(KILLED.format(printed))
    ended = int(queue.files.now()) - 30
    answering(queue, sacct=answer(f"5_0|FAILED|0:9|None|{ended}|{NAME}\n"))
    word = queue.account(chunk(1), [(0, 1)])[0, 1]

    assert word.state is state
    killed = word.reason.startswith("Slurm killed it: StepId=7.batch exceeded")
    assert killed is (state is State.OUT_OF_MEMORY)


@pytest.mark.parametrize(
    ("runs", "state"), [(1, State.OUT_OF_MEMORY), (2, State.FAILED)], ids=["alone", "shared"]
)
def test_who_has_an_end_on_a_signal_may_have_been_killed_before_its_shared_allocation_was(
    queue: SlurmScheduler, runs: int, state: State
) -> None:
    folder = Path(queue.binding.workspace) / "runs" / BATCH
    attempts = wire.Attempts(str(folder))
    attempts.start(0, 1, allocation={"job": "7", "array": "5", "restarts": 0})
    attempts.end(0, 1, exit_code=None, signal=9, received=[], cause=None, reason=None)
    (folder / "attempts" / "0.out").write_text(KILLED.format("7"))
    answering(queue, sacct=answer(f"5_0|FAILED|0:9|None|1000|{NAME}\n"))
    shared = chunk(runs, layout=Layout(runs, 1, 1000))

    assert queue.account(shared, [(0, 1)])[0, 1].state is state


EXCEEDED = "[2026-11-22T15:05:22.055] error: Exceeded job memory limit\n"
CANCELLED = (
    "[2026-11-22T15:05:{}.122] error: *** JOB {} ON cpu1 CANCELLED AT 2026-11-22T15:05:22 DUE to "
    "SIGNAL Terminated ***\n"
)


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        (EXCEEDED + CANCELLED.format(22, 7), State.OUT_OF_MEMORY),
        (EXCEEDED + CANCELLED.format(22, 77), State.CANCELLED),  # another allocation
        (EXCEEDED + CANCELLED.format(32, 7), State.CANCELLED),  # a step; the user came later
        (EXCEEDED + "epoch 1\n" + CANCELLED.format(22, 7), State.CANCELLED),  # of which one?
        (EXCEEDED.replace("2026", "at") + CANCELLED.format(22, 7), State.CANCELLED),
        (CANCELLED.format(22, 7), State.CANCELLED),
        (KILLED.format("7") + CANCELLED.format(22, 7), State.CANCELLED),
        ("", State.CANCELLED),
    ],
)
def test_what_slurm_cancels_for_want_of_memory_is_told_from_what_others_cancel(
    queue: SlurmScheduler, printed: str, state: State
) -> None:
    """As it was seen where two nodes found at once that a step had too much."""
    folder = Path(queue.binding.workspace) / "runs" / BATCH
    attempts = wire.Attempts(str(folder))
    attempts.start(0, 1, allocation={"job": "7", "array": "5", "restarts": 0})
    attempts.end(0, 1, exit_code=143, signal=None, received=[15], cause=None, reason=None)
    (folder / "attempts" / "0.out").write_text(printed)
    answering(queue, sacct=answer(f"5_0|CANCELLED|0:15|None|1000|{NAME}\n"))

    assert queue.account(chunk(1), [(0, 1)])[0, 1].state is state


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of the step tasks",
        "slurmstepd: error: Detected 2 oom-kill event(s) in StepId=7.0 cgroup. Some of your",
        "slurmstepd: error: Detected 1 oom-kill event(s) in step 7.0 cgroup. Some of your",
        "slurmstepd: error: Step 7.0 exceeded memory limit (2048 > 1024), being killed",
        "slurmstepd: error: Job 7 exceeded memory limit (2048 > 1024), being killed",
    ],
)
def test_what_slurm_prints_of_a_kill_for_memory_is_known_in_the_words_of_its_versions(
    line: str,
) -> None:
    assert wire.killed_for_memory(f"epoch 1\n{line}\n", "7") is not None
    assert wire.killed_for_memory(line.replace("7.", "77.").replace("7 ", "77 "), "7") is None


AT = "CANCELLED AT 2026-11-22T17:23:20"


@pytest.mark.parametrize(
    "printed, told",
    [
        ("srun: error: Node failure on cpu2", "Node failure on cpu2"),
        (
            f"[2026-11-22] error: *** STEP 7.0 ON cpu1 {AT} DUE TO NODE FAILURE, SEE LOG ***",
            f"STEP 7.0 ON cpu1 {AT} DUE TO NODE FAILURE, SEE LOG",
        ),
        (
            f"slurmstepd: error: *** JOB 7 ON cpu1 {AT} DUE TO TIME LIMIT ***",
            f"JOB 7 ON cpu1 {AT} DUE TO TIME LIMIT",
        ),
        (
            f"slurmstepd: error: *** STEP 7.0 ON cpu1 {AT} ***\nsrun: error: cpu1: task 0: Killed",
            f"STEP 7.0 ON cpu1 {AT}",
        ),
        (
            "srun: Job step aborted: Waiting up to 4 seconds for job step to finish.\n"
            "srun: error: cpu2: task 1: Terminated",
            "Job step aborted",
        ),
        (
            "srun: error: cpu1: task 0: Exited with exit code 1\nsrun: error: Node failure on cpu2",
            "Node failure on cpu2",
        ),
        # srun itself has ended what a failed rank had left.
        (
            "srun: error: cpu2: task 1: Exited with exit code 3\nsrun: Terminating StepId=7.0\n"
            f"slurmstepd: error: *** STEP 7.0 ON cpu1 {AT} ***",
            None,
        ),
        (
            "srun: error: cpu[1-2]: tasks 0-1: Exited with exit code 3\n"
            f"[2026-11-22T17:33:56.402] error: *** STEP 7.0 ON cpu1 {AT} DUE TO TASK FAILURE ***\n",
            None,
        ),
        (f"slurmstepd: error: *** STEP 7.0 ON cpu1 {AT} DUE TO TASK FAILURE ***\n", None),
        # Another job; words of the job's own.
        (f"slurmstepd: error: *** STEP 77.0 ON cpu1 {AT} DUE TO TIME LIMIT ***", None),
        ("it says srun: error: Node failure on cpu2", None),
        ("srun: error: cpu1: task 0: Exited with exit code 1", None),
    ],
)
def test_what_slurm_prints_of_a_step_that_it_aborts_is_told_from_what_srun_ends_itself(
    printed: str, told: str | None
) -> None:
    assert wire.aborted_by_slurm(f"epoch 1\n{printed}\nsrun: ended\n", "7") == told


def test_without_accounting_the_controller_is_asked(queue: SlurmScheduler) -> None:
    off = answer(stderr="Slurm accounting storage is disabled", code=1)
    shown = f"JobId=5 ArrayJobId=5 ArrayTaskId=0 JobName={NAME} JobState=CANCELLED EndTime=1000"
    files = answering(queue, sacct=off, scontrol=answer(shown))
    assert queue.account(chunk(1), [(0, 1)])[0, 1].state is State.CANCELLED
    assert files.asked == ["sacct", "scontrol"]

    answering(queue, sacct=off, scontrol=answer(stderr="Invalid job id specified", code=1))
    assert queue.account(chunk(3, first=0), [(2, 1)]) == {}
    files = answering(queue)
    assert queue.account(chunk(3, first=0), [(2, 1)]) == {}
    assert files.asked == [], "it is not asked again at once"


def test_an_array_that_was_cancelled_as_a_whole_speaks_of_those_alone_that_never_began(
    queue: SlurmScheduler,
) -> None:
    """Slurm then has no number of a task, but the one that stands for none."""
    attempts = wire.Attempts(str(Path(queue.binding.workspace) / "runs" / BATCH))
    attempts.start(1, 1)
    off = answer(stderr="Slurm accounting storage is disabled", code=1)
    shown = f"JobId=5 ArrayJobId=5 ArrayTaskId=4294967294 JobName={NAME} JobState=CANCELLED"
    answering(queue, sacct=off, scontrol=answer(f"{shown} EndTime=1000"))

    found = queue.account(chunk(2), [(0, 1), (1, 1)])

    assert {key: word.state for key, word in found.items()} == {(0, 1): State.CANCELLED}


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("None", "it never began: cancelled (Slurm: CANCELLED)"),
        ("DependencyNeverSatisfied", "it was to run after"),
    ],
)
def test_a_dependency_is_blamed_only_where_the_controller_names_it(
    queue: SlurmScheduler, reason: str, says: str
) -> None:
    """It does not say who cancelled a job."""
    off = answer(stderr="Slurm accounting storage is disabled", code=1)
    shown = f"JobId=5 ArrayJobId=5 ArrayTaskId=0 JobName={NAME} JobState=CANCELLED Reason={reason}"
    answering(queue, sacct=off, scontrol=answer(shown))
    after = replace(chunk(1), after=("20261121-141502-k3f9a2.00000",))

    assert queue.account(after, [(0, 1)])[0, 1].reason.startswith(says)


def test_cancelling_refuses_what_has_not_begun_and_asks_for_the_rest(
    queue: SlurmScheduler,
) -> None:
    folder = Path(queue.binding.workspace) / "runs" / BATCH
    attempts = wire.Attempts(str(folder))
    attempts.start(1, 1)
    layout = Layout(2, 2, 100)
    files = answering(queue, scancel=answer())
    queue.cancel([chunk(4, layout=layout)], [0, 1, 2])

    assert attempts.read(0, 1, "end")["cause"] == attempts.read(2, 1, "end")["cause"] == "CANCELLED"
    assert attempts.read(1, 1, "end") is None
    (request,) = wire.spoken(str(folder))
    assert (request["request"], request["indices"]) == ("cancel", [0, 1, 2])
    assert files.asked == ["scancel"], "the second allocation has a run left"


def test_a_chunk_that_may_not_run_beside_the_one_before_it_waits_for_it(
    queue: SlurmScheduler,
) -> None:
    queue.files.put({f"runs/{BATCH}/attempts/{wire.queued_name('0', '5', 4.0)}": b""})
    some = Chunk(f"{BATCH}.1", f"runs/{BATCH}", 10, 5, Layout(1, 1, 10), max_running=3)
    assert dependencies(some, queue.files) == ["afterany:5"]


def test_what_comes_first_is_waited_for_by_its_own_task(queue: SlurmScheduler) -> None:
    plan = '{"batch": {"layout": {"size": %d, "slots": 1, "call": 10}}}'
    for size, expected in ((1, ["afterok:5_1"]), (2, ["afterany:5_0"])):
        queue.files.put(
            {
                f"runs/{BATCH}/plan.json": (plan % size).encode(),
                f"runs/{BATCH}/attempts/{wire.queued_name('0', '5', 4.0)}": b"",
            }
        )
        later = Chunk("20261122-000000-aaaaaa.0", "runs/x", 0, 1, Layout(1), (f"{BATCH}.00001",))
        assert dependencies(later, queue.files) == expected


def test_jobs_that_are_counted_together_take_turns_in_as_many_lanes(
    queue: SlurmScheduler,
) -> None:
    jobs = [Chunk(f"{BATCH[:-1]}{k}.0", "runs/x", 0, 1, Layout(1), (), BATCH, 2) for k in range(5)]
    waits = []
    for number, one in enumerate(jobs):
        waits.append(dependencies(one, queue.files))
        answering(queue, sbatch=answer(f"{number}\n"))
        queue.submit([one])
    assert waits == [[], [], ["afterany:0"], ["afterany:1"], ["afterany:2"]]

    many = Chunk(f"{BATCH}.0", "runs/x", 0, 8, Layout(1), (), BATCH, 2)
    assert dependencies(many, queue.files) == ["afterany:3", "afterany:4"]
