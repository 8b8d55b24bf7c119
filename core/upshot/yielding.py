"""Tasks that yield: what they are, and how one is run to its end, an item at a time."""

from __future__ import annotations

import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import TYPE_CHECKING, Any, Final, cast

from upshot.context import ItemSink, TaskContext, running

if TYPE_CHECKING:
    from upshot.record import Payload

__all__ = [
    "drain",
    "drain_async",
    "generator_type",
    "in_context",
    "in_context_async",
    "is_generator",
    "item_type",
]

_Encode = Callable[[object], "Payload"]

_ITERABLES: Final = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)
_WITH_A_VALUE: Final = 3  # arguments of `Generator[item, sent, returned]`


def is_generator(function: Callable[..., Any]) -> bool:
    """Tell whether calling a function makes a generator, or an asynchronous one."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def generator_type(annotation: object) -> object:
    """Return the `Generator[…]` that a generator function's return annotation means.

    `Iterator[int]` and its like say what is yielded, and that None is returned. None for an
    annotation that says nothing of either.
    """
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) not in _ITERABLES or not arguments:
        return None
    is_full = typing.get_origin(annotation) is Generator and len(arguments) == _WITH_A_VALUE
    generator: Any = Generator  # its parameters are known when it runs
    return cast("object", generator[arguments[0], None, arguments[-1] if is_full else None])


def item_type(annotation: object) -> object:
    """Return what is yielded, of what `generator_type` returned; None if that is not known."""
    is_known = typing.get_origin(annotation) is Generator
    return typing.get_args(annotation)[0] if is_known else None


def drain(
    items: Generator[Any, Any, Any], sink: Callable[[], ItemSink | None], encode: _Encode
) -> Any:
    """Run a generator to its end, and return what it returns.

    It is closed in any case: what it has in `finally` blocks is run here. None is returned for one
    that was closed because nobody wants its items any more.

    Args:
        items: what the task's function returned.
        sink: returns where items go; None if they are not kept.
        encode: makes an item's payload; what it raises ends the task.
    """
    try:
        kept = sink()
        while True:
            try:
                value = next(items)
            except StopIteration as end:
                return end.value
            if kept is not None and kept.add(encode(value)) and not kept.flush():
                return None
    finally:
        items.close()


async def drain_async(
    items: AsyncGenerator[Any, Any], sink: Callable[[], ItemSink | None], encode: _Encode
) -> None:
    """Run an asynchronous generator to its end, as `drain` does; the loop runs on meanwhile."""
    import asyncio  # takes longer to import than all that declaring a task does

    try:
        kept = sink()
        async for value in items:
            if kept is None or not kept.add(encode(value)):
                continue
            if not await asyncio.to_thread(kept.flush):
                return
    finally:
        await items.aclose()


def in_context(items: Generator[Any, Any, Any], context: TaskContext) -> Generator[Any, Any, Any]:
    """Yield what a generator does; each step of it runs with `context` as its current task."""
    try:
        while True:
            with running(context):
                try:
                    value = next(items)
                except StopIteration as end:
                    return end.value
            yield value
    finally:
        with running(context):
            items.close()


async def in_context_async(
    items: AsyncGenerator[Any, Any], context: TaskContext
) -> AsyncGenerator[Any, Any]:
    """Yield what an asynchronous generator does, as `in_context`."""
    try:
        while True:
            with running(context):
                try:
                    value = await anext(items)
                except StopAsyncIteration:
                    return
            yield value
    finally:
        with running(context):
            await items.aclose()
