"""The spans of one process, by the SDK's own exporter: names, attributes, parents and links."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv.attributes import (
    error_attributes,
    exception_attributes,
    server_attributes,
)
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode

from upshot import App, State, current_task
from upshot.errors import ConfigError, ResultTimeoutError, ServiceUnavailableError
from upshot.message import Message
from upshot.observing import Run
from upshot.record import Payload
from upshot_contrib.opentelemetry import instrument

Spans = Callable[[str], list[ReadableSpan]]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made
    made.shutdown()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    """Returns the spans whose names begin in that way, in the order of their ends."""

    def found(beginning: str = "") -> list[ReadableSpan]:
        ended = exporter.get_finished_spans()
        return [span for span in ended if span.name.startswith(beginning)]

    return found


@pytest.fixture
def app(provider: TracerProvider) -> Iterator[App]:
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, task_retry_backoff=0) as app:
        instrument(app, tracer_provider=provider)
        yield app


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id  # type: ignore[union-attr]


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def trace_of(span: ReadableSpan) -> int:
    return span.get_span_context().trace_id  # type: ignore[union-attr]


def test_a_task_is_one_trace_from_its_sending_to_its_reading(
    app: App, spans: Spans, provider: TracerProvider
) -> None:
    @app.task(name="shop.add", queue="sums")
    def add(x: int, y: int) -> int:
        return x + y

    with app.running(), provider.get_tracer("test").start_as_current_span("request") as request:
        handle = add.delay(2, 3)
        assert handle.get(timeout=10) == 5

    (sent,), (run,), (read,) = spans("send"), spans("process"), spans("get")
    assert (sent.name, run.name, read.name) == ("send sums", "process shop.add", "get sums")
    kinds = (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT)
    assert (sent.kind, run.kind, read.kind) == kinds
    outer = request.get_span_context()
    assert {trace_of(span) for span in (sent, run, read)} == {outer.trace_id}
    assert parent_of(sent) == outer.span_id
    assert parent_of(run) == id_of(sent)
    assert run.parent is not None
    assert run.parent.is_remote
    assert parent_of(read) == outer.span_id
    assert linked(run) == [id_of(sent)]
    assert linked(read) == [id_of(run)]
    assert attributes(sent) == {
        "messaging.system": "upshot",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "sums",
        "messaging.message.id": handle.id,
        "upshot.task.name": "shop.add",
    }
    assert attributes(run) == {
        "messaging.system": "upshot",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "sums",
        "messaging.message.id": handle.id,
        "messaging.client.id": handle.worker,
        "upshot.task.name": "shop.add",
        "upshot.task.attempt": 1,
        "upshot.task.retries": 0,
        "upshot.task.state": "SUCCESS",
    }
    assert attributes(read) == {
        "messaging.system": "upshot",
        "messaging.operation.type": "receive",
        "messaging.operation.name": "get",
        "messaging.destination.name": "sums",
        "messaging.message.id": handle.id,
        "upshot.task.name": "shop.add",
        "upshot.task.state": "SUCCESS",
    }
    assert {span.status.status_code for span in (sent, run, read)} == {StatusCode.UNSET}


def test_all_names_are_those_of_the_conventions(app: App, spans: Spans) -> None:
    @app.task(name="shop.fail")
    def fail() -> None:
        raise OSError("no")

    with app.running():
        fail.map([(), ()]).get(timeout=10, propagate=False)

    name = "opentelemetry.semconv._incubating.attributes.messaging_attributes"
    messaging_attributes = importlib.import_module(name)  # nothing of messaging is stable yet
    known = {
        value
        for module in (messaging_attributes, error_attributes, server_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    found = {name for span in spans("") for name in attributes(span)}
    assert {name for name in found if not name.startswith("upshot.")} <= known
    scopes = {span.instrumentation_scope for span in spans("")}
    assert {scope and scope.name for scope in scopes} == {"upshot"}
    assert {scope and scope.schema_url for scope in scopes} == {Schemas.V1_44_0.value}


def test_the_address_of_the_broker_stands_there_without_its_password(
    provider: TracerProvider, spans: Spans
) -> None:
    url = "redis://shop:hunter2secret@127.0.0.1:1/0"  # nobody listens there
    with App(broker=url, operation_timeout=0.1) as app:
        instrument(app, tracer_provider=provider)
        with pytest.raises(ServiceUnavailableError):
            app.send_task("shop.add")

    (sent,) = spans("send")
    assert attributes(sent)["server.address"] == "127.0.0.1"
    assert attributes(sent)["server.port"] == 1
    assert attributes(sent)["error.type"] == "upshot.errors.ServiceUnavailableError"
    assert sent.status.status_code is StatusCode.ERROR
    assert "hunter2secret" not in sent.to_json()


def test_a_failure_is_an_event_of_the_run_and_none_of_the_reading(app: App, spans: Spans) -> None:
    @app.task(name="shop.pay")
    def pay(card: str) -> None:
        raise PermissionError("redis://u:hunter2secret@h is not \udc80 for you")

    with app.running(), pytest.raises(PermissionError):
        pay.delay("4111-1111").get(timeout=10)

    (run,), (read,) = spans("process"), spans("get")
    assert attributes(run)["error.type"] == "PermissionError"
    assert attributes(run)["upshot.task.state"] == "FAILURE"
    assert run.status.status_code is StatusCode.ERROR
    (event,) = run.events
    told = dict(event.attributes or {})
    assert event.name == "exception"
    assert set(told) <= {*map(str, vars(exception_attributes).values())}
    assert told["exception.type"] == "PermissionError"
    assert told["exception.message"] == r"redis://u:***@h is not \udc80 for you"
    assert str(told["exception.stacktrace"]).startswith("Traceback (most recent call last):")
    assert "hunter2secret" not in run.to_json()
    assert "4111" not in run.to_json()
    assert read.status.status_code is StatusCode.UNSET
    assert attributes(read)["upshot.task.state"] == "FAILURE"
    assert linked(read) == [id_of(run)]


def test_each_attempt_is_a_child_of_the_sending(app: App, spans: Spans) -> None:
    @app.task(name="shop.shaky", autoretry_for=(OSError,), max_retries=2)
    def shaky() -> None:
        if current_task().retries == 0:
            raise OSError("no")
        if current_task().retries == 1:
            current_task().retry(countdown=0)

    with app.running():
        shaky.delay().get(timeout=10)

    (sent,), runs, (read,) = spans("send"), spans("process"), spans("get")
    assert [attributes(run)["upshot.task.state"] for run in runs] == ["RETRY", "RETRY", "SUCCESS"]
    assert [attributes(run)["upshot.task.attempt"] for run in runs] == [1, 2, 3]
    assert [attributes(run).get("error.type") for run in runs] == ["OSError", None, None]
    assert set(map(parent_of, runs)) == {id_of(sent)}
    assert linked(read) == [id_of(runs[-1])]


def test_a_batch_is_one_span_and_its_runs_have_traces_of_their_own(app: App, spans: Spans) -> None:
    @app.task(name="shop.double")
    def double(n: int) -> int:
        return 2 * n

    with app.running():
        assert double.map([1, 2, 3]).get(timeout=10) == [2, 4, 6]

    (sent,), runs, (read,) = spans("send"), spans("process"), spans("get")
    assert attributes(sent)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(sent)
    assert [run.parent for run in runs] == [None] * 3
    assert len({trace_of(run) for run in runs} | {trace_of(sent)}) == 4
    assert [linked(run) for run in runs] == [[id_of(sent)]] * 3
    assert sorted(linked(read)) == sorted(map(id_of, runs))
    assert attributes(read)["messaging.batch.message_count"] == 3


def test_the_context_goes_on_to_what_a_task_sends_and_with_it_baggage(
    app: App, spans: Spans, provider: TracerProvider
) -> None:
    tracer = provider.get_tracer("test")

    @app.task(name="shop.inner")
    def inner() -> object:
        return baggage.get_baggage("customer")

    @app.task(name="shop.outer")
    async def outer() -> str:
        await asyncio.sleep(0)
        with tracer.start_as_current_span("mine"):
            return inner.delay().id

    @app.task(name="shop.stream")
    def stream() -> Iterator[int]:
        with tracer.start_as_current_span("yielding"):
            yield trace.get_current_span().get_span_context().trace_id

    with app.running():
        token = context.attach(baggage.set_baggage("customer", "7"))
        try:
            handle, streamed = outer.delay(), stream.delay()
        finally:
            context.detach(token)
        assert app.AsyncResult(handle.get(timeout=10)).get(timeout=10) == "7"
        (seen,) = streamed.stream(timeout=10)

    outer_run, mine = spans("process shop.outer")[0], spans("mine")[0]
    sent = next(span for span in spans("send") if parent_of(span) == id_of(mine))
    assert parent_of(mine) == id_of(outer_run)
    inner_run = spans("process shop.inner")[0]
    assert parent_of(inner_run) == id_of(sent)
    assert trace_of(spans("yielding")[0]) == seen == trace_of(spans("process shop.stream")[0])


def test_a_context_that_a_caller_gives_is_kept_and_linked(app: App, spans: Spans) -> None:
    @app.task(name="shop.given")
    def given() -> dict[str, object]:
        return dict(current_task().headers)

    header = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "own": [1]}
    with app.running():
        assert given.apply_async(headers=header).get(timeout=10) == header

    (sent,), (run,) = spans("send"), spans("process")
    assert linked(sent) == [0xBBBBBBBBBBBBBBBB]
    assert parent_of(run) == 0xBBBBBBBBBBBBBBBB


def test_awaiting_is_a_reading_too_and_a_timeout_its_failure(app: App, spans: Spans) -> None:
    @app.task(name="shop.one")
    def one() -> int:
        return 1

    async def awaited() -> None:
        with pytest.raises(ResultTimeoutError):
            await one.apply_async(countdown=60).aget(timeout=0)
        assert await one.delay() == 1
        assert await one.map([(), ()]) == [1, 1]
        waiting = asyncio.ensure_future(one.apply_async(countdown=60).aget())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with app.running():
        asyncio.run(awaited())

    errors = [attributes(span).get("error.type") for span in spans("get")]
    assert errors == [
        "upshot.errors.ResultTimeoutError", None, None, "asyncio.exceptions.CancelledError",
    ]  # fmt: skip


def test_a_task_that_is_not_run_leaves_a_span(app: App, spans: Spans) -> None:
    with app.running():
        app.send_task("shop.nobody").exception(timeout=10)

    (sent,), (run,) = spans("send"), spans("process")
    assert attributes(run)["error.type"] == "upshot.errors.UnknownTaskError"
    assert attributes(run)["upshot.task.state"] == "FAILURE"
    assert linked(run) == [id_of(sent)]


def test_a_time_limit_ends_the_span_and_the_reader_finds_it(app: App, spans: Spans) -> None:
    release = threading.Event()

    @app.task(name="shop.endless", time_limit=0.1)
    def endless() -> None:
        release.wait(30)

    with app.running():
        endless.delay().exception(timeout=10)
        deadline = time.monotonic() + 30
        while not spans("process") and time.monotonic() < deadline:
            time.sleep(0.02)
        release.set()

    (run,), (read,) = spans("process"), spans("get")
    assert attributes(run)["error.type"] == "upshot.errors.TimeLimitExceededError"
    assert linked(read) == [id_of(run)]


def test_a_call_whose_key_is_taken_says_so(app: App, spans: Spans) -> None:
    @app.task(name="shop.once")
    def once() -> None: ...

    first, second = once.apply_async(key="k"), once.apply_async(key="k")

    sent = spans("send")
    assert first.id == second.id
    assert [attributes(span).get("upshot.repeats") for span in sent] == [None, 1]
    assert {attributes(span)["messaging.message.id"] for span in sent} == {first.id}


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": 1},
        {"traceparent": "00-zz"},
        {"traceparent": ["00"], "tracestate": {}},
        {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"},
        {"baggage": "=" * 20_000, "tracestate": "\x00"},
        {"upshot-batch": None},
    ],
)
def test_headers_of_whatever_make_break_no_task(
    headers: dict[str, Any], app: App, spans: Spans
) -> None:
    @app.task(name="shop.fine")
    def fine() -> int:
        return 1

    with app.running():
        assert fine.apply_async(headers=headers).get(timeout=10) == 1

    assert [attributes(span)["upshot.task.state"] for span in spans("process")] == [State.SUCCESS]


def test_a_process_that_ends_ends_what_runs_in_it(
    app: App, spans: Spans, provider: TracerProvider
) -> None:
    (observer,) = app.observers
    message = Message(task_id="1", name="shop.cut", arguments=Payload("json", b""), queue="q")
    run = observer.running(Run(message, 1, "w"))
    run.__enter__()
    observer.closing()
    run.__exit__(None, None, None)

    (cut,) = spans("process")
    assert attributes(cut)["error.type"] == "upshot.errors.WorkerLostError"
    assert cut.status.status_code is StatusCode.ERROR


def test_without_an_sdk_nothing_is_made_and_all_goes_on() -> None:
    program = """
from upshot import App
from upshot_contrib.opentelemetry import instrument
app = App(broker="memory://", backend="memory://")
instrument(app)

@app.task(name="one")
def one():
    from upshot import current_task
    return dict(current_task().headers)

with app.running():
    print(one.delay().get(timeout=20))
import sys
print("opentelemetry.sdk" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["{}", "False"]
    assert done.stderr == ""


def test_it_is_said_once_and_what_is_missing_is_named(app: App, provider: TracerProvider) -> None:
    with pytest.raises(ConfigError, match=r"call instrument\(\) once"):
        instrument(app, tracer_provider=provider)
    program = "import sys; sys.modules['opentelemetry'] = None; import upshot_contrib.opentelemetry"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert 'pip install "upshot[opentelemetry]"' in done.stderr


def test_another_propagator_carries_as_well(
    app: App, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Single(TextMapPropagator):
        """Puts the context into one header of another name."""

        @property
        def fields(self) -> set[str]:
            return {"x-trace"}

        def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
            found = trace.get_current_span(context).get_span_context()
            carrier["x-trace"] = f"{found.trace_id:x}/{found.span_id:x}"

        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
            trace_id, _, span_id = carrier.get("x-trace", "0/0").partition("/")
            found = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True)
            return trace.set_span_in_context(trace.NonRecordingSpan(found), context)

    monkeypatch.setattr(propagate, "propagator", Single())

    @app.task(name="shop.two")
    def two() -> int:
        return 2

    with app.running():
        assert two.delay().get(timeout=10) == 2

    (sent,), (run,), (read,) = spans("send"), spans("process"), spans("get")
    assert linked(run) == [id_of(sent)]
    assert linked(read) == [id_of(run)]
