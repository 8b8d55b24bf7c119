"""Data that is not a failure is refused with DecodeError, whatever its shape."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upshot.errors import DecodeError
from upshot.failure import Failure, rebuild


def entry(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "module": "builtins",
        "qualname": "ValueError",
        "bases": ["builtins.Exception"],
        "message": "text",
        "args": ["text"],
        "opaque": [],
        "attributes": {},
        "dropped": [],
        "notes": [],
        "suppress_context": False,
        "cause": None,
        "context": None,
        "members": [],
    }
    return fields | changes


def failure_of(*entries: dict[str, Any]) -> Failure:
    return Failure.from_data({"traceback": "remote text", "exceptions": list(entries)})


BAD_ENTRIES: list[dict[str, Any]] = [
    {"module": 5},
    {"module": None},
    {"qualname": b"ValueError"},
    {"bases": "builtins"},
    {"bases": [5]},
    {"message": None},
    {"args": {}},
    {"args": (1,)},
    {"opaque": ["0"]},
    {"opaque": [True]},
    {"attributes": []},
    {"attributes": {5: 5}},
    {"attributes": {"__class__": 5}},
    {"attributes": {"__dict__": {}}},
    {"dropped": [None]},
    {"notes": "note"},
    {"notes": [5]},
    {"suppress_context": 1},
    {"suppress_context": None},
    {"cause": 0},
    {"cause": 1},
    {"cause": -1},
    {"cause": "0"},
    {"cause": True},
    {"context": 0},
    {"members": [0]},
    {"members": 5},
    {"members": [entry()]},
]


@pytest.mark.parametrize("changes", BAD_ENTRIES, ids=repr)
def test_an_entry_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        failure_of(entry(**changes))


@pytest.mark.parametrize("missing", list(entry()))
def test_a_missing_key_is_refused(missing: str) -> None:
    data = entry()
    del data[missing]

    with pytest.raises(DecodeError, match=missing):
        failure_of(data)


BAD_DATA: list[Any] = [
    None,
    5,
    "text",
    [],
    {},
    {"traceback": "t"},
    {"traceback": 5, "exceptions": [entry()]},
    {"traceback": "t", "exceptions": []},
    {"traceback": "t", "exceptions": [None]},
    {"traceback": "t", "exceptions": {"0": entry()}},
    {"traceback": "t", "exceptions": [entry(), entry()]},
    {"traceback": "t", "exceptions": [entry(cause=1, context=1), entry()]},
    {"traceback": "t", "exceptions": [entry(members=[1, 1]), entry()]},
    {"traceback": "t", "exceptions": [entry(cause=1), entry(cause=1)]},
    {"traceback": "t", "exceptions": [entry(cause=1), entry(cause=0)]},
    {"traceback": "t", "exceptions": [entry(members=[*range(1, 1001)])] + [entry()] * 1000},
    {"traceback": "t", "exceptions": [*(entry(cause=n) for n in range(1, 65)), entry()]},
]


@pytest.mark.parametrize("data", BAD_DATA, ids=range(len(BAD_DATA)))
def test_data_of_another_shape_is_refused(data: Any) -> None:
    with pytest.raises(DecodeError):
        Failure.from_data(data)


def test_keys_of_a_later_version_are_ignored() -> None:
    data = {"traceback": "t", "exceptions": [entry(later=1)], "later": 2}

    assert repr(rebuild(Failure.from_data(data))) == "ValueError('text')"


def test_without_a_traceback_there_is_no_cause_to_show() -> None:
    failure = Failure.from_data({"traceback": "", "exceptions": [entry()]})

    assert rebuild(failure).__cause__ is None


@pytest.mark.parametrize("suppress", [True, False])
def test_the_suppress_flag_comes_home(suppress: bool) -> None:
    entries = [entry(suppress_context=suppress, context=1), entry()]
    failure = Failure.from_data({"traceback": "", "exceptions": entries})

    assert rebuild(failure).__suppress_context__ is suppress


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, database=None)
@given(key=st.sampled_from(list(entry())), value=PLAIN)
def test_any_value_under_any_key_is_refused_or_rebuilt(key: str, value: Any) -> None:
    before = copy.deepcopy(value)
    try:
        rebuilt = rebuild(failure_of(entry(**{key: value})))
    except DecodeError:
        return

    assert isinstance(rebuilt, Exception)
    assert value == before
