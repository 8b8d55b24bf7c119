"""What tests assert again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from upshot.client import ResultClient
from upshot.record import Record

__all__ = ["assert_same", "loaded"]


def assert_same(found: object, stored: object, where: str = "value") -> None:
    """Assert that two values are equal and of the same types, all the way down."""
    assert type(found) is type(stored), (
        f"{where} came back as {type(found).__name__}, not as {type(stored).__name__}"
    )
    if isinstance(stored, dict):
        ours, theirs = cast("Mapping[Any, Any]", stored), cast("Mapping[Any, Any]", found)
        assert list(theirs) == list(ours), f"the keys of {where} are others, or in another order"
        for key, item in ours.items():
            assert_same(theirs[key], item, f"{where}[{key!r}]")
    elif isinstance(stored, list):
        items, others = cast("Sequence[Any]", stored), cast("Sequence[Any]", found)
        assert len(others) == len(items), f"{where} has another length"
        for index, item in enumerate(items):
            assert_same(others[index], item, f"{where}[{index}]")
    else:
        # repr tells 0.0 from -0.0 and finds NaN equal to itself.
        equal = repr(found) == repr(stored) if isinstance(stored, float) else found == stored
        assert equal, f"{where} is another"


def loaded(client: ResultClient, task_id: str) -> Record:
    """Return the record of an id that must have one."""
    record = client.load(task_id)
    assert record is not None, f"{task_id!r} has no record, although one was stored"
    return record
