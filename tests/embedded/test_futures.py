"""Runs as futures and in asyncio, in forked children, and when the interpreter exits."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import cloudpickle
import pytest

import hpcml
from hpcml import batch_view, poller
from hpcml.errors import RunFailedError, RunStateError
from hpcml.layout import Layout
from hpcml.results import HERE
from tests.byhand import ByHand
from tests.conftest import eventually
from tests.embedded.scene import Scene

FUNCTION = {"kind": "function", "target": "f", "python": HERE}


def functions(count: int) -> ByHand:
    """Runs of a function that have left ``n`` squared, and have not ended yet."""
    made = ByHand([{"n": n} for n in range(count)], entry=FUNCTION)
    for n in range(count):
        path = made.file(f"{made.runs[n].id}_0_result.pkl", n)
        path.write_bytes(cloudpickle.dumps(("success", n * n)))
    for n in range(count):
        made.start(n)
    return made


def pollers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "hpcml poller" in thread.name]


@pytest.fixture(autouse=True)
def nobody_looks_in_the_end() -> Iterator[None]:
    yield
    eventually(lambda: not pollers())


# --- concurrent.futures -------------------------------------------------------------------


def test_a_future_is_done_when_the_run_has_ended(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    future = run.future()
    assert not future.done() and not future.cancel() and not future.cancelled()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.1)
    scene.open()
    assert future.result(20) is None and future.exception() is None
    assert run.future().done(), "of a run that has ended it is done at once"
    eventually(lambda: not pollers())


def test_futures_of_many_runs_are_waited_for_together_by_one_thread() -> None:
    made = functions(50)
    futures = {run.future(): run.index for run in made.runs}
    assert len(pollers()) == 1
    for n in range(50):
        made.end(n)

    done, left = cf.wait(futures, timeout=20)
    assert (len(done), len(left)) == (50, 0)
    for future in cf.as_completed(futures, timeout=20):
        assert future.result() == futures[future] ** 2
    eventually(lambda: not pollers())


def test_waiting_for_the_first_exception_ends_with_it() -> None:
    made = functions(3)
    futures = [run.future() for run in made.runs]
    made.end(1, exit_code=3)
    done, left = cf.wait(futures, timeout=20, return_when=cf.FIRST_EXCEPTION)
    assert done == {futures[1]} and left == {futures[0], futures[2]}
    assert isinstance(futures[1].exception(), RunFailedError)
    with pytest.raises(RunFailedError, match="exit code 3"):
        futures[1].result()
    for n in (0, 2):
        made.end(n)
    assert not cf.wait(futures, timeout=20).not_done


def test_callbacks_are_called_though_nobody_keeps_the_future() -> None:
    made, called = functions(1), threading.Event()
    made.runs[0].future().add_done_callback(lambda future: called.set())
    made.end(0)
    assert called.wait(20)


def test_two_futures_of_one_run_are_both_done() -> None:
    made = functions(1)
    futures = [made.runs[0].future(), made.runs[0].future()]
    made.end(0)
    assert [future.result(20) for future in futures] == [0, 0]


def test_a_future_of_a_broken_off_submission_says_so() -> None:
    made = ByHand()
    made.batch.save()
    made.batch.let_go()
    with pytest.raises(RunStateError, match="would wait for ever"):
        made.runs[0].future().result(20)
    with pytest.raises(RunStateError, match="would wait for ever"):
        made.runs[0].wait(20)


def test_a_run_is_waited_for_though_another_part_of_its_submission_was_broken_off() -> None:
    made = ByHand([{"x": 0}, {"x": 1}], layout=Layout(size=1))
    made.batch.save()
    made.batch.let_go()
    made.start(0)
    future = made.runs[0].future()

    with pytest.raises(RunStateError, match="would wait for ever"):
        made.runs[1].future().result(20)
    assert not future.done()
    assert not made.runs[0].wait(0.1).state.final
    made.end(0)
    assert made.runs[0].wait(20).state == "COMPLETED"
    eventually(future.done)


def test_an_error_of_the_poller_reaches_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made = functions(2)
    caught: list[BaseException | None] = []

    def wait() -> None:
        try:
            made.runs.wait(20)
        except ZeroDivisionError as error:
            caught.append(error)

    monkeypatch.setattr(poller, "look", lambda views: 1 / 0)
    waiters = [threading.Thread(target=wait) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    assert isinstance(made.runs[1].future().exception(20), ZeroDivisionError)
    for waiter in waiters:
        waiter.join(20)
    assert len(caught) == 3


def test_a_timeout_names_the_state_of_the_run(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(lambda: run.state == "RUNNING")
    with pytest.raises(TimeoutError, match=r"is RUNNING after 0\.1 s"):
        run.result(timeout=0.1)
    scene.open()


# --- asyncio ------------------------------------------------------------------------------


def test_a_run_is_awaited_and_the_loop_goes_on_meanwhile(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1
                if ticks == 30:
                    scene.open()

        ticking = asyncio.create_task(tick())
        assert await run is None
        ticking.cancel()
        return ticks

    assert asyncio.run(main()) >= 30
    assert run.state == "COMPLETED"


def test_many_runs_are_gathered_with_their_results() -> None:
    made = functions(20)

    async def main() -> list[int]:
        waiting = asyncio.gather(*made.runs)
        await asyncio.sleep(0.05)
        for n in range(20):
            made.end(n)
        return list(await waiting)

    assert asyncio.run(main()) == [n * n for n in range(20)]


def test_many_runs_are_awaited_as_one() -> None:
    made = functions(20)

    async def main() -> list[int]:
        for n in range(20):
            made.end(n)
        assert await made.runs[:0] == []
        return list(await made.runs)

    assert asyncio.run(main()) == [n * n for n in range(20)]


def test_awaiting_many_of_which_one_failed_waits_for_all_and_raises() -> None:
    made = functions(3)

    async def main() -> None:
        waiting = asyncio.ensure_future(made.runs)
        made.end(2, exit_code=3)
        made.end(1, exit_code=2)
        await asyncio.sleep(0.5)
        assert not waiting.done()
        made.end(0)
        await waiting

    with pytest.raises(RunFailedError, match="exit code 2"):
        asyncio.run(main())


def test_awaiting_a_run_that_failed_raises() -> None:
    made = functions(1)
    made.end(0, exit_code=2)

    async def main() -> None:
        await made.runs[0]

    with pytest.raises(RunFailedError, match="exit code 2"):
        asyncio.run(main())


def test_a_future_is_wrapped_for_asyncio_whether_its_result_can_be_loaded_or_not() -> None:
    made = functions(2)
    made.file(f"{made.runs[1].id}_0_result.pkl", 1).write_bytes(b"torn")

    async def main() -> list[object]:
        futures = [asyncio.wrap_future(run.future()) for run in made.runs]
        for n in range(2):
            made.end(n)
        return list(await asyncio.gather(*futures, return_exceptions=True))

    value, error = asyncio.run(main())
    assert value == 0 and isinstance(error, hpcml.HpcmlError)


def test_nobody_looks_any_more_when_awaiting_was_given_up(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())

    async def main() -> None:
        await asyncio.wait_for(run, 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    eventually(lambda: not pollers())
    scene.open()


# --- exit and fork ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "then", ["", "import threading; threading.Thread(target=run.wait, daemon=True).start()"]
)
def test_a_script_that_does_not_wait_for_its_future_exits_at_once(
    scene: Scene, another_python: Callable[..., subprocess.CompletedProcess[str]], then: str
) -> None:
    run = hpcml.submit(scene.gated())
    code = f"import hpcml; run = hpcml.attach({run.id!r}); future = run.future(); {then}"
    done = another_python(code)  # which is given up after a minute
    assert (done.returncode, done.stderr) == (0, "")
    scene.open()


def in_child(act: Callable[[], bool]) -> int:
    """Exit code of a forked child that does something: 0 if that returns true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if act() else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return 124
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_was_forked_while_a_look_was_under_way_uses_the_same_handles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, looking, go_on = functions(2), threading.Event(), threading.Event()
    judge = batch_view.BatchView.judge

    def held(view: batch_view.BatchView, status: object) -> bool:
        if threading.current_thread() is not threading.main_thread() and not go_on.is_set():
            looking.set()  # the poller holds the view's lock, and its queue's has just been free
            go_on.wait(20)
        return judge(view, status)  # type: ignore[arg-type]

    monkeypatch.setattr(batch_view.BatchView, "judge", held)
    future = made.runs[0].future()
    assert looking.wait(20)
    made.end(0)

    def child() -> bool:
        go_on.set()
        assert made.runs[0].state == "COMPLETED"
        made.end(1)
        return made.runs.wait(10).results() == [0, 1] and made.runs[1].future().result(10) == 1

    try:
        assert in_child(child) == 0
    finally:
        go_on.set()
    assert future.result(20) == 0, "the parent's own goes on"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_forked_again_and_again_beside_a_busy_poller_all_see(scene: Scene) -> None:
    run = hpcml.submit(scene.gated())
    eventually(lambda: run.state == "RUNNING")
    future = run.future()
    for _ in range(20):
        assert in_child(lambda: run.state == "RUNNING") == 0
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(state_of, [run.id] * 4) == ["RUNNING"] * 4
    scene.open()
    assert future.result(20) is None


def state_of(id: str) -> str:
    return str(hpcml.attach(id).state)


def test_a_script_under_every_start_method_can_use_handles(scene: Scene) -> None:
    run = hpcml.submit(scene.job("true")).wait(20)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(state_of, [run.id]) == ["COMPLETED"]
    assert sys.is_finalizing() is False
