"""`upshot web`: serves the page until it is stopped."""

from __future__ import annotations

import importlib.util
import re
from typing import Final

import click

from upshot.cli.exits import OK
from upshot.cli.parameters import app_option, queues_option
from upshot.cli.printing import safe, show_lines, show_note
from upshot.cli.target import load
from upshot.errors import ConfigError, DriverMissingError

__all__ = ["web"]

_NEEDED: Final = ("starlette", "uvicorn", "jinja2")
_PORT: Final = 8020
_LAST_PORT: Final = 65_535
_NAME: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*", re.I | re.ASCII)


def _checked_names(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse what no browser can ask for: it would be refused by the page, without a reason."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise click.BadParameter(
                f"{safe(name)!r:.100} is no name of a host: give it alone, without scheme and "
                "port, such as jobs.example.com",
                context,
                parameter,
            )
    return names


@click.command()
@app_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; elsewhere than on this machine only with a token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, _LAST_PORT),
    default=_PORT,
    show_default=True,
    help="0 takes any that is free.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    callback=_checked_names,
    help="A name by which browsers reach it, such as that of a proxy.",
)
@click.option("--new-token", is_flag=True, help="Make a token, and print its link once.")
@queues_option
def web(
    target: str,
    host: str,
    port: int,
    names: tuple[str, ...],
    new_token: bool,
    queues: tuple[str, ...],
) -> int:
    """Show results, workers and queues in a browser.

    The page changes nothing. It listens on this machine only, unless there is a token: the setting
    web_token, or --new-token. Who has no token sees nothing then.
    """
    _require_extra()
    from upshot_contrib.web.pages import Site, application
    from upshot_contrib.web.serving import Address, serve
    from upshot_contrib.web.tokens import fresh_token, known_token

    with load(target) as app:
        configured = known_token(app.settings.web_token)
        if new_token and configured is not None:
            raise ConfigError("web_token is set already: give no --new-token, or set none")
        token = fresh_token() if new_token else configured
        with Address.bound(host, port) as address:
            address.require_token(token)
            site = Site(app, queues=queues or tuple(app.queues()), target=target)
            page = application(
                site, hosts=address.hosts(names), token=token, cookie=str(address.port)
            )
            query = f"?token={token}" if new_token else ""
            show_lines(f"The page is at {address.link}{query}\nCtrl-C stops it.")
            if token is None:
                show_note("without a token everybody on this machine can look at it")
            serve(page, address, stopping=site.stop)
    return OK


def _require_extra() -> None:
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise DriverMissingError(
                f'the page needs {name}, which is not installed: pip install "upshot[web]"',
                name=name,
            )
