"""From `UPSHOT = {…}` in Django's settings to an App.

    broker, backend   the URLs, as `App` calls them; or `broker_url`, `result_backend`
    every other key   a setting of upshot's, which `upshot config` explains

Environment variables win over them, so that one settings file serves several machines. Without a
backend, results go to `django-db://`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from upshot import App
from upshot.errors import ConfigError
from upshot.url import Url

__all__ = ["NAME", "has_broker", "make_app", "named_alias"]

NAME: Final = "UPSHOT"
"""What the setting is called."""

_DEFAULT: Final = "django-db://"
_SHORT: Final = {"broker": "broker_url", "backend": "result_backend"}


def make_app(options: Mapping[str, Any] | None = None, *, where: str = NAME) -> App:
    """Return a new app, configured as Django's settings say. Opens nothing.

    Args:
        options: what wins over `UPSHOT`, under the same names; None for nothing.
        where: the setting that they are in, for messages.

    Raises:
        ImproperlyConfigured: `UPSHOT` is no mapping, or a key or value of it is wrong; likewise
            `options`.
    """
    name = NAME
    app = App()
    try:
        app.config_from_object({"result_backend": _DEFAULT, **_named(getattr(settings, NAME, {}))})
        _ = app.settings  # two that contradict each other are found only now
        if options is not None:
            name = where
            app.config_from_object(_named(options))
            _ = app.settings
    except ConfigError as exc:
        raise ImproperlyConfigured(f"settings.{name}: {exc}") from exc
    return app


def has_broker() -> bool:
    """Tell whether somebody has said where messages go."""
    return make_app().settings.broker_url is not None


def named_alias() -> str | None:
    """Return the alias that the backend's URL names; None if it names none, or is no `django-db`.

    Raises:
        ImproperlyConfigured: as `make_app`.
    """
    chosen = make_app().settings.result_backend or _DEFAULT
    try:
        url = Url.parse(chosen)
    except ConfigError as exc:
        raise ImproperlyConfigured(f"settings.{NAME}: {exc}") from exc
    if url.scheme != "django-db":
        return None
    return dict(url.query).get("using")


def _named(written: object) -> dict[str, Any]:
    """Return what somebody has set, under upshot's names."""
    if not isinstance(written, Mapping):
        raise ConfigError(f"it is a mapping, not {type(written).__name__}")
    found: dict[str, Any] = {}
    for name, value in cast("Mapping[object, Any]", written).items():
        if not isinstance(name, str):
            raise ConfigError(f"its keys are names, and {name!r} is none")
        known = _SHORT.get(name, name)
        if known in found:
            raise ConfigError(f"{known} is given twice")
        found[known] = value
    return found
