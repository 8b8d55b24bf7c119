"""Content types that say what was done to a payload after its serializer had written it.

    "json"                        nothing
    "json+gzip"                   compressed
    "json+gzip;enc=2026-11"       compressed, then encrypted with the key of that id
    "json+gzip;offloaded"         the bytes are elsewhere; what is here says where

The last word is what was done last, so a reader undoes one after the other from the right. What is
left must be a type that `accept_content` names.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CLAIM",
    "COMPRESSIONS",
    "compressed_as",
    "compression_of",
    "encrypted_as",
    "encryption_of",
    "offloaded_as",
    "offloaded_of",
    "plain_type",
]

CLAIM: Final = "task id"
"""What a claim of an idempotency key holds; no serializer is called so, for it has a space."""

COMPRESSIONS: Final = ("gzip", "zstd")
"""What can be named in the setting `result_compression`."""

_COMPRESSED: Final = "+"
_ENCRYPTED: Final = ";enc="
_OFFLOADED: Final = ";offloaded"


def compressed_as(content_type: str, name: str) -> str:
    """Return the content type of something compressed."""
    return f"{content_type}{_COMPRESSED}{name}"


def compression_of(content_type: str) -> tuple[str, str]:
    """Return the content type inside, and what it was compressed by; "" if by nothing."""
    inside, mark, name = content_type.rpartition(_COMPRESSED)
    return (inside, name) if mark and name in COMPRESSIONS else (content_type, "")


def encrypted_as(content_type: str, key_id: str) -> str:
    """Return the content type of something encrypted with the key of that id."""
    return f"{content_type}{_ENCRYPTED}{key_id}"


def encryption_of(content_type: str) -> tuple[str, str]:
    """Return the content type inside, and the id of the key; "" if it is not encrypted."""
    inside, mark, key_id = content_type.rpartition(_ENCRYPTED)
    return (inside, key_id) if mark and ";" not in key_id else (content_type, "")


def offloaded_as(content_type: str) -> str:
    """Return the content type of a reference to something that is kept elsewhere."""
    return content_type + _OFFLOADED


def offloaded_of(content_type: str) -> str | None:
    """Return the content type of what a reference leads to; None if it is no reference."""
    inside = content_type.removesuffix(_OFFLOADED)
    return None if inside == content_type else inside


def plain_type(content_type: str) -> str:
    """Return what the serializer wrote, with each of the three undone once: the usual order."""
    inside = encryption_of(content_type)[0]  # of a reference
    inside = encryption_of(offloaded_of(inside) or inside)[0]
    return compression_of(inside)[0]
