"""From `module[:name]` on the command line to the user's App.

A mistake in what was typed gets one line that names what may have been meant. A module of the
user's that cannot be imported gets the user's own traceback, without our frames.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final, final

import click

from upshot.app import App
from upshot.cli.exits import USAGE
from upshot.cli.printing import show_error, show_lines
from upshot.errors import ConfigError, UpshotError
from upshot.masking import mask
from upshot.spelling import near

__all__ = ["load"]

_PREFERRED: Final = "app"


@final
class _BrokenModuleError(click.ClickException):
    """The user's module raised an exception while it was imported."""

    exit_code = USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        show_lines(mask(_user_traceback(self.__cause__)), stderr=True)  # it may quote a URL
        show_error(self.message)


def load(target: str) -> App:
    """Import the module and return its App; the current directory can be imported from.

    Args:
        target: `module` or `module:name`. Without a name: the App called `app`, or the only one.

    Raises:
        ConfigError: there is no such module, or no such App in it; near names are given.
        click.ClickException: the module exists, and raised an exception.
    """
    module_name, colon, name = target.partition(":")
    if not _is_dotted(module_name) or (colon and not name.isidentifier()):
        raise ConfigError(
            f"cannot read -A {mask(target)!r} as MODULE or MODULE:NAME, such as shop.jobs:app"
            f"{_hint(module_name, colon + name)}"
        )
    here = _here()
    if here is not None and here not in sys.path:
        sys.path.insert(0, here)
    module = _imported(module_name)
    return _named(module, name) if name else _only(module)


def _here() -> str | None:
    """Return the current folder; None if it was removed, or cannot be looked up."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _as_module(path: str) -> str:
    """Return the module that a path of a file, as a shell completes it, may stand for."""
    return path.removesuffix(".py").removeprefix("./").strip("/").replace("/", ".")


def _hint(module: str, rest: str) -> str:
    """Return what may have been meant by a target that cannot be read."""
    if "://" in module + rest:
        return "; a broker's URL goes into App(broker=…) or UPSHOT_BROKER_URL"
    meant = _as_module(module)
    return "" if meant == module else _meant(meant, rest)


def _meant(module: str, rest: str) -> str:
    return f"; did you mean {module}{rest}?" if _is_dotted(module) else ""


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise _BrokenModuleError(f"the module {name!r} cannot be imported: {exc}") from exc
        raise ConfigError(f"there is no module {exc.name!r}{_near_module(name)}") from exc
    except UpshotError:
        raise  # a wrong setting, say: its message is meant for the user
    except Exception as exc:  # the user's code, which may raise anything
        raise _BrokenModuleError(
            f"the module {name!r} cannot be imported: {type(exc).__name__}"
        ) from exc


def _near_module(name: str) -> str:
    """Return what may have been meant by the name of a module that does not exist."""
    parent, _, last = name.rpartition(".")
    above = sys.modules.get(parent)
    if above is not None and isinstance(getattr(above, last, None), App):
        return f"; did you mean {parent}:{last}?"
    if name.endswith(".py"):
        return _meant(name.removesuffix(".py"), "")
    here = _here()
    paths = getattr(above, "__path__", None) if parent else [here] if here else []
    known = [found.name for found in pkgutil.iter_modules(paths or [])]
    close = _near(last, known)
    if close:
        dot = f"{parent}." if parent else ""
        return f"; did you mean {_listed(dot + one for one in close)}?"
    if here is None:
        return " among the installed ones, and the current folder has gone: change to another"
    return f" in {here} or among the installed ones"


def _apps(module: types.ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _named(module: types.ModuleType, name: str) -> App:
    found: object = getattr(module, name, None)
    if isinstance(found, App):
        return found
    apps = list(_apps(module))
    if hasattr(module, name):
        wrong = f"{module.__name__}:{name} is not an App, but of type {type(found).__name__}"
    else:
        wrong = f"the module {module.__name__!r} has no {name!r}"
    close = _near(name, apps) or apps
    hint = f"did you mean {_listed(close)}?" if close else "it has no App at all"
    raise ConfigError(f"{wrong}; {hint}")


def _only(module: types.ModuleType) -> App:
    apps = _apps(module)
    if _PREFERRED in apps:
        return apps[_PREFERRED]
    distinct = {id(app): name for name, app in apps.items()}
    if len(distinct) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise ConfigError(
            f"the module {module.__name__!r} has no App; make one: app = App(), or name another"
        )
    choices = (f"-A {module.__name__}:{name}" for name in apps)
    raise ConfigError(f"the module {module.__name__!r} has several Apps; give {_listed(choices)}")


def _near(name: str, known: list[str]) -> list[str]:
    folded = {one.lower(): one for one in known}
    return [folded[one] for one in near(name.lower(), folded)]


def _listed(names: Iterable[str]) -> str:
    return " or ".join(names)


def _user_traceback(error: BaseException | None) -> str:
    """Return the traceback from the first frame that is the user's."""
    if error is None:
        return ""
    frame = error.__traceback__
    while frame is not None and _is_machinery(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame))


def _is_machinery(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")
