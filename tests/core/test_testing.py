"""What `upshot.testing` gives to the tests of others."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from upshot import App, State, clock, current_task
from upshot.errors import (
    ConfigError,
    NotDrainedError,
    TaskExpiredError,
    TaskRevokedError,
    UnknownSettingError,
    UnreleasedResultsError,
)
from upshot.testing import Clock, drain, in_memory, require_released, run_due

pytest_plugins = ["pytester"]

HOUR = 3600.0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """Somebody's app, on a service of theirs."""
    with App("shop", broker=f"sqlite:///{tmp_path}/shop.db") as app:
        yield app


@pytest.fixture
def travelling() -> Iterator[Clock]:
    with Clock() as travelling:
        yield travelling


@pytest.fixture
def runs(app: App) -> list[str]:
    """What tasks have done; `mark` writes a word, `later` sends it, `again` fails two times."""
    runs: list[str] = []

    @app.task(name="mark")
    def mark(word: str) -> str:
        runs.append(word)
        return word

    @app.task(name="later")
    def later(word: str, seconds: float) -> None:
        mark.apply_async((word,), countdown=seconds, ignore_result=True)

    @app.task(name="again", max_retries=2, autoretry_for=(OSError,), retry_backoff=60.0)
    def again() -> int:
        runs.append(f"try {current_task().attempt}")
        if current_task().attempt < 3:
            raise OSError("not yet")
        return current_task().attempt

    return runs


# -- an app in memory ------------------------------------------------------------------------------


def test_an_app_is_in_memory_inside_the_block_and_where_it_was_after_it(
    app: App, runs: list[str]
) -> None:
    before, kept = app.backend_url, app.send_task("mark", ["kept"])

    with in_memory(app) as same:
        inside = app.send_task("mark", ["inside"])
        run_due(app)

        assert same is app
        assert app.broker_url.scheme == app.backend_url.scheme == "memory"
        assert inside.get(timeout=0) == "inside"
        assert app.AsyncResult(kept.id).state == State.PENDING

    assert runs == ["inside"]
    assert app.backend_url == before
    assert kept.state == State.QUEUED
    assert app.AsyncResult(inside.id).state == State.PENDING


def test_a_block_begins_with_nothing_and_leaves_nothing(app: App, runs: list[str]) -> None:
    with in_memory(app):
        app.send_task("mark", ["one"])
        app.send_task("mark", ["two"], countdown=HOUR)
        run_due(app)
        backend, broker = app.results.backend, app.broker.current
    assert list(backend.scan("", 1.0)) == []
    assert broker.survey(["default"], 1.0)["default"].delayed == 0

    with in_memory(app):
        drain(app)
        assert list(app.results.scan()) == []

    assert runs == ["one"]


def test_settings_count_inside_the_block(app: App) -> None:
    with in_memory(app, result_expires=5, namespace="inside"):
        assert app.settings.result_expires == 5
        assert app.settings.namespace == "inside"
        assert app.configuration.sources["namespace"] == "keyword"

    assert app.settings.result_expires == 86_400
    assert app.configuration.sources["namespace"] == "default"


@pytest.mark.parametrize("name", ["broker_url", "result_backend"])
def test_a_service_is_refused(app: App, name: str) -> None:
    with (
        pytest.raises(ConfigError, match=f"{name} is what in_memory chooses"),
        in_memory(app, **{name: "redis://localhost"}),
    ):
        pass


def test_a_setting_that_is_none_is_refused_and_changes_nothing(app: App) -> None:
    before = app.configuration

    with (
        pytest.raises(UnknownSettingError, match="result_expires"),
        in_memory(app, result_expire=5),
    ):
        pass

    assert app.configuration is before


def test_settings_are_not_overridden_while_a_worker_runs(app: App) -> None:
    with (
        in_memory(app),
        app.running(),
        pytest.raises(ConfigError, match=r"leave app\.running"),
        in_memory(app),
    ):
        pass


def test_what_the_settings_were_made_of_is_not_changed(app: App, tmp_path: Path) -> None:
    app.config_from_object({"namespace": "theirs"})

    with app.overridden(task_default_queue="ours"):
        app.config_from_object({"namespace": "inside"})
        assert (app.settings.namespace, app.settings.task_default_queue) == ("inside", "ours")

    assert (app.settings.namespace, app.settings.task_default_queue) == ("theirs", "default")


# -- running what was sent -------------------------------------------------------------------------


def test_what_is_due_is_run_with_all_that_it_sends(app: App, runs: list[str]) -> None:
    with in_memory(app):
        app.send_task("later", ["second", 0.0])
        app.send_task("mark", ["first"], priority=9)
        app.send_task("mark", ["in an hour"], countdown=HOUR)

        run_due(app)

    assert runs == ["first", "second"]


def test_tasks_run_in_the_thread_of_the_test(app: App) -> None:
    @app.task
    def where() -> int:
        return threading.get_ident()

    with in_memory(app):
        handle = where.delay()
        run_due(app)

        assert handle.get(timeout=0) == threading.get_ident()


def test_drain_travels_to_each_moment_in_turn(app: App, runs: list[str], travelling: Clock) -> None:
    begin = travelling.now
    with in_memory(app):
        app.send_task("mark", ["tomorrow"], countdown=20 * HOUR)
        app.send_task("later", ["in three hours", 2 * HOUR], countdown=HOUR)
        app.send_task("mark", ["now"])

        drain(app, travelling)

    assert runs == ["now", "in three hours", "tomorrow"]
    assert timedelta(hours=20) <= travelling.now - begin < timedelta(hours=21)


def test_repetitions_come_without_their_pauses(
    app: App, runs: list[str], travelling: Clock
) -> None:
    began = time.monotonic()
    with in_memory(app):
        handle = app.send_task("again")

        drain(app, travelling)

        assert handle.get(timeout=0) == 3
    assert runs == ["try 1", "try 2", "try 3"]
    assert time.monotonic() - began < 60


def test_without_a_clock_what_waits_for_a_moment_is_an_error(app: App, runs: list[str]) -> None:
    with in_memory(app):
        app.send_task("mark", ["now"])
        app.send_task("mark", ["in an hour"], countdown=HOUR)

        with pytest.raises(NotDrainedError, match=r"^1 message waits for a later moment"):
            drain(app)

    assert runs == ["now"]


def test_a_clock_does_not_travel_for_ever(app: App, runs: list[str], travelling: Clock) -> None:
    @app.task
    def for_ever() -> None:
        for_ever.apply_async(countdown=HOUR, ignore_result=True)

    with in_memory(app):
        for_ever.delay()
        with pytest.raises(NotDrainedError, match="give it a longer within="):
            drain(app, travelling, within=2.5 * HOUR)

        drained = travelling.now
        with pytest.raises(NotDrainedError):
            drain(app, travelling)

    assert timedelta(hours=22) < travelling.now - drained < timedelta(hours=25)


def test_a_broker_that_does_not_tell_the_next_moment_is_not_travelled(
    app: App, runs: list[str], travelling: Clock
) -> None:
    app.send_task("mark", ["in an hour"], countdown=HOUR)

    with pytest.raises(NotDrainedError, match="does not tell for which moment"):
        drain(app, travelling)


def test_other_queues_are_served_by_their_names(app: App, runs: list[str]) -> None:
    with in_memory(app):
        app.send_task("mark", ["mail"], queue="mail")
        drain(app)
        assert runs == []

        drain(app, queues=["mail"])

    assert runs == ["mail"]


def test_drain_waits_for_a_worker_beside_the_test(app: App) -> None:
    begun, may_end = threading.Event(), threading.Event()

    @app.task
    def wait() -> str:
        begun.set()
        assert may_end.wait(30)
        return "ended"

    with in_memory(app), app.running():
        handle = wait.delay()
        assert begun.wait(30)
        threading.Timer(0.05, may_end.set).start()

        drain(app)

        assert handle.get(timeout=0) == "ended"


def test_a_task_may_not_drain(app: App) -> None:
    @app.task
    def confused() -> None:
        drain(app)

    with in_memory(app):
        handle = confused.delay()
        run_due(app)

        with pytest.raises(ConfigError, match="waits for itself"):
            handle.get(timeout=0)


def test_a_failure_is_in_the_handle(app: App) -> None:
    @app.task
    def fail() -> None:
        raise LookupError("no tea")

    with in_memory(app):
        handle = fail.delay()
        drain(app)

        with pytest.raises(LookupError, match="no tea"):
            handle.get(timeout=0)


# -- the clock -------------------------------------------------------------------------------------


def test_both_clocks_move_together_and_are_restored() -> None:
    wall, steady = clock.now(), clock.monotonic()

    with Clock() as travelling:
        travelling.travel(HOUR)
        assert HOUR <= clock.now() - wall < 2 * HOUR
        assert HOUR <= clock.monotonic() - steady < 2 * HOUR
        assert travelling.now.tzinfo is UTC
        travelling.travel(0)

    assert 0 <= clock.monotonic() - steady < HOUR
    assert clock.now() - wall < HOUR


def test_a_clock_can_be_used_again_and_begins_anew() -> None:
    travelling = Clock()
    for _ in range(2):
        with travelling:
            began = clock.monotonic()
            travelling.travel(HOUR)
            assert HOUR <= clock.monotonic() - began < 2 * HOUR


def test_of_two_clocks_one_is_inside_the_other(travelling: Clock) -> None:
    inner = Clock()
    with inner:
        inner.travel(HOUR)
        with pytest.raises(ConfigError, match="leave it first"):
            travelling.__exit__()
        travelling.travel(HOUR)
        assert travelling.now > datetime.now(UTC) + timedelta(hours=1.9)
    assert travelling.now < datetime.now(UTC) + timedelta(hours=1.1)


def test_a_clock_travels_to_a_moment(travelling: Clock) -> None:
    moment = datetime.now(UTC) + timedelta(days=30)

    travelling.travel_to(moment)

    assert timedelta() <= travelling.now - moment < timedelta(minutes=1)


JOURNEYS: dict[str, Callable[[Clock], object]] = {
    "back": lambda travelling: travelling.travel(-1),
    "nan": lambda travelling: travelling.travel(float("nan")),
    "inf": lambda travelling: travelling.travel(float("inf")),
    "far": lambda travelling: travelling.travel(1e10),
    "past": lambda travelling: travelling.travel_to(datetime(2020, 1, 1, tzinfo=UTC)),
    "no-zone": lambda travelling: travelling.travel_to(datetime(2099, 1, 1)),
    "not-in-use": lambda travelling: Clock().travel(1),
    "twice": lambda travelling: travelling.__enter__(),
}


@pytest.mark.parametrize("journey", JOURNEYS.values(), ids=JOURNEYS)
def test_journeys_that_cannot_be_are_refused(
    travelling: Clock, journey: Callable[[Clock], object]
) -> None:
    with pytest.raises(ConfigError):
        journey(travelling)


def test_tasks_and_records_expire_when_their_time_has_come(
    app: App, runs: list[str], travelling: Clock
) -> None:
    with in_memory(app):
        ended = app.send_task("mark", ["now"])
        run_due(app)
        too_late = app.send_task("mark", ["too late"], expires=60.0)

        travelling.travel(120)
        run_due(app)
        with pytest.raises(TaskRevokedError) as caught:
            too_late.get(timeout=0)
        assert isinstance(caught.value.__cause__, TaskExpiredError | None)
        assert ended.state == State.SUCCESS

        travelling.travel(24 * HOUR)
        assert ended.state == State.PENDING

    assert runs == ["now"]


def test_a_journey_takes_no_task_from_a_worker_that_runs_it(app: App, travelling: Clock) -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    @app.task
    def wait() -> int:
        begun.release()
        assert may_end.wait(30)
        return current_task().attempt

    with in_memory(app), app.running(threads=2):
        handle = wait.delay()
        assert begun.acquire(timeout=30)

        travelling.travel(1000 * HOUR)
        may_end.set()

        assert handle.get(timeout=30) == 1
        assert not begun.acquire(blocking=False)


# -- released results ------------------------------------------------------------------------------


def test_results_that_were_read_forgotten_or_not_kept_are_released(
    app: App, runs: list[str]
) -> None:
    with in_memory(app):
        read, forgotten = app.send_task("mark", ["read"]), app.send_task("mark", ["forgotten"])
        app.send_task("mark", ["not kept"], ignore_result=True)
        drain(app)
        read.get(timeout=0)
        forgotten.forget()

        require_released(app)


def test_results_that_nobody_kept_a_handle_of_are_left(app: App, runs: list[str]) -> None:
    with in_memory(app):
        ids = [app.send_task("mark", [str(number)]).id for number in range(7)]
        kept = app.send_task("mark", ["kept"])

        with pytest.raises(UnreleasedResultsError) as caught:
            require_released(app)

        assert caught.value.task_ids == (*ids, kept.id)
        assert str(caught.value).startswith(
            f"8 results were neither read nor forgotten: mark {ids[0]} (QUEUED), mark {ids[1]}"
        )
        assert "and 3 more; call get()" in str(caught.value)


def test_an_expired_result_is_released(app: App, runs: list[str], travelling: Clock) -> None:
    with in_memory(app):
        app.send_task("mark", ["now"])
        drain(app)
        with pytest.raises(UnreleasedResultsError, match=r"^1 result was neither"):
            require_released(app)

        travelling.travel(24 * HOUR)

        require_released(app)


# -- without pytest, and with it -------------------------------------------------------------------


def test_the_plain_functions_need_no_pytest() -> None:
    program = """
        import sys

        sys.modules["pytest"] = None
        del sys.modules["pytest"]
        from upshot import App
        from upshot.testing import *

        app = App("shop")
        add = app.task(lambda x, y: x + y)
        with Clock() as clock, in_memory(app):
            handle = add.apply_async((2, 3), countdown=1000)
            drain(app, clock)
            print(handle.get(timeout=0), "pytest" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "5 False\n", done.stderr


SHOP = """
    from upshot import App

    app = App("shop", broker="redis://127.0.0.1:1", result_expires=900)

    @app.task(autoretry_for=(OSError,), max_retries=1, retry_backoff=300)
    def order(item):
        if item == "gold":
            raise OSError("none left")
        return f"one {item}"

    @app.task
    def orders(*items):
        return [order.delay(item).get(timeout=30) for item in items]
"""
SHOP_TESTS = """
    import pytest
    from shop import app, order, orders
    from upshot.testing import drain

    def test_a_drained_queue(upshot_app, upshot_clock, upshot_released):
        upshot_app(app)
        good, bad = order.delay("tea"), order.delay("gold")
        drain(app, upshot_clock)
        assert good.get(timeout=0) == "one tea"
        with pytest.raises(OSError):
            bad.get(timeout=0)
        assert bad.attempts == 2

    def test_a_worker(upshot_worker, upshot_released):
        upshot_worker(app)
        assert orders.delay("tea", "milk").get(timeout=30) == ["one tea", "one milk"]

    def test_tests_share_nothing(upshot_app):
        assert upshot_app(app) is upshot_app(app)
        assert list(app.results.scan()) == []
        assert app.settings.result_expires == 900

    def test_with_a_setting(upshot_app):
        upshot_app(app, result_expires=5)
        assert app.settings.result_expires == 5
        with pytest.raises(ValueError, match="in memory already"):
            upshot_app(app, result_expires=6)

    def test_a_result_is_left(upshot_app, upshot_released):
        upshot_app(app)
        order.delay("tea")

    def test_after_all_the_app_is_as_it_was():
        assert str(app.broker_url) == "redis://127.0.0.1:1"
        assert app.settings.result_expires == 900
"""


def test_a_project_of_somebody_else_is_tested_with_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["upshot.testing"]')
    pytester.makepyfile(shop=textwrap.dedent(SHOP), test_shop=textwrap.dedent(SHOP_TESTS))
    pytester.makeini("[pytest]\nfilterwarnings = error\n")

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")

    done.assert_outcomes(passed=6, errors=1)
    done.stdout.fnmatch_lines(["*UnreleasedResultsError: 1 result was neither read nor forgotten*"])
    done.stdout.fnmatch_lines(["ERROR test_shop.py::test_a_result_is_left*"])


def test_a_conftest_may_import_what_it_names_as_a_plugin(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('from upshot.testing import drain\n\npytest_plugins = ["upshot.testing"]')
    pytester.makepyfile("def test_it(upshot_app): pass")

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error")

    done.assert_outcomes(passed=1)


def test_fixtures_are_there_for_those_only_who_ask_for_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(upshot_app): pass")

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")

    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'upshot_app' not found*"])
