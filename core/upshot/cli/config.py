"""`upshot config`: every setting, its value, where that came from, and what it means."""

from __future__ import annotations

import click

from upshot.cli.printing import print_json, print_table
from upshot.cli.target import app_option, load_app, target_of
from upshot.config import Configuration, Explained

__all__ = ["command"]


@click.command("config")
@app_option
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def command(ctx: click.Context, target: str | None, as_json: bool) -> None:
    """Explain every setting. Without an app: the environment's and the defaults."""
    named = target_of(ctx, target) is not None
    configuration = load_app(ctx, target).configuration if named else Configuration({})
    rows = configuration.explain()
    if as_json:
        print_json(
            {
                row.setting.name: {
                    "value": row.value,
                    "source": row.source,
                    "default": row.setting.default,
                    "type": row.setting.kind,
                    "unit": row.setting.unit,
                    "meaning": row.setting.doc,
                }
                for row in rows
            }
        )
        return
    print_table(
        ("setting", "value", "source", "meaning"),
        ((row.setting.name, _with_unit(row), row.source, row.setting.doc) for row in rows),
    )


def _with_unit(row: Explained) -> str:
    return "none" if row.value is None else f"{row.value} {row.setting.unit}".strip()
