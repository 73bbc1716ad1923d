"""Ranks on several nodes, with and without a container."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.conftest import eventually
from tests.slurm.site import Login
from tests.testbed.box import python
from tests.testbed.using import PATIENCE

pytestmark = pytest.mark.testbed

RANKS = "nodes=2, tasks=4, cpus=1"
WHO = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT"
TELL = "echo $(hostname) " + " ".join(f"${name}" for name in WHO.split())

MEET = """
import os, socket
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server(place) as server:
        met = sorted(int(server.accept()[0].recv(9)) for _ in range(world - 1))
    print("met", met)
else:
    import time
    for _ in range(100):
        try: connection = socket.create_connection(place)
        except OSError: time.sleep(0.1)
        else: break
    connection.sendall(str(rank).encode())
"""


def printed(site: Login, run: str) -> list[str]:
    """Lines of its stdout: PyTorch warns of a rank that is gone before the others, on stderr."""
    text = site.do('tell(hpcml.attach(S["run"], "box").logs(stream="stdout"))', run=run)
    return sorted(text.splitlines())


def test_each_rank_is_told_who_it_is_and_where_to_meet(login: Login) -> None:
    run = login.submit(f"job('{TELL}', {RANKS})")

    assert login.wait(run) == [("COMPLETED", "")]
    ranks = [line.split() for line in printed(login, run)]
    hosts, ports = sorted({it[0] for it in ranks}), {it[6] for it in ranks}
    assert len(hosts) == 2 and len(ports) == 1
    assert [it[1:6] for it in sorted(ranks, key=lambda it: int(it[1]))] == [
        ["0", "0", "4", "2", hosts[0]],
        ["1", "1", "4", "2", hosts[0]],
        ["2", "0", "4", "2", hosts[0]],
        ["3", "1", "4", "2", hosts[0]],
    ]


def test_ranks_meet_on_the_first_node(login: Login) -> None:
    login.write("meet.py", MEET)
    run = login.submit(f"job('exec python3 $S/meet.py', {RANKS})")

    assert login.wait(run) == [("COMPLETED", "")]
    assert printed(login, run) == ["met [1, 2, 3]"]


ALL_REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="env://")
ranks = torch.tensor([float(dist.get_rank())])
dist.all_reduce(ranks)
print(f"{ranks.item()} {dist.get_world_size()}\\n", end="", flush=True)  # in one write
dist.destroy_process_group()
"""
TORCHRUN = (
    "-m torch.distributed.run --nnodes=2 --nproc-per-node=2 --node-rank=$NODE_RANK "
    "--master-addr=$MASTER_ADDR --master-port=$MASTER_PORT"
)


@pytest.mark.parametrize(
    ("launched", "tasks"), [("", 4), (TORCHRUN, 2)], ids=["by srun", "by torchrun"]
)
def test_pytorch_s_process_group_just_works(login: Login, launched: str, tasks: int) -> None:
    login.write("train.py", ALL_REDUCE)
    command = f"exec {shlex.join(python())} {launched} $S/train.py"
    run = login.submit(f"job({command!r}, nodes=2, tasks={tasks})")

    assert login.wait(run, timeout=120) == [("COMPLETED", "")]
    assert printed(login, run) == ["6.0 4"] * 4


def test_a_rank_that_fails_ends_the_others_and_the_run(login: Login) -> None:
    run = login.submit(f"job('[ $RANK != 2 ] || exit 7; sleep 600', {RANKS})")

    assert login.wait(run)[0][0] == "FAILED"
    assert "task 2: Exited with exit code 7" in login.read(f"ws/runs/{run[:-6]}/0/stderr")


def test_a_run_of_several_ranks_is_cancelled_on_all_nodes(login: Login) -> None:
    run = login.submit(f"job('echo began >> $S/ledger; sleep 4711', {RANKS})")
    eventually(lambda: login.ledger() == ["began"] * 4, PATIENCE)
    assert [left_of(login, host) > 0 for host in ("cpu1", "cpu2")] == [True, True]
    login.cancel(run)

    assert login.wait(run)[0][0] == "CANCELLED"
    eventually(lambda: left_of(login, "cpu1") + left_of(login, "cpu2") == 0, PATIENCE)


def left_of(login: Login, host: str) -> int:
    """How many processes of that run are on a host."""
    listed = login.box.run(host, ["pgrep", "-u", "alice", "-f", "sleep 4711"], check=False)
    return len(listed.stdout.split())


# One rank of each node listens: on the first in Python, on the second in a shell.
RANKS_LISTEN = """\
case $RANK in
1) exec python3 -c '
import os, signal, sys
def tell(what): os.system("echo %s >> $S/ledger" % what)
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(tell("told-1")))
tell("began")
signal.pause()' ;;
2) trap 'kill $!; echo told-2 >> $S/ledger; exit 0' USR2
    echo began >> $S/ledger
    sleep 600 & wait ;;
*) echo began >> $S/ledger
    while [ "$(grep -c told $S/ledger)" -lt 2 ]; do sleep 0.1; done ;;
esac
"""


@pytest.mark.parametrize("contained", [False, True], ids=["on the nodes", "in an image"])
def test_the_notice_reaches_the_ranks_that_listen_on_all_nodes_and_spares_the_others(
    login: Login, contained: bool
) -> None:
    login.write("ws/ranks.sh", RANKS_LISTEN)
    image = login.box.image if contained else None
    run = login.submit(
        f'hpcml.Job(["/bin/sh", "{login.home}/ws/ranks.sh"], code=None, image={image!r}, '
        f'env={{"S": "{login.home}/ws"}}, resources=hpcml.Resources(time="5m", {RANKS}))'
    )
    eventually(lambda: login.read("ws/ledger").count("began") == 4, PATIENCE)
    owner = json.loads(login.read(f"ws/runs/{run[:-6]}/attempts/0.1.start"))["owner"]
    login.box.run(owner["host"], ["kill", "-USR2", str(owner["pid"])])

    assert login.wait(run) == [("COMPLETED", "")]
    assert sorted(login.read("ws/ledger").split()) == ["began"] * 4 + ["told-1", "told-2"]


def test_one_rank_a_node_tells_what_goes_on(login: Login) -> None:
    code = "import hpcml; hpcml.log(step=1, loss=0.5)"
    run = login.submit(f"""job('exec python3 -c "{code}"', {RANKS})""")

    assert login.wait(run) == [("COMPLETED", "")]
    events = login.read(f"ws/runs/{run[:-6]}/0/events.jsonl")
    assert events.count('"loss"') == 2


def test_a_command_runs_in_its_image_with_the_run_s_files(login: Login) -> None:
    login.write("data.txt", "measured")
    command = "cat {inputs.data}; pwd; echo $HPCML_INDEX; python3 -c 'import hpcml; print(1)'"
    run = login.submit(
        f'hpcml.Job(["/bin/sh", "-c", {command!r}], code=None, image="{login.box.image}", '
        f'inputs={{"data": "{login.home}/data.txt"}}, resources=hpcml.Resources(time="5m"))'
    )

    assert login.wait(run) == [("COMPLETED", "")]
    assert printed(login, run)[-1].startswith("measured/scratch/")


def test_a_container_is_not_the_node_s_own_system_and_runs_on_all_of_them(login: Login) -> None:
    run = login.submit(
        'hpcml.Job(["/bin/sh", "-c", "echo $APPTAINER_NAME $RANK"], code=None, '
        f'image="{login.box.image}", resources=hpcml.Resources(time="5m", {RANKS}))'
    )

    assert login.wait(run) == [("COMPLETED", "")]
    name = login.box.image.rpartition("/")[2]
    assert printed(login, run) == [f"{name} {rank}" for rank in range(4)]


def test_the_image_is_part_of_what_a_run_is(login: Login) -> None:
    run = login.submit(f"hpcml.Job(['true'], code=None, image='{login.box.image}')")

    plan = json.loads(login.read(f"ws/runs/{run[:-6]}/plan.json"))
    digest = login.box.run("login", ["sha256sum", login.box.image]).stdout.split()[0]
    assert plan["what"]["image"] == digest
    assert plan["where"]["image"] == login.box.image


def test_a_missing_image_is_refused(login: Login) -> None:
    told = login.do(
        """
        from hpcml.errors import JobError
        try: hpcml.submit(hpcml.Job(["true"], code=None, image="/opt/images/pyton.sif"), "box")
        except JobError as error: tell(str(error))
        """
    )
    assert told.startswith("image: there is no /opt/images/pyton.sif")
