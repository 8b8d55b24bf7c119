"""A backend under test that declares something else than it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from upshot_conformance.layer import Layer
from upshot_conformance.selection import Target

__all__ = ["claiming"]


def claiming(target: Target, **claims: Any) -> Callable[[], Layer]:
    """Return what makes the backend under test with other capabilities.

    With one withheld, the core has to refuse it. With one claimed that is not declared, the core
    lets a test find out whether it works.

    Args:
        target: the backend.
        claims: fields of `Capabilities` and their values.
    """

    def make() -> Layer:
        layer = Layer.above(target.make())
        layer.capabilities = replace(layer.capabilities, **claims)
        return layer

    return make
