"""Keys: where the record of a task id is stored inside a namespace.

    plain    "<namespace>:<task id>"         the usual case; the id can be read off the key
    hashed   "<namespace>#<SHA-256 in hex>"  for ids that a service cannot take as a key

Items of a task that streams have keys of their own, and so has who holds an idempotency key, see
`upshot.claims`; no listing of records comes upon them:

    plain    "<namespace>+<index>:<task id>"
    hashed   "<namespace>+<SHA-256 in hex of index:task id>"
    claim    "<namespace>=<SHA-256 in hex of name and key>"

The namespace is percent-encoded, so it holds no ":", "#", "+" or "=", and neither an index nor a
hash does: no two pairs of namespace and id share a key, nor two items, and no namespace is a prefix
of another's keys. One that leaves no room for the rest is hashed too, to "#<SHA-256 in hex>": 64
characters can take 768 bytes, and memcached has 250. A record holds its full id, and an item its
index, which every read compares: a key never passes for another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, final
from urllib.parse import quote

from upshot.errors import ConfigError
from upshot.record import MAX_ID_BYTES, check_task_id

__all__ = ["MAX_NAMESPACE", "Keyspace"]

MAX_NAMESPACE: Final = 64
"""The longest namespace, in characters."""

_HASH: Final = 64  # characters of a SHA-256 in hex


@final
class Keyspace:
    """The keys of one namespace.

    Args:
        namespace: 1 to 64 characters of any kind.
        max_bytes: the longest key that the service takes.
        text: whether the service takes any text; otherwise only ASCII without spaces.

    Raises:
        ConfigError: the namespace is empty or too long.
    """

    def __init__(self, namespace: str, *, max_bytes: int, text: bool) -> None:
        if not 1 <= len(namespace) <= MAX_NAMESPACE:
            raise ConfigError(f"a namespace has 1 to {MAX_NAMESPACE} characters, not {namespace!r}")
        prefix = quote(namespace, safe="", errors="surrogatepass")
        if len(prefix) + len("#") + _HASH > max_bytes:
            prefix = "#" + _hash(namespace)
        self._plain = prefix + ":"
        self._hashed = prefix + "#"
        self._claim = prefix + "="
        self._items = prefix + "+"
        self._max_bytes = max_bytes
        self._text = text
        self._takes_all = text and len(self._plain) + MAX_ID_BYTES <= max_bytes

    @property
    def prefixes(self) -> tuple[str, str]:
        """What the keys of records begin with; those of items and of other namespaces do not."""
        return self._plain, self._hashed

    def key(self, task_id: str) -> str:
        """Return the key of a task id.

        Raises:
            InvalidTaskIdError: it may not name a task.
        """
        check_task_id(task_id)
        key = self._plain + task_id
        return key if self._takes_all or self._takes(key) else self._hashed + _hash(task_id)

    def items(self, task_id: str, indexes: Iterable[int]) -> list[str]:
        """Return the keys of some items of a task, in the order of their indexes.

        Raises:
            InvalidTaskIdError: it may not name a task.
        """
        check_task_id(task_id)
        names = [f"{index}:{task_id}" for index in indexes]
        keys = [self._items + name for name in names]
        return [
            key if self._takes(key) else self._items + _hash(name)
            for key, name in zip(keys, names, strict=True)
        ]

    def claim(self, name: str, key: str) -> str:
        """Return where it is kept who holds an idempotency key of a task of that name.

        None of the prefixes begins it. The two texts, which hold no NUL, are told apart by one.
        """
        return self._claim + _hash(f"{name}\0{key}")

    def is_of(self, key: str, task_id: str) -> bool:
        """Tell whether `key`, which is one of this namespace, is that of `task_id`.

        Raises:
            InvalidTaskIdError: it may not name a task.
        """
        return key == self._plain + task_id or key == self.key(task_id)

    def label(self, key: str) -> str:
        """Return the task id in a plain key, of a record or of an item; another one as it is."""
        if key.startswith(self._items):
            return key.partition(":")[2] or key  # a hash has no colon, nor has a prefix
        return key.removeprefix(self._plain)

    def _takes(self, key: str) -> bool:
        """Tell whether the service takes a key as it is."""
        is_ascii = key.isascii()
        return (len(key) if is_ascii else len(key.encode())) <= self._max_bytes and (
            self._text or (is_ascii and " " not in key)
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
