"""Every value of the supported types comes home equal and of the same type."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upshot.serializers import JsonSerializer, MsgpackSerializer, PickleSerializer, Serializer

TYPED = [JsonSerializer(), MsgpackSerializer()]
ALL = [*TYPED, PickleSerializer()]


def by_name(serializer: Serializer) -> str:
    return serializer.name


typed = pytest.mark.parametrize("serializer", TYPED, ids=by_name)
every = pytest.mark.parametrize("serializer", ALL, ids=by_name)


_type_of: Callable[[object], type[Any]] = type


def same(one: Any, two: Any) -> bool:
    """Equal and of the same types all the way down; any NaN is NaN, 0.0 is not -0.0."""
    kind = _type_of(one)
    if kind is not _type_of(two):
        return False
    if kind is float:
        return repr(one) == repr(two)
    if kind is complex:
        return same(one.real, two.real) and same(one.imag, two.imag)
    if kind is dict:
        return same([*one.items()], [*two.items()])
    if kind in (list, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if kind in (set, frozenset):
        return len(one) == len(two) and all(any(same(a, b) for b in two) for a in one)
    if kind is Decimal:
        return bool(one.as_tuple() == two.as_tuple())
    if kind in (datetime, time):
        return (one.isoformat(), one.fold) == (two.isoformat(), two.fold) and same_zone(one, two)
    return bool(one == two)


def same_zone(one: datetime | time, two: datetime | time) -> bool:
    a, b = one.tzinfo, two.tzinfo
    return a is b if isinstance(a, ZoneInfo) else type(a) is type(b)


def offsets() -> st.SearchStrategy[tzinfo]:
    bound = timedelta(hours=24) - timedelta(microseconds=1)
    return st.timedeltas(-bound, bound).map(timezone)


ZONES = offsets() | st.sampled_from(["Europe/Paris", "America/New_York", "UTC"]).map(ZoneInfo)
NUMBERS = (
    st.integers()
    | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 2**200, -(2**2048)])
    | st.just(5000).map(lambda exponent: 10**exponent)
    | st.floats(allow_nan=False)
    | st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308])
)
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=8) | st.sampled_from(
    ["", "\0", "$", "$tuple", "\U0001f600", "\ud83d", "\ud83d\ude00"]
)
HASHABLE_LEAVES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | TEXTS
    | st.binary(max_size=8)
    | st.dates()
    | st.datetimes(timezones=st.none() | ZONES)
    | st.times(timezones=st.none() | offsets())
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
LEAVES = (
    HASHABLE_LEAVES
    | st.floats()
    | st.complex_numbers()
    | st.binary(max_size=8).map(bytearray)
    | st.sampled_from([Decimal("NaN"), Decimal("-sNaN12"), Decimal("1E+1000"), Decimal("-0.00")])
)
HASHABLES = st.recursive(
    HASHABLE_LEAVES,
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(TEXTS, inner, max_size=4)
        | st.dictionaries(HASHABLES, inner, max_size=3)
        | st.sets(HASHABLES, max_size=3)
        | st.frozensets(HASHABLES, max_size=3)
    )


VALUES = st.recursive(LEAVES, containers, max_leaves=8)


@settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(value=VALUES)
def test_every_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    for serializer in TYPED:
        assert same(serializer.loads(serializer.dumps(value)), value)


FALSY: list[Any] = [None, False, True, 0, 0.0, -0.0, "", b"", [], {}, (), set()]


@every
@pytest.mark.parametrize("value", FALSY)
def test_falsy_values_and_true_keep_their_type(serializer: Serializer, value: object) -> None:
    home = serializer.loads(serializer.dumps(value))

    assert same(home, value)


ODD_DICTS: list[Any] = [
    {"$tuple": [1]},
    {"$": 1},
    {"$no such tag": {"$tuple": [{"$dict": []}]}},
    {"$tuple": 1, "$set": 2},
    [{"$dataclass": ["os:system", "x", 1]}],
    {"a": {1: "int", "1": "str", (1,): "tuple", None: 0, b"": 1}},
    dict.fromkeys(range(40), "\ud800"),
    {str(number): number for number in range(40)},
]


@every
@pytest.mark.parametrize("value", ODD_DICTS)
def test_dicts_that_look_like_tags_and_odd_keys_come_back(
    serializer: Serializer, value: object
) -> None:
    home = serializer.loads(serializer.dumps(value))

    assert same(home, value)


@typed
@pytest.mark.parametrize(
    "odd", [2**70, -(2**3000), math.inf, math.nan, "\udcff", "é", None, True, 1.5, b"\0", (1,), [1]]
)
def test_one_odd_item_in_a_long_list_or_dict_is_not_overlooked(
    serializer: Serializer, odd: object
) -> None:
    same_kind: list[object] = [odd] * 50
    mixed: list[object] = [1] * 50 + [odd]
    keyed = {str(index): item for index, item in enumerate(mixed)}

    for value in (same_kind, mixed, keyed, tuple(same_kind), ["text"] * 50 + [odd]):
        assert same(serializer.loads(serializer.dumps(value)), value)


@typed
def test_an_integer_beyond_the_digit_limit_travels_in_linear_time(serializer: Serializer) -> None:
    value = 7**400_000

    assert serializer.loads(serializer.dumps([value, -value])) == [value, -value]


@typed
def test_both_sides_of_a_repeated_hour_are_told_apart(serializer: Serializer) -> None:
    before = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"))
    value = [before, before.replace(fold=1), datetime(2024, 1, 1, fold=1), time(1, fold=1)]

    home = serializer.loads(serializer.dumps(value))

    assert same(home, value)
    assert home[0].utcoffset() != home[1].utcoffset()


@typed
@pytest.mark.parametrize("offset", [1, -1, 999_999, 3_600_000_001, -86_399_999_999])
def test_offsets_with_a_fraction_of_a_second_come_back(serializer: Serializer, offset: int) -> None:
    zone = timezone(timedelta(microseconds=offset))
    value = [datetime(2024, 1, 1, tzinfo=zone), time(1, tzinfo=zone, fold=1)]

    assert same(serializer.loads(serializer.dumps(value)), value)


@every
def test_nothing_that_comes_home_is_shared_with_what_was_sent(serializer: Serializer) -> None:
    value: dict[str, Any] = {"rows": [1, 2], "raw": bytearray(b"x"), "set": {1}}
    data = serializer.dumps(value)
    value["rows"].append(3)
    value["raw"].extend(b"y")

    home, again = serializer.loads(data), serializer.loads(data)
    home["rows"].append(9)

    assert again == {"rows": [1, 2], "raw": bytearray(b"x"), "set": {1}}


@dataclasses.dataclass(frozen=True)
class Money:
    amount: Any
    currency: str = "EUR"


@dataclasses.dataclass
class Unset:
    given: int
    computed: int = dataclasses.field(init=False)


@typed
def test_a_dataclass_comes_back_as_a_dict_of_its_fields(serializer: Serializer) -> None:
    value = {"total": Money(Decimal("1.50")), "more": [Money(None, currency="$")]}

    home = serializer.loads(serializer.dumps(value))

    assert home == {
        "total": {"amount": Decimal("1.50"), "currency": "EUR"},
        "more": [{"amount": None, "currency": "$"}],
    }


@typed
def test_a_field_that_was_never_set_is_left_out(serializer: Serializer) -> None:
    assert serializer.loads(serializer.dumps(Unset(5))) == {"given": 5}


def test_plain_data_is_written_as_plain_compact_utf8_json() -> None:
    data = JsonSerializer().dumps({"b": [1, 1.5, None, True], "a": "é"})

    assert data == '{"b":[1,1.5,null,true],"a":"é"}'.encode()
    assert JsonSerializer().dumps({"one": {"key": 1}}) == b'{"one":{"key":1}}'


def test_tags_are_written_as_documented() -> None:
    value = [(1,), b"\0", {1: 2}, UUID(int=1), date(2024, 1, 2), math.inf, Money(1)]

    data = JsonSerializer().dumps(value)

    assert data == (
        b'[{"$tuple":[1]},{"$bytes":"AA=="},{"$dict":[1,2]},'
        b'{"$uuid":"00000000-0000-0000-0000-000000000001"},{"$date":"2024-01-02"},'
        b'{"$float":"inf"},{"$dataclass":["' + Money.__module__.encode() + b':Money",'
        b'"amount",1,"currency","EUR"]}]'
    )


def test_msgpack_writes_bytes_as_bytes() -> None:
    raw = bytes(range(256)) * 4

    assert raw in MsgpackSerializer().dumps([raw])
