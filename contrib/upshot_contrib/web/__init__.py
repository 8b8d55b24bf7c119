"""A page to look at: results, workers and queues in a browser, read-only; `upshot web` serves it.

See `docs/web.md`. It takes the extra `web`: Starlette, uvicorn and Jinja2.
"""

from __future__ import annotations

__all__: list[str] = []
