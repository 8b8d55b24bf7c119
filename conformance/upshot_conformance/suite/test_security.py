"""Security: stored data runs nothing, and takes no more than it is allowed to."""

from __future__ import annotations

import base64
import builtins
import gzip
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import (
    CorruptRecordError,
    DecodeError,
    PayloadTooLargeError,
)
from upshot.record import Payload, Record
from upshot.result import AsyncResult
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.records import failure, new_id, revoked, success, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere, watching
from upshot_conformance.suite.expect import assert_same, loaded
from upshot_conformance.suite.forge import inject, parts_of, peak_of
from upshot_conformance.timing import Timing

MIB = 2**20

UNFOLDED = 48 * MIB
"""Bytes that are packed into a few; more than any reading of them may take."""

UNLOADED = "wave"
"""A module of the standard library with an exception class, which no process here needs."""


class Gadget:
    """Unpickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def with_outcome(state: str, content_type: str, body: bytes, **fields: Any) -> bytes:
    """Return a whole record whose outcome is these bytes."""
    record = success(new_id(), None)._replace(state=state, **fields)
    return record._replace(outcome=Payload(content_type, body)).encode()


def failing(module: str, qualname: str, *args: object, **attributes: object) -> dict[str, Any]:
    """Return the data of a failure that names a class."""
    entry = {
        "module": module, "qualname": qualname, "bases": [f"{module}.{qualname}"], "message": "m",
        "args": list(args), "opaque": [], "attributes": attributes, "dropped": [], "notes": [],
        "suppress_context": False, "cause": None, "context": None, "members": [],
    }  # fmt: skip
    return {"traceback": "", "exceptions": [entry]}


def hostile_values(trap: Path) -> Iterator[object]:
    """Yield what readers of other formats take for an order; `trap` is what it would make."""
    touch = f"touch {trap}"
    yield {"$dataclass": ["os:system", "command", touch]}
    yield {"$dataclass": [f"{UNLOADED}:Error", "args", []]}
    yield {"$object": "os:system", "args": [touch]}
    yield {"$import": UNLOADED}
    yield {"py/object": "os.system", "py/reduce": [{"py/function": "os.system"}, [touch]]}
    yield {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": [touch]}]}
    yield {"__reduce__": ["os.system", [touch]]}
    yield {"__class__": f"{UNLOADED}.Error", "__module__": UNLOADED, "__init__": [touch]}
    yield {"__type__": "subprocess.Popen", "__value__": ["touch", str(trap)]}
    yield {"!!python/object/apply:os.system": [touch]}
    yield {"exc_type": "system", "exc_module": "os", "exc_message": [touch]}
    yield {"$datetime": ["2026-01-01T00:00:00", f"US/{UNLOADED}", 0]}
    yield f"__import__('os').system({touch!r})"
    yield "{{ self.__init__.__globals__ }} ${jndi:ldap://x} `touch x`"


def hostile_failures(trap: Path) -> Iterator[dict[str, Any]]:
    """Yield failures that name what does something when it is imported or called."""
    touch = f"touch {trap}"
    yield failing("os", "system", touch)
    yield failing("subprocess", "Popen", ["touch", str(trap)])
    yield failing("builtins", "exec", f"open({str(trap)!r}, 'w')")
    yield failing("builtins", "open", str(trap), "w")
    yield failing("builtins", "SystemExit", 3)
    yield failing("builtins", "__import__", UNLOADED)
    yield failing("pathlib", "Path.touch", str(trap))
    yield failing(UNLOADED, "Error", touch)
    yield failing(f"xml.dom.{UNLOADED}", "Error", touch)
    tripwire = watching.Tripwire
    yield failing(tripwire.__module__, tripwire.__qualname__, touch, path=str(trap))
    yield failing(tripwire.__module__, "os.system", touch)


def hostile_bodies(trap: Path) -> Iterator[bytes]:
    """Yield records, and what stands in the place of one, that name what they must not get."""
    pickles = [
        pickle.dumps(Gadget(builtins.exec, f"open({str(trap)!r}, 'w')"), protocol=protocol)
        for protocol in (0, 2, 5)
    ]
    pickles += [
        pickle.dumps(Gadget(__import__, UNLOADED)),
        # The same by name alone, as nobody has to have the module to write it.
        f"c{UNLOADED}\nError\n(S'touch {trap}'\ntR.".encode(),
    ]
    for data in pickles:
        text = base64.b64encode(data).decode()
        yield data
        yield with_outcome(State.SUCCESS, "json", data)
        yield with_outcome(State.FAILURE, "pickle", data)
        yield with_outcome(State.SUCCESS, "json", json.dumps({"$pickle": text}).encode())
    yield with_outcome(State.SUCCESS, "application/x-python-serialize", pickles[-1])
    yield with_outcome(State.SUCCESS, "pickle", pickles[-1])
    yield with_outcome(State.FAILURE, "json", pickles[-1])
    for value in hostile_values(trap):
        for state in (State.SUCCESS, State.FAILURE):
            yield with_outcome(state, "json", json.dumps(value).encode())
    for named_failure in hostile_failures(trap):
        yield with_outcome(State.FAILURE, "json", json.dumps(named_failure).encode())
    value = json.dumps(1).encode()
    for name in ("os:system", f"{UNLOADED}:Error", UNLOADED, f"{UNLOADED}.Error"):
        yield with_outcome(State.SUCCESS, "json", value, name=name, worker=name, token=name)
        yield with_outcome(State.SUCCESS, name, value, name=name)
        yield with_outcome(name, "json", value)


def named(body: bytes, task_id: str) -> bytes:
    """Return a record under another id; what is no record stays as it is."""
    try:
        return Record.decode(body)._replace(task_id=task_id).encode()
    except CorruptRecordError:
        return body


@clause("SE-1")
def test_reading_imports_calls_and_unpickles_nothing(
    target: Target, namespace: str, tmp_path: Path
) -> None:
    trap = tmp_path / "sprung"
    hostile = {f"hostile-{number}": body for number, body in enumerate(hostile_bodies(trap))}
    harmless = {
        "value": success("value", [1, "two", {"$bytes": 3}]).encode(),
        "failure": failure("failure", ValueError(1)).encode(),
        "class": with_outcome(State.FAILURE, "json", json.dumps(failing("a", "B")).encode()),
        "bytes": b"no record",
        "type": with_outcome(State.SUCCESS, "other", b"1"),
        "text": with_outcome(State.SUCCESS, "json", b"nothing"),
        "tag": with_outcome(State.FAILURE, "json", b'{"$date": "x"}'),
        "zone": with_outcome(State.SUCCESS, "json", b'{"$time": ["00:00:00", "No/Zone", 0]}'),
    }

    told = elsewhere.run(
        target,
        namespace,
        "read_watched",
        harmless={each: encoded(named(body, each)) for each, body in harmless.items()},
        hostile={each: encoded(named(body, each)) for each, body in hostile.items()},
    )

    assert told["events"] == [], "what reading did"
    assert told["imported"] == [], "modules that reading brought in"
    assert told["touched"] == [], "what ran of an exception class that this process had loaded"
    assert not trap.exists(), "the data was obeyed"
    assert told["found"].keys() == hostile.keys()


def encoded(body: bytes) -> str:
    """Return bytes as text that JSON takes."""
    return base64.b64encode(body).decode()


@clause("SE-2")
def test_a_record_longer_than_the_reader_allows_is_refused_for_its_id_alone(
    target: Target,
    client: ResultClient,
    handle: MakeHandle,
    namespace: str,
    capabilities: Capabilities,
    timing: Timing,
) -> None:
    exact, long, junk = (new_id() for _ in range(3))
    size = min(64 * 1024, capabilities.max_record_bytes // 2)
    client.store(success(exact, "x" * size)._replace(finished_at=None))
    limit = len(client.encode(loaded(client, exact)).body)
    client.store(success(long, "x" * (size + 1))._replace(finished_at=None))
    inject(client, junk, b"no record, and longer than allowed" * limit)

    with ResultClient(target.make, url=target.url, namespace=namespace, max_bytes=limit) as reader:
        assert value_of(loaded(reader, exact)) == "x" * size
        assert handle(exact, reader).get(timeout=timing.within) == "x" * size
        for task_id in (long, junk):  # junk: the length is looked at before anything else is
            with pytest.raises(PayloadTooLargeError) as told:
                reader.load(task_id)
            assert told.value.limit == limit < told.value.size
            with pytest.raises(PayloadTooLargeError):
                reader.wait(task_id, timeout=timing.within)
            with pytest.raises(PayloadTooLargeError):
                handle(task_id, reader).get(timeout=timing.within)
        first, second, third = reader.load_many([exact, long, exact])
        assert isinstance(second, PayloadTooLargeError)
        assert isinstance(first, Record)
        assert isinstance(third, Record)
        if capabilities.scan:
            assert [record.task_id for record in reader.scan()] == [exact]


def deep(opening: bytes, closing: bytes, depth: int = 100_000) -> bytes:
    """Return JSON that nests so deep."""
    return opening * depth + closing * depth


VALUES_TOO_BIG: dict[str, bytes] = {
    "lists": deep(b"[", b"]"),
    "lists that do not end": b"[" * 100_000,
    "dicts": deep(b'{"a":', b"}").replace(b":}", b":1}"),
    "tuples": deep(b'{"$tuple":[', b"]}", 10_000),
    "lists and dicts": deep(b'[{"a":', b"}]", 10_000).replace(b":}", b":1}"),
    "lists, a little too deep": deep(b"[", b"]", 500),
    "lists after a text that closes them": b'["%b",%b]' % (b"]" * 10_000, deep(b"[", b"]", 10_000)),
    "lists after a quote": b'["a\\"%b",%b]' % (b"]" * 10_000, deep(b"[", b"]", 10_000)),
    "digits": b"9" * 100_000,
    "digits in a list": b"[-" + b"9" * 100_000 + b"]",
    "zlib": zlib.compress(b'"' + b"x" * UNFOLDED + b'"', 1),
}  # fmt: skip
"""What stands for a value, and is refused before it is built."""

LOOKS_DEEP: tuple[Any, ...] = (
    "[" * 100_000, "{" * 100_000, ["]" * 1000, "[" * 1000], {"[" * 1000: "]"}, '"[' * 1000,
    "\\[" * 1000, "\\" * 999 + "[" * 1000, [[""]] * 1000, [{"[": ["\"[", "]"]}] * 1000,
)  # fmt: skip
"""Values that a careless measurement takes for deep ones."""


def bodies_too_big() -> Iterator[tuple[str, bytes]]:
    """Yield what stands for a record and would take a lot of memory to whom believes it."""
    parts = parts_of(success("lying", 1)._replace(info=Payload("json", b"1")))
    for length in (2**30, 2**32 - 1):
        yield f"texts of {length} bytes, it says", parts._replace(texts_length=length).encode()
        yield f"an info of {length} bytes, it says", parts._replace(info_length=length).encode()
    yield "an info longer than what follows", parts._replace(info_length=3).encode()
    yield "an info that it has not", parts_of(success("lying", 1))._replace(info_length=1).encode()
    yield "an outcome that it has not", with_payloads(revoked("lying"), b"1" * MIB)
    yield "a text of many", parts.telling(b"\0" * 10**6).encode()
    yield "a long text", parts.telling(b"[" * 10**6).encode()
    packed = with_outcome(State.SUCCESS, "json", b'"' + b"x" * UNFOLDED + b'"')
    yield "a long record in zlib", zlib.compress(packed, 1)
    yield "a long record in gzip", gzip.compress(packed, 1)


def with_payloads(record: Record, payloads: bytes) -> bytes:
    """Return a record with something else for its payloads."""
    return parts_of(record)._replace(payloads=payloads).encode()


@clause("SE-2")
def test_a_value_that_unfolds_is_refused_before_it_takes_memory(
    client: ResultClient, handle: MakeHandle
) -> None:
    for name, body in VALUES_TOO_BIG.items():
        record = success(new_id(), None)._replace(outcome=Payload("json", body))
        client.store(record)
        asked = handle(record.task_id)

        def read(asked: AsyncResult[Any] = asked) -> None:
            with pytest.raises(DecodeError):
                asked.get(timeout=0)

        assert peak_of(read) < 16 * MIB, f"bytes that reading {name} took"
        assert asked.state == State.SUCCESS


@clause("SE-2")
def test_a_failure_that_unfolds_is_an_error_that_says_so(
    client: ResultClient, handle: MakeHandle
) -> None:
    for body in VALUES_TOO_BIG.values():
        record = success(new_id(), None)._replace(state=State.FAILURE)
        client.store(record._replace(outcome=Payload("json", body)))

        with pytest.raises(DecodeError):
            handle(record.task_id).get(timeout=0)


@clause("SE-2")
def test_values_that_only_look_deep_come_back(client: ResultClient) -> None:
    for value in LOOKS_DEEP:
        task_id = new_id()
        client.store(success(task_id, value))

        assert_same(value_of(loaded(client, task_id)), value)


@clause("SE-2")
def test_a_record_that_unfolds_is_refused_before_it_takes_memory(
    client: ResultClient, timing: Timing
) -> None:
    for name, body in bodies_too_big():
        task_id = new_id()
        inject(client, task_id, body)

        def read(task_id: str = task_id) -> None:
            with pytest.raises(CorruptRecordError):
                client.load(task_id)
            with pytest.raises(CorruptRecordError):
                client.wait(task_id, timeout=timing.within)

        assert peak_of(read) < 16 * MIB, f"bytes that reading {name} took"


@clause("SE-2")
@pytest.mark.parametrize("link", ["cause", "context", "members"])
def test_a_failure_with_a_chain_without_end_is_an_error_that_says_so(
    client: ResultClient, handle: MakeHandle, link: str
) -> None:
    data = failing("builtins", "ValueError", 1)
    entries = [dict(data["exceptions"][0]) for _ in range(900)]
    for position, entry in enumerate(entries[:-1], start=1):
        entry[link] = [position] if link == "members" else position
    record = success(new_id(), None)._replace(state=State.FAILURE)
    body = json.dumps({"traceback": "", "exceptions": entries}).encode()
    client.store(record._replace(outcome=Payload("json", body)))

    with pytest.raises(DecodeError):
        handle(record.task_id).get(timeout=0)


@clause("SE-2")
def test_a_failure_with_exceptions_without_end_is_an_error_that_says_so(
    client: ResultClient, handle: MakeHandle
) -> None:
    group = failing("builtins", "ExceptionGroup", "many")["exceptions"][0]
    one = failing("builtins", "ValueError", 1)["exceptions"][0]
    record = success(new_id(), None)._replace(state=State.FAILURE)
    for count in (1000, 20_000):
        entries = [{**group, "members": list(range(1, count + 1))}, *[one] * count]
        body = json.dumps({"traceback": "", "exceptions": entries}).encode()
        task_id = new_id()
        client.store(record._replace(task_id=task_id, outcome=Payload("json", body)))

        with pytest.raises(DecodeError):
            handle(task_id).get(timeout=0)
