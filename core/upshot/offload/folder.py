"""A folder for large results, which every worker and reader has at the same path or another."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Final, final

from upshot import clock

__all__ = ["Folder"]

_FOLDER: Final = re.compile(r"[0-9a-f]{64}")
_FILE: Final = re.compile(r"[0-9a-f]{64}\.[0-9]{1,12}")  # a draft is its writer's until it is old
_PRIVATE: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_TRIES: Final = 100  # to make a file before its empty folder is removed by who forgets the task
_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC


@final
class Folder:
    """Files `root/ab/abcd…/file`, readable by their owner only.

    Nothing is followed that is a link, and nothing is removed that is not called as ours are.

    Args:
        root: an absolute path; made when the first file is written, with rights for its owner only.
            One that is there is used as it is.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def write(self, name: str, data: bytes) -> None:
        owner, _, file = name.rpartition("/")
        draft = f"{secrets.token_hex(16)}.{int(clock.now())}.part"
        folder, descriptor = self._draft(owner, draft)
        try:
            with open(descriptor, "wb", buffering=0) as target:
                rest = memoryview(data)
                while rest:
                    rest = rest[target.write(rest) :]
                os.fsync(target.fileno())
            os.replace(draft, file, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=folder)
            raise
        finally:
            os.close(folder)

    def read(self, name: str, size: int) -> bytes:
        # A named pipe would be waited for, but for O_NONBLOCK.
        descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NONBLOCK | _OPEN)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(f"{name} is no file")
            return file.read(size + 1)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(name))
        self._remove_empty(name.rpartition("/")[0])

    def remove_owner(self, owner: str) -> None:
        try:
            files = os.listdir(self._path(owner))
        except FileNotFoundError:
            return
        for file in filter(_FILE.fullmatch, files):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._path(owner), file))
        self._remove_empty(owner)

    def names(self) -> Iterator[str]:
        for first in _folders(self._root):
            for owner in filter(_FOLDER.fullmatch, _folders(os.path.join(self._root, first))):
                with contextlib.suppress(FileNotFoundError):
                    yield from (f"{owner}/{file}" for file in os.listdir(self._path(owner)))

    def _draft(self, owner: str, draft: str) -> tuple[int, int]:
        """Return the open folder of an owner, and a new file in it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):
                folder, above = self._made(owner)
                try:
                    file = os.open(draft, flags, _PRIVATE_FILE, dir_fd=folder)
                    try:
                        for path in above:  # now that nobody removes it
                            _sync(path)
                    except BaseException:
                        os.close(file)
                        raise
                    return folder, file
                except BaseException:
                    os.close(folder)
                    raise
        raise OSError(f"the folder {owner} is removed as often as it is made")

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name[:2], name)

    def _made(self, owner: str) -> tuple[int, list[str]]:
        """Return the open folder of an owner, and the folders in which one had to be made."""
        changed: list[str] = []
        os.makedirs(os.path.dirname(self._root), exist_ok=True)
        above = os.path.join(self._root, owner[:2])
        for path in (self._root, above, self._path(owner)):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.mkdir(path, _PRIVATE)
                changed.append(os.path.dirname(path))
        return os.open(self._path(owner), os.O_RDONLY | os.O_DIRECTORY | _OPEN), changed

    def _remove_empty(self, owner: str) -> None:
        with contextlib.suppress(OSError):  # it is gone, or not empty
            os.rmdir(self._path(owner))


def _folders(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as found:
            yield from [each.name for each in found if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return


def _sync(path: str) -> None:
    """See to it that what was made in a folder outlives a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
