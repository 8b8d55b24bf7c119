"""From a URL to the client that knows where its keys live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from upshot.errors import UrlError
from upshot.url import Url
from upshot_backends.redis.client import RedisClient
from upshot_backends.redis.cluster import ClusterClient
from upshot_backends.redis.driver import plain_scheme
from upshot_backends.redis.sentinel import SentinelClient
from upshot_backends.redis.single import SingleClient

__all__ = ["open_client"]

_KINDS: Final[dict[str, Callable[[Url], RedisClient]]] = {
    "redis": SingleClient,
    "rediss": SingleClient,
    "redis+unix": SingleClient,
    "redis+sentinel": SentinelClient,
    "rediss+sentinel": SentinelClient,
    "sentinel": SentinelClient,
    "redis+cluster": ClusterClient,
    "rediss+cluster": ClusterClient,
}


def open_client(url: Url) -> RedisClient:
    """Make the client for a URL; it connects when it is first used.

    Raises:
        UrlError: the URL lacks something, or has a parameter that is unknown or wrong.
    """
    kind = _KINDS.get(plain_scheme(url))
    if kind is None:
        raise UrlError(
            f"{url}: Redis knows no {url.scheme}://; it knows {', '.join(_KINDS)}, and valkey in "
            "the place of redis"
        )
    return kind(url)
