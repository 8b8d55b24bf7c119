"""A Redis that asks for a password, and an app that uses it beside the worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from upshot import App
from upshot_conformance.servers import RedisServer, new_password


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(password=new_password()) as server:
        yield server


@pytest.fixture
def app(redis: RedisServer) -> Iterator[App]:
    with App(broker=redis.url, result_backend=redis.url) as app:
        yield app
