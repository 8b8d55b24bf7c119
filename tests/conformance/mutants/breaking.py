"""How a part of the core is replaced by a broken one."""

from __future__ import annotations

from typing import Any


def put(owner: Any, name: str, replacement: object) -> None:
    """Replace what a module or a class calls `name`, which must be there."""
    assert hasattr(owner, name), f"there is no {name} to break any more"
    setattr(owner, name, replacement)
