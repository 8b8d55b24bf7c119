"""Bytes that no serializer wrote are refused with DecodeError, quickly and without side effects."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from time import thread_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upshot.errors import DecodeError, DriverMissingError
from upshot.serializers import JsonSerializer, MsgpackSerializer, PickleSerializer, Serializer

JSON, MSGPACK, PICKLE = JsonSerializer(), MsgpackSerializer(), PickleSerializer()
msgpack: Any = importlib.import_module("msgpack")  # it has no type hints

BAD_JSON = [
    b"",
    b"  ",
    b"{",
    b'{"a":1',
    b"[1,]",
    b"nul",
    b"1 2",
    b"'a'",
    b"NaN",
    b"[Infinity]",
    b"[-Infinity]",
    b'"\xff"',
    b'"\xed\xa0\x80"',
    "[1]".encode("utf-16"),
    b"\xef\xbb\xbf[1]",
    b"9" * 100_000,
    b'{"a":1,"a":2}',
    b'[{"$tuple":[1],"$tuple":[1]}]',
    b"\x80\x05K\x01.",
]


@pytest.mark.parametrize("data", BAD_JSON)
def test_what_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        JSON.loads(data)


BAD_TAGS = [
    '{"$nope": 1}',
    '{"$": 1}',
    '{"$type": "os:system"}',
    '{"$tuple": {"0": 1}}',
    '{"$tuple": "ab"}',
    '{"$set": [1, 1]}',
    '{"$set": [[1]]}',
    '{"$frozenset": null}',
    '{"$dict": [1]}',
    '{"$dict": [1, 2, 1, 3]}',
    '{"$dict": [[1], 2]}',
    '{"$dict": {}}',
    '{"$int": "12"}',
    '{"$int": 12}',
    '{"$int": "0x"}',
    '{"$int": "0x_1"}',
    '{"$float": "1.5"}',
    '{"$float": "NaN"}',
    '{"$float": []}',
    '{"$decimal": "1_0"}',
    '{"$decimal": " 1"}',
    '{"$decimal": "x"}',
    '{"$decimal": 1}',
    '{"$decimal": "1E+99999999999999999999"}',
    '{"$complex": [1, 2]}',
    '{"$complex": ["0x1p0", "0x1p0"]}',
    '{"$complex": ["0x1.0000000000000p+0"]}',
    '{"$complex": "ab"}',
    '{"$date": "20240101"}',
    '{"$date": "2024-02-30"}',
    '{"$date": 5}',
    '{"$datetime": "2024-01-01"}',
    '{"$datetime": "2024-01-01T00:00:00Z"}',
    '{"$datetime": ["2024-01-01T00:00:00", null, 2]}',
    '{"$datetime": ["2024-01-01T00:00:00", null, true]}',
    '{"$datetime": ["2024-01-01T00:00:00", "Nowhere/Land", 0]}',
    '{"$datetime": ["2024-01-01T00:00:00", "../../etc/passwd", 0]}',
    '{"$datetime": ["2024-01-01T00:00:00", "/etc/passwd", 0]}',
    '{"$datetime": ["2024-01-01T00:00:00", "Europe", 0]}',
    '{"$datetime": ["2024-01-01T00:00:00", ["UTC"], 0]}',
    '{"$datetime": ["2024-01-01T00:00:00+01:00", "Europe/Paris", 0]}',
    '{"$datetime": []}',
    '{"$datetime": null}',
    '{"$time": "25:00:00"}',
    '{"$time": {"a": 1}}',
    '{"$timedelta": [1, 2]}',
    '{"$timedelta": [0, 86400, 0]}',
    '{"$timedelta": [1.0, 0, 0]}',
    '{"$timedelta": [true, 0, 0]}',
    '{"$timedelta": [9999999999, 0, 0]}',
    '{"$timedelta": 1}',
    '{"$uuid": "{00000000-0000-0000-0000-000000000001}"}',
    '{"$uuid": "zz"}',
    '{"$uuid": null}',
    '{"$dataclass": []}',
    '{"$dataclass": ["m:C", "x"]}',
    '{"$dataclass": ["m:C", 1, 2]}',
    '{"$dataclass": [1]}',
    '{"$dataclass": ["m:C", "x", 1, "x", 2]}',
    '{"$str": 1}',
    '{"$bytearray": 1}',
]


@pytest.mark.parametrize("text", BAD_TAGS)
def test_unknown_tags_and_bad_payloads_are_refused(text: str) -> None:
    plain = eval(text, {"null": None, "true": True})

    for serializer, data in ((JSON, text.encode()), (MSGPACK, msgpack.packb(plain))):
        with pytest.raises(DecodeError):
            serializer.loads(data)


@pytest.mark.parametrize(
    "text", ['{"$bytes": "A"}', '{"$bytes": "AA==\\n"}', '{"$bytes": "é"}', '{"$str": "/w=="}']
)
def test_base64_is_read_strictly(text: str) -> None:
    with pytest.raises(DecodeError):
        JSON.loads(text.encode())


BAD_MSGPACK: list[bytes] = [
    b"",
    b"\xc1",
    b"\x92\x01",
    b"\x01\x01",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xa1\xff",
    b"\xd6\xff\x00\x00\x00\x01",
    b"\xc7\x00\xff",
    b"\xc7\x00\x05",
    b"\xd4\x05\x00",
    b"\x81\x01\x02",
    b"\x81\xc4\x01a\x02",
    b"\x82\xc4\x01a\x02\xa1a\x02",
    b"\x81\x90\x01",
    b"\x82\xa1a\x01\xa1a\x02",
    msgpack.packb({"$bytes": b"x"}),
]


@pytest.mark.parametrize("data", BAD_MSGPACK)
def test_bad_msgpack_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        MSGPACK.loads(data)


DEEP = [
    pytest.param(JSON, b"[" * 100_000, id="open"),
    pytest.param(JSON, b"[" * 100_000 + b"]" * 100_000, id="lists"),
    pytest.param(JSON, b'{"":' * 100_000 + b"1" + b"}" * 100_000, id="objects"),
    pytest.param(JSON, b'{"$tuple":[' * 500 + b"]}" * 500, id="tags"),
    pytest.param(JSON, b'["]]]]",' * 500 + b"1" + b"]" * 500, id="closed in strings"),
    pytest.param(JSON, b'["\\"]]",' * 500 + b"1" + b"]" * 500, id="closed after an escape"),
    pytest.param(JSON, b'["\\\\",' * 500 + b'"]]"' + b"]" * 500, id="escaped backslashes"),
    pytest.param(MSGPACK, b"\x91" * 100_000, id="msgpack"),
    pytest.param(MSGPACK, b"\x91" * 100_000 + b"\x01", id="msgpack complete"),
]


@pytest.mark.parametrize(("serializer", "data"), DEEP)
def test_deep_input_is_refused_at_once(serializer: Serializer, data: bytes) -> None:
    started = thread_time()
    with pytest.raises(DecodeError):
        serializer.loads(data)

    assert thread_time() - started < 1


def test_brackets_in_strings_are_no_nesting() -> None:
    value = ["[" * 5000, '"[{\\' * 1000, ["\\"] * 500, {"{" * 500: "}"}]

    assert JSON.loads(JSON.dumps(value)) == value


def test_many_short_lists_are_no_nesting() -> None:
    value: list[Any] = [[[]] for _ in range(1000)]
    value += [[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]

    assert JSON.loads(JSON.dumps(value)) == value


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.binary(max_size=64))
def test_random_bytes_are_decoded_or_refused_but_raise_nothing_else(data: bytes) -> None:
    for serializer in (JSON, MSGPACK):
        try:
            serializer.loads(data)
        except DecodeError:
            continue


VALUE = {"a": [(1, 2.5), b"raw", {1: {"x"}}], "when": None}


@pytest.mark.parametrize("serializer", [JSON, MSGPACK], ids=["json", "msgpack"])
def test_every_truncation_is_refused(serializer: Serializer) -> None:
    data = serializer.dumps(VALUE)

    for length in range(len(data)):
        with pytest.raises(DecodeError):
            serializer.loads(data[:length])


def test_a_time_zone_key_never_becomes_a_module_name() -> None:
    script = textwrap.dedent("""
        import sys
        from upshot.errors import DecodeError
        from upshot.serializers import JsonSerializer
        asked = []
        sys.addaudithook(lambda event, args: asked.append(str(args[0])) if event == "import" else 0)
        try:
            JsonSerializer().loads(b'{"$datetime":["2024-01-01T00:00:00","Evil/Module/x",0]}')
        except DecodeError:
            print([name for name in asked if "Evil" in name or "Module" in name])
    """)

    assert run(script) == "[]\n"


def run(script: str) -> str:
    """Run a script with this process's import path and return what it prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("data", [b"", b"\x80\x05", b"cos\nno_such_name\n.", b"garbage"])
def test_a_pickle_that_cannot_be_read_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        PICKLE.loads(data)


def test_msgpack_without_its_driver_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)

    with pytest.raises(DriverMissingError, match=r'pip install "upshot\[msgpack\]"'):
        MsgpackSerializer()
