"""`upshot config`: every setting, its value, and where that came from."""

from __future__ import annotations

import click

from upshot.cli.exits import OK
from upshot.cli.parameters import json_option, optional_app_option
from upshot.cli.printing import show_field, show_json, show_lines
from upshot.cli.target import load
from upshot.config import Configuration, Explained

__all__ = ["config", "shown"]


@click.command()
@optional_app_option
@json_option
def config(target: str | None, as_json: bool) -> int:
    """Print every setting with its value, source, unit, default and meaning.

    Without an app: as the environment and the defaults have them. Passwords are masked.
    """
    configuration = load(target).configuration if target else Configuration({})
    explained = configuration.explain()
    if as_json:
        show_json([_to_data(one) for one in explained])
        return OK
    width = max(len(one.setting.name) for one in explained)
    for one in explained:
        unit, text = one.setting.unit, shown(one.value)
        value = f"{text} {unit}" if unit and one.value is not None else text
        show_field(one.setting.name, f"{value}  [{one.source}]", width=width)
        meaning = f"{one.setting.doc} Default: {shown(one.setting.default)}."
        show_lines(meaning, indent=" " * (width + 1))
    return OK


def shown(value: object) -> str:
    """Return a value as it is written into the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, tuple):
        return ",".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return "none" if value is None else str(value)


def _to_data(one: Explained) -> dict[str, object]:
    return {
        "name": one.setting.name,
        "value": one.value,
        "source": one.source,
        "type": one.setting.kind,
        "unit": one.setting.unit or None,
        "default": one.setting.default,
        "meaning": one.setting.doc,
    }
