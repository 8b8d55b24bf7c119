"""`upshot.testing.drain` beside event loops, and under Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from upshot import App
from upshot.errors import ServiceError
from upshot.testing import drain, in_memory


@pytest.fixture
def app() -> Iterator[App]:
    with App("shop", broker="redis://127.0.0.1:1") as app:
        yield app


def test_a_coroutine_may_drain_whatever_its_tasks_do_with_event_loops(app: App) -> None:
    @app.task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    @app.task
    def quadruple(number: int) -> int:
        return 2 * asyncio.run(double(number))

    async def test() -> list[int]:
        handles = [double.delay(4), quadruple.delay(4)]
        drain(app)
        beside = double.delay(8)
        await asyncio.to_thread(drain, app)
        return [await each for each in (*handles, beside)]

    with in_memory(app):
        assert asyncio.run(test()) == [8, 16, 16]


def test_what_is_wrong_in_a_coroutine_is_raised_there(app: App) -> None:
    async def test() -> None:
        drain(app)

    away = app.overridden(broker_url="redis://127.0.0.1:1", operation_timeout=0.1)
    with away, pytest.raises(ServiceError):
        asyncio.run(test())


def test_a_coroutine_as_a_task_leaves_no_closed_loop_behind(app: App) -> None:
    @app.task
    async def nothing() -> None:
        pass

    with in_memory(app):
        nothing.delay()
        drain(app)

    with pytest.raises(RuntimeError, match="no current event loop"):
        asyncio.get_event_loop()


CTRL_C = """
    import asyncio, os, signal, time
    from upshot import App
    from upshot.testing import drain, in_memory

    app = App("shop")

    @app.task
    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    @app.task
    async def interrupted_in_a_coroutine():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    @app.task
    def next():
        print("it goes on")

    with in_memory(app):
        {task}.delay()
        next.delay()
        drain(app)
"""


@pytest.mark.parametrize("task", ["interrupted", "interrupted_in_a_coroutine"])
def test_ctrl_c_ends_the_test_and_not_the_task_alone(task: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CTRL_C).replace("{task}", task)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == -signal.SIGINT, done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout == ""
