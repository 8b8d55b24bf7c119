"""Spans of real workers on real services, as a collector gets them over OTLP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from upshot import App
from upshot_contrib.opentelemetry import instrument

from .collector import Collector, collecting

StartWorker = Callable[..., Any]

INSTRUMENTED = """

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from upshot_contrib.opentelemetry import instrument

provider = TracerProvider()
provider.add_span_processor(
    # A minute: what comes earlier comes because a process of the worker ends.
    BatchSpanProcessor(OTLPSpanExporter("{url}"), schedule_delay_millis=60_000)
)
trace.set_tracer_provider(provider)
instrument(app)


@app.task
def outer():
    return add.delay(1, 1).id


@app.task
async def aloud():
    import logging

    with trace.get_tracer("mine").start_as_current_span("mine"):
        logging.getLogger("shop").warning("here")
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def app(project: Path, collector: Collector) -> Iterator[App]:
    """The caller's side; its spans go to the collector one by one."""
    jobs = project / "jobs.py"
    jobs.write_text(jobs.read_text() + INSTRUMENTED.replace("{url}", collector.url))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(collector.url)))
    with App() as app:
        instrument(app, tracer_provider=provider)
        yield app
    provider.shutdown()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_spans_of_three_processes_belong_together(
    app: App, start_worker: StartWorker, collector: Collector
) -> None:
    worker = start_worker("-c", "2")
    inner_id = app.send_task("jobs.outer").get(timeout=30)
    assert app.AsyncResult(inner_id).get(timeout=30) == 2  # by nothing but its id
    assert worker.stop() == 0

    runs = {span.name: span for span in collector.wait_for(2, "process")}
    reads = collector.wait_for(2, "get")
    outer, inner = runs["process jobs.outer"], runs["process jobs.add"]
    sends = {span.span_id: span for span in collector.wait_for(2, "send")}
    assert {span.trace_id for span in (outer, inner, *sends.values())} == {outer.trace_id}
    assert sends[inner.parent_span_id].parent_span_id == outer.span_id
    assert sends[outer.parent_span_id].parent_span_id == b""
    linked = [link.span_id for span in reads for link in span.links]
    assert linked == [outer.span_id, inner.span_id]
    assert outer.kind == Span.SPAN_KIND_CONSUMER


def test_a_time_limit_takes_no_span_with_it(
    app: App, start_worker: StartWorker, collector: Collector
) -> None:
    start_worker("-c", "1")
    handle = app.send_task("jobs.endless")
    handle.exception(timeout=30)

    (run,) = collector.wait_for(1, "process")
    (read,) = collector.wait_for(1, "get")
    assert attributes(run)["error.type"] == "upshot.errors.TimeLimitExceededError"
    assert run.status.code == Status.STATUS_CODE_ERROR
    assert [link.span_id for link in read.links] == [run.span_id]


def test_a_process_that_dies_leaves_the_next_attempt_in_the_same_trace(
    app: App, start_worker: StartWorker, collector: Collector
) -> None:
    worker = start_worker("-c", "1")
    handle = app.send_task("jobs.die")
    handle.exception(timeout=60)
    assert worker.stop() == 0

    (last,) = collector.wait_for(1, "process")  # those before went down with their processes
    (sent,) = collector.wait_for(1, "send")
    assert attributes(last)["error.type"] == "upshot.errors.WorkerLostError"
    assert last.parent_span_id == sent.span_id


def test_log_lines_in_json_name_the_trace(
    app: App, start_worker: StartWorker, collector: Collector
) -> None:
    worker = start_worker("-c", "1", "--log-format", "json")
    handle = app.send_task("jobs.aloud")
    handle.get(timeout=30)
    assert worker.stop() == 0

    (run,) = collector.wait_for(1, "process")
    lines = [json.loads(line) for line in worker.output().splitlines()]
    about = [line for line in lines if line.get("task_id") == handle.id]
    assert len(about) == 2
    for line in about:
        assert line["trace_id"] == run.trace_id.hex()
        assert line["span_id"] == run.span_id.hex()
