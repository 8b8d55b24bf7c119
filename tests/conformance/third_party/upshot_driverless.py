"""A backend whose driver nobody has installed."""

from __future__ import annotations

import a_driver_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401  # that is the point
