"""What an app enters around each run of a task."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from upshot import App

seen: list[tuple[str, int]] = []


@contextmanager
def noting() -> Generator[None]:
    seen.append(("before", threading.get_ident()))
    try:
        yield
    finally:
        seen.append(("after", threading.get_ident()))


@pytest.fixture
def app() -> App:
    seen.clear()
    app = App(broker="memory://", backend="memory://")
    app.around_task = noting
    return app


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_entered_and_left_on_the_thread_of_the_task(fails: bool, app: App) -> None:
    @app.task(name="one")
    def one() -> None:
        seen.append(("task", threading.get_ident()))
        if fails:
            raise ValueError("no")

    with app.running(threads=1):
        error = one.delay().exception(timeout=10)

    assert isinstance(error, ValueError) is fails
    assert [name for name, _ in seen] == ["before", "task", "after"]
    assert len({thread for _, thread in seen}) == 1


def test_it_is_entered_around_a_coroutine_too(app: App) -> None:
    @app.task(name="two")
    async def two() -> None:
        seen.append(("task", 0))

    with app.running():
        two.delay().get(timeout=10)

    assert [name for name, _ in seen] == ["before", "task", "after"]


def test_what_it_raises_is_what_the_task_raised(app: App) -> None:
    @contextmanager
    def broken() -> Generator[None]:
        raise OSError("no database")
        yield

    app.around_task = broken

    @app.task(name="three")
    def three() -> None:
        seen.append(("task", 0))

    with app.running():
        error = three.delay().exception(timeout=10)

    assert isinstance(error, OSError)
    assert seen == []


def test_a_direct_call_is_none_of_its_business(app: App) -> None:
    @app.task(name="four")
    def four() -> int:
        return 4

    assert four() == 4
    assert seen == []
