"""Compression: what is packed comes back, and what unfolds without end is refused."""

from __future__ import annotations

import gzip
import json
import random
import zlib

import pytest

from upshot.compression import compress, decompress
from upshot.content_types import COMPRESSIONS, compressed_as
from upshot.errors import DecodeError, PayloadTooLargeError, UntrustedContentError
from upshot.serializers import Codecs, JsonSerializer
from upshot.settings import Settings
from upshot_conformance.suite.forge import peak_of

MIB = 2**20
TEXT = json.dumps([{"name": f"item {n}", "price": n * 1.5} for n in range(2000)]).encode()

each_compression = pytest.mark.parametrize("name", COMPRESSIONS)


def packed(name: str, data: bytes) -> bytes:
    found = compress(name, data)
    assert found is not None, "not worth it"
    return found


@each_compression
def test_what_was_compressed_comes_back(name: str) -> None:
    small = packed(name, TEXT)

    assert len(small) < len(TEXT) / 3
    assert decompress(name, small, at_most=len(TEXT)) == TEXT


@each_compression
def test_what_would_hardly_be_shorter_is_left_as_it_is(name: str) -> None:
    assert compress(name, random.Random(0).randbytes(10_000)) is None
    assert compress(name, b"") is None


@each_compression
def test_one_byte_more_than_allowed_is_refused(name: str) -> None:
    small = packed(name, TEXT)

    with pytest.raises(PayloadTooLargeError) as refused:
        decompress(name, small, at_most=len(TEXT) - 1)
    assert refused.value.limit == len(TEXT) - 1


@each_compression
def test_a_bomb_takes_no_more_memory_than_is_allowed(name: str) -> None:
    bomb = packed(name, bytes(256 * MIB))

    def read() -> None:
        with pytest.raises(PayloadTooLargeError):
            decompress(name, bomb, at_most=MIB)

    assert len(bomb) < 2 * MIB
    assert peak_of(read) < 16 * MIB


@each_compression
def test_a_bomb_inside_a_value_is_refused(name: str) -> None:
    codecs = Codecs({"json": JsonSerializer()}, max_bytes=MIB)
    bomb = packed(name, b'"' + b"x" * 8 * MIB + b'"')

    with pytest.raises(PayloadTooLargeError):
        codecs.decode(compressed_as("json", name), bomb)


@each_compression
def test_what_is_cut_or_damaged_or_goes_on_is_refused(name: str) -> None:
    small = packed(name, TEXT)

    for wrong in (b"", small[:-1], small[: len(small) // 2], small + b"x", small * 2, TEXT, b"\0"):
        with pytest.raises(DecodeError):
            decompress(name, wrong, at_most=MIB)
    for position in random.Random(1).sample(range(len(small)), 200):
        turned = bytearray(small)
        turned[position] ^= 0x10
        try:
            found = decompress(name, bytes(turned), at_most=MIB)
        except (DecodeError, PayloadTooLargeError):
            continue
        assert name == "zstd" or found == TEXT  # gzip has a checksum; flags and dates are no data


def test_what_any_gzip_has_written_can_be_read() -> None:
    assert decompress("gzip", gzip.compress(TEXT, 9), at_most=MIB) == TEXT
    with pytest.raises(DecodeError):
        decompress("gzip", zlib.compress(TEXT), at_most=MIB)


@each_compression
def test_only_the_type_inside_has_to_be_accepted(name: str) -> None:
    codecs = Codecs({"json": JsonSerializer()})

    assert codecs.decode(compressed_as("json", name), packed(name, TEXT)) == json.loads(TEXT)
    for wrong in (
        compressed_as("pickle", name),
        compressed_as(compressed_as("json", name), name),
        f"+{name}",
        "json+zip",
        f"json+{name} ",
    ):
        with pytest.raises(UntrustedContentError):
            codecs.decode(wrong, packed(name, TEXT))


def test_every_compression_that_can_be_set_is_there() -> None:
    for name in COMPRESSIONS:
        assert Settings().updated(result_compression=name).result_compression == name
