"""Broker and backend URLs: read once, handed to drivers as written, and never shown unmasked.

    scheme[@distribution]://[user[:password]@][host[:port],…][/path][?parameter&upshot_option]

Parameters whose name starts with `upshot_` are ours and are taken out before a driver sees the
URL. All other text reaches the driver byte for byte, so that each driver's own documentation
holds. A `;` before another `scheme://` joins the URLs of a fail-over list.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, get_type_hints
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from upshot.errors import UrlError
from upshot.masking import STARS, is_secret_name, mask, split_credentials
from upshot.spelling import near
from upshot.typed_text import describe_type, parse_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Url", "mask"]

_Options = TypeVar("_Options", bound="DataclassInstance")

_PREFIX: Final = "upshot_"
_EXAMPLE: Final = "redis://:password@localhost:6379/0"
_START: Final = r"[A-Za-z][A-Za-z0-9+._-]*(?:@[A-Za-z0-9][A-Za-z0-9._-]*)?://"
_JOINT: Final = re.compile(f";(?={_START})")
_SHAPE: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+._-]*)(?:@(?P<distribution>[A-Za-z0-9][A-Za-z0-9._-]*))?"
    r"://(?P<authority>[^/?]*)(?P<path>[^?]*)(?P<query>.*)"
)
_HOST: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[^\[\]:]*))(?P<port>:.*)?"
)


def _wrong(what: str, scheme: str = "") -> UrlError:
    """Make the error for an unreadable URL. It quotes the scheme and nothing more.

    The rest may be a password in a place where no password belongs.
    """
    shown = f" {scheme}://…" if scheme else ""
    return UrlError(f"cannot read the URL{shown}: {what}; a URL looks like {_EXAMPLE}")


@dataclass(frozen=True, slots=True, repr=False)
class Url:
    """A parsed broker or backend URL; make one with `Url.parse(text)`.

    `str()`, `repr()` and f-strings show `masked`. Equality and hash go by content: all that a
    driver receives, the distribution and the options. A pickled `Url` contains the password, as
    a worker process needs it; do not store the pickle.

    In a fail-over list, `hosts` has the hosts of all URLs, the other attributes are the first's.
    """

    scheme: str
    """The word before `://`, in lower case, with any `+driver`."""
    distribution: str | None
    """The installed distribution to take the scheme from; None takes the only one there is."""
    username: str | None
    """Percent-decoded; None where the URL has no user."""
    password: str | None
    """Percent-decoded; None where the URL has no password."""
    hosts: tuple[tuple[str, int | None], ...]
    """Each host with its port; IPv6 without brackets; None leaves the port to the driver."""
    path: str
    """All from the first `/` after the hosts, as written: "/%2F", "//abs.db", or ""."""
    query: tuple[tuple[str, str], ...]
    """The driver's parameters in their order, percent-decoded."""
    _options: tuple[tuple[str, str], ...]
    _rests: tuple[str, ...]
    _text: str = field(compare=False)
    _secrets: tuple[str, ...] = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read a URL.

        A raw `@` after the hosts is refused where a `:` comes before it, as it may be the end of
        a password that has a raw `/` or `?` in it.

        Raises:
            UrlError: the text is no URL; the message never contains a password.
        """
        text = _checked(text)
        parts = [_read(one) for one in _JOINT.split(text)]
        first = parts[0]
        if any(part.scheme != first.scheme for part in parts):
            raise _wrong("all URLs of a fail-over list must have one scheme", first.scheme)
        options = tuple(pair for part in parts for pair in part.options)
        counts = Counter(name for name, _ in options)
        if repeated := next((name for name, count in counts.items() if count > 1), None):
            raise _wrong(f"the option {_PREFIX + repeated!r} is given twice", first.scheme)
        return cls(
            scheme=first.scheme,
            distribution=first.distribution,
            username=first.username,
            password=first.password,
            hosts=tuple(host for part in parts for host in part.hosts),
            path=first.path,
            query=first.query,
            _options=options,
            _rests=tuple(part.rest for part in parts),
            _text=text,
            _secrets=tuple(secret for part in parts for secret in part.secrets if secret),
        )

    @property
    def options(self) -> Mapping[str, str]:
        """Our own parameters, without their `upshot_`, as text; `read_options` has them typed."""
        return MappingProxyType(dict(self._options))

    @property
    def masked(self) -> str:
        """The URL as written, with `***` for each password and secret parameter."""
        return mask(self._text)

    def __str__(self) -> str:
        return self.masked

    def __repr__(self) -> str:
        return f"Url({self.masked!r})"

    @property
    def identity(self) -> Hashable:
        """Equal for two URLs of one server, database and user: hosts, path, user, parameters.

        The scheme is left out, as `pyamqp://h//` and `rpc+amqp://h//` may be one service: compare
        identities only of URLs that the same service's classes read. Nothing is resolved, so
        equal means the same, and different may still mean the same: `localhost` is not
        `127.0.0.1`, and a default port left out is not that port written down.
        """
        hosts = sorted((host.lower(), port or 0) for host, port in self.hosts)
        return tuple(hosts), self.path, self.username, tuple(sorted(self.query))

    def driver_url(self, scheme: str | None = None) -> str:
        """Return the URL for the driver: without our options and `@distribution`. Never show it.

        `scheme` replaces the URL's own, for drivers that know another word; None keeps it, in
        lower case. All else is as the user wrote it, percent-encoding included.
        """
        return ";".join(f"{scheme or self.scheme}://{rest}" for rest in self._rests)

    def varied(self, *, path: str | None = None, **options: str) -> Url:
        """Return a URL that means another path, or other options of ours; shown as this one.

        Args:
            path: as written in a URL; None keeps this one's. Drivers that take the whole URL do
                not see it.
            options: without their `upshot_`.
        """
        kept = {name: value for name, value in self._options if name not in options}
        return dataclasses.replace(
            self,
            path=self.path if path is None else path,
            _options=tuple((kept | options).items()),
        )

    def read_options(self, into: type[_Options]) -> _Options:
        """Fill a dataclass from our own parameters: `upshot_lease=5` sets its field `lease`.

        Every field needs a default and one of the types of `upshot.typed_text`. A ValueError
        from its `__post_init__` becomes a UrlError, so that it can check ranges.

        Raises:
            UrlError: a parameter is unknown, or its value is not of the field's type.
        """
        kinds = get_type_hints(into)
        known = [known_field.name for known_field in dataclasses.fields(into)]
        values: dict[str, object] = {}
        for name, text in self._options:
            option = _PREFIX + name
            if name not in known:
                raise _unknown_option(self.scheme, name, known)
            try:
                values[name] = parse_text(text, kinds[name])
            except ValueError:
                shown = STARS if is_secret_name(name) else repr(mask(text))
                raise UrlError(
                    f"the option {option!r} of the {self.scheme}:// URL is {shown}; "
                    f"it must be {describe_type(kinds[name])}"
                ) from None
        try:
            return into(**values)
        except ValueError as exc:
            raise UrlError(f"the options of the {self.scheme}:// URL are wrong: {exc}") from exc

    def scrub(self, text: str) -> str:
        """Hide this URL's own secrets wherever they occur in a text, and mask all URLs in it.

        For messages of drivers, which may quote a password alone, decoded or encoded anew.
        """
        forms = {form for secret in self._secrets for form in _forms(secret)} - {""}
        if forms:
            longest_first = sorted(forms, key=len, reverse=True)
            pattern = "|".join(map(_pattern, longest_first))
            text = re.sub(pattern, STARS, text, flags=re.IGNORECASE)
        return mask(text)


class _Parts(NamedTuple):
    """One URL, or one of a fail-over list."""

    scheme: str
    distribution: str | None
    username: str | None
    password: str | None
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    query: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]
    rest: str
    secrets: tuple[str, ...]


def _checked(text: object) -> str:
    """Return the text if it can be a URL at all."""
    if not isinstance(text, str):
        raise _wrong(f"it is not text but {type(text).__name__}")
    if not text:
        raise _wrong("it is empty")
    if " " in text or not text.isprintable():
        raise _wrong("it has a space or control character; percent-encode it, a space as %20")
    return text


def _read(text: str) -> _Parts:
    """Take one URL apart."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise _wrong("it has no scheme, the word before '://'")
    scheme, authority = shape["scheme"].lower(), shape["authority"]
    if "#" in authority:
        raise _wrong("write a '#' in a user or password as %23", scheme)
    after = shape["path"] + shape["query"]
    if "@" in after and ("@" in authority or ":" in authority + after.rpartition("@")[0]):
        raise _wrong(
            "it has an '@' after the hosts; in a password write '@' as %40, '/' as %2F and "
            "'?' as %3F, elsewhere '@' as %40",
            scheme,
        )
    username, secrets, hosts = _split_authority(authority)
    ours, theirs = _split_query(shape["query"])
    return _Parts(
        scheme=scheme,
        distribution=shape["distribution"],
        username=None if username is None else unquote(username),
        password=unquote(secrets[0]) if secrets else None,
        hosts=tuple(_host(host, scheme) for host in hosts),
        path=shape["path"],
        query=tuple(_pair(text) for text in theirs if text),
        options=tuple((name[len(_PREFIX) :], value) for name, value in map(_pair, ours)),
        rest=authority + shape["path"] + _joined(shape["query"], ours, theirs),
        secrets=(
            *(part for secret in secrets for part in _ends(secret)),
            *(secret for text in ours + theirs for secret in _hidden(text)),
        ),
    )


def _split_authority(authority: str) -> tuple[str | None, list[str], list[str]]:
    """Return the user or None, the raw passwords, and the hosts as text."""
    if listed := split_credentials(authority):
        passwords = [password for _, password, _ in listed]
        return listed[0][0] or None, passwords, [host for _, _, host in listed]
    userinfo, at, hosts_text = authority.rpartition("@")
    hosts = re.split("[,;]", hosts_text) if hosts_text else []
    user, colon, password = userinfo.partition(":")
    return user or None if at else None, [password] if colon else [], hosts


def _ends(secret: str) -> list[str]:
    """Return a raw secret, and what a driver may take for the host: what follows an `@` in it.

    Drivers part user and host at the first or at the last one; there is no other way to take it.
    """
    return list(dict.fromkeys([secret, secret.partition("@")[2], secret.rpartition("@")[2]]))


def _host(text: str, scheme: str) -> tuple[str, int | None]:
    """Read `host`, `host:port`, `[IPv6]` or `[IPv6]:port`."""
    shape = _HOST.fullmatch(text)
    if shape is None:
        raise _wrong("a host has brackets it should not have", scheme)
    host, port = unquote(shape["ipv6"] or shape["name"] or ""), shape["port"]
    if not host:
        raise _wrong("a host is empty; a password is written :password@host", scheme)
    if not host.isprintable():
        raise _wrong("a host has a control character", scheme)
    if port is None:
        return host, None
    if ":" in port[1:]:
        raise _wrong("write an IPv6 host in brackets: [::1]:6379", scheme)
    digits = port[1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and 0 < int(digits) < 65536):
        raise _wrong("a port is not a number from 1 to 65535", scheme)
    return host, int(digits)


def _split_query(query: str) -> tuple[list[str], list[str]]:
    """Return our parameters and the driver's, each as written."""
    ours: list[str] = []
    theirs: list[str] = []
    for text in query[1:].split("&"):
        is_ours = _pair(text)[0].lower().startswith(_PREFIX)
        (ours if is_ours else theirs).append(text)
    return ours, theirs


def _pair(text: str) -> tuple[str, str]:
    """Return the decoded name and value of `name=value`."""
    name, _, value = text.partition("=")
    return unquote_plus(name), unquote_plus(value)


def _joined(query: str, ours: list[str], theirs: list[str]) -> str:
    """Return the query without our parameters, and as written if there are none."""
    if not ours:
        return query
    return "?" + "&".join(theirs) if theirs else ""


def _unknown_option(scheme: str, name: str, known: list[str]) -> UrlError:
    names = ", ".join(repr(_PREFIX + option) for option in sorted(known))
    found = near(name.lower(), known, most=1)
    hint = f"it knows {names}" if known else "it has none"
    if found:
        hint = f"did you mean {_PREFIX + found[0]!r}?"
    return UrlError(f"the {scheme}:// URL has an unknown option {_PREFIX + name!r}; {hint}")


def _hidden(pair: str) -> list[str]:
    """Return the raw secret of a `name=value`, or nothing, and the secrets within it.

    Some drivers separate parameters by `;` too. A value may have parts with names of their own:
    `AWS_SESSION_TOKEN:x,…` or `UID=a;PWD=x`.
    """
    pieces = pair.split(";")
    for position, piece in enumerate(pieces):
        if "=" in piece and is_secret_name(_pair(piece)[0]):
            raw = ";".join(pieces[position:]).partition("=")[2]
            break
    else:
        return []
    text = unquote_plus(raw)
    starts = [name.end() for name in re.finditer(r"(\w+)[:=]", text) if is_secret_name(name[1])]
    parts = [(text[start:], re.split("[,;]", text[start:])[0]) for start in starts]
    return [raw, *(part for both in parts for part in both)]


def _pattern(form: str) -> str:
    """Return what matches a text however often it was quoted: `'`, `\\'` and `\\\\\\'` are one."""
    plain_and_quoted = re.split(r"(\\*['\"]|\\+)", form)
    for position in range(1, len(plain_and_quoted), 2):
        mark = plain_and_quoted[position]
        is_escaped = mark.startswith("\\")
        plain_and_quoted[position] = (r"\\+" if is_escaped else r"\\*") + mark.lstrip("\\")
    plain_and_quoted[::2] = map(re.escape, plain_and_quoted[::2])
    return "".join(plain_and_quoted)


def _forms(secret: str) -> set[str]:
    """Return how a driver may write a secret that the URL has percent-encoded or raw."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    encoded = {form for text in plain for form in (quote(text), quote(text, safe=""))}
    quoted = {form[1:-1] for text in plain for form in (repr(text), ascii(text), json.dumps(text))}
    return plain | encoded | quoted | {quote_plus(text) for text in plain}
