"""The page of one task: its timeline, its value or failure, and what cannot be shown."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from upshot import App, clock
from upshot.keyring import new_key
from upshot.outcome import encode_value
from upshot.record import MAX_ID_BYTES, Record
from upshot.states import State
from upshot_conformance.records import CODECS, failure, streamed, success
from upshot_contrib.web.presenting import Moment, Progress, Shown, Text

from .asking import Answer, shown

HOUR = 3600.0


def page(app: App, task_id: str) -> Answer:
    return shown(app, "/result", {"id": task_id})


def texts(answer: Answer) -> list[str]:
    """The blocks of text, in order."""
    return answer.all("pre", "text")


def steps(answer: Answer) -> list[str]:
    return [" ".join(each.split()) for each in answer.all("li")]


def test_a_success_has_a_value_and_a_timeline(app: App) -> None:
    record = success("it", {"total": 12})._replace(
        name="shop.order",
        queue="high",
        worker="host:7/1",
        queued_at=1_000_000.0,
        started_at=1_000_001.5,
        finished_at=1_000_004.0,
    )
    app.results.store(record)

    answer = page(app, "it")

    assert answer.all("h1") == ["shop.order"]
    assert answer.all("span", "pill") == ["SUCCESS"]
    assert texts(answer) == ['{"total": 12}']
    assert steps(answer) == [
        "Sent 1970-01-12 13:46:40",
        "Started 1970-01-12 13:46:41after waiting 1.5 s",
        "Success 1970-01-12 13:46:44after running 2.5 s",
    ]
    assert 'title="1970-01-12 13:46:41.500 UTC"' in answer.html
    assert answer.all("dd") == ["high", "host:7/1", "1", "2.5 s"]
    assert 'data-events=""' in answer.html


def test_a_failure_has_its_traceback_without_passwords(app: App) -> None:
    try:
        raise ValueError("no\ntea at redis://:s3cr3tword@host/0")
    except ValueError as exc:
        app.results.store(failure("it", exc))

    answer = page(app, "it")

    assert texts(answer)[0] == "builtins.ValueError: no\ntea at redis://:***@host/0"
    assert "in test_a_failure_has_its_traceback_without_passwords" in texts(answer)[1]
    assert "s3cr3tword" not in answer.html


def test_a_retry_shows_the_failure_of_the_last_attempt(app: App) -> None:
    app.results.store(failure("it", OSError("away"))._replace(state=State.RETRY, finished_at=None))

    answer = page(app, "it")

    assert "Failure of the last attempt" in answer.text
    assert 'data-events="events?of=result&amp;id=it"' in answer.html


def test_a_running_task_shows_its_progress_and_what_else_it_reports(app: App) -> None:
    said = {"current": 5, "total": 20, "file": "a.png"}
    app.results.store(
        Record("it", State.STARTED, 3, started_at=1.0, info=encode_value(CODECS, said))
    )

    answer = page(app, "it")

    assert 'value="0.2500"' in answer.html
    assert "5 of 20" in answer.text
    assert json.loads(texts(answer)[0]) == said
    assert "attempt 3" in answer.text
    assert "Running" in steps(answer)[-1]


@pytest.mark.parametrize(
    ("info", "done", "text"),
    [
        ({"current": 1, "total": 4}, 0.25, "1 of 4"),
        ({"current": 9, "total": 4}, 1.0, "9 of 4"),
        ({"current": -1, "total": 4}, 0.0, "-1 of 4"),
        ({"current": 3, "total": None}, 0.0, "3"),
        ({"current": 3, "total": 0}, 0.0, "3"),
        ({"current": 2.5, "total": 10}, 0.25, "2.5 of 10"),
    ],
)
def test_progress_is_never_more_than_all(info: object, done: float, text: str) -> None:
    found = Progress.of(info)

    assert found is not None
    assert (found.done, found.text) == (done, text)


@pytest.mark.parametrize(
    "info", [None, 3, "x", {}, {"current": "3"}, {"current": True}, {"current": float("nan")}]
)
def test_what_is_no_progress_is_none(info: object) -> None:
    assert Progress.of(info) is None


def test_an_id_without_a_record_says_why_that_may_be(app: App) -> None:
    answer = page(app, "nothing")

    assert answer.status == 200
    assert answer.all("span", "pill") == ["PENDING"]
    assert "it was never sent to these results" in answer.text
    assert "events?of=result&amp;id=nothing" in answer.html


@pytest.mark.parametrize("task_id", ["", "x" * (MAX_ID_BYTES + 1), "a\nb", "\x00"])
def test_what_can_be_no_id_is_refused(app: App, task_id: str) -> None:
    answer = page(app, task_id)

    assert answer.status == 400
    assert "a task id" in answer.text


@pytest.mark.parametrize("task_id", ["../a/b", "a?b=c&d#e", "é 🙂 %2e", "'\"<>", "…" * 85])
def test_any_id_has_a_page_and_a_link_that_leads_there(app: App, task_id: str) -> None:
    app.results.store(success(task_id, task_id))
    found = re.search(r'href="result\?([^"]*)"', shown(app).html)
    assert found is not None

    answer = shown(app, "/result", html.unescape(found[1]))

    assert answer.all("code")[0] == task_id
    assert texts(answer)[0] == json.dumps(task_id, ensure_ascii=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ((1, 2), "(1, 2)"),
        ("a\nb", '"a\\nb"'),
        ("\u202eevil\x00\x1b[31m", '"\\u202eevil\\u0000\\u001b[31m"'),
        ({"rows": list(range(40))}, json.dumps({"rows": list(range(40))}, indent=2)),
        (10**700, f"{10**700}"),
    ],
)
def test_values_are_shown_as_the_command_shows_them(app: App, value: Any, text: str) -> None:
    app.results.store(success("it", value))

    assert texts(page(app, "it")) == [text]


def test_a_deep_value_is_not_laid_out(app: App) -> None:
    value: list[Any] = [0] * 5000
    for _ in range(150):
        value = [value]
    app.results.store(success("it", value))

    (text,) = texts(page(app, "it"))

    assert text.startswith("[" * 150)
    assert len(text) < 40_000


def test_of_a_long_text_the_middle_is_left_out(app: App) -> None:
    app.results.store(success("it", "a" * 500_000 + "b" * 500_000))

    answer = page(app, "it")
    head, tail = texts(answer)

    assert head.startswith('"aaa')
    assert tail.endswith('bbb"')
    assert "970,002 characters are left out here" in answer.text
    assert len(answer.body) < 50_000


def test_a_value_that_is_too_large_for_a_page_is_not_decoded(app: App) -> None:
    app.results.store(success("it", "x" * 5 * 2**20))

    answer = page(app, "it")

    assert "the outcome is one of 5,120 KiB, too much for a page" in answer.text
    assert "upshot results show prints it" in answer.text
    assert texts(answer) == []


def test_a_report_that_is_too_large_is_not_decoded(app: App) -> None:
    said = {"current": 1, "total": 2, "note": "x" * 5 * 2**20}
    app.results.store(Record("runs", State.STARTED, info=encode_value(CODECS, said)))
    app.results.store(success("it", "done")._replace(info=encode_value(CODECS, said)))

    line, running, ended = shown(app), page(app, "runs"), page(app, "it")

    assert "1 of 2" not in line.text + running.text
    assert "the last report is one of 5,120 KiB, too much for a page" in running.text
    assert texts(ended) == ['"done"']


@pytest.mark.parametrize("place", [False, True], ids=["here", "elsewhere"])
def test_what_unfolds_to_too_much_for_a_page_is_not_decoded(tmp_path: Path, place: bool) -> None:
    settings: dict[str, Any] = {"result_compression": "gzip", "result_compression_threshold": 10}
    if place:
        settings |= {"result_offload": f"file://{tmp_path}", "result_offload_threshold": 100}
    with sealed(tmp_path, **settings) as app:
        app.results.store(success("it", "x" * 5 * 2**20))
        app.results.store(success("small", "y" * 2**20))
        large, small = page(app, "it"), page(app, "small")
    with sealed(tmp_path, **settings, result_max_bytes=2**20) as app:
        beyond = page(app, "it")

    assert "too much for a page; upshot results show prints it" in large.text
    assert texts(large) == []
    assert len(texts(small)) == 2
    assert "result_max_bytes allows" in beyond.text


def test_a_stream_says_how_many_items_there_were(app: App) -> None:
    app.results.store(streamed(success("it", None), 1234))

    assert "1,234" in page(app, "it").all("dd")


def test_a_record_without_any_moment_is_shown(app: App) -> None:
    app.results.store(Record("it", State.REVOKED))

    answer = page(app, "it")

    assert "Its record tells no time" in answer.text
    assert Moment.of(None) is None


def sealed(tmp_path: Path, **settings: Any) -> App:
    return App("jobs", broker=f"sqlite:///{tmp_path}/queue.db", **settings)


def test_what_is_encrypted_says_so_where_the_key_is_not(tmp_path: Path) -> None:
    key = new_key("k1")
    with sealed(tmp_path, encryption_keys=(key,)) as app:
        app.results.store(success("it", "secret words"))
        with_key = page(app, "it")
    with sealed(tmp_path) as app:
        without, line = page(app, "it"), shown(app)

    assert texts(with_key) == ['"secret words"']
    assert "encrypted with the key 'k1'" in without.text
    assert "encryption_keys" in line.text
    assert "secret words" not in without.text + line.text


def test_what_is_compressed_is_unfolded_on_its_own_page_only(tmp_path: Path) -> None:
    with sealed(tmp_path, result_compression="gzip", result_compression_threshold=10) as app:
        app.results.store(success("it", "x" * 1000))
        line, own = shown(app).all("td", "c-outcome"), page(app, "it")

    assert line[0].startswith("a value of ")
    assert "compressed" in line[0]
    assert texts(own) == [f'"{"x" * 1000}"']


def test_what_lies_elsewhere_is_fetched_for_its_own_page_only(tmp_path: Path) -> None:
    place = tmp_path / "large"
    place.mkdir()
    settings = {"result_offload": f"file://{place}", "result_offload_threshold": 100}
    with sealed(tmp_path, **settings) as app:
        app.results.store(success("it", "x" * 1000))
        line, own = shown(app).all("td", "c-outcome"), page(app, "it")
        for path in place.rglob("*.*"):
            path.unlink()
        lost = page(app, "it")

    assert line == ["a value that is kept outside of its record; open it to see it"]
    assert texts(own) == [f'"{"x" * 1000}"']
    assert "It cannot be shown here" in lost.text


class Hostile:
    """Its `repr()` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_value_whose_repr_fails_is_no_error(tmp_path: Path) -> None:
    with sealed(tmp_path, accept_content=("json", "pickle"), result_serializer="pickle") as app:
        outcome = encode_value(app.codecs, Hostile())
        app.results.store(success("it", 1)._replace(outcome=outcome))
        answer, line = page(app, "it"), shown(app)

    assert texts(answer) == ["<Hostile that cannot be shown: RuntimeError>"]
    assert line.status == 200


def test_a_text_is_cut_and_spelt_out() -> None:
    assert Text.of("a\tb\u2028\n") == Text("a\\tb\\u2028\n")
    assert Text.of("x" * 40_000).omitted == 10_000


def test_the_page_is_over_when_the_task_is(app: App) -> None:
    record = success("it", 1)._replace(started_at=clock.now() - HOUR)

    assert Shown.of(app, "it", record).is_over
    assert not Shown.of(app, "it", record._replace(state=State.STARTED, outcome=None)).is_over
    assert not Shown.of(app, "it", None).is_over
