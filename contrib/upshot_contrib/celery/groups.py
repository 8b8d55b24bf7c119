"""Saved groups: `GroupResult.save()`, `restore()` and `delete()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from upshot.client import ResultClient
from upshot.record import Payload, Record

__all__ = ["Groups"]

_RANK: Final = 1  # always the same: a group may be saved again


class Groups:
    """The saved groups of one namespace.

    Args:
        client: where they are kept; with a namespace of its own.
        encode: how the tree of ids is written.
        decode: reads it back.
        expires: seconds that a group is kept; None for ever.
    """

    def __init__(
        self,
        client: ResultClient,
        *,
        encode: Callable[[Any], Payload],
        decode: Callable[[Payload], Any],
        expires: float | None,
    ) -> None:
        self._client = client
        self._encode = encode
        self._decode = decode
        self._expires = expires

    def save(self, group_id: str, tree: Any) -> None:
        """Keep the tree of ids that `GroupResult.as_tuple()` returns."""
        record = Record(group_id, "GROUP", outcome=self._encode(tree))
        stored = self._client.encode(record, expires=self._expires)
        self._client.store_encoded([stored._replace(rank=_RANK, barrier=_RANK)])

    def restore(self, group_id: str) -> Any:
        """Return that tree, None if the group was not saved or is gone."""
        found = self._client.load(group_id)
        return None if found is None or found.outcome is None else self._decode(found.outcome)

    def delete(self, group_id: str) -> None:
        """Remove a group; its results stay."""
        self._client.forget([group_id], plain=True)
