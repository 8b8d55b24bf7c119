"""Values ⇄ plain data: the typed layer that JSON and msgpack share.

Plain data is None, bool, int, finite float, str, list and dict with str keys. It stands for
itself. Everything else becomes a dict with one key, the tag, which begins with "$":

    {"$tuple": [1, 2]}             {"$set": […]}               {"$frozenset": […]}
    {"$dict": [key, value, …]}     {"$bytes": base64}          {"$bytearray": base64}
    {"$int": "0x…"}                {"$float": "nan"}           {"$str": base64}
    {"$dataclass": ["module:Class", field, value, …]}          and the types in `scalars`

`$dict` is for keys that are not str, and for a dict that would itself look like a tag. `$int` is
for integers too long for the format, `$str` for text with lone surrogates, which UTF-8 cannot
hold (its bytes are UTF-8 with surrogates passed). The table of tags is fixed: data cannot name
a class, a module or a function, and an unknown tag is an error.

A value comes back equal and of the same type, with two exceptions. A dataclass instance comes
back as a dict of its fields (`shape` makes it an instance again, of a class that the reader
names). It can therefore not be in a set or in a dict key. Enum members and instances of
subclasses (IntEnum, namedtuple, OrderedDict, subclasses of str) would lose their type, so they
are refused.
"""

from __future__ import annotations

import binascii
import dataclasses
import math
import reprlib
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, NoReturn

from upshot.errors import DecodeError, EncodeError, SoftTimeLimitExceededError
from upshot.serializers.refusal import BUILTIN, Refusal, reason_for, refuse_dataclass
from upshot.serializers.scalars import SCALARS, float_from_text, int_from_text

__all__ = ["MAX_DEPTH", "MAX_WIRE_DEPTH", "TEXT_BINARY", "Binary", "Tagging"]

MAX_DEPTH: Final = 200
"""How deep containers may nest. Twice the 100 levels that contract clause RS-1 asks for."""

MAX_WIRE_DEPTH: Final = 2 * MAX_DEPTH + 2
"""How deep their plain data nests: a tagged container takes two levels, and so does a scalar."""

_WORTH_A_LOOK: Final = (
    32  # below this length, asking whether a list is flat costs more than it saves
)
_type_of: Callable[[object], type[Any]] = type  # `type(x) is y` would also change x's static type


class Binary(NamedTuple):
    """How a format holds bytes inside a tag: `read` is the strict inverse of `write`."""

    write: Callable[[bytes], object]
    read: Callable[[Any], bytes]


def _to_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _from_base64(text: str) -> bytes:
    if type(text) is not str:
        raise TypeError("text is needed")
    return binascii.a2b_base64(text, strict_mode=True)


TEXT_BINARY: Final = Binary(_to_base64, _from_base64)
"""Base64 text, for formats that have no bytes."""


class Tagging:
    """The two directions for one format. Immutable; any thread may share an instance.

    Args:
        max_int: the largest absolute value that the format holds as a number.
        binary: how the format holds bytes.
        has_bytes: True if `bytes` need no tag.
    """

    def __init__(self, *, max_int: int, binary: Binary, has_bytes: bool) -> None:
        self._least, self._most = -max_int, max_int
        self._binary = binary
        self._writers: dict[type[Any], Callable[[Any, int], object]] = {
            type(None): _itself,
            bool: _itself,
            str: self._write_str,
            int: self._write_int,
            float: _write_float,
            list: self._write_list,
            dict: self._write_dict,
            tuple: self._group_writer("$tuple"),
            set: self._group_writer("$set"),
            frozenset: self._group_writer("$frozenset"),
            bytes: _itself if has_bytes else self._write_bytes,
            bytearray: lambda value, _: {"$bytearray": binary.write(bytes(value))},
        }
        self._readers: dict[str, Callable[[Any], object]] = {
            "$bytearray": lambda payload: bytearray(binary.read(payload)),
            "$dataclass": _read_dataclass,
            "$dict": _read_pairs,
            "$float": float_from_text,
            "$frozenset": lambda payload: frozenset(_read_set(payload)),
            "$int": int_from_text,
            "$set": _read_set,
            "$str": lambda payload: binary.read(payload).decode("utf-8", "surrogatepass"),
            "$tuple": lambda payload: tuple(_members(payload)),
        }
        if not has_bytes:
            self._readers["$bytes"] = binary.read
        for kind, tag, write, read in SCALARS:
            self._writers[kind] = _scalar_writer(tag, write)
            self._readers[tag] = read

    def to_plain(self, value: object, root: str) -> object:
        """Return `value` as plain data; plain lists and dicts in it are copied or shared.

        Raises:
            EncodeError: a part is of a type that has no form, is nested too deep, or contains
                itself; `path` begins with `root`.
        """
        try:
            return self._write(value, 1)
        except Refusal as refusal:
            raise refusal.to_error(root) from None
        except RuntimeError as exc:  # the stack is full, or another thread changes a container
            raise EncodeError(f"{root} cannot be encoded: {exc}", path=root) from exc

    def from_pairs(self, pairs: list[tuple[Any, Any]]) -> object:
        """Return what one object of the input stands for; a decoder calls it, innermost first.

        Raises:
            DecodeError: a key is not str or comes twice, a tag is unknown, or its payload is
                not what the tag's writer makes.
        """
        if len(pairs) == 1:
            tag, payload = pairs[0]
            if type(tag) is str and tag[:1] == "$":
                return self._read_tag(tag, payload)
        value = dict(pairs)
        if len(value) != len(pairs):
            raise DecodeError("an object has the same key twice")
        return value

    def _read_tag(self, tag: str, payload: object) -> object:
        read = self._readers.get(tag)
        if read is None:
            raise DecodeError(f"unknown tag {reprlib.repr(tag)}")
        try:
            return read(payload)
        except (ValueError, TypeError, AttributeError, ArithmeticError) as exc:
            raise DecodeError(f"bad payload of tag {tag!r}: {exc}") from exc

    def _write(self, value: object, depth: int) -> object:
        return self._writers.get(type(value), self._write_other)(value, depth)

    def _write_str(self, value: str, _: int) -> object:
        if value.isascii() or _is_utf8(value):
            return value
        return {"$str": self._binary.write(value.encode("utf-8", "surrogatepass"))}

    def _write_int(self, value: int, _: int) -> object:
        return value if self._least <= value <= self._most else {"$int": hex(value)}

    def _write_bytes(self, value: bytes, _: int) -> object:
        return {"$bytes": self._binary.write(value)}

    def _write_list(self, value: Collection[Any], depth: int) -> Collection[Any]:
        """Write any sequence or set: what is not a list gets its tag from the caller."""
        if depth > MAX_DEPTH:
            _refuse_depth()
        if len(value) >= _WORTH_A_LOOK and self._is_flat(value):
            return value
        plain: list[Any] | None = None
        least, most, index = self._least, self._most, 0
        try:
            for index, item in enumerate(value):
                kind = _type_of(item)
                # The commonest atoms stand for themselves: no call for them.
                if item.isascii() if kind is str else kind is int and least <= item <= most:
                    continue
                written = self._writers.get(kind, self._write_other)(item, depth + 1)
                if written is not item:
                    plain = list(value) if plain is None else plain
                    plain[index] = written
        except Refusal as refusal:
            refusal.steps.append((value, f"[{index}]"))
            raise
        return value if plain is None else plain

    def _write_dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            _refuse_depth()
        if not _has_plain_keys(value):
            return self._write_pairs(value, depth)
        if len(value) >= _WORTH_A_LOOK and self._is_flat(value.values()):
            return value
        plain: dict[str, Any] | None = None
        least, most, key = self._least, self._most, ""
        try:
            for key, item in value.items():
                kind = _type_of(item)
                if item.isascii() if kind is str else kind is int and least <= item <= most:
                    continue
                written = self._writers.get(kind, self._write_other)(item, depth + 1)
                if written is not item:
                    plain = dict(value) if plain is None else plain
                    plain[key] = written
        except Refusal as refusal:
            refusal.steps.append((value, f"[{reprlib.repr(key)}]"))
            raise
        return value if plain is None else plain

    def _write_pairs(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        flat: list[Any] = []
        key: object = None
        try:
            for key, item in value.items():
                refuse_dataclass(key)
                flat += (self._write(key, depth + 1), self._write(item, depth + 1))
        except Refusal as refusal:
            refusal.steps.append((value, f"[{reprlib.repr(key)}]"))
            raise
        return {"$dict": flat}

    def _group_writer(self, tag: str) -> Callable[[Collection[object], int], object]:
        def write(value: Collection[object], depth: int) -> object:
            if tag != "$tuple":
                refuse_dataclass(value)
            return {tag: list(self._write_list(value, depth))}

        return write

    def _write_other(self, value: object, depth: int) -> object:
        kind = type(value)
        if not dataclasses.is_dataclass(kind) or issubclass(kind, BUILTIN):
            raise Refusal(reason_for(kind))
        if depth > MAX_DEPTH:
            _refuse_depth()
        plain: list[Any] = [f"{kind.__module__}:{kind.__qualname__}"]
        name = ""
        try:
            for name in [field.name for field in dataclasses.fields(kind)]:
                part = _field(value, name)
                if part is not dataclasses.MISSING:
                    plain += (name, self._write(part, depth + 1))
        except Refusal as refusal:
            refusal.steps.append((value, f".{name}"))
            raise
        return {"$dataclass": plain}

    def _is_flat(self, values: Collection[Any]) -> bool:
        """Tell, at the speed of C, whether all are atoms of one type that stand for themselves."""
        kinds = set(map(_type_of, values))
        if len(kinds) != 1:
            return False
        kind = kinds.pop()
        if kind is int:
            return bool(self._least <= min(values) and max(values) <= self._most)
        if kind is float:
            return all(map(math.isfinite, values))
        return kind is str and all(map(str.isascii, values))


def _itself(value: object, _: int) -> object:
    return value


def _write_float(value: float, _: int) -> object:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _scalar_writer(tag: str, write: Callable[[Any], object]) -> Callable[[Any, int], object]:
    def write_tagged(value: object, _: int) -> object:
        try:
            return {tag: write(value)}
        except ValueError as exc:
            raise Refusal(str(exc)) from exc

    return write_tagged


def _field(value: object, name: str) -> object:
    """Return a field of a dataclass instance, MISSING if it has `init=False` and was never set."""
    try:
        return getattr(value, name, dataclasses.MISSING)
    except SoftTimeLimitExceededError:
        raise
    except Exception as exc:  # a property or a mapper's lazy attribute is anybody's code
        raise Refusal(f"reading it raised {type(exc).__name__}: {exc}") from exc


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_plain_keys(value: dict[Any, Any]) -> bool:
    """Tell whether the dict stands for itself: text keys, and not the form of a tag."""
    key: object = None
    for key in value:
        if type(key) is not str or not (key.isascii() or _is_utf8(key)):
            return False
    return len(value) != 1 or type(key) is not str or key[:1] != "$"


def _refuse_depth() -> NoReturn:
    raise Refusal(f"it is nested more than {MAX_DEPTH} levels deep")


def _members(payload: Any) -> list[Any]:
    if _type_of(payload) is not list:
        raise TypeError("a list is needed")
    members: list[Any] = payload
    return members


def _read_set(payload: object) -> set[Any]:
    value = set(_members(payload))
    if len(value) != len(_members(payload)):
        raise ValueError("a member comes twice")
    return value


def _read_pairs(payload: object) -> dict[Any, Any]:
    flat = _members(payload)
    value = dict(zip(flat[::2], flat[1::2], strict=True))
    if 2 * len(value) != len(flat):
        raise ValueError("a key comes twice")
    return value


def _read_dataclass(payload: object) -> dict[str, Any]:
    name, *flat = _members(payload)
    if {type(text) for text in (name, *flat[::2])} != {str}:
        raise TypeError("names are text")
    return _read_pairs(flat)
