"""`manage.py upshot_prune`: remove the records that have expired."""

from __future__ import annotations

from typing import Any, final

from django.core.management.base import BaseCommand, CommandError

from upshot.errors import ServiceError
from upshot_contrib.django.serving import apps_of_project

__all__ = ["Command"]


@final
class Command(BaseCommand):
    """As `upshot result prune`, for the app of `settings.UPSHOT` and all of `settings.TASKS`."""

    help = (
        "Remove the records that have expired. Whoever stores does so now and then, and no reader "
        "sees them meanwhile; this does it at once, in small batches."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        removed = 0
        try:
            for served in apps_of_project():
                with served.app as app:
                    removed += app.results.prune()
        except ServiceError as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(f"removed: {removed}")
