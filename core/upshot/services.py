"""What an app has open: its broker, its result backend, and what handles and calls need of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

from upshot import clock, forking, registry
from upshot.broker import Broker
from upshot.client import ResultClient
from upshot.errors import ServiceError, UnknownSchemeError
from upshot.keyring import Keyring
from upshot.observing import Observer
from upshot.origin import Origin
from upshot.request import Request
from upshot.result import AsyncResult
from upshot.result_set import ResultSet
from upshot.sealing import Sealing
from upshot.sending import Outbox
from upshot.serializers import Codecs
from upshot.service import OpenService
from upshot.settings import Settings
from upshot.url import Url

__all__ = ["EMBEDDED", "Services"]

T = TypeVar("T")

EMBEDDED = "sqlite:///.upshot/upshot.db"
"""Broker and result backend when no URL is given: a file below the working directory."""


@final
class Services:
    """Broker, result backend, serializers: each opened when first used, one for all threads.

    Args:
        settings: the app's.
        observers: who looks on, now or from some later moment.
        annotation: the return annotation of a task, by name; None if unknown.
        module: says which module a worker is started for, where one is missing.
    """

    def __init__(
        self,
        settings: Settings,
        observers: Sequence[Observer] = (),
        *,
        annotation: Callable[[str], object],
        module: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._annotation = annotation
        self._module = module
        self._observers = observers
        self._opened: dict[str, Any] = {}
        self._lock = threading.RLock()
        forking.register(self)

    @property
    def is_open(self) -> bool:
        """Whether any of it was used since it was made or closed."""
        return bool(self._opened)

    @property
    def broker_url(self) -> Url:
        """Where messages go."""
        return Url.parse(self._settings.broker_url or EMBEDDED)

    @property
    def backend_url(self) -> Url:
        """Where results go: as set, or else the broker's own service."""
        chosen = self._settings.result_backend
        if chosen is not None:
            return registry.results_url(Url.parse(chosen), self.broker_url)
        try:
            registry.backend_class(self.broker_url)
        except UnknownSchemeError:
            return Url.parse(EMBEDDED)
        return self.broker_url

    @property
    def codecs(self) -> Codecs:
        """The serializers that the app accepts."""
        return self._once("codecs", self._make_codecs)

    def _make_codecs(self) -> Codecs:
        settings, sealing = self._settings, self.sealing
        offload = None if sealing is None else sealing.offload
        return Codecs(
            registry.serializers(settings.accept_content),
            accept=settings.accept_content,
            default=settings.result_serializer,
            max_bytes=settings.result_max_bytes,
            fetch=None if offload is None else offload.fetch,
        )

    @property
    def sealing(self) -> Sealing | None:
        """What signs and encrypts records and messages; None if nothing is to be done to them.

        Raises:
            ConfigError: a file of keys cannot be read, the place for large results is none, or a
                module that it takes is not installed.
        """
        settings = self._settings
        if not (
            settings.signing_keys
            or settings.encryption_keys
            or settings.result_compression
            or settings.result_offload
        ):
            return None
        return self._once("sealing", self._make_sealing)

    def _make_sealing(self) -> Sealing:
        settings = self._settings
        keyring = Keyring(settings.signing_keys or (), settings.encryption_keys or ())
        if settings.result_compression is not None:
            from upshot.compression import require  # only for those who use it

            require(settings.result_compression)
        offload = None
        if settings.result_offload is not None:
            from upshot.offload import Offload  # only for those who use it

            offload = Offload(
                settings.result_offload,
                namespace=settings.namespace,
                keyring=keyring,
                threshold=settings.result_offload_threshold,
                max_bytes=settings.result_max_bytes,
            )
        return Sealing(
            namespace=settings.namespace,
            keyring=keyring,
            accept_unsealed=settings.accept_unsealed,
            compression=settings.result_compression,
            threshold=settings.result_compression_threshold,
            offload=offload,
        )

    @property
    def results(self) -> ResultClient:
        """The open result backend."""
        return self._once("results", self.make_results)

    def make_results(self) -> ResultClient:
        """Return a client of the result backend that is the caller's own, to close."""
        url, settings = self.backend_url, self._settings
        make = registry.backend_class(url)
        return ResultClient(
            lambda: make(url),
            url=url,
            namespace=settings.namespace,
            expires=settings.result_expires,
            timeout=settings.operation_timeout,
            max_bytes=settings.result_max_bytes,
            sealing=self.sealing,
        )

    @property
    def broker(self) -> OpenService[Broker]:
        """The open broker."""
        return self._once("broker", self.make_broker)

    def make_broker(self) -> OpenService[Broker]:
        """Return a broker that is the caller's own, to close."""
        url, namespace = self.broker_url, self._settings.namespace
        make = registry.broker_class(url)
        return OpenService(
            lambda: make(url, namespace), url=url, timeout=self._settings.operation_timeout
        )

    @property
    def origin(self) -> Origin:
        """What result handles need of the app."""
        return self._once("origin", self._make_origin)

    def _make_origin(self) -> Origin:
        return Origin(
            self.results,
            self.codecs,
            annotation=self._annotation,
            missing_worker=self._missing_worker,
            patience=self._settings.no_worker_warning,
            observers=self._observers,
        )

    def _missing_worker(self, queue: str) -> str | None:
        try:
            status = self.broker.call(
                lambda broker, seconds: broker.survey([queue], seconds),
                deadline=clock.Deadline(0),
            )[queue]
        except ServiceError:
            return None
        if status.workers is None or status.workers:
            return None
        return (
            f"no worker serves the queue {queue!r} at {self.broker_url}; "
            f"start one in another terminal: upshot -A {self._module()} worker -Q {queue}"
        )

    def _once(self, name: str, make: Callable[[], T]) -> T:
        """Return what is open under `name`, opened now if need be; one for all threads."""
        opened: T | None = self._opened.get(name)
        if opened is None:
            with self._lock:
                opened = self._opened.get(name)
                if opened is None:
                    opened = self._opened[name] = make()
        return opened

    def close(self) -> None:
        """Close broker and backend, if they were opened; the next use opens them again."""
        with self._lock:
            opened, self._opened = self._opened, {}
        for name in ("results", "broker"):
            if name in opened:
                opened[name].close()

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it; what is open renews itself."""
        self._lock = threading.RLock()

    # -- calls and handles ------------------------------------------------------------------------

    def send(self, requests: Sequence[Request]) -> list[AsyncResult[Any]]:
        """Send all requests in one batch and return their handles, in order."""
        settings = self._settings
        outbox = Outbox(
            settings,
            codecs=self.codecs,
            client=self.results,
            broker=self.broker,
            sealing=self.sealing,
            observers=self._observers,
        )
        warn, origin = settings.warn_unreleased_results, self.origin
        handles: list[AsyncResult[Any]] = [
            AsyncResult(message.task_id, origin, queue=message.queue).track(
                warn=warn and not message.ignore_result
            )
            for message in outbox.send(requests)
        ]
        for handle, request in zip(handles, requests, strict=True):
            handle.is_plain = request.spec is not None and not request.spec.streams
        for index in outbox.repeats:
            handles[index].is_repeat = True
        return handles

    def forget_key(self, name: str, key: str) -> None:
        """Release an idempotency key; as `App.forget_key`."""
        self.results.claims.release(name, key)

    def handle(self, task_id: str) -> AsyncResult[Any]:
        """Return the handle of a task; as `App.AsyncResult`."""
        origin = self.origin
        origin.require_here((task_id,))
        return AsyncResult(task_id, origin)

    def handles(self, task_ids: Sequence[str]) -> ResultSet[Any]:
        """Return the handles of many tasks; as `App.ResultSet`."""
        origin = self.origin
        origin.require_here(task_ids)
        return ResultSet(AsyncResult(task_id, origin) for task_id in task_ids)
