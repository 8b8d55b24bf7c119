"""The log that a chord is counted with: complete once, whoever returns when, and how often."""

from __future__ import annotations

import multiprocessing
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contrib.celery.conftest import QUIET, Setting, new_id
from tests.contrib.celery.untyped import Context
from upshot.client import ResultClient
from upshot.record import Payload
from upshot.url import Url
from upshot_contrib.celery.chords import Chords, Part
from upshot_contrib.celery.opening import open_client

pytestmark = QUIET

LONG = 60.0  # seconds that a claim holds, where it is not to end


def client_of(setting: Setting, namespace: str) -> ResultClient:
    url = Url.parse(setting.backend.partition("+")[2])
    return open_client(url, namespace=namespace, expires=60, timeout=10)


@pytest.fixture
def client(setting: Setting) -> Iterator[ResultClient]:
    with client_of(setting, f"chords-{uuid.uuid4().hex[:8]}") as opened:
        yield opened


@pytest.fixture
def chords(client: ResultClient) -> Chords:
    return Chords(client, expires=60)


def part(number: int, task_id: str = "") -> Part:
    return Part(task_id or f"task-{number}", number, "SUCCESS", Payload("json", b"%d" % number))


def values(parts: list[Part] | None) -> list[int] | None:
    return None if parts is None else [int(each.outcome.body) for each in parts]


def test_the_last_part_gets_all_in_order(chords: Chords) -> None:
    chords.set_size("chord", 3)

    got = [values(chords.add("chord", part(n), token=new_id(), claim_for=LONG)) for n in (2, 0, 1)]

    assert got == [None, None, [0, 1, 2]]


def test_the_size_may_come_late(chords: Chords) -> None:
    first = chords.add("chord", part(0), token=new_id(), claim_for=LONG)
    chords.set_size("chord", 2)

    assert first is None
    assert values(chords.add("chord", part(1), token=new_id(), claim_for=LONG)) == [0, 1]


def test_a_part_that_returns_twice_counts_once_and_its_first_value_stays(chords: Chords) -> None:
    chords.set_size("chord", 2)
    chords.add("chord", part(0), token=new_id(), claim_for=LONG)
    again = part(0)._replace(outcome=Payload("json", b"999"))

    assert chords.add("chord", again, token=new_id(), claim_for=LONG) is None
    assert values(chords.add("chord", part(1), token=new_id(), claim_for=LONG)) == [0, 1]


def test_a_task_that_is_twice_in_the_header_counts_twice(chords: Chords) -> None:
    chords.set_size("chord", 2)

    got = [
        values(chords.add("chord", part(n, "one task"), token=new_id(), claim_for=LONG))
        for n in (0, 1)
    ]

    assert got == [None, [0, 1]]


def test_parts_that_were_added_are_waited_for(chords: Chords) -> None:
    chords.set_size("chord", 1)
    chords.add_extra("chord", "task-7")
    chords.add_extra("chord", "task-8")

    got = [values(chords.add("chord", part(n), token=new_id(), claim_for=LONG)) for n in (0, 7, 8)]

    assert got == [None, None, [0, 7, 8]]


def test_nothing_is_left_but_a_mark_and_late_parts_change_nothing(
    chords: Chords, client: ResultClient
) -> None:
    chords.set_size("chord", 2)
    chords.add_extra("chord", "task-2")
    for number in range(3):
        chords.add("chord", part(number), token=new_id(), claim_for=LONG)
    chords.finish("chord")

    late = chords.add("chord", part(1), token=new_id(), claim_for=LONG)

    names = [
        "parts",
        "extras",
        "size",
        *(f"{log}/{n}" for log in ("parts", "extras") for n in (0, 1, 2)),
    ]
    assert late is None
    assert client.load_many(f"chord/{name}" for name in names) == [None] * len(names)
    assert client.load("chord/claim") is not None


def test_a_chord_that_is_sent_again_is_complete_again(chords: Chords) -> None:
    for _ in range(2):
        chords.begin("chord")
        chords.set_size("chord", 1)
        assert values(chords.add("chord", part(0), token=new_id(), claim_for=LONG)) == [0]
        chords.finish("chord")


def test_a_claim_that_was_not_used_ends(chords: Chords) -> None:
    chords.set_size("chord", 1)
    first = chords.add("chord", part(0), token=new_id(), claim_for=0.3)
    refused = chords.add("chord", part(0), token=new_id(), claim_for=LONG)
    threading.Event().wait(0.6)

    again = chords.add("chord", part(0), token=new_id(), claim_for=LONG)

    assert (values(first), refused, values(again)) == ([0], None, [0])


def test_who_asks_again_with_its_token_has_its_claim(chords: Chords) -> None:
    chords.set_size("chord", 1)

    got = [values(chords.add("chord", part(0), token="mine", claim_for=LONG)) for _ in "12"]

    assert got == [[0], [0]]


def test_ids_may_be_as_long_as_ids_can_be(chords: Chords) -> None:
    chord = "g" * 255
    chords.set_size(chord, 1)

    assert values(chords.add(chord, part(0, "t" * 255), token=new_id(), claim_for=LONG)) == [0]


def return_parts(chords: Chords, orders: list[int], completed: list[list[int]], when: Any) -> None:
    when.wait()
    for number in orders:
        got = values(chords.add("chord", part(number), token=new_id(), claim_for=LONG))
        if got is not None:
            completed.append(got)


def test_threads_that_return_parts_at_once_complete_it_once(
    chords: Chords, client: ResultClient
) -> None:
    count, threads_count = 48, 8
    chords.set_size("chord", count)
    numbers = random.sample(range(count), count)
    completed: list[list[int]] = []
    when = threading.Event()
    threads = [
        threading.Thread(
            # Each part is returned by two of them.
            target=return_parts,
            args=(chords, numbers[at::8] + numbers[(at + 1) % 8 :: 8], completed, when),
        )
        for at in range(threads_count)
    ]
    for thread in threads:
        thread.start()
    when.set()
    for thread in threads:
        thread.join(60)

    assert completed == [list(range(count))]


def process_parts(setting: Setting, namespace: str, numbers: list[int], queue: Any) -> None:
    with client_of(setting, namespace) as client:
        chords = Chords(client, expires=60)
        for number in numbers:
            got = values(chords.add("chord", part(number), token=new_id(), claim_for=LONG))
            if got is not None:
                queue.put(got)
    queue.put(None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_processes_that_return_parts_at_once_complete_it_once(
    setting: Setting, client: ResultClient, chords: Chords
) -> None:
    count, workers = 24, 3
    chords.set_size("chord", count)
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    processes = [
        context.Process(
            target=process_parts,
            args=(setting, client.namespace, list(range(at, count, workers)), queue),
        )
        for at in range(workers)
    ]
    for process in processes:
        process.start()
    told: list[list[int] | None] = []
    while told.count(None) < workers:
        told.append(queue.get(timeout=60))
    for process in processes:
        process.join(10)

    assert [each for each in told if each is not None] == [list(range(count))]


def test_the_body_is_sent_once_and_only_once(
    open_app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app()
    sent: list[Any] = []

    def send(args: Any, *_: Any, **__: Any) -> None:
        sent.append(args)

    monkeypatch.setattr(app.jobs.total, "apply_async", send)
    count = 12
    group_id = uuid.uuid4().hex
    app.backend.set_chord_size(group_id, count)

    def request(number: int) -> Any:
        return Context(
            id=f"task-{number}",
            group=group_id,
            group_index=number,
            chord=app.jobs.total.s(),
        )

    def run(at: int) -> None:
        for number in (*range(at, count, 4), *range(at, count, 4)):
            app.backend.on_chord_part_return(request(number), "SUCCESS", number)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sent == [(list(range(count)),)]
