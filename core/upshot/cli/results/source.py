"""Which results are meant: those of an app, or of a service whose URL is given."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

import click

from upshot.app import App
from upshot.cli.target import load
from upshot.client import ResultClient
from upshot.errors import UnsupportedError

__all__ = [
    "Source",
    "inherited_target",
    "namespace_option",
    "open_url",
    "require_shared",
    "source_option",
]

F = TypeVar("F", bound=Callable[..., Any])

_SET_BY: Final = "UPSHOT_RESULT_BACKEND"


@final
@dataclass(frozen=True, slots=True)
class Source:
    """What was said about where the results are.

    Attributes:
        target: the app's module, as `-A` has it; None for none.
        url: of the service; None for what the app or the environment says.
        namespace: None for what the app, the environment or the default says.
    """

    target: str | None
    url: str | None
    namespace: str | None

    def open(self) -> App:
        """Return the app of these results; nothing is connected yet.

        Raises:
            ConfigError: the app cannot be found, or the URL cannot be read.
            UnsupportedError: its results are those of one process, and this is another.
        """
        settings = {} if self.namespace is None else {"namespace": self.namespace}
        app = load(self.target) if self.target else open_url(self.url, **settings)
        require_shared(app.results)
        return app


def open_url(url: str | None, **settings: Any) -> App:
    """Return an app without tasks; for None, and what is no setting here, the environment's."""
    return App(backend=url, **settings)


def inherited_target() -> str | None:
    """Return the app that was named before the sub-command, or in the environment."""
    above: object = click.get_current_context().obj
    return above if isinstance(above, str) else None


def require_shared(client: ResultClient) -> None:
    """Refuse results that no other process sees.

    Raises:
        UnsupportedError: the backend keeps or carries them for one process only.
    """
    if not client.capabilities.shared:
        raise UnsupportedError(
            f"{client.url} shows its results only to the process that submitted the tasks, and "
            "this is another: choose a backend that shares them, such as redis:// or sqlite:///"
        )


def namespace_option(command: F) -> F:
    """Add `--namespace`, passed as `namespace: str | None`."""
    return click.option(
        "--namespace", metavar="NAME", help="Where --url has several; by default as set."
    )(command)


def source_option(command: Callable[..., int]) -> Callable[..., int]:
    """Add `-A`, `--url` and `--namespace`, passed together as `source: Source`."""

    @functools.wraps(command)
    def chosen(*args: Any, **kwargs: Any) -> int:
        named = [kwargs.pop(name) for name in ("target", "url", "namespace")]
        return command(*args, source=_chosen(*named), **kwargs)

    named = namespace_option(chosen)
    named = click.option("--url", metavar="URL", help="The service, if there is no app.")(named)
    help_text = "The module that makes the App, and its name there."
    return click.option("-A", "--app", "target", metavar="MODULE[:NAME]", help=help_text)(named)


def _chosen(target: str | None, url: str | None, namespace: str | None) -> Source:
    context = click.get_current_context()
    if target is not None and (url is not None or namespace is not None):
        raise click.UsageError(
            "-A says where the results are: give no --url and no --namespace", context
        )
    above = inherited_target()
    if target is None and url is None and above is not None:
        if namespace is not None:
            raise click.UsageError("--namespace goes with --url: an app has its own", context)
        target = above
    if target is None and url is None and not os.environ.get(_SET_BY):
        raise click.UsageError(
            "which results? Give -A MODULE[:NAME], or set UPSHOT_APP; or give --url URL, or set "
            f"{_SET_BY}",
            context,
        )
    return Source(target or None, url, namespace)
