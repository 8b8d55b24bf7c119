"""The forms of values that neither JSON nor msgpack knows, each with a strict parser.

A parser takes exactly what its writer makes. It raises ValueError, TypeError or one of their
kin for anything else, which `tagging` reports as DecodeError.
"""

from __future__ import annotations

import os.path
import re
import zoneinfo
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple
from uuid import UUID

__all__ = ["SCALARS", "Scalar", "float_from_text", "int_from_text"]

_INTEGER: Final = re.compile(r"-?0x[0-9a-f]+")
_DECIMAL: Final = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|Infinity|s?NaN[0-9]*)")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,3}")


class Scalar(NamedTuple):
    """One type of value and its form.

    Attributes:
        kind: the exact type; subclasses have no form.
        tag: the name the form goes by.
        write: value → str, or a list of str, int and None. ValueError if the value has no form.
        read: the inverse.
    """

    kind: type[Any]
    tag: str
    write: Callable[[Any], object]
    read: Callable[[Any], object]


def int_from_text(text: object) -> int:
    """Read `hex()` of an integer: unlike decimal digits, linear in time and of any length."""
    if not _INTEGER.fullmatch(_text(text)):
        raise ValueError("not a hexadecimal integer")
    return int(_text(text), 16)


def float_from_text(text: object) -> float:
    """Read one of the floats that JSON has no number for; each call makes another object."""
    if text not in ("nan", "inf", "-inf"):
        raise ValueError("not nan, inf or -inf")
    return float(_text(text))


def _text(payload: object) -> str:
    if type(payload) is not str:
        raise TypeError("text is needed")
    return payload


def _canonical(
    read: Callable[[str], Any], write: Callable[[Any], object], payload: object
) -> object:
    """Read text, refusing what `read` tolerates but `write` would never have written."""
    value = read(_text(payload))
    if write(value) != payload:
        raise ValueError("not in the form that is written")
    return value


def _read_decimal(payload: object) -> Decimal:
    if not _DECIMAL.fullmatch(_text(payload)):
        raise ValueError("not a decimal number")
    return Decimal(_text(payload))


def _write_complex(value: complex) -> list[str]:
    return [value.real.hex(), value.imag.hex()]  # exact, and knows nan, inf and -0.0


def _read_complex(payload: list[str]) -> complex:
    real, imaginary = map(float.fromhex, payload)
    value = complex(real, imaginary)
    if _write_complex(value) != payload:
        raise ValueError("not in the form that is written")
    return value


def _write_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _read_timedelta(payload: list[int]) -> timedelta:
    days, seconds, microseconds = payload
    value = timedelta(days, seconds, microseconds)
    if list(map(type, payload)) != [int, int, int] or _write_timedelta(value) != payload:
        raise ValueError("not in the form that is written")
    return value


def _write_moment(value: datetime | time) -> object:
    """Write ISO 8601 text, with offset if fixed; or a list of that, zone key and fold.

    The name of a fixed offset, which equality ignores, is not kept. An offset with a fraction of
    a second takes the key's place: `fromisoformat` of Python 3.11 reads +00:00:00.000001 as UTC.
    """
    zone = value.tzinfo
    offset = zone.utcoffset(None) if type(zone) is timezone else None
    if zone is None or (offset is not None and not offset.microseconds):
        return [value.isoformat(), None, 1] if value.fold else value.isoformat()
    local = value.replace(tzinfo=None).isoformat()
    if offset is not None:
        return [local, _write_timedelta(offset), value.fold]
    if type(zone) is not zoneinfo.ZoneInfo:
        raise ValueError("its tzinfo is neither a datetime.timezone nor a zoneinfo.ZoneInfo")
    _zone(zone.key)
    return [local, zone.key, value.fold]


def _read_moment(kind: type[datetime] | type[time], payload: object) -> datetime | time:
    text, key, fold = (payload, None, 0) if isinstance(payload, str) else _three(payload)
    value: Any = _canonical(kind.fromisoformat, kind.isoformat, text)
    if type(fold) is not int:
        raise TypeError("fold is 0 or 1")
    if key is None:
        return value.replace(fold=fold)  # type: ignore[no-any-return]  # Any: two types in one
    if value.tzinfo is not None:
        raise ValueError("both an offset and a zone")
    zone = _zone(key) if isinstance(key, str) else timezone(_read_timedelta(key))
    return value.replace(fold=fold, tzinfo=zone)  # type: ignore[no-any-return]


def _three(payload: Any) -> tuple[Any, Any, Any]:
    text, key, fold = payload
    return text, key, fold


@lru_cache(maxsize=1024)
def _zone(key: str | None) -> zoneinfo.ZoneInfo:
    """Return the zone if this machine has it.

    For a key found nowhere, ZoneInfo would import a module whose name is made from the key.
    So it is only asked for files that exist, or that the package `tzdata` lists.
    """
    if key is None or not _ZONE.fullmatch(key):
        raise ValueError("its time zone has no key")
    on_disk = any(os.path.isfile(os.path.join(path, key)) for path in zoneinfo.TZPATH)
    if not on_disk and key not in _listed_zones():
        raise ValueError(f"no time zone {key!r} on this machine; the package tzdata has them all")
    return zoneinfo.ZoneInfo(key)


@lru_cache(maxsize=1)
def _listed_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())  # takes 0.1 s


SCALARS: Final = (
    Scalar(complex, "$complex", _write_complex, _read_complex),
    Scalar(date, "$date", date.isoformat, partial(_canonical, date.fromisoformat, date.isoformat)),
    Scalar(datetime, "$datetime", _write_moment, partial(_read_moment, datetime)),
    Scalar(Decimal, "$decimal", str, _read_decimal),
    Scalar(time, "$time", _write_moment, partial(_read_moment, time)),
    Scalar(timedelta, "$timedelta", _write_timedelta, _read_timedelta),
    Scalar(UUID, "$uuid", str, partial(_canonical, UUID, str)),
)
"""Every such type except int and float, which only sometimes need a form of their own."""
