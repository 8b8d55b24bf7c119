"""From a URL scheme, or a serializer's name, to the class that an installed distribution offers.

Services are entry points of the groups `upshot.backends` and `upshot.brokers` (named by URL scheme)
and `upshot.serializers` (named as in settings). The built-in ones are registered in the same way as
anybody's. Only the class that is asked for is imported.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

from upshot import forking
from upshot.backend import Backend
from upshot.broker import Broker
from upshot.errors import (
    ConfigError,
    DriverMissingError,
    SchemeConflictError,
    UnknownSchemeError,
)
from upshot.serializers import Serializer
from upshot.spelling import near
from upshot.url import Url, mask

__all__ = [
    "BACKENDS",
    "BROKERS",
    "SERIALIZERS",
    "Offer",
    "backend_class",
    "broker_class",
    "load",
    "offers",
    "pip_line",
    "results_url",
    "serializers",
]

T = TypeVar("T")

BACKENDS: Final = "upshot.backends"
BROKERS: Final = "upshot.brokers"
SERIALIZERS: Final = "upshot.serializers"

_SQL_PREFIXES: Final = ("db+", "sqla+")  # as Celery and kombu write SQLAlchemy's URLs


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry point: what a distribution says it can do.

    Attributes:
        name: the URL scheme, or the serializer's name.
        distribution: whose it is, such as `"upshot"`; "" if unknown.
        version: that distribution's version.
        entry_point: where the class is.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint


@functools.cache
def offers(group: str) -> tuple[Offer, ...]:
    """Return everything that installed distributions offer in `group`, sorted by name.

    A distribution that is found twice on the path counts once. The answer is cached for the life
    of the process.
    """
    found: dict[tuple[str, str, str], Offer] = {}
    for entry in entry_points(group=group):
        distribution = entry.dist.name if entry.dist else ""
        version = entry.dist.version if entry.dist else ""
        offer = Offer(entry.name.lower(), distribution, version, entry)
        found.setdefault((offer.name, distribution, entry.value), offer)
    return tuple(sorted(found.values(), key=lambda offer: (offer.name, offer.distribution)))


def backend_class(url: Url) -> type[Backend]:
    """Return the result backend that serves `url`'s scheme, imported now.

    Raises:
        UnknownSchemeError: nobody offers it; near schemes are named.
        SchemeConflictError: two distributions do; `scheme@distribution://` chooses.
        DriverMissingError: its driver is not installed; the pip line is given.
        ConfigError: what the entry point names is not a backend.
    """
    return load(_chosen(BACKENDS, url, "result backend"), Backend)  # type: ignore[type-abstract]  # a base to check against


def broker_class(url: Url) -> type[Broker]:
    """Return the broker that serves `url`'s scheme; otherwise like `backend_class`."""
    return load(_chosen(BROKERS, url, "broker"), Broker)  # type: ignore[type-abstract]  # as above


def results_url(url: Url, broker: Url) -> Url:
    """Return where results go if `url` is the setting and `broker` the broker's URL.

    That is `url` itself, but for a backend that works over the broker's connection and whose URL
    names no host: `rpc://`.

    Raises:
        ConfigError: it names no host, and the broker is another kind of service.
        UnknownSchemeError, SchemeConflictError, DriverMissingError: as `backend_class`.
    """
    if url.hosts:
        return url
    kind = backend_class(url)
    if not kind.over_broker:
        return url
    if url.query or url.options or url.path.strip("/") or url.username is not None:
        raise ConfigError(f"{url} means the broker's URL: write the rest of it there")
    try:
        is_one_service = backend_class(broker) is kind
    except UnknownSchemeError:
        is_one_service = False
    if not is_one_service:
        raise ConfigError(
            f"{url} sends results over the broker's connection, and {broker} cannot carry them: "
            f"name the service, as {url.scheme}://user@host//, or choose another result backend"
        )
    return broker


def serializers(names: tuple[str, ...]) -> dict[str, Serializer]:
    """Return an instance of each named serializer.

    Raises:
        ConfigError: no installed distribution offers one of them.
        DriverMissingError: its library is not installed.
    """
    instances: dict[str, Serializer] = {}
    for name in names:
        candidates = [offer for offer in offers(SERIALIZERS) if offer.name == name]
        if not candidates:
            known = ", ".join(offer.name for offer in offers(SERIALIZERS))
            raise ConfigError(f"no serializer is called {mask(name)!r}; installed are {known}")
        factory: Callable[[], Serializer] = load(_only(candidates, name), Serializer)  # type: ignore[type-abstract]  # as above
        instances[name] = _made_by(factory)
    return instances


def _made_by(factory: Callable[[], T]) -> T:
    return factory()


def _chosen(group: str, url: Url, kind: str) -> Offer:
    """Return the offer for a URL; `a+b` falls back to `a`, `db+a` and `sqla+a` mean `a`."""
    scheme = url.scheme
    for prefix in _SQL_PREFIXES:
        scheme = scheme.removeprefix(prefix)
    names = dict.fromkeys((url.scheme, scheme, scheme.partition("+")[0]))
    for name in names:
        candidates = [offer for offer in offers(group) if offer.name == name]
        if url.distribution is not None:
            wanted = _normalised(url.distribution)
            candidates = [c for c in candidates if _normalised(c.distribution) == wanted]
        if candidates:
            return _only(candidates, name)
    raise UnknownSchemeError(_unknown(group, url, kind))


def _only(candidates: list[Offer], name: str) -> Offer:
    if len(candidates) > 1:
        owners = " and ".join(repr(offer.distribution) for offer in candidates)
        raise SchemeConflictError(
            f"{name!r} is offered by {owners}; uninstall one, or choose in the URL: "
            f"{name}@{candidates[0].distribution}://…"
        )
    return candidates[0]


def _unknown(group: str, url: Url, kind: str) -> str:
    schemes = [offer.name for offer in offers(group)]
    found = near(url.scheme, schemes)
    hint = f"did you mean {', '.join(found)}?" if found else f"installed: {', '.join(schemes)}"
    where = f" of the distribution {url.distribution!r}" if url.distribution else ""
    return f"no {kind}{where} serves {url.scheme}:// URLs; {hint}"


def _normalised(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")


class _Imports:
    """Lets one thread after the other import what is offered.

    Drivers look for modules of their own as attributes of packages. An attribute is set a moment
    after the module counts as imported, so a second thread can find one without the other:
    SQLAlchemy then fails with "module 'sqlalchemy' has no attribute 'dialects'".
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # what is imported may load something itself
        forking.register(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()


_IMPORTS: Final = _Imports()


def load(offer: Offer, kind: type[T]) -> type[T]:
    """Import what `offer` names and check that it derives from `kind`.

    Raises:
        DriverMissingError: an import inside it failed for want of another distribution.
        ConfigError: it is something else.
    """
    entry = offer.entry_point
    try:
        with _IMPORTS.lock:
            loaded: Any = entry.load()
    except ImportError as exc:
        # A module of its own that is missing is a bug there, not a missing driver.
        own = entry.module.partition(".")[0]
        if exc.name is None or exc.name.partition(".")[0] == own:
            raise
        raise DriverMissingError(
            f"{offer.name!r} needs the module {exc.name!r}, which is not installed: "
            f"{pip_line(offer)}",
            name=exc.name,
        ) from exc
    if not isinstance(loaded, type) or not issubclass(loaded, kind):
        raise ConfigError(
            f"the entry point {offer.name!r} of {offer.distribution!r} names {entry.value!r}, "
            f"which is not a {kind.__name__}"
        )
    return loaded


def pip_line(offer: Offer) -> str:
    """Return the command that installs what `offer` needs.

    It names the extra that is called like the offer, or like a package on the way to its class:
    `rediss` lives in `upshot_backends.redis`, so it needs `upshot[redis]`.
    """
    distribution = offer.entry_point.dist
    extras = distribution.metadata.get_all("Provides-Extra") or [] if distribution else []
    words = [offer.name, *offer.entry_point.module.split(".")]
    extra = next((word for word in words if word in extras), None)
    if extra is None:
        return f"see how {offer.distribution!r} says to install it"
    return f'pip install "{offer.distribution}[{extra}]"'
