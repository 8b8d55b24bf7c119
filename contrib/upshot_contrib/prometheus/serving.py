"""The HTTP server of `upshot metrics`, which is prometheus-client's own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from upshot_contrib.prometheus.instrumenting import check_folder

__all__ = ["serve", "shared_registry"]


def shared_registry() -> tuple[CollectorRegistry, bool]:
    """Return a registry of what all processes have counted; and whether there is a folder for that.

    Raises:
        ConfigError: `PROMETHEUS_MULTIPROC_DIR` is no folder.
    """
    registry, folder = CollectorRegistry(), check_folder()
    if folder is not None:
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry, folder is not None


def serve(registry: CollectorRegistry, *, host: str, port: int) -> AbstractContextManager[str]:
    """Serve a registry in a thread; the context manager's value is the address, and ends it.

    Raises:
        OSError: nothing can listen there.
    """
    return _serving(*start_http_server(port, host, registry))


@contextmanager
def _serving(server: WSGIServer, thread: Thread) -> Generator[str]:
    name, port, *_ = server.server_address
    host = name if isinstance(name, str) else bytes(name).decode()
    try:
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
