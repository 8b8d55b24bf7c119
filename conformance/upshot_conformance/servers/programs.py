"""Where a server's program is, and the unprivileged account that runs it."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Account", "find_program", "unprivileged_account"]


@dataclass(frozen=True)
class Account:
    """The numeric user and group that a server runs as."""

    user: int
    group: int


def find_program(
    names: Sequence[str], places: Iterable[str], *, before_path: Iterable[str] = ()
) -> Path | None:
    """Return the first of `names` in `before_path`, on PATH or in `places`, else None.

    Both are folders, as shell patterns. Debian keeps several servers where no PATH leads:
    `/usr/lib/postgresql/*/bin`, and `/usr/sbin` for people who are not root. Where a pattern
    matches several versions, the highest wins.
    """
    path = os.environ.get("PATH", os.defpath)
    for folder in (*_expand(before_path), path, *_expand(places)):
        for name in names:
            if found := shutil.which(name, path=folder):
                return Path(found)
    return None


def unprivileged_account() -> Account | None:
    """Return `nobody` when this process is root, else None: a server then runs as ourselves.

    PostgreSQL refuses to run as root, MariaDB and memcached do so only when told twice, and no
    test server needs the rights.
    """
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(user=entry.pw_uid, group=entry.pw_gid)


def _expand(patterns: Iterable[str]) -> list[str]:
    """Return the folders that the patterns match, highest version first within a pattern."""
    return [
        folder
        for pattern in patterns
        for folder in sorted(glob.glob(pattern), key=_version_key, reverse=True)
    ]


def _version_key(path: str) -> list[int]:
    """Order `…/9/bin` before `…/15/bin`."""
    return [int(digits) for digits in re.findall(r"\d+", path)]
