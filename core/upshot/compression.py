"""Compression of payloads.

gzip comes with Python. Zstandard comes with Python 3.14, and before that with `backports.zstd`,
which has the same interface. Reading gives out no more than the reader allows, however much a few
bytes may unfold to.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from typing import Any, Final

from upshot.errors import DecodeError, DriverMissingError, PayloadTooLargeError

__all__ = ["compress", "decompress", "require"]

_GZIP: Final = 31  # zlib's word for a gzip header and the largest window
_GZIP_LEVEL: Final = 1
"""1 MB of JSON rows takes a third of level 6's time (6 ms, not 20), and a third more bytes."""

_ZSTD_LEVEL: Final = 3  # zstd's own default
_ZSTD_WINDOW: Final = 23
"""Reading takes 2**23 bytes of memory beside the output, which RFC 8878 says every reader should
allow; levels up to 19 need no more."""

_WORTH: Final = 0.9
"""What is not shortened by a tenth is left as it is: reading it would only take time."""


def require(name: str) -> None:
    """Check that what `name` needs is installed, before there is anything to compress.

    Raises:
        DriverMissingError: it is not.
    """
    if name == "zstd":
        _zstd()


def compress(name: str, data: bytes) -> bytes | None:
    """Return `data` compressed; None if that is not worth it.

    Raises:
        DriverMissingError: what `name` needs is not installed.
    """
    if name == "zstd":
        packed: bytes = _zstd().compress(data, level=_ZSTD_LEVEL)
    else:
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
        packed = packer.compress(data) + packer.flush()
    return packed if len(packed) < len(data) * _WORTH else None


def decompress(name: str, data: bytes, *, at_most: int) -> bytes:
    """Return what was compressed.

    Args:
        name: one of `COMPRESSIONS`.
        data: what `compress` returned, or what somebody wrote who means harm.
        at_most: bytes that are given out; unfolding ends there.

    Raises:
        PayloadTooLargeError: it unfolds to more.
        DecodeError: it is cut short, or is no compressed data at all.
        DriverMissingError: what `name` needs is not installed.
    """
    reader: Any
    failures: tuple[type[Exception], ...]
    if name == "zstd":
        zstd = _zstd()
        window = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        reader, failures = zstd.ZstdDecompressor(options=window), (zstd.ZstdError, EOFError)
    else:
        reader, failures = zlib.decompressobj(_GZIP), (zlib.error,)
    try:
        found: bytes = reader.decompress(data, at_most + 1)
    except failures as exc:
        raise DecodeError(f"the {name} data cannot be read: {exc}") from exc
    if len(found) > at_most:
        raise PayloadTooLargeError(
            f"the {name} data unfolds to more than {at_most} bytes, which result_max_bytes allows",
            size=len(found),
            limit=at_most,
        )
    if not reader.eof or reader.unused_data:
        raise DecodeError(f"the {name} data is cut short, or more follows it")
    return found


def _zstd() -> Any:
    """Return the module, which has one interface in both places."""
    try:
        module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        return importlib.import_module(module)
    except ImportError as exc:
        raise DriverMissingError(
            'zstd needs Python 3.14 or the module "backports.zstd", which is not installed: '
            'pip install "upshot[zstd]"',
            name="backports.zstd",
        ) from exc
