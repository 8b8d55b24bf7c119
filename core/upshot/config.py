"""Where settings come from, strongest first: keywords of `App`, the environment, a module, a file.

The environment variable of a setting is `UPSHOT_` and its name in upper case. A name that no
setting has is an error wherever it stands, so that no misspelt setting is silently without effect.
"""

from __future__ import annotations

import importlib
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final

from upshot.errors import ConfigError, UnknownSettingError
from upshot.settings import SETTINGS, Setting, Settings
from upshot.spelling import hint, is_misspelt

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Configuration", "Explained"]

_PREFIX: Final = "UPSHOT_"

# Read by the command line.
_FOREIGN_NAMES: Final = frozenset({"UPSHOT_APP", "UPSHOT_LOG_LEVEL", "UPSHOT_NO_COLOR"})
# Read by the conformance suite and by tests.
_FOREIGN_PREFIXES: Final = ("UPSHOT_CONFORMANCE_", "UPSHOT_SERVICES_", "UPSHOT_TEST_")
# Kubernetes sets these in every pod of a namespace that has a Service named "upshot" or
# "upshot-…": https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES: Final = (
    r"UPSHOT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting as it stands: its definition, its value (masked) and where that came from."""

    setting: Setting
    value: object
    source: str


class _Found(NamedTuple):
    """A checked value and where it stood."""

    value: object
    source: str


@final
class Configuration:
    """The settings of one app, and the source of each.

    Build it in one thread, before the app is used; `settings` itself is immutable.

    Args:
        keywords: given to `App`; they win over everything. None counts as given.
        environment: None reads `os.environ`, once, now. Variables that begin with `UPSHOT_` and
            are no setting are errors, but for UPSHOT_APP, UPSHOT_LOG_LEVEL, UPSHOT_NO_COLOR,
            UPSHOT_CONFORMANCE_*, UPSHOT_SERVICES_*, UPSHOT_TEST_*, and those that Kubernetes sets
            for a Service called "upshot".

    Raises:
        UnknownSettingError: a name is no setting; the message has the nearest one.
        ConfigError: a value is of the wrong type or out of range.
    """

    def __init__(
        self, keywords: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        variables = os.environ if environment is None else environment
        self._keywords = _checked(keywords, "keyword")
        self._environment = dict(_from_environment(variables))
        self._objects: dict[str, _Found] = {}
        self._files: dict[str, _Found] = {}
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """The values in force.

        Raises:
            ConfigError: two values contradict each other.
        """
        if self._settings is None:
            values = {name: found.value for name, found in self._merged().items()}
            self._settings = Settings().updated(**values)
        return self._settings

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each setting's value comes from.

        One of `"default"`, `"keyword"`, `"environment UPSHOT_RESULT_EXPIRES"`,
        `"module myconfig"`, `"mapping"` and `"file upshot.toml"`.
        """
        merged = self._merged()
        return {name: merged[name].source if name in merged else "default" for name in SETTINGS}

    def add_object(self, source: str | types.ModuleType | Mapping[str, Any]) -> None:
        """Take settings from a module, by name or itself, or from a mapping.

        Every key of a mapping must be a setting. A module may have variables of its own:
        functions, classes, modules, and names that have an upper-case letter or begin with `_`
        are passed over, and so is any name that is neither a setting, nor nearly one, nor
        Celery's word for one. Of two objects, the one added later wins.

        Raises:
            UnknownSettingError: a name is no setting.
            ConfigError: the module cannot be imported, or a value is wrong.
        """
        if isinstance(source, Mapping):
            self._objects |= _checked(source, "mapping")
        else:
            module = _imported(source) if isinstance(source, str) else source
            self._objects |= _checked(dict(_variables(module)), f"module {module.__name__}")
        self._settings = None

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Take settings from a TOML file: table `[tool.upshot]`, `[upshot]`, or the top level.

        TOML has no null, so `"none"` stands for None. Objects win over files; of two files, the
        one added later wins.

        Raises:
            UnknownSettingError: a name is no setting.
            ConfigError: the file cannot be read, is not TOML, or a value is wrong.
        """
        import tomllib  # with `datetime`, for who keeps settings in a file
        from pathlib import Path

        file = Path(path)
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"cannot read the settings in {str(file)!r}: {exc}") from exc
        values = {
            name: None
            if value == "none" and name in SETTINGS and SETTINGS[name].optional
            else value
            for name, value in _table(content, file).items()
        }
        self._files |= _checked(values, f"file {file}")
        self._settings = None

    def overridden(self, keywords: Mapping[str, Any]) -> Configuration:
        """Return a copy in which these values win over all others.

        Raises:
            UnknownSettingError: a name is no setting.
            ConfigError: a value is wrong.
        """
        made = Configuration({}, {})
        made._keywords = self._keywords | _checked(keywords, "keyword")
        made._environment = self._environment
        made._objects = dict(self._objects)
        made._files = dict(self._files)
        return made

    def explain(self) -> list[Explained]:
        """Return every setting with its value and source; passwords are masked."""
        settings, sources = self.settings, self.sources
        return [
            Explained(setting, setting.masked(getattr(settings, name)), sources[name])
            for name, setting in SETTINGS.items()
        ]

    def _merged(self) -> dict[str, _Found]:
        return self._files | self._objects | self._environment | self._keywords


def _checked(values: Mapping[str, Any], source: str) -> dict[str, _Found]:
    """Return `values` if each is a setting of the right type."""
    return {name: _found(name, value, source) for name, value in values.items()}


def _found(name: str, value: Any, source: str) -> _Found:
    if name not in SETTINGS:
        raise UnknownSettingError(f"{source}: there is no setting {name!r}; {hint(name, SETTINGS)}")
    return _Found(_naming(source, SETTINGS[name].check, value), source)


def _naming(source: str, convert: Callable[[Any], object], value: Any) -> object:
    """Return `convert(value)`; an error names the source."""
    try:
        return convert(value)
    except ConfigError as exc:
        raise type(exc)(f"{source}: {exc}") from exc


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, _Found]]:
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or _is_foreign(variable):
            continue
        name = variable.removeprefix(_PREFIX).lower()
        source = f"environment {variable}"
        if name not in SETTINGS or not variable.isupper():
            raise UnknownSettingError(f"{source}: no setting is called so; {hint(name, SETTINGS)}")
        yield name, _Found(_naming(source, SETTINGS[name].read, text), source)


def _is_foreign(variable: str) -> bool:
    return (
        variable in _FOREIGN_NAMES
        or variable.startswith(_FOREIGN_PREFIXES)
        or re.fullmatch(_KUBERNETES, variable) is not None
    )


def _imported(name: str) -> types.ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is not the dotted name of a module, such as 'shop.settings'")
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise ConfigError(f"cannot import the settings module {name!r}: {exc}") from exc


def _variables(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the module's variables that are settings, or were meant to be."""
    for name, value in vars(module).items():
        if name.startswith("_") or not name.islower():
            continue
        if callable(value) or isinstance(value, types.ModuleType):
            continue
        if name in SETTINGS or is_misspelt(name, SETTINGS):
            yield name, value


def _table(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the settings in a file's content."""
    tool = content.get("tool")
    table: object = cast("dict[str, Any]", tool).get("upshot") if isinstance(tool, dict) else None
    if table is None and file.name == "pyproject.toml":
        raise ConfigError(f"{str(file)!r} has no table [tool.upshot]")
    if table is None:
        table = content.get("upshot", content)
    if not isinstance(table, dict):
        raise ConfigError(f"'upshot' in {str(file)!r} must be a table of settings")
    return cast("dict[str, Any]", table)
