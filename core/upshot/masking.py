"""Hides the passwords of URLs in any text, before it is logged, shown or raised.

Where a text can be read in two ways, more is hidden rather than less: everything from the first
colon to the last `@` of a URL counts as a password, whatever characters lie between.
"""

from __future__ import annotations

import re
import string
from typing import Final
from urllib.parse import unquote_plus

__all__ = ["STARS", "is_secret_name", "mask", "split_credentials"]

STARS: Final = "***"
"""What stands in the place of a password, however long it is."""

_SPACES: Final = re.compile(r"(\s+)")
_SCHEME_CHARACTERS: Final = string.ascii_letters + string.digits + "+.-_@"
_HOST_ONLY: Final = re.compile(r"(?:\[[^\]@]*\]|[^:/?@]*)(?::\d{1,5})?(?:[/?;,][^:]*)?")
_CREDENTIALED: Final = re.compile(
    r"(?P<user>[^:@,;/?]*):(?P<password>[^@,;/?]*)@(?P<host>(?:\[[^\]@]*\]|[^:@,;/?]+)(?::\d+)?)"
)
_IPV6: Final = re.compile(r"\[[^\]]*\]")
_PORT: Final = re.compile(r"\d{1,5}\W*")

_SECRET_WORDS: Final = ("pass", "pwd", "secret", "token", "key", "credential")
_SECRET_NAMES: Final = frozenset({"auth", "authmechanismproperties", "odbcconnect"})
_PATH_ENDINGS: Final = ("file", "path", "dir")


def is_secret_name(name: str) -> bool:
    """Tell whether a URL parameter of this name holds a secret.

    Names with `pass`, `pwd`, `secret`, `token`, `key` or `credential` in them do. Those that end
    in `file`, `path` or `dir` hold paths, and so does libpq's `sslkey`; a `keyspace` and a
    `key_prefix` are not keys. Case, `_` and `-` do not matter.
    """
    plain = name.lower().replace("_", "").replace("-", "")
    if plain == "sslkey" or plain.endswith(_PATH_ENDINGS):
        return False
    plain = plain.replace("keyspace", "").replace("keyprefix", "")
    return plain in _SECRET_NAMES or any(word in plain for word in _SECRET_WORDS)


def split_credentials(authority: str) -> list[tuple[str, str, str]] | None:
    """Split `u:p@h1,v:q@h2:99` into one (user, password, host) for each host.

    Returns None unless there are several hosts and each has its own user and password; then
    all that stands before the last `@` belongs to one user.
    """
    parts = [_CREDENTIALED.fullmatch(part) for part in re.split("[,;]", authority)]
    if len(parts) < 2:
        return None
    found = [(part["user"], part["password"], part["host"]) for part in parts if part]
    return found if len(found) == len(parts) else None


def mask(text: str) -> str:
    """Replace the password of every URL in a text, and every secret URL parameter, by `***`.

    A URL ends at the next white space. The rest of the text is unchanged, and masking twice
    changes nothing more. The time taken grows linearly with the length of the text.
    """
    if "://" not in text:
        return text
    # What is hidden may have kept a URL behind it from being seen as one.
    while (masked := "".join(_mask_word(word) for word in _SPACES.split(text))) != text:
        text = masked
    return masked


def _mask_word(word: str) -> str:
    """Mask a text without white space, which may hold several URLs."""
    first, *rests = word.split("://")
    done = [first]
    waiting: list[str] = []  # parts of one URL whose password may have a "://" inside
    for number, rest in enumerate(rests, start=1):
        body = rest if number == len(rests) else _before_next_url(rest, starts=not waiting)
        if body is None:
            waiting.append(rest)
        else:
            done.append(_mask_rest("://".join([*waiting, body])) + rest[len(body) :])
            waiting = []
    return "://".join(done)


def _before_next_url(rest: str, *, starts: bool) -> str | None:
    """Return the URL's text up to the next URL's scheme, or None if no other URL begins there.

    `starts` tells whether `rest` begins its URL. What follows a host and port, or a password that
    is complete, can be another URL; what follows a `:` or `=` may be another secret.
    """
    body = rest.rstrip(_SCHEME_CHARACTERS)
    scheme = rest[len(body) :]
    if not scheme[:1].isalpha() or body.endswith((":", "=")):
        return None
    if "@" in body or (starts and _HOST_ONLY.fullmatch(body)):
        return body.rstrip(";,")
    return None


def _mask_rest(rest: str) -> str:
    """Mask what follows the `://` of one URL."""
    head, mark, query = rest.partition("?")
    shown = head + mark + "&".join(_mask_parameter(pair) for pair in query.split("&"))
    end = re.search("[/?]", shown)
    authority = shown[: end.start()] if end else shown
    before, at, after = shown.rpartition("@")
    if not at:
        return _mask_ports(authority) + shown[len(authority) :]
    if len(before) < len(authority) and (listed := split_credentials(authority)):
        credentials = ",".join(f"{user}:{STARS}@{host}" for user, _, host in listed)
        return credentials + shown[len(authority) :]
    user, colon, _ = before.partition(":")
    return f"{user}:{STARS}@{after}" if colon else shown


def _mask_parameter(pair: str) -> str:
    """Mask one `name=value`; some drivers also separate parameters by `;`."""
    pieces = pair.split(";")
    for position, piece in enumerate(pieces):
        name, equals, _ = piece.partition("=")
        if equals and is_secret_name(unquote_plus(name)):
            return ";".join([*pieces[:position], f"{name}={STARS}"])
    return pair


def _mask_ports(authority: str) -> str:
    """Mask a port that is no number: a password whose host was forgotten."""
    parts = re.split("([,;])", authority)
    for position, part in enumerate(parts):
        bracketed = _IPV6.match(part)
        start = bracketed.end() if bracketed else 0
        name, colon, port = part[start:].partition(":")
        if colon and not _PORT.fullmatch(port):
            parts[position] = f"{part[:start]}{name}:{STARS}"
    return "".join(parts)
