"""What every SQL URL has: a scheme with several spellings, and parameters of upshot's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from upshot.errors import UrlError
from upshot.url import Url

__all__ = ["SqlOptions", "check_scheme"]

_SCHEMES: Final = ("db+", "sqla+")  # as Celery and kombu write SQLAlchemy's URLs
_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,29}")  # 30 leaves room below 63 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlOptions:
    """The `upshot_…` parameters of every SQL URL.

    Attributes:
        table_prefix: what the name of each table begins with: 1 to 30 ASCII letters, digits and
            underscores. A broker stores records in the same transaction as messages only if the
            backend has the same prefix.
    """

    table_prefix: str = "upshot_"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.table_prefix):
            raise ValueError(
                "upshot_table_prefix is 1 to 30 ASCII letters, digits and underscores, "
                f"not {self.table_prefix!r}"
            )


def check_scheme(url: Url, services: tuple[str, ...], drivers: tuple[str, ...]) -> None:
    """Refuse a URL of another service, or one that asks for a driver which upshot does not use.

    Args:
        url: `service://` or `service+driver://`, with `db+` or `sqla+` before it or not.
        services: what the service is called.
        drivers: what SQLAlchemy calls the drivers that may be named.

    Raises:
        UrlError: the URL names something else.
    """
    scheme = url.scheme
    for prefix in _SCHEMES:
        scheme = scheme.removeprefix(prefix)
    service, _, driver = scheme.partition("+")
    if service not in services or (driver and driver not in drivers):
        raise UrlError(f"{url}: upshot has no such driver; write {services[0]}://")
