"""The token that opens the page: where it comes from, and how it is compared.

A token is given once, in the link or by the form; from then on a cookie says that it was. The
cookie holds a hash of it: other servers of the same host get to see cookies, and learn nothing that
they could give to anybody.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Final, final

from upshot.errors import ConfigError

__all__ = ["Token", "fresh_token", "known_token"]

_FILE: Final = "file:"
_LEAST: Final = 16  # characters: 64 bits if they are random hexadecimal digits
_LONGEST_FILE: Final = 4096  # bytes
_BYTES: Final = 24  # of a new token: 192 bits, 32 characters
_COOKIE: Final = b"upshot web cookie"


@final
class Token:
    """One token, compared in a time that tells nothing about it.

    Args:
        text: what the user gives.
        name: ends the name of its cookie. Cookies know no ports, and there may be several pages.
    """

    def __init__(self, text: str, name: str) -> None:
        self._secret = text.encode()
        self.cookie_name = f"upshot_web_{name}"
        self.cookie = hmac.digest(self._secret, _COOKIE, "sha256").hex()

    def is_it(self, text: str) -> bool:
        """Tell whether somebody gave this token."""
        return hmac.compare_digest(self._secret, text.encode(errors="surrogateescape"))

    def is_cookie(self, text: str) -> bool:
        """Tell whether somebody has its cookie."""
        return hmac.compare_digest(self.cookie.encode(), text.encode(errors="surrogateescape"))


def fresh_token() -> str:
    """Return a new token that nobody can guess, made of letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(_BYTES)


def known_token(setting: str | None) -> str | None:
    """Return the token that the setting `web_token` names; None for none.

    Raises:
        ConfigError: the file cannot be read, or the token is too short.
    """
    if setting is None:
        return None
    token = _read(setting.removeprefix(_FILE)) if setting.startswith(_FILE) else setting
    if len(token) < _LEAST or not token.isprintable():
        raise ConfigError(
            f"web_token has at least {_LEAST} printable characters, or it can be guessed; "
            "--new-token makes one"
        )
    return token


def _read(path: str) -> str:
    if not os.path.isabs(path):
        raise ConfigError("web_token: a file with the token is file:/absolute/path")
    try:
        with Path(path).open("rb") as file:
            return file.read(_LONGEST_FILE).decode().strip()
    except OSError as exc:
        raise ConfigError(f"web_token: {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"web_token: {path} is not text in UTF-8") from exc
