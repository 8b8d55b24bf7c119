"""One run of one message, from its bytes to the records it leaves. No I/O of its own.

The worker stores what this module makes: `started()` before the run, then what `run()` returns:
`Finished`, or `Again` when the task is to be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, cast, final

from upshot import clock, yielding
from upshot.context import ItemSink, Reporter, TaskContext, running
from upshot.errors import (
    ConfigError,
    DecodeError,
    Retry,
    SerializationError,
    SoftTimeLimitExceededError,
    TaskError,
    TaskExpiredError,
)
from upshot.message import Message, RetryPolicy
from upshot.observing import Observer, Run, Watch
from upshot.outcome import encode_failure, encode_value
from upshot.record import Payload, Record
from upshot.retrying import jitter
from upshot.serializers import Codecs, shape
from upshot.spec import TaskSpec
from upshot.states import State

__all__ = [
    "Again",
    "AroundTask",
    "Execution",
    "Finished",
    "Outcome",
    "SoftLimit",
    "call",
    "in_hand",
]

AroundTask = Callable[[], AbstractContextManager[object]]
"""Makes what is entered before the function of a task is called, and left after it has returned."""

SoftLimit = Callable[[float], AbstractContextManager[None]]
"""Makes a context manager that raises SoftTimeLimitExceededError in its block after so long."""

in_hand: Final[ContextVar[Execution | None]] = ContextVar("upshot_in_hand", default=None)
"""What this thread or coroutine of a worker is at; logs say so."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The task has ended; `record` is terminal."""

    record: Record


@dataclass(frozen=True, slots=True)
class Again:
    """The attempt has ended, the task has not: store `record`, then send `message`."""

    record: Record
    message: Message


Outcome = Finished | Again

_OUR_FOLDER: Final = os.path.dirname(__file__) + os.sep
_LOOPS: Final = frozenset({asyncio.runners.__file__, asyncio.base_events.__file__})
_LONGEST_DELAY: Final = 100 * 365 * 86_400.0  # seconds: later than any task is meant to run
_AS_TASK: Final = -1.0  # in a message: the limit is the task's own


@final
class Execution:
    """One attempt of one message.

    Args:
        message: what was sent.
        spec: the task it names; None if nobody registered it here.
        attempt: its number, redeliveries counted.
        worker: who runs it.
        token: the delivery's; a later delivery has another one.
        codecs: for arguments and outcome.
        around_task: what it raises, the task has raised.
        observers: who looks on.
    """

    def __init__(
        self,
        message: Message,
        *,
        spec: TaskSpec | None,
        attempt: int,
        worker: str,
        token: str,
        codecs: Codecs,
        around_task: AroundTask = contextlib.nullcontext,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.message = message
        self.spec = spec
        self.attempt = attempt
        self.token = token
        self._codecs = codecs
        self._around_task = around_task
        self._observers = observers
        self.observed: Run | None = None  # what observers know of the run, once it has begun
        self._raised: BaseException | None = None
        self._begun = Record(
            task_id=message.task_id,
            state=State.STARTED,
            attempt=attempt,
            name=message.name,
            queue=message.queue,
            worker=worker,
            token=token,
            queued_at=message.queued_at,
        )

    @property
    def time_limit(self) -> float | None:
        """Seconds until the hard limit, None for none."""
        return _limit(self.message.time_limit, self.spec.time_limit if self.spec else None)

    @property
    def soft_time_limit(self) -> float | None:
        """Seconds until the soft limit, None for none."""
        return _limit(
            self.message.soft_time_limit, self.spec.soft_time_limit if self.spec else None
        )

    @property
    def ignore_result(self) -> bool:
        """Whether no record is to be stored."""
        return self.message.ignore_result

    def started(self) -> Record:
        """Return the record that begins the attempt; the clock of the run starts here."""
        self._begun = self._begun._replace(started_at=clock.now())
        return self._begun

    def resume(self, known: Record) -> None:
        """Take over what an earlier attempt, whose worker was lost, left in its record."""
        self._begun = self._begun._replace(
            attempt=known.attempt,
            worker=known.worker,
            started_at=known.started_at,
            info=known.info,
        )

    def progress(self, info: Mapping[str, Any]) -> Record:
        """Return a STARTED record that reports `info`; later records keep it.

        Raises:
            EncodeError: `info` cannot be encoded.
        """
        self._begun = self._begun._replace(
            info=encode_value(self._codecs, dict(info), root="progress")
        )
        return self._begun

    def run(
        self,
        reporter: Reporter | None,
        *,
        soft_limit: SoftLimit | None = None,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    ) -> Outcome:
        """Call the function, and return what came of it. Raises nothing the task raised.

        Args:
            reporter: how the task reaches its worker.
            soft_limit: a context manager that raises SoftTimeLimitExceededError inside a `def`
                task after so many seconds; an `async def` task is cancelled by its loop.
            run_coroutine: runs an `async def` task to its end.
        """
        if not self._observers:
            return self._run(reporter, soft_limit, run_coroutine)
        run = self.observed = Run(self.message, self.attempt, self._begun.worker)
        with Watch(self._observers, lambda each: each.running(run)):
            outcome = self._run(reporter, soft_limit, run_coroutine)
            run.state = outcome.record.state
            run.exception = None if run.state == State.SUCCESS else self._raised
        self._raised = run.exception = None  # with what its frames keep alive
        return outcome

    def _run(
        self,
        reporter: Reporter | None,
        soft_limit: SoftLimit | None,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> Outcome:
        if (spec := self.spec) is None:
            raise AssertionError("the worker refuses unknown tasks before running them")
        context = self.context(reporter)
        try:
            args, kwargs = self._arguments(spec)
            with running(context), self._around_task():
                value = call(
                    spec,
                    context,
                    args,
                    kwargs,
                    soft_time_limit=self.soft_time_limit,
                    soft_limit=soft_limit,
                    run_coroutine=run_coroutine,
                    sink=None if reporter is None else reporter.stream,
                    encode=partial(self._encode_item, spec.serializer),
                )
            outcome = encode_value(self._codecs, value, serializer=spec.serializer)
        except Retry as exc:
            reason = exc.reason or exc.__context__
            return self._again(reason or exc, exc.countdown, spec)
        except SerializationError as exc:
            return Finished(self.failed(exc))
        except BaseException as exc:  # a task may raise anything, and its worker lives on
            # By type: an exception may lie about its class, or raise when it is asked for it.
            if issubclass(type(exc), spec.autoretry_for) and not issubclass(
                type(exc), SoftTimeLimitExceededError
            ):
                return self._again(exc, None, spec)
            return Finished(self.failed(exc))
        return Finished(self._ended(State.SUCCESS, outcome, clock.now()))

    def failed(self, exc: BaseException) -> Record:
        """Return the FAILURE record for `exc`; REVOKED if the message had expired."""
        state = State.REVOKED if type(exc) is TaskExpiredError else State.FAILURE
        return self._ended(state, self._described(exc), clock.now())

    def _ended(self, state: State, outcome: Payload, at: float | None = None) -> Record:
        """Return the record that ends the attempt, with what observers have noted of it."""
        token = self._begun.token
        token = self.observed.noted(token) if self.observed else token
        return self._begun._replace(state=state, finished_at=at, outcome=outcome, token=token)

    def _encode_item(self, serializer: str | None, value: object) -> Payload:
        return encode_value(self._codecs, value, serializer=serializer, root="item")

    def _described(self, exc: BaseException) -> Payload:
        self._raised = exc if self._observers else None
        try:
            _hide_our_frames(exc)
            return encode_failure(self._codecs, exc)
        except Exception as flaw:  # whatever the exception does, the task must have an end
            kind = type.__repr__(type(exc))
            crude = TaskError(f"the task raised {kind}, which cannot be looked at: {type(flaw)!r}")
            return encode_failure(self._codecs, crude)

    def context(self, reporter: Reporter | None) -> TaskContext:
        """Return what `current_task()` gives during the run."""
        message, spec = self.message, self.spec
        policy = message.retry or (None if spec is None else spec.retry)
        return TaskContext(
            task_id=message.task_id,
            name=message.name,
            queue=message.queue,
            attempt=self.attempt,
            retries=message.retries,
            max_retries=None if policy is None else policy.max_retries,
            headers=message.headers,
            worker=self._begun.worker,
            reporter=reporter,
        )

    def _arguments(self, spec: TaskSpec) -> tuple[list[Any], dict[str, Any]]:
        payload = self.message.arguments
        decoded = self._codecs.decode(payload.content_type, payload.body)
        match decoded:
            case [list(), dict()]:
                args = cast("list[Any]", decoded[0])
                kwargs = cast("dict[str, Any]", decoded[1])
                return _shaped(spec, args, kwargs) if spec.parameters else (args, kwargs)
            case _:
                raise DecodeError("a message's arguments are a list and a mapping")

    def _again(self, exc: BaseException, countdown: float | None, spec: TaskSpec) -> Outcome:
        """Repeat the task after `exc`, or let it fail if no repetition is left."""
        message = self.message
        policy = message.retry or spec.retry
        if policy.max_retries is not None and message.retries >= policy.max_retries:
            return Finished(self.failed(exc))
        if countdown is not None and not _is_delay(countdown):
            wrong = ConfigError(f"retry: countdown is seconds, not {countdown!r}")
            wrong.__cause__ = exc
            return Finished(self.failed(wrong))
        record = self._ended(State.RETRY, self._described(exc))
        delay = _delay(policy, message.retries) if countdown is None else max(0.0, countdown)
        again = message._replace(
            attempt=self.attempt + 1,
            retries=message.retries + 1,
            eta=clock.now() + delay,
        )
        return Again(record, again)


def _limit(sent: float | None, own: float | None) -> float | None:
    return own if sent == _AS_TASK else sent


def call(
    spec: TaskSpec,
    context: TaskContext,
    args: list[Any] | tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    soft_time_limit: float | None = None,
    soft_limit: SoftLimit | None = None,
    run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    sink: Callable[[], ItemSink | None] | None,
    encode: Callable[[object], Payload],
) -> Any:
    """Call the task's function under its soft limit and return its value.

    That of a generator is what it returns in the end; what it yields goes where `sink` says.
    """
    if spec.bind:
        args = [context, *args]
    if inspect.iscoroutinefunction(spec.function):
        return run_coroutine(_limited(spec.function(*args, **kwargs), soft_time_limit))
    sink = sink or _nowhere
    with _soft(soft_limit, soft_time_limit):
        value = spec.function(*args, **kwargs)
        if isinstance(value, GeneratorType):
            return yielding.drain(cast("Generator[Any, Any, Any]", value), sink, encode)
    if isinstance(value, AsyncGeneratorType):
        items = cast("AsyncGenerator[Any, Any]", value)
        return run_coroutine(_limited(yielding.drain_async(items, sink, encode), soft_time_limit))
    return value


def _nowhere() -> None:
    """Return where items go that nobody keeps."""


def _soft(soft_limit: SoftLimit | None, seconds: float | None) -> AbstractContextManager[None]:
    if soft_limit is None or seconds is None:
        return contextlib.nullcontext()
    return soft_limit(seconds)


async def _limited(coroutine: Coroutine[Any, Any, Any], seconds: float | None) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await coroutine
    except TimeoutError as exc:
        if limit.expired():
            raise SoftTimeLimitExceededError(f"the task ran longer than {seconds} seconds") from exc
        raise


def _shaped(
    spec: TaskSpec, args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Bring dataclass arguments into the types that the parameters name."""
    names = list(inspect.signature(spec.function).parameters)[int(spec.bind) :]
    shaped = [
        shape(value, spec.parameters.get(name), root=name)
        for name, value in zip(names, args, strict=False)
    ]
    return [*shaped, *args[len(shaped) :]], {
        name: shape(value, spec.parameters.get(name), root=name) for name, value in kwargs.items()
    }


def _hide_our_frames(exc: BaseException) -> None:
    """Let the traceback begin where the user's code does."""
    trace = exc.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    if trace is not None:
        exc.__traceback__ = trace


def _is_ours(file: str) -> bool:
    return file.startswith(_OUR_FOLDER) or file in _LOOPS


def _is_delay(countdown: object) -> bool:
    return type(countdown) in (int, float) and -math.inf < cast("float", countdown) < _LONGEST_DELAY


def _delay(policy: RetryPolicy, retries: int) -> float:
    """Return the seconds before the next repetition: doubling, bounded, with full jitter."""
    longest = min(policy.backoff_max, policy.backoff * 2.0 ** min(retries, 64))
    return jitter(0, longest) if policy.jitter else longest
