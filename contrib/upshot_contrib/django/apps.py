"""What Django loads for `"upshot_contrib.django"` in INSTALLED_APPS."""

from __future__ import annotations

import importlib
from typing import final

import django
from django.apps import AppConfig, apps
from django.core import checks
from django.utils.module_loading import module_has_submodule

from upshot_contrib.django.checks import check_backend, check_database, check_settings

__all__ = ["UpshotConfig", "discover_tasks"]

_TASKS = "tasks"


@final
class UpshotConfig(AppConfig):
    """Registers the checks, and imports the tasks of every installed app."""

    name = "upshot_contrib.django"
    label = "upshot"
    verbose_name = "Upshot"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register(check_settings, "upshot")
        checks.register(check_backend, "upshot")
        checks.register(check_database, checks.Tags.database)
        modules = discover_tasks()
        if django.VERSION >= (6,):
            from upshot_contrib.django.tasks.known import KNOWN

            KNOWN.add_declared(modules)


def discover_tasks() -> list[str]:
    """Import the module `tasks` of every installed app that has one; return their names.

    What such a module raises while it is imported is raised here.
    """
    found = [
        f"{config.name}.{_TASKS}"
        for config in apps.get_app_configs()
        if config.label != UpshotConfig.label and module_has_submodule(config.module, _TASKS)
    ]
    for name in found:
        importlib.import_module(name)
    return found
