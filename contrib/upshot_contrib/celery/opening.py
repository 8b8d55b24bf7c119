"""From what follows `upshot+` in a backend's URL to an open client."""

from __future__ import annotations

from typing import Final

from upshot import registry
from upshot.client import ResultClient
from upshot.errors import UpshotError
from upshot.url import Url
from upshot_contrib.celery.driver import ImproperlyConfigured

__all__ = ["ALIAS", "open_client", "parse_url"]

ALIAS: Final = "upshot"
"""What Celery knows the backend by; the name of its entry point."""


def parse_url(text: str | None) -> Url:
    """Return the URL of upshot's backend.

    Raises:
        ImproperlyConfigured: there is none, or it cannot be read. No password is shown.
    """
    if not text:
        raise ImproperlyConfigured(
            f"a result backend of upshot is a URL: {ALIAS}+redis://localhost, "
            f"{ALIAS}+sqlite:///results.db"
        )
    try:
        return Url.parse(text)
    except UpshotError as exc:
        raise ImproperlyConfigured(str(exc)) from exc


def open_client(url: Url, *, namespace: str, expires: float | None, timeout: float) -> ResultClient:
    """Return a client of the backend at `url`; it connects when it is first used.

    Args:
        url: where.
        namespace: whose records.
        expires: seconds to keep them; None for ever.
        timeout: seconds that one operation may take.

    Raises:
        ImproperlyConfigured: nobody serves such a URL, its driver is missing, or the service
            carries results instead of keeping them.
    """
    try:
        make = registry.backend_class(url)
        client = ResultClient(
            lambda: make(url), url=url, namespace=namespace, expires=expires, timeout=timeout
        )
    except UpshotError as exc:
        raise ImproperlyConfigured(str(exc)) from exc
    if client.backend.reply_to:
        raise ImproperlyConfigured(
            f"{url} carries results in messages to whoever sent the task, and Celery's messages "
            "do not say where that is: choose a service that keeps them"
        )
    return client
