"""Five of Celery's result backends as backends of upshot, to be measured by its suite."""

from __future__ import annotations

__all__: list[str] = []
