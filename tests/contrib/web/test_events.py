"""Live updates: what is sent when something changes, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from upshot import App, clock
from upshot.errors import ServiceUnavailableError
from upshot.inventory import Page
from upshot.record import Record
from upshot.states import State
from upshot_conformance.records import success
from upshot_contrib.web import looking
from upshot_contrib.web.live import MAX_STREAMS, EventStream, Part, Streams, fingerprint
from upshot_contrib.web.looking import Looks
from upshot_contrib.web.queries import Query

from .asking import Asker, opened

Event = tuple[str, dict[str, str], str]
"""Its name, its data and its id."""


def parsed(text: str) -> list[Event]:
    """Read events as a browser does."""
    events: list[Event] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "event" in fields:
            events.append((fields["event"], json.loads(fields["data"]), fields.get("id", "")))
    return events


class Listener:
    """Takes events, and does something about each."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.events: list[Event] = []
        self._acts = list(acts)

    def __call__(self, text: str) -> None:
        for event in parsed(text):
            self.events.append(event)
            if not self._acts:
                raise EOFError
            self._acts.pop(0)()

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.events]


def run(app: App, work: Callable[[Asker], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        async with opened(app) as page:
            await work(page)
            assert page.site.streams is not None
            assert page.site.streams.open == 0

    asyncio.run(inside())


def test_each_state_of_a_task_is_sent_and_then_its_end(app: App) -> None:
    started = Record("it", State.STARTED, name="jobs.it", started_at=clock.now())
    heard = Listener(
        lambda: app.results.store(started),
        lambda: app.results.store(success("it", "done\r\n\n\nevent: part")),
        lambda: None,
        lambda: None,
    )

    async def work(page: Asker) -> None:
        answer = await page.ask("/events", "of=result&id=it", told=heard)
        assert answer.headers["content-type"].startswith("text/event-stream")

    run(app, work)

    assert heard.names == ["part", "part", "part", "over"]
    assert "PENDING" in heard.events[0][1]["html"]
    assert "STARTED" in heard.events[1][1]["html"]
    (_, data, version) = heard.events[2]
    assert "done" in data["html"]
    assert version == fingerprint(data["html"])


def test_what_the_browser_has_is_not_sent_again(app: App) -> None:
    app.results.store(success("it", 1))
    heard = Listener(lambda: None)

    async def work(page: Asker) -> None:
        first = await page.ask("/result", "id=it")
        version = first.html.partition('data-version="')[2][:16]
        await page.ask("/events", f"of=result&id=it&seen={version}", told=heard)
        await page.ask("/events", "of=result&id=it", headers={"last-event-id": version}, told=heard)

    run(app, work)

    assert set(heard.names) == {"over"}


def test_a_new_result_appears_in_the_list(app: App) -> None:
    heard = Listener(lambda: app.results.store(success("new", 1)))

    async def work(page: Asker) -> None:
        await page.ask("/events", "of=results&state=SUCCESS", told=heard)

    run(app, work)

    assert "Nothing matches" in heard.events[0][1]["html"]
    assert "result?id=new" in heard.events[1][1]["html"]


def test_workers_are_followed_too(app: App) -> None:
    def beat() -> None:
        app.broker.current.beat("host:7/1", ["default"], [], lease=60.0, timeout=5.0)

    heard = Listener(beat)

    async def work(page: Asker) -> None:
        await page.ask("/events", "of=workers", told=heard)

    run(app, work)

    assert "host:7" not in heard.events[0][1]["html"]
    assert "host:7" in heard.events[1][1]["html"]


def test_events_of_nothing_are_not_found(app: App) -> None:
    async def work(page: Asker) -> None:
        assert (await page.ask("/events", "of=secrets")).status == 404
        assert (await page.ask("/events", "of=results&page=0")).status == 400

    run(app, work)


def test_who_asks_for_the_head_of_a_stream_does_not_wait_for_its_end(app: App) -> None:
    async def work(page: Asker) -> None:
        asked = page.ask("/events", "of=workers", method="HEAD")
        answer = await asyncio.wait_for(asked, 20)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await page.ask("/events", "of=secrets", method="HEAD")).status == 404

    run(app, work)


def test_no_more_streams_are_kept_than_there_is_room_for(app: App) -> None:
    async def work(page: Asker) -> None:
        assert page.site.streams is not None
        page.site.streams.open = MAX_STREAMS
        answer = await page.ask("/events", "of=workers")
        page.site.streams.open = 0
        assert answer.status == 503

    run(app, work)


def test_a_service_that_is_away_is_told_once_and_so_is_its_return() -> None:
    answers: list[Part | Exception] = [
        ServiceUnavailableError("redis://:s3cr3tword@h/0 is away"),
        ServiceUnavailableError("redis://:s3cr3tword@h/0 is away"),
        Part("<p>"),
        Part("<p>"),
        Part("<b>", is_over=True),
    ]

    async def look() -> Part:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def heard() -> str:
        stream = EventStream(Streams(), look, seen=fingerprint("<p>"), interval=0.001)
        return "".join([str(each) async for each in stream.body_iterator])

    events = parsed(asyncio.run(heard()))

    assert [name for name, _, _ in events] == ["trouble", "well", "part", "over"]
    assert events[0][1]["message"] == "redis://:***@h/0 is away"
    assert answers == []


def test_stopping_ends_all_streams(app: App) -> None:
    async def work(page: Asker) -> None:
        heard = Listener(page.site.stop, lambda: None)
        await page.ask("/events", "of=workers", told=heard)
        assert heard.names == ["part"]

    run(app, work)


def test_stopping_waits_for_no_service_that_does_not_answer(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, release = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> Page:
        asked.set()
        release.wait(60)
        return Page(records=[], matched=0, unreadable=0, states=Counter())

    monkeypatch.setattr(looking, "newest", silent)

    async def work(page: Asker) -> None:
        heard = Listener(lambda: None)
        streaming = asyncio.ensure_future(page.ask("/events", "of=results", told=heard))
        asking = asyncio.ensure_future(page.ask("/"))
        assert await asyncio.to_thread(asked.wait, 20)
        await asyncio.sleep(1.5)  # until the stream looks as well
        try:
            page.site.stop()
            await asyncio.wait_for(streaming, 20)
            answer = await asyncio.wait_for(asking, 20)
        finally:
            release.set()
        assert (heard.names, answer.status) == ([], 503)
        assert "the page is being stopped" in answer.text

    run(app, work)


def test_who_looks_at_the_same_shares_a_look(app: App) -> None:
    app.results.store(success("it", 1))

    async def work(page: Asker) -> None:
        looks = page.site.looks
        assert looks is not None
        one, other = await asyncio.gather(
            *(looks.results(Query(), sparing=each) for each in (True, False))
        )
        assert one is other
        assert await looks.results(Query(state="FAILURE"), sparing=True) is not one

    run(app, work)


def test_who_goes_away_takes_nothing_from_the_others(app: App) -> None:
    async def work(page: Asker) -> None:
        looks = page.site.looks
        assert isinstance(looks, Looks)
        first = asyncio.ensure_future(looks.result("it"))
        second = asyncio.ensure_future(looks.result("it"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).task_id == "it"

    run(app, work)


class Service:
    """A list that takes five seconds of a clock that it moves itself, and may fail."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls = 0
        self.error: Exception | None = None

    def monotonic(self) -> float:
        return self.now

    def newest(self, *_: object, **__: object) -> Page:
        self.calls += 1
        self.now += 5.0
        if self.error is not None:
            raise self.error
        return Page(records=[], matched=0, unreadable=0, states=Counter())


def test_what_takes_long_is_spared_but_a_failure_is_not_kept_as_long(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    monkeypatch.setattr(looking, "clock", service)
    monkeypatch.setattr(looking, "newest", service.newest)

    async def work(page: Asker) -> None:
        looks = page.site.looks
        assert looks is not None
        service.error = ServiceUnavailableError("away")
        with pytest.raises(ServiceUnavailableError):
            await looks.results(Query(), sparing=True)
        service.error = None
        service.now += 1.5
        for seconds, calls in ((0.0, 2), (1.5, 2), (40.0, 2), (10.0, 3)):
            service.now += seconds
            await looks.results(Query(), sparing=True)
            assert service.calls == calls
        service.now += 1.5
        await looks.results(Query(), sparing=False)
        assert service.calls == 4

    run(app, work)


def test_any_number_of_lists_may_be_looked_at_in_turn(app: App) -> None:
    async def work(page: Asker) -> None:
        looks = page.site.looks
        assert looks is not None
        queries = [Query(text=str(number)) for number in range(150)]
        found = await asyncio.gather(*(looks.results(each, sparing=True) for each in queries))
        assert [each.matched for each in found] == [0] * len(queries)

    run(app, work)
