"""A place for large results that fsspec reaches: S3, GCS, Azure, SFTP, …"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any, final

from upshot.errors import ConfigError, DriverMissingError

__all__ = ["Remote"]


@final
class Remote:
    """Files below a URL of fsspec, which has its own settings for credentials and time limits.

    Args:
        url: as fsspec takes it.

    Raises:
        DriverMissingError: fsspec, or what it needs for this scheme, is not installed.
        ConfigError: fsspec does not know the scheme.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: tuple[int, Any, str] | None = None
        try:
            self._open()
        except (ConfigError, DriverMissingError):
            raise
        except Exception:  # noqa: S110 - some connect at once: what is away is told when it is used
            pass

    def write(self, name: str, data: bytes) -> None:
        files, path = self._at(name)
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, data)

    def read(self, name: str, size: int) -> bytes:
        files, path = self._at(name)
        with files.open(path, "rb") as file:
            found: bytes = file.read(size + 1)
        return found

    def remove(self, name: str) -> None:
        files, path = self._at(name)
        if files.exists(path):
            files.rm_file(path)

    def remove_owner(self, owner: str) -> None:
        files, path = self._at(owner)
        if files.exists(path):
            files.rm(path, recursive=True)

    def names(self) -> Iterator[str]:
        files, root = self._open()
        for path in files.find(root) if files.exists(root) else ():
            yield "/".join(path.split("/")[-2:])

    def _at(self, name: str) -> tuple[Any, str]:
        files, root = self._open()
        return files, f"{root.rstrip('/')}/{name}"

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the path in it; after a fork, a file system of our own."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            files, root = _file_system(self._url)
            opened = self._opened = (os.getpid(), files, root)
        return opened[1], opened[2]


def _file_system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        core: Any = importlib.import_module("fsspec.core")  # it has no types
        found: tuple[Any, str] = core.url_to_fs(url, skip_instance_cache=True)
    except ImportError as exc:
        missing = exc.name or "what fsspec needs for it"
        line = 'pip install "upshot[offload]"' if missing == "fsspec" else f"{exc}"
        raise DriverMissingError(
            f"result_offload is a {scheme}:// URL, which needs {missing}: {line}", name=exc.name
        ) from exc
    except ValueError as exc:
        raise ConfigError(f"result_offload: fsspec knows no {scheme}:// URLs") from exc
    return found
