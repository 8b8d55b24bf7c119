"""Who takes part: upshot, each driver by itself, and the peers.

Contenders run in processes of their own; those of the peers in an environment that has them, and
not upshot. So this package imports nothing but the standard library, and each module no more than
its contender needs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders.contender import Contender
from benchmarks.player import Player

__all__ = ["CONTENDERS", "Entry", "make", "opened"]


@dataclass(frozen=True)
class Entry:
    """One contender.

    Attributes:
        module, cls: where it is.
        services: what it can be measured on.
        environment: whose packages it needs, a file in `environments/`; "" for upshot's.
    """

    module: str
    cls: str
    services: tuple[str, ...]
    environment: str = ""


_ALL: Final = ("redis", "memcached", "mongodb", "sqlite", "postgresql", "rpc")

CONTENDERS: Final = {
    "upshot": Entry("ours", "Upshot", _ALL),
    "raw": Entry("raw_{service}", "Raw", _ALL),
    "celery": Entry("celery_", "Celery", _ALL, "peers"),
    "celery_confirmed": Entry("celery_", "CeleryConfirmed", ("rpc",), "peers"),
    "dramatiq": Entry("peers", "Dramatiq", ("redis", "memcached"), "peers"),
    "huey": Entry("peers", "Huey", ("redis", "sqlite"), "peers"),
    "rq": Entry("peers", "Rq", ("redis",), "peers"),
    "taskiq": Entry("peers", "Taskiq", ("redis",), "peers"),
    "arq": Entry("peers", "Arq", ("redis",), "arq"),
}


def make(name: str, service: str, url: str) -> Contender:
    """Make a contender in this process."""
    entry = CONTENDERS[name]
    module = importlib.import_module(f"{__name__}.{entry.module.format(service=service)}")
    contender: Contender = getattr(module, entry.cls)(url)
    return contender


def opened(name: str, service: str, url: str) -> Player:
    """Start a contender in a process of its own."""
    return Player(name, CONTENDERS[name].environment, "benchmarks.stage", name, service, url)
