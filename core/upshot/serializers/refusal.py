"""Why a value cannot be encoded, and where in it the bad part is."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Final

from upshot.errors import EncodeError
from upshot.serializers.scalars import SCALARS

__all__ = ["BUILTIN", "Refusal", "reason_for", "refuse_dataclass"]

BUILTIN: Final[tuple[type[Any], ...]] = (
    *(enum.Enum, bool, int, float, str, bytes, bytearray, tuple, list, dict, set, frozenset),
    *(scalar.kind for scalar in SCALARS),
)
"""What an encoded type may not derive from, since only the base's part would be kept."""

_LONGEST_PATH: Final = 1000  # characters; only nesting that is refused has longer ones


class Refusal(Exception):  # noqa: N818 - becomes an EncodeError once the whole path is known
    """A part that cannot be encoded, and the way to it, collected while the walk unwinds.

    So the walk keeps no path, which would cost time on every value to serve the rare error.

    Attributes:
        reason: what is wrong with the part, such as "it is nested too deep".
        steps: each container on the way and how the path goes on from it, innermost first.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[tuple[object, str]] = []

    def to_error(self, root: str) -> EncodeError:
        """Return the error for callers, with the path written as an expression from `root`."""
        path, seen = root, set[int]()
        for container, step in reversed(self.steps):
            if id(container) in seen:
                return EncodeError(f"{path} contains itself, so it cannot be encoded", path=path)
            seen.add(id(container))
            path = path + step if len(path) < _LONGEST_PATH else path.removesuffix("…") + "…"
        return EncodeError(f"{path} cannot be encoded: {self.reason}", path=path)


def reason_for(kind: type[Any]) -> str:
    """Say why values of a type without a form are refused, and what to do."""
    if issubclass(kind, enum.Enum):
        return f"{kind.__name__} is an Enum; take the member's .value"
    for base in BUILTIN:
        if issubclass(kind, base):
            return f"{kind.__name__} would come back as {base.__name__}; convert it to that first"
    return f"{kind.__module__}.{kind.__qualname__} is not a type that can be carried"


def refuse_dataclass(value: Any) -> None:
    """Refuse a dataclass instance that must stay hashable: it would come back as a dict.

    Raises:
        Refusal: `value` is one, or is a tuple or set that holds one at any depth.
    """
    if type(value) in (tuple, set, frozenset):
        for member in value:
            refuse_dataclass(member)
    elif dataclasses.is_dataclass(value):
        raise Refusal("a dataclass instance can be neither in a set nor in a dict key")
