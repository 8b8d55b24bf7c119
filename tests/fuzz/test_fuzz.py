"""A few hundred inputs for each decoder, the same in every run; `make fuzz` has a million."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import TARGETS, Target

LIMIT = 16 * 2**20  # bytes that reading one of these inputs may take at once


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Return any bytes, and what the target understands, cut, spliced and overwritten."""
    seed = st.sampled_from(target.seeds)
    place = st.integers(0, max(map(len, target.seeds)))
    piece = st.binary(max_size=20) | st.sampled_from(
        [b"\xff", b"\0", b"-1", b"9" * 400, b"1e400", b"NaN", b"null", b"[]", b"{}", b'"\\ud800"',
         b"[" * 300, b"\xdd\xff\xff\xff\xff", b"\r\n", b"://", b"@", b"?", b"%00", b"\x1b[31m"]
    )  # fmt: skip

    def spliced(data: bytes, start: int, length: int, put: bytes) -> bytes:
        return data[:start] + put + data[start + length :]

    once = st.builds(spliced, seed, place, st.integers(0, 20), piece)
    twice = st.builds(spliced, once, place, st.integers(0, 20), piece)
    return once | twice | st.binary(max_size=300)


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_returns_or_raises_what_it_declares(name: str) -> None:
    target = TARGETS[name]
    for data in target.seeds:
        target.feed(data)  # whatever is made once is made by now

    @settings(max_examples=50, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(inputs(target))
    def fed(data: bytes) -> None:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        target.feed(data)
        assert tracemalloc.get_traced_memory()[1] - before < LIMIT

    tracemalloc.start()
    try:
        fed()
    finally:
        tracemalloc.stop()
