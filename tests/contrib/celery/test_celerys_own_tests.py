"""A slice of Celery's own integration tests on our backends; `make celery` runs all of them."""

from __future__ import annotations

import pytest
from scripts import celery_suite

TESTS = "t/integration/test_tasks.py"
SLICE = (
    "test_basic_task or test_fail or test_task_retried_once or test_wrong_arguments "
    "or test_ignore_result or test_class_based_task_retried or test_unicode_task"
)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("backend", ["upshot+redis", "upshot+postgresql"])
def test_celerys_own_tests_pass_on_our_backends(backend: str) -> None:
    outcomes = celery_suite.run(backend, celery_suite.prepared(), [TESTS], ["-k", SLICE])

    assert len(outcomes) >= 8
    assert [name for name, outcome in outcomes.items() if outcome == "failed"] == []
