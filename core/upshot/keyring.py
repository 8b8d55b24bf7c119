"""Keys, and what is done with them: HMAC-SHA256 to sign, AES-GCM to encrypt.

A key has an id, which is written beside what was made with it: the first key of a ring signs and
encrypts, and all of them verify and decrypt, so keys can be changed without losing a record.

Layout of what is signed:

    "s1"  version of this layout
    1     length of the key's id, and the id in ASCII
    32    HMAC-SHA256 of the context, of all that is before it, and of what was signed
    …     what was signed

Layout of what is encrypted: a random nonce of 12 bytes, then the ciphertext with its tag of 16
bytes (NIST SP 800-38D). The key's id stands in the content type; see `upshot.content_types`.

A context is a list of byte strings, each with its length before it: no two lists read the same.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

from upshot.errors import ConfigError, DriverMissingError, PayloadTooLargeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "Keyring",
    "RefusedError",
    "check_keys",
    "is_signed",
    "new_key",
    "unsigned",
]

_SIGNED: Final = b"s1"
_MAC: Final = 32  # bytes of an HMAC-SHA256
_NONCE: Final = 12  # bytes: what AES-GCM is made for
_TAG: Final = 16
_LONGEST: Final = 2**31 - 1  # bytes: OpenSSL's limit for one call

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_FILE: Final = "file:"
_LEAST: Final = 16  # bytes of a signing key: NIST SP 800-107 takes no less than 112 bits
_MOST: Final = 64  # bytes of a signing key: HMAC-SHA256 hashes what is longer
_AES: Final = (16, 24, 32)
_LONGEST_FILE: Final = 65_536  # bytes of a file of keys


class RefusedError(Exception):
    """What was to be opened is not what a key of the ring made; the text says why."""


@final
class Keyring:
    """The keys of one app. Its `repr` shows their ids alone.

    Args:
        signing: as in the setting `signing_keys`; () signs nothing.
        encryption: as in the setting `encryption_keys`; () encrypts nothing.

    Raises:
        ConfigError: a key is none, or a file of keys cannot be read; no error shows a key.
        DriverMissingError: there are encryption keys, and `cryptography` is not installed.
    """

    def __init__(self, signing: Sequence[str] = (), encryption: Sequence[str] = ()) -> None:
        self._signing = _read("signing_keys", signing)
        keys = _read("encryption_keys", encryption)
        self._ciphers = _ciphers(keys) if keys else {}

    def __repr__(self) -> str:
        return f"<Keyring signing={list(self._signing)} encryption={list(self._ciphers)}>"

    def __reduce__(self) -> str:
        raise TypeError("a keyring is not pickled: it would take its keys along")

    @property
    def signs(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._signing)

    @property
    def encrypts(self) -> bool:
        """Whether there is a key to encrypt with."""
        return bool(self._ciphers)

    def knows(self, key_id: str) -> bool:
        """Tell whether what was encrypted under this id can be decrypted."""
        return key_id in self._ciphers

    def sign(self, data: bytes, context: Sequence[bytes]) -> bytes:
        """Return `data` behind a signature that holds in this context only."""
        key_id, key = next(iter(self._signing.items()))
        head = _SIGNED + bytes([len(key_id)]) + key_id.encode()
        return b"".join((head, _mac(key, context, head, data), data))

    def verify(self, data: bytes, context: Sequence[bytes]) -> bytes:
        """Return what was signed.

        Raises:
            RefusedError: no key of the ring has signed exactly this in this context.
        """
        head, mac, signed = _parts(data)
        key_id = head[len(_SIGNED) + 1 :].decode("ascii", "replace")
        key = self._signing.get(key_id)
        if key is None:
            raise RefusedError(
                f"it is signed with a key that signing_keys does not have{_of(key_id)}"
            )
        if not hmac.compare_digest(mac, _mac(key, context, head, signed)):
            raise RefusedError("its signature is wrong: it was changed, moved or made up")
        return signed

    def encrypt(self, data: bytes, context: Sequence[bytes]) -> tuple[str, bytes]:
        """Return the id of the key and `data` encrypted, to be read in this context only.

        Raises:
            PayloadTooLargeError: it has 2 GiB or more.
        """
        key_id, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(_NONCE)
        if len(data) > _LONGEST:
            raise PayloadTooLargeError(
                f"{len(data)} bytes are more than can be encrypted at once",
                size=len(data),
                limit=_LONGEST,
            )
        return key_id, nonce + cipher.encrypt(nonce, data, _flat(context))

    def decrypt(self, key_id: str, data: bytes, context: Sequence[bytes]) -> bytes:
        """Return what was encrypted; `knows(key_id)` must be true.

        Raises:
            RefusedError: that key has not encrypted exactly this in this context.
        """
        from cryptography.exceptions import InvalidTag

        try:
            if len(data) < _NONCE + _TAG:
                raise InvalidTag
            return self._ciphers[key_id].decrypt(data[:_NONCE], data[_NONCE:], _flat(context))
        except InvalidTag:
            raise RefusedError("it cannot be decrypted: it was changed, moved or made up") from None


def is_signed(data: object) -> bool:
    """Tell whether `data` begins as what `Keyring.sign` returns; a service may hold anything."""
    return isinstance(data, bytes) and data.startswith(_SIGNED)


def unsigned(data: bytes) -> bytes:
    """Return what was signed, for whoever has no key to verify it with.

    Raises:
        RefusedError: it is too short to have a signature.
    """
    return _parts(data)[2]


def new_key(key_id: str, *, size: int = 32) -> str:
    """Return a new random key of `size` bytes, as the settings take it: `"id:base64"`.

    Raises:
        ConfigError: the id cannot be one.
    """
    _check_id("a new key", key_id)
    return f"{key_id}:{base64.b64encode(os.urandom(size)).decode()}"


def check_keys(name: str, given: Sequence[str]) -> None:
    """Check keys as far as that takes no I/O.

    Args:
        name: the setting.
        given: its value.

    Raises:
        ConfigError: one is no key, two have one id, or a file has no absolute path.
    """
    keys: dict[str, bytes] = {}
    for number, text in enumerate(given, start=1):
        if not text.startswith(_FILE):
            _add(keys, name, text, f"key {number}")
        elif not os.path.isabs(text.removeprefix(_FILE)):
            raise ConfigError(f"{name}: key {number}: a file of keys is file:/absolute/path")


def _read(name: str, given: Sequence[str]) -> dict[str, bytes]:
    """Return keys by id, those of files included."""
    keys: dict[str, bytes] = {}
    for number, text in enumerate(given, start=1):
        if not text.startswith(_FILE):
            _add(keys, name, text, f"key {number}")
            continue
        path = text.removeprefix(_FILE)
        for line, each in enumerate(_lines(name, path), start=1):
            if each.strip() and not each.startswith("#"):
                _add(keys, name, each.strip(), f"line {line} of {path!r}")
    if given and not keys:
        raise ConfigError(f"{name} names files, and none of them has a key")
    return keys


def _lines(name: str, path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_FILE + 1)
        if len(content) > _LONGEST_FILE:
            raise ConfigError(f"{name}: {path!r} is no file of keys: it is too long")
        return content.decode("ascii").splitlines()
    except OSError as exc:
        raise ConfigError(f"{name}: cannot read {path!r}: {exc.strerror}") from exc
    except UnicodeDecodeError:  # it quotes what it could not decode
        raise ConfigError(f"{name}: {path!r} is no file of keys: it is not ASCII") from None


def _add(keys: dict[str, bytes], name: str, text: str, where: str) -> None:
    """Take one `id:key`; what is wrong with it is said without a character of it."""
    key_id, colon, written = text.partition(":")
    if not colon:
        raise ConfigError(f"{name}: {where} is not written id:key; `upshot generate-key` makes one")
    _check_id(f"{name}: {where}", key_id)
    key = _decoded(written)
    if key is None:
        raise ConfigError(f"{name}: {where} ({key_id}) is neither base64 nor hexadecimal")
    if name == "encryption_keys" and len(key) not in _AES:
        raise ConfigError(f"{name}: {where} ({key_id}) has {len(key)} bytes, not 16, 24 or 32")
    if not _LEAST <= len(key) <= _MOST:
        raise ConfigError(
            f"{name}: {where} ({key_id}) has {len(key)} bytes, not {_LEAST} to {_MOST}"
        )
    if key_id in keys:
        raise ConfigError(f"{name}: two keys have the id {key_id}")
    keys[key_id] = key


def _check_id(where: str, key_id: str) -> None:
    if not _ID.fullmatch(key_id):  # it is not shown: it may be the key
        raise ConfigError(
            f"{where}: the id of a key is 1 to 32 letters, digits, dots, hyphens and underscores"
        )


def _decoded(written: str) -> bytes | None:
    """Return the bytes of a key: hexadecimal if it can be, or else base64, of either alphabet."""
    if _HEX.fullmatch(written):
        return bytes.fromhex(written)
    plain = written.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _ciphers(keys: Mapping[str, bytes]) -> dict[str, AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as exc:
        raise DriverMissingError(
            "encryption_keys needs the module 'cryptography', which is not installed: "
            'pip install "upshot[encryption]"',
            name="cryptography",
        ) from exc
    return {key_id: AESGCM(key) for key_id, key in keys.items()}


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what is before the signature, the signature, and what was signed."""
    if not is_signed(data):
        raise RefusedError("it is not signed")
    begin = len(_SIGNED) + 1
    end = begin + (data[begin - 1] if len(data) >= begin else 0)
    if len(data) < end + _MAC:
        raise RefusedError("its signature is cut short")
    return data[:end], data[end : end + _MAC], data[end + _MAC :]


def _mac(key: bytes, context: Sequence[bytes], head: bytes, data: bytes) -> bytes:
    return hmac.digest(key, b"".join((_flat((*context, head)), data)), "sha256")


def _flat(context: Sequence[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(4, "big") + each for each in context)


def _of(key_id: str) -> str:
    """Return a key's id for an error, if it is one: somebody else may have written it."""
    return f" ({key_id})" if _ID.fullmatch(key_id) else ""
