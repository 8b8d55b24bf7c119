"""The traceback text is whole, or says what it leaves out; nothing else is kept of the frames."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref

from upshot.failure import Failure, describe
from upshot.failure.describing import MAX_TRACEBACK
from upshot.outcome import encode_failure, failure_traceback
from upshot.serializers import Codecs, JsonSerializer

JSON = JsonSerializer()


def thrown(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return the exception after it was raised, so that it has a traceback."""
    with contextlib.suppress(BaseException):
        if cause is not None:
            raise exc from cause
        raise exc
    return exc


def travel(exc: BaseException) -> Failure:
    """Describe an exception, send it as bytes, and read it."""
    failure = describe(exc, encodable=JSON.can_encode)
    return Failure.from_data(JSON.loads(JSON.dumps(failure.to_data())))


def noted(exc: Exception, *notes: str) -> Exception:
    for note in notes:
        exc.add_note(note)
    return exc


def test_describing_keeps_no_local_variable_alive() -> None:
    class Resource:
        pass

    def fail() -> None:
        resource = Resource()
        alive.append(weakref.ref(resource))
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise ExceptionGroup("g", [ValueError(1)]) from exc

    alive: list[weakref.ref[Resource]] = []
    kept: list[Failure] = []
    try:
        fail()
    except ExceptionGroup as exc:
        kept.append(describe(exc, encodable=JSON.can_encode))
    gc.collect()

    assert alive[0]() is None
    assert "in fail" in kept[0].traceback


def test_the_frames_of_deep_recursion_are_all_in_the_text() -> None:
    def ping(left: int) -> None:
        pong(left - 1)

    def pong(left: int) -> None:
        if left <= 0:
            raise ValueError("naïve ☃")
        ping(left - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 1000)
    texts: list[str] = []
    try:
        ping(1000)
    except ValueError as exc:
        texts.append(travel(exc).traceback)
    finally:
        sys.setrecursionlimit(limit)

    text = texts[0]
    assert (text.count("in ping"), text.count("in pong")) == (501, 501)
    assert 'raise ValueError("naïve ☃")' in text
    assert text.endswith("ValueError: naïve ☃\n")


def test_256_kib_of_traceback_are_whole_and_more_keeps_head_and_tail() -> None:
    whole = travel(thrown(ValueError("\n".join(f"line {n}" for n in range(25_000))))).traceback
    cut = travel(thrown(ValueError("x" * 2_000_000 + " the end"))).traceback

    assert len(whole) > 256 * 1024
    assert all(f"line {n}\n" in whole for n in (0, 12_500, 24_999))
    assert cut.startswith("Traceback (most recent call last)")
    assert cut.endswith(" the end\n")
    assert "characters left out" in cut
    assert len(cut) < 600 * 1024


def test_the_text_has_causes_contexts_notes_and_every_member_of_a_large_group() -> None:
    members = [ValueError(f"member {n}") for n in range(200)]
    exc = thrown(noted(ExceptionGroup("many", members), "a note"), thrown(KeyError("cause")))

    text = travel(exc).traceback

    assert "KeyError: 'cause'" in text
    assert "a note" in text
    assert all(f"member {n}" in text for n in range(200))


def test_a_traceback_that_was_given_takes_the_place_of_its_own() -> None:
    codecs = Codecs({"json": JSON})
    exc = thrown(ValueError("why"))

    own = failure_traceback(codecs, encode_failure(codecs, exc))
    given = failure_traceback(codecs, encode_failure(codecs, exc, traceback="theirs"))
    none = failure_traceback(codecs, encode_failure(codecs, exc, traceback=""))
    long = failure_traceback(codecs, encode_failure(codecs, exc, traceback="x" * 2**21))

    assert own.endswith("ValueError: why\n")
    assert (given, none) == ("theirs", "")
    assert len(long) < MAX_TRACEBACK + 200  # and what says that some is left out
