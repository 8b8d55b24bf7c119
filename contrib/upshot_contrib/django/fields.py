"""Columns whose text is kept and compared byte by byte, whatever the database's collation is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import models

__all__ = ["KeyField", "WordsField"]

if TYPE_CHECKING:
    _Text = models.TextField[str, str]
else:
    _Text = models.TextField  # generic for type checkers only

_KEYS: Final = {"postgresql": 'text COLLATE "C"', "mysql": "varbinary(1024)"}
_WORDS: Final = {"mysql": "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"}


class KeyField(_Text):
    """Text of up to 1024 bytes that is a primary key.

    On MySQL and MariaDB it is bytes: their text columns ignore spaces at the end.
    """

    def db_type(self, connection: Any) -> str | None:
        return _KEYS.get(connection.vendor) or super().db_type(connection)

    def from_db_value(self, value: str | bytes | None, *_: object) -> str | None:
        """Return text; what somebody else put there may be none, and is the name of nothing."""
        return value.decode(errors="replace") if isinstance(value, bytes) else value


class WordsField(_Text):
    """Text for people, of any length and in any script, whatever the database's own charset is."""

    def db_type(self, connection: Any) -> str | None:
        return _WORDS.get(connection.vendor) or super().db_type(connection)
