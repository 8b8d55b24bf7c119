"""What type checkers know about the public interface; checked by mypy and pyright, never run.

Every `type: ignore` here stands on a line that must be an error: mypy's `warn_unused_ignores` and
pyright's `reportUnnecessaryTypeIgnoreComment` fail if it is none.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, assert_type

from upshot import App, AsyncResult, ResultSet, TaskContext, current_task

app = App()


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(queue="slow", max_retries=None, time_limit=10.0)
def shout(text: str, *, times: int = 1) -> str:
    return text.upper() * times


@app.task(queue="slow")
async def count(text: str) -> int:
    return len(text)


@app.task(bind=True)
def bound(context: TaskContext, number: float) -> str:
    return f"{context.task_id} {number}"


@app.task(bind=True, queue="slow")
async def bound_coroutine(context: TaskContext, number: float) -> dict[str, float]:
    return {context.task_id: number}


@app.task
def letters(text: str) -> Generator[str, None, int]:
    yield from text
    return len(text)


@app.task(queue="slow")
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@app.task(bind=True)
async def bound_numbers(context: TaskContext, count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def a_generator_gives_what_it_returns() -> None:
    assert_type(letters.delay("abc").get(), int)
    assert_type(numbers.delay(3).get(), None)
    assert_type(bound_numbers.delay(3).get(), None)
    assert_type(list(letters("abc")), list[str])
    assert_type(list(numbers(3)), list[int])
    for update in letters.delay("abc").updates(timeout=1.0):
        assert_type(update.info, dict[str, Any] | None)


def a_task_keeps_its_parameters_and_its_value() -> None:
    assert_type(add.delay(1, 2), AsyncResult[int])
    assert_type(add.delay(1, y=2).get(), int)
    assert_type(add.delay(1, 2).get(timeout=1.0, propagate=False), int)
    assert_type(shout.delay("a", times=2).get(), str)
    assert_type(add.apply_async((1, 2), countdown=1.0).get(), int)
    assert_type(add(1, 2), int)


def a_coroutine_function_gives_what_it_returns() -> None:
    assert_type(fetch.delay("/").get(), bytes)
    assert_type(count.delay("abc").get(), int)
    called: Coroutine[Any, Any, bytes] = fetch("/")
    called.close()


async def what_is_awaited_has_its_type() -> None:
    assert_type(await fetch("/"), bytes)
    assert_type(await fetch.delay("/"), bytes)
    assert_type(await add.delay(1, 2), int)
    assert_type(await add.delay(1, 2).aget(timeout=1.0), int)
    assert_type(await add.map([(1, 2)]), list[int])
    async for each in add.map([(1, 2)]):
        assert_type(each, AsyncResult[int])


def a_bound_task_is_called_without_its_context() -> None:
    assert_type(bound.delay(1.5).get(), str)
    assert_type(bound(1.5), str)
    assert_type(bound_coroutine.delay(number=1.5).get(), dict[str, float])


def many_results_keep_the_type_of_each() -> None:
    results = add.map([(1, 2), (3, 4)])
    assert_type(results, ResultSet[int])
    assert_type(results.get(), list[int])
    assert_type(results[0], AsyncResult[int])
    for each in results.as_completed(timeout=1.0):
        assert_type(each, AsyncResult[int])
    with results as same:
        assert_type(same, ResultSet[int])


def a_handle_tells_the_types_of_its_answers() -> None:
    with add.delay(1, 2) as result:
        assert_type(result, AsyncResult[int])
        assert_type(result.state, str)
        assert_type(result.ready(), bool)
        assert_type(result.exception(), Exception | None)
        assert_type(result.traceback, str | None)
        assert_type(result.info, dict[str, Any] | None)
        assert_type(result.attempts, int)
        assert_type(result.revoke(), bool)
    assert_type(app.AsyncResult("id").get(), Any)
    assert_type(app.outstanding(), list[AsyncResult[Any]])
    assert_type(current_task(), TaskContext)


def an_app_is_its_own_context() -> None:
    with app.running(threads=1) as same:
        assert_type(same, App)
    with App() as another:
        assert_type(another, App)


def wrong_calls_are_errors() -> None:
    add.delay("1", 2)  # type: ignore[arg-type]  # no int
    add.delay(1)  # type: ignore[call-arg]  # one is missing
    add.delay(1, 2, 3)  # type: ignore[call-arg]  # one too many
    add(1, "2")  # type: ignore[arg-type]  # no int
    shout.delay("a", tims=2)  # type: ignore[call-arg]  # no such parameter
    fetch.delay(3)  # type: ignore[arg-type]  # no str
    bound.delay("1")  # type: ignore[arg-type]  # no float; the context is not its first parameter
    bound_coroutine.delay()  # type: ignore[call-arg]  # one is missing
    add.apply_async((1, 2), countdwn=1.0)  # type: ignore[call-arg]  # no such choice
    app.task(queu="slow")  # type: ignore[call-overload]  # no such option
