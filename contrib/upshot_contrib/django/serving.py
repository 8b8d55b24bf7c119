"""The apps that the project's commands are for: its own, and those of Django's tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import django

from upshot import App
from upshot.errors import ConfigError
from upshot_contrib.django.settings import NAME

__all__ = ["Served", "apps_of_project", "chosen_app"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An app of the project, as workers are started for it.

    Attributes:
        name: "UPSHOT" for the project's own, otherwise its alias in TASKS.
        app: the app.
        queues: what its workers serve unless they are told otherwise.
    """

    name: str
    app: App
    queues: tuple[str, ...]


def apps_of_project() -> list[Served]:
    """Return every app that something can be sent to, each once; the project's own comes first.

    Raises:
        ImproperlyConfigured: `UPSHOT` is wrong, or OPTIONS of an alias in TASKS.
    """
    if django.VERSION < (6,):
        from upshot_contrib.django.app import app  # reads Django's settings

        return [Served(name=NAME, app=app, queues=tuple(app.queues()))]
    from upshot_contrib.django.tasks import services

    return services.apps_of_project()


def chosen_app(name: str | None) -> Served:
    """Return the app that a worker is to be started for.

    Args:
        name: one of the names; None where there is only one.

    Raises:
        ConfigError: there is no such app, or there are several and none is named.
        ImproperlyConfigured: as `apps_of_project`.
    """
    served = apps_of_project()
    names = ", ".join(each.name for each in served)
    if name is None and len(served) > 1:
        raise ConfigError(
            "a worker serves one broker and one result backend, and this project names several: "
            f"start a worker for each, with --serve and one of: {names}"
        )
    for each in served:
        if name in (None, each.name):
            return each
    raise ConfigError(f"--serve is one of: {names}; not {name!r}")
