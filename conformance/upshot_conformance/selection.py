"""From what stands after `--backend` to the backends that are tested.

A value with `://` is a URL; another is an alias, from the environment or the project's
`pyproject.toml`, or else the scheme of an installed backend, or the name of an installed harness,
that can start a private service. Everything that can go wrong here is reported before the first
test is collected.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import logging
import os
import secrets
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import pytest

from upshot import clock, registry
from upshot.backend import Backend, Capabilities
from upshot.client import ResultClient
from upshot.errors import (
    ConfigError,
    ServiceRejectedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.url import Url, mask
from upshot_conformance.contract import CONTRACT
from upshot_conformance.harness import HARNESSES, CannotStartError, Harness
from upshot_conformance.records import new_id, success
from upshot_conformance.timing import Timing

__all__ = ["RUN", "Run", "SelectionError", "Selector", "Target"]

logger = logging.getLogger(__name__)

_ALIAS: Final = "UPSHOT_CONFORMANCE_URL_"
_REQUIRE: Final = "UPSHOT_CONFORMANCE_REQUIRE"
_PATIENCE: Final = 3.0  # seconds that a service may take for one request
_SOON: Final = 60.0  # seconds that the first record is kept, should nobody remove it
_PAUSE: Final = 0.2  # seconds before the first request is sent again


@dataclass(frozen=True, slots=True)
class Run:
    """What all tests of this process share.

    Attributes:
        namespaces: what every namespace of this process begins with; of this process alone.
        parallel: other processes run tests against the same services at this moment.
        seed: what everything random in the suite is drawn from; `--seed` repeats a run's.
        folder: where reports and recorded histories go; None if none were asked for.
        scale: by which factor time bounds are widened.
        timings: the time knobs of each backend that was measured, by label.
    """

    namespaces: str
    parallel: bool
    seed: int
    folder: Path | None
    scale: float
    timings: dict[str, Timing] = field(default_factory=dict[str, Timing])


RUN: Final = pytest.StashKey[Run]()
"""Where `pytest.Config.stash` keeps the run."""


class SelectionError(UpshotError):
    """A `--backend` value cannot be tested; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """One backend under test.

    Attributes:
        label: how reports call it: `redis`, and `redis-2` for a second one.
        text: its URL as given; never shown.
        private: nobody else uses the service: it was started for this run.
        offer: the distribution it comes from and its version, such as `"upshot 0.1.0"`.
        contract: the version of the contract that it declares.
        capabilities: what it declares, narrowed by having connected once; None before that.
    """

    label: str
    text: str = field(repr=False)
    private: bool = False
    offer: str = ""
    contract: str = ""
    capabilities: Capabilities | None = None

    @property
    def url(self) -> Url:
        """Where it is; shows itself masked."""
        return Url.parse(self.text)

    def to_wire(self) -> dict[str, Any]:
        """Return plain data from which an xdist worker makes this target again."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Target:
        """Return the target that `to_wire` was called on."""
        declared = wire["capabilities"]
        return replace(cls(**wire), capabilities=declared and Capabilities(**declared))

    def make(self) -> Backend:
        """Return a new backend object; does no I/O."""
        return registry.backend_class(self.url)(self.url)

    def open_harness(self) -> Harness | None:
        """Return the harness for this service, None if nobody wrote one.

        Raises:
            ConfigError: what is named as harness is not one.
        """
        found = _harness_class(self.url)
        return None if found is None else found(self.url)


class Selector:
    """Resolves `--backend` values, and keeps the private services that it started.

    Args:
        root: the folder whose `pyproject.toml` may hold aliases.
        stack: what ends the private services.
        wait: seconds that a service has to answer the first request.
        lenient: what `all` cannot start may be missing, unless UPSHOT_CONFORMANCE_REQUIRE names
            it.
    """

    def __init__(
        self, root: Path, stack: contextlib.ExitStack, *, wait: float = 10.0, lenient: bool = False
    ) -> None:
        self._root = root
        self._stack = stack
        self._wait = wait
        self._required = os.environ.get(_REQUIRE, "").split(",") if lenient else []
        self.unavailable: dict[str, str] = {}
        """Schemes that `all` found but cannot test, and why."""

    def select(self, values: Sequence[str]) -> list[Target]:
        """Return a target for each value, in order; `all` stands for every installed harness.

        Raises:
            SelectionError: a value cannot be tested.
        """
        targets: list[Target] = []
        for value in values:
            if value == "all":
                targets += self._all()
            else:
                targets.append(self._one(value))
        return list(_labelled(targets))

    def _all(self) -> Iterator[Target]:
        names: dict[type[Harness], str] = {}
        for offer in registry.offers(HARNESSES):
            harness = registry.load(offer, Harness)  # type: ignore[type-abstract]  # a base to check against
            if offer.name == harness.scheme:
                names[harness] = offer.name
            else:
                names.setdefault(harness, offer.name)
        for name in names.values():
            try:
                yield self._one(name)
            except SelectionError as exc:
                if name in self._required:
                    raise
                self.unavailable[name] = str(exc)

    def _one(self, value: str) -> Target:
        try:
            text = value if "://" in value else self._alias(value)
            if text is not None:
                label = Url.parse(text).scheme if "://" in value else value
                return _checked(Target(label, text), self._wait)
            text = self._stack.enter_context(self._startable(value).start())
            return _checked(Target(value, text, private=True), self._wait)
        except (ConfigError, CannotStartError) as exc:
            raise SelectionError(f"--backend={mask(value)}: {exc}") from exc

    def _startable(self, scheme: str) -> type[Harness]:
        offered = {offer.name for offer in registry.offers(registry.BACKENDS)}
        harnesses = {offer.name: offer for offer in registry.offers(HARNESSES)}
        if scheme not in offered and scheme in harnesses:
            return registry.load(harnesses[scheme], Harness)  # type: ignore[type-abstract]  # as above
        if scheme not in offered:
            aliases = self.aliases()
            near = difflib.get_close_matches(scheme, {*aliases, *harnesses, *offered}, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise SelectionError(
                f"--backend={mask(scheme)}: no alias and no installed backend has that name; "
                f"{hint}Aliases: {', '.join(sorted(aliases)) or 'none'}. Installed schemes: "
                f"{', '.join(sorted(offered | harnesses.keys()))}. A URL is taken as it is."
            )
        harness = _harness_class(Url.parse(f"{scheme}://"))
        if harness is None:
            raise CannotStartError(f"it has no harness that starts a service; pass {scheme}://…")
        return harness

    def _alias(self, name: str) -> str | None:
        return self.aliases().get(name)

    @functools.cached_property
    def _file_aliases(self) -> Mapping[str, str]:
        path = self._root / "pyproject.toml"
        if not path.is_file():
            return {}
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        for name in ("tool", "upshot", "conformance", "backends"):
            table = table.get(name, {})
        return cast("dict[str, str]", table)

    def aliases(self) -> Mapping[str, str]:
        """Return the URLs that have a name, from the environment and the project."""
        return dict(self._file_aliases) | {
            name.removeprefix(_ALIAS).lower().replace("_", "-"): url
            for name, url in os.environ.items()
            if name.startswith(_ALIAS)
        }


def _harness_class(url: Url) -> type[Harness] | None:
    """Return the harness that the backend class names, or else the one of its scheme."""
    named: object = getattr(registry.backend_class(url), "conformance_harness", None)
    if isinstance(named, str):
        module, _, name = named.partition(":")
        named = getattr(importlib.import_module(module), name)
    if named is None:
        offers = [offer for offer in registry.offers(HARNESSES) if offer.name == url.scheme]
        named = registry.load(offers[0], Harness) if offers else None  # type: ignore[type-abstract]  # as above
    if named is not None and not (isinstance(named, type) and issubclass(named, Harness)):
        raise ConfigError(f"the harness for {url.scheme}:// is no Harness but {named!r}")
    return named


def _checked(target: Target, wait: float) -> Target:
    """Talk to the service once and fill in what it is.

    Raises:
        SelectionError: it does not answer, its harness cannot look into it, or the backend was
            written for a contract that this suite does not know yet.
    """
    backend = registry.backend_class(target.url)
    if not _is_known(backend.contract):
        raise SelectionError(
            f"--backend={target.url}: the backend was written for contract {backend.contract!r}, "
            f"and this suite tests {CONTRACT}: use the suite that came with it"
        )
    namespace = f"cf-preflight-{secrets.token_hex(4)}"
    client = ResultClient(target.make, url=target.url, namespace=namespace, timeout=_PATIENCE)
    with contextlib.closing(client):
        _knock(client, clock.Deadline(wait))
        capabilities = client.capabilities
        if harness := target.open_harness():
            with contextlib.closing(harness):
                _look(harness, client)
    return replace(
        target,
        capabilities=capabilities,
        contract=backend.contract,
        offer=_offer(target.url.scheme, backend),
    )


def _is_known(contract: str) -> bool:
    try:
        versions = [tuple(map(int, text.split("."))) for text in (contract, CONTRACT)]
    except ValueError:
        return False
    return versions[0] <= versions[1]


def _knock(client: ResultClient, deadline: clock.Deadline) -> None:
    """Ask the backend for something, again and again until its service answers."""
    while True:
        try:
            client.load("anybody-there")
        except (ServiceUnavailableError, ServiceRejectedError) as exc:
            if isinstance(exc, ServiceRejectedError) or deadline.expired:
                raise SelectionError(
                    f"--backend={client.url}: the service does not answer. {exc}\n"
                    "Start it or correct the URL; no test was run."
                ) from exc
            clock.sleep(_PAUSE)
        except Exception:  # the service answers, the backend is broken: the clauses will say how
            logger.debug("the backend failed the first request", exc_info=True)
            return
        else:
            return


def _look(harness: Harness, client: ResultClient) -> None:
    """Ask the harness for something: one that is broken must not look like a broken backend."""
    record = success(new_id(), "preflight")
    try:
        before = harness.raw_objects("")
        is_stored = _tried(lambda: client.store(record, expires=_kept(client)))
        seen = harness.raw_objects("") - before
        is_stored = is_stored and _tried(lambda: client.load(record.task_id) == record)
        harness.purge(client.namespace)
    except Exception as exc:  # a harness is anybody's code, on anybody's driver
        reason = harness.url.scrub(str(exc)) or type(exc).__name__
        raise SelectionError(
            f"--backend={harness.url}: {type(harness).__name__} cannot look into the service: "
            f"{reason}"
        ) from exc
    if is_stored and not seen:
        raise SelectionError(
            f"--backend={harness.url}: {type(harness).__name__} is blind: a record was stored and "
            "read, and raw_objects() shows no new server object"
        )


def _kept(client: ResultClient) -> float | None:
    return None if client.capabilities.expiry_resolution is None else _SOON


def _tried(call: Callable[[], bool]) -> bool:
    """Return what a call says, False if it fails: a broken backend is for the clauses to tell."""
    try:
        return call()
    except Exception:
        logger.debug("the backend failed one of its first requests", exc_info=True)
        return False


def _offer(scheme: str, backend: type[Backend]) -> str:
    """Return the distribution and version that `backend` comes from."""
    place = f"{backend.__module__}:{backend.__qualname__}"
    for offer in registry.offers(registry.BACKENDS):
        if offer.entry_point.value.partition(" ")[0] == place or offer.name == scheme:
            return f"{offer.distribution} {offer.version}"
    return ""


def _labelled(targets: Sequence[Target]) -> Iterator[Target]:
    """Give each target a short label of its own: `redis`, `redis-2`, …"""
    counts: dict[str, int] = {}
    for target in targets:
        count = counts[target.label] = counts.get(target.label, 0) + 1
        yield target if count == 1 else replace(target, label=f"{target.label}-{count}")
