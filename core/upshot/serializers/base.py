"""What a serializer is, and the set of those that a process accepts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, TypeAlias

from upshot.content_types import compression_of, encryption_of, offloaded_of, plain_type
from upshot.errors import (
    ConfigError,
    EncodeError,
    KeyMissingError,
    PayloadMissingError,
    SerializationError,
    UntrustedContentError,
)

__all__ = ["Codecs", "Fetch", "Serializer"]

Fetch: TypeAlias = Callable[[str, bytes], tuple[str, bytes]]
"""Takes a content type and a reference; returns the type and the bytes that it leads to."""


class Serializer(ABC):
    """Turns values into bytes and back. Instances keep no state, so any thread may share one.

    A third party derives from this class and registers it under the entry-point group
    `upshot.serializers`, by `name`.
    """

    name: ClassVar[str]
    """The value of the settings `task_serializer` and `result_serializer`, such as `"json"`."""

    content_type: ClassVar[str]
    """What is written beside the bytes, so that a reader knows what wrote them."""

    @abstractmethod
    def dumps(self, value: object, *, root: str = "value") -> bytes:
        """Return `value` as bytes that `loads` turns into an equal value of the same types.

        Args:
            value: it is only read, and the bytes hold no reference to it.
            root: the first word of the path in an error: `result` in `result['rows'][3]`.

        Raises:
            EncodeError: some part of `value` cannot be encoded; its `path` says which.
        """

    @abstractmethod
    def loads(self, data: bytes) -> Any:
        """Return a new value, made from what `dumps` wrote.

        Raises:
            DecodeError: `data` is anything else, or exceeds a limit.
        """

    def can_encode(self, value: object) -> bool:
        """Tell whether `dumps` takes `value`, by trying."""
        try:
            self.dumps(value)
        except EncodeError:
            return False
        return True


class Codecs:
    """The serializers that a process accepts, and the one it writes with. Immutable.

    The content type beside some bytes never selects a serializer that was not accepted by name,
    so bytes from a stranger cannot choose to be unpickled.

    Args:
        serializers: every serializer at hand, by name.
        accept: names of those that may be used, for writing as for reading
            (the setting `accept_content`).
        default: the name of the one that writes if none is asked for; it must be accepted.
        max_bytes: what something compressed may unfold to (the setting `result_max_bytes`).
        fetch: gets what is kept elsewhere (the setting `result_offload`); None gets nothing.

    Raises:
        ConfigError: a name has no serializer, the default is not accepted, or two accepted
            serializers share a content type.
    """

    __slots__ = ("_by_content_type", "_by_name", "_fetch", "_max_bytes", "default")

    def __init__(
        self,
        serializers: Mapping[str, Serializer],
        *,
        accept: Iterable[str] = ("json",),
        default: str = "json",
        max_bytes: int = 64 * 2**20,
        fetch: Fetch | None = None,
    ) -> None:
        self._by_name: Final[dict[str, Serializer]] = {}
        self._by_content_type: Final[dict[str, Serializer]] = {}
        self.default: Final = default
        self._max_bytes = max_bytes
        self._fetch = fetch
        for name in accept:
            self._accept(name, serializers)
        if default not in self._by_name:
            raise ConfigError(
                f"the serializer {default!r} would write what is not accepted here: "
                "name it in accept_content, or choose another"
            )

    @property
    def accepted(self) -> tuple[str, ...]:
        """Names of the accepted serializers, in the order they were given."""
        return tuple(self._by_name)

    def encode(
        self, value: object, *, serializer: str | None = None, root: str = "value"
    ) -> tuple[str, bytes]:
        """Return the content type and the bytes of `value`.

        Args:
            value: what to encode.
            serializer: a name; None takes the default.
            root: the first word of the path in an error.

        Raises:
            EncodeError: some part of `value` cannot be encoded.
            UntrustedContentError: `serializer` is not accepted here.
        """
        writer = self._by_name.get(self.default if serializer is None else serializer)
        if writer is None:
            raise UntrustedContentError(
                f"the serializer {serializer!r} is not accepted here, so nothing was written; "
                "accept_content is the setting that names the accepted ones"
            )
        return writer.content_type, writer.dumps(value, root=root)

    def can_encode(self, value: object, *, at_most: int | None = None) -> bool:
        """Tell whether the default serializer takes `value`, in `at_most` bytes, by trying."""
        try:
            _, body = self.encode(value)
        except SerializationError:
            return False
        return at_most is None or len(body) <= at_most

    def decode(self, content_type: str, data: bytes) -> Any:
        """Return the value that `data` holds.

        What follows a "#" in the content type is somebody else's remark, and not looked at.

        Raises:
            UntrustedContentError: no accepted serializer has that content type.
                The bytes were not looked at.
            DecodeError: the bytes are not what that serializer writes.
            PayloadTooLargeError: they unfold to more than `max_bytes`.
            KeyMissingError: they are encrypted with a key that is not here.
            PayloadMissingError: they are kept elsewhere, and are not there.
        """
        reader = self._by_content_type.get(content_type)
        if reader is None:
            content_type, data = self.unwrapped(content_type, data)
            reader = self._by_content_type[content_type]
        return reader.loads(data)

    def unwrapped(
        self, content_type: str, data: bytes, *, at_most: int | None = None
    ) -> tuple[str, bytes]:
        """Return what a serializer wrote, of something compressed or kept elsewhere.

        Args:
            content_type: of what is in a record.
            data: likewise.
            at_most: bytes that something compressed may unfold to, if fewer than `max_bytes`.

        Returns:
            The content type of the serializer, and its bytes.

        Raises:
            UpshotError: as `decode` does; PayloadTooLargeError beyond `at_most`, too.
        """
        reader = self._by_content_type.get(plain_type(content_type).partition("#")[0])
        if reader is None:
            raise UntrustedContentError(
                f"content of type {content_type!r} is not accepted here, so it was not read; "
                "if you trust whoever wrote it, name its serializer in accept_content"
            )
        inside = offloaded_of(content_type)
        if inside is not None:
            if self._fetch is None:
                raise PayloadMissingError(
                    "the value is not in its record: set result_offload as its worker has it"
                )
            content_type, data = self._fetch(inside, data)
        key_id = encryption_of(content_type)[1]
        if key_id:
            raise KeyMissingError(
                f"the content is encrypted with the key {key_id!r}, which encryption_keys here "
                "does not have"
            )
        content_type, compression = compression_of(content_type)
        if compression:
            from upshot.compression import decompress  # only where it is used

            most = self._max_bytes if at_most is None else min(at_most, self._max_bytes)
            data = decompress(compression, data, at_most=most)
        return reader.content_type, data

    def _accept(self, name: str, serializers: Mapping[str, Serializer]) -> None:
        if name not in serializers:
            known = ", ".join(sorted(serializers))
            raise ConfigError(
                f"accept_content names {name!r}, which is no serializer; have {known}"
            )
        serializer = serializers[name]
        rival = self._by_content_type.setdefault(serializer.content_type, serializer)
        if rival is not serializer:
            raise ConfigError(
                f"the serializers {rival.name!r} and {name!r} both write the content type "
                f"{serializer.content_type!r}; accept one of them"
            )
        self._by_name[name] = serializer
