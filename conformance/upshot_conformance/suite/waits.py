"""The ways in which a wait can end; each is run with a client and an id that nobody used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from upshot.client import ResultClient
from upshot.errors import ResultForgottenError, ResultTimeoutError
from upshot_conformance.concurrency import start
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.timing import Timing

__all__ = [
    "WAYS_TO_END",
    "EndOfWait",
    "is_cancelled",
    "is_forgotten",
    "is_left_early",
    "returns",
    "times_out",
]

EndOfWait = Callable[[ResultClient, str, Timing], None]


def times_out(client: ResultClient, task_id: str, timing: Timing) -> None:
    """Wait until the timeout."""
    with pytest.raises(ResultTimeoutError):
        client.wait(task_id, timeout=timing.jitter)


def is_left_early(client: ResultClient, task_id: str, timing: Timing) -> None:
    """Wait for two ids, once until the timeout, once leaving the loop after the first."""

    def all_of_them() -> int:
        return len(list(client.wait_many([task_id, new_id()], timeout=timing.quiet)))

    waiting = start(all_of_them)
    with pytest.raises(ResultTimeoutError):
        waiting.result(timing.within)
    client.store(success(task_id, 1))
    ends = client.wait_many([new_id(), task_id], timeout=timing.within)
    next(ends)
    ends.close()


def is_cancelled(client: ResultClient, task_id: str, timing: Timing) -> None:
    """Cancel the coroutine that waits."""

    async def cancel() -> None:
        async def wait() -> None:
            async for _ in client.wait_async([task_id], timeout=timing.within):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.wait([waiting], timeout=timing.quiet)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())


def is_forgotten(client: ResultClient, task_id: str, timing: Timing) -> None:
    """Forget the id meanwhile."""
    waiting = start(partial(client.wait, task_id, timeout=timing.quiet))
    timing.eventually(lambda: client.stats()["waiters"])
    client.forget([task_id])
    with pytest.raises((ResultForgottenError, ResultTimeoutError)):
        waiting.result(timing.within)


def returns(client: ResultClient, task_id: str, timing: Timing) -> None:
    """Wait for a result that is stored meanwhile."""
    waiting = start(partial(client.wait, task_id, timeout=timing.within))
    timing.eventually(lambda: client.stats()["waiters"])
    client.store(success(task_id, 1))
    assert value_of(waiting.result(timing.within)) == 1


WAYS_TO_END: Final = (returns, times_out, is_left_early, is_cancelled, is_forgotten)
