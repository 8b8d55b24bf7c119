"""The default serializer: JSON that brings values back with their types."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, ClassVar, Final, NoReturn

from upshot.errors import DecodeError, EncodeError
from upshot.serializers.base import Serializer
from upshot.serializers.tagging import MAX_WIRE_DEPTH, TEXT_BINARY, Tagging

__all__ = ["JsonSerializer"]

# Decimal digits take quadratic time, so Python refuses more than 4300 of them, and an
# administrator may lower that to 640 (sys.set_int_max_str_digits). 2048 bits are 617 digits.
_TAGGING: Final = Tagging(max_int=2**2048 - 1, binary=TEXT_BINARY, has_bytes=False)
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
)

_STRING: Final = re.compile(rb'"[^"]*"?')
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NEITHER_BRACKET_NOR_QUOTE: Final = bytes(set(range(256)) - set(b'[]{}"'))


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_TAGGING.from_pairs, parse_constant=_refuse_constant
)


class JsonSerializer(Serializer):
    """Compact UTF-8 JSON; what JSON has no form for is tagged, as `tagging` describes.

    Carried: None, bool, int of any size, float with NaN and infinities, complex, str with any
    code point, bytes, bytearray, list, tuple, set, frozenset, dict with any of these as keys and
    in its order, datetime, date, time, timedelta, Decimal, UUID, and dataclass instances. Time
    zones may be fixed offsets or `zoneinfo.ZoneInfo`. Containers nest up to 200 levels.

    Input is refused before it is parsed if it nests deeper than encoded data can.
    """

    name: ClassVar[str] = "json"
    content_type: ClassVar[str] = "json"

    def dumps(self, value: object, *, root: str = "value") -> bytes:
        plain = _TAGGING.to_plain(value, root)
        try:
            return _ENCODER.encode(plain).encode()
        except RecursionError as exc:  # pragma: no cover - the walk above needs as much stack
            raise EncodeError(f"{root} cannot be encoded: {exc}", path=root) from exc

    def loads(self, data: bytes) -> Any:
        if len(data) > MAX_WIRE_DEPTH and _is_too_deep(data):  # each level takes a byte
            raise DecodeError(f"the JSON is nested more than {MAX_WIRE_DEPTH} levels deep")
        try:
            text = data.decode()
            value, end = _DECODER.raw_decode(text)
        except DecodeError:
            raise
        except (ValueError, RecursionError) as exc:
            raise DecodeError(f"not the JSON of a value: {exc}") from exc
        if end != len(text):
            raise DecodeError(f"not the JSON of a value: something follows it at {end}")
        return value


def _is_too_deep(data: bytes) -> bool:
    """Measure the nesting without recursion, in time linear to the length."""
    if data.count(b"[") + data.count(b"{") <= MAX_WIRE_DEPTH:
        return False
    brackets = _brackets(data)
    left = brackets
    for _ in range(8):  # enough for most data to vanish, at a fraction of the cost of counting
        left = left.replace(b"[]", b"").replace(b"{}", b"")
    if not left:
        return False
    return max(accumulate(map(_STEPS.__getitem__, brackets))) > MAX_WIRE_DEPTH


def _brackets(data: bytes) -> bytes:
    """Return the brackets outside strings."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    kept = data.translate(None, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b"")
    return _STRING.sub(b"", kept) if b'"' in kept else kept
