"""`upshot backends`: every installed service and what it can do."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from upshot import registry
from upshot.backend import Backend
from upshot.broker import Broker
from upshot.cli.printing import print_json, print_table
from upshot.errors import ConfigError, DriverMissingError
from upshot.registry import BACKENDS, BROKERS, Offer

__all__ = ["command"]


@click.command("backends")
@click.option("--json", "as_json", is_flag=True)
def command(as_json: bool) -> None:
    """List every installed URL scheme, its distribution, its driver, and what it can do."""
    rows = [_describe("results", offer, Backend) for offer in registry.offers(BACKENDS)]
    rows += [_describe("broker", offer, Broker) for offer in registry.offers(BROKERS)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("scheme", "as", "distribution", "driver", "can"),
        ((f"{r['scheme']}://", r["role"], r["distribution"], r["driver"], _can(r)) for r in rows),
    )


def _describe(role: str, offer: Offer, kind: type[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "scheme": offer.name,
        "role": role,
        "distribution": f"{offer.distribution} {offer.version}",
        "driver": "present",
        "capabilities": None,
    }
    try:
        found = registry.load(offer, kind)
        row["capabilities"] = dataclasses.asdict(found.capabilities)
    except DriverMissingError:
        row["driver"] = f"missing: {registry.pip_line(offer)}"
    except ConfigError as exc:
        row["driver"] = str(exc)
    except Exception as exc:  # a broken foreign distribution must not hide the others
        row["driver"] = f"broken: {exc!r}"
    return row


def _can(row: dict[str, Any]) -> str:
    capabilities: dict[str, Any] = row["capabilities"] or {}
    return ", ".join(_word(name, value) for name, value in capabilities.items())


def _word(name: str, value: bool | float | None) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name}={'none' if value is None else value}"
