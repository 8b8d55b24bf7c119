"""The serializer for anything, between processes that trust each other completely."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar, Final

from upshot.errors import DecodeError, EncodeError, SoftTimeLimitExceededError
from upshot.serializers.base import Serializer

__all__ = ["PickleSerializer"]

_PROTOCOL: Final = 5  # fixed, so that the bytes do not depend on the writer's Python


class PickleSerializer(Serializer):
    """Pickle, protocol 5. Reading runs whatever code the bytes ask for.

    Never used, for writing or reading, unless `accept_content` names it. Whoever can write to
    the broker or the backend can then run code in every worker and every reader: sign the
    messages and records, or keep both services to yourself.
    """

    name: ClassVar[str] = "pickle"
    content_type: ClassVar[str] = "pickle"

    def dumps(self, value: object, *, root: str = "value") -> bytes:
        try:
            return pickle.dumps(value, protocol=_PROTOCOL)
        except SoftTimeLimitExceededError:
            raise
        except Exception as exc:  # `__reduce__` is anybody's code and raises anything
            raise EncodeError(f"{root} cannot be pickled: {exc}", path=root) from exc

    def loads(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)  # noqa: S301 - the user asked for it by name
        except SoftTimeLimitExceededError:
            raise
        except Exception as exc:  # so does what a pickle calls
            raise DecodeError(f"the pickle cannot be read: {exc}") from exc
