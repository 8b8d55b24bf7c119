"""Values that serializers and services are known to change."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

__all__ = ["EXACT_NUMBERS", "FALSY", "HOSTILE_TEXTS", "MANGLED_VALUES", "json_values"]

FALSY: Final[tuple[Any, ...]] = (None, False, 0, 0.0, -0.0, "", b"", [], {})
"""Results that a careless reader takes for "no result"."""

MANGLED_VALUES: Final[tuple[Any, ...]] = (
    True, 1, 1.0, -1, 1e16, 1e-7, [True, 1, 1.0, False, 0, 0.0], {"1": 1, "1.0": 1.0},
    {"": ""}, {"$bytes": "AA=="}, {"__type__": "x"}, {"$dict": []}, {"$": 1}, {"b": 1, "a": 2},
    {"state": "FAILURE", "outcome": None}, [[], [[]], {}], "null", "None", "2026-01-01T00:00:00",
    {str(number): number for number in range(300)}, list(range(10_000)),
)  # fmt: skip
"""Values that come back slightly different, or are taken for syntax."""

HOSTILE_TEXTS: Final = (
    "\0", "a\0b", "\x00" * 100, "\x01\x1f\x7f\x80\x9f", "\r\n\t\v\f\x85\u2028\u2029", "\ufeff",
    "\ufffd", "\uffff", "\U0010ffff", "🦀" * 1000, "e\u0301 é", "\u202e\u2066", "'\"\\`$%{}",
    " leading and trailing ", "\\u0041", "\\x00", "é".encode().decode("latin-1"),
    "".join(map(chr, range(0x250))), "".join(map(chr, range(0xD7C0, 0xD800))),
)  # fmt: skip
"""Texts that are cut, trimmed, normalised or re-encoded on the way."""

EXACT_NUMBERS: Final[tuple[int | float, ...]] = (
    2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1,
    2**64 - 1, 2**64, 2**200, -(10**300), 10**5000, 5e-324, 2.2250738585072014e-308,
    1.7976931348623157e308, -0.0, 0.1, 1 / 3, 1e22, 1e23, 123456789012345680.0,
)  # fmt: skip
"""Numbers that do not survive a detour through doubles, 64-bit integers or short decimals."""

_SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)

json_values: Final[st.SearchStrategy[Any]] = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=20,
)
"""Anything of None, bool, int, finite float, text, list and dict."""
