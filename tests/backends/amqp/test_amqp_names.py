"""Queues of ever new names: what a broker remembers of them is bounded."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import cast

from upshot.url import Url
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.io_thread import IoThread
from upshot_backends.amqp.queues import Names, Post

MANY = 20_000


class Declares:
    """A session, and its channel, of a server on which every queue can be made at once."""

    async def channel(self) -> Declares:
        return self

    async def declare(self, name: str, *, arguments: object) -> int:
        return 0

    def close(self) -> None:
        return


def test_names_that_are_used_once_do_not_pile_up() -> None:
    connection = AmqpConnection(Url.parse("amqp://localhost"), IoThread())  # not opened
    post = Post(Names("n"), connection)
    session = cast("Session", Declares())

    def use(first: int) -> int:
        names = (f"n/{first + number}" for number in range(MANY))
        asyncio.run(post.declare(session, names))
        gc.collect()
        return sys.getallocatedblocks()

    before = use(0)
    after = use(MANY)

    assert after - before < MANY / 10
