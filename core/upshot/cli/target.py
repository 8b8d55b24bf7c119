"""From `-A module[:attr]`, or UPSHOT_APP, to the app that it names."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from upshot.app import App
from upshot.errors import ConfigError

__all__ = ["app_option", "load_app", "target_of"]

F = TypeVar("F", bound=Callable[..., Any])


def app_option(function: F) -> F:
    """Let a sub-command take -A too, so that it may stand before or behind its name."""
    return click.option(
        "-A", "--app", "target", metavar="MODULE[:ATTR]", help="The app; or UPSHOT_APP."
    )(function)


def target_of(ctx: click.Context, target: str | None) -> str | None:
    """Return what names the app: behind the sub-command, before it, or in UPSHOT_APP."""
    return target or ctx.obj or os.environ.get("UPSHOT_APP") or None


def load_app(ctx: click.Context, target: str | None) -> App:
    """Import and return the app; the working directory is looked in first.

    Raises:
        ConfigError: no app is named, the module is not found, or it has no such app. An error
            inside the user's module is raised as it is.
    """
    named = target_of(ctx, target)
    if named is None:
        raise ConfigError("which app? Name it with -A module[:attr], or in UPSHOT_APP")
    module_name, _, attribute = named.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # A module that the user's own module misses is the user's to see, with its traceback.
        if exc.name is None or not (module_name + ".").startswith(exc.name + "."):
            raise
        raise ConfigError(f"-A {named}: there is no module {exc.name!r} here") from exc
    except ValueError as exc:
        raise ConfigError(f"-A {named}: not a module's name") from exc
    apps = {name: found for name, found in vars(module).items() if isinstance(found, App)}
    if attribute:
        if attribute in apps:
            return apps[attribute]
        near = difflib.get_close_matches(attribute, apps, n=1) or list(apps)
        raise ConfigError(f"-A {named}: no App is called {attribute!r}{_hint(module_name, near)}")
    if "app" in apps:
        return apps["app"]
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if apps:
        raise ConfigError(f"-A {named}: which one? {_hint(module_name, list(apps))}")
    raise ConfigError(f"-A {named}: the module has no upshot.App")


def _hint(module: str, names: list[str]) -> str:
    return f"; try -A {module}:{names[0]}" if names else ""
