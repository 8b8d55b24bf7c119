"""What an app is told of its settings, before anything is open."""

from __future__ import annotations

import os
import types
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from upshot.config import Configuration
from upshot.errors import ConfigError
from upshot.settings import Settings

if TYPE_CHECKING:
    from upshot.services import Services

__all__ = ["Configurable"]


class Configurable:
    """The part of `App` that is about its settings.

    Args:
        settings: as keywords gave them.

    Raises:
        ConfigError: a setting or its value is wrong.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.configuration = Configuration(settings)
        self._services_made: Services | None = None  # with the settings of then
        self._running = 0

    @property
    def settings(self) -> Settings:
        """The values in force."""
        return self.configuration.settings

    def config_from_object(self, source: str | types.ModuleType | Mapping[str, Any]) -> None:
        """Take settings from a module or mapping; keywords and environment win over them.

        Raises:
            ConfigError: a setting is unknown or wrong, or broker and backend are open already.
        """
        self._not_open()
        self.configuration.add_object(source)

    def config_from_file(self, path: str | os.PathLike[str]) -> None:
        """Take settings from a TOML file; otherwise like `config_from_object`."""
        self._not_open()
        self.configuration.add_file(path)

    @contextmanager
    def overridden(self, **settings: Any) -> Generator[Self]:
        """Use these settings, over all others, inside the `with` block; for tests.

        What was open stays so, aside. What a task took of the settings when it was registered, such
        as its time limits, it keeps.

        Raises:
            ConfigError: a setting is unknown or wrong, or `running()` is not over.
        """
        if self._running:
            raise ConfigError("leave app.running() before overriding the settings of its app")
        before = self.configuration, self._services_made
        self.configuration, self._services_made = self.configuration.overridden(settings), None
        try:
            yield self
        finally:
            made = self._services_made
            self.configuration, self._services_made = before
            if made is not None:
                made.close()

    def _not_open(self) -> None:
        made = self._services_made
        if made is not None and made.is_open:
            raise ConfigError("configure the app before its first task is sent or result is read")
        self._services_made = None  # it may have been asked for a URL, and has the settings of then
