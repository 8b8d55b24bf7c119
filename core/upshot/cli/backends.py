"""`upshot backends`: every installed service, what it can do, its tables, and new ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from upshot import registry
from upshot.backend import Backend, WithTables
from upshot.broker import Broker
from upshot.cli.exits import OK
from upshot.cli.new_backend import new
from upshot.cli.parameters import json_option
from upshot.cli.printing import show_json, show_table
from upshot.errors import ConfigError, DriverMissingError
from upshot.registry import Offer
from upshot.url import Url

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["backends", "ddl"]

S = TypeVar("S", Backend, Broker)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    """One scheme. `driver` is "present", or says what is missing or wrong."""

    offer: Offer
    driver: str
    install: str | None = None
    capabilities: DataclassInstance | None = None

    def to_data(self) -> dict[str, object]:
        return {
            "scheme": self.offer.name,
            "distribution": self.offer.distribution,
            "version": self.offer.version,
            "class": self.offer.entry_point.value,
            "driver": self.driver,
            "install": self.install,
            "capabilities": self.capabilities and dataclasses.asdict(self.capabilities),
        }


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def backends(context: click.Context, as_json: bool) -> int:
    """List the installed result backends and brokers, and what each can do."""
    if context.invoked_subcommand is not None:
        return OK
    results = _services(registry.BACKENDS, Backend)  # type: ignore[type-abstract]  # a base to check against
    brokers = _services(registry.BROKERS, Broker)  # type: ignore[type-abstract]  # as above
    if as_json:
        show_json(
            {
                "results": [service.to_data() for service in results],
                "brokers": [service.to_data() for service in brokers],
            }
        )
        return OK
    _show("Results", results)
    _show("Brokers", brokers)
    return OK


@backends.command()
@click.argument("url", metavar="URL")
def ddl(url: str) -> int:
    """Print the statements that create the tables of the SQL service at URL.

    They are created on first use by whoever has the right to. Where only an administrator has it,
    these are the statements to run. Nothing is opened.
    """
    parsed = Url.parse(url)
    backend = registry.backend_class(parsed)(parsed)
    try:
        if not isinstance(backend, WithTables):
            raise ConfigError(f"{parsed} needs no tables: there is nothing to create")
        print(backend.ddl())  # noqa: T201 - the command's output
    finally:
        backend.close()
    return OK


backends.add_command(new)


def _services(group: str, kind: type[S]) -> list[_Service]:
    return [_service(offer, kind) for offer in registry.offers(group)]


def _service(offer: Offer, kind: type[S]) -> _Service:
    try:
        found = registry.load(offer, kind)
        return _Service(offer=offer, driver="present", capabilities=found.capabilities)
    except DriverMissingError:
        line = registry.pip_line(offer)
        return _Service(offer=offer, driver=f"missing: {line}", install=line)
    except Exception as exc:  # somebody else's code: one broken service must not hide the others
        return _Service(offer=offer, driver=f"broken: {type(exc).__name__}: {exc}")


def _show(title: str, services: Sequence[_Service]) -> None:
    columns: dict[str, tuple[DataclassInstance, str]] = {}
    for service in sorted(services, key=lambda each: len(each.offer.name)):
        if service.capabilities is not None:
            # Schemes of one class share a column, named by the shortest: `rediss` is as `redis`.
            place = service.offer.entry_point.value
            columns.setdefault(place, (service.capabilities, service.offer.name))
    rows: list[tuple[str, str, str, str]] = []
    for service in services:
        _, like = columns.get(service.offer.entry_point.value, (None, ""))
        distribution = f"{service.offer.distribution} {service.offer.version}".strip()
        same = "" if like == service.offer.name else like
        rows.append((service.offer.name, same, distribution, service.driver))
    show_table(title, ("scheme", "same as", "distribution", "driver"), rows)
    print()  # noqa: T201 - the command's output
    if not columns:
        return
    declared = [capabilities for capabilities, _ in columns.values()]
    header = ["capability", *(scheme for _, scheme in columns.values())]
    lines = [
        (field.name, *(_shown(field.name, getattr(one, field.name)) for one in declared))
        for field in dataclasses.fields(declared[0])
    ]
    show_table(f"{title}: capabilities", header, lines)
    print()  # noqa: T201 - as above


def _shown(name: str, value: object) -> str:
    """Return a capability for people; floats are seconds, as everywhere."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, int) and name.endswith("_bytes"):
        return _bytes(value)
    return "none" if value is None else str(value)


def _bytes(number: int) -> str:
    """Return a size exactly: 65536 is 64 KiB, 65535 is 65535 B."""
    size, units = number, ["B", "KiB", "MiB", "GiB"]
    while size and size % 1024 == 0 and len(units) > 1:
        size, units = size // 1024, units[1:]
    return f"{size} {units[0]}"
