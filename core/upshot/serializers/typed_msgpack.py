"""The compact serializer: msgpack that brings values back with their types."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Final, NoReturn

from upshot.errors import DecodeError, DriverMissingError, EncodeError
from upshot.serializers.base import Serializer
from upshot.serializers.tagging import Binary, Tagging

__all__ = ["MsgpackSerializer"]


def _exactly_bytes(payload: object) -> bytes:
    if type(payload) is not bytes:
        raise TypeError("bytes are needed")
    return payload


# msgpack has both signed and unsigned 64-bit integers; this is what they share.
_TAGGING: Final = Tagging(max_int=2**63 - 1, binary=Binary(bytes, _exactly_bytes), has_bytes=True)


class MsgpackSerializer(Serializer):
    """msgpack (https://msgpack.org), for the same values as `JsonSerializer`.

    Bytes stand for themselves, so binary results take a quarter less than in JSON. The other
    tags are the same. On reading, lengths are bounded by the input's, nesting by the driver's
    own limit of 1024 levels, and extension types are refused.

    Raises:
        DriverMissingError: the package `msgpack` is not installed.
    """

    name: ClassVar[str] = "msgpack"
    content_type: ClassVar[str] = "msgpack"

    def __init__(self) -> None:
        try:
            # Imported here, so that this module loads without it. It has no type hints.
            self._msgpack: Any = importlib.import_module("msgpack")
        except ImportError as exc:
            raise DriverMissingError(
                'the serializer "msgpack" needs a driver: pip install "upshot[msgpack]"'
            ) from exc

    def dumps(self, value: object, *, root: str = "value") -> bytes:
        plain = _TAGGING.to_plain(value, root)
        try:
            data: bytes = self._msgpack.packb(plain, strict_types=True)
        except (ValueError, OverflowError) as exc:  # pragma: no cover - a part is over 4 GiB
            raise EncodeError(f"{root} cannot be encoded: {exc}", path=root) from exc
        return data

    def loads(self, data: bytes) -> Any:
        try:
            return self._msgpack.unpackb(
                data,
                object_pairs_hook=_from_pairs,
                ext_hook=_refuse_extension,
                max_ext_len=0,  # the driver reads timestamps without asking `ext_hook`
                strict_map_key=True,
            )
        except DecodeError:
            raise
        except (ValueError, TypeError, RecursionError, self._msgpack.UnpackException) as exc:
            raise DecodeError(f"not the msgpack of a value: {exc}") from exc


def _from_pairs(pairs: list[tuple[Any, Any]]) -> object:
    if any(type(key) is not str for key, _ in pairs):
        raise DecodeError("a map has a key that is not text")
    return _TAGGING.from_pairs(pairs)


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise DecodeError(f"msgpack extension type {code} is not accepted")
