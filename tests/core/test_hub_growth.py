"""The wait hub: what it keeps while nobody waits, or nothing can be read."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from upshot.errors import ServiceUnavailableError, UpshotError
from upshot.listening import Listener
from upshot.waiters import ThreadSink
from upshot.waiting import Hub

MANY = 2000


def away(*_: object) -> Listener | None:
    raise ServiceUnavailableError("away")


def load(keys: Sequence[str]) -> list[str | UpshotError | None]:
    return [ServiceUnavailableError("away") for _ in keys]


def explain(exc: Exception) -> UpshotError | None:
    return exc if isinstance(exc, UpshotError) else None


def test_waits_that_come_and_go_during_an_outage_leave_nothing() -> None:
    hub = Hub[str](
        load=load,
        decode=lambda key, body: key,
        is_ended=lambda record: True,
        listen=away,
        explain=explain,
        poll_interval=0.05,
        name="hub",
    )
    sink = ThreadSink[str]()
    hub.watch(["one that stays"], sink)

    def waits(count: int) -> int:
        for number in range(count):
            hub.watch([f"{count}-{number}"], sink)
            hub.unwatch([f"{count}-{number}"], sink)
        gc.collect()
        return sys.getallocatedblocks()

    before = waits(MANY)
    after = waits(MANY + 1)
    hub.close()

    assert after - before < MANY / 10
