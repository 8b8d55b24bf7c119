"""Groups, chains and chords, run by a real worker, on each service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.contrib.celery.conftest import PATIENCE, QUIET, Setting, comes_true, new_id
from tests.contrib.celery.untyped import (
    CeleryTimeoutError,
    ChordError,
    GroupResult,
    ResultSet,
    chain,
    chord,
    group,
)

pytestmark = QUIET


def get(result: Any, **options: Any) -> Any:
    return result.get(timeout=PATIENCE, **options)


def adds(app: Any, count: int) -> Any:
    return group([app.jobs.add.s(number, number) for number in range(count)], app=app)


# -- groups ---------------------------------------------------------------------------------------


def test_a_group_returns_its_values_in_order(app: Any) -> None:
    result = adds(app, 20)()

    assert get(result) == [2 * number for number in range(20)]
    assert result.ready()
    assert result.successful()
    assert not result.failed()
    assert not result.waiting()
    assert result.completed_count() == 20


def test_an_empty_group_has_no_values(app: Any) -> None:
    assert ResultSet([], app=app).join() == []


def test_a_group_of_groups_keeps_its_shape(app: Any) -> None:
    inner = group([app.jobs.add.s(1, 1), app.jobs.add.s(2, 2)], app=app)
    result = GroupResult(new_id(), [app.jobs.echo.delay(0), inner()], app=app)

    assert get(result) == [0, [2, 4]]


def test_a_wait_for_a_group_of_groups_keeps_its_timeout(app: Any) -> None:
    inner = GroupResult(new_id(), [app.AsyncResult(new_id())], app=app)
    result = GroupResult(new_id(), [app.jobs.echo.delay(0), inner], app=app)
    began = time.monotonic()

    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=0.5)

    assert time.monotonic() - began < 2


def test_a_failure_in_a_group_is_raised_or_returned(app: Any) -> None:
    result = group([app.jobs.echo.s(1), app.jobs.fail.s("in a group")], app=app)()

    with pytest.raises(ValueError, match="in a group"):
        get(result)
    one, two = get(result, propagate=False)
    assert one == 1
    assert isinstance(two, ValueError)
    assert result.failed()
    assert result.completed_count() == 1


def test_join_and_join_native_agree(app: Any) -> None:
    result = adds(app, 5)()

    assert result.join(timeout=PATIENCE) == result.join_native(timeout=PATIENCE)


def test_a_group_is_iterated_as_its_tasks_end(app: Any) -> None:
    slow, fast = app.jobs.nap.delay(0.8, "slow"), app.jobs.nap.delay(0.1, "fast")
    result = ResultSet([slow, fast], app=app)

    ended = [(task_id, meta["result"]) for task_id, meta in result.iter_native(timeout=PATIENCE)]

    assert ended == [(fast.id, "fast"), (slow.id, "slow")]


def test_a_group_hands_each_value_to_a_callback(app: Any) -> None:
    result = adds(app, 3)()
    got: dict[str, Any] = {}

    get(result, callback=got.__setitem__)

    assert got == {each.id: 2 * number for number, each in enumerate(result.results)}


def test_on_message_hears_of_every_task_of_a_group(app: Any) -> None:
    result = adds(app, 3)()
    heard: list[str] = []

    def keep(meta: dict[str, Any]) -> None:
        heard.append(meta["task_id"])

    get(ResultSet([app.AsyncResult(each.id) for each in result], app=app), on_message=keep)

    assert sorted(heard) == sorted(each.id for each in result)


def test_on_message_hears_of_a_task_whose_end_is_known_already(app: Any) -> None:
    results = [app.AsyncResult(each.id) for each in adds(app, 2)()]
    heard: list[str] = []
    get(results[0])

    def keep(meta: dict[str, Any]) -> None:
        heard.append(meta["task_id"])

    get(ResultSet(results, app=app), on_message=keep)

    assert sorted(heard) == sorted(each.id for each in results)


def test_then_of_a_group_is_called_when_all_have_ended(app: Any) -> None:
    result = group([app.jobs.nap.s(0.1), app.jobs.nap.s(0.3)], app=app)()
    called: list[bool] = []

    def keep(ended: Any) -> None:
        called.append(ended.ready())

    result.then(keep)

    assert comes_true(lambda: called == [True])


def test_a_group_that_was_saved_is_restored_by_anybody(app: Any, setting: Setting) -> None:
    result = group([app.jobs.add.s(1, 1), app.jobs.add.s(2, 2)], app=app)()
    result.save(backend=app.backend)
    stranger = setting.app()

    restored = GroupResult.restore(result.id, app=stranger)

    assert get(restored) == [2, 4]
    assert [each.id for each in restored] == [each.id for each in result]
    stranger.backend.close()


def test_a_group_that_is_saved_again_is_the_later_one(app: Any) -> None:
    first, second = app.jobs.echo.delay(1), app.jobs.echo.delay(2)
    group_id = new_id()
    GroupResult(group_id, [first], app=app).save()
    GroupResult(group_id, [first, second], app=app).save()

    assert get(GroupResult.restore(group_id, app=app)) == [1, 2]


def test_a_saved_group_of_groups_keeps_its_shape(app: Any) -> None:
    inner = GroupResult(new_id(), [app.jobs.echo.delay(2), app.jobs.echo.delay(3)], app=app)
    outer = GroupResult(new_id(), [app.jobs.echo.delay(1), inner], app=app)
    outer.save()

    assert get(GroupResult.restore(outer.id, app=app)) == [1, [2, 3]]


def test_a_group_that_is_deleted_is_gone_and_its_results_stay(app: Any) -> None:
    result = adds(app, 2)()
    result.save(backend=app.backend)
    result.delete(backend=app.backend)
    result.delete(backend=app.backend)

    assert GroupResult.restore(result.id, app=app) is None
    assert get(result) == [0, 2]


def test_a_group_and_a_task_may_have_the_same_id(app: Any) -> None:
    task = app.jobs.echo.delay("task")
    GroupResult(task.id, [task], app=app).save()

    assert get(app.AsyncResult(task.id)) == "task"
    assert get(GroupResult.restore(task.id, app=app)) == ["task"]


def test_a_forgotten_group_leaves_no_results(app: Any) -> None:
    result = adds(app, 3)()
    get(result)

    result.forget()

    assert [app.AsyncResult(each.id).state for each in result] == ["PENDING"] * 3


def test_a_long_group_comes_home(app: Any) -> None:
    values = list(range(300))
    result = group((app.jobs.echo.s(value) for value in values), app=app)()

    assert result.get(timeout=3 * PATIENCE) == values


def test_chunks_and_starmap_come_home(app: Any) -> None:
    pairs = [(number, number) for number in range(6)]

    assert get(app.jobs.add.starmap(pairs).delay()) == [0, 2, 4, 6, 8, 10]
    assert get(app.jobs.add.chunks(pairs, 2)()) == [[0, 2], [4, 6], [8, 10]]


# -- chains ---------------------------------------------------------------------------------------


def test_a_chain_returns_what_its_last_task_returns(app: Any) -> None:
    result = chain(app.jobs.add.s(1, 2), app.jobs.add.s(10), app.jobs.add.s(100), app=app)()

    assert get(result) == 113
    assert get(result.parent) == 13
    assert get(result.parent.parent) == 3


def test_a_chain_fails_with_its_first_failure(app: Any) -> None:
    result = chain(app.jobs.fail.si("early"), app.jobs.echo.s(), app.jobs.echo.s(), app=app)()

    with pytest.raises(ValueError, match="early"):
        get(result)
    assert result.parent.parent.state == "FAILURE"
    assert comes_true(lambda: result.parent.state == "FAILURE")


def test_forgetting_a_chain_forgets_its_parents(app: Any) -> None:
    result = chain(app.jobs.add.s(1, 2), app.jobs.add.s(10), app=app)()
    get(result)

    result.forget()

    assert [result.state, app.AsyncResult(result.parent.id).state] == ["PENDING", "PENDING"]


def test_a_callback_gets_the_value(app: Any, tmp_path: Path) -> None:
    result = app.jobs.add.apply_async((1, 2), link=app.jobs.add.s(10))
    get(result)

    assert [get(child) for child in result.children] == [13]


# -- chords ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 12])
def test_a_chord_calls_its_body_with_all_values(app: Any, size: int) -> None:
    header = [app.jobs.add.s(number, number) for number in range(size)]

    assert get(chord(header, app=app)(app.jobs.echo.s())) == [2 * n for n in range(size)]


def test_a_chord_of_a_generator_calls_its_body(app: Any) -> None:
    header = group((app.jobs.add.s(number, number) for number in range(5)), app=app)

    assert get(chord(header, app=app)(app.jobs.total.s())) == 20


def test_a_chord_without_header_calls_its_body(app: Any) -> None:
    assert get(chord([], app=app)(app.jobs.total.s())) == 0


def test_a_chord_leaves_nothing_but_a_mark(app: Any) -> None:
    result = chord([app.jobs.echo.s(1), app.jobs.echo.s(2)], app=app)(app.jobs.total.s())
    get(result)
    group_id = result.parent.id
    client = app.backend._group_client
    names = ("parts", "parts/0", "parts/1", "size", "extras")

    assert comes_true(
        lambda: client.load_many(f"{group_id}/{name}" for name in names) == [None] * 5
    )


def test_a_chord_fails_with_its_header(app: Any, setting: Setting) -> None:
    body = app.jobs.total.s().on_error(app.jobs.remember_failure.s())
    result = chord([app.jobs.echo.s(1), app.jobs.fail.s("in a header")], app=app)(body)

    with pytest.raises(ChordError, match="in a header") as caught:
        get(result, follow_parents=False)  # of its parents, it would raise the ValueError

    assert isinstance(caught.value.__cause__, ValueError)
    assert comes_true(
        lambda: setting.errbacks.exists() and result.id in setting.errbacks.read_text()
    )


def test_a_chord_raises_what_its_header_raised(app: Any) -> None:
    result = chord([app.jobs.echo.s(1), app.jobs.fail.s("at first")], app=app)(app.jobs.total.s())

    with pytest.raises(ValueError, match="at first"):
        get(result)


def test_a_chord_waits_for_retries_of_its_header(app: Any) -> None:
    header = [app.jobs.third_time.s(), app.jobs.echo.s(1)]

    assert get(chord(header, app=app)(app.jobs.total.s())) == 3


def test_a_chord_whose_header_ignores_its_results_calls_its_body(app: Any) -> None:
    header = [app.jobs.unread.s(1), app.jobs.unread.s(2)]

    assert get(chord(header, app=app)(app.jobs.total.s())) == 3


def test_a_chord_of_chains_calls_its_body(app: Any) -> None:
    header = [chain(app.jobs.add.s(n, n), app.jobs.add.s(1), app=app) for n in range(3)]

    assert get(chord(header, app=app)(app.jobs.echo.s())) == [1, 3, 5]


def test_a_chord_with_a_group_in_its_header_calls_its_body(app: Any) -> None:
    inner = group([app.jobs.add.s(1, 1), app.jobs.add.s(2, 2)], app=app)
    result = chord([app.jobs.echo.s(0), inner], app=app)(app.jobs.echo.s())

    assert sorted(get(result)) == [0, 2, 4]


def test_a_chord_with_a_chord_in_its_header_calls_its_body(app: Any) -> None:
    inner = chord([app.jobs.echo.s(1), app.jobs.echo.s(2)], body=app.jobs.total.s(), app=app)
    result = chord([inner, app.jobs.echo.s(10)], app=app)(app.jobs.total.s())

    assert get(result) == 13


def test_a_chord_whose_body_is_a_group_calls_all_of_it(app: Any) -> None:
    body = group([app.jobs.total.s(), app.jobs.echo.s()], app=app)
    result = chord([app.jobs.echo.s(1), app.jobs.echo.s(2)], app=app)(body)

    assert get(result) == [3, [1, 2]]


def test_a_group_in_a_chain_becomes_a_chord(app: Any) -> None:
    result = chain(app.jobs.echo.s(1), adds_one(app), app.jobs.total.s(), app=app)()

    assert get(result) == 2 + 3


def adds_one(app: Any) -> Any:
    return group([app.jobs.add.s(1), app.jobs.add.s(2)], app=app)


def test_a_chord_can_be_followed(app: Any) -> None:
    followed = chord([app.jobs.echo.s(1), app.jobs.echo.s(2)], body=app.jobs.total.s(), app=app)

    assert get(chain(followed, app.jobs.add.s(100), app=app)()) == 103


def test_a_header_task_may_add_a_part_to_its_chord(app: Any) -> None:
    result = chord([app.jobs.widen.s(1), app.jobs.echo.s(2)], app=app)(app.jobs.total.s())

    assert get(result) == 1003


def test_many_chords_at_once_call_their_bodies_once_each(app: Any, tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(10)]
    results = [
        chord([app.jobs.nap.s(0) for _ in range(4)], app=app)(app.jobs.mark.si(str(file)))
        for file in files
    ]
    for result in results:
        get(result)
    time.sleep(0.3)

    assert [file.read_text() for file in files] == ["x"] * 10
