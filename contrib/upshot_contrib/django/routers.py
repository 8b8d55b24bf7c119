"""A database router that keeps the table of results in one database, and only there."""

from __future__ import annotations

from typing import Any, final

from upshot_contrib.django.settings import named_alias

__all__ = ["UpshotRouter"]

_LABEL = "upshot"


@final
class UpshotRouter:
    """`DATABASE_ROUTERS = ["upshot_contrib.django.routers.UpshotRouter"]`

    Sends the model `Result` to the database that `backend` in `settings.UPSHOT` names with
    `?using=`. It says nothing about other models, nor about any if no database is named.
    """

    def db_for_read(self, model: Any, **_: Any) -> str | None:
        """Return the alias for a model of this app."""
        return named_alias() if model._meta.app_label == _LABEL else None

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        """Return the alias for a model of this app."""
        return self.db_for_read(model)

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """Let the table be made in that database, and in no other."""
        alias = named_alias()
        return db == alias if app_label == _LABEL and alias is not None else None
