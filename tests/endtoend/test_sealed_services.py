"""Every broker with keys: what goes round it, delayed and repeated, is still what was sealed."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from upshot import App, current_task
from upshot.keyring import new_key

from .services import SERVICES, Service

BROKERS = [
    pytest.param(each, id=each.broker or each.name)
    for each in SERVICES
    if each.broker or each.name in {"memory", "mariadb"}
]
PATIENCE = 60.0


@pytest.mark.parametrize("service", BROKERS)
def test_a_sealed_task_is_delayed_and_repeated_and_comes_home(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = service.find(request, tmp_path)
    app = App(
        broker=url,
        backend="rpc://" if url.startswith("amqp:") else url,
        namespace=uuid.uuid4().hex,
        no_worker_warning=None,
        signing_keys=[new_key("a")],
        encryption_keys=[new_key("b")],
        result_compression="gzip",
        result_compression_threshold=1000,
    )

    @app.task(autoretry_for=(KeyError,), max_retries=2, retry_backoff=0.1, queue="second")
    def third(text: str) -> str:
        if current_task().attempt < 3:
            raise KeyError(text)
        return text * 1000

    with app, app.running(queues=["default", "second"]):
        late = third.apply_async(["late"], countdown=0.3, priority=5)
        many = third.map(["a", "b", "c"])

        assert late.get(timeout=PATIENCE) == "late" * 1000
        assert many.get(timeout=PATIENCE) == ["a" * 1000, "b" * 1000, "c" * 1000]
        assert late.attempts == 3
        late.forget()
        many.forget()
